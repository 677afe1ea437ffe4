"""Troubles that people had with click logs elsewhere, one test for each; the logs are in tests/cases, by number."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    BASE,
    CASES,
    EXPECTED,
    TRAINER,
    WHOLE,
    everything_in,
    fit_log,
    lane_steps,
    make_sessions,
    make_vocabulary,
    one_error,
    sequences,
)

from sessrec import fit, predict, prepare, test
from sessrec.click_log.events import Events
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.data import SessionDataModule
from sessrec.data.cleaning import clean_events
from sessrec.data.loaders import SessionParallelLoader
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.data.session_parallel import Window
from sessrec.data.split import leakage_report, split_events, split_time
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import target_rank
from sessrec.models import GRU4Rec, Markov, Popularity

TIMES = [time for _, _, time in BASE]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Goes to an empty folder and copies the logs of a case there."""
    monkeypatch.chdir(tmp_path)

    def copy(*names: str) -> None:
        for name in names:
            shutil.copy(CASES / name, tmp_path)

    return copy


def data_report(run: Path) -> dict:
    return json.loads((run / "data_report.json").read_text(encoding="utf-8"))


def by_session(prepared: PreparedLog, part: str) -> dict[str, list[str]]:
    """Item ids of each session of a part, by session id."""
    sessions, ids = prepared.sessions[part], prepared.vocabulary.item_ids
    assert sessions.session_ids is not None
    return {
        session: [ids[item] for item in sessions[number]]
        for number, session in enumerate(sessions.session_ids.to_pylist())
    }


def assert_base(events: Events) -> None:
    assert sequences(events) == EXPECTED
    assert list(sequences(events)) == ["1", "2", "3", "4"]
    assert events.time.tolist() == TIMES
    assert events.counts() == {"events": 10, "sessions": 4, "items": 3}


# Data ingestion


def test_case_001_times_with_and_without_milliseconds() -> None:
    events = read_events(CASES / "001" / "mixed_ms.csv")
    assert sequences(events) == EXPECTED
    assert events.counts() == {"events": 10, "sessions": 4, "items": 3}
    fractions = [0.277, 0, 0.277, 0, 0.277, 0, 0.277, 0, 0.277, 0]  # on every other row
    assert events.time.dtype == np.float64
    np.testing.assert_allclose(events.time, np.add(TIMES, fractions), rtol=0, atol=1e-6)


def test_case_001_days_first_are_read_in_one_way() -> None:
    file = CASES / "001" / "dayfirst.csv"
    with pytest.raises(SessRecError, match=r"dayfirst.csv, line 2, 3, 4, 5: .*'03/04/2014 10:00:00'.*time_format"):
        read_events(file)
    events = read_events(file, LogFormat(time_format="%d/%m/%Y %H:%M:%S"))
    third_of_april = int(np.datetime64("2014-04-03T10:00:00", "s").astype(np.int64))
    assert events.time.tolist() == [third_of_april + s for s in (0, 60, 864000, 864060)]
    assert sequences(events) == {"1": ["101", "102"], "2": ["101", "103"]}


@pytest.mark.parametrize("name", ["iso.csv", "ints.csv"])
def test_case_002_times_are_seconds(name: str) -> None:
    events = read_events(CASES / "002" / name)
    assert_base(events)
    assert events.time.dtype == np.int64
    assert (events.time[0], events.time.max(), np.ptp(events.time)) == (1396867869, 1397040729, 172860)
    assert split_time(events, duration="1d") == 1396954329


def test_case_004_close_times_keep_their_order() -> None:
    events = read_events(CASES / "004" / "close.csv")
    assert sequences(events) == {"1": ["1", "2", "3", "4", "5", "6"], "2": ["1", "2"]}
    assert events.time[:6].tolist() == [1396868000 + 30 * number for number in range(6)]


def test_case_005_file_without_a_header() -> None:
    file = CASES / "005" / "clicks.dat"
    events = read_events(file, LogFormat(column_names=("SessionId", "Time", "ItemId", "Category")))
    assert_base(events)
    with pytest.raises(SessRecError) as caught:
        read_events(file)
    message = str(caught.value)
    for said in (
        str(file),
        "no column SessionId, ItemId, Time",
        "1, 2014-04-07T10:51:09.000Z, 101, 0",
        "looks like data",
    ):
        assert said in message
    assert "--data.column_names" in message


