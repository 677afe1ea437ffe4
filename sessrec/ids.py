"""Turn a column of ids into codes, keeping every id as the text that the log has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from sessrec.chunks import map_chunks

_ZERO, _NINE = ord("0"), ord("9")


def encode_ids(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Number the distinct ids of a column.

    Texts that are the plain decimal form of a whole number (no leading zero, no sign) are hashed as numbers, which is
    several times faster; the result is the same.

    Args:
        column: Text or whole numbers, without nulls.

    Returns:
        The code of each row, int32 where that is wide enough, else int64, and the text of each code; every code occurs.

    Example:
        >>> codes, ids = encode_ids(pa.chunked_array([["0012", "12", "0012"]]))
        >>> codes.tolist(), ids.to_pylist()
        ([0, 1, 0], ['0012', '12'])
    """
    numbers = _numbers(column)
    if numbers is not None:
        codes, distinct = _encode_numbers(numbers)
        return codes, pa.array(distinct).cast(pa.string())
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary


def _numbers(column: pa.ChunkedArray) -> list[np.ndarray] | None:
    """The column as pieces of int64, None where a text is not the plain form of such a number."""
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return [chunk.cast(pa.int64()).to_numpy() for chunk in column.chunks]
    if not pa.types.is_string(column.type) or _plain_numbers(column.chunk(0)) is None:
        return None
    parts = map_chunks(_plain_numbers, column)
    numbers = [part for part in parts if part is not None]
    return numbers if len(numbers) == len(parts) else None


def _plain_numbers(texts: pa.Array) -> np.ndarray | None:
    if len(texts) == 0:
        return np.empty(0, dtype=np.int64)
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    letters = np.frombuffer(texts.buffers()[2], dtype=np.uint8)
    first = letters[offsets[:-1]]
    if first.min() < _ZERO or first.max() > _NINE or ((first == _ZERO) & (np.diff(offsets) > 1)).any():
        return None
    try:
        return texts.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:  # not a number, or too large for one
        return None


def _encode_numbers(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and distinct numbers."""
    filled = [part for part in parts if len(part)]
    low, high = int(min(part.min() for part in filled)), int(max(part.max() for part in filled))
    n_rows = sum(map(len, filled))
    if high - low > 4 * n_rows + 1024 or high - low >= 2**31:
        codes, distinct = pd.factorize(np.concatenate(filled))
        return (codes.astype(np.int32) if len(distinct) < 2**31 else codes), distinct
    # ids without many gaps between them: their own place is their code
    codes = np.empty(n_rows, dtype=np.int32)
    occurs = np.zeros(high - low + 1, dtype=bool)
    start = 0
    for part in filled:
        place = codes[start : start + len(part)]
        np.subtract(part, low, out=place, casting="unsafe")
        occurs[place] = True
        start += len(part)
    if not occurs.all():
        place_of_number = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
        codes = place_of_number[codes]
    return codes, np.flatnonzero(occurs) + low
