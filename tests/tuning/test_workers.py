"""A study whose workers are killed: what it holds in the end, read from its journal by other means than its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from sessrec.errors import SessRecError
from sessrec.tuning import study as study_module
from sessrec.tuning.space import Dimension, SearchSpace
from sessrec.tuning.study import JOURNAL, Study, is_killed

X = SearchSpace((Dimension("model.x", FloatDistribution(0, 1), "{}", {}),))
SIX = SearchSpace((Dimension("model.x", IntDistribution(0, 5), "{}", {}),))
STARTS = "starts:\n  - {model.x: 0.25, model.y: 7}\n  - {model.y: 0}\n"
RUNNING, COMPLETE, PRUNED, FAIL, WAITING = range(5)  # as Optuna's journal numbers the states
WORKER = """
import sys, time
from pathlib import Path
from optuna.trial import TrialState
from sessrec.tuning.space import read_space
from sessrec.tuning.study import Study, signs_of_life

folder, n_trials, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
space = read_space(Path(sys.argv[0]).with_name("space.yaml"))
study = Study(folder, None, {"a": 1}, space, {"model.x": "0.5", "model.y": "3"})
while len(study.done) < n_trials:
    asked = study.ask(n_trials, 1e9)
    if asked is None:
        time.sleep(0.02)
        continue
    trial, options = asked
    with signs_of_life(trial):
        time.sleep(seconds)
        value = -trial.params["model.x"] ** 2 + trial.params["model.y"]
    study.tell(trial, TrialState.COMPLETE, value, epochs=1, reason="")
"""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Any]:
    """Starts workers on a study in a folder; none of them outlives the test."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    (tmp_path / "space.yaml").write_text("model.x: {low: -1.0, high: 1.0}\nmodel.y: {low: 0, high: 9}\n" + STARTS)
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: str, n_trials: int, seconds: float = 0.05) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(script), str(tmp_path / folder), str(n_trials), str(seconds)]
        started.append(subprocess.Popen(words))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def read_journal(folder: Path) -> dict[int, dict[str, Any]]:
    """Trials of a study's journal by their number: state, values, parameters."""
    trials: dict[int, dict[str, Any]] = {}
    for line in (folder / JOURNAL).read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == 4:  # a new trial
            trials[len(trials)] = {"state": entry.get("state", RUNNING), "params": {}, "value": None}
        elif entry["op_code"] == 5:  # a value of an option
            trials[entry["trial_id"]]["params"][entry["param_name"]] = entry["param_value_internal"]
        elif entry["op_code"] == 6:  # a state
            trial = trials[entry["trial_id"]]
            if trial["state"] in (RUNNING, WAITING):
                trial["state"], trial["value"] = entry["state"], (entry.get("values") or [None])[0]
    return trials


def of_state(trials: dict[int, dict[str, Any]], state: int) -> list[dict[str, Any]]:
    return [trial for trial in trials.values() if trial["state"] == state]


def test_killed_workers_cost_no_trial(workers: Any, tmp_path: Path) -> None:
    n_trials, n_kills = 24, 8
    moments = np.random.default_rng(3)
    running = [workers("study", n_trials, 0.15) for _ in range(2)]
    time.sleep(1.5)
    for number in range(n_kills):
        time.sleep(moments.uniform(0.05, 0.6))
        running[number % 2].kill()
        running[number % 2].wait()
        running[number % 2] = workers("study", n_trials, 0.15)
    for process in running:
        assert process.wait(60) == 0
    trials = read_journal(tmp_path / "study")
    given_up = of_state(trials, PRUNED)  # killed again and again, as a trial that takes all memory would be
    assert len(of_state(trials, COMPLETE)) + len(given_up) == n_trials
    assert len(given_up) <= n_kills / 4
    assert not of_state(trials, RUNNING)
    values = Counter(tuple(sorted(trial["params"].items())) for trial in of_state(trials, COMPLETE))
    assert max(values.values()) == 1
    own = Study(tmp_path / "study", None, {"a": 1}, X, {})
    assert own.best is not None
    assert own.best.value == max(trial["value"] for trial in of_state(trials, COMPLETE))
    killed = [trial for trial in own.trials if is_killed(trial)]
    assert 0 < len(killed) <= n_kills
    ended = [trial.params for trial in own.done]
    assert all(trial.params in ended for trial in killed if "options" in trial.user_attrs)  # the others had no values


