"""The fits of all windows: which there are, and how they run, one after the other or in several processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from sessrec.callbacks.rank_writer import METRICS_FILE
from sessrec.errors import USER_ERROR, SessRecError
from sessrec.experiments.fit_and_test import USUAL_FOLDER, checkpoint_to_test, fit_and_test
from sessrec.rolling.models import NO_REPLAY, Model
from sessrec.rolling.windows import Window

Retrain = Literal["scratch", "warm", "never"]
RUNS = Path("lightning_logs")
_PAUSE = 0.2  # seconds between two looks at whether the parent is there


class Fit(NamedTuple):
    """A fit and its test in one window."""

    run: str
    """Name of the run."""
    words: list[str]
    """Words of fit."""
    after: str | None = None
    """Run whose weights it begins with."""


class Row(NamedTuple):
    """A model under one way of retraining, and the run that it uses in each window."""

    name: str
    model: Model
    way: Retrain
    runs: list[str]


def rows_of(models: Sequence[Model], ways: Sequence[Retrain], n_windows: int, name: str) -> list[Row]:
    """What is compared: each model under each way of retraining.

    Ways share the run of the first window. A model that cannot start warm is fitted anew in place of that.

    Args:
        models: The models.
        ways: The ways of retraining.
        n_windows: Number of windows.
        name: First part of the runs' names.

    Raises:
        SessRecError: If runs of two models would have one name.
    """
    rows: list[Row] = []
    for model in models:
        own = dict.fromkeys("scratch" if way == "warm" and not model.starts_warm else way for way in ways)
        for way in own:
            stem = f"{name}-{model.name}"
            later = {"scratch": stem, "warm": f"{stem}-warm"}.get(way)
            first = f"{stem}-01"
            runs = [first if later is None else f"{later}-{number:02d}" for number in range(2, n_windows + 1)]
            rows.append(Row(model.name if len(ways) == 1 else f"{model.name} {way}", model, way, [first, *runs]))
    for row, other in itertools.combinations(rows, 2):
        if (shared := set(row.runs) & set(other.runs)) and row.model.name != other.model.name:
            raise SessRecError(
                f"runs of {row.name} and {other.name} would have one name ({min(shared)}): rename a config"
            )
    return rows


def fits_of(
    rows: Sequence[Row],
    windows: Sequence[Window],
    data_words: Callable[[Window], list[str]],
    words: Sequence[str],
) -> list[Fit]:
    """The fits that the rows need, each once.

    A warm fit trains on the sessions that are new since the window before, and those that ``--data.replay`` adds.

    Args:
        rows: The rows.
        windows: The windows.
        data_words: Gives words of fit that read the parts of a window.
        words: More words of every fit.
    """
    fits: dict[str, Fit] = {}
    for row in rows:
        for window, run in zip(windows, row.runs, strict=True):
            if run in fits:
                continue
            own = [*row.model.words, *words, *data_words(window), *USUAL_FOLDER]
            if row.way == "warm" and window.number > 1:
                before = window.number - 2
                since = ["--data.train_start", f"{windows[before].cut:.17g}"]
                fits[run] = Fit(run, [*own, *since], row.runs[before])
            else:
                fits[run] = Fit(run, [*own, *NO_REPLAY])
    return list(fits.values())


def run_fits(fits: Sequence[Fit], output: Path, workers: int, tell: Callable[[Fit], None]) -> None:
    """Fit and test what is not there yet; a fit that was killed goes on.

    Args:
        fits: The fits.
        output: Folder for what each of them prints.
        workers: Number of processes.
        tell: Called with each fit that is done.

    Raises:
        SessRecError: If one of them fails.
    """
    if workers == 1:
        for fit in fits:  # each stands behind the one that it begins with
            _fit(fit, output)
            tell(fit)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads, os.getpid())) as pool:
        try:
            _run_side_by_side(pool, fits, output, tell)
        except BrokenProcessPool:
            raise SessRecError("a process of the fits was killed; the same command goes on") from None
        except BaseException:
            for process in list(pool._processes.values()):  # which would end their fits first
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_side_by_side(
    pool: ProcessPoolExecutor, fits: Sequence[Fit], output: Path, tell: Callable[[Fit], None]
) -> None:
    waiting = {fit.run: fit for fit in fits}
    running: dict[Future[None], Fit] = {}

    def start(ready: Iterable[Fit]) -> None:
        for fit in list(ready):
            running[pool.submit(_fit, waiting.pop(fit.run), output)] = fit

    start(fit for fit in fits if fit.after is None)
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            fit = running.pop(future)
            future.result()
            tell(fit)
            start(other for other in list(waiting.values()) if other.after == fit.run)


def _begin(threads: int, parent: int) -> None:
    """Share the processors with the other processes, and end with the one that has started them."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PAUSE)
        os._exit(1)  # killed as the parent was: what is on the disk is whole

    threading.Thread(target=watch, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)


def _fit(fit: Fit, output: Path) -> None:
    folder = RUNS / fit.run
    if (folder / METRICS_FILE).is_file():
        return
    words = fit.words if fit.after is None else [*fit.words, "--init_from", str(checkpoint_to_test(RUNS / fit.after))]
    output.mkdir(parents=True, exist_ok=True)
    printed = output / f"{fit.run}.txt"
    with printed.open("a", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}: sessrec fit {' '.join(words)}")
        try:
            fit_and_test([*words, "--trainer.enable_progress_bar", "false"], fit.run)
        except SystemExit as error:
            if error.code != USER_ERROR:  # a signal
                raise
            stream.flush()
            lines = [line for line in printed.read_text(encoding="utf-8").splitlines() if "error: " in line]
            message = lines[-1].partition("error: ")[2] if lines else f"failed; what it printed is in {printed}"
            raise SessRecError(f"{folder}: {message}") from None
