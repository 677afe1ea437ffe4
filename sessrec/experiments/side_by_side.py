"""Fits and tests that run one after the other, or side by side in processes of this machine or of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch

from sessrec.callbacks.rank_writer import METRICS_FILE
from sessrec.errors import USER_ERROR, SessRecError
from sessrec.experiments.fit_and_test import checkpoint_to_test, fit_and_test
from sessrec.ray_launcher import Launcher
from sessrec.ray_pool import ray_pool

RUNS = Path("lightning_logs")
_PAUSE = 0.2  # seconds between two looks at whether the parent is there


class Fit(NamedTuple):
    """A fit and its test."""

    run: str
    """Name of the run."""
    words: list[str]
    """Words of fit."""
    after: str | None = None
    """Run whose weights it begins with."""
    is_kept: bool = False
    """Whether a run that is tested stays as it is; else it is tested again, and refused where other words fitted it."""


def run_fits(
    fits: Sequence[Fit], output: Path, workers: int, tell: Callable[[Fit], None], launcher: Launcher | None = None
) -> None:
    """Fit and test what is not there yet; a fit that was killed goes on.

    Args:
        fits: The fits.
        output: Folder for what each of them prints.
        workers: Number of processes.
        tell: Called with each fit that is done.
        launcher: What starts the processes; None for this machine's own.

    Raises:
        SessRecError: If one of them fails.
    """
    if workers == 1 and launcher is None:
        for fit in fits:  # each stands behind the one that it begins with
            _fit(fit, output)
            tell(fit)
        return
    with _processes(workers) if launcher is None else ray_pool(workers) as pool:
        _run_side_by_side(pool, fits, output, tell)


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Processes of this machine, which end with this one."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads, os.getpid())) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise SessRecError("a process of the fits was killed; the same command goes on") from None
        except BaseException:
            for process in list(pool._processes.values()):  # which would end their fits first
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_side_by_side(pool: Executor, fits: Sequence[Fit], output: Path, tell: Callable[[Fit], None]) -> None:
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
    if fit.is_kept and (folder / METRICS_FILE).is_file():
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
