"""The studies behind `scripts/report.py`: their commands, their final tests, and the table of all trials."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import fit_and_test, is_random
from sessrec.tuning.final import TestedTrial, fit_and_test_trials
from sessrec.tuning.space import words_of
from sessrec.writing import atomic_write, write_json

TUNABLE = (
    *("markov", "ar", "sr", "item_knn", "sknn", "vsknn", "stan", "vstan", "vmis_knn"),
    *("gru4rec", "sasrec", "narm", "sr_gnn"),
)
"""Configs of the models that have a search space."""
BUDGETS = dict.fromkeys(("rsc15_100k", "serenade_example", "eshop2008"), "--trials 100 --minutes 15 --workers 2")
"""Budget of each model's study on the logs that models are tuned on."""
SEEDS = (1, 2, 3)
TRANSFERS = {"yoochoose1_64": "rsc15_100k", "retailrocket": "serenade_example", "diginetica": "serenade_example"}
"""Logs without studies, and the log whose studies choose options for them: of the same shop, or the like."""
_HEAD = ("log", "model", "trial", "state", "value", "epochs", "seconds", "default", "reason", "options")


def study_command(log: str, model: str, words: str, seeds: Sequence[int] = SEEDS) -> str:
    """The command that tunes a model on a log, and tests it once.

    Args:
        log: Name of the log.
        model: Name of the config.
        words: Words of every fit on the log, without its path.
        seeds: Seeds of the final fits.
    """
    own = words.replace(" --data.val_ratio 0", "")  # a study needs a validation part
    return (
        f"python -m sessrec.tune --config configs/{model}.yaml --data.path data/{log}.tsv.gz {own} "
        f"--study {log}-{model} {BUDGETS[log]} --final --seeds {' '.join(map(str, seeds))}"
    )


def is_tuned(log: str, model: str, folder: Path) -> bool:
    """Whether the final test of a model's study on a log is among the runs in a folder."""
    return any(folder.glob(f"{log}-{model}-default-*/metrics.json"))


def runs_of_study(log: str, model: str, folder: Path) -> list[Path]:
    """Folders of a final test's runs: those of the first test of the study."""
    found = []
    for kind in ("default", "tuned"):
        names = [run.parent for run in folder.glob(f"{log}-{model}-{kind}-*/metrics.json")]
        found += sorted(run for run in names if run.name.removeprefix(f"{log}-{model}-{kind}-").isdigit())
    return found


def write_trials(folder: Path, file: Path) -> int:
    """Write all trials of the studies in a folder into one compressed table; gives their number.

    Trials of studies that are not there any more are kept from the table that is there. The options are one column of
    JSON, for each model has others.
    """
    rows: dict[tuple[str, str], list[Sequence[str]]] = {}
    if file.is_file():
        with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
            for row in list(csv.reader(stream))[1:]:
                rows.setdefault((row[0], row[1]), []).append(row)
    for log in BUDGETS:
        for model in TUNABLE:
            table = folder / f"{log}-{model}" / "trials.csv"
            if table.is_file():
                rows[log, model] = [_row(log, model, trial) for trial in _read(table)]
    if not rows:
        return 0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD)
    for key in sorted(rows):
        writer.writerows(rows[key])
    with atomic_write(file) as temporary:  # without a time of its own, so that equal trials give an equal file
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return sum(map(len, rows.values()))


