"""Read the wanted columns of one click-log file into a table of text: TSV, CSV or Parquet, plain, gzipped or zipped."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from sessrec.errors import SessRecError

_SEPARATORS = ("\t", ",", ";", "|")


def read_table(file: Path, columns: dict[str, str], separator: str | None) -> tuple[pa.Table, list[str]]:
    """Read the complete rows of one file.

    Args:
        file: The file; its kind is told by its first bytes, not by its name.
        columns: Name in the file of each of ``session``, ``item`` and, where the log has one, ``time``.
        separator: Character between the fields of a text file; None finds it from the header.

    Returns:
        A table with the columns session and item (dictionaries of text) and time (text, numbers or timestamps), and a
        note on every kind of incomplete row that was dropped.

    Raises:
        SessRecError: If the file is missing, empty, damaged, lacks a column or has a row with too many or few fields.
    """
    if not file.exists():
        raise SessRecError(f"no such file: {file} (--data.path)")
    if file.is_dir():
        raise SessRecError(f"{file} is a folder: name the files of the click log (--data.path)")
    with file.open("rb") as stream:
        magic = stream.read(4)
    if not magic:
        raise SessRecError(f"{file} is empty (0 bytes)")
    try:
        table = _read_parquet(file, columns) if magic == b"PAR1" else _read_text(file, magic, columns, separator)
    except (pa.ArrowInvalid, EOFError, OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise SessRecError(
            f"cannot read {file}: {cause}; the file is damaged, cut short or of another format"
        ) from error
    missing = [pc.or_(pc.is_null(column), _is_blank(column)) for column in table.columns]
    notes = []
    incomplete = missing[0]
    for name, mask in zip(table.column_names, missing, strict=True):
        if count := pc.sum(mask).as_py():
            rows = np.flatnonzero(mask.to_numpy())[:5] + (1 if magic == b"PAR1" else 2)
            where = "row" if magic == b"PAR1" else "line"
            listed = ", ".join(map(str, rows)) + (", ..." if count > len(rows) else "")
            notes.append(f"{file}: {count} rows dropped: empty {columns[name]}, {where} {listed}")
        incomplete = pc.or_(incomplete, mask)
    return (table.filter(pc.invert(incomplete)) if notes else table), notes


def _is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return pc.equal(column.cast(pa.string()), "")
    if pa.types.is_string(column.type):
        return pc.equal(column, "")
    return pa.chunked_array([pa.array(np.zeros(len(column), dtype=bool))])


def _read_text(file: Path, magic: bytes, columns: dict[str, str], separator: str | None) -> pa.Table:
    with _open_text(file, magic) as stream:
        header = stream.readline().decode("utf-8-sig").rstrip("\r\n")
    separator = separator or _find_separator(header, columns)
    names = [name.strip().strip('"') for name in header.split(separator)]
    _check_columns(file, names, columns, separator)
    # a tab-separated file has no quotes: a stray one in an id must not swallow the rows up to the next
    parse = pa.csv.ParseOptions(delimiter=separator, quote_char=False if separator == "\t" else '"')
    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.string() if role == "time" else text for role, name in columns.items()}
    convert = pa.csv.ConvertOptions(
        include_columns=list(columns.values()), column_types=types, strings_can_be_null=False
    )

    def read(use_threads: bool) -> pa.Table:
        options = pa.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=use_threads)
        with _open_text(file, magic) as stream:
            return pa.csv.read_csv(stream, read_options=options, parse_options=parse, convert_options=convert)

    try:
        table = read(use_threads=True)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            raise SessRecError(f"{file} holds a header and no events") from error
        table = read(use_threads=False)  # fails again, and its message then tells the row
    for role in ("session", "item"):
        ids = (
            table[columns[role]].unify_dictionaries().chunk(0).dictionary
            if table.num_rows
            else pa.array([], pa.string())
        )
        broken = ids.filter(pc.match_substring(ids, "\n"))
        if len(broken):
            raise SessRecError(f"{file}: a quote is never closed: {columns[role]} {broken[0].as_py()[:60]!r}")
    return table.rename_columns(list(columns))


def _open_text(file: Path, magic: bytes) -> Any:
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(file, "rb")
    if magic == b"PK\x03\x04":
        archive = zipfile.ZipFile(file)
        members = [name for name in archive.namelist() if not name.endswith("/")]
        if len(members) != 1:
            raise SessRecError(f"{file} holds {len(members)} files: unpack it and name the click log (--data.path)")
        return archive.open(members[0])
    return io.BufferedReader(io.FileIO(file))


def _find_separator(header: str, columns: dict[str, str]) -> str:
    def n_found(separator: str) -> tuple[int, int]:
        names = [name.strip().strip('"') for name in header.split(separator)]
        return len(set(names) & set(columns.values())), len(names)

    return max(_SEPARATORS, key=n_found)


def _check_columns(file: Path, names: list[str], columns: dict[str, str], separator: str) -> None:
    missing = [name for name in columns.values() if name not in names]
    if missing:
        options = ", ".join(f"--data.{role}_column" for role, name in columns.items() if name in missing)
        raise SessRecError(
            f"{file} has no column {', '.join(missing)}; its first line gives {', '.join(names)} "
            f"(separated by {separator!r}): set {options}"
            + (", or --data.time_column null where the log has no times" if columns.get("time") in missing else "")
        )


def _read_parquet(file: Path, columns: dict[str, str]) -> pa.Table:
    names = pa.parquet.read_schema(file).names
    _check_columns(file, names, columns, "Parquet")
    table = pa.parquet.read_table(file, columns=list(columns.values())).select(list(columns.values()))
    table = table.rename_columns(list(columns))
    for role in ("session", "item"):
        kind = table.schema.field(role).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            raise SessRecError(f"{file}: column {columns[role]} is of type {kind}; ids must be text or whole numbers")
        table = table.set_column(
            table.column_names.index(role), role, table[role].cast(pa.string()).dictionary_encode()
        )
    return table
