"""Choose the options of a model on the validation part of a click log.

Example::

    sessrec tune --config gru4rec --data.path clicks.tsv.gz --study shop --trials 30 --minutes 60 --workers 2
    sessrec tune --config gru4rec --data.path clicks.tsv.gz --study shop --trials 30 --minutes 60 --final --seeds 1 2 3

All words that are not listed below go to every fit. A trial fits the model with options from the search space, by
Optuna's TPE, and takes the best validation as its value; the first trial has the default options. The test part is
sealed: it is cut off the log before the first trial. Trials end by early stopping, and early where they fall behind
the median of the others; models that learn in one pass are not stopped.

The study lies in lightning_logs/STUDY: study.log (all trials), trials.csv, best.yaml for --config, the figures, and
trials/ for TensorBoard's page of hyper-parameters. The same command goes on with a study that was stopped or killed,
and joins one that runs. --final then fits the best and the default options to training and validation part together,
with each seed, and tests them: once, for a second test would choose on the test part.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sessrec.arguments import ScriptParser
from sessrec.cli import InterruptError, SessRecCLI, interrupt_at_once
from sessrec.errors import SessRecError, check_least, error_text
from sessrec.evaluation.comparison import Comparison
from sessrec.evaluation.comparison_tables import differences_table, metrics_table, protocol_text
from sessrec.evaluation.tested_runs import RESULT_NEUTRAL_OPTIONS
from sessrec.experiments.fit_and_test import is_random, parsed
from sessrec.shipped_configs import SPACES, find_space
from sessrec.suggestions import did_you_mean

try:
    from sessrec.tuning.final import check_first_test, final_test
    from sessrec.tuning.results import best_table, counts_text, notes_of, write_study
    from sessrec.tuning.sealed_log import refit_words, sealed_log_words
    from sessrec.tuning.space import SearchSpace, read_space, text_of, words_of
    from sessrec.tuning.study import Study
    from sessrec.tuning.trial import TrialRules
    from sessrec.tuning.worker import Budget, other_workers, work, work_on_ray
except ModuleNotFoundError as error:
    if error.name not in ("optuna", "filelock"):
        raise
    _MISSING = error.name
else:
    _MISSING = ""

_NOT_HERE = {
    "--trainer.max_epochs": "--max_epochs and --patience end a trial",
    "--trainer.max_steps": "--max_epochs and --patience end a trial",
    "--trainer.logger": "--study names the folder",
    "--ckpt_path": "every trial begins anew",
    "--seed_everything": "--seeds are those of the final fits",
}


def main(args: list[str] | None = None) -> None:
    """Run a study."""
    args = sys.argv[1:] if args is None else list(args)
    parser = _parser()
    options, words = parser.parse_known_args(args)
    if _MISSING:
        parser.error(f"tune needs {_MISSING}, which is not installed: pip install sessrec[tune]")
    parser.refuse_misspelt(words)
    try:
        _check(options, words)
        with interrupt_at_once():
            _tune(options, words, args)
    except InterruptError:
        print("sessrec.tune: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))


def _tune(options: argparse.Namespace, words: list[str], args: Sequence[str]) -> None:
    cli = parsed(words)
    space = read_space(_space_of(options.space, cli))
    for end in space.ends():
        parsed([*words, *words_of(end)])
    folder = Path("lightning_logs", options.study)
    whole = cli.datamodule.preparation
    own = ["--data.cache_dir", str(folder / "prepared")]
    own += sealed_log_words(whole, folder / "log.parquet", options.train_share, is_written=bool(options.parent))
    study = _open(options, parsed([*words, *own]), space, folder)
    if options.final:
        check_first_test(study, options.again)
    shows_progress = options.workers == 1 and not options.parent and sys.stdout.isatty()
    rules = TrialRules([*words, *own], options.monitor, options.patience, options.max_epochs, shows_progress)
    task = (study, rules, Budget(options.trials, options.minutes, options.workers))
    if options.parent:
        work(*task, parent=options.parent)
        return
    if options.launcher == "ray":
        work_on_ray(options.workers, args)
    else:
        with other_workers(options.workers - 1, args):
            work(*task)
    files = write_study(study, words, options.monitor)
    print(f"\n{best_table(study).markdown()}\n\n{counts_text(study)}")
    for note in notes_of(study):
        print(f"note: {note}")
    print(f"written to {study.folder}: {', '.join(files)}")
    if options.final:
        seeds = options.seeds if is_random(cli.config.model.class_path) else options.seeds[:1]
        _print(final_test(study, words, refit_words(whole), seeds))


def _space_of(name: str | None, cli: SessRecCLI) -> Path:
    """The search space that the user names, else the one that comes with the model."""
    own = type(cli.model).__module__.rpartition(".")[2]
    if name is None and not (SPACES / f"{own}.yaml").is_file():
        raise SessRecError(f"{type(cli.model).__name__} comes without a search space: give --space")
    return find_space(name or own)


def _open(options: argparse.Namespace, cli: SessRecCLI, space: SearchSpace, folder: Path) -> Study:
    """The study, whose trials share the sealed log that is prepared here."""
    metrics = [str(name) for name in cli.model.val_metrics]
    if options.monitor not in metrics:
        hint = did_you_mean(options.monitor, metrics)
        raise SessRecError(f"--monitor {options.monitor} is none of the metrics {', '.join(metrics)}{hint}")
    cli.datamodule.setup("fit")
    groups = {"model": cli.model.hparams, "data": cli.datamodule.hparams}
    defaults = {
        f"{group}.{name}": text_of(value)
        for group, own in groups.items()
        for name, value in own.items()
        if name[0] != "_" and name not in RESULT_NEUTRAL_OPTIONS
    }
    kept = ("monitor", "seed", "patience", "max_epochs", "pruning")
    settings = {
        "model": cli.config.model.class_path,
        **defaults,
        **{f"space {name}": text for name, text in space.as_dict().items()},
    }
    settings |= {f"--{name}": getattr(options, name) for name in kept}
    settings["log"] = [cli.datamodule.sessions[part].digest for part in ("train", "val")]
    return Study(folder, options.storage, settings, space, defaults, options.seed, options.pruning)


def _print(comparison: Comparison) -> None:
    """Print what the one test has found."""
    print(f"\n{metrics_table(comparison).markdown()}\n")
    if len(comparison.models) > 1:
        print(f"{differences_table(comparison).markdown()}\n")
    print(protocol_text(comparison))


def _parser() -> ScriptParser:
    usage = "%(prog)s --config CONFIG --study NAME [--GROUP.OPTION VALUE ...] [options]"
    parser = ScriptParser(__doc__, command="tune", usage=usage)
    add: Any = parser.add_argument
    add("--study", default="study", help="name of the study, and of its folder (default: study)")
    add("--space", help="search space: a YAML file, or a shipped one by name (default: that of the model)")
    add("--trials", type=int, default=30, help="number of trials (default: 30)")
    add("--minutes", type=float, default=60.0, help="minutes after which no trial goes on (default: 60)")
    add("--workers", type=int, default=1, help="processes that run trials side by side (default: 1)")
    add("--launcher", choices=["ray"], help="what starts them: ray, on its cluster (default: this machine)")
    add("--monitor", default="val/mrr@20", help="validation metric to maximise (default: val/mrr@20)")
    add("--max_epochs", type=int, default=50, help="most epochs of a trial (default: 50)")
    add("--patience", type=int, default=2, help="validations without a better one that end a trial (default: 2)")
    text = "run every trial to its end, also one that falls behind the median of the others"
    add("--no_pruning", dest="pruning", action="store_false", help=text)
    text = "newest share of the sessions before the test part that trials see; final fits see all (default: 1)"
    add("--train_share", type=float, default=1.0, help=text)
    add("--seed", type=int, default=42, help="seed of the search (default: 42)")
    text = "URL of a database that Optuna knows (default: a journal file in the study's folder)"
    add("--storage", help=text)
    add("--final", action="store_true", help="fit the best and the default options anew, and test them once")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of the final fits (default: 1 2 3)")
    add("--again", action="store_true", help="test a study that was tested before")
    add("--parent", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _check(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Say what is wrong with the options before any work."""
    if Path(options.study).name != options.study or options.study in ("", ".", ".."):
        raise SessRecError(f"--study {options.study!r} is no name of a folder in lightning_logs")
    if Path("lightning_logs", options.study, "checkpoints").exists():
        raise SessRecError(f"--study {options.study} is the folder of a run: give another one")
    for name, least in {"trials": 1, "workers": 1, "max_epochs": 1, "patience": 1, "seed": 0}.items():
        check_least(f"--{name}", getattr(options, name), least)
    _check_above_zero("--train_share", options.train_share, 1)
    _check_above_zero("--minutes", options.minutes)
    if len(set(options.seeds)) < len(options.seeds):
        raise SessRecError("--seeds has one seed twice")
    if options.again and not options.final:
        raise SessRecError("--again goes with --final")
    for word in words:
        for option, instead in _NOT_HERE.items():
            if word.startswith(option):
                raise SessRecError(f"{option} is not for here: {instead}")


def _check_above_zero(option: str, value: float, most: int | None = None) -> None:
    if not 0 < value <= (math.inf if most is None else most):
        rest = "" if most is None else f" and at most {most}"
        raise SessRecError(f"{option} must be above 0{rest}, got {value}")


if __name__ == "__main__":
    main()
