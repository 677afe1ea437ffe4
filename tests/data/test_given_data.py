"""Data as people have it: tables in memory, and splits that somebody else has made."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import BASE, ROOT, everything_in, make_trainer, one_error, random_rows, sequences

from sessrec import prepare, test
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.data import PreparedLog, SessionDataModule
from sessrec.errors import SessRecError
from sessrec.models import Popularity

COLUMNS = ["SessionId", "ItemId", "Time"]
CASE = ROOT / "tests" / "cases" / "108"


def frame_of(rows: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


class Streamed:
    """A table that offers nothing but the Arrow C stream interface, with the types of text and category of polars."""

    def __init__(self, frame: pd.DataFrame) -> None:
        table = pa.table(frame)
        codes, names = pd.factorize(frame["SessionId"])
        categories = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string_view()))
        table = table.set_column(0, "SessionId", categories)
        self.table = table.set_column(1, "ItemId", table["ItemId"].cast(pa.string()).cast(pa.string_view()))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


TABLES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "an index": lambda frame: frame.set_index(np.arange(len(frame)) % 3),
    "categories": lambda frame: frame.astype({"SessionId": "category", "ItemId": "category"}),
    "dates": lambda frame: frame.assign(Time=pd.to_datetime(frame["Time"], unit="s")),
    "pyarrow": pa.table,
    "a reader": lambda frame: pa.table(frame).to_reader(max_chunksize=7),
    "a stream": Streamed,
    "decimals": lambda frame: pa.table(frame).set_column(2, "Time", pa.array(frame["Time"].map(Decimal))),
}


def digests(prepared: PreparedLog) -> dict[str, str]:
    return {part: own.digest_of_ids(prepared.vocabulary.item_ids) for part, own in prepared.sessions.items()}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_prepared_as_its_file_is(kind: str, tmp_path: Path, write_log: Callable[..., Path]) -> None:
    rows = random_rows(40)
    file, frame = write_log(rows), frame_of(rows)
    before, folder = frame.copy(), tmp_path / "cache"
    data = SessionDataModule(path=TABLES[kind](frame), cache_dir=str(folder))
    expected = SessionDataModule(path=str(file), cache_dir=None).prepare()
    assert digests(data.prepare()) == digests(expected)
    assert data.report.sections["test cut"] == expected.report.sections["test cut"]
    assert not folder.exists()
    pd.testing.assert_frame_equal(frame, before)
    numbers = frame_of([row for row in BASE]).astype({"SessionId": "int64"})  # typed and text ids are the same
    assert read_events(numbers).session_ids.to_pylist() == [1, 2, 3, 4]


def test_missing_values_of_a_table_are_dropped_and_named() -> None:
    frame = frame_of([("s", "a", 1), ("s", None, 2), (None, "b", 3), ("s", "", 4), ("s", "c", np.nan), ("s", "d", 6)])
    events = read_events(frame)
    assert events.item_ids.to_pylist() == ["a", "d"]
    assert [note.partition("> ")[2] or note.partition(">: ")[2] for note in events.notes[:3]] == [
        "1 row dropped: empty SessionId, row 3",
        "2 rows dropped: empty ItemId, row 2, 4",
        "1 row dropped: empty Time, row 5",
    ]


def test_missing_values_are_named_for_numbers_too(tmp_path: Path) -> None:
    """Those of a table, of Parquet, and a column in which every value is missing."""
    table = pa.table({"SessionId": [1, -1, 1], "ItemId": pa.array([7, 8, 9], pa.decimal128(9)), "Time": [-1, 5, 6]})
    empty = table.set_column(1, "ItemId", pa.nulls(3))
    for name, content in (("typed", table), ("empty", empty)):
        pq.write_table(content, tmp_path / f"{name}.parquet")
    for source in (table, tmp_path / "typed.parquet"):
        events = read_events(source, LogFormat(missing_values=["-1"]))
        assert (sequences(events), events.time.tolist()) == ({"1": ["9"]}, [6])
        assert events.figures["rows_with_empty_session"] == events.figures["rows_with_empty_time"] == 1
    for source in (empty, tmp_path / "empty.parquet"):
        with pytest.raises(SessRecError, match="no events in .*3 rows dropped: empty ItemId, row 1, 2, 3"):
            read_events(source)


def test_dates_of_a_typed_column_need_no_format() -> None:
    frame = frame_of(BASE).assign(Time=pd.to_datetime([row[2] for row in BASE], unit="s"))
    assert read_events(frame, LogFormat(time_format="%d.%m.%Y")).time.tolist() == sorted(row[2] for row in BASE)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((odd, f"takes files, or a table .*, got a {type(odd).__name__}") for odd in (5, b"x", {"a": 1}, np.ones(3))),
        (frame_of(BASE).assign(ItemId=pd.Series([2**70] * 10, dtype=object)), "column ItemId .*too large"),
        (frame_of(BASE).assign(ItemId=pd.Series(["\ud800"] * 10, dtype=object)), "column ItemId .*surrogates"),
        ([frame_of(BASE), frame_of(BASE)], "--data.path takes one table in memory, not several"),
        (frame_of(BASE).assign(ItemId=[1, "a"] * 5), "column ItemId mixes values of several types"),
        (frame_of(BASE).assign(ItemId=1.5), "ItemId is of type double; ids must be text or whole numbers"),
        (frame_of(BASE).rename(columns={"Time": 3}), "no column Time; its header gives SessionId, ItemId, 3: set"),
        (pa.table(frame_of(BASE)).drop_columns(["Time"]), "no column Time; its schema gives SessionId, ItemId: set"),
        (pa.chunked_array([[1, 2]]), "a ChunkedArray is no table of columns"),
        (frame_of(BASE[:0]), "no events in <table in memory>"),
    ],
)
def test_a_table_that_is_no_log_is_refused_in_one_line(path: Any, message: str) -> None:
    with pytest.raises(SessRecError, match=message) as caught:
        SessionDataModule(path=path).prepare()
    assert "\n" not in str(caught.value)


def test_a_run_of_a_table_keeps_none_and_asks_for_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = random_rows(40)
    trainer, model, data = make_trainer(tmp_path, max_epochs=1), Popularity(), SessionDataModule(path=frame_of(rows))
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    trainer.save_checkpoint("table.ckpt")
    assert data.hparams["path"] == "<table in memory>"
    assert b"u39" not in Path("table.ckpt").read_bytes()  # a session id
    args = ["--ckpt_path", "table.ckpt", "--trainer.accelerator", "cpu"]
    line = one_error(capsys, test.main, args)
    assert line.endswith("the log was a table in memory, which no run keeps: give --data.path, a file of it")
    test.main([*args, "--data.path", str(write_log(rows))])
    assert "test of Popularity" in capsys.readouterr().out


def parts_of(prepared: PreparedLog) -> dict[str, list[tuple[str, list[str]]]]:
    ids = prepared.vocabulary.item_ids
    return {
        part: [
            (str(name), [ids[item] for item in own[number]])
            for number, name in enumerate(own.session_ids.to_pylist())  # type: ignore[union-attr]
        ]
        for part, own in prepared.sessions.items()
    }


@pytest.mark.parametrize("as_table", [False, True])
def test_case_108_parts_given_as_files_or_tables(as_table: bool, tmp_path: Path) -> None:
    later = str(CASE / "test.tsv")
    paths: dict[str, Any] = {"train_path": str(CASE / "train.tsv"), "val_path": later, "test_path": later}
    if as_table:
        paths = {name: pd.read_csv(path, sep="\t") for name, path in paths.items()}
    for _ in range(2):  # anew, and from the cache
        data = SessionDataModule(**paths, cache_dir=str(tmp_path / "cache"))
        prepared = data.prepare()
        given = [("3", ["103", "101"]), ("4", ["103", "101"]), ("5", ["101", "102"])]
        whole = [("1", ["101", "102", "103"]), ("2", ["102", "103"]), ("3", ["101", "103", "102"])]
        assert parts_of(prepared) == {"train": whole, "val": given, "test": given}
        assert prepared.sessions["test"].n_positions == 3
        assert prepared.report.sections["test"]["unknown_events"] == 1
        leaks = {
            "session_ids_shared_with_train": 1,
            "session_ids_shared_with_val": 3,
            "train_ends": "1396954389 (2014-04-08 10:53:09 UTC)",
            "sessions_before_train_ends": 1,
            "events_before_train_ends": 2,
            "items_only_in_test": 1,
            "repeated_sessions": 0,
        }
        assert leaks.items() <= prepared.report.sections["test given"].items()
        warnings = "\n".join(prepared.report.warnings)
        assert "leaks: 1 of 3 test sessions begins before the training part ends at 1396954389 (" in warnings
        assert "1 session id, such as '3', shared by the test part and the train part" in warnings
        assert "3 session ids, such as '3', shared by the test part and the val part" in warnings


def test_numbers_of_rows_are_no_ids_that_parts_share(tmp_path: Path) -> None:
    (tmp_path / "sessions.csv").write_text("ItemId\na b\nb c\nc a\n")
    paths = dict.fromkeys(("train_path", "test_path"), str(tmp_path / "sessions.csv"))
    rows = {"session_column": None, "time_column": None, "item_lists": "all", "separator": ","}
    report = SessionDataModule(**paths, **rows, val_ratio=0, cache_dir=None).prepare().report  # type: ignore[arg-type]
    assert report.sections["test given"]["repeated_sessions"] == 3
    assert not any("shared" in warning for warning in report.warnings)


def test_what_no_part_is_given_of_is_cut_off_the_training_files(write_log: Callable[..., Path]) -> None:
    rows = random_rows(40)
    files = [write_log(rows[:100], "a.tsv"), write_log(rows[100:], "b.tsv")]
    found = SessionDataModule(train_path=str(files[0]), test_path=str(files[1]), val_ratio=0.25, cache_dir=None)
    whole = SessionDataModule(path=str(files[0]), test_ratio=0, val_ratio=0.25, cache_dir=None)
    found, whole = found.prepare(), whole.prepare()
    assert [digests(found)[part] for part in ("train", "val")] == list(digests(whole).values())
    assert found.sessions["test"].n_positions > 0


def test_parts_that_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train, later = ["--data.train_path", str(CASE / "train.tsv")], ["--data.test_path", str(CASE / "test.tsv")]
    for args, message in (
        ([*train, *later, "--data.path", "x.tsv"], "--data.path gives the whole log, and --data.train_path and "),
        (later, "--data.test_path needs --data.train_path"),
        ([*train, *later, "--data.test_ratio", "0.3"], "test_path gives the test part, and --data.test_ratio 0.3 cuts"),
        ([*train, *later, "--data.test_start", "5"], "--data.test_path gives the test part, and --data.test_start 5"),
        (["--data.train_path", "none.tsv", *later], "no such file: none.tsv (--data.train_path)"),
    ):
        assert message in one_error(capsys, prepare.main, args)
    prepare.main([*train, *later, "--data.val_ratio", "0"])
    assert "the given split leaks" in capsys.readouterr().out
    assert "lightning_logs/data_report/data_report.json" in everything_in(tmp_path)
