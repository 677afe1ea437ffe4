"""Reading and cleaning click logs: the same sessions from every layout, and clear words for the rest."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import BASE, EXPECTED, ROOT, sequences

from sessrec.click_log.events import events_from_frame
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.quote_check import checked_rows
from sessrec.click_log.reading import read_events
from sessrec.data.cleaning import clean_events
from sessrec.errors import SessRecError


def text(separator: str = "\t") -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in [("SessionId", "ItemId", "Time"), *BASE])


def write(tmp_path: Path, content: str | bytes, name: str = "clicks.csv") -> Path:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


HEADER = "SessionId,ItemId,Time\n"


@pytest.mark.parametrize(
    "content",
    [
        text(",").replace("SessionId,ItemId,Time", ' "SessionId" , ItemId,Time '),
        "SessionId\tItemId\tTime\n" + "".join(sorted(text().splitlines(keepends=True)[1:], reverse=True)),
    ],
)
def test_layouts_of_the_same_log(tmp_path: Path, content: str) -> None:
    events = read_events(write(tmp_path, content))
    assert sequences(events) == EXPECTED
    assert list(sequences(events)) == ["1", "2", "3", "4"]
    assert events.time.tolist() == [t for _, _, t in BASE]


@pytest.mark.parametrize("separator", ["::", None])
def test_case_103_a_separator_of_two_characters(separator: str | None) -> None:
    names = ["SessionId", "ItemId", "Rating", "Time"]
    file = ROOT / "tests" / "cases" / "103" / "base.dat"
    events = read_events(file, LogFormat(column_names=names, separator=separator))
    assert sequences(events) == EXPECTED
    assert events.time.tolist() == [t for _, _, t in BASE]


def test_quotes_hold_a_separator_of_two_characters(tmp_path: Path) -> None:
    file = write(tmp_path, '"SessionId"::"ItemId"::"Time"\n"s"::"a::b"::"1"\n"s"::"c:"::"2"\n')
    assert sequences(read_events(file)) == {"s": ["a::b", "c:"]}


def test_missing_values_count_as_empty(write_log: Callable[..., Path]) -> None:
    log = write_log([("s", "a", 1), ("s", "unknown", 2), ("NA", "b", 3), ("s", "c", 4)])
    events = read_events(log, LogFormat(missing_values=["unknown", "NA"]))
    assert sequences(events) == {"s": ["a", "c"]}
    assert (events.figures["rows_with_empty_item"], events.figures["rows_with_empty_session"]) == (1, 1)


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
        "1 row dropped: empty SessionId, line 4",
        "1 row dropped: empty ItemId, line 3",
        "1 row dropped: empty Time, line 6",
    ]


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


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (HEADER + "s,a,1\ns,b,2,3\n", {}, "line 3: 4 fields in place of 3: 's,b,2,3'"),
        (HEADER + "s,a,1\n\n\ns,b\n", {}, "line 5: 2 fields in place of 3"),  # blank lines count as lines
        (HEADER + 's,"a",1\ns,b"c,2\n', {}, "line 3: a quote stands inside a field.*--data.quoting false"),
        (HEADER + 's,"a"b,1\n', {}, "line 2: a quote stands inside"),
        (HEADER + 's,"abc,1\ns,b,2\ns,x",3\ns,d,4\n', {}, "clicks.csv.*quote"),
        (HEADER + 's,"a,1\ns,b,2\n', {}, "a quote is never closed"),
        (HEADER.encode() + b"s,a,1\ns,caf\xe9,2\n", {}, "line 3: ItemId .* is not UTF-8; save the file as UTF-8"),
        (HEADER + "s,a,1\ns,b,x\ns,c,3\n", {}, "line 3: 1 of column 'Time' cannot be read, first 'x'; the others are"),
        (HEADER + "s,a,nan\ns,b,2\n", {}, "line 2: 1 of column 'Time' cannot be read"),
        (HEADER + "s,a,2014-02-30T00:00:00Z\ns,b,2014-03-01T00:00:00Z\n", {}, "line 2: 1 of column 'Time'"),
        (HEADER + "s,a,31/02/2014\n", {"time_format": "%d/%m/%Y"}, "line 2: 1 of column 'Time'.*not written as"),
        (HEADER + "s,a,1\n", {"time_format": ""}, "time_format is empty"),
        (HEADER + "s,a,1\n", {"time_format": "%Q"}, "time_format '%Q'"),
        (HEADER + "s,a,20140407\ns,b,20140430\n", {}, "look like dates: give --data.time_format %Y%m%d"),
        (HEADER + "s,a,20140407105109\ns,b,20140407105110\n", {}, "look like dates: .*%Y%m%d%H%M%S"),
        (HEADER + "s,a,1e12\ns,b,2e12\n", {"time_unit": "s"}, "beyond the year 9999"),
        ("SessionId,ItemId,ItemId,Time\ns,a,b,1\n", {}, "more than one column ItemId"),
        (HEADER + "s,a,1\n", {"item_column": "SessionId"}, "one column is named for two things"),
        (HEADER + "s,a,1\n" + HEADER + "s,b,2\n", {"time_column": None}, "line 3: a header stands among the rows"),
        (HEADER + "s,a,1\n\ufeffs,b,2\n", {}, "line 3: an id begins with a byte-order mark: files were joined"),
        ("s,a,2014-04-07T10:00:00Z\ns,b,x\n", {}, "looks like data: .*--data.column_names"),
        (HEADER + "s,a,1\n", {"column_names": ["SessionId", "ItemId", "Time"]}, "has a header: leave out"),
        ("s,a,1\n", {"column_names": ["SessionId", "ItemId", "Time", "x"]}, "gives 4 names, .* has 3 fields"),
        (HEADER + "s,a,1\n", {"separator": '::"'}, "separator must be ASCII characters"),
        (HEADER + "s,a,1\n", {"separator": ""}, "separator must be ASCII characters"),
        ("SessionId::ItemId::Time\ns::a::1\ns::a\n", {}, "line 3: 2 fields in place of 3: 's::a'"),
        ("SessionId::ItemId::Time\ns::a\x1f::1\n", {}, "holds the character"),
        ("SessionId;ItemId;Time\ns;a;1\n", {"separator": ","}, "no column .*SessionId;ItemId;Time .separated by ','"),
        (HEADER + "s,a,1\n", {"separator": "\xa6"}, "separator must be ASCII characters"),
        (HEADER + "s,a,\n", {}, "no events in .*1 row dropped: empty Time, line 2"),
        (b"\x00\x01" * 1000, {}, "binary data"),
        (b"7z\xbc\xaf\x27\x1c", {}, "a 7z archive"),
        ("\n\n  \n", {}, "holds no text"),
        (b"", {}, "is empty"),
        (HEADER, {}, "no events in .*there is a header at most"),
        (
            "session_id,item_id,timestamp\n1,2,3\n",
            {},
            "no column SessionId, ItemId, Time.*session_id, item_id, timestamp",
        ),
        (HEADER + "s,a,03/04/2014 10:00:00\n", {}, "time_format"),
        (HEADER + "s,a,1396868000\ns,b,1396868000000\n", {}, "largest looks like ms .*smallest like s; .*time_unit"),
        (HEADER + "s,a,0x53428b5d\ns,b,0x53428b5e\n", {}, "line 2, 3: 2 of column 'Time' .*first '0x53428b5d'"),
        (gzip.compress(text().encode() * 50, mtime=0)[:80], {}, "damaged, cut short"),
        (b"PAR1 and then nonsense", {}, "cannot read"),
        # a mark in an item id, among sessions that are numbers
        (
            "a,1,1\n\ufeffb,1,2\n",
            {"column_names": ["ItemId", "SessionId", "Time"]},
            "line 2: an id begins with a byte-order mark",
        ),
        (
            "SessionId,ItemId,Time,Order\ns,a,1,1\ns,b,1,second\n",
            {"order_column": "Order"},
            "line 3: 1 of column 'Order' are no numbers, first 'second'",
        ),
        ("SessionId,ItemId,Time,Order\ns,a,1,1\ns,b,1,nan\n", {"order_column": "Order"}, "line 3: 1 of .* no numbers"),
        (HEADER + "s,a,1396868000\ns,b,2014-04-07\n", {}, "line 2: 1 of .* first '1396868000'; the others are dates"),
        (HEADER + "s,a,1\n", {"time_column": None, "order_column": "Time"}, "order_column orders events of equal time"),
    ],
)
def test_refusals_name_the_file_the_line_and_what_to_do(
    tmp_path: Path, content: str | bytes, options: dict, message: str
) -> None:
    with pytest.raises(SessRecError, match=message) as caught:
        read_events(write(tmp_path, content), LogFormat(**options))
    assert "clicks.csv" in str(caught.value) or "--data." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("SessionId ItemId Time\ns a 1\ns b 2\n", {}),
        ("SessionId\\tItemId\\tTime\ns\\ta\\t1\ns\\tb\\t2\n".replace("\\t", "\t"), {"separator": "\\t"}),
        ('"SessionId"\t"ItemId"\t"Time"\n"s"\t"a"\t"1"\n"s"\t"b"\t"2"\n', {}),
        ('SessionId\tItemId\tTime\n"s"\t"a"\t1\n"s"\t"b"\t2\n', {"quoting": True}),
        ('Time,Title,ItemId,SessionId\n1,"two\nlines, ""quoted""",a,s\n2,plain,b,s\n', {}),
        ("\n\nSessionId,ItemId,Time\r\ns,a,1\r\n\r\ns,b,2", {}),
        ("SessionId,ItemId,Time\rs,a,1\rs,b,2\r", {}),
        (HEADER + "s,a, 1\ns,b,2 \n", {}),
        (("\ufeff" + HEADER + "s,a,1\ns,b,2\n").encode("utf-16"), {}),
        ('Time,Title,ItemId,SessionId\n1970-01-01T00:00:01Z,"two\nlines",a,s\n1970-01-02,plain,b,s\n', {}),
        (HEADER + "s,a,1970-01-01T00:00:01Z\ns,b,1970-01-01 02:00:02+02:00\n", {}),
        (HEADER + "s,a,1970-01-01 00:00:01 UTC\ns,b,1970-01-01 00:00:02 UTC\n", {}),
        (
            HEADER + "s,a,01/01/1970 00:00:01.000 \ns,b,01/01/1970 00:00:02.000\n",
            {"time_format": "%d/%m/%Y %H:%M:%S.%f"},
        ),
        (HEADER + "s,b,0.000002\ns,a,0.000001\n", {"time_unit": "s", "session_column": "SessionId"}),
        (HEADER + "s,b,04/05/2014 10:00:00\ns,a,05/04/2014 10:00:00\n", {"time_format": "%d/%m/%Y %H:%M:%S"}),
    ],
)
def test_odd_layouts_of_one_session(tmp_path: Path, content: str | bytes, options: dict) -> None:
    assert sequences(read_events(write(tmp_path, content), LogFormat(**options))) == {"s": ["a", "b"]}