NAMES = ["--data.session_column", "session_id", "--data.item_column", "item_id"]


def test_case_006_other_column_names(bench: Callable[..., None]) -> None:
    bench("006/renamed.csv")
    run = fit_log("renamed.csv", *NAMES, "--data.time_column", "timestamp", *WHOLE)
    log = data_report(run)["log"]
    assert (log["events"], log["sessions"], log["items"]) == (10, 4, 3)
    columns = LogFormat(session_column="session_id", item_column="item_id", time_column="timestamp")
    assert_base(read_events("renamed.csv", columns))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [([], "no column SessionId, ItemId, Time"), ([*NAMES, "--data.time_column", "timestmp"], "no column timestmp")],
    ids=["defaults", "misspelt"],
)
def test_case_006_a_column_that_is_missing(
    bench: Callable[..., None], capsys: pytest.CaptureFixture[str], options: list[str], wanted: str
) -> None:
    bench("006/renamed.csv")
    message = one_error(capsys, fit.main, [*TRAINER, "--data.path", "renamed.csv", *options])
    for said in ("renamed.csv", wanted, "item_id, timestamp, session_id", "--data.time_column"):
        assert said in message
    assert everything_in(Path()) == {"renamed.csv"}


@pytest.mark.parametrize("name", ["bom_crlf.csv", "blanks.csv"])
def test_case_007_invisible_characters(name: str) -> None:
    assert_base(read_events(CASES / "007" / name))


def test_case_007_the_last_field_carries_no_return(tmp_path: Path) -> None:
    reordered = [",".join(map(str, (session, time, item))) for session, item, time in BASE]
    file = tmp_path / "items_last.csv"
    file.write_bytes(("\ufeff" + "\r\n".join(["SessionId,Time,ItemId", *reordered]) + "\r\n").encode())
    assert_base(read_events(file))


@pytest.mark.parametrize(("name", "separator"), [("semi.csv", ";"), ("tab.tsv", "\t"), ("tab.tsv", "\\t")])
def test_case_008_separators(name: str, separator: str) -> None:
    file = CASES / "008" / name
    assert_base(read_events(file))
    assert_base(read_events(file, LogFormat(separator=separator)))


def test_case_008_wrong_separator() -> None:
    with pytest.raises(SessRecError, match="semi.csv has no column .*SessionId;ItemId;Time .separated by ','"):
        read_events(CASES / "008" / "semi.csv", LogFormat(separator=","))


def test_case_010_blank_item_merges_no_ids() -> None:
    events = read_events(CASES / "010" / "bigid.csv")
    one, other = "9007199254740993", "9007199254740992"
    assert sequences(events) == {"1": [one, other], "2": [other, one]}
    assert events.counts()["items"] == 2
    assert events.figures["rows_with_empty_item"] == 1
    assert any(note.endswith("bigid.csv: 1 row dropped: empty ItemId, line 4") for note in events.notes)


def test_case_012_leading_zeros_and_numbers_as_ids(bench: Callable[..., None]) -> None:
    bench("012/zeros.csv")
    events = read_events("zeros.csv")
    assert sequences(events) == {"1": ["0012", "12", "12.0"], "2": ["12", "0012"]}
    run = fit_log("zeros.csv", *WHOLE)
    assert any("leading zeros" in warning for warning in data_report(run)["warnings"])
    predict.main(["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--data.path", "zeros.csv"])
    rows = [line.split("\t") for line in Path("predictions.tsv").read_text().splitlines()[1:]]
    for session in ("1", "2"):
        assert {item for name, _, item, _ in rows if name == session} == {"0012", "12", "12.0"}


def test_case_013_ids_in_scientific_notation() -> None:
    events = read_events(CASES / "013" / "sci.csv")
    assert sequences(events) == {
        "1": ["2.14537E+08", "214536502", "214536999"],
        "2": ["214536502", "214536999"],
    }
    (warning,) = events.warnings
    assert "'2.14537E+08'" in warning
    assert "sci.csv, line 2)" in warning
    report = Preparation(path=str(CASES / "013" / "sci.csv"), test_ratio=0, val_ratio=0).run().report
    assert warning in report.warnings


