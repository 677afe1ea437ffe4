"""`StoredIds`: the distinct ids of rows that are kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from sessrec.click_log.arrays import empty, joined_texts
from sessrec.click_log.id_checks import IdColumn


def joined_ids(blocks: Iterator[pa.Array], n_ids: int, are_numbers: bool) -> pa.Array:
    """Ids that come in blocks, as one array: int64 where they are numbers, else text."""
    if not are_numbers:
        return joined_texts(blocks)
    ids, end = empty(n_ids, np.int64), 0
    for block in blocks:
        ids[end : end + len(block)] = block
        end += len(block)
    return pa.array(ids)


class StoredIds(IdColumn):
    """Ids whose rows are in a database, or with the workers of a cluster.

    Args:
        kind: What they are ids of.
        name: Name of the column.
        ids: Distinct ids, text or int64.
        counts: Number of rows of each, int64.
        first_rows: First row of each, int64.
    """

    def __init__(self, kind: str, name: str, ids: pa.Array, counts: np.ndarray, first_rows: np.ndarray) -> None:
        super().__init__(kind, name, np.empty(0, np.int32), ids)
        self.counts = counts
        self.first_rows = first_rows

    def first_of(self, of_ids: pa.Array) -> tuple[str, int]:
        """See `IdColumn`."""
        places = np.flatnonzero(of_ids.to_numpy(zero_copy_only=False))
        place = int(places[self.first_rows[places].argmin()])
        return str(self.ids[place]), int(self.first_rows[place])
