"""The data report: figures counted by hand, and a warning for each thing that a colleague would ask about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, one_error, random_rows

from sessrec import fit, prepare
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.data import SessionDataModule
from sessrec.data.expected_counts import compare_with_expected, rounded_range
from sessrec.data.log_statistics import describe, events_per_day, log_warnings, precision_warning
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.errors import SessRecError

DAY = 86400
MONDAY = 1_400_457_600  # 2014-05-19T00:00:00Z

ROWS = [
    ("a", "x", MONDAY + 10), ("a", "x", MONDAY + 10), ("a", "y", MONDAY + 20), ("a", "y", MONDAY + 30),
    ("b", "x", MONDAY + DAY), ("b", "z", MONDAY + DAY + 1),
    ("c", "y", MONDAY + 3 * DAY - 1),
]  # fmt: skip


def test_figures_of_a_log(write_log: Callable[..., Path]) -> None:
    assert describe(read_events(write_log(ROWS))) == {
        "events": 7,
        "sessions": 3,
        "items": 3,
        "mean_length": 2.33,
        "median_length": 2.0,
        "longest": 4,
        "sessions_of_length_1": 1,
        "immediate_repeats": 2,
        "of_these_at_the_same_time": 1,
        "share_of_top_1%_items": 0.4286,  # one item at least: 3 of 7
        "share_of_top_10%_items": 0.4286,
        "items_with_fewer_than_5_events": 3,
        "first_time": f"{MONDAY + 10} (2014-05-19 00:00:10 UTC)",
        "last_time": f"{MONDAY + 3 * DAY - 1} (2014-05-21 23:59:59 UTC)",
        "days_with_events": 3,
    }


def test_events_of_each_day() -> None:
    first, counts = events_per_day(np.array([MONDAY - 1, MONDAY, MONDAY + 1.5, MONDAY + DAY - 0.001, MONDAY + 2 * DAY]))
    assert (first, counts.tolist()) == (MONDAY // DAY - 1, [1, 3, 0, 1])
    first, counts = events_per_day(np.array([-1, 0, DAY]))
    assert (first, counts.tolist()) == (-1, [1, 1, 1])
    assert events_per_day(np.array([-5e10, 9e10]))[1].sum() == 2  # thousands of years


def warnings_of(file: Path, **options: object) -> str:
    events = read_events(file, LogFormat(**options))  # type: ignore[arg-type]
    return "\n".join(events.warnings + log_warnings(events))


def day(number: float, session: str = "s", item: str = "x") -> tuple[str, str, int]:
    return (session, item, MONDAY + round(number * DAY) + 1)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([day(k / 10**4, "bot") for k in range(1200)], "session 'bot' has 1,200 events .*max_session_length"),
        ([day(0, "a"), day(0, "a"), day(0, "b"), day(0, "c")], "67% of the sessions have one event only"),
        ([day(0), day(1, item="NA"), day(2, item="NA")], "2 events with the item id 'NA': a missing value"),
        ([day(0, "null"), day(0.1, "null"), day(0.2)], "2 events with the session id 'null': a missing value"),
        ([day(0, item="2.14E+08"), day(0.1)], r"1 item id such as '2.14E\+08' \(.*, line 2\), numbers .*spreadsheet"),
        ([day(0), day(0, "1.5e+12")], r"1 session id such as '1.5e\+12' \(.*, line 3\)"),
        ([day(0, item=" x"), day(0.1)], "1 item id with blanks around"),
        ([day(0, item='"x"'), day(0.1)], "1 item id in quotes, which are kept"),
        (
            [day(k, item=item) for k, item in enumerate(["007", "12", "0012", "12.0"])],
            r"1 item id in several spellings, such as '12' \(1 event, first in .*line 3\) and '12.0' .*, as 3 items",
        ),
        ([("s", "x", -5), ("s", "y", MONDAY)], "1 time before 1970, the first -5"),
        ([day(0), ("s", "y", 9 * 10**9)], "1 time in the future, the last 9000000000"),
        ([day(0, "a"), day(0.1, "a"), day(30, "b"), day(31, "b")], "no event for 29 days after 2014-05-19"),
        ([("s", "x", MONDAY), ("s", "y", MONDAY + DAY)], "all times are at midnight"),
        ([day(0), day(0.2), day(3.5)], "1 session longer than a day, 's' of 3.5 days"),
        ([("s", "x", 41736.25), ("s", "y", 41737.5)], "days of a spreadsheet"),
    ],
)
def test_what_looks_wrong_is_said(write_log: Callable[..., Path], rows: list, expected: str) -> None:
    assert re.search(expected, warnings_of(write_log(rows)))


def test_nothing_is_said_of_a_sound_log(write_log: Callable[..., Path]) -> None:
    assert warnings_of(write_log(random_rows(100))) == ""


def test_warnings_heed_the_options(write_log: Callable[..., Path]) -> None:
    robot = read_events(write_log([day(k / 10**4, "bot") for k in range(1200)]))
    assert not log_warnings(robot, max_session_length=50)
    midnight = read_events(write_log([("s", "x", MONDAY), ("s", "y", MONDAY + DAY)]))
    assert not log_warnings(midnight, has_order=True)


def test_precision_of_a_metric() -> None:
    assert "0.098" in precision_warning("test", 100)[0]  # 1.96 * sqrt(0.25 / 100)
    assert precision_warning("test", 9604) == precision_warning("test", 10**6) == []
    assert precision_warning("test", 9603)


def test_published_counts() -> None:
    assert rounded_range("21.509M") == (21_508_500, 21_509_500)
    assert rounded_range("655k") == (654_500, 655_500)
    with pytest.raises(SessRecError, match="'many'"):
        rounded_range("many")
    report = DataReport()
    report.add("train", {"positions": 553_999, "sessions": 12})
    report.add("test", {"positions": 20_951})
    published: dict[str, str | int] = {"train_positions": "554.0k", "train_sessions": 12, "test_positions": 20952}
    assert compare_with_expected(published, report) == [
        "test positions: 20,951 here, 20952 published; the log or the preparation differs"
    ]
    assert [str(text).split(": ")[1] for text in report.sections["expected"].values()] == [
        "as published", "as published", "not as published"
    ]  # fmt: skip
    assert len(compare_with_expected(published, report, has_validation=True)) == 1
    assert "not compared" in str(report.sections["expected"]["train_positions"])
    with pytest.raises(SessRecError, match="no count of the report"):
        compare_with_expected({"train_visits": 3}, report)


def test_prepare_reports_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [*random_rows(100), ("lone", "x1", 1_600_000_500)]
    args = ["--data.path", write_log(rows).name, "--data.test_ratio", "0.25", "--report_dir", "out"]
    prepare.main(args)
    printed = capsys.readouterr().out
    assert "train events at or after t" in printed
    assert re.search(r"sessions of length 1 +1\n", printed)
    assert re.search(r"warning: the test part has \d+ positions", printed)
    assert {path.name for path in Path("out").iterdir()} == {
        "data_report.json", "session_lengths.png", "item_popularity.png", "events_per_day.png", "lengths_by_part.png",
    }  # fmt: skip
    report = json.loads(Path("out/data_report.json").read_text())
    assert report["log"]["sessions"] == 101
    assert report["test cut"]["train_events_at_or_after_t"] == report["test cut"]["shared_sessions"] == 0
    assert report["train"]["sessions"] + report["val"]["sessions"] + report["test"]["sessions"] <= 100
    for figure in Path("out").glob("*.png"):
        assert figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert figure.stat().st_size > 5000
    prepare.main(args)  # again: opened, not prepared
    assert "opened from" in capsys.readouterr().out


def test_prepare_takes_the_config_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = write_log(random_rows(100)).name
    fit.main(["--model", "Popularity", "--data.path", log, "--data.test_ratio", "0.3", "--trainer.accelerator", "cpu"])
    capsys.readouterr()
    prepare.main(["--config", "lightning_logs/popularity-1/config.yaml"])
    assert "opened from" in capsys.readouterr().out
    kept = json.loads(Path("lightning_logs/popularity-1/data_report.json").read_text())
    assert kept["test"] == json.loads(Path("lightning_logs/data_report/data_report.json").read_text())["test"]


@pytest.mark.parametrize("first", ["0001-01-01T00:00:00Z", "9999-12-30T00:00:00Z", "1969-12-31T23:00:00Z", "5", "-7"])
def test_figures_of_odd_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path], first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    log = write_log([("s", "a", first), ("s", "b", first)]).name
    prepare.main(["--data.path", log, "--data.test_ratio", "0", "--data.val_ratio", "0"])
    assert Path("lightning_logs/data_report/events_per_day.png").exists()


def test_prepare_without_times_or_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare.main(["--data.path", write_log(random_rows(100)).name, "--data.time_column", "null"])
    assert "the order of rows is the time" in capsys.readouterr().out
    prepare.main([])  # the synthetic sessions
    assert "synthetic" in capsys.readouterr().out
    assert "no such file" in one_error(capsys, prepare.main, ["--data.path", "none.csv"])


def test_an_error_tells_what_looks_wrong_in_the_log() -> None:
    """Else lists that are taken for items are reported as unknown items."""
    lists = ROOT / "tests" / "cases" / "118" / "lists.tsv"
    fault = "the val part has no usable session, .*; what looks wrong in the log: 6 item ids such as 'N101 N102' "
    with pytest.raises(SessRecError, match=fault):
        SessionDataModule(str(lists), cache_dir=None).setup("fit")
    with pytest.raises(SessRecError, match="0 left to train on.*; what looks wrong in the log: .* one event only"):
        Preparation(str(lists), session_column="Time", time_column=None).run()


def test_a_test_part_without_known_items_is_warned_of(write_log: Callable[..., Path]) -> None:
    rows = [("1", "a", 1), ("1", "b", 2), ("2", "b", 3), ("2", "a", 4), ("3", "x", 200_000), ("3", "y", 200_001)]
    log = Preparation(str(write_log(rows)), test_duration="1d", val_ratio=0).run()
    assert "test" not in log.sessions
    assert "the test part has no usable session, so there are no test targets" in log.report.warnings
