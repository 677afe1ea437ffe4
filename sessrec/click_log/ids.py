"""Turn a column of ids into codes, keeping every id as the text that the log has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

_ROWS = 1 << 20
_ZERO, _NINE = ord("0"), ord("9")


def plain_numbers(ids: pa.Array) -> pa.Array:
    """The ids (text or whole numbers, no nulls, no empty texts) as int64 where all are plain numbers, else as they are.

    A plain number is text that is the decimal form of a whole number (no leading zero, no sign), so that nothing is
    lost; or a number that a typed file holds.
    """
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.string()) if ids.type == pa.uint64() else ids.cast(pa.int64())
    if len(ids) == 0:
        return ids
    offsets = np.frombuffer(ids.buffers()[1], dtype=np.int32)[ids.offset : ids.offset + len(ids) + 1]
    first = np.frombuffer(ids.buffers()[2], dtype=np.uint8)[offsets[:-1]]
    if first.min() < _ZERO or first.max() > _NINE or ((first == _ZERO) & (np.diff(offsets) > 1)).any():
        return ids
    try:
        return ids.cast(pa.int64())
    except pa.ArrowInvalid:  # not a number, or too large for one
        return ids


def encode_ids(pieces: list[pa.Array]) -> tuple[np.ndarray, pa.Array]:
    """Number the distinct ids of a column.

    Plain numbers are hashed as numbers, which is several times faster; the result is the same.

    Args:
        pieces: The column in pieces, each as `plain_numbers` gives it.

    Returns:
        The code of each row, int32 where that is wide enough, else int64; and the id of each code, as int64 where all
        are plain numbers, else as text. Every code occurs.

    Example:
        >>> codes, ids = encode_ids([pa.array(["0012", "12"]), pa.array([12])])
        >>> codes.tolist(), ids.to_pylist()
        ([0, 1, 1], ['0012', '12'])
    """
    pieces = [piece for piece in pieces if len(piece)]
    if all(piece.type == pa.int64() for piece in pieces):
        codes, distinct = _encode_numbers([piece.to_numpy() for piece in pieces])
        return codes, pa.array(distinct, pa.int64())
    column = pa.chunked_array([piece.cast(pa.string()) for piece in pieces])
    encoded = column.dictionary_encode().combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary


def are_dense(low: int, high: int, n_rows: int) -> bool:
    """Whether ids that are plain numbers are numbered by their size; else in the order in which they come."""
    return high - low <= 4 * n_rows + 1024 and high - low < 2**31


def _encode_numbers(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and distinct numbers."""
    low, high = int(min(part.min() for part in parts)), int(max(part.max() for part in parts))
    n_rows = sum(map(len, parts))
    if not are_dense(low, high, n_rows):
        codes, distinct = pd.factorize(np.concatenate(parts))
        return (codes.astype(np.int32) if len(distinct) < 2**31 else codes), distinct
    # ids without many gaps between them: their own place is their code
    codes = np.empty(n_rows, dtype=np.int32)
    occurs = np.zeros(high - low + 1, dtype=bool)
    start = 0
    for part in parts:
        place = codes[start : start + len(part)]
        np.subtract(part, low, out=place, casting="unsafe")
        occurs[place] = True
        start += len(part)
    if not occurs.all():
        place_of_number = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
        for start in range(0, n_rows, _ROWS):  # in place, for fresh memory is slow
            codes[start : start + _ROWS] = place_of_number[codes[start : start + _ROWS]]
    return codes, np.flatnonzero(occurs) + low
