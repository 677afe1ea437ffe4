"""Turn a column of times, as text, numbers or timestamps, into Unix seconds."""

from __future__ import annotations

import re
from bisect import bisect
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.arrays import empty
from sessrec.errors import SessRecError

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "min", "h", "d"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_LONG_UNITS = {"min": 60, "h": 3600, "d": 86400}  # seconds
SECONDS_PER_UNIT = {unit: 1 / number for unit, number in _PER_SECOND.items()} | _LONG_UNITS
"""Length of each unit of numbers."""
_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
_UNIT_ENDS = (1e11, 1e14, 1e17)  # the first number of the next unit
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s*(Z|[+-]\d{2}(:?\d{2})?)?)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_UTC = " UTC"  # not ISO, but what many a database writes
_STAMP = pa.timestamp("us")
_AS_NUMBERS = "as numbers, unit "
_YEAR_1, _YEAR_10000 = -62135596800, 253402300800  # Unix seconds


class UnreadableTimes(SessRecError):
    """Times of a column that cannot be read: those where ``bad`` (bool, shape (rows,)) is True."""

    def __init__(self, column: pa.ChunkedArray, bad: np.ndarray, advice: str) -> None:
        super().__init__(advice)
        self.rows = np.flatnonzero(bad)
        self.texts = [str(column[int(row)]) for row in self.rows[:3]]


def parse_times(texts: pa.Array) -> pa.Array:
    """Times (no nulls, no empty texts) as int64, float64 or timestamps in UTC, or as texts where none of these fits."""
    if len(texts) == 0:
        return texts
    plain = texts
    if texts[0].as_py().endswith(_UTC) and pc.all(pc.ends_with(texts, _UTC)).as_py():
        texts = pc.utf8_slice_codeunits(texts, 0, -len(_UTC))
    for kind in (pa.int64(), pa.float64(), _STAMP, pa.timestamp("us", tz="UTC")):
        try:
            texts.slice(0, 1).cast(kind)  # most that do not fit show it at once
            parsed = texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        if kind == pa.int64() and np.isin(np.frombuffer(texts.buffers()[2], np.uint8), (ord("x"), ord("X"))).any():
            break  # hexadecimal is read as a number, too
        return parsed.cast(_STAMP) if pa.types.is_timestamp(kind) else parsed
    return plain


def times_from_column(
    column: pa.ChunkedArray, unit: TimeUnit, where: str, time_format: str | None = None
) -> tuple[np.ndarray, str]:
    """Unix seconds of each row, and a note on how they were read.

    Args:
        column: Numbers, timestamps, or text of either kind: all numbers, or all ISO 8601. Times without a zone are
            taken as UTC.
        unit: Unit of numbers; ``auto`` takes seconds below 1e11, milliseconds below 1e14, microseconds below 1e17,
            nanoseconds above; ``min``, ``h`` and ``d`` have to be named.
        where: Names the column in messages.
        time_format: Format of texts that are neither numbers nor ISO 8601, such as ``%d/%m/%Y %H:%M:%S``.

    Returns:
        Seconds, int64 where all are whole, else float64; and the note.

    Raises:
        UnreadableTimes: If a time cannot be read.
        SessRecError: If one is not finite or beyond the year 9999, or the column mixes numbers of different units.
    """
    kind = column.type
    if time_format is not None and not time_format.strip():
        raise SessRecError("--data.time_format is empty")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):  # of a typed file: they are read already
        return _from_timestamps(column, where), "as dates and times, UTC where no zone is given"
    if time_format is not None:
        texts = column if pa.types.is_string(kind) else column.cast(pa.string())
        return _from_format(texts, time_format), f"by the format {time_format}"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _from_numbers(column, unit, where)
    if not pa.types.is_string(kind):
        raise SessRecError(f"{where} is of type {kind}: times must be numbers, timestamps or text")
    column = pc.utf8_trim_whitespace(column)
    is_number = pc.match_substring_regex(column, NUMBER)
    if pc.all(is_number).as_py():
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            column = column.cast(pa.float64())
        return _from_numbers(column, unit, where)
    return _from_mixed_iso(column, is_number.to_numpy()), "as ISO 8601, UTC where no zone is given"


def _from_numbers(column: pa.ChunkedArray, unit: TimeUnit, where: str) -> tuple[np.ndarray, str]:
    if column.type in (pa.float16(), pa.float32()):
        raise SessRecError(f"{where} is of type {column.type}, too coarse for Unix time: save int64 or float64")
    if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column)).as_py():
        raise UnreadableTimes(column, ~np.isfinite(column.to_numpy()), "times must be finite numbers")
    low, high = (value.as_py() for value in pc.min_max(column).values())
    if unit == "auto":
        _check_calendar_numbers(column, low, high, where)
        unit = _unit(low, high, where)
    if max(abs(low), abs(high)) >= _YEAR_10000 / SECONDS_PER_UNIT[unit]:
        fault = f"{where} holds times from {low} to {high} {unit}, beyond the year 9999"
        raise SessRecError(f"{fault}; give another --data.time_unit")
    if unit in _LONG_UNITS:
        return _seconds(pc.multiply(column, _LONG_UNITS[unit]), 1), f"{_AS_NUMBERS}{unit}"
    seconds = _seconds(column, _PER_SECOND[unit])
    exactness = ", to a quarter of a microsecond" if unit == "ns" and seconds.dtype.kind == "f" else ""
    return seconds, f"{_AS_NUMBERS}{unit}{exactness}"


