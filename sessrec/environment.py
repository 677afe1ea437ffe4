"""The machine: versions, hardware, and the memory of freed tensors."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from sessrec import __version__


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    packages = ("lightning", "torchmetrics", "numpy", "scipy", "pyarrow")
    own = {"sessrec": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return own | {package: version(package) for package in packages}


def hardware(device: torch.device) -> dict[str, str | int]:
    """The machine, and the device that the model is on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def tune_memory() -> None:
    """Have torch and the C library keep memory in a way that suits large item tables, where they are able to.

    On Linux, torch then asks for pages of 2 MB for large tensors, so that looking up rows of a large table is faster by
    a quarter; it reads the variable at its first tensor, and one that the user has set stays. And glibc keeps blocks of
    up to 28 MB that are freed: it gives large ones back to the system, and the next tensor of the same size costs more
    for fresh pages than for the work on it, until it has seen a block as large as that freed.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    torch.empty(28 << 20, dtype=torch.uint8)


def _processor() -> str:
    """Model of the CPU, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