def test_a_time_format_may_reach_back_for_centuries(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + "s,b,02/01/1600\ns,a,01/01/1600\n")
    with suppress(SessRecError):  # pandas 2 has no time before 1677, and says so
        assert sequences(read_events(file, LogFormat(time_format="%d/%m/%Y"))) == {"s": ["a", "b"]}


@pytest.mark.parametrize("block", [1 << 23, 40])
def test_whole_and_other_numbers_beyond_the_exact_ones_of_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("sessrec.click_log.text_source.BLOCK", block)
    file = write(tmp_path, HEADER + "s,b,1400000000000000001\ns,a,1300000000000000000.5\n")
    assert sequences(read_events(file)) == {"s": ["a", "b"]}


def test_folders_patterns_and_sessions_across_files(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (folder / "day=2").mkdir(parents=True)
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / ".part.crc").write_bytes(b"odd")
    (folder / "a.csv").write_text(HEADER + "s,a,1\nt,x,5\n")
    (folder / "LICENSE").write_text("Terms of use")
    with pytest.raises(SessRecError, match=r"LICENSE has no column .*; where it is no part of the log, leave it out"):
        read_events(folder)
    (folder / "LICENSE").unlink()
    (folder / "day=2" / "b.csv.gz").write_bytes(gzip.compress((HEADER + "s,b,2\nt,y,4\n").encode()))
    expected = {"s": ["a", "b"], "t": ["y", "x"]}
    events = read_events(folder)
    assert sequences(events) == expected
    assert events.figures["files"] == 2
    assert sequences(read_events([folder / "day=2", folder / "a.csv"])) == expected
    assert sequences(read_events(str(tmp_path / "logs" / "*" / "*.gz"))) == {"s": ["b"], "t": ["y"]}
    with pytest.raises(SessRecError, match="is named twice"):
        read_events([folder, folder / "a.csv"])
    for path, message in (("", "path is empty"), ([], "names no file"), (tmp_path / "none.tsv", "no such file")):
        with pytest.raises(SessRecError, match=message):
            read_events(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SessRecError, match="holds no click log"):
        read_events(tmp_path / "empty")
    with pytest.raises(SessRecError, match="no such file"):
        read_events(str(folder / "*.parquet"))


