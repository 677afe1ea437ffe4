"""Fit and test models while one thing changes - data, split, filtering or an option - and give a table and a figure.

Examples::

    python scripts/sweep.py alpha
    python scripts/sweep.py sessions --models Markov GRU4Rec=configs/gru4rec.yaml --seeds 1 2 --data.path clicks.tsv.gz
    python scripts/sweep.py filtering --values none support-5 support-5+no-repeats --data.path clicks.tsv.gz

The experiment comes first. All words that are not listed below go to every fit. Without a log, sessions are generated,
and the Oracle, which knows their process, is the ceiling. Runs go to lightning_logs/sweep-<experiment>-<model>-<value>,
with the seed behind where the model draws random numbers; one that is finished already is tested as it is.

Experiments and their values:
  sessions        share of the training part that is kept, the most recent: 0.1 0.5 1
  train_ratio     share of the sessions before the test part: 0.5 0.8
  catalogue       items of the generated sessions: 500 1000; of an own log: least events of an item, 1 5
  alpha           alpha of Markov: 0 0.5 1
  filtering       rules, joined by +: none support-5 no-repeats support-5+no-repeats
  session_length  rules, joined by +: none min-3 max-10 (the first ten events) min-3+max-10
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arguments import ScriptParser
from sweep_experiments import EXPERIMENTS, OWN_CATALOGUE, Experiment
from sweep_fits import ORACLE, Fit, Model, Sweep, fits_of, model_of, parsed, run_fit
from sweep_tables import EVERY_VALUE, METRICS, Row, is_one_test, lines_of, markdown, read_run, rules, write_csv

from sessrec.errors import SessRecError
from sessrec.figures.style import save_figure
from sessrec.figures.sweeps import sweep_figure
from sessrec.writing import replacing

DEFAULT_MODELS = ("Popularity", "Markov", "GRU4Rec")
OWN_WORDS = ("--model", "--ckpt_path", "--trainer.logger.version")


def _parser() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS, help="what changes")
    parser.add_argument("--values", nargs="+", help="its values (default: some that fit generated sessions)")
    parser.add_argument(
        "--models",
        nargs="+",
        help="class names, configs, or NAME=CONFIG (default: Popularity Markov GRU4Rec, and Oracle)",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2], help="seeds of each random model (default: 1 2)"
    )
    parser.add_argument(
        "--n_sessions", type=int, help="sessions to generate where there is no log (default: 10000 or 20000)"
    )
    parser.add_argument("--n_items", type=int, help="items of their process (default: 1000; filtering: 3000)")
    parser.add_argument("--name", default="sweep", help="first part of the runs' names (default: sweep)")
    parser.add_argument(
        "--output", type=Path, help="folder of table and figure (default: lightning_logs/NAME-EXPERIMENT)"
    )
    parser.add_argument("--verbose", action="store_true", help="show what every fit prints")
    return parser


def _plan(options: argparse.Namespace, words: list[str]) -> Sweep:
    """Check what was asked for and fill in the defaults."""
    if taken := [word for word in words if word.partition("=")[0] in OWN_WORDS]:
        raise SessRecError(f"{taken[0]} is the sweep's own to give: name models with --models and runs with --name")
    named = options.models or DEFAULT_MODELS
    path = parsed([*model_of(named[0], is_generated=True).words, *words]).datamodule.preparation.path
    if path is not None and (options.n_sessions is not None or options.n_items is not None):
        raise SessRecError("--n_sessions and --n_items are of generated sessions, and --data.path names a log")
    experiment = EXPERIMENTS[options.experiment]
    if path is not None and options.experiment == "catalogue":
        experiment = OWN_CATALOGUE
    n_sessions = experiment.n_sessions if options.n_sessions is None else options.n_sessions
    n_items = experiment.n_items if options.n_items is None else options.n_items
    prefix = f"{options.name}-{options.experiment}"
    return Sweep(
        name=options.experiment,
        experiment=experiment,
        values=_distinct("value", [experiment.read(text) for text in options.values or experiment.values]),
        models=_models(options, experiment, path is None),
        seeds=_distinct("seed", options.seeds),
        words=words,
        source=f"{n_sessions:,} generated sessions" if path is None else _file_name(path),
        generated=(n_sessions, n_items) if path is None else None,
        run_prefix=prefix,
        output=_folder(options.output or Path("lightning_logs", prefix)),
    )


def _models(options: argparse.Namespace, experiment: Experiment, is_generated: bool) -> list[Model]:
    """The models that were asked for, or the default ones."""
    models = [model_of(text, is_generated) for text in options.models or DEFAULT_MODELS]
    if is_generated and not options.models:
        models.append(model_of(ORACLE, is_generated))
    _distinct("model", [model.name for model in models])
    if experiment.swept_class not in (None, *(model.class_name for model in models)):
        raise SessRecError(f"the {options.experiment} experiment needs {experiment.swept_class} among the models")
    return models


def _distinct(what: str, names: list[Any]) -> list[Any]:
    """The names, none of which may be there twice: they are parts of the runs' names."""
    if len(set(names)) < len(names):
        raise SessRecError(f"a {what} is given twice: {' '.join(map(str, names))}")
    return names


