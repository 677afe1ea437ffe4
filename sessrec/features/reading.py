"""Read an item table: Parquet, delimited text or a table in memory, whose columns tell what they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from sessrec.click_log.dialect import find_layout
from sessrec.click_log.files import IN_MEMORY, PARQUET, first_bytes, log_files, open_text
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.memory_table import as_arrow, is_table
from sessrec.errors import SessRecError
from sessrec.features.item_table import Categories, Column, ItemTable, Numbers, Vectors
from sessrec.text import counted

_OPTION = "--data.items"
_SEPARATOR = "|"  # between the categories of an item in a text file
_MOST_VALUES = 64


def read_item_table(source: Any, item_column: str = "ItemId") -> ItemTable:
    """Read an item table.

    Text, truth values and lists of them are categories; numbers are numbers; lists of numbers with a fraction are
    vectors. In a text file, categories are split at ``|``, and a vector is written as ``[0.5, 1.25]``.

    Args:
        source: A Parquet file, a CSV or TSV file (plain or compressed), or a table in memory.
        item_column: Column of the item ids.

    Raises:
        SessRecError: If the table cannot be read, lacks the column or has no other, has an item twice, or a column
            that does not hold one kind of values.
    """
    table, name, is_text = read_table(source, item_column, _OPTION)
    texts, table, notes = item_id_texts(table, item_column, name)
    item_ids = texts.to_pylist()
    if len(set(item_ids)) < len(item_ids):
        twice = [entry["values"].as_py() for entry in pc.value_counts(texts) if entry["counts"].as_py() > 1]
        such = ", ".join(twice[:3])
        raise SessRecError(
            f"{name}: more than one row for {counted(len(twice), 'item')}, such as {such}: keep one each"
        )
    names = table.column_names
    columns: dict[str, Column] = {}
    for column in names:
        if column != item_column:
            found = _column(table[column].combine_chunks(), f"{name}: column {column}", item_ids, is_text)
            if found is None:
                notes.append(f"column {column} is of type {table[column].type}, which is no feature")
            else:
                columns[column] = found
    if not columns:
        raise SessRecError(f"{name} has no column beside {item_column} that can be a feature")
    return ItemTable(item_ids, columns, name, notes)


def read_table(source: Any, item_column: str, option: str, texts: Sequence[str] = ()) -> tuple[pa.Table, str, bool]:
    """Read a table with a column of item ids, all its columns.

    Args:
        source: A Parquet file, a CSV or TSV file, or a table in memory.
        item_column: Column of the item ids.
        option: The option that it came from, for messages.
        texts: Columns of a text file that are not to be taken for numbers.

    Returns:
        The table, its name, and whether it is of a text file.

    Raises:
        SessRecError: If it cannot be read, or lacks the column, or has one twice.
    """
    is_file = not is_table(source)
    name = str(_only_file(source, option)) if is_file else IN_MEMORY
    try:
        wanted = (item_column, *texts)
        table, is_text = _read_file(Path(name), option, *wanted) if is_file else (_of_memory(source), False)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise SessRecError(f"cannot read {name} ({option}): {cause}") from error
    names = table.column_names
    if len(set(names)) < len(names):
        raise SessRecError(f"{name} has more than one column {next(n for n in names if names.count(n) > 1)}")
    if item_column not in names:
        raise SessRecError(
            f"{name} has no column {item_column}; it has {', '.join(names[:50])}: --data.item_column names the item id"
        )
    return table, name, is_text


def _only_file(source: Any, option: str) -> Path:
    files = log_files(source, option)
    if len(files) > 1:
        raise SessRecError(f"{option} takes one file or one table, got {len(files)} files")
    return files[0]


def _of_memory(table: Any) -> pa.Table:
    """A table in memory; the index of pandas is no column."""
    if isinstance(table, pd.DataFrame):
        return pa.Table.from_pandas(table, preserve_index=False)
    return as_arrow(table)


def _read_file(file: Path, option: str, item_column: str, *texts: str) -> tuple[pa.Table, bool]:
    """The table of a file, and whether it is a text."""
    if first_bytes(file) == PARQUET:
        return pyarrow.parquet.read_table(file), False
    written = LogFormat(item_column=item_column, session_column=None, time_column=None, item_lists="all")
    layout = find_layout(file, written)
    if len(layout.separator) > 1:
        raise SessRecError(f"{file}: the fields of a table ({option}) are separated by one character")
    parse = pa.csv.ParseOptions(delimiter=layout.separator, quote_char='"' if layout.quoting else False)
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys((item_column, *texts), pa.string()))
    with open_text(file) as stream:
        return pa.csv.read_csv(stream, parse_options=parse, convert_options=convert), True


def item_id_texts(table: pa.Table, item_column: str, name: str) -> tuple[pa.Array, pa.Table, list[str]]:
    """Item ids as text, the rows that have one, and a note of those that have none.

    Raises:
        SessRecError: If the column holds no ids.
    """
    ids = table[item_column]
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    is_id = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_id and not pa.types.is_null(kind):
        raise SessRecError(f"{name}: column {item_column} is of type {kind}; ids must be text or whole numbers")
    texts = pc.cast(ids, pa.string()).combine_chunks()
    has_id = pc.fill_null(pc.not_equal(texts, ""), False)
    n_empty = int(len(texts) - (pc.sum(has_id).as_py() or 0))
    texts, table = texts.filter(has_id), table.filter(has_id)
    if not len(texts):
        raise SessRecError(f"{name} has no row with an item id")
    return texts, table, [f"{counted(n_empty, 'row')} dropped: empty {item_column}"] * bool(n_empty)


def _column(array: pa.Array, where: str, item_ids: list[str], is_text: bool) -> Column | None:
    """What a column holds; None where its type is that of no feature."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.cast(kind.value_type)
        kind = array.type
    if pa.types.is_null(kind):
        return Categories([], np.empty(0, dtype=np.int64), np.zeros(len(array) + 1, dtype=np.int64))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(array, where, item_ids)
    if pa.types.is_boolean(kind):
        return _categories(array.cast(pa.string()))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = array.cast(pa.string())
        return _of_texts(texts, where, item_ids) if is_text else _categories(texts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        if pa.types.is_floating(inner):
            return _vectors(array, where, item_ids)
        if pa.types.is_integer(inner) or pa.types.is_string(inner) or pa.types.is_large_string(inner):
            lists = array.cast(pa.list_(inner)) if pa.types.is_fixed_size_list(kind) else array
            return _listed(lists, where, item_ids)
    return None


def _numbers(array: pa.Array, where: str, item_ids: list[str]) -> Numbers:
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    if len(bad := np.flatnonzero(np.isinf(values))):
        raise SessRecError(f"{where} is infinite for {counted(len(bad), 'item')}, such as {item_ids[bad[0]]}")
    known = values[~np.isnan(values)]
    return Numbers(values, are_whole=bool((known == np.rint(known)).all() and (np.abs(known) < 2**53).all()))


def _of_texts(array: pa.Array, where: str, item_ids: list[str]) -> Column:
    """Texts of a file are vectors where all are written in brackets, else categories, several where split."""
    filled = array.filter(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(array), ""), False))
    if len(filled) and pc.all(pc.starts_with(filled, "[")).as_py():
        return _vectors(pa.array(_parsed(array, where, item_ids), pa.list_(pa.float32())), where, item_ids)
    if len(filled) and pc.any(pc.match_substring(filled, _SEPARATOR)).as_py():
        return _listed(pc.split_pattern(array, _SEPARATOR), where, item_ids)
    return _categories(array)