def test_a_zip_may_hold_what_systems_add(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("logs/", "")
        archive.writestr("logs/clicks.csv", HEADER + "s,a,1\n")
        archive.writestr("__MACOSX/._clicks.csv", "odd")
        archive.writestr("logs/.DS_Store", "odd")
    assert sequences(read_events(tmp_path / "log.zip")) == {"s": ["a"]}
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    with pytest.raises(SessRecError, match="holds 0 files"):
        read_events(tmp_path / "none.zip")


def test_typed_times_that_cannot_be_right(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"SessionId": ["s", "s"], "ItemId": ["a", "b"], "Time": np.array([1.4e9, 1.4e9 + 1], np.float32)}
    )
    frame.to_parquet(tmp_path / "coarse.parquet")
    with pytest.raises(SessRecError, match="float, too coarse"):
        read_events(tmp_path / "coarse.parquet")
    frame.assign(Time=[1.0, np.nan]).to_parquet(tmp_path / "nan.parquet")
    events = read_events(tmp_path / "nan.parquet")
    assert sequences(events) == {"s": ["a"]}
    assert events.figures["rows_with_empty_time"] == 1
    assert events.notes[0].endswith("1 row dropped: empty Time, row 2")
    frame.assign(ItemId=[1.5, 2.5]).to_parquet(tmp_path / "float.parquet")
    with pytest.raises(SessRecError, match="ItemId is of type double; ids must be text or whole numbers"):
        read_events(tmp_path / "float.parquet")