def test_case_014_a_text_among_many_numbers(tmp_path: Path) -> None:
    file = tmp_path / "mixed.csv"
    rows = [f"{row // 2},{row % 1000},{row}\n" for row in range(300_000)]
    file.write_text("SessionId,ItemId,Time\n" + "".join(rows) + "300001,X1,300001\n300001,5,300002\n")
    events = read_events(file)
    ids = events.item_ids.to_pylist()
    assert len(ids) == len(set(ids)) == events.counts()["items"] == 1001
    assert len(events) == 300_002
    counts = dict(zip(ids, events.item_counts.tolist(), strict=True))
    assert (counts["5"], counts["6"], counts["X1"]) == (301, 300, 1)


@pytest.mark.parametrize(
    ("name", "session", "item"),
    [
        ("uuid.csv", "00000000-0000-4000-8000-00000000000{}".format, lambda item: f"item-{item}"),
        ("big.csv", lambda number: str(2147483645 + int(number)), lambda item: str(2**64 + int(item) - 101)),
    ],
)
def test_case_016_ids_of_text_and_beyond_32_bits(
    name: str, session: Callable[[str], str], item: Callable[[str], str]
) -> None:
    events = read_events(CASES / "016" / name)
    assert sequences(events) == {session(number): [item(i) for i in items] for number, items in EXPECTED.items()}
    assert events.time.tolist() == TIMES


def test_case_017_repeats_stay_or_go_by_option() -> None:
    file = str(CASES / "017" / "repeats.csv")
    off = Preparation(path=file, test_ratio=0, val_ratio=0).run()
    assert by_session(off, "train") == {"s1": ["i", "i", "j", "i"], "s2": ["i", "i"], "s3": ["i", "j"]}
    assert off.report.sections["cleaned"]["events_dropped_repeats"] == 0
    assert off.report.sections["log"]["immediate_repeats"] == 2
    assert off.report.sections["log"]["of_these_at_the_same_time"] == 1  # the exact copy
    on = Preparation(path=file, test_ratio=0, val_ratio=0, drop_repeats=True).run()
    assert by_session(on, "train") == {"s1": ["i", "j", "i"], "s3": ["i", "j"]}
    cleaned = on.report.sections["cleaned"]
    assert (cleaned["events_dropped_repeats"], cleaned["events_dropped_in_short_sessions"]) == (2, 1)
    assert cleaned["sessions_dropped"] == 1


def test_case_019_rows_out_of_order() -> None:
    assert_base(read_events(CASES / "019" / "shuffled.csv"))


def test_case_020_blank_and_unreadable_times() -> None:
    with pytest.raises(SessRecError) as caught:
        read_events(CASES / "020" / "badtime.csv")
    message = str(caught.value)
    assert "badtime.csv, line 5: 1 of column 'Time' cannot be read, first 'oops'" in message
    assert "empty Time, line 3" in message


def test_case_020_a_blank_time_alone_is_a_counted_drop(tmp_path: Path) -> None:
    file = tmp_path / "blank.csv"
    file.write_text((CASES / "020" / "badtime.csv").read_text().replace("2,102,oops\n", ""))
    events = read_events(file)
    assert sequences(events) == {"1": ["101", "103"], "2": ["103", "101"]}
    assert events.figures["rows_with_empty_time"] == 1
    assert events.notes[0].endswith("1 row dropped: empty Time, line 3")
    assert events.time.min() == 1396867869


def test_case_020_negative_times_are_warned_of() -> None:
    prepared = Preparation(path=str(CASES / "020" / "negative.csv"), test_ratio=0, val_ratio=0).run()
    assert prepared.sessions["train"].times is not None
    assert prepared.sessions["train"].times.tolist() == [-1, 1396868049, 1396868050, 1396868060]
    assert "1 time before 1970, the first -1" in prepared.report.warnings


@pytest.mark.parametrize("name", ["whole.csv.gz", "named.csv"])
def test_case_022_gzip_whatever_its_name(bench: Callable[..., None], name: str) -> None:
    bench(f"022/{name}")
    assert Path(name).read_bytes() == (CASES / "022" / "whole.csv.gz").read_bytes()
    prepare.main(["--data.path", name, *WHOLE])
    log = data_report(Path("lightning_logs/data_report"))["log"]
    assert (log["sessions"], log["events"], log["items"], log["longest"]) == (1000, 2000, 7, 2)


