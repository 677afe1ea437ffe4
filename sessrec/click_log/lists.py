"""Read lists of items: one row of the file becomes one row an item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.times import ISO, NUMBER
from sessrec.errors import SessRecError

_ROWS = 1 << 16  # in a block
_PRINTED = r"(?s)^\[.*\]$"
_BETWEEN = {"|": r"\s*\|\s*", ",": r"\s*,\s*", ";": r"\s*;\s*", " ": r"\s+"}
_BETWEEN_QUOTED, _BETWEEN_BARE = r"""['"]\s*,?\s*['"]""", r"\s*,\s*|\s+"
_TIME = f"{NUMBER}|{ISO}"
_CUT = r"""^[^'"]*(^|[\s,])\.\.\.([\s,]|$)|['"][\s,]+\.\.\."""  # what is left out of a long list in print


def field_of(array: pa.Array, keys: tuple[str, ...] = ()) -> pa.Array:
    """The field that ``keys`` lead to inside of records; of each record where these stand in a list.

    Returns:
        An array of one entry a row, text as ``string``; a list array, without nulls, where the path leads through a
        list.
    """
    if is_list(array.type):
        offsets = np.concatenate([[0], np.cumsum(_lengths(array))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), field_of(array.flatten(), keys))
    if keys:
        return field_of(pc.struct_field(array, keys[0]), keys[1:])
    if pa.types.is_dictionary(array.type):
        return field_of(array.dictionary).take(array.indices)
    return array.cast(pa.string()) if is_text(array.type) or pa.types.is_decimal(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """Whether the type is one of lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is one of texts, or one of no values."""
    is_any = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_one(kind) for is_one in is_any)


class ListColumns:
    """The lists in the columns of one file.

    Args:
        file: The file, for messages.
        log_format: How the log is written.
    """

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        self.file = file
        self.name = log_format.item_column
        self.time_format = log_format.time_format
        self.splits_texts = log_format.item_lists is not None
        self.keeps_empty = log_format.item_lists != "longest"  # there, an empty list is an earlier state
        self.separator: str | None = None

    def find_separator(self, batch: pa.RecordBatch) -> None:
        """Tell what stands between the items of a text: what is in the most of some rows."""
        if self.splits_texts and self.separator is None and pa.types.is_string(batch.column("item").type):
            texts = pc.utf8_trim_whitespace(batch.column("item"))
            texts = texts.filter(pc.invert(pc.match_substring_regex(texts, _PRINTED)))
            counts = {mark: pc.sum(pc.match_substring(texts, mark)).as_py() or 0 for mark in _BETWEEN}
            self.separator = max(counts, key=counts.__getitem__) if any(counts.values()) else None

    @property
    def notes(self) -> list[str]:
        """How lists were told from texts, for the report."""
        return [] if self.separator is None else [f"lists of {self.name}: items separated by {self.separator!r}"]

    def expand(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray | None]:
        """Make one row an item; other fields of a row are repeated.

        Returns:
            The rows; and the row of ``batch`` that each is of, int32, None where the batch holds no lists. An empty
            list gives a row without an item, but where only the longest lists count.

        Raises:
            SessRecError: If lists of one row differ in length, or a list was cut short when it was printed.
        """
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        item = columns["item"]
        if self.splits_texts and not is_list(item.type):
            item = columns["item"] = self._split(item) if pa.types.is_string(item.type) else _lists_of_one(item)
            columns |= {role: self._split_times(columns[role]) for role in ("time", "order") if role in columns}
        if (next_item := columns.pop("next_item", None)) is not None:
            if is_list(next_item.type):
                raise SessRecError(f"{self.file}: --data.next_item_column holds lists, and takes one item a row")
            item = columns["item"] = _appended(item, next_item)
        lists = {role: column for role, column in columns.items() if is_list(column.type)}
        if not lists:
            return batch, None
        lengths = _lengths(next(iter(lists.values())))
        for role, column in lists.items():
            self._check_lengths(columns, role, lengths, _lengths(column))
        n_rows = np.maximum(lengths, 1) if self.keeps_empty else lengths
        parents = np.repeat(np.arange(len(lengths), dtype=np.int32), n_rows)
        is_missing = np.repeat(lengths == 0, n_rows)
        places = pa.array(np.cumsum(~is_missing) - 1, mask=is_missing)
        for role, column in columns.items():
            columns[role] = column.flatten().take(places) if role in lists else column.take(pa.array(parents))
        return pa.record_batch(list(columns.values()), names=list(columns)), parents

    def _split(self, texts: pa.Array) -> pa.ListArray:
        """Items of texts: printed lists such as ``['1' '2']``, or items with a separator between them."""
        texts = pc.utf8_trim_whitespace(texts)
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        is_printed = pc.fill_null(pc.match_substring_regex(texts, _PRINTED), False)
        inner = pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(texts, 1, -1))
        inner = pc.if_else(pc.equal(inner, ""), None, inner)
        is_quoted = pc.fill_null(pc.and_(is_printed, pc.match_substring_regex(inner, r"""^['"]""")), False)
        quoted, bare = is_quoted, pc.and_not(is_printed, is_quoted)
        if pc.any(pc.match_substring_regex(inner.filter(is_printed), _CUT)).as_py():
            raise SessRecError(
                f"{self.file}: a list holds '...': it was cut short when it was printed; write all of it"
            )
        parts = [
            pc.split_pattern_regex(pc.utf8_slice_codeunits(inner.filter(quoted), 1, -1), _BETWEEN_QUOTED),
            pc.split_pattern_regex(inner.filter(bare), _BETWEEN_BARE),
            pc.split_pattern_regex(texts.filter(pc.invert(is_printed)), _BETWEEN[self.separator or " "]),
        ]
        masks = (quoted, bare, pc.invert(is_printed))
        order = np.concatenate([np.flatnonzero(mask.to_numpy(zero_copy_only=False)) for mask in masks])
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))

    def _split_times(self, times: pa.Array) -> pa.Array:
        """Lists of times or numbers, one an item, where texts hold these; else the column as it is."""
        if not pa.types.is_string(times.type) or self.time_format is not None:
            return times
        lists = self._split(times)
        parts = lists.flatten()
        if parts.equals(times) or not pc.all(pc.match_substring_regex(parts, _TIME)).as_py():
            return times  # one a row, blanks in it included
        return lists

    def _check_lengths(self, columns: dict[str, pa.Array], role: str, wanted: np.ndarray, found: np.ndarray) -> None:
        if (different := np.flatnonzero(wanted != found)).size:
            row = int(different[0])
            whose = next((f"of {columns[name][row]}" for name in ("session", "visitor") if name in columns), "of a row")
            raise SessRecError(
                f"{self.file}: the lists {whose} differ in length: {wanted[row]} items, {found[row]} in --data.{role}"
                "_column"
            )


