"""Look for ids that are lists of ids: a field that holds a session's items, taken for one item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.id_checks import IdColumn
from sessrec.text import counted

_PRINTED = r"""(?s)^\s*\[.*['", ].*\]\s*$"""
_SEPARATED = r"""^[^\s,|;]*\d[^\s,|;]*(\s*[,|;]\s*|\s+)[^\s,|;]*\d"""  # two ids or more; ids have digits, words do not
_BETWEEN = r"\s*[,|;]\s*|\s+"


def warn_of_lists(item: IdColumn, place_of: Callable[[int], str]) -> list[str]:
    """Say that item ids look like lists, with one of them, and how lists are read.

    Ids look like lists where they are printed as such; or where most consist of parts with digits, which repeat at
    least twice as often as the ids themselves do.

    Args:
        item: Ids of the items.
        place_of: Gives file and line of a row.
    """
    if item.ids.type == pa.int64():
        return []
    counts = item.counts
    n_rows = int(counts.sum())
    looks = pc.match_substring_regex(item.ids, _PRINTED)
    if 2 * _n_events(counts, looks) < n_rows:
        looks = pc.match_substring_regex(item.ids, _SEPARATED)
        if 2 * _n_events(counts, looks) < n_rows or not _parts_repeat(item.ids.filter(looks), counts, looks):
            return []
    shown, row = item.first_of(looks)
    return [
        f"{counted(pc.sum(looks).as_py(), 'item id')} such as {shown[:60]!r} ({place_of(row)}), a list of items in a "
        "field? --data.item_lists all reads lists; longest, where the rows of a session repeat its list as it grows"
    ]


def _n_events(counts: np.ndarray, of_ids: pa.Array) -> int:
    return int(counts[of_ids.to_numpy(zero_copy_only=False)].sum())


def _parts_repeat(ids: pa.Array, counts: np.ndarray, looks: pa.Array) -> bool:
    """Whether the parts of ids occur twice as often, on average, as the ids do."""
    parts = pc.split_pattern_regex(ids, _BETWEEN)
    own = counts[looks.to_numpy(zero_copy_only=False)]
    n_parts = int((pc.list_value_length(parts).to_numpy() * own).sum())
    return n_parts / pc.count_distinct(parts.flatten()).as_py() >= 2 * own.sum() / len(ids)
