"""Read an item table: Parquet, delimited text or a table in memory, whose columns tell what they hold."""

from __future__ import annotations

import json
import zipfile
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
from sessrec.click_log.times import NUMBER
from sessrec.errors import SessRecError
from sessrec.features.item_table import Categories, Column, ItemTable, Numbers, Vectors
from sessrec.text import counted

_OPTION = "--data.items"
_SEPARATOR = "|"  # between the categories of an item in a text file
_MOST_VALUES = 64
_NOTHING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None")  # where the others are numbers


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
    faults: dict[str, str] = {}
    for column in names:
        if column != item_column:
            try:
                columns[column] = _column(table[column].combine_chunks(), f"column {column}", item_ids, is_text)
            except (SessRecError, pa.ArrowException) as error:
                faults[column] = " ".join(str(error).split())[:200]
    if not columns:
        reasons = f": {'; '.join(faults.values())}" if faults else ""
        raise SessRecError(f"{name} has no column beside {item_column} that can be a feature{reasons}")
    return ItemTable(item_ids, columns, name, notes, faults)


def read_table(source: Any, item_column: str, option: str) -> tuple[pa.Table, str, bool]:
    """Read a table with a column of item ids, all its columns; those of a text file as texts.

    Args:
        source: A Parquet file, a CSV or TSV file, or a table in memory.
        item_column: Column of the item ids.
        option: The option that it came from, for messages.

    Returns:
        The table, its name, and whether it is of a text file.

    Raises:
        SessRecError: If it cannot be read, or lacks the column, or has one twice.
    """
    is_file = not is_table(source)
    name = str(_only_file(source, option)) if is_file else IN_MEMORY
    try:
        table, is_text = _read_file(Path(name), option, item_column) if is_file else (_of_memory(source), False)
    except (pa.ArrowException, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())[:200]
        raise SessRecError(f"cannot read {name} ({option}): {cause}") from error
    table = table.rename_columns([column.strip() for column in table.column_names])
    plain = [field.with_type(pa.string()) if "string_view" in str(field.type) else field for field in table.schema]
    table = table.cast(pa.schema(plain)) if "string_view" in str(table.schema.types) else table
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


def _read_file(file: Path, option: str, item_column: str) -> tuple[pa.Table, bool]:
    """The table of a file, and whether it is a text, whose columns are all texts."""
    if first_bytes(file) == PARQUET:
        return pyarrow.parquet.read_table(file), False
    written = LogFormat(item_column=item_column, session_column=None, time_column=None, item_lists="all")
    layout = find_layout(file, written)
    if len(layout.separator) > 1:
        raise SessRecError(f"{file}: the fields of a table ({option}) are separated by one character")
    parse = pa.csv.ParseOptions(delimiter=layout.separator, quote_char='"' if layout.quoting else False)
    if layout.quoting:
        with open_text(file) as stream:
            if stream.read().count(b'"') % 2:
                raise SessRecError(f"{file} ({option}) has a quote that is not closed: close it")
    with open_text(file) as stream:
        names = pa.csv.open_csv(stream, parse_options=parse).schema.names
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))  # as they are written
    with open_text(file) as stream:
        return pa.csv.read_csv(stream, parse_options=parse, convert_options=convert), True


def item_id_texts(table: pa.Table, item_column: str, name: str) -> tuple[pa.Array, pa.Table, list[str]]:
    """Item ids as text, the rows that have one, and a note of those that have none.

    Raises:
        SessRecError: If the column holds no ids.
    """
    ids = table[item_column]
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    is_id = pa.types.is_integer(kind) or "string" in str(kind)  # also large ones and views
    if not is_id and not pa.types.is_null(kind):
        raise SessRecError(f"{name}: column {item_column} is of type {kind}; ids must be text or whole numbers")
    texts = pc.cast(ids, pa.string()).combine_chunks()
    has_id = pc.fill_null(pc.not_equal(texts, ""), False)
    n_empty = int(len(texts) - (pc.sum(has_id).as_py() or 0))
    texts, table = texts.filter(has_id), table.filter(has_id)
    if not len(texts):
        raise SessRecError(f"{name} has no row with an item id")
    return texts, table, [f"{counted(n_empty, 'row')} dropped: empty {item_column}"] * bool(n_empty)