def check_list_newlines(texts: pa.Array) -> pa.Array:
    """Texts with a newline in them that are no printed lists: there, a quote was not closed."""
    is_printed = pc.match_substring_regex(pc.utf8_trim_whitespace(texts), _PRINTED)
    return texts.filter(pc.and_not(pc.match_substring(texts, "\n"), is_printed))


def longest_lists(
    session: np.ndarray, row: np.ndarray, item: np.ndarray, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Choose the longest list of each session, the last of those that are equally long.

    Args:
        session: Code of each event's session, shape (events,).
        row: Row that each event is of, ascending, shape (events,).
        item: Code of each event's item, shape (events,).
        time: Time of each event, or of its row, shape (events,).

    Returns:
        Which events are of the lists chosen, bool, shape (events,); the time of each of these, which is the latest of
        its session's rows where rows have one time; and the number of lists that are not the beginning of the one
        chosen.
    """
    first = np.flatnonzero(np.diff(row, prepend=-1))  # event of each row
    lengths, owner = np.diff(first, append=len(row)), session[first]
    order = np.lexsort((lengths, owner))
    chosen = order[np.append(np.diff(owner[order]) != 0, True)]  # row of each session, by its code
    latest = time[first[chosen]]
    np.maximum.at(latest, owner, time[first])
    is_chosen = np.zeros(len(first), dtype=bool)
    is_chosen[chosen] = True
    keep, n_others = np.repeat(is_chosen, lengths), 0
    for start in range(0, len(first), _ROWS):  # in blocks, for the events of all rows are many
        rows = slice(start, start + _ROWS)
        events = np.arange(first[start], first[start] + lengths[rows].sum())
        twins = events + np.repeat(first[chosen[owner[rows]]] - first[rows], lengths[rows])  # in the list chosen
        differs = np.logical_or.reduceat(item[events] != item[twins], first[rows] - first[start])
        n_others += int(np.count_nonzero(differs))
    has_row_times = np.array_equal(time, np.repeat(time[first], lengths))
    return keep, latest[session[keep]] if has_row_times else time[keep], n_others


def _appended(lists: pa.Array, last: pa.Array) -> pa.ListArray:
    """Lists with one more item each."""
    lengths, values = _lengths(lists), lists.flatten()
    if values.type != last.type:
        values, last = values.cast(pa.string()), last.cast(pa.string())
    ends = np.cumsum(lengths)
    places = np.insert(np.arange(len(values)), ends, len(values) + np.arange(len(last)))
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.concat_arrays([values, last]).take(pa.array(places))
    )


def _lists_of_one(items: pa.Array) -> pa.ListArray:
    """Each item as a list."""
    return pa.ListArray.from_arrays(pa.array(np.arange(len(items) + 1), pa.int32()), items)


def _lengths(lists: pa.Array) -> np.ndarray:
    """Length of each list, int64; 0 where it is null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