def test_a_study_does_not_depend_on_what_was_killed(workers: Any, tmp_path: Path) -> None:
    assert workers("whole", 14, 0.0).wait(60) == 0
    for seconds in (1.3, 1.6):
        killed = workers("killed", 14, 0.12)
        time.sleep(seconds)
        killed.kill()
        killed.wait()
    assert workers("killed", 14, 0.0).wait(60) == 0
    whole, killed = (of_state(read_journal(tmp_path / name), COMPLETE) for name in ("whole", "killed"))
    assert [trial["params"] for trial in whole] == [trial["params"] for trial in killed]
    assert [trial["params"] for trial in whole[:3]] == [
        {"model.x": 0.5, "model.y": 3},  # the defaults
        {"model.x": 0.25, "model.y": 7},  # those that are tried first
        {"model.x": 0.5, "model.y": 0},
    ]


def test_a_worker_elsewhere_is_killed_when_it_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path / "study", None, {}, X, {"model.x": "0.5"})
    asked = study.ask(2, 1e9)
    assert asked is not None
    asked[0].set_user_attr("worker", ["another-machine", 1])
    asked[0].set_user_attr("alive", time.time() - 50)
    assert study.ask(1, 1e9) is None  # it is at the last trial
    asked[0].set_user_attr("alive", time.time() - 70)
    again = study.ask(1, 1e9)
    assert again is not None
    assert (again[0].number, again[0].params, again[1]) == (1, {"model.x": 0.5}, {})
    assert not study.tell(asked[0], study_module.TrialState.COMPLETE, 1.0)  # it comes back, and does not count
    assert study.tell(again[0], study_module.TrialState.COMPLETE, 0.5)
    assert study.best is not None
    assert study.best.value == 0.5


def test_a_trial_that_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", None, {}, X, {"model.x": "0.5"})
    for number in range(4):
        asked = study.ask(1, 1e9)
        assert asked is not None, number
        asked[0].set_user_attr("alive", 0.0)
    assert study.ask(1, 1e9) is None
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "FAIL", "PRUNED"]


def test_no_values_are_tried_twice(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", None, {}, SIX, {"model.x": "1"})
    found = []
    while (asked := study.ask(50, 1e9)) is not None:
        found.append(asked[0].params["model.x"])
        study.tell(asked[0], study_module.TrialState.COMPLETE, 1.0)
    assert found[0] == 1
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert study.is_exhausted


def test_the_budget_of_time_is_that_of_all_workers(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", None, {}, X, {"model.x": "0.5"})
    for _ in range(3):
        asked = study.ask(9, 30.0)
        assert asked is not None
        asked[0].set_user_attr("seconds", 10.0)
        study.tell(asked[0], study_module.TrialState.COMPLETE, 1.0)
    assert study.ask(9, 30.0) is None
    assert study.seconds == 30.0


def test_another_question_is_another_study(tmp_path: Path) -> None:
    Study(tmp_path / "study", None, {"model.k": "1", "space": {}}, X, {})
    with pytest.raises(SessRecError, match="--study study is there with model.k 1, not 2: give another --study"):
        Study(tmp_path / "study", None, {"model.k": "2", "space": {}}, X, {})
    added = {"model.k": "1", "space": {}, "data.added": "null"}  # of a release that knows one more option
    Study(tmp_path / "study", None, added, X, {})
    with pytest.raises(SessRecError, match="with data.added null, not 3"):
        Study(tmp_path / "study", None, added | {"data.added": "3"}, X, {})
    Study(tmp_path / "study", f"sqlite:///{tmp_path}/trials.db", {"model.k": "2"}, X, {})  # of any storage
    with pytest.raises(SessRecError, match="--storage nosql://x cannot be used"):
        Study(tmp_path / "study", "nosql://x", {}, X, {})