def unit_of_note(note: str) -> str | None:
    """Unit of the numbers that a note of `times_from_column` tells of; None where it tells of no numbers."""
    return note.removeprefix(_AS_NUMBERS).partition(",")[0] if note.startswith(_AS_NUMBERS) else None


def _check_calendar_numbers(column: pa.ChunkedArray, low: float, high: float, where: str) -> None:
    """Days such as 20140407, or seconds such as 20140407105109, are no counts from 1970."""
    for digits, example in ((8, "%Y%m%d"), (14, "%Y%m%d%H%M%S")):
        tail = 10 ** (digits - 8)
        if not 19000101 * tail <= low <= high < 21010101 * tail:
            continue
        days = column.cast(pa.float64(), safe=False).to_numpy() // tail
        month, day = days // 100 % 100, days % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            raise SessRecError(
                f"{where} holds numbers such as {column[0]} that look like dates: give --data.time_format {example}, "
                "or --data.time_unit s if they count seconds"
            )


def _unit(low: float, high: float, where: str) -> TimeUnit:
    sizes = [max(abs(low), abs(high)), 0.0 if low <= 0 <= high else min(abs(low), abs(high))]
    largest, smallest = (_UNITS[bisect(_UNIT_ENDS, size)] for size in sizes)
    if largest != smallest:
        raise SessRecError(
            f"{where} holds times from {low} to {high}: the largest looks like {largest} and the smallest like "
            f"{smallest}; mend the log, or give --data.time_unit"
        )
    return largest


def _seconds(column: pa.ChunkedArray, per_second: int) -> np.ndarray:
    """Numbers divided by ``per_second``, int64 where nothing is lost by it, else float64."""
    seconds = empty(len(column), np.int64)
    start = 0
    for chunk in column.chunks:
        numbers, stop = chunk.to_numpy(zero_copy_only=False), start + len(chunk)
        if seconds.dtype.kind == "i":
            if np.abs(numbers).max(initial=0) < 2**53 or numbers.dtype.kind != "f":
                np.floor_divide(numbers, per_second, out=seconds[start:stop], casting="unsafe")
            if not np.array_equal(seconds[start:stop] * per_second, numbers):
                whole, seconds = seconds, empty(len(column), np.float64)
                seconds[:] = whole  # not whole, and so for all that follow
        if seconds.dtype.kind == "f":
            np.divide(numbers, per_second, out=seconds[start:stop])
        start = stop
    return seconds


def _from_timestamps(column: pa.ChunkedArray, where: str) -> np.ndarray:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    numbers, per_second = column.cast(pa.int64()), _PER_SECOND[column.type.unit]
    low, high = (value.as_py() for value in pc.min_max(numbers).values())
    if low < _YEAR_1 * per_second or high >= _YEAR_10000 * per_second:
        raise SessRecError(f"{where} holds a time before the year 1 or beyond the year 9999")
    return _seconds(numbers, per_second)


def _from_format(column: pa.ChunkedArray, time_format: str) -> np.ndarray:
    texts = pd.Series(pc.utf8_trim_whitespace(column).to_pandas())
    try:
        read = pd.to_datetime(texts, format=time_format, utc=True, errors="coerce")
    except ValueError as error:
        raise SessRecError(f"--data.time_format {time_format!r}: {error}") from error
    if read.isna().any():
        raise UnreadableTimes(column, read.isna().to_numpy(), f"they are not written as {time_format!r}")
    return _from_stamps(read)


def _from_stamps(read: pd.Series) -> np.ndarray:
    """Unix seconds of times that have a zone."""
    stamps = read.dt.tz_localize(None).to_numpy()
    per_second = _PER_SECOND[np.datetime_data(stamps.dtype)[0]]
    whole, rest = np.divmod(stamps.astype(np.int64), per_second)
    return whole + rest / per_second if rest.any() else whole


def _from_mixed_iso(column: pa.ChunkedArray, is_number: np.ndarray) -> np.ndarray:
    """Some with a zone and some without, finer than microseconds, or not all readable."""
    text = pc.if_else(pc.ends_with(column, _UTC), pc.utf8_slice_codeunits(column, 0, -len(_UTC)), column)
    is_iso = pc.match_substring_regex(text, ISO).to_numpy()
    read = pd.to_datetime(pd.Series(text.to_pandas()).where(is_iso), format="ISO8601", utc=True, errors="coerce")
    bad = read.isna().to_numpy()
    if bad.any():
        if is_number.sum() > (~bad).sum():
            advice = "the others are numbers; --data.missing_values drops rows of texts that stand for an empty field"
            raise UnreadableTimes(column, ~is_number, advice)
        if is_number[bad].all():
            raise UnreadableTimes(column, bad, "the others are dates")
        advice = "write them as Unix time or like 2014-04-07T10:51:09Z, or give --data.time_format"
        raise UnreadableTimes(column, bad, advice)
    return _from_stamps(read)


def parse_duration(duration: str | float, option: str) -> float:
    """Seconds of a duration.

    Args:
        duration: A number of seconds, or a number followed by s, m, h, d or w.
        option: The option it came from, for the message.

    Raises:
        SessRecError: If the text is no duration.

    Example:
        >>> parse_duration("1.5h", "--data.test_duration")
        5400.0
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([smhdw]?)\s*", str(duration))
    if match is None:
        raise SessRecError(f"{option} is {duration!r}; write seconds, or a number and one of s, m, h, d, w such as 1d")
    return float(match[1]) * _SECONDS[match[2] or "s"]