def _read(table: Path) -> list[Mapping[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["state"] != "known"]


def _row(log: str, model: str, trial: Mapping[str, str]) -> list[str]:
    options = {name: value for name, value in trial.items() if name not in _HEAD and value}
    return [log, model, *(trial[name] for name in _HEAD[2:-1]), json.dumps(options)]


def refit_published(log: str, model: str, file: Path, words: str, seeds: Sequence[int]) -> None:
    """Make the final test of a study of which only its trials are there.

    Args:
        log: Name of the log.
        model: Name of the config.
        file: Table of all trials.
        words: Words of every fit on the log, without its path.
        seeds: Seeds of the fits; a model that draws nothing takes the first.

    Raises:
        SessRecError: If the table has no complete trial of that model on that log.
    """
    rows = _published(log, model, file)
    best, default = _best(rows), next(row for row in rows if row["default"] == "True")
    tested = {"default": default} if best is default else {"tuned": best, "default": default}
    trials = {
        name: TestedTrial(
            int(row["trial"]), json.loads(row["options"]), int(row["epochs"]), float(row["value"]), row is best
        )
        for name, row in tested.items()
    }
    shared = {
        "study": f"{log}-{model}",
        "trials": len(rows),
        "monitor": "val/mrr@20",
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "tests_of_this_study": 1,
    }
    seeds = seeds if is_random(f"configs/{model}.yaml") else seeds[:1]
    data = ["--data.path", f"data/{log}.tsv.gz", *words.split()]
    fit_and_test_trials(trials, shared, ["--config", f"configs/{model}.yaml", *data], seeds)


def fit_transferred(log: str, model: str, file: Path, words: str, seeds: Sequence[int]) -> list[Path]:
    """Fit and test a model with the options that the study of another log chose; gives the folders of the runs.

    Args:
        log: Name of the log, for which `TRANSFERS` names the other one.
        model: Name of the config.
        file: Table of all trials.
        words: Words of every fit on the log, without its path.
        seeds: Seeds of the fits; a model that draws nothing takes the first.

    Returns:
        Folders of the runs; none where the study chose the default options.

    Raises:
        SessRecError: If the table has no complete trial of that model on the other log.
    """
    source = TRANSFERS[log]
    rows = _published(source, model, file)
    best = _best(rows)
    if best["default"] == "True":
        print(f"{source} chose the default options of {model}: they are tested by --fit {log}")
        return []
    folders = []
    data = ["--config", f"configs/{model}.yaml", "--data.path", f"data/{log}.tsv.gz", *words.split()]
    origin = {"log": source, "trial": int(best["trial"]), "trials": len(rows), "validation": float(best["value"])}
    for seed in seeds if is_random(f"configs/{model}.yaml") else seeds[:1]:
        options = [*words_of(json.loads(best["options"])), "--seed_everything", str(seed)]
        folders.append(fit_and_test([*data, *options], f"{log}-{transferred_name(log, model)}-{seed}"))
        report = folders[-1] / "metrics.json"
        write_json(report, json.loads(report.read_text(encoding="utf-8")) | {"options_of": origin})
    return folders


def runs_transferred(log: str, folder: Path) -> dict[str, list[Path]]:
    """Folders of the runs with options that another log chose, by model."""
    found = {}
    for model in TUNABLE if log in TRANSFERS else ():
        if own := sorted(run.parent for run in folder.glob(f"{log}-{transferred_name(log, model)}-*/metrics.json")):
            found[model] = own
    return found


def transfer_command(log: str, models: Sequence[str], seeds: Sequence[int]) -> str:
    """The command that tests models on a log with the options that another log chose."""
    return f"python scripts/report.py --transfer {log} --models {' '.join(models)} --seeds {' '.join(map(str, seeds))}"


def transferred_name(log: str, model: str) -> str:
    """Name of a model with the options that another log chose."""
    return f"{model}-of-{TRANSFERS[log]}"


def _published(log: str, model: str, file: Path) -> list[Mapping[str, str]]:
    """The published trials of a model's study on a log."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        rows: list[Mapping[str, str]] = [
            row for row in csv.DictReader(stream) if (row["log"], row["model"]) == (log, model)
        ]
    if not any(row["default"] == "True" and row["state"] == "complete" for row in rows):
        raise SessRecError(f"{file} has no trial of the default options of {model} on {log}: report.py --tune {log}")
    return rows


def _best(rows: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    complete = [row for row in rows if row["state"] == "complete"]
    return max(complete, key=lambda row: (float(row["value"]), -int(row["trial"])))


def tuning_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What docs/results.json says of the study behind a run, from its ``metrics.json``; nothing where there is none."""
    found = {name: dict(report[name]) for name in ("tuning", "options_of") if report.get(name)}
    for origin in found.values():
        origin.pop("tests_of_this_study", None)
    return found
