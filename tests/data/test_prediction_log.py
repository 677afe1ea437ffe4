"""What predict takes, and what it says of sessions without candidates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers import TRAINER, WHOLE, fit_log, one_error

from sessrec import predict
from sessrec.data import SessionDataModule, Vocabulary

HEADER = "SessionId\tItemId\tTime"
VISITS = ["--data.visitor_column", "who", "--data.session_gap", "1h"]
EVENTS = ["--data.event_column", "what", "--data.events", "[view]"]
NAMES = ["--data.column_names", "[when,who,what,ItemId]", "--data.time_column", "when"]
FORMAT = ["--data.time_format", "%d/%m/%Y %H:%M:%S"]


@pytest.fixture
def event_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is fitted to visitors, gaps and events without a header."""
    monkeypatch.chdir(tmp_path)
    rows = [f"0{day}/04/2014 10:0{n}:00\tv{day}\tview\t{item}" for day in (1, 2, 3) for n, item in enumerate("abc")]
    Path("events.tsv").write_text("\n".join(rows) + "\n")
    return fit_log("events.tsv", *VISITS, *EVENTS, *NAMES, *FORMAT, *WHOLE)


def predicted() -> list[list[str]]:
    rows = [line.split("\t")[:3] for line in Path("predictions.tsv").read_text().splitlines()[1:]]
    Path("predictions.tsv").unlink()
    return rows


def test_case_119_a_model_of_events_takes_bare_sessions(
    event_log: Path, write_log: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--ckpt_path", str(event_log / "checkpoints" / "last.ckpt"), *TRAINER[:4], "--model.k", "1", "--data.path"]
    bare = write_log([("x", "a", 1396867869), ("y", "b", 1396867870), ("x", "c", 1396867871 + 9000)], "bare.tsv")
    predict.main([*args, bare.name])
    out = capsys.readouterr().out
    assert "its sessions are taken as they are, without --data.time_column, --data.visitor_column, " in out
    assert "--data.time_format, --data.session_gap, --data.events" in out
    assert predicted() == [["x", "1", "a"], ["y", "1", "a"]]  # the gap of 2.5 hours cuts nothing
    predict.main([*args, "events.tsv"])  # as it was fitted
    assert "taken as they are" not in capsys.readouterr().out
    assert [row[0] for row in predicted()] == ["v1_1", "v2_1", "v3_1"]
    write_log([("x", "a", 1)], "other.tsv", "visit\tItemId\tTime")
    line = one_error(capsys, predict.main, [*args, "other.tsv"])
    assert "column_names gives 4 names, its first line has 3 fields" in line


def test_case_119_bare_sessions_as_a_table() -> None:
    frame = pd.DataFrame([("x", "a", 1396867869)], columns=HEADER.split("\t"))
    data = SessionDataModule(path=frame, visitor_column="who", session_gap="1h")
    data.vocabulary = Vocabulary(["a"], [1])  # type: ignore[arg-type]
    data.setup("predict")
    assert data.sessions["predict"].session_ids.to_pylist() == ["x"]  # type: ignore[union-attr]
    assert "without --data.visitor_column, --data.session_gap" in data.report.warnings[0]


def test_case_114_sessions_without_candidates_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log([(session, item, 1396867869 + n) for session in "st" for n, item in enumerate("abc")])
    run = fit_log("clicks.tsv", *WHOLE, "--model.exclude_seen", "true")
    rows = [("all", item, 1396867869 + n) for n, item in enumerate("abc")]
    write_log([*rows, ("one", "a", 1396867870), ("two", "a", 1396867871), ("two", "b", 1396867872)], "new.tsv")
    args = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), *TRAINER[:4], "--data.path", "new.tsv"]
    capsys.readouterr()
    predict.main([*args, "--model.k", "3"])
    out = capsys.readouterr().out
    assert "predicted the next 3 items of 2 sessions: predictions.tsv" in out
    assert "2 sessions have fewer than 3 candidates, such as one: " in out
    assert "1 session has no candidate, and no row, such as all: " in out
    assert [row[0] for row in predicted()] == ["one", "one", "two"]
    predict.main([*args, "--model.k", "1"])
    out = capsys.readouterr().out
    assert "fewer than" not in out
    assert "1 session has no candidate, and no row, such as all: " in out