VISITS = "timestamp,visitorid,event,itemid\n" + "".join(
    f"{1_400_000_000_000 + 1000 * second},{visitor},{event},{item}\n"
    for second, visitor, event, item in [
        (0, 7, "view", "a"), (3600, 7, "view", "b"), (7201, 7, "view", "c"),  # a gap of an hour, and one second more
        (10, 8, "view", "d"), (3000, 8, "addtocart", "d"), (6000, 8, "view", "e"),  # the cart bridges the gap
        (20000, 8, "addtocart", "e"),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "kinds", "between", "expected"),
    [
        (3600, ["view"], "all", {"7_1": ["a", "b"], "8_1": ["d", "e"], "7_2": ["c"]}),
        (3600, ["view"], "kept", {"7_1": ["a", "b"], "8_1": ["d"], "8_2": ["e"], "7_2": ["c"]}),
        (3600, None, "all", {"7_1": ["a", "b"], "8_1": ["d", "d", "e"], "7_2": ["c"], "8_2": ["e"]}),
        (10**6, ["addtocart"], "all", {"8_1": ["d", "e"]}),
    ],
)
def test_visitors_are_cut_into_sessions(
    tmp_path: Path, gap: float, kinds: list[str] | None, between: str, expected: dict
) -> None:
    file = write(tmp_path, VISITS)
    log_format = LogFormat(
        visitor_column="visitorid", item_column="itemid", time_column="timestamp", event_column="event"
    )
    events = read_events(file, log_format, gap, between, kinds)  # type: ignore[arg-type]
    assert sequences(events) == expected
    assert list(sequences(events)) == list(expected)  # in the order of their starts
    assert events.counts()["sessions"] == len(expected)
    with pytest.raises(SessRecError, match="no event is of the kind views .*the log has addtocart, view"):
        read_events(file, log_format, gap, "all", ["views"])
    with pytest.raises(SessRecError, match="no event is of the kind add-to-cart .*the log has addtocart, view"):
        read_events(file, log_format, gap, "all", ["view", "add-to-cart"])
    rare = read_events(file, log_format, gap, "all", ["view", "addtocart", "transaction"])  # as a part may be
    assert rare.warnings == ["no event is of the kind transaction (--data.events); the log has addtocart, view"]


