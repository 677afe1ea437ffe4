"""Fit and test models while an option changes, and give a table and a figure.

Examples::

    python scripts/sweep.py alpha --data.path clicks.tsv.gz
    python scripts/sweep.py --option model.sample_alpha --values 0 0.5 1 --models configs/gru4rec.yaml --seeds 1 2 3
    python scripts/sweep.py --option synth.n_sessions synth.max_session_len --values 8000+3 900+20 --models Oracle

What changes is that of an experiment, named first (alpha, sessions, train_ratio, catalogue, filtering, session_length),
or an --option of fit; a value of several options names one for each, joined by +. All words that are not listed below
go to every fit.

The option train_share keeps the most recent sessions of the training part only, and the test part as it is. Options
that begin with synth. are those of `sessrec synth`, for generated sessions; the Oracle, which knows their process,
is their ceiling. Runs go to lightning_logs/NAME-MODEL-VALUE-SEED; one that is finished already is tested as it is.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sessrec import synth
from sessrec.arguments import ScriptParser
from sessrec.callbacks.event_files import read_curves
from sessrec.errors import SessRecError, error_text
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.tested_runs import PROTOCOL, Run, check_comparable, read_run
from sessrec.experiments.fit_and_test import fit_seeds, model_words, parsed
from sessrec.experiments.recent_log import recent_log_words
from sessrec.figures.style import save_figures
from sessrec.figures.sweeps import sweep_figure
from sessrec.text import Table, spread_text
from sessrec.writing import atomic_write, write_text

DEFAULT_MODELS = ["Popularity", "Markov", "configs/gru4rec.yaml"]
EXPERIMENTS = {
    "alpha": ("model.alpha", "0 0.1 0.25 0.5 0.75 0.9 1", ["Markov"]),
    "sessions": ("train_share", "0.05 0.1 0.25 0.5 1", DEFAULT_MODELS),
    "train_ratio": ("data.test_ratio", "0.5 0.4 0.3 0.2 0.1", DEFAULT_MODELS),
    "catalogue": ("synth.n_items", "250 500 1000 2000 4000", [*DEFAULT_MODELS, "Oracle"]),
    "filtering": ("data.min_item_support data.drop_repeats", "1+false 5+false 1+true 5+true", DEFAULT_MODELS),
    "session_length": ("data.min_session_length data.max_session_length", "2+3 2+5 2+null 3+null", DEFAULT_MODELS),
}
"""Options, values and models of each experiment."""
METRICS = {"Recall@20": "recall@20", "MRR@20": "mrr@20"}
_COUNTS = {"training sessions": "train_sessions", "test positions": "positions", "items ranked": "items_ranked"}
_PROCESS = {"n_items": "--model.process_items", "seed": "--model.process_seed"}
_ONE_TEST = "All rows are measured on the same positions and against the same items."
_OTHER_TESTS = "Rows of different values are not measured on the same positions or items: compare models at one value."

Results = dict[tuple[str, str], list[dict[str, Any]]]
"""By value and model, a row for each fit."""


def words_of(value: str, options: Sequence[str], model: str, words: Sequence[str], output: Path) -> list[str]:
    """The words of fit for a model at a value, checked; sessions are generated, or a log cut, where that is asked for.

    Args:
        value: The value, of several options joined by +.
        options: The options.
        model: Name of a class, or a config.
        words: More words of each fit.
        output: Folder for a log that is cut.

    Raises:
        SessRecError: If fit would refuse them.
    """
    parts = value.split("+")
    if len(parts) != len(options):
        raise SessRecError(f"the value {value} is of {len(parts)} options, and there are {len(options)}")
    changed = [word for name, part in zip(options, parts, strict=True) for word in (f"--{name}", part)]
    if "data.test_ratio" in options:  # the other ways to split would win over the ratio
        changed += ["--data.test_duration", "null", "--data.test_start", "null"]
    parser = ScriptParser(None)  # of the options that are not fit's
    parser.add_argument("--train_share", type=float)
    for name in ("n_sessions", "n_items", "min_session_len", "max_session_len", "seed"):
        parser.add_argument(f"--synth.{name}", dest=name)
    own, rest = parser.parse_known_args([*model_words(model), *words, *changed])
    share = vars(own).pop("train_share")
    if process := {name: number for name, number in vars(own).items() if number is not None}:
        file = Path("data", f"sweep-{'-'.join(f'{name}-{number}' for name, number in process.items())}.tsv")
        if not file.exists():
            numbers = [word for name, number in process.items() for word in (f"--{name}", number)]
            synth.main([*numbers, "--output", str(file)])
        rest += ["--data.path", str(file)]
        if model == "Oracle":
            rest += [word for name in process.keys() & _PROCESS.keys() for word in (_PROCESS[name], process[name])]
    preparation = parsed(rest).datamodule.preparation
    file = output / f"recent-{share}-{Path(model).stem}.parquet"
    return rest if share is None else [*rest, *recent_log_words(preparation, share, file)]


def row_of(run: Run, value: str, model: str) -> dict[str, Any]:
    """What a tested run found, on which data and by which rules."""
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    log = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))
    _, validated = read_curves(run.folder).get(config["monitor"], (None, ()))
    return (
        {"value": value, "model": model, "run": run.folder.name, "validation": max(validated, default=None)}
        | {name: float(gains(run.ranks.rank, name).mean()) for name in METRICS.values()}
        | {name: run.report["protocol"][name] for name in PROTOCOL if name != "sessions"}
        | {f"{part}_{name}": log[part][name] for part in ("train", "test") for name in ("sessions", "events")}
        | {name: count for name, count in log["cleaned"].items() if name.startswith("events")}
    )


def text_of(results: Results, label: str) -> str:
    """The results as a table in Markdown, and what must be known to read it."""
    rows, lines = [fit for fits in results.values() for fit in fits], []
    for (value, model), fits in results.items():
        found = [[fit[name] for fit in fits if fit[name] is not None] for name in ("validation", *METRICS.values())]
        counts = [f"{fits[0][name]:,}" for name in _COUNTS.values()]
        lines.append([value, model, str(len(fits)), *map(spread_text, found), *counts])
    tests = {(row["data_digest"], row["items_ranked"]) for row in rows}
    ties = ", ".join(dict.fromkeys(row["tie_mode"] for row in rows))
    notes = [
        _ONE_TEST if len(tests) == 1 else _OTHER_TESTS,
        f"Where there are several fits: mean (least - greatest) over the seeds. Ties: {ties}.",
        "Choose a value by the validation part (the metric of --monitor); the test part only reports.",
    ]
    table = Table([label, "model", "fits", "validation", *METRICS, *_COUNTS], lines).markdown()
    return "\n".join([table, "", *(f"- {note}" for note in notes), ""])


def write(results: Results, label: str, output: Path) -> None:
    """Write the table in Markdown, one row a fit in CSV, and the figure."""
    write_text(output / "sweep.md", text_of(results, label))
    rows = [fit for fits in results.values() for fit in fits]
    with atomic_write(output / "sweep.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    values: list[Any] = list(dict.fromkeys(value for value, _ in results))
    with contextlib.suppress(ValueError):  # texts stand side by side
        values = [float(value) for value in values]
    lines: dict[str, dict[str, list[list[float]]]] = {title: {} for title in METRICS}
    for (_, model), fits in results.items():
        for name, metric in METRICS.items():
            lines[name].setdefault(model, []).append([fit[metric] for fit in fits])
    save_figures({"sweep": sweep_figure(f"Sweep of {label}", label, values, lines, "Oracle")}, output)


def main(args: list[str] | None = None) -> None:
    """Run a sweep."""
    parser = ScriptParser(__doc__, usage="python scripts/sweep.py EXPERIMENT | --option NAME ... --values VALUE ...")
    parser.add_argument("--option", nargs="+", help="options of fit that change together, without the leading --")
    parser.add_argument("--values", nargs="+", help="their values")
    parser.add_argument("--models", nargs="+", help="classes, or configs (default: Popularity, Markov and GRU4Rec)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="of each random model (default: 1 2)")
    parser.add_argument("--name", help="first part of the runs' names (default: sweep-EXPERIMENT)")
    parser.add_argument("--output", type=Path, help="folder of table and figure (default: lightning_logs/NAME)")
    args = sys.argv[1:] if args is None else list(args)
    experiment = args.pop(0) if args and not args[0].startswith("-") else "option"
    given, words = parser.parse_known_args(args)
    parser.refuse_misspelt([word for word in words if not word.startswith("--train_share")])
    known = EXPERIMENTS | ({"option": (" ".join(given.option), "", DEFAULT_MODELS)} if given.option else {})
    if experiment not in known:
        parser.error(f"name an experiment first, one of {', '.join(EXPERIMENTS)}; or --option and --values")
    label, of_experiment, models = known[experiment]
    values, models = given.values or of_experiment.split(), given.models or models
    name = given.name or f"sweep-{experiment}"
    output = given.output or Path("lightning_logs", name)
    parser.check_output(output)
    stems = [Path(model).stem for model in models]
    for what, names in (("value", values), ("model", stems), ("seed", given.seeds)):
        if not names or len(set(names)) < len(names):
            parser.error(f"no {what} is given, or one is given twice: {' '.join(map(str, names))}")
    results: Results = {}
    try:
        own = {(v, model): words_of(v, label.split(), model, words, output) for v in values for model in models}
        for value in values:
            tested: list[Run] = []
            for model, stem in zip(models, stems, strict=True):
                folders = fit_seeds(model, own[value, model], given.seeds, f"{name}-{stem}-{value}")
                runs = [read_run(folder) for folder in folders]
                results[value, stem] = [row_of(run, value, stem) for run in runs]
                tested += runs
            check_comparable(tested)
        write(results, label, output)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    print(f"\n{text_of(results, label)}\ntable and figure in {output}: sweep.md, .csv, .png, .svg")


if __name__ == "__main__":
    main()
