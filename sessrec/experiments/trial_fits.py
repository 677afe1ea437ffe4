"""Test trials of a study beside the chosen one: how far a validation score can be trusted."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sessrec.errors import SessRecError
from sessrec.evaluation.audits import TrialScores
from sessrec.evaluation.tested_runs import Run, read_run
from sessrec.experiments.fit_and_test import USUAL_FOLDER, fit_and_test

_NO_OPTIONS = 7  # columns of trials.csv before those of the options


def fit_trials(run: Run, n_trials: int) -> list[TrialScores]:
    """Fit and test trials of a study as its final test does; nothing is chosen by what comes out.

    Args:
        run: A run of the study's final test, whose data and rules are taken.
        n_trials: Number of complete trials: the best, the worst, and some at even distances between.

    Returns:
        The trials, the best by validation first.

    Raises:
        SessRecError: If the study is not beside the run.
    """
    origin, folder = run.report["tuning"], run.folder.resolve().parent
    found = []
    for number, value, epochs, options in _chosen(folder / origin["study"] / "trials.csv", n_trials):
        words = ["--config", str(run.folder / "config.yaml"), *options, "--trainer.max_epochs", epochs]
        seed = ["--seed_everything", str(run.report["seed"])]
        tested = read_run(fit_and_test([*words, *seed, *USUAL_FOLDER], f"{origin['study']}-trial-{number}"))
        metric = origin["monitor"].replace("val/", "test/", 1)
        found.append(TrialScores(number, value, tested.report["metrics"][metric]))
    return found


def _chosen(file: Path, n_trials: int) -> list[tuple[int, float, str, list[str]]]:
    """Number, value, epochs and options as words of some complete trials, the best first."""
    if not file.is_file():
        raise SessRecError(f"there is no {file}: the study must lie beside the runs of its final test")
    with file.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    complete = [row for row in rows if row[head.index("state")] == "complete"]
    complete.sort(key=lambda row: (-float(row[head.index("value")]), int(row[0])))
    places = np.unique(np.linspace(0, len(complete) - 1, min(n_trials, len(complete))).round().astype(int))
    found = []
    for row in (complete[place] for place in places):
        given = [(name, value) for name, value in zip(head[_NO_OPTIONS:], row[_NO_OPTIONS:], strict=True) if value]
        words = [word for name, value in given for word in (f"--{name}", value)]
        found.append((int(row[0]), float(row[head.index("value")]), row[head.index("epochs")], words))
    return found
