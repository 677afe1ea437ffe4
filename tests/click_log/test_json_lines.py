"""JSON lines: one event a line, or a session a line with its events."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import BASE, EXPECTED, ROOT, sequences

from sessrec.click_log import text_source
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.errors import SessRecError

CASES = ROOT / "tests" / "cases"
OTTO = LogFormat(
    session_column="session", item_column="events.aid", time_column="events.ts", event_column="events.type"
)
VISITS = LogFormat(session_column="visit", item_column="item", time_column="timestamp")
VISITS_EXPECTED = {f"v{session}": [f"B{item}" for item in items] for session, items in EXPECTED.items()}


def test_case_104_a_session_a_line() -> None:
    events = read_events(CASES / "104" / "otto.jsonl", OTTO)
    assert sequences(events) == EXPECTED
    assert events.time[0] == 1396867869.025
    assert events.figures == {"files": 1, "rows": 10, "lists": 4}
    clicks = read_events(CASES / "104" / "otto.jsonl", OTTO, event_kinds=["clicks"])
    assert sequences(clicks) == {"1": ["101", "103"], "2": ["102", "103"], "3": ["101", "103"], "4": ["103", "101"]}
    assert (len(clicks), clicks.figures["rows_of_other_events"]) == (8, 2)
    assert "rows of other events: 1 carts, 1 orders" in clicks.notes


def test_case_105_an_event_a_line(tmp_path: Path) -> None:
    events = read_events(CASES / "105" / "events.jsonl", VISITS)
    assert (len(events), events.time.dtype, events.time[0]) == (10, "int64", 1396867869)
    assert sequences(events) == VISITS_EXPECTED
    broken = CASES / "105" / "broken.jsonl"
    with pytest.raises(SessRecError, match=re.escape(f"{broken}, line 5: no JSON (Unterminated string")):
        read_events(broken, VISITS)
    lines = broken.read_text().splitlines(keepends=True)
    mended = tmp_path / "mended.jsonl"
    mended.write_text("".join(lines[:4]) + "\n" + lines[5])  # a blank line in place of the broken one
    events = read_events(mended, VISITS)
    assert sequences(events) == {"v1": ["B101", "B102", "B103"], "v2": ["B102"]}
    assert events.figures["rows_with_empty_session"] == 1
    assert f"{mended}: 1 row dropped: empty visit, line 6" in events.notes
    dropped = read_events(broken, replace(VISITS, bad_lines="drop"))
    assert sequences(dropped) == sequences(events)
    assert dropped.figures["bad_lines"] == 1
    assert f"{broken}: 1 line dropped: no JSON object, line 5" in dropped.notes
    assert f"{broken}: 1 row dropped: empty visit, line 6" in dropped.notes


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "write",
    [
        lambda content: content,
        gzip.compress,
        zstd,
        lambda content: codecs.BOM_UTF8 + content,
        lambda content: content.decode().encode("utf-16"),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\n " + content.replace(b"\n", b"\n\n"),
        lambda content: content.rstrip(),
    ],
)
@pytest.mark.parametrize("block", [1 << 23, 50])
def test_told_by_content_whatever_the_name_and_the_size_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[bytes], bytes], block: int
) -> None:
    monkeypatch.setattr(text_source, "BLOCK", block)
    file = tmp_path / "log.csv"
    file.write_bytes(write((CASES / "105" / "events.jsonl").read_bytes()))
    assert sequences(read_events(file, VISITS)) == VISITS_EXPECTED


@pytest.mark.parametrize("block", [1 << 23, 50])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_ids_stay_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, first: int) -> None:
    """Whether they are all of one type, or of several, whatever the first: in one block, or in blocks of their own."""
    monkeypatch.setattr(text_source, "BLOCK", block)
    ids = ['"0012"', "12", "12.0", "1e3", '"12"', "9007199254740993", "18446744073709551616", '"a\\nb \\u00e9"', "true"]
    file = tmp_path / "ids.jsonl"
    ids = ids[first:] + ids[:first]
    lines = [f'{{"SessionId": "s", "ItemId": {item}, "Time": {number}}}' for number, item in enumerate(ids)]
    lines[0] = lines[0][:-1] + f', "text": "{"x" * (1 << 20)}"}}'  # longer than the head
    file.write_text("\n".join([*lines, '{"SessionId": "s", "ItemId": null, "Time": "2014-04-07"}']))
    wanted = ["0012", "12", "12.0", "1e3", "12", "9007199254740993", "18446744073709551616", "a\nb é", "true"]
    assert sequences(read_events(file)) == {"s": wanted[first:] + wanted[:first]}


def test_fields_inside_of_others(tmp_path: Path) -> None:
    """Of objects, of lists of plain items, and of events that lack a field."""
    file = tmp_path / "nested.jsonl"
    rows: list[dict[str, Any]] = [
        {"user": {"id": 1}, "at.t": 5, "items": ["a", "b"], "clicks": [{"x": {"id": "p"}}, {"x": None}, None]},
        {"user": {"id": 2}, "at.t": 6, "items": [], "clicks": [{"x": {"id": "q"}}]},
        {"user": None, "at.t": 7, "items": ["c"], "clicks": None},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lists = read_events(file, LogFormat(session_column="user.id", item_column="items", time_column="at.t"))
    assert sequences(lists) == {"1": ["a", "b"]}
    assert f"{file}: 1 row dropped: empty items, line 2" in lists.notes
    clicks = read_events(file, LogFormat(session_column="user.id", item_column="clicks.x.id", time_column="at.t"))
    assert sequences(clicks) == {"1": ["p"], "2": ["q"]}
    assert f"{file}: 3 rows dropped: empty clicks.x.id, line 1, 3" in clicks.notes


HEAD = '{"SessionId": "a", "ItemId": "b", "Time": 1}\n'


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (HEAD + "7\n", "line 2: no JSON object: '7'"),
        (HEAD + '{"SessionId": "a", "ItemId": {"x": 1}, "Time": 1}', "line 2: ItemId is no text or number"),
        (HEAD + HEAD.strip() + HEAD, r"line 2: no JSON \(Extra data"),
        (HEAD.encode() + b'{"SessionId": "a", "ItemId": "\xff", "Time": 1}', "line 2: 'utf-8' codec can't decode"),
        (HEAD + '{"SessionId": "a", "ItemId": "\\ud800", "Time": 1}', "line 2: .*surrogates not allowed"),
        (
            HEAD + '{"SessionId": "a", "ItemId": "b", "Time": "soon"}',
            "line 2: 1 of column 'Time' cannot be read, first 'soon'",
        ),
        ('{\n "SessionId": "a"}\n', r"line 1: no JSON \(Expecting property"),
        (f"[{HEAD}]", "is one JSON array: write one object a line"),
        ('{"session": 1, "events": [{"aid": 1}]}', "no column .*; its head gives session, events.aid: set --data"),
        ('{"SessionId": 1, "ItemId": [[1]], "Time": 1}', "ItemId stands in lists of lists"),
        ('{"SessionId": 1, "ItemId": [1], "Time": 1}\n' + HEAD, "line 2: ItemId is no list, as it is elsewhere"),
        ("{}", "cannot read .*: its first lines hold no field"),
    ],
)
def test_refusals_name_the_line(tmp_path: Path, content: str | bytes, fault: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SessRecError, match=fault) as caught:
        read_events(file)
    assert str(file) in str(caught.value)


def test_an_id_in_braces_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "braces.csv"
    file.write_text("".join(f"{{{session}}},{item},{time}\n" for session, item, time in BASE))
    events = read_events(file, LogFormat(column_names=["SessionId", "ItemId", "Time"]))
    assert sequences(events) == {f"{{{session}}}": items for session, items in EXPECTED.items()}
