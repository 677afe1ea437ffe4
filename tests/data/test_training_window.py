"""The newest part of the training sessions, on a log that is counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError

ROWS = [
    ("early", "a", 10), ("early", "b", 20),
    ("across", "a", 30), ("across", "b", 40), ("across", "c", 60),
    ("short", "a", 45), ("short", "c", 48),
    ("late", "b", 50), ("late", "z", 70), ("late", "a", 80),
    ("tested", "a", 90), ("tested", "b", 95),
]  # fmt: skip


@pytest.fixture
def prepared(write_log: Callable[..., Path]) -> Callable[..., PreparedLog]:
    file = str(write_log(ROWS))

    def run(known: Vocabulary | None = None, **options: Any) -> PreparedLog:
        return Preparation(**{"path": file, "test_start": 90, "val_ratio": 0} | options).run(known)

    return run


def sessions_of(log: PreparedLog, part: str) -> list[str]:
    return log.sessions[part].session_ids.to_pylist() if part in log.sessions else []


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, ["early", "across", "short", "late"]),
        ({"train_ratio": 1.0}, ["early", "across", "short", "late"]),
        ({"train_ratio": 0.5}, ["short", "late"]),
        ({"train_ratio": 0.49}, ["late"]),
        ({"train_ratio": 1 / 64}, ["late"]),  # never none
        ({"train_ratio": 0.5, "train_ratio_of": "positions"}, ["short", "late"]),  # 3 of 6 positions
        ({"train_ratio": 1.0, "train_ratio_of": "positions"}, ["early", "across", "short", "late"]),
        ({"train_duration": 30}, ["late"]),  # the last training event is at 80
        ({"train_duration": "35s"}, ["short", "late"]),
        ({"train_start": 30}, ["across", "short", "late"]),
        ({"train_start": 31}, ["short", "late"]),  # a session under way is dropped as a whole
        ({"train_start": "1970-01-01T00:00:50Z"}, ["late"]),
    ],
)
def test_sessions_that_are_kept(options: dict[str, Any], kept: list[str], prepared: Any) -> None:
    log = prepared(**options)
    assert sessions_of(log, "train") == kept
    assert sessions_of(log, "test") == ["tested"]
    window = log.report.sections.get("train window", {})
    assert window.get("sessions_before", 0) == 4 - len(kept)
    assert window.get("events_before", 0) == 10 - sum(name in kept for name, _, time in ROWS if time < 90)


def test_a_share_of_positions_cuts_the_oldest_session_to_its_head(prepared: Any) -> None:
    log = prepared(train_ratio=0.34, train_ratio_of="positions")  # 2 of 6 positions: late's
    assert items_of(log) == [["b", "z", "a"]]
    log = prepared(train_ratio=0.8, train_ratio_of="positions")  # 4: across has 2, and gives 1
    assert items_of(log) == [["a", "b"], ["a", "c"], ["b", "z", "a"]]
    assert log.report.sections["train window"].items() >= {"sessions_before": 1, "events_before": 3}.items()
    assert log.sessions["train"].n_positions == 4
    assert items_of(prepared(train_ratio=1 / 64, train_ratio_of="positions")) == [["b", "z"]]  # never none


def items_of(log: PreparedLog) -> list[list[str]]:
    ids, train = log.vocabulary.item_ids, log.sessions["train"]
    return [[ids[item] for item in train[number]] for number in range(len(train))]


def test_older_sessions_are_mixed_in(prepared: Any) -> None:
    log = prepared(train_ratio=0.5, replay=0.5)  # one older session beside two
    first, *window = sessions_of(log, "train")
    assert window == ["short", "late"]
    assert first in ("early", "across")
    assert sessions_of(prepared(train_ratio=0.5, replay=0.5), "train") == [first, *window]
    events = sum(name in (first, *window) for name, _, time in ROWS if time < 90)
    expected = {"sessions_before": 1, "events_before": 10 - events, "sessions_replayed": 1}
    assert log.report.sections["train window"].items() >= expected.items()
    assert sessions_of(prepared(train_ratio=0.5, replay=9), "train") == ["early", "across", "short", "late"]
    assert sessions_of(prepared(train_ratio=0.5, replay=0.2), "train") == ["short", "late"]


def test_items_and_counts_follow_from_what_is_kept(prepared: Any) -> None:
    log = prepared(train_ratio=0.5)
    assert dict(zip(log.vocabulary.item_ids, log.vocabulary.counts.tolist(), strict=True)) == dict(a=2, c=1, b=1, z=1)
    log = prepared(train_ratio=0.5, val_ratio=0.5)  # the validation part is cut off the window
    assert (sessions_of(log, "train"), sessions_of(log, "val")) == (["short"], [])
    assert log.report.sections["val"]["unknown_events"] == 2  # b and z; a alone is no session
    assert sorted(log.vocabulary.item_ids) == ["a", "c"]
    assert log.report.sections["test"]["unknown_events"] == 1
    known = prepared(train_ratio=0.25).vocabulary
    assert sessions_of(prepared(known, train_ratio=0.5, val_ratio=0.5), "val") == ["late"]  # of a model that is there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_ratio": 0}, "--data.train_ratio must be above 0 and at most 1, got 0"),
        ({"train_ratio": 1.5}, "got 1.5"),
        ({"train_ratio": 0.5, "train_ratio_of": "events"}, "train_ratio_of must be sessions or positions, got"),
        ({"train_duration": "0s"}, "--data.train_duration must be above 0, got 0s"),
        ({"train_start": 81}, "--data.train_start 81 leaves no session to train on: the last one begins at 50"),
        ({"train_duration": 5}, "--data.train_duration 5 leaves no session to train on"),
        ({"replay": 0.2}, "--data.replay keeps sessions before --data.train_ratio"),
        ({"replay": -1, "train_ratio": 0.5}, "--data.replay must be at least 0, got -1"),
        ({"train_start": "yesterday"}, "--data.train_start is 'yesterday'; write Unix seconds"),
        ({"train_ratio": 0.5, "train_start": 30}, "give one of --data.train_ratio and --data.train_start, not both"),
        ({"train_duration": 5, "time_column": None, "order_column": None}, "--data.train_duration needs times"),
    ],
)
def test_faults_are_named(options: dict[str, Any], message: str, prepared: Any) -> None:
    with pytest.raises(SessRecError, match=message):
        prepared(**({"test_start": 11} if "time_column" in options else {}) | options)
