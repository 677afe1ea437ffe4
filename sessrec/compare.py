"""Compare tested models: one table with intervals, paired differences, and a picture.

Example::

    sessrec compare lightning_logs/my-gru4rec lightning_logs/my-stan --output comparison/
    sessrec compare --configs vsknn gru4rec --seeds 1 2 3 --data.path clicks.tsv.gz
    sessrec compare lightning_logs/tonight lightning_logs/yesterday --gate "mrr@20 >= -1%"

Runs stand first; each is a folder that `sessrec test` has left its metrics and ranks in. Runs that differ in
their seeds only are one model. Runs of other test data or other rules are refused.

With --configs, each config is fitted and tested first, with every seed, and joins the comparison. All words that are
not listed below go to every such fit, after its config, so that split, candidates and protocol are the same for all
models. Each is tested with the checkpoint that its fit chose: `best` where there is a validation part, `last` where
there is none. A model that draws no random numbers is fitted once. A run that is there already, of the same name, is
gone on with, or tested as it is where it is finished.

With --gate, the first run is to replace the second one, and the exit code tells whether it may: 0 if it is not worse
than the margin, 3 if it is, 4 if the test cannot tell, each with 95 % confidence. Their catalogues may differ; a target
that a model does not know is a miss of that model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sessrec.arguments import ScriptParser
from sessrec.errors import SessRecError, error_text
from sessrec.evaluation.comparison import Comparison, compare_runs
from sessrec.evaluation.comparison_tables import (
    comparison_csv,
    differences_table,
    metrics_table,
    protocol_text,
    slices_table,
)
from sessrec.evaluation.gate import EXIT_CODES, decide, read_rule
from sessrec.evaluation.rank_table import check_metrics
from sessrec.evaluation.slices import Slices
from sessrec.evaluation.tested_runs import read_run
from sessrec.experiments.fit_and_test import fit_and_test, model_of_config, model_words, words_of_seeds
from sessrec.experiments.side_by_side import RUNS, Fit, run_fits
from sessrec.figures.results import comparison_figure, cutoff_curves, slices_figure
from sessrec.figures.style import save_figures
from sessrec.shipped_configs import find_config
from sessrec.writing import write_text

_NOT_HERE = {
    "--trainer.logger": "the runs lie in lightning_logs, --name begins their names",
    "--ckpt_path": "each fit begins anew, or goes on with its own run",
    "--seed_everything": "--seeds are those of the fits",
}


def fit_configs(options: argparse.Namespace, words: Sequence[str]) -> list[Path]:
    """Fit and test every config with every seed, each fit with more words; gives the folders of the runs."""
    chosen = {config: model_words(str(config)) for config in options.configs}  # a missing one is found before any fit
    fits = [
        Fit(run, of_seed)
        for config, own in chosen.items()
        for of_seed, run in words_of_seeds(str(config), [*own, *words], options.seeds, f"{options.name}-{config.stem}")
    ]
    if options.workers == 1 and options.launcher is None:
        return [fit_and_test(fit.words, fit.run) for fit in fits]
    output = RUNS / f"{options.name}-output"
    run_fits(fits, output, options.workers, lambda fit: print(f"{fit.run} is tested", flush=True), options.launcher)
    return [RUNS / fit.run for fit in fits]


def slices_of(comparison: Comparison) -> Slices:
    """How the positions were told apart in the tests."""
    return Slices(**comparison.models[0].runs[0].report.get("slice_options", {}))


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """Pictures of a comparison; its last metric is that of the slices."""
    models = {model.name: model.runs for model in comparison.models}
    return {
        "comparison": comparison_figure(comparison),
        "recall_curves": cutoff_curves(models, "recall"),
        "mrr_curves": cutoff_curves(models, "mrr"),
        "slices": slices_figure(models, list(comparison.models[0].metrics)[-1], slices_of(comparison)),
    }


def write_comparison(comparison: Comparison, output: Path) -> list[str]:
    """Write a comparison into a folder, as Markdown, CSV and pictures; gives the names of the files."""
    models = {model.name: model.runs for model in comparison.models}
    metric = list(comparison.models[0].metrics)[-1]
    tables = [metrics_table(comparison), slices_table(models, metric, slices_of(comparison))]
    if len(models) > 1:
        tables.insert(1, differences_table(comparison))
    texts = {
        "comparison.md": "\n\n".join([*(table.markdown() for table in tables), protocol_text(comparison)]) + "\n",
        "comparison.csv": comparison_csv(comparison),
    }
    for name, text in texts.items():
        write_text(output / name, text)
    return [*texts, *save_figures(comparison_figures(comparison), output)]


def _parser() -> ScriptParser:
    usage = "%(prog)s [RUN ...] [--configs CONFIG ... [--GROUP.OPTION VALUE ...]] [options]"
    parser = ScriptParser(__doc__, command="compare", usage=usage)
    parser.add_argument(
        "--configs", nargs="+", default=[], help="configs of models to fit and test first, by file or name"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="seeds of each random model (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes that fit side by side (default: 1)")
    text = "what starts them: ray, on its cluster (default: this machine)"
    parser.add_argument("--launcher", choices=["ray"], help=text)
    parser.add_argument("--name", default="compare", help="first part of the new runs' names (default: compare)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["recall@20", "mrr@20"],
        help="recall@K, mrr@K or ndcg@K, whatever K; the last gives the order (default: recall@20 mrr@20)",
    )
    parser.add_argument("--against", help="model that the others are compared to (default: the best)")
    parser.add_argument("--resamples", type=int, default=1000, help="resamples of the sessions (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (default: 0)")
    parser.add_argument("--output", type=Path, help="folder for comparison.md, comparison.csv and the pictures")
    text = "by how much the first run may be below the second one, such as 'mrr@20 >= -1%%' or 'mrr@20 >= -0.002'"
    parser.add_argument("--gate", metavar="RULE", help=text)
    parser.add_argument("--json", action="store_true", help="with --gate: print the decision as JSON")
    return parser


def gate(folders: Sequence[Path], options: argparse.Namespace) -> int:
    """Print whether the first of two runs may replace the other one; gives the exit code.

    Raises:
        SessRecError: If these are not two tested runs of one test part.
    """
    if len(folders) != 2 or options.configs:
        raise SessRecError("--gate takes two runs: the new one, then the old one")
    if options.output is not None:
        raise SessRecError("--gate writes no tables: leave out --output")
    new, old = (read_run(folder) for folder in folders)
    verdict = decide(new, old, read_rule(options.gate), options.resamples, options.seed)
    print(json.dumps(verdict.as_dict()) if options.json else verdict.reason)
    return EXIT_CODES[verdict.decision]


def main(args: list[str] | None = None) -> None:
    """Run the comparison."""
    parser = _parser()
    folders, options, words = _parsed(parser, sys.argv[1:] if args is None else list(args))
    try:
        if options.gate is not None:
            raise SystemExit(gate(folders, options))
        if options.json:
            raise SessRecError("--json goes with --gate")
        check_metrics(options.metrics)
        runs = [read_run(folder) for folder in folders]
        runs += [read_run(folder) for folder in fit_configs(options, words)]
        prefix = "" if folders else f"{options.name}-"
        rules = (options.metrics, options.against, options.resamples, options.seed)
        comparison = compare_runs(runs, *rules, prefix=prefix)
        files = [] if options.output is None else write_comparison(comparison, options.output)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    print(f"\n{metrics_table(comparison).markdown()}\n")
    if len(comparison.models) > 1:
        print(f"{differences_table(comparison).markdown()}\n")
    print(protocol_text(comparison))
    if files:
        print(f"\nwritten to {options.output}: {', '.join(files)}")


def _check_fits(parser: ScriptParser, folders: list[Path], options: argparse.Namespace, words: list[str]) -> None:
    """Say what would only be found out after the fits."""
    if len({config.stem for config in options.configs}) < len(options.configs):
        parser.error("two of the --configs have one name: their runs would, too")
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds has one seed twice")
    if Path(options.name).name != options.name or not options.name:
        parser.error(f"--name {options.name!r} is no name that a folder can begin with")
    parser.refuse_misspelt(words)
    for option, instead in _NOT_HERE.items():
        if any(word.partition("=")[0] == option or word.startswith(f"{option}.") for word in words):
            parser.error(f"{option} is not for here: {instead}")
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in itertools.pairwise(parts):
        if option == "--model" or (option == "--config" and model_of_config(find_config(value))):
            parser.error(f"{option} {value} chooses a model for every fit: name it among --configs")
    if options.against is not None and not folders and options.against not in {c.stem for c in options.configs}:
        parser.error(f"there is no config {options.against} (--against)")


def _parsed(parser: ScriptParser, args: list[str]) -> tuple[list[Path], argparse.Namespace, list[str]]:
    """Runs, own options, and words for the fits; what is wrong with them is said before any fit."""
    folders = [Path(word) for word in itertools.takewhile(lambda word: not word.startswith("-"), args)]
    options, words = parser.parse_known_args(args[len(folders) :])
    if words and not options.configs:
        if not words[0].startswith("-"):
            parser.error(f"{words[0]!r} belongs to no option: runs stand before all options")
        parser.refuse_unknown(words)
    if not folders and not options.configs:
        parser.error("name runs to compare, or --configs to fit and test first")
    try:
        options.configs = [find_config(name, "--configs") for name in options.configs]
    except SessRecError as error:
        parser.error(str(error))
    if options.output is not None:
        parser.check_output(options.output)
    if options.seed < 0:
        parser.error(f"--seed must be at least 0, got {options.seed}")
    if options.resamples < 100:
        parser.error(f"--resamples {options.resamples} is too few for an interval: give 100 or more")
    try:
        _check_fits(parser, folders, options, words)
    except SessRecError as error:
        parser.error(str(error))
    return folders, options, words


if __name__ == "__main__":
    main()