def test_a_session_id_that_comes_back_can_be_cut(write_log: Callable[..., Path]) -> None:
    rows = [("s", "a", 1_400_000_000), ("s", "b", 1_400_000_100), ("s", "c", 1_400_900_000)]
    assert sequences(read_events(write_log(rows), session_gap=86400)) == {"s_1": ["a", "b"], "s_2": ["c"]}
    with pytest.raises(SessRecError, match="session_gap needs times"):
        read_events(write_log(rows), LogFormat(time_column=None), session_gap=60)


@pytest.mark.parametrize(
    "order",
    [
        ["10", "2", "9"],
        ["1396867869123", "5", "1396867869120"],  # no Unix time, and none is wanted
        ["10", "-1.5", "9"],
        [" 3", "1", "2"],
    ],
)
def test_a_column_of_numbers_orders_the_events_of_equal_time(tmp_path: Path, order: list[str]) -> None:
    rows = "s,c,86400,{}\ns,a,86400,{}\nt,x,86400,1\ns,b,86400,{}\ns,z,0,99\n".format(*order)
    file = write(tmp_path, "SessionId,ItemId,Time,Order\n" + rows)
    assert sequences(read_events(file, LogFormat(order_column="Order"))) == {"s": ["z", "a", "b", "c"], "t": ["x"]}


def test_long_texts_in_other_columns_are_no_fault(tmp_path: Path) -> None:
    long = "z" * 200_000
    file = write(tmp_path, f"SessionId,ItemId,Time,{long}\ns,a,1,x\ns,,2,{long}\ns,b,3,{long}\n")
    events = read_events(file)
    assert sequences(events) == {"s": ["a", "b"]}
    assert "line 3" in events.notes[0]


def test_visitors_without_an_id_are_warned_of(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + "".join(f"NA,a,{1000 * number}\n" for number in range(5)))
    events = read_events(file, LogFormat(visitor_column="SessionId"), session_gap=60)
    advice = "a missing value? --data.missing_values '[\"NA\"]' drops such rows"
    assert events.warnings[0] == f"5 events with the visitor id 'NA': {advice}"
    null = write(tmp_path, HEADER + "s,a,1\ns,\\N,2\ns,b,\\N\n")
    with pytest.raises(SessRecError, match=r"line 4: .*others are numbers; --data.missing_values drops rows"):
        read_events(null)
    assert sequences(read_events(null, LogFormat(missing_values=["\\N"]))) == {"s": ["a"]}


