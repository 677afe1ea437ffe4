"""Fit and test several models on one click log and print one table, the best first.

Example::

    python scripts/compare.py --configs configs/vsknn.yaml configs/gru4rec.yaml --seeds 1 2 3 --data.path clicks.tsv.gz

All words that are not listed below go to every fit, after its config, so that split, candidates and protocol are the
same for all models. Each is tested with the checkpoint that its fit chose: `best` where there is a validation part,
`last` where there is none. A model that draws no random numbers is fitted once. A run that is there already, of the
same name, is gone on with, or tested as it is where it is finished.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import sessrec.models
from sessrec import fit, test
from sessrec.models.neural import NeuralRecommender
from sessrec.report import write_json
from sessrec.writing import replacing

METRICS = ("recall@20", "mrr@20")


class Outcome(NamedTuple):
    """What one fit gave."""

    model: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    fit_seconds: float
    test_seconds: float


def fit_and_test(config: Path, seed: int, run_name: str, words: Sequence[str]) -> Outcome:
    """Fit and test one config with one seed, through the commands.

    Args:
        config: The config.
        seed: Seed of the fit.
        run_name: Name of the run.
        words: More words of the fit.
    """
    run = Path("lightning_logs", run_name)
    times = run / "fit_seconds.json"
    is_new = not (run / "checkpoints").exists()
    start = time.perf_counter()
    own = ["--seed_everything", str(seed), "--trainer.logger.version", run_name, "--ckpt_path", "auto"]
    fit.main(["--config", str(config), *words, *own])
    fitted = time.perf_counter()
    if is_new:  # one that is gone on with took longer than can be seen here
        write_json(times, fitted - start)
    best = "best" if (run / "checkpoints" / "best.ckpt").exists() else "last"
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", best])
    tested = time.perf_counter()
    report = json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))
    protocol = {name: report[name] for name in ("tie_mode", "items_ranked", "exclude_last", "exclude_seen")}
    protocol["positions"] = report["data"]["positions"]
    seconds = json.loads(times.read_text(encoding="utf-8")) if times.exists() else math.nan
    return Outcome(config.stem, report["metrics"], protocol, seconds, tested - fitted)


def has_seeds(config: Path) -> bool:
    """Whether the model of a config draws random numbers in its fit; one of somebody else's may."""
    name = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["class_path"]
    return issubclass(getattr(sessrec.models, name, NeuralRecommender), NeuralRecommender)


def table(outcomes: Iterable[Outcome]) -> str:
    """One row a model in Markdown: mean and, with several seeds, (least - greatest); the greatest MRR@20 first."""
    by_model: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_model.setdefault(outcome.model, []).append(outcome)
    rows = []
    for model, fits in by_model.items():
        cells = [_spread([fit.metrics[f"test/{metric}"] for fit in fits]) for metric in METRICS]
        seconds = [_seconds([getattr(fit, name) for fit in fits]) for name in ("fit_seconds", "test_seconds")]
        order = statistics.mean(fit.metrics["test/mrr@20"] for fit in fits)
        rows.append((order, f"| {' | '.join([model, str(len(fits)), *cells, *seconds])} |"))
    head = ["| model | fits | Recall@20 | MRR@20 | fit | test |", "|---|---|---|---|---|---|"]
    return "\n".join(head + [row for _, row in sorted(rows, reverse=True)])


def _seconds(values: list[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{statistics.median(known):.3g} s" if known else "-"


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} - {max(values):.4f})"


def main(args: list[str] | None = None) -> None:
    """Run the comparison.

    Args:
        args: Words of the command line; those of the process where None.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, required=True, help="configs of the models")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="seeds of each random model (default: 1)")
    parser.add_argument("--name", default="compare", help="first part of the runs' names (default: compare)")
    parser.add_argument("--output", type=Path, help="file for the table, in Markdown")
    options, words = parser.parse_known_args(args)
    for config in options.configs:
        if not config.is_file():
            parser.error(f"there is no config {config}")
    outcomes = []
    for config in options.configs:
        for seed in options.seeds if has_seeds(config) else options.seeds[:1]:
            outcomes.append(fit_and_test(config, seed, f"{options.name}-{config.stem}-{seed}", words))
    if any(outcome.protocol != outcomes[0].protocol for outcome in outcomes):
        parser.error(f"the runs {options.name}-* were tested under different rules: give another --name")
    rules = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in outcomes[0].protocol.items())
    text = f"{table(outcomes)}\n\nAll items ranked at every position of the test part: {rules}.\n"
    print(f"\n{text}")
    if options.output is not None:
        with replacing(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
