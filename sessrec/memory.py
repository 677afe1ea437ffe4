"""Keeps the memory of freed tensors for the next ones."""

from __future__ import annotations

import torch


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 28 MB that are freed, where it is glibc; elsewhere nothing changes.

    glibc gives large blocks back to the system as they are freed, and the next tensor of the same size then costs more
    for fresh pages than for the work on it. It learns: blocks as large as the largest that was given back so far, up to
    32 MB, are kept from then on. So one is made, never touched, and freed.
    """
    torch.empty(28 << 20, dtype=torch.uint8)
