"""Splits published as pickles become click logs, and nothing of a pickle is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import everything_in, run_python, sequences
from hypothesis import given
from hypothesis import strategies as st

from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.prefixes import sessions_of_prefixes
from sessrec.click_log.reading import read_events

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "import_prefixes.py")
CASE_109 = ([[101, 102], [101], [102], [101, 103], [101], [103]], [103, 102, 103, 102, 103, 101])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch it_ran",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_case_109_prefixes_become_sessions(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_bytes(pickle.dumps(CASE_109, protocol))
    run_python([SCRIPT, "train.txt", "--output", "clicks.tsv"], monkeypatch)
    assert "6 prefixes make 4 sessions of 10 events: clicks.tsv" in capsys.readouterr().out
    events = read_events("clicks.tsv", LogFormat(time_column=None))
    found = sequences(events)
    assert list(found) == ["clicks-1", "clicks-2", "clicks-3", "clicks-4"]
    assert list(found.values()) == [["101", "102", "103"], ["102", "103"], ["101", "103", "102"], ["103", "101"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "is no pickle of plain lists (it asks for posix.system): nothing of it was run"),
        (pickle.dumps(([[np.int64(1)]], [2])), "it asks for numpy"),
        (pickle.dumps(CASE_109)[:-9], "is no pickle of plain lists"),
        (b"1,2,3\n", "is no pickle of plain lists"),
        (pickle.dumps({"a": 1}), "holds a dict: expected a pair of lists"),
        (pickle.dumps(([[1]], [2, 3])), "holds 1 prefixes and 2 targets"),
        (pickle.dumps(([[1], []], [2, 3])), "row 2: ([], 3): expected"),
        (pickle.dumps(([[1.5]], [2])), "row 1: ([1.5], 2): expected"),
    ],
)
def test_what_is_refused_is_not_run(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.txt").write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        run_python([SCRIPT, "evil.txt"], monkeypatch)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert everything_in(tmp_path) == {"evil.txt"}


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=5), min_size=1, max_size=6), st.booleans())
def test_sessions_come_back_from_their_prefixes(sessions: list[list[int]], shortest_first: bool) -> None:
    """As long as two rows of every session show the direction, and none goes on where the one before it stops."""
    sessions = [[9, 9, 9, number] + session for number, session in enumerate(sessions)]
    lengths = [sorted(range(2, len(session) + 1), reverse=not shortest_first) for session in sessions]
    rows = [session[:length] for session, own in zip(sessions, lengths, strict=True) for length in own]
    assert sessions_of_prefixes([row[:-1] for row in rows], [row[-1] for row in rows]) == sessions
