"""Fit and test models at many times of a click log: how they do over time, and how fast they age.

Example::

    sessrec roll --models markov stan gru4rec --data.path clicks.tsv.gz --train_window 30d --step 1d --horizon 7d
    sessrec roll --models gru4rec --retrain scratch warm never --data.path clicks.tsv.gz --train_window 14d --windows 10

The log is cut again and again, a step apart. At each cut every model is fitted to the sessions before it, of the
training window, and tested on the sessions that begin in the horizon after it. In the first step after its cut a model
is fresh; the steps after that tell what it loses with its age. A target that a model does not know is a miss, so that
models of different ages are measured at the same positions; `as ranked` leaves these out, as sessrec test does.

--retrain says how a model comes to a window: fitted anew to the whole training window (scratch), fitted further to what
is new since the window before (warm; --data.replay adds old sessions; models that count are fitted anew), or not at all
after the first window (never). Several ways are compared with each other.

Options that are not listed below go to every fit. All of the training part is trained on, unless --data.val_ratio is
given: a validation part is the newest of it, so that no model is fresh. Runs go to lightning_logs/NAME-MODEL-WINDOW,
tables and figures to lightning_logs/NAME. The same command goes on with a roll that was stopped or killed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from sessrec.arguments import ScriptParser
from sessrec.cli import InterruptError, interrupt_at_once
from sessrec.click_log.times import parse_duration
from sessrec.errors import SessRecError, check_least, error_text
from sessrec.evaluation.rank_table import check_metrics, metric_name
from sessrec.evaluation.tested_runs import read_run
from sessrec.experiments.fit_and_test import parsed
from sessrec.experiments.side_by_side import RUNS, Fit, run_fits
from sessrec.rolling.cells import Steps, cells_of_rows
from sessrec.rolling.fits import Retrain, fits_of, rows_of
from sessrec.rolling.models import chosen_models, common_preparation
from sessrec.rolling.report import write_rolled
from sessrec.rolling.results import Rolled
from sessrec.rolling.state import check_state, only_one
from sessrec.rolling.windows import (
    Plan,
    Window,
    check_windows,
    cut_window,
    read_whole,
    window_words,
    write_window,
)
from sessrec.text import counted

_OF_PRESET = ("train_window", "step", "horizon", "offset", "windows")
PRESETS = {
    "session-rec-rsc15": dict(zip(_OF_PRESET, ("30d", "31d", "1d", "5d", 5), strict=True)),
    "session-rec-retailrocket": dict(zip(_OF_PRESET, ("25d", "27d", "2d", "0d", 5), strict=True)),
    "session-rec-diginetica": dict(zip(_OF_PRESET, ("25d", "18d", "7d", "45d", 5), strict=True)),
}
"""Windows as the configs of session-rec have them."""
_USUAL = {"step": "1d", "windows": 8}
_ALL_TO_TRAIN = ["--data.val_ratio", "0", "--data.val_duration", "null"]  # so that training ends at the cut
_NOT_HERE = {
    "--trainer.logger": "the runs lie in lightning_logs, --name begins their names",
    "--trainer.logger.": "the runs lie in lightning_logs, --name begins their names",
    "--trainer.default_root_dir": "the runs lie in lightning_logs, --name begins their names",
    "--model": "--models names configs",
    "--ckpt_path": "the same command goes on with its runs",
    "--init_from": "--retrain warm begins with the window before",
    "--data.test_": "--horizon gives the test part",
    "--data.train_": "--train_window gives the training part",
    "--data.val_path": "--data.val_ratio cuts a validation part off",
}


def main(args: list[str] | None = None) -> None:
    """Roll through the log."""
    parser = _parser()
    options, words = parser.parse_known_args(sys.argv[1:] if args is None else list(args))
    parser.refuse_misspelt(words)
    try:
        with interrupt_at_once():
            roll(options, words)
    except InterruptError:
        print("sessrec.roll: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))


def roll(options: argparse.Namespace, words: list[str]) -> Rolled:
    """Do the work of the command.

    Raises:
        SessRecError: If an option is bad, the log is too short, or a fit fails.
    """
    models, words = chosen_models(options.models, words)
    plan, words = _checked(options, words)
    whole = common_preparation(models, words)
    events = read_whole(whole)
    windows = plan.windows(float(events.starts[0]), float(events.time.max()))
    if "never" in options.retrain:
        windows[0] = windows[0]._replace(end=windows[-1].end)
    steps, min_length = Steps(windows[0].cut, plan.step, min(plan.step, plan.horizon)), whole.min_session_length
    folder = RUNS / options.name
    logs = folder / "logs"
    rows = rows_of(models, options.retrain, len(windows), options.name)
    fits = fits_of(rows, windows, lambda window: window_words(window, logs), words)
    for fit in {fit.words[1]: fit for fit in fits}.values():
        parsed(fit.words)  # what is wrong with an option is said before any fit
    check_windows(events, windows, steps.tested, min_length, any(row.way == "warm" for row in rows))
    configs = {model.name: Path(model.words[1]).read_text(encoding="utf-8") for model in models}
    with only_one(folder):
        check_state(folder, options, configs, words, [fit.run for fit in fits], events)
        figures = [write_window(events, window, logs, min_length) for window in windows]
        _report_plan(windows, figures, len(fits))
        done: list[str] = []
        tell = partial(_tell, done=done, n_fits=len(fits), metric=options.metrics[-1])
        run_fits(fits, folder / "output", options.workers, tell, options.launcher)
    tests = [cut_window(events, window, min_length)[1] for window in windows]
    cells, seconds = cells_of_rows(rows, tests, steps, options.metrics)
    rolled = Rolled(cells, seconds, pd.DataFrame(figures), options.metrics, str(options.step), plan.n_steps)
    files = write_rolled(rolled, folder)
    print(f"\nwritten to {folder}: {', '.join(files)}")
    return rolled


def _checked(options: argparse.Namespace, words: list[str]) -> tuple[Plan, list[str]]:
    """Say what is wrong with the options before any work; gives the plan of the windows, and the words of every fit."""
    if Path(options.name).name != options.name or options.name in ("", ".", ".."):
        raise SessRecError(f"--name {options.name!r} is no name of a folder in lightning_logs")
    if (RUNS / options.name / "checkpoints").exists():
        raise SessRecError(f"--name {options.name} is the folder of a run: give another one")
    preset = {} if options.preset is None else PRESETS[options.preset]
    for name, usual in {**_USUAL, **preset}.items():
        if getattr(options, name) is None:
            setattr(options, name, usual)
    options.horizon = options.horizon or options.step
    check_least("--windows", options.windows, 1)
    check_least("--workers", options.workers, 1)
    check_metrics(options.metrics)
    if len(set(options.retrain)) < len(options.retrain):
        raise SessRecError("--retrain names one way twice")
    for word in words:
        for option, instead in _NOT_HERE.items():
            if word.startswith(option) if option[-1] in "_." else word.partition("=")[0] == option:
                raise SessRecError(f"{word.partition('=')[0]} is not for here: {instead}")
    if any(word.startswith("--data.replay") for word in words) and "warm" not in options.retrain:
        raise SessRecError("--data.replay goes with --retrain warm")
    seconds = {
        name: None if getattr(options, name) is None else parse_duration(getattr(options, name), f"--{name}")
        for name in ("train_window", "step", "horizon", "offset")
    }
    support = ["--data.min_item_support", "5"] if preset else []
    return Plan(options.windows, **seconds), [*_ALL_TO_TRAIN, *support, *words]  # type: ignore[arg-type]


def _report_plan(windows: Sequence[Window], figures: Sequence[dict[str, Any]], n_fits: int) -> None:
    train, test = ([figure[f"{part}_sessions"] for figure in figures] for part in ("train", "test"))
    leaks = sum(figure["train_events_at_or_after_t"] + figure["shared_sessions"] for figure in figures)
    print(
        f"{counted(len(windows), 'window')}, {counted(n_fits, 'fit')}: {min(train):,} to {max(train):,} training "
        f"sessions, {min(test):,} to {max(test):,} test sessions, {leaks} leaks",
        flush=True,
    )


def _tell(fit: Fit, done: list[str], n_fits: int, metric: str) -> None:
    """Print what a fit has found as soon as it is tested."""
    done.append(fit.run)
    run = read_run(RUNS / fit.run)
    value = run.report["metrics"].get(f"test/{metric}")
    found = "tested" if value is None else f"{metric_name(metric)} {value:.4f} as ranked in its horizon"
    print(f"{len(done)} of {n_fits}: {fit.run}: {found}, fit {run.fit_seconds or 0:.3g} s", flush=True)


def _parser() -> ScriptParser:
    usage = "%(prog)s --models CONFIG ... [--GROUP.OPTION VALUE ...] [options]"
    parser = ScriptParser(__doc__, command="roll", usage=usage)
    add: Any = parser.add_argument
    add("--models", nargs="+", default=[], help="configs of the models, by file or name")
    add("--train_window", help="length of the training part, such as 30d (default: all that lies before the cut)")
    add("--step", help="time from one cut to the next (default: 1d)")
    add("--horizon", help="time after its cut in which a model is tested, a whole number of steps (default: a step)")
    add("--windows", type=int, help="number of windows (default: 8)")
    add("--offset", help="time from the log's begin to the first window (default: the windows end with the log)")
    text = "windows of published tables, with an item support of 5; options that are given take precedence"
    add("--preset", choices=list(PRESETS), help=text)
    text = "scratch, warm or never, or several (default: scratch)"
    add("--retrain", nargs="+", choices=get_args(Retrain), default=["scratch"], help=text)
    text = "recall@K, mrr@K or ndcg@K, whatever K; the last gives the order (default: recall@20 mrr@20)"
    add("--metrics", nargs="+", default=["recall@20", "mrr@20"], help=text)
    add("--workers", type=int, default=1, help="processes that fit side by side (default: 1)")
    add("--launcher", choices=["ray"], help="what starts them: ray, on its cluster (default: this machine)")
    add("--name", default="roll", help="folder of the results, and first part of the runs' names (default: roll)")
    return parser


if __name__ == "__main__":
    main()