def _column(array: pa.Array, where: str, item_ids: list[str], is_text: bool) -> Column:
    """What a column holds.

    Raises:
        SessRecError: If its type is that of no feature, or its values are of several kinds.
    """
    kind = array.type
    if pa.types.is_dictionary(kind) or "string_view" in str(kind):
        array = array.cast(kind.value_type if pa.types.is_dictionary(kind) else pa.string())
        kind = array.type
    if pa.types.is_null(kind):
        return _nothing(len(array))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(array, where, item_ids)
    if pa.types.is_boolean(kind):
        return _categories(array.cast(pa.string()))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = array.cast(pa.string())
        return _of_texts(texts, where, item_ids) if is_text else _categories(texts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        if pa.types.is_floating(inner) or pa.types.is_decimal(inner):
            return _vectors(array.cast(pa.large_list(pa.float64())), where, item_ids)
        if not pa.types.is_nested(inner) and not pa.types.is_temporal(inner):
            return _listed(array.cast(pa.large_list(pa.string())), where, item_ids)
    raise SessRecError(f"{where} is of type {array.type}, which is no feature")


def _nothing(n_items: int) -> Categories:
    """A column in which all values are missing."""
    return Categories([], np.empty(0, dtype=np.int64), np.zeros(n_items + 1, dtype=np.int64))


def _numbers(array: pa.Array, where: str, item_ids: list[str]) -> Numbers:
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    if len(bad := np.flatnonzero(np.isinf(values))):
        raise SessRecError(f"{where} is infinite for {counted(len(bad), 'item')}, such as {item_ids[bad[0]]}")
    if not pa.types.is_integer(array.type):
        return Numbers(values, _are_whole(values))
    written = pc.fill_null(array.cast(pa.string()), "").to_numpy(zero_copy_only=False).astype(str)
    return Numbers(values, True, written)


def _of_texts(array: pa.Array, where: str, item_ids: list[str]) -> Column:
    """Texts of a file: numbers, vectors where all are written in brackets, or categories, several where split."""
    if (numbers := _written_numbers(array)) is not None:
        return numbers
    texts = pc.utf8_trim_whitespace(array)
    filled = texts.filter(pc.fill_null(pc.not_equal(texts, ""), False))
    if pc.all(pc.is_in(filled, pa.array(_NOTHING))).as_py() is not False:  # also where there is none
        return _nothing(len(array))
    are_lists = pc.and_(pc.starts_with(filled, "["), pc.ends_with(filled, "]"))
    if 2 * pc.sum(are_lists).as_py() > len(filled):
        return _vectors(pa.array(_parsed(array, where, item_ids), pa.list_(pa.float32())), where, item_ids)
    if pc.any(pc.match_substring(filled, _SEPARATOR)).as_py():
        return _listed(pc.split_pattern(array, _SEPARATOR), where, item_ids)
    return _categories(array)


def _written_numbers(array: pa.Array) -> Numbers | None:
    """Texts as numbers, where all that say something are; None otherwise."""
    texts = pc.fill_null(pc.utf8_trim_whitespace(array), "")
    is_missing = pc.is_in(texts, pa.array(_NOTHING))
    is_number = pc.match_substring_regex(texts, NUMBER)
    if not pc.any(is_number).as_py() or not pc.all(pc.or_(is_missing, is_number)).as_py():
        return None
    numbers = pc.if_else(is_number, texts, None)
    values = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    written = pc.fill_null(numbers, "").to_numpy(zero_copy_only=False).astype(str)
    are_digits = pc.all(pc.match_substring_regex(numbers, r"^[+-]?\d+$")).as_py()
    return Numbers(values, bool(are_digits) or _are_whole(values), written)


def typed(table: pa.Table, but: Sequence[str]) -> pa.Table:
    """A table of a text file with numbers for the texts that are some; texts such as 007, which are codes, stay.

    Args:
        table: The table, all columns texts.
        but: Columns that stay as they are.
    """
    for place, name in enumerate(table.column_names):
        column = table[name].combine_chunks()
        if name in but or pc.any(pc.match_substring_regex(column, r"^\s*[+-]?0\d")).as_py():
            continue
        if (numbers := _written_numbers(column)) is not None:
            kind = pa.int64() if numbers.are_whole else pa.float64()
            values = pa.array(numbers.values, mask=numbers.is_missing).cast(kind)
            table = table.set_column(place, name, values)
    return table


def _are_whole(values: np.ndarray) -> bool:
    """Whether all numbers but NaN are whole, and exact as such."""
    known = values[~np.isnan(values)]
    return bool((known == np.rint(known)).all() and (np.abs(known) < 2**53).all())


def _parsed(array: pa.Array, where: str, item_ids: list[str]) -> list[list[float] | None]:
    found: list[list[float] | None] = []
    for text, item_id in zip(array.to_pylist(), item_ids, strict=True):
        try:
            values = json.loads(text) if text and text.strip() else None
            found.append(None if values is None else [float(value) for value in values])
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SessRecError(f"{where}: {text[:40]!r} of item {item_id} is no list of numbers") from error
    return found


def _listed(lists: pa.Array, where: str, item_ids: list[str]) -> Categories:
    """Categories of items that may have several."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if len(bad := np.flatnonzero(lengths > _MOST_VALUES)):
        raise SessRecError(
            f"{where} has {lengths[bad[0]]} values for item {item_ids[bad[0]]}, and at most {_MOST_VALUES} can be taken"
        )
    row, filled = np.flatnonzero(lengths), lists.filter(pa.array(lengths > 0))  # a missing list may have values below
    parents = row[pc.list_parent_indices(filled).to_numpy(zero_copy_only=False)]
    return _categories(pc.list_flatten(filled).cast(pa.string()), parents, len(lists))


def _categories(texts: pa.Array, parents: np.ndarray | None = None, n_items: int | None = None) -> Categories:
    """Categories of texts, empty ones left out, each of the item of its own place or that of ``parents``."""
    texts = pc.utf8_trim_whitespace(texts)
    kept = pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
    parents = (np.arange(len(texts)) if parents is None else parents)[kept]
    encoded = texts.filter(pa.array(kept)).dictionary_encode()
    counts = np.bincount(parents, minlength=len(texts) if n_items is None else n_items)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Categories(encoded.dictionary.to_pylist(), codes, np.concatenate([[0], np.cumsum(counts)]))


def _vectors(array: pa.Array, where: str, item_ids: list[str]) -> Column:
    """Vectors of one length, all numbers finite."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    has_value = lengths > 0
    size = int(lengths.max(initial=0))
    if not size:
        return _nothing(len(array))
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
