"""Cut sessions where nothing happens for long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.arrays import empty, joined_texts
from sessrec.click_log.events import Events
from sessrec.errors import SessRecError

_ROWS = 1 << 20  # in a block


def cut_at_gaps(events: Events, gap: float) -> Events:
    """Begin a new session where more than ``gap`` seconds pass; session ids get the number of the piece.

    Raises:
        SessRecError: If the log has no times.
    """
    if not events.has_times:
        raise SessRecError("--data.session_gap needs times, and --data.time_column is null")
    begins = empty(len(events), bool)
    for start in range(1, len(events), _ROWS):
        begins[start : start + _ROWS] = np.diff(events.time[start - 1 : start + _ROWS]) > gap
    begins[events.offsets[:-1]] = True
    first_rows = np.flatnonzero(begins)
    whole = np.searchsorted(events.offsets, first_rows, side="right") - 1  # session that each piece is of
    piece = np.arange(len(whole)) - np.searchsorted(whole, whole) + 1

    def ids() -> Iterator[pa.Array]:
        for start in range(0, len(whole), _ROWS):
            block = slice(start, start + _ROWS)
            own = events.session_ids.take(pa.array(events.numbers[whole[block]])).cast(pa.string())
            yield pc.binary_join_element_wise(own, pa.array(piece[block]).cast(pa.string()), "_")

    n_sessions = events.n_sessions
    return replace(
        events,
        offsets=np.concatenate([first_rows, [len(events)]]),
        numbers=np.arange(len(piece), dtype=np.int32),
        session_ids=joined_texts(ids()),
        figures=events.figures | {"visitors_or_sessions": n_sessions, "cuts_at_gaps": len(piece) - n_sessions},
    )
