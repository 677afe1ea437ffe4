"""Reading and cleaning click logs: the same sessions from every layout, and clear words for the rest."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sessrec.cleaning import clean_events
from sessrec.errors import SessRecError
from sessrec.events import Events, events_from_frame, read_events
from sessrec.tables import LogFormat

BASE = [
    ("1", "101", 1396867869), ("1", "102", 1396868049), ("1", "103", 1396868096),
    ("2", "102", 1396879017), ("2", "103", 1396879057),
    ("3", "101", 1396954269), ("3", "103", 1396954329), ("3", "102", 1396954389),
    ("4", "103", 1397040669), ("4", "101", 1397040729),
]  # fmt: skip


def sequences(events: Events) -> dict[str, list[str]]:
    """Item ids of each session, by session id, in session order."""
    found: dict[str, list[str]] = {}
    session_ids, item_ids = events.session_ids.to_pylist(), events.item_ids.to_pylist()
    for session, item in zip(events.session.tolist(), events.item.tolist(), strict=True):
        found.setdefault(session_ids[events.numbers[session]], []).append(item_ids[item])
    return found


EXPECTED = {"1": ["101", "102", "103"], "2": ["102", "103"], "3": ["101", "103", "102"], "4": ["103", "101"]}


def text(separator: str = "\t", time: Callable[[int], object] = lambda t: t, end: str = "\n") -> str:
    rows = [("SessionId", "ItemId", "Time"), *((s, i, time(t)) for s, i, t in BASE)]
    return "".join(separator.join(map(str, row)) + end for row in rows)


def iso(t: int, suffix: str = "Z") -> str:
    return str(np.datetime64(t, "s")) + suffix


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text(","),
        text(";"),
        text("|"),
        "\ufeff" + text(",", end="\r\n"),
        text(",").replace("SessionId,ItemId,Time", ' "SessionId" , ItemId,Time '),
        text(time=lambda t: t * 1000),
        text(time=lambda t: t * 1_000_000),
        text(time=lambda t: t * 10**9),
        text(time=lambda t: f"{t}.0"),
        text(time=iso),
        text(time=lambda t: iso(t, "")),
        text(time=lambda t: iso(t, ".000Z")),
        text(time=lambda t: iso(t + 7200, "+02:00")),
        text(time=lambda t: iso(t).replace("T", " ")),
        "SessionId\tItemId\tTime\n" + "".join(sorted(text().splitlines(keepends=True)[1:], reverse=True)),
    ],
)
def test_layouts_of_the_same_log(tmp_path: Path, content: str) -> None:
    file = tmp_path / "log"
    file.write_bytes(content.encode())
    events = read_events(file)
    assert sequences(events) == EXPECTED
    assert list(sequences(events)) == ["1", "2", "3", "4"]
    assert events.time.tolist() == [t for _, _, t in BASE]


def test_compressed_parquet_and_several_files(tmp_path: Path) -> None:
    frame = pd.DataFrame(BASE, columns=["SessionId", "ItemId", "Time"])
    (tmp_path / "a.csv").write_bytes(gzip.compress(text().encode()))  # told by its bytes, not by its name
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("clicks.csv", text(","))
    frame.to_parquet(tmp_path / "c.parquet")
    numbers = frame.astype({"SessionId": "int64", "ItemId": "int32"}).assign(Time=pd.to_datetime(frame.Time, unit="s"))
    numbers.to_parquet(tmp_path / "d.parquet")
    for name in ("a.csv", "b.zip", "c.parquet", "d.parquet"):
        assert sequences(read_events(tmp_path / name)) == EXPECTED
    frame.iloc[:4].to_csv(tmp_path / "part1.csv", index=False)
    frame.iloc[4:].to_parquet(tmp_path / "part2.parquet")
    assert sequences(read_events([tmp_path / "part2.parquet", tmp_path / "part1.csv"])) == EXPECTED


def test_table_in_memory_is_read_and_left_alone() -> None:
    frame = pd.DataFrame(BASE[::-1], columns=["SessionId", "ItemId", "Time"])
    before = frame.copy()
    assert sequences(events_from_frame(frame)) == EXPECTED
    pd.testing.assert_frame_equal(frame, before)


def test_ids_stay_text(write_log: Callable[..., Path]) -> None:
    ids = ["0012", "12", "12.0", "NA", "null", "2.1E+08", "9007199254740993", "9007199254740992", "1", "1.0"]
    log = write_log([("s", item, number) for number, item in enumerate(ids)])
    assert sequences(read_events(log)) == {"s": ids}


def test_a_stray_quote_swallows_no_rows(write_log: Callable[..., Path], tmp_path: Path) -> None:
    rows = [("s", '"abc', 1), ("s", "b", 2), ("s", 'x"', 3), ("s", "abc", 4)]
    assert sequences(read_events(write_log(rows))) == {"s": ['"abc', "b", 'x"', "abc"]}
    file = tmp_path / "quoted.csv"
    file.write_text('SessionId,ItemId,Time\ns,"a,b",1\ns,c,2\n')
    assert sequences(read_events(file)) == {"s": ["a,b", "c"]}
    file.write_text('SessionId,ItemId,Time\ns,"abc,1\ns,b,2\ns,x",3\ns,d,4\n')
    with pytest.raises(SessRecError, match="quoted.csv"):
        read_events(file)


def test_equal_times_keep_file_order_and_no_times_mean_file_order(write_log: Callable[..., Path]) -> None:
    rows = [("b", "3", 5), ("a", "9", 5), ("b", "1", 5), ("a", "2", 5), ("b", "2", 4)]
    assert sequences(read_events(write_log(rows))) == {"b": ["2", "3", "1"], "a": ["9", "2"]}
    events = read_events(write_log(rows), LogFormat(time_column=None))
    assert sequences(events) == {"b": ["3", "1", "2"], "a": ["9", "2"]}
    assert not events.has_times


def test_fractions_of_a_second_order_events(write_log: Callable[..., Path]) -> None:
    log = write_log([("s", "b", 1396868000.75), ("s", "a", 1396868000.5), ("s", "c", 1396868001.0)])
    events = read_events(log)
    assert sequences(events) == {"s": ["a", "b", "c"]}
    assert events.time.dtype == np.float64


def test_rows_with_an_empty_field_are_dropped_and_named(write_log: Callable[..., Path]) -> None:
    events = read_events(write_log([("s", "a", 1), ("s", "", 2), ("", "b", 3), ("s", "c", 4), ("s", "d", "")]))
    assert sequences(events) == {"s": ["a", "c"]}
    assert [note.partition(": ")[2] for note in events.notes[:3]] == [
        "1 rows dropped: empty SessionId, line 4",
        "1 rows dropped: empty ItemId, line 3",
        "1 rows dropped: empty Time, line 6",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"SessionId\tItemId\tTime\n", "no events|no rows"),
        (b"session_id,item_id,timestamp\n1,2,3\n", "no column SessionId, ItemId, Time.*session_id, item_id, timestamp"),
        (b"SessionId\tItemId\tTime\ns\ta\t1\ns\tb\n", "line 3: 2 fields in place of 3: 's\\\\tb'"),
        (
            b"SessionId\tItemId\tTime\ns\ta\toops\ns\tb\t2\ns\tb\t3\n",
            "line 2: 1 of column 'Time' cannot be read, first 'oops'",
        ),
        (b"SessionId\tItemId\tTime\ns\ta\t03/04/2014 10:00:00\n", "time_format"),
        (b"SessionId\tItemId\tTime\ns\ta\t1396868000\ns\tb\t1396868000000\ns\tc\t1396868000001\n", "time_unit|like"),
        (gzip.compress(text().encode() * 50)[:80], "damaged, cut short"),
        (b"SessionId\tItemId\tTime\ns\t\xff\xfe\t1\n", "line 2: ItemId .* is not UTF-8"),
        (b"PAR1 and then nonsense", "cannot read"),
    ],
)
def test_unusable_files_are_refused_in_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "clicks.tsv"
    file.write_bytes(content)
    with pytest.raises(SessRecError, match=message) as caught:
        read_events(file)
    assert "clicks.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SessRecError, match="no such file"):
        read_events(tmp_path / "none.tsv")
    with pytest.raises(SessRecError, match="holds no click log"):
        read_events(tmp_path)
    with pytest.raises(SessRecError, match="names no file"):
        read_events([])


def test_repeats_go_before_short_sessions(write_log: Callable[..., Path]) -> None:
    rows = [("1", "i", 1), ("1", "i", 1), ("1", "j", 2), ("1", "i", 3), ("2", "i", 4), ("2", "i", 5)]
    events = read_events(write_log(rows))
    kept, dropped = clean_events(events)
    assert sequences(kept) == {"1": ["i", "i", "j", "i"], "2": ["i", "i"]}
    assert not any(dropped.values())
    kept, dropped = clean_events(events, drop_repeats=True)
    assert sequences(kept) == {"1": ["i", "j", "i"]}
    assert {rule: count for rule, count in dropped.items() if count} == {
        "events_dropped_repeats": 2, "events_dropped_in_short_sessions": 1, "sessions_dropped": 1
    }  # fmt: skip


def test_cleaning_goes_on_until_nothing_changes(write_log: Callable[..., Path]) -> None:
    """The rare item r empties session 2, which makes b rare, which empties session 3."""
    rows = [("1", "a", 1), ("1", "c", 2), ("2", "b", 3), ("2", "r", 4), ("3", "b", 5), ("3", "a", 6)]
    rows += [("4", "a", 7), ("4", "c", 8)]
    kept, dropped = clean_events(read_events(write_log(rows)), min_item_support=2)
    assert sequences(kept) == {"1": ["a", "c"], "4": ["a", "c"]}
    assert dropped["events_dropped_of_rare_items"] + dropped["events_dropped_in_short_sessions"] == 4


def test_long_sessions_keep_their_first_events(write_log: Callable[..., Path]) -> None:
    rows = [("1", str(number), number) for number in range(9)] + [("2", "a", 20), ("2", "b", 21)]
    kept, dropped = clean_events(read_events(write_log(rows)), max_session_length=4)
    assert sequences(kept) == {"1": ["0", "1", "2", "3"], "2": ["a", "b"]}
    assert dropped["events_dropped_beyond_max_session_length"] == 5
    assert dropped["sessions_cut"] == 1
