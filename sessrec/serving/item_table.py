"""Titles and pictures of items, for the page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from sessrec.errors import SessRecError, one_line
from sessrec.text import counted

_NAMES = {
    "id": ("itemid", "item_id", "id"),
    "title": ("title", "name"),
    "picture": ("picture", "image", "image_url"),
}
_ADDRESS = r"^(https?://|data:image/)"


class Shown(NamedTuple):
    """What is shown of an item."""

    title: str | None
    picture: str | None
    """Address of a picture."""


class ItemTable:
    """What is shown of the items of a shop.

    Args:
        shown: What is known of each item id.
        notes: How the table was read.
    """

    def __init__(self, shown: dict[str, Shown] | None = None, notes: Sequence[str] = ()) -> None:
        self._shown, self.notes = shown or {}, list(notes)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._shown)

    def __contains__(self, item_id: str) -> bool:
        """Whether an item is in the table."""
        return item_id in self._shown

    def __getitem__(self, item_id: str) -> Shown:
        """What is shown of an item; nothing but its id where it is not in the table."""
        return self._shown.get(item_id, Shown(None, None))


def read_item_table(file: Path) -> ItemTable:
    """Read a Parquet, CSV or tab-separated file with columns ItemId, title (or name) and picture (or image).

    Raises:
        SessRecError: If it cannot be read, or lacks a column.
    """
    try:
        table = _read(file)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise SessRecError(f"cannot read --items {file}: {one_line(error)}") from error
    columns = _columns(file, table.column_names)
    if not columns.keys() & {"title", "picture"} or "id" not in columns:
        raise SessRecError(
            f"--items {file} has columns {', '.join(table.column_names)}: it needs ItemId (or item_id, id), and "
            "title (or name), picture (or image, image_url) or both"
        )
    try:
        texts = {role: table[name].cast(pa.string()) for role, name in columns.items()}
    except pa.ArrowException as error:
        raise SessRecError(f"--items {file}: a column is neither text nor numbers: {error}") from error
    notes, pictures = [], texts.get("picture")
    if pictures is not None:
        fits = pc.match_substring_regex(pictures, _ADDRESS)
        if n_others := len(pictures) - pictures.null_count - (pc.sum(fits).as_py() or 0):
            notes.append(
                f"{counted(n_others, 'picture')} left out: no address that begins with http://, https:// or data:image/"
            )
        pictures = pc.if_else(fits, pictures, None)
    ids = texts["id"].to_pylist()
    none = [None] * len(ids)
    title = texts["title"].to_pylist() if "title" in texts else none
    picture = none if pictures is None else pictures.to_pylist()
    shown = {i: Shown(t or None, p) for i, t, p in zip(ids, title, picture, strict=True) if i}
    if len(shown) < len(ids):
        n_rows = counted(len(ids) - len(shown), "row")
        notes.append(f"{n_rows} left out: without an item id, or of one that comes again")
    return ItemTable(shown, notes)


def _read(file: Path) -> pa.Table:
    with file.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return pa.parquet.ParquetFile(file).read()
    with pa.input_stream(str(file)) as stream:  # decompressed by the name
        head = stream.read(1 << 16).split(b"\n")[0].decode("utf-8-sig").rstrip("\r")
    delimiter = "\t" if "\t" in head else ","
    names = next(csv.reader([head], delimiter=delimiter), [])
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pa.csv.ReadOptions(column_names=names, skip_rows=1)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    return pa.csv.read_csv(str(file), read, parse, convert)


def _columns(file: Path, names: Sequence[str]) -> dict[str, str]:
    """Name in the file of each column that is there, by its role.

    Raises:
        SessRecError: If two columns could be one.
    """
    found: dict[str, str] = {}
    for role, own in _NAMES.items():
        fits = [name for name in names if name.lower() in own]
        if len(fits) > 1:
            raise SessRecError(f"--items {file}: columns {' and '.join(fits)} could both be the {role}")
        if fits:
            found[role] = fits[0]
    return found
