"""Read the wanted fields of JSON lines: one event a line, or one session a line with its events."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from sessrec.click_log.dialect import TextLayout, check_columns
from sessrec.click_log.files import open_text
from sessrec.click_log.lists import field_of
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.text_source import TextSource
from sessrec.errors import SessRecError

_HEAD = 1 << 20  # bytes in which the fields must be found
_IN_LIST = "[]"  # what follows in a path stands in each entry of a list
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def is_json_lines(file: Path) -> bool:
    """Whether a text file holds JSON lines: its first character is the brace of an object.

    Raises:
        SessRecError: If it is one array of objects.
    """
    with open_text(file) as stream:
        head = stream.read(4096).removeprefix(codecs.BOM_UTF8)
    if re.match(rb"\s*\[\s*\{", head):
        raise SessRecError(f"{file} is one JSON array: write one object a line, for example by jq -c '.[]'")
    return re.match(rb'\s*\{\s*["}]', head) is not None


class JsonLinesFile(TextSource):
    """A click log as JSON lines, plain or compressed.

    A column is a field of the object on a line; ``events.aid`` is the field ``aid`` of an object ``events``, or of each
    object of the list ``events``.

    Raises:
        SessRecError: If a field is not found in the first lines.
    """

    a_row = "no JSON object"

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        super().__init__(file, log_format)
        columns = self.columns
        with open_text(file) as stream:
            head = stream.read(_HEAD) + stream.readline()
        self.layout = TextLayout(
            [], "\t", "\t", False, 0, len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        )
        found = _fields_of_head(head)
        self._paths: dict[str, tuple[str, ...]] = {}
        if not found:
            raise self.explain(pa.ArrowInvalid("its first lines hold no field"))
        check_columns(file, list(found), columns, "head")
        self._paths = {role: found[name][0] for role, name in columns.items()}
        for role, path in self._paths.items():
            if path.count(_IN_LIST) > 1:
                raise SessRecError(f"{file}: {columns[role]} stands in lists of lists: write one list a line")
        kinds = {role: _TYPES.get(type(found[name][1])) for role, name in columns.items()}
        for role, kind in kinds.items():
            if kind == pa.float64() and role not in ("time", "order"):
                kinds[role] = None  # the text of a number is the id
        self._schema = _schema({self._paths[role]: kind for role, kind in kinds.items()})

    def parse(self, block: bytes, newlines_in_values: bool = False) -> pa.RecordBatch:
        """The wanted fields of a block under the names of their roles: numbers and texts, or lists of these.

        Raises:
            ArrowInvalid: If a line holds no object, or no such fields; `explain` finds the line.
        """
        batch = self._parse_alike(block)
        return self._parse_texts(block) if batch is None else batch

    def _parse_alike(self, block: bytes) -> pa.RecordBatch | None:
        """The fast way, for fields that are all of the types of the first; None where they are not."""
        if self._schema is None:
            return None
        options = pa.json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="ignore")
        size = pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
        try:
            table = pa.json.read_json(pa.BufferReader(block), size, options).combine_chunks()
            table.validate(full=True)  # texts are UTF-8
        except pa.ArrowInvalid:
            return None
        if table.num_rows != block.count(b"\n") + (not block.endswith(b"\n")):  # two on a line, or blank lines
            return None
        batch = table.to_batches()[0]
        fields = [
            field_of(batch.column(path[0]), tuple(key for key in path[1:] if key != _IN_LIST))
            for path in self._paths.values()
        ]
        return pa.record_batch(fields, names=list(self._paths))

    def _parse_texts(self, block: bytes) -> pa.RecordBatch:
        """Every field as the text that the file has, whatever its type."""
        rows = []
        for line in block.split(b"\n"):
            try:
                rows += [self._texts(line)] if line.strip() else []
            except ValueError as error:
                if not self.drops_bad_lines:
                    raise pa.ArrowInvalid(str(error)) from error
                self._dropped.append(line)
        arrays = []
        for number, path in enumerate(self._paths.values()):
            kind = pa.list_(pa.string()) if _IN_LIST in path else pa.string()
            arrays.append(pa.array([row[number] for row in rows], kind))
        return pa.record_batch(arrays, names=list(self._paths))

    def _texts(self, line: bytes) -> list[Any]:
        """The wanted fields of a line.

        Raises:
            ValueError: If it holds no object, or an object where a text or a number is wanted.
        """
        record = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=str)
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
        return [_texts_at(record, path) for path in self._paths.values()]

    def _is_bad(self, line: bytes) -> bool:
        try:
            self._texts(line)
        except ValueError:
            return True
        return False

    def explain(self, error: pa.ArrowInvalid) -> SessRecError:
        """Turn the error of a parser into one that names the line."""
        for number, line in self._rows():
            try:
                self._texts(line.strip())
            except ValueError as fault:
                shown = line.strip()[:80].decode("utf-8", "replace")
                what = f"no JSON ({fault.msg})" if isinstance(fault, json.JSONDecodeError) else str(fault)
                return SessRecError(f"{self.file}, line {number}: {what}: {shown!r}; mend or remove it")
        return SessRecError(f"cannot read {self.file}: {' '.join(str(error).split())[:300]}")

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        with open_text(self.file) as stream:
            for number, line in enumerate(stream, 1):
                if (line := line.removeprefix(codecs.BOM_UTF8)).strip():
                    yield number, line


def _fields_of_head(head: bytes) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Path and a value of each field of the first lines, by its name; None where all values are null."""
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for line in io.BytesIO(head.removeprefix(codecs.BOM_UTF8)):
        try:
            fields = list(_leaves(json.loads(line)))
        except ValueError:  # broken; reading the whole names it
            continue
        for path, value in fields:
            name = ".".join(key for key in path if key != _IN_LIST)
            if found.get(name, (path, None))[1] is None:
                found[name] = path, value
    return found


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, (*path, _IN_LIST))
    elif path:
        yield path, value


def _schema(kinds: dict[tuple[str, ...], pa.DataType | None]) -> pa.Schema | None:
    """Types of the wanted fields, nested as they are; None where one is not known."""
    if None in kinds.values():
        return None
    tree: dict[str, Any] = {}
    for path, kind in kinds.items():
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = kind
    return pa.schema([(key, _type(inner)) for key, inner in tree.items()])


def _type(tree: Any) -> pa.DataType:
    if isinstance(tree, pa.DataType):
        return tree
    if _IN_LIST in tree:
        return pa.list_(_type(tree[_IN_LIST]))
    return pa.struct([(key, _type(inner)) for key, inner in tree.items()])


def _texts_at(value: Any, path: tuple[str, ...]) -> Any:
    """The text that a path leads to, or a list of texts; None where there is none."""
    for number, key in enumerate(path):
        if value is None:
            return None
        if key == _IN_LIST and isinstance(value, list):
            return [_texts_at(inner, path[number + 1 :]) for inner in value]
        if key == _IN_LIST or not isinstance(value, dict):
            place = ".".join(name for name in path[:number] if name != _IN_LIST) or "an entry of a list"
            raise ValueError(f"{place} is no {'list' if key == _IN_LIST else 'object'}, as it is elsewhere")
        value = value.get(key)
    if isinstance(value, (dict, list)):
        raise ValueError(f"{path[-1]} is no text or number")
    if isinstance(value, bool):
        return str(value).lower()
    if value is not None:
        value.encode("utf-8")  # half of a surrogate pair is no text
    return value
