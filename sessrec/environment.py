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
    packages = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "pyarrow")
    return {
        "sessrec": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def hardware(device: torch.device) -> dict[str, str | int]:
    """The machine, and the device that the model is on.

    Args:
        device: Device of the model.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 28 MB that are freed, where it is glibc; elsewhere nothing changes.

    glibc gives large blocks back to the system as they are freed, and the next tensor of the same size then costs more
    for fresh pages than for the work on it. It learns: blocks as large as the largest that was given back so far, up to
    32 MB, are kept from then on. So one is made, never touched, and freed.
    """
    torch.empty(28 << 20, dtype=torch.uint8)


def _processor() -> str:
    """Model of the CPU, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