def test_many_files_are_one_note(tmp_path: Path) -> None:
    for number in range(30):
        text = HEADER + f"s{number},a,{number + 1}\n" + (f"s{number},,5\n" if number else "")
        write(tmp_path, text.replace(",1\n", ",1970-01-01T00:00:01Z\n"), f"{number}.csv")
    events = read_events(tmp_path)
    assert len(events.notes) == 24  # 20 of dropped rows, one of the others, one of the order, and two of times
    assert events.notes[20] == "... and 9 more notes of this kind"
    assert events.notes[21] == "files read in the order 0.csv, 1.csv, 2.csv, 3.csv, 4.csv, ..., 29.csv"
    assert sorted(events.notes[22:]) == [
        "times read as dates and times, UTC where no zone is given, in 1 of 30 files",
        "times read as numbers, unit s, in 29 of 30 files",
    ]
    assert events.figures["rows"] == 59
    assert events.figures["incomplete_rows"] == 29


def test_quoted_newlines_in_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are cut at newlines outside quotes only, wherever a block ends."""
    rows = [(f"s{n // 3}", f"i{n % 7}", n) for n in range(200)]
    lines = [f'"a\n""b"",\n{n}",{s},{i},{t}\n' for n, (s, i, t) in enumerate(rows)]
    text = "Title,SessionId,ItemId,Time\n" + "".join(lines)
    file = write(tmp_path, text)
    expected = sequences(read_events(file))
    assert sum(map(len, expected.values())) == 200
    for size in (64, 65, 66, 67, 100, 1000):
        monkeypatch.setattr("sessrec.click_log.text_source.BLOCK", size)
        assert sequences(read_events(file)) == expected
        with pytest.raises(SessRecError, match="a quote is never closed"):
            read_events(write(tmp_path, text + '"x', "open.csv"))


def test_times_are_exact_with_and_without_fractions(tmp_path: Path) -> None:
    rows = [f"s,i{n},2014-04-07T10:51:0{n}{fraction}Z\n" for n, fraction in enumerate(["", ".277", "", ".5"])]
    assert read_events(write(tmp_path, HEADER + rows[0] + rows[2])).time.dtype == np.int64
    events = read_events(write(tmp_path, HEADER + "".join(rows)))
    np.testing.assert_allclose(events.time - 1396867860, [0, 1.277, 2, 3.5], rtol=0, atol=1e-6)


def test_a_text_among_many_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks whose ids are all numbers are encoded as numbers, and give the same ids as one that is not."""
    monkeypatch.setattr("sessrec.click_log.text_source.BLOCK", 4096)
    rows = [(row // 2, str(row % 100), row) for row in range(3000)] + [(3001, "X1", 3001), (3001, "5", 3002)]
    events = read_events(write(tmp_path, HEADER + "".join(f"{s},{i},{t}\n" for s, i, t in rows)))
    assert events.counts() == {"events": 3002, "sessions": 1501, "items": 101}
    counts = dict(zip(events.item_ids.to_pylist(), events.item_counts.tolist(), strict=True))
    assert (counts["5"], counts["6"], counts["X1"]) == (31, 30, 1)


def test_a_text_may_be_named_like_a_gzip_file(tmp_path: Path) -> None:
    assert sequences(read_events(write(tmp_path, text(), "log.csv.gz"))) == EXPECTED


def test_blocks_that_end_on_quotes_stay_small(tmp_path: Path) -> None:
    """Rows of 32 bytes, of which each block ends at the last quote."""
    file, row = tmp_path / "log.csv", b'"1000000","200001","1400000000"\n'
    file.write_bytes(row * 100)
    layout: Any = SimpleNamespace(quoting=True, n_skipped_bytes=0, separator=",")
    blocks = list(checked_rows(file, layout, newlines_in_values=False, size=4 * len(row) - 1))
    assert b"".join(blocks) == row * 100
    assert max(map(len, blocks)) == 4 * len(row)