def _parsed(array: pa.Array, where: str, item_ids: list[str]) -> list[list[float] | None]:
    found: list[list[float] | None] = []
    for text, item_id in zip(array.to_pylist(), item_ids, strict=True):
        try:
            values = json.loads(text) if text and text.strip() else None
            found.append(None if values is None else [float(value) for value in values])
        except (ValueError, TypeError) as error:
            raise SessRecError(f"{where}: {text[:40]!r} of item {item_id} is no list of numbers") from error
    return found


def _listed(lists: pa.Array, where: str, item_ids: list[str]) -> Categories:
    """Categories of items that may have several."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if len(bad := np.flatnonzero(lengths > _MOST_VALUES)):
        raise SessRecError(
            f"{where} has {lengths[bad[0]]} values for item {item_ids[bad[0]]}, and at most {_MOST_VALUES} can be taken"
        )
    return _categories(pc.list_flatten(lists).cast(pa.string()), pc.list_parent_indices(lists).to_numpy(), len(lists))


def _categories(texts: pa.Array, parents: np.ndarray | None = None, n_items: int | None = None) -> Categories:
    """Categories of texts, empty ones left out, each of the item of its own place or that of ``parents``."""
    texts = pc.utf8_trim_whitespace(texts)
    kept = pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
    parents = (np.arange(len(texts)) if parents is None else parents)[kept]
    encoded = texts.filter(pa.array(kept)).dictionary_encode()
    counts = np.bincount(parents, minlength=len(texts) if n_items is None else n_items)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Categories(encoded.dictionary.to_pylist(), codes, np.concatenate([[0], np.cumsum(counts)]))


def _vectors(array: pa.Array, where: str, item_ids: list[str]) -> Vectors:
    """Vectors of one length, all numbers finite."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    has_value = lengths > 0
    size = int(lengths.max(initial=0))
    if len(bad := np.flatnonzero(has_value & (lengths != size))):
        raise SessRecError(
            f"{where} has vectors of two lengths: {size} numbers, and {lengths[bad[0]]} for item {item_ids[bad[0]]}"
        )
    values = np.zeros((len(array), size), dtype=np.float32)
    flat = pc.list_flatten(array.filter(pa.array(has_value))).cast(pa.float32(), safe=False)
    values[has_value] = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
    if len(bad := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise SessRecError(f"{where}: the vector of item {item_ids[bad[0]]} has a number that is missing or infinite")
    return Vectors(values, has_value)
