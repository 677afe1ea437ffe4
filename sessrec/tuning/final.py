"""The one test of a study: its best options and the default ones, fitted to training and validation part together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sessrec.errors import SessRecError
from sessrec.evaluation.comparison import Comparison, compare_runs
from sessrec.evaluation.tested_runs import read_run
from sessrec.experiments.fit_and_test import fit_and_test
from sessrec.tuning.space import words_of
from sessrec.tuning.study import Study
from sessrec.writing import write_json

METRICS = ("recall@20", "mrr@20")


def check_first_test(study: Study, again: bool) -> None:
    """Refuse a second test of one study, after which its figures would be chosen among.

    Args:
        study: The study.
        again: Whether the user has asked for a second test.

    Raises:
        SessRecError: If the study was tested.
    """
    if (tested := study.optuna.user_attrs.get("tested")) and not again:
        raise SessRecError(
            f"--study {study.folder.name} was tested on {tested['date']} with trial {tested['trial']} of "
            f"{tested['trials']}: a second test would choose on the test part; --again tests it again, and says so"
        )


def final_test(study: Study, words: Sequence[str], refit: Sequence[str], seeds: Sequence[int]) -> Comparison:
    """Fit the best and the default options with each seed, test them once, and compare them.

    The fits have no validation part: each takes the number of epochs that its trial was best after. Their
    ``metrics.json`` says how many trials stand behind them.

    Args:
        study: The study.
        words: Words of fit without a trial's options.
        refit: Words of fit that train on training and validation part together.
        seeds: Seeds of the fits.

    Raises:
        SessRecError: If no trial is complete.
    """
    best = study.best
    if best is None:
        raise SessRecError(f"--study {study.folder.name} has no complete trial to test")
    default = next(trial for trial in study.done if "default" in trial.user_attrs)
    tests = int(study.optuna.user_attrs.get("tested", {}).get("tests", 0)) + 1
    record = {"date": time.strftime("%Y-%m-%d"), "trial": best.number, "trials": len(study.done), "tests": tests}
    study.optuna.set_user_attr("tested", record)
    ending = "" if tests == 1 else f"-{tests}"
    tested = {"tuned": best, "default": default} if best is not default else {"default": default}
    shared = {
        "study": study.folder.name,
        "trials": len(study.done),
        "monitor": study.optuna.user_attrs["settings"]["--monitor"],
        "seconds": round(study.seconds, 1),
        "tests_of_this_study": tests,
    }
    trials = {
        name: TestedTrial(
            trial.number, trial.user_attrs["options"], trial.user_attrs["epochs"], trial.value, trial is best
        )
        for name, trial in tested.items()
    }
    folders = fit_and_test_trials(trials, shared, [*words, *refit], seeds, ending)
    return compare_runs([read_run(folder) for folder in folders], METRICS, prefix=f"{study.folder.name}-")


class TestedTrial(NamedTuple):
    """A trial whose options are tested."""

    number: int
    options: Mapping[str, str]
    """Its options, by name, as text."""
    epochs: int
    """Epochs after which it was best."""
    validation: float | None
    """Its score."""
    is_best: bool


def fit_and_test_trials(
    trials: Mapping[str, TestedTrial],
    shared: Mapping[str, Any],
    words: Sequence[str],
    seeds: Sequence[int],
    ending: str = "",
) -> list[Path]:
    """Fit the options of trials with each seed and test them; their ``metrics.json`` says where they are from.

    Args:
        trials: The trials, by what the runs are called.
        shared: What is to be said of all, the name of the ``study`` among it.
        words: Words of every fit.
        seeds: Seeds of the fits.
        ending: What follows in the names of the runs.

    Returns:
        Folders of the runs, named STUDY-NAME-SEED.
    """
    folders = []
    for name, trial in trials.items():
        for seed in seeds:
            length = ["--trainer.max_epochs", str(trial.epochs), "--seed_everything", str(seed)]
            run = f"{shared['study']}-{name}{ending}-{seed}"
            folders.append(fit_and_test([*words, *words_of(trial.options), *length], run))
            own = {"options": name, "is_best": trial.is_best, "trial": trial.number, "validation": trial.validation}
            _add(folders[-1], {**own, "epochs": trial.epochs, **shared})
    return folders


def _add(run: Path, origin: dict[str, Any]) -> None:
    file = run / "metrics.json"
    write_json(file, json.loads(file.read_text(encoding="utf-8")) | {"tuning": origin})
