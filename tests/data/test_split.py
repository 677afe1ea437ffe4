"""Splits at one time, the vocabulary of the training part, and the leakage report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import BASE, sequences

from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.data.sessions import map_events
from sessrec.data.split import leakage_report, split_events, split_time
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError

ROWS = [
    ("early", "a", 10), ("early", "b", 20),
    ("across", "a", 30), ("across", "b", 40), ("across", "c", 60),
    ("short head", "a", 45), ("short head", "c", 55),
    ("late", "b", 50), ("late", "z", 70), ("late", "a", 80),
    ("repeated", "a", 90), ("repeated", "b", 95),
]  # fmt: skip


def test_cut_and_test_straddling(write_log: Callable[..., Path]) -> None:
    events = read_events(write_log(ROWS))
    train, test, counts = split_events(events, 50.0)
    assert sequences(train) == {"early": ["a", "b"], "across": ["a", "b"], "short head": ["a"]}
    assert sequences(test) == {"late": ["b", "z", "a"], "repeated": ["a", "b"]}
    assert counts == {"straddling_sessions": 2, "events_of_tails": 2, "events_of_short_heads": 0}
    assert leakage_report(train, test, 50.0) == {
        "train_events_at_or_after_t": 0, "test_events_before_t": 0, "shared_sessions": 0,
        "items_only_in_test": 1, "repeated_sessions": 1,
    }  # fmt: skip
    heads, _, counts = split_events(events, 50.0, min_length=2)
    assert sequences(heads) == {"early": ["a", "b"], "across": ["a", "b"]}
    assert counts["events_of_short_heads"] == 1
    train, test, counts = split_events(events, 50.0, straddling="test")
    assert sequences(train) == {"early": ["a", "b"]}
    assert sequences(test)["across"] == ["a", "b", "c"]
    assert counts == {"straddling_sessions": 2, "events_of_tails": 0, "events_of_short_heads": 0}
    assert leakage_report(train, test, 50.0)["test_events_before_t"] == 3


def test_leakage_report_counts_a_leak(write_log: Callable[..., Path]) -> None:
    events = read_events(write_log(ROWS))
    odd = events.session % 2 == 1  # a split by session that ignores time
    report = leakage_report(events.select(odd), events.select(~odd), 50.0)
    assert report["train_events_at_or_after_t"] > 0
    assert leakage_report(events, events, 50.0)["shared_sessions"] == 5


def test_split_times(write_log: Callable[..., Path]) -> None:
    events = read_events(write_log(BASE))
    assert split_time(events, ratio=0.25) == 1397040669  # the start of the session at position floor(0.75 * 4) = 3
    assert split_time(events, ratio=0.5) == 1396954269
    assert split_time(events, duration="1d") == 1397040729 - 86400 == 1396954329
    assert split_time(events, duration=86400) == split_time(events, duration="24h") == 1396954329
    assert split_time(events, start=1396954269) == split_time(events, start="2014-04-08T10:51:09Z") == 1396954269
    assert split_time(events, start="1396954269") == 1396954269


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.5}, "test_ratio must be above 0 and below 1"),
        ({"duration": "900d"}, "outside the log's times"),
        ({"duration": "1 fortnight"}, "test_duration is '1 fortnight'"),
        (
            {"start": 5},
            r"start 5 splits at 5, outside the log's times 1396867869 \(2014-04-07 10:51:09 UTC\) to ",
        ),
    ],
)
def test_impossible_splits(write_log: Callable[..., Path], options: dict, message: str) -> None:
    with pytest.raises(SessRecError, match=message):
        split_time(read_events(write_log(BASE)), **options)


def test_no_times_no_duration(write_log: Callable[..., Path]) -> None:
    events = read_events(write_log(BASE), LogFormat(time_column=None))
    with pytest.raises(SessRecError, match="needs times"):
        split_time(events, duration="1d")
    train, test, _ = split_events(events, split_time(events, ratio=0.25))
    assert list(sequences(test)) == ["4"]
    assert list(sequences(train)) == ["1", "2", "3"]


def test_unknown_items_go_before_pairs_are_formed(write_log: Callable[..., Path]) -> None:
    rows = [("1", "A", 1), ("1", "?", 2), ("1", "B", 3), ("2", "?", 4), ("2", "A", 5), ("3", "B", 6), ("3", "A", 7)]
    sessions, counts = map_events(read_events(write_log(rows)), Vocabulary(["B", "A"], np.array([1, 1])))
    assert [sessions[number].tolist() for number in range(len(sessions))] == [[1, 0], [0, 1]]
    assert sessions.session_ids is not None
    assert sessions.session_ids.to_pylist() == ["1", "3"]
    dropped = {"unknown_events": 2, "unknown_items": 1, "short_sessions": 1, "short_events": 1}
    assert counts == {**dropped, "unknown_such_as": "?"}


def test_vocabulary_in_order_of_first_appearance(write_log: Callable[..., Path]) -> None:
    rows = [("s", item, time) for time, item in enumerate(["c", "a", "c", "d"])]
    events = read_events(write_log([*rows[::-1], ("later", "b", 9)]))
    vocabulary = Vocabulary.of_events(events.sessions_between(0, 1))
    assert (vocabulary.item_ids, vocabulary.counts.tolist()) == (["c", "a", "d"], [2, 1, 1])
    again = Vocabulary.from_state_dict(vocabulary.state_dict())
    assert (again.item_ids, again.counts.tolist()) == (vocabulary.item_ids, vocabulary.counts.tolist())
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(["a", "a"], np.array([1, 1]))
