"""Look for one number, or one text but for blanks, that a column of ids has in several spellings."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.id_checks import IdColumn
from sessrec.text import counted

_LONGEST = 30  # bytes; longer ids, such as UUIDs, are no numbers
_BLANKS = r"^\s|\s$"
_NUMBER = r"^[+-]?\d+(\.0*)?$"
_RESPELLED = r"^[+-]?0\d|^\+|\.0*$"  # of numbers: leading zeros, a sign, or a decimal point
_EXPONENT = r"^[+-]?\d+(\.\d*)?[eE][+-]?\d{1,2}$"
_SHARE = 0.9  # of the ids must be numbers, or an e among digits is taken for a letter


def warn_of_spellings(column: IdColumn, place_of: Callable[[int], str]) -> list[str]:
    """Name an id that a column has in two spellings: ``1`` and ``1.0``, ``007`` and ``7``, ``1e3`` and ``1000``.

    Works on the distinct ids, and hardly at all where each is written as its number is.

    Args:
        column: Ids of the sessions, visitors or items; those that are int64 have one spelling each.
        place_of: Gives file and line of a row.
    """
    if column.ids.type == pa.int64():
        return []
    plain = _plain_spellings(column.ids)
    if plain is None:
        return []
    counts = column.counts
    distinct = pc.value_counts(plain)
    shared = distinct.filter(pc.greater(distinct.field("counts"), 1)).field("values")
    if not len(shared):
        return []
    members = np.flatnonzero(pc.is_in(plain, shared).to_numpy(zero_copy_only=False))
    first = members[plain.take(pa.array(members)).dictionary_encode().indices.to_numpy() == 0]
    common, rare = first[np.argsort(-counts[first], kind="stable")][[0, -1]].tolist()
    shown = " and ".join(_shown(column, code, int(counts[code]), place_of) for code in (common, rare))
    warning = (
        f"column {column.name} has {counted(len(shared), f'{column.kind} id')} in several spellings, such as {shown}: "
        f"they are kept apart, as {counted(len(members), column.kind)}"
    )
    lost = int(np.count_nonzero(counts[members] == 1))
    if column.kind == "session" and lost:
        warning += f", {lost} of them with one event only, which is lost by it"
    return [warning]


def _shown(column: IdColumn, code: int, n_events: int, place_of: Callable[[int], str]) -> str:
    text, row = column.first_of(pa.array(np.arange(len(column.ids)) == code))
    return f"{text!r} ({counted(n_events, 'event')}, first in {place_of(row)})"


def _plain_spellings(ids: pa.Array) -> pa.Array | None:
    """Each id in one spelling of it; None where every id is written so already."""
    plain = ids
    has_blanks = pc.match_substring_regex(ids, _BLANKS) if _has_outer_blanks(ids) else None
    if has_blanks is not None:
        plain = pc.utf8_trim_whitespace(ids)
    may_be = np.flatnonzero((pc.binary_length(plain).to_numpy() <= _LONGEST) & _begins_like_a_number(plain))
    short = plain.take(pa.array(may_be))
    is_number = pc.match_substring_regex(short, _NUMBER)
    respelled = pc.and_(is_number, pc.match_substring_regex(short, _RESPELLED))
    has_exponent = pc.match_substring_regex(short, _EXPONENT)
    n_numbers = pc.sum(pc.or_(is_number, has_exponent)).as_py() or 0
    if n_numbers < _SHARE * len(ids):
        has_exponent = pa.array(np.zeros(len(short), dtype=bool))
    odd = pc.or_(respelled, has_exponent)
    if not pc.any(odd).as_py():
        return plain if has_blanks is not None else None
    respellings = pc.replace_substring_regex(short, r"^\+?(-?)0*(\d+?)(\.0*)?$", r"\1\2").to_numpy(zero_copy_only=False)
    for place in np.flatnonzero(has_exponent.to_numpy(zero_copy_only=False)).tolist():
        number = f"{Decimal(respellings[place]):f}"
        respellings[place] = number.rstrip("0").rstrip(".") if "." in number else number
    is_odd = np.zeros(len(ids), dtype=bool)
    is_odd[may_be] = odd.to_numpy(zero_copy_only=False)
    return pc.replace_with_mask(plain, pa.array(is_odd), pa.array(respellings, plain.type).filter(odd))


def _has_outer_blanks(ids: pa.Array) -> bool:
    """Whether the first or the last byte of some id may be of a blank."""
    first, last = _edge_bytes(ids)
    return bool(((first <= 32) | (last <= 32) | (first >= 128) | (last >= 128)).any())


def _begins_like_a_number(ids: pa.Array) -> np.ndarray:
    """Whether the first byte of each id is a digit or a sign, and the last a digit or a point."""
    first, last = _edge_bytes(ids)
    begins = ((first >= ord("0")) & (first <= ord("9"))) | (first == ord("+")) | (first == ord("-"))
    return begins & (((last >= ord("0")) & (last <= ord("9"))) | (last == ord(".")))


def _edge_bytes(ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """First and last byte of each id; 0 for an id that is blank but for its blanks."""
    width = np.int64 if pa.types.is_large_string(ids.type) else np.int32
    offsets = np.frombuffer(ids.buffers()[1], dtype=width)[ids.offset : ids.offset + len(ids) + 1]
    content = np.frombuffer(ids.buffers()[2], dtype=np.uint8)
    if not len(content):
        return np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.uint8)
    is_empty = np.diff(offsets) == 0
    first, last = content[np.minimum(offsets[:-1], len(content) - 1)], content[np.maximum(offsets[1:] - 1, 0)]
    return np.where(is_empty, 0, first), np.where(is_empty, 0, last)
