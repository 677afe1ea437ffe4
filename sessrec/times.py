"""Turn a column of times, as text, numbers or timestamps, into Unix seconds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.errors import SessRecError

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_ISO = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s*(Z|[+-]\d{2}(:?\d{2})?)?)?\s*$"
_ZONE = r"\d{2}:\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)\s*$"


def times_from_column(column: pa.ChunkedArray, unit: TimeUnit, where: str) -> tuple[np.ndarray, str]:
    """Unix seconds of each row, and a note on how they were read.

    Args:
        column: Numbers, timestamps, or text of either kind: all numbers, or all ISO 8601. ISO times without a zone are
            taken as UTC.
        unit: Unit of numbers; ``auto`` takes seconds below 1e11, milliseconds below 1e14, microseconds below 1e17,
            nanoseconds above.
        where: Names the column in messages.

    Returns:
        Seconds, int64 where all are whole, else float64; and the note.

    Raises:
        SessRecError: If a time cannot be read, is not finite, or the column mixes numbers of different units.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        microseconds = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()
        return _seconds(microseconds, 1_000_000), f"times read from {where} as {kind}"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        is_number = pc.match_substring_regex(column, _NUMBER)
        if not pc.all(is_number).as_py():
            return _from_iso(column, is_number, where), f"times read from {where} as ISO 8601"
        numbers = _numbers(pc.utf8_trim_whitespace(column))
    else:
        numbers = column.to_numpy()
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise SessRecError(f"{where} holds a time that is not finite")
    if unit == "auto":
        unit, smallest = _unit_of(np.abs(numbers).max()), _unit_of(np.abs(numbers).min())
        if unit != smallest:
            raise SessRecError(
                f"{where} holds times from {numbers.min()} to {numbers.max()}: the largest looks like {unit} and the "
                f"smallest like {smallest}; mend the log, or give --data.time_unit"
            )
    return _seconds(numbers, _PER_SECOND[unit]), f"times read from {where} as numbers, unit {unit}"


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    try:
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return column.cast(pa.float64()).to_numpy()


def _unit_of(size: float) -> TimeUnit:
    if size < 1e11:
        return "s"
    if size < 1e14:
        return "ms"
    return "us" if size < 1e17 else "ns"


def _seconds(numbers: np.ndarray, per_second: int) -> np.ndarray:
    """Numbers divided by ``per_second``, int64 where nothing is lost by it."""
    if numbers.dtype.kind == "f" and (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53:
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind != "f" and (numbers % per_second == 0).all():
        return numbers.astype(np.int64) // per_second
    return numbers / per_second


def _from_iso(column: pa.ChunkedArray, is_number: pa.ChunkedArray, where: str) -> np.ndarray:
    is_iso = pc.match_substring_regex(column, _ISO)
    if not pc.all(is_iso).as_py():
        bad = np.flatnonzero(~is_iso.to_numpy())
        shown = ", ".join(f"{column[int(row)].as_py()!r} in data row {row + 1}" for row in bad[:3])
        kinds = "numbers and texts" if pc.any(is_number).as_py() else "texts"
        raise SessRecError(
            f"{where}: {len(bad)} of {len(column)} times are not ISO 8601 among {kinds}, first {shown}; write them as "
            "Unix seconds or like 2014-04-07T10:51:09Z"
        )
    text = pc.utf8_trim_whitespace(column)
    has_zone = pc.match_substring_regex(text, _ZONE)
    text = pc.if_else(has_zone, text, pc.binary_join_element_wise(_with_clock(text), "Z", ""))
    microseconds = text.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return _seconds(microseconds, 1_000_000)


def _with_clock(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """A day alone is its midnight."""
    return pc.if_else(pc.equal(pc.utf8_length(text), 10), pc.binary_join_element_wise(text, "T00:00:00", ""), text)
