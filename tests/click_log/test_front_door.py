"""Logs as people have them: what is no log, what is half broken, and what is written in two ways."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT, sequences

from sessrec.click_log.id_checks import IdColumn
from sessrec.click_log.id_spellings import warn_of_spellings
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.click_log.time_checks import warn_of_times
from sessrec.errors import SessRecError

CASES = ROOT / "tests" / "cases"
HEADER = "SessionId,ItemId,Time\n"


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return content.getvalue()


def tarred(mode: str) -> bytes:
    content, text = io.BytesIO(), HEADER.encode()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("clicks.csv")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


def npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, items=np.arange(3), times=np.arange(3))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "advice"),
    [
        ((CASES / "115" / "clicks_lfs.csv").read_bytes(), "Git LFS pointer", "git lfs pull"),
        ((CASES / "115" / "clicks_html.csv").read_bytes(), "web page", "log in and download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page or XML", "log in"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "spreadsheet", "save its sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "spreadsheet", "save its sheet as CSV"),
        (tarred("w"), "tar archive", "unpack it"),
        (tarred("w:gz"), "tar archive", "unpack it"),
        (npz(), "NumPy", "turn it into CSV"),
        *((pickle.dumps(([[1]], [2]), protocol), "pickle", "scripts/import_prefixes.py") for protocol in (0, 2, 5)),
        (b"7z\xbc\xaf\x27\x1c", "7z archive", "turn it into CSV"),
    ],
)
def test_case_115_a_file_that_is_no_click_log(tmp_path: Path, content: bytes, kind: str, advice: str) -> None:
    file = tmp_path / "clicks.csv"
    file.write_bytes(content)
    with pytest.raises(SessRecError) as caught:
        read_events(file)
    message = str(caught.value)
    assert all(part in message for part in (str(file), kind, advice))
    assert "\n" not in message


def test_case_116_several_bad_lines_are_named_or_dropped(tmp_path: Path) -> None:
    file = CASES / "116" / "three_bad.tsv"
    with pytest.raises(SessRecError, match=r"line 4: 5 fields in place of 4: .*3 lines are so, also 7, 10; .*drop"):
        read_events(file)
    events = read_events(file, LogFormat(bad_lines="drop"))
    assert sequences(events) == {"1": ["101", "102"], "2": ["102", "103"], "3": ["103", "102"], "4": ["101"]}
    assert events.figures["bad_lines"] == 3
    assert events.notes[0] == f"{file}: 3 lines dropped: not 4 fields, line 4, 7, 10"


def test_lines_are_counted_as_they_stand_where_bad_ones_are_dropped(tmp_path: Path) -> None:
    """Also where the column of times is read twice, as its pieces do not agree."""
    file = tmp_path / "log.csv"
    file.write_text(HEADER + "s,a,b,1\ns,,2\n\ns,c\ns,d,x\n")
    with pytest.raises(SessRecError, match="line 6: 1 of column 'Time' cannot be read"):
        read_events(file, LogFormat(bad_lines="drop"))
    file.write_text(file.read_text().replace("d,x", "d,9"))
    events = read_events(file, LogFormat(bad_lines="drop"))
    assert sequences(events) == {"s": ["d"]}
    assert [note.partition(": ")[2] for note in events.notes[:2]] == [
        "2 lines dropped: not 3 fields, line 2, 5",
        "1 row dropped: empty ItemId, line 3",
    ]


@pytest.mark.parametrize(
    ("name", "n_ids", "expected"),
    [
        ("items", (4, 4), r"column ItemId has 1 item id in .*'101' \(2 .*line 2\) and '101.0' \(1 event, .*line 7\)"),
        ("padded", (4, 4), r"column ItemId has 1 item id in .*'103' \(3 .*line 4\) and '0103' \(1 event, .*line 10\)"),
        ("sessions", (3, 5), r"column SessionId .*'2' \(1 .*line 5\) and '2.0' \(1 .*line 6\).* 2 of them with one"),
    ],
)
def test_case_110_one_number_in_two_spellings(name: str, n_ids: tuple[int, int], expected: str) -> None:
    events = read_events(CASES / "110" / f"{name}.csv")
    assert (len(events.item_ids), events.n_sessions) == n_ids
    (warning,) = events.warnings
    assert re.search(expected, warning)


@pytest.mark.parametrize(
    ("ids", "n_warned"),
    [
        (["1e3", "1000", "12"], 1),
        (["1e3", "1000", "abc"], 0),  # an e among letters
        (["7 ", "7", "x"], 1),
        (["x ", "x", "y"], 1),
        (["+5", "5"], 1),
        (["0", "000", "00.0"], 1),
        (["007", "7", "7.0", "8", "8.00"], 2),
        (["0012", "0013", "0001"], 0),
        (["1.0", "2.0", "10.0"], 0),
        (["1.1", "1.10", "1.100"], 0),  # numbers of chapters
        ([" a", " b"], 0),
        (["12e45678", "12e4"], 0),
        (["-1", "1", "01_1"], 0),
        (["00000000-0000-0000-0000-000000000001", "1"], 0),
        (["1E+3", "1000.", "1e99"], 1),
        ([], 0),
    ],
)
def test_spellings_are_told_apart_from_other_ids(ids: list[str], n_warned: int) -> None:
    column = IdColumn("item", "ItemId", np.arange(len(ids)), pa.array(ids, pa.string()))
    found = warn_of_spellings(column, str)
    assert len(found) == (n_warned > 0)
    assert not n_warned or f"has {n_warned} item id" in found[0]


YEAR_2014 = 1396867869


@pytest.mark.parametrize(
    ("seconds", "given", "nearest"),
    [(60, "auto", "min"), (3600, "auto", "h"), (86400, "auto", "d"), (1, "ms", "s"), (1e-3, "us", "ms"), (1, "h", "s")],
)
def test_times_in_a_wrong_unit_are_warned_of(
    write_log: Callable[..., Path], seconds: float, given: str, nearest: str
) -> None:
    rows = [("s", item, int((YEAR_2014 + 172800 * number) / seconds)) for number, item in enumerate("abc")]
    if given == "h":
        with pytest.raises(SessRecError, match=r"beyond the year 9999; give another --data.time_unit"):
            read_events(write_log(rows), LogFormat(time_unit="h"))
        return
    (warning,) = read_events(write_log(rows), LogFormat(time_unit=given)).warnings  # type: ignore[arg-type]
    assert re.fullmatch(f"all times .* 1970-0.* would be 2014-04-0.*: --data.time_unit {nearest}", warning)
    events = read_events(write_log(rows), LogFormat(time_unit=nearest))  # type: ignore[arg-type]
    assert events.warnings == []
    assert np.abs(events.time - YEAR_2014 - 172800 * np.arange(3)).max() < seconds + 1e-6


def test_times_that_are_right_or_no_times() -> None:
    now = time.time()
    assert warn_of_times(np.array([631152000, now]), 5000, "s") == []
    assert "2 sessions" not in "".join(warn_of_times(np.array([0, 9]), 2, None))
    assert "only their order" in warn_of_times(np.array([1, 2]), 1, "s")[0]
    assert "are they right?" in warn_of_times(np.array([1, 2]), 1, None)[0]
    assert warn_of_times(np.array([YEAR_2014, YEAR_2014 + 59]), 999, "s") == []
    assert "1,000 sessions in 59 seconds" in warn_of_times(np.array([YEAR_2014, YEAR_2014 + 59]), 1000, "s")[0]


def test_files_are_read_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        for folder in ("parts", "parts/9", "parts/10"):
            (tmp_path / folder).mkdir(exist_ok=True)
            name = f"{folder}/part-{number}.csv"
            (tmp_path / name).write_text(f"SessionId,ItemId\ns,{name.removeprefix('parts/')}\n")
    names = [f"{folder}part-{number}.csv" for folder in ("9/", "10/", "") for number in (1, 2, 10)]
    for path, expected in ((tmp_path / "parts", names), (f"{tmp_path}/parts/*.csv", names[6:])):
        events = read_events(path, LogFormat(time_column=None))
        assert sequences(events) == {"s": expected}
        assert events.notes[0].startswith("files read in the order part-1.csv, part-2.csv, part-10.csv")
