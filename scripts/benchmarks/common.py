"""What the benchmarks share: sessions, the clock, and processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary


def zipf_sessions(n_items: int, n_sessions: int, seed: int = 0) -> Sessions:
    """Sessions of four items on average, drawn in proportion to 1 / rank, as popularity falls in the RSC15 clicks."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(generator.geometric(1 / 3, n_sessions) + 1)])
    popularity = 1 / np.arange(1, n_items + 1)
    items = np.searchsorted(np.cumsum(popularity), generator.random(offsets[-1]) * popularity.sum())
    return Sessions(items.clip(max=n_items - 1).astype(np.int32), offsets)


def vocabulary_of(sessions: Sessions, n_items: int) -> Vocabulary:
    """All items with their counts; one that was never drawn counts once."""
    return Vocabulary(map(str, range(n_items)), np.bincount(sessions.items, minlength=n_items).clip(min=1))


def now(tensor: Tensor) -> float:
    """Time in seconds, when the device of the tensor has done its work."""
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def in_new_process(function: Callable[..., dict[str, float]], *args: str) -> dict[str, float]:
    """Call a function in a process whose memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