def test_case_022_cut_gzip(bench: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    bench("022/cut.csv.gz")
    for command in (fit, prepare):
        message = one_error(capsys, command.main, ["--data.path", "cut.csv.gz"])
        assert "cannot read cut.csv.gz" in message
        assert "cut short" in message
    assert everything_in(Path()) == {"cut.csv.gz"}  # nothing is kept of the part that could be read


def test_case_022_text_named_gz(bench: Callable[..., None]) -> None:
    bench()
    Path("text.csv.gz").write_bytes(gzip.decompress((CASES / "022" / "named.csv").read_bytes()))
    assert read_events("text.csv.gz").counts() == {"events": 2000, "sessions": 1000, "items": 7}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.csv", "empty.csv is empty (0 bytes)"),
        ("header.csv", "no events in header.csv"),
        ("len1.csv", "5 sessions read, 0 left to train on: no session of 2 or more events"),
    ],
)
@pytest.mark.parametrize("options", [[], WHOLE], ids=["split", "whole"])
def test_case_023_nothing_to_train_on(
    bench: Callable[..., None], capsys: pytest.CaptureFixture[str], name: str, message: str, options: list[str]
) -> None:
    bench(f"023/{name}")
    assert message in one_error(capsys, fit.main, [*TRAINER, "--data.path", name, *options])
    assert everything_in(Path()) == {name}


