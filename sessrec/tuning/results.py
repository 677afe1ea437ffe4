"""What a study has found: tables, the best options as a config, and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from sessrec.cli import SessRecCLI, quiet
from sessrec.figures.style import save_figures
from sessrec.figures.tuning import history_figure, importance_figure, slices_figure
from sessrec.text import Table, counted, seconds_text
from sessrec.tuning.space import words_of
from sessrec.tuning.study import Study, is_killed
from sessrec.writing import write_text

_KEPT_DATA = ("batch_size", "steps_per_window", "shuffle")


def value_of(trial: FrozenTrial) -> float | None:
    """The best validation of a trial, also of one that was stopped; None where it had none."""
    return max([*trial.intermediate_values.values(), *([] if trial.value is None else [trial.value])], default=None)


def best_table(study: Study, n_rows: int = 10) -> Table:
    """The best trials, with the options that differ among them.

    Args:
        study: The study.
        n_rows: Most rows.
    """
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    shown = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))[:n_rows]
    shown += [trial for trial in complete if "default" in trial.user_attrs and trial not in shown]
    options = list(dict.fromkeys(name for trial in shown for name in trial.user_attrs["options"]))
    rows = [
        [
            str(trial.number) + (" (default)" if "default" in trial.user_attrs else ""),
            f"{trial.value:.4f}",
            str(trial.user_attrs["epochs"]),
            seconds_text(trial.user_attrs["seconds"]),
            *(trial.user_attrs["options"].get(name, "-") for name in options),
        ]
        for trial in shown
    ]
    return Table(["trial", "value", "epochs", "time", *(name.partition(".")[2] for name in options)], rows)


def counts_text(study: Study) -> str:
    """How many trials there are, of each kind, and what they took."""
    trials = study.trials
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    valueless = sum(trial.state == TrialState.PRUNED and value_of(trial) is None for trial in trials)
    stopped = sum(trial.state == TrialState.PRUNED for trial in trials) - valueless
    killed, known = sum(map(is_killed, trials)), sum("known" in trial.user_attrs for trial in trials)
    kinds = {
        "complete": complete,
        "stopped early": stopped,
        "refused or without a value": valueless,
        "killed and repeated": killed,
        "not run, for their values were tried before": known,
    }
    parts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
    return f"{counted(complete + stopped + valueless, 'trial')} ({parts}), {seconds_text(study.seconds)} of work"


def notes_of(study: Study) -> list[str]:
    """What must be known to read the values of a study."""
    notes = []
    if study.is_exhausted:
        notes.append("the search space has hardly any values that were not tried")
    if len({trial.user_attrs.get("validation") for trial in study.done if value_of(trial) is not None}) > 1:
        notes.append(
            "the cleaning differs between trials, and with it the validation positions: values cannot be compared"
        )
    return notes


def trials_csv(study: Study) -> str:
    """All trials, a row each, with their state, value, time and options."""
    trials = study.trials
    options = list(dict.fromkeys(name for trial in trials for name in trial.user_attrs.get("options", {})))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "state", "value", "epochs", "seconds", "default", "reason", *options])
    for trial in trials:
        kept = trial.user_attrs
        state = "killed" if is_killed(trial) else "known" if "known" in kept else trial.state.name.lower()
        head = [trial.number, state, value_of(trial), kept.get("epochs"), kept.get("seconds"), "default" in kept]
        own = kept.get("options", {})
        writer.writerow([*head, kept.get("reason", ""), *(own.get(name, "") for name in options)])
    return stream.getvalue()


def config_of(words: Sequence[str], trial: FrozenTrial, monitor: str) -> str:
    """The options of a trial as a config.

    Args:
        words: Words of fit without the trial's options.
        trial: The trial.
        monitor: The metric that the study maximises.
    """
    options: Mapping[str, str] = trial.user_attrs["options"]
    with quiet("tune"):
        config = SessRecCLI("fit", [*words, *words_of(options)])
    tuned = [name.partition(".")[2] for name in options if name.startswith("data.")]
    model: Any = config.config.model.as_dict()
    trainer: dict[str, Any] = {"max_epochs": trial.user_attrs["epochs"]}
    for name in (name.partition(".")[2] for name in options if name.startswith("trainer.")):
        trainer[name] = config.config.trainer[name]
    content = {
        "model": model,
        "data": {name: config.config.data[name] for name in dict.fromkeys([*_KEPT_DATA, *tuned])},
        "trainer": trainer,
    }
    found = f"{monitor} {trial.value:.4f} on the validation part, after {counted(trainer['max_epochs'], 'epoch')}"
    return f"# Trial {trial.number}: {found}.\n" + yaml.safe_dump(content, sort_keys=False)


def write_study(study: Study, words: Sequence[str], monitor: str) -> list[str]:
    """Write ``trials.csv``, ``best.yaml`` and the figures into the study's folder; gives the names of the files."""
    best = study.best
    write_text(study.folder / "trials.csv", trials_csv(study))
    if best is None:
        return ["trials.csv"]
    write_text(study.folder / "best.yaml", config_of(words, best, monitor))
    figures = {
        "history": history_figure(_values(study), _default_value(study), monitor),
        "importance": importance_figure(study.optuna),
        "slices": slices_figure(study.optuna, monitor),
    }
    return ["trials.csv", "best.yaml", *save_figures({k: f for k, f in figures.items() if f is not None}, study.folder)]


def _values(study: Study) -> dict[int, tuple[float, bool]]:
    """Value of each trial that has one, by its place among the trials that were run, and whether it was complete."""
    found = [(value_of(trial), trial.state == TrialState.COMPLETE) for trial in study.done]
    return {place: (value, whole) for place, (value, whole) in enumerate(found) if value is not None}


def _default_value(study: Study) -> float | None:
    return next((value_of(trial) for trial in study.done if "default" in trial.user_attrs), None)
