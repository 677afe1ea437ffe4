"""What a figure was measured with: versions and hardware."""

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


def _processor() -> str:
    """Model of the CPU, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