def _folder(output: Path) -> Path:
    """The folder for table and figure, refused where a file is in the way."""
    if any(folder.is_file() for folder in (output, *output.parents)):
        raise SessRecError(f"--output {output} is a file, or in one: name a folder")
    return output


def _file_name(path: str | list[str]) -> str:
    return Path(path if isinstance(path, str) else path[0]).name


def _run(fits: Sequence[Fit], is_verbose: bool) -> list[Row]:
    """Fit and test one after the other, with a line for each."""
    rows: list[Row] = []
    for number, fit in enumerate(fits, 1):
        start = time.perf_counter()
        print(f"[{number}/{len(fits)}] {fit.run_name}", end=" ", flush=True)
        result = read_run(run_fit(fit, is_verbose))
        shown = ", ".join(f"{title} {result[metric]:.4f}" for title, metric in METRICS.items())
        print(f"{shown}, {time.perf_counter() - start:.0f} s", flush=True)
        rows.append({"value": fit.value, "model": fit.model, "seed": fit.seed, "run": fit.run_name, **result})
    return rows


def _sentences(sweep: Sweep, rows: list[Row]) -> list[str]:
    """What must be known to read the table."""
    same = "All rows are measured on the same positions and against the same items."
    sentences = [rules(rows), same if is_one_test(rows) else sweep.experiment.note]
    if any(row["value"] == EVERY_VALUE for row in rows):
        sentences.append(f"A model that the value means nothing to is fitted once ({EVERY_VALUE}); its line is level.")
    if any(row["val_sessions"] for row in rows):
        sentences.append("Training sessions are without those of the validation part, which chose the checkpoint.")
    if len({row["seed"] for row in rows} - {None}) > 1:
        sentences.append("Where there are several fits: mean (least - greatest) over the seeds.")
    if _ceiling(sweep):
        sentences.append(
            "The Oracle knows the process behind the sessions: no model can do better but by chance, strictly only "
            "where no event was left out of the test sessions (repeats, rare items, items unknown to training)."
        )
    return sentences


def _ceiling(sweep: Sweep) -> str:
    """Name of the model that none can pass; empty where there is none."""
    names = [model.name for model in sweep.models if sweep.generated and model.class_name == ORACLE]
    return names[0] if names else ""


def _axis(sweep: Sweep, rows: list[Row]) -> tuple[str, list[float | str]]:
    """Label and values of the figure's axis."""
    if sweep.experiment.is_categorical:
        return sweep.experiment.label, [*sweep.values]
    if sweep.name != "sessions":
        return sweep.experiment.label, [float(value) for value in sweep.values]
    counts = {row["value"]: float(row["train_sessions"]) for row in rows}
    return "training sessions, the most recent", [counts[value] for value in sweep.values]


def _write(sweep: Sweep, rows: list[Row]) -> str:
    """Write table and figure; gives the table and its sentences."""
    sentences = [f"- {sentence}" for sentence in _sentences(sweep, rows)]
    text = "\n".join([markdown(rows, sweep.experiment.label), "", *sentences, ""])
    with replacing(sweep.output / f"{sweep.name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(rows, sweep.output / f"{sweep.name}.csv")
    title = f"Sweep of {sweep.name.replace('_', ' ')} on {sweep.source}"
    figure = sweep_figure(title, *_axis(sweep, rows), lines_of(rows, sweep.values), _ceiling(sweep))
    for kind in ("png", "svg"):
        save_figure(figure, sweep.output / f"{sweep.name}.{kind}")
    return text


def main(args: list[str] | None = None) -> None:
    """Run a sweep.

    Args:
        args: Words of the command line; those of the process where None.
    """
    parser = _parser()
    options, words = parser.parse_known_args(args)
    try:
        sweep = _plan(options, words)
        fits = fits_of(sweep)
    except SessRecError as error:
        parser.error(str(error))
    text = _write(sweep, _run(fits, options.verbose))
    kinds = ", ".join(f"{sweep.name}.{kind}" for kind in ("md", "csv", "png", "svg"))
    print(f"\n{text}\ntable and figure in {sweep.output}: {kinds}")


if __name__ == "__main__":
    main()
