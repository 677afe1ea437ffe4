"""Merge the sorted runs of sessions that Spark's workers have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sessrec.click_log.arrays import arrays_on_disk
from sessrec.click_log.ordering import take_runs
from sessrec.engines.spark_shards import mapped_array, mapped_table

_SESSIONS = 1 << 18  # that are merged at a time
_SAMPLES = 64  # of each run among so many


class Run(NamedTuple):
    """Sessions in the order of their first events, and these events, as a task wrote them."""

    ids: pa.ChunkedArray
    start: np.ndarray
    """Time of the first event."""
    first: np.ndarray
    """Row of the first event."""
    offsets: np.ndarray
    columns: list[np.ndarray]
    """Item, time and, where some are not, whether each event is wanted."""

    def places(self, start: float, first: int) -> int:
        """Number of sessions before the one that begins at a time, with a row."""
        low, high = (int(np.searchsorted(self.start, start, side)) for side in ("left", "right"))
        return low + int(np.searchsorted(self.first[low:high], first))


def mapped_run(folder: Path, number: int) -> Run:
    """Map a run that a task wrote to a folder."""
    table = mapped_table(folder / f"run-{number}.arrow")
    start, first, n = (table[name].to_numpy() for name in ("start", "first", "n"))
    arrays = [mapped_array(folder / f"run-{number}-{name}.npy") for name in ("item", "time", "is_wanted")]
    offsets = np.concatenate([[0], np.cumsum(n)])
    return Run(table["id"], start, first, offsets, [array for array in arrays if array is not None])


def merged(runs: list[Run], columns: list[np.ndarray], offsets: np.ndarray) -> Iterator[pa.Array]:
    """Bring the sessions of all runs into one order, some at a time.

    Args:
        runs: Sorted runs.
        columns: Where the columns of their events go.
        offsets: Where the first event of each session goes, and the number of events.

    Yields:
        Ids of the sessions.
    """
    n_sessions, n_events = 0, 0
    offsets[0] = 0
    for places in _cuts(runs):
        parts = [(run, begin, end) for run, (begin, end) in zip(runs, places, strict=True) if begin < end]
        order = np.lexsort(
            [np.concatenate([getattr(run, key)[a:b] for run, a, b in parts]) for key in ("first", "start")]
        )
        lengths = np.concatenate([np.diff(run.offsets[a : b + 1]) for run, a, b in parts])
        found = [
            np.concatenate([run.columns[number][run.offsets[a] : run.offsets[b]] for run, a, b in parts])
            for number in range(len(columns))
        ]
        with arrays_on_disk(None):
            taken, ends = take_runs(found, np.concatenate([[0], np.cumsum(lengths)]), order)
        for column, own in zip(columns, taken, strict=True):
            column[n_events : n_events + len(own)] = own
        offsets[n_sessions + 1 : n_sessions + len(ends)] = n_events + ends[1:]
        n_sessions, n_events = n_sessions + len(order), n_events + int(ends[-1])
        ids = pa.chunked_array([piece for run, a, b in parts for piece in run.ids.slice(a, b - a).chunks])
        yield ids.take(pa.array(order)).combine_chunks()


def _cuts(runs: list[Run]) -> Iterator[list[tuple[int, int]]]:
    """Begin and end in each run of consecutive ranges of all sessions, of about ``_SESSIONS`` each."""
    step = max(1, _SESSIONS // _SAMPLES)
    starts, firsts = (np.concatenate([getattr(run, key)[::step] for run in runs]) for key in ("start", "first"))
    bounds = np.lexsort((firsts, starts))[_SAMPLES::_SAMPLES]
    begins = [0] * len(runs)
    for bound in bounds.tolist():
        ends = [run.places(starts[bound], firsts[bound]) for run in runs]
        yield list(zip(begins, ends, strict=True))
        begins = ends
    yield list(zip(begins, (len(run.start) for run in runs), strict=True))