def test_case_024_prepared_logs_follow_options_and_files(
    bench: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    bench("024/v1.csv", "024/v2.csv")
    shutil.copy("v1.csv", "log.csv")

    def counts(window: str, cache: str, run: str) -> dict[str, dict[str, int]]:
        options = ["--data.test_duration", window, "--data.val_ratio", "0", "--data.cache_dir", cache]
        report = data_report(fit_log("log.csv", *options, run=f"{run}-{cache}"))
        assert ("prepared_before" in report["read"]) == (cache == "kept" and run == "again")
        return {
            part: {name: report[part][name] for name in ("events", "sessions")}
            for part in ("log", "train", "test")
            if part in report
        }

    def refused(cache: str) -> str:
        options = ["--data.path", "log.csv", "--data.test_duration", "2d", "--data.val_ratio", "0"]
        return one_error(capsys, fit.main, ["--model", "Popularity", *TRAINER, *options, "--data.cache_dir", cache])

    of_v1 = {
        "log": {"events": 10, "sessions": 4},
        "train": {"events": 5, "sessions": 2},
        "test": {"events": 2, "sessions": 1},
    }
    for run in ("first", "again"):
        assert counts("1d", "kept", run) == counts("1d", "null", run) == of_v1
    # 2 days cut session 1 after its first click and leave nothing to train on
    assert refused("kept") == refused("null")
    assert "4 sessions read, 0 left" in refused("kept")
    shutil.copy("v2.csv", "log.csv")
    # t = 1397040860 - 172800 cuts session 1 after 101, 102; of the others only 101, 102 of session 3 is left
    of_v2 = {
        "log": {"events": 12, "sessions": 5},
        "train": {"events": 2, "sessions": 1},
        "test": {"events": 2, "sessions": 1},
    }
    assert counts("2d", "kept", "changed") == counts("2d", "null", "changed") == of_v2
    # t = 1397040860 - 86400 is after session 3, so that it trains: 104 of session 5 is new, and 101 alone is short
    of_v2_in_a_day = {**of_v2, "train": {"events": 8, "sessions": 3}}
    assert counts("1d", "kept", "changed-1d") == counts("1d", "null", "changed-1d") == of_v2_in_a_day


# Splitting and leakage


@pytest.mark.parametrize(
    ("straddling", "test_sessions", "n_events", "n_targets"),
    [("test", {"S3": "CB", "S4": "AC", "S5": "AB"}, 6, 3), ("cut", {"S4": "AC", "S5": "AB"}, 4, 2)],
)
def test_case_026_a_session_across_the_split(
    straddling: str, test_sessions: dict[str, str], n_events: int, n_targets: int
) -> None:
    expected = json.loads((CASES / "026" / "expected.json").read_text())
    prepared = Preparation(
        path=str(CASES / "026" / "six.csv"),
        test_duration="1d",
        val_ratio=0,
        straddling=straddling,  # type: ignore[arg-type]
    ).run()
    assert prepared.report.cuts["test"] == expected["t"] == 172800
    assert by_session(prepared, "train") == expected["train"] == {"S1": ["A", "B"], "S2": ["B", "C", "A"]}
    assert len(prepared.sessions["train"].items) == 5
    assert prepared.sessions["train"].n_positions == 3
    assert by_session(prepared, "test") == {session: list(items) for session, items in test_sessions.items()}
    assert by_session(prepared, "test") == expected["test_cut" if straddling == "cut" else "test_by_last"]
    assert (len(prepared.sessions["test"].items), prepared.sessions["test"].n_positions) == (n_events, n_targets)
    cut = prepared.report.sections["test cut"]
    assert (cut["train_events_at_or_after_t"], cut["shared_sessions"], cut["straddling_sessions"]) == (0, 0, 1)
    assert prepared.sessions["train"].times is not None
    assert prepared.sessions["train"].times.max() < 172800


def test_case_026_a_leak_is_seen() -> None:
    events = read_events(CASES / "026" / "six.csv")
    whole_by_start = events.sessions_between(0, 3)  # S1, S2 and all of S3
    assert len(whole_by_start) == 7
    assert leakage_report(whole_by_start, events.sessions_between(3, 6), 172800.0)["train_events_at_or_after_t"] == 1
    train, later, _ = split_events(events, 172800.0, min_length=2)
    assert leakage_report(train, later, 172800.0)["train_events_at_or_after_t"] == 0


def test_case_028_items_only_in_the_test_part(bench: Callable[..., None]) -> None:
    bench("028/six.csv")
    run = fit_log("six.csv", "--data.test_duration", "1d", "--data.val_ratio", "0", run="six")
    model = Popularity.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.known_items.item_ids == ["A", "B", "C"]
    assert model.n_items == 3
    prepared = Preparation(path="six.csv", test_duration="1d", val_ratio=0).run()
    assert by_session(prepared, "test") == {"S4": ["A", "C"], "S5": ["A", "B"]}
    part = prepared.report.sections["test"]
    assert (part["unknown_events"], part["unknown_items"], part["short_sessions"]) == (2, 1, 1)
    assert prepared.report.sections["test cut"]["items_only_in_test"] == 1


@pytest.mark.parametrize("model", ["Popularity", "GRU4Rec"])
def test_case_030_no_look_into_the_future(bench: Callable[..., None], model: str) -> None:
    bench()
    rows = [(s, "ABCDE"[(s + k) % 5], s * 100 + k) for s in range(20) for k in range(3)]
    for s in range(60):
        items = ("ABCDE"[s % 5], "Z" if s < 50 else "ABCDE"[(s + 2) % 5], "ABCDE"[(s + 1) % 5])
        rows += [(100 + s, item, 200_000 + s * 100 + k) for k, item in enumerate(items)]
    Path("pop.csv").write_text("SessionId,ItemId,Time\n" + "".join(f"{s},{item},{time}\n" for s, item, time in rows))
    options = ["--data.test_start", "200000", "--data.val_ratio", "0"]
    run = fit_log("pop.csv", *options, model=model)
    report = data_report(run)
    assert report["test cut"]["train_events_at_or_after_t"] == 0
    assert report["test"]["unknown_events"] == 50
    assert report["test"]["unknown_items"] == 1
    assert (report["train"]["events"], report["train"]["sessions"]) == (60, 20)
    train = SessionDataModule("pop.csv", test_start=200_000, val_ratio=0).prepare().sessions["train"]
    assert train.times is not None
    assert train.times.max() == 1902
    checkpoint = run / "checkpoints" / "last.ckpt"
    fitted = {"Popularity": Popularity, "GRU4Rec": GRU4Rec}[model].load_from_checkpoint(checkpoint)
    assert sorted(fitted.known_items.item_ids) == ["A", "B", "C", "D", "E"]
    assert {item for item, _ in fitted.recommend(["A", "B"], k=20)} == {"A", "B", "C", "D", "E"}
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    results = json.loads((run / "metrics.json").read_text())
    assert results["data"]["positions"] == 50 * 1 + 10 * 2  # none of them has Z as its target
    assert results["protocol"]["items_ranked"] == 5
    assert results["metrics"]["test/recall@5"] == 1.0


def test_case_031_validation_is_cut_by_the_same_rule() -> None:
    file = str(CASES / "031" / "three.csv")
    prepared = Preparation(path=file, test_duration="1d", val_duration="1d").run()
    assert prepared.report.cuts == {"test": 259200, "val": 163660}
    assert by_session(prepared, "train") == {"1": ["A", "B"], "2": ["B", "A"]}
    assert by_session(prepared, "val") == {"3": ["A", "B"]}
    assert by_session(prepared, "test") == {"4": ["B", "A"]}
    assert prepared.vocabulary.item_ids == ["A", "B"]
    assert prepared.report.sections["val"]["unknown_events"] == 1
    assert prepared.report.sections["val cut"]["shared_sessions"] == 0


def test_case_032_filters_run_until_nothing_changes() -> None:
    file = CASES / "032" / "filter.csv"
    kept, _ = clean_events(read_events(file), min_session_length=2, min_item_support=2)
    assert sequences(kept) == {"s1": ["a", "b"], "s4": ["a", "b"]}
    assert kept.counts() == {"events": 4, "sessions": 2, "items": 2}
    once, _ = clean_events(read_events(file), min_session_length=2, min_item_support=2, max_passes=1)
    assert "s2" in sequences(once)  # what a single pass leaves behind
    prepared = Preparation(path=str(file), min_item_support=2, test_ratio=0, val_ratio=0).run()
    assert sorted(prepared.vocabulary.item_ids) == ["a", "b"]


# Batches


def test_case_034_lanes_of_five_sessions() -> None:
    expected = json.loads((CASES / "034" / "expected.json").read_text())
    assert lane_steps("034/five.csv", 3) == [
        {name: step[name] for name in ("inp", "out", "reset")} for step in expected
    ]
    assert ["".join(step["inp"]) for step in expected] == ["aeg", "bjh", "cl", "m"]


PAIRS = sorted(["ab", "bc", "cd", "ef", "gh", "hi", "jk", "lm", "mn"])


@pytest.mark.parametrize("n_lanes", [1, 2, 3, 4, 5, 8])
def test_case_035_every_pair_once(n_lanes: int) -> None:
    steps = lane_steps("035/five.csv", n_lanes)
    assert sorted(a + b for step in steps for a, b in zip(step["inp"], step["out"], strict=True)) == PAIRS


@pytest.mark.parametrize("n_lanes", [8, 512])
def test_case_039_more_lanes_than_sessions(n_lanes: int) -> None:
    steps = lane_steps("039/five.csv", n_lanes)
    assert ["".join(step["inp"]) for step in steps] == ["aegjl", "bhm", "c"]
    assert ["".join(step["out"]) for step in steps] == ["bfhkm", "cin", "d"]


# Evaluation


def test_case_052_items_that_the_model_does_not_know(
    bench: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    bench("052/five.csv", "052/new.csv")
    run = fit_log("five.csv", *WHOLE, model="GRU4Rec")
    with_new = ["--config", str(run / "config.yaml"), "--ckpt_path", "last", "--data.path", "new.csv"]
    # the test part is session 2, zz and a: without zz nothing can be predicted in it
    message = one_error(capsys, test.main, [*with_new, "--data.test_ratio", "0.2"])
    assert "no usable session" in message
    assert "1 sessions and 2 events were read, 1 of the events are of items unknown to the model" in message
    assert not (run / "metrics.json").exists()
    Path("both.csv").write_text(
        "SessionId,ItemId,Time\n0,a,-9\n0,b,-8\n" + Path("new.csv").read_text().partition("\n")[2]
    )
    capsys.readouterr()
    test.main([*with_new[:-1], "both.csv", "--data.test_start", "1"])
    part = json.loads((run / "metrics.json").read_text())["data"]
    assert (part["unknown_events"], part["unknown_items"], part["short_sessions"]) == (2, 1, 1)
    assert (part["sessions"], part["events"], part["positions"]) == (1, 2, 1)  # a, zz, b is a, b
    assert "unknown events" in capsys.readouterr().out


def test_case_068_prepare_warns_of_it(tmp_path: Path) -> None:
    log = Preparation(str(CASES / "068" / "alltest.csv"), test_duration="1d", val_ratio=0).run()
    assert "test" not in log.sessions
    assert "the test part has no usable session, so there are no test targets" in log.report.warnings


def test_case_068_nothing_to_evaluate(bench: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    bench("068/alltest.csv")
    run = fit_log("alltest.csv", "--data.test_duration", "1d", "--data.val_ratio", "0")
    before = everything_in(run)
    message = one_error(capsys, test.main, ["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    assert "no test targets: 1 sessions and 2 events were read, 2 of the events are of items unknown" in message
    assert everything_in(run) == before


# Outliers


def write_robot(file: Path) -> None:
    rows = [f"{s},{(s * 7 + k) % 300},{s * 50 + k}\n" for s in range(2000) for k in range(5)]
    rows += [f"bot,{k % 300},{k}\n" for k in range(100_000)]
    file.write_text("SessionId,ItemId,Time\n" + "".join(rows))


def test_case_092_a_robot_is_named_and_the_epoch_ends(bench: Callable[..., None]) -> None:
    bench()
    write_robot(Path("bot.csv"))
    data = SessionDataModule("bot.csv", test_ratio=0, val_ratio=0, batch_size=64)
    data.setup("fit")
    assert any(warning.startswith("session 'bot' has 100,000 events") for warning in data.report.warnings)
    windows: list[Window] = list(data.train_dataloader())
    assert sum(window.n_events for window in windows) == 2000 * 4 + 99_999  # nothing is dropped
    assert sum(len(window.widths) for window in windows) == 99_999


def test_case_092_a_robot_is_cut(bench: Callable[..., None]) -> None:
    bench()
    write_robot(Path("bot.csv"))
    run = fit_log("bot.csv", *WHOLE, "--data.batch_size", "64", "--data.max_session_length", "100")
    report = data_report(run)
    assert report["cleaned"]["events_dropped_beyond_max_session_length"] == 99_900
    assert report["cleaned"]["sessions_cut"] == 1
    assert (report["train"]["sessions"], report["train"]["events"]) == (2001, 10_100)
    assert not any("robots" in warning for warning in report["warnings"])


# Baselines


def test_case_097_popularity_counts_repeats_in_a_batch() -> None:
    model = Popularity()
    model.set_vocabulary(make_vocabulary(8))
    for window in SessionParallelLoader(make_sessions([[3, 5, 3, 7, 3, 5]]), n_lanes=1):
        model.count(window)
    model.finish_counting()
    assert model.counts.tolist() == [0, 0, 0, 3, 0, 2, 0, 1]


@pytest.mark.parametrize("batch_size", ["1", "64"])
def test_case_097_popularity_is_the_same_for_every_batch_size(bench: Callable[..., None], batch_size: str) -> None:
    bench("097/train.csv")
    run = fit_log("train.csv", *WHOLE, "--data.batch_size", batch_size)
    model = Popularity.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.known_items.item_ids == ["a", "b", "c"]
    assert model.counts.tolist() == [3, 2, 2]
    scores = model.score(torch.zeros(1, 1, dtype=torch.float64), slice(0, 3))
    ranks = {
        mode: target_rank(scores, torch.tensor([1]), mode).item() for mode in ("standard", "conservative", "median")
    }  # type: ignore[arg-type]
    assert ranks == {"standard": 2, "conservative": 3, "median": 2.5}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_case_099_an_item_known_as_a_last_click_only(bench: Callable[..., None]) -> None:
    bench("099/train.csv")
    run = fit_log("train.csv", *WHOLE, model="Markov")
    model = Markov.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.known_items.item_ids == ["a", "z", "b"]
    z = torch.tensor([[1]])
    scores = model.score(model.encode(z)[0], slice(0, 3))[0]
    assert scores.tolist() == [1.0, 0.5, 0.5]  # z has no successor: popularity, a twice and the others once
    assert model.recommend(["a"], k=1)[0][0] == "z"
    with pytest.warns(UserWarning, match="1 of 1 items of the session are unknown"):
        fallback = model.recommend(["unknown"], k=3)
    assert fallback[0] == ("a", 2.0)
    assert sorted(fallback[1:]) == [("b", 1.0), ("z", 1.0)]
