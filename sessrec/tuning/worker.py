"""Workers of a study: each runs trials until the study has all that it is asked for."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from sessrec.errors import SessRecError
from sessrec.ray_pool import ray_pool
from sessrec.text import seconds_text
from sessrec.tuning.study import Study, signs_of_life
from sessrec.tuning.trial import Outcome, TrialRules, run_trial

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PAUSE = 0.2  # seconds between two looks at what the other workers do


@dataclass(frozen=True)
class Budget:
    """When a study has enough trials.

    Args:
        trials: Number of trials.
        minutes: Time in which trials run, in each of the workers.
        workers: Number of workers.
    """

    trials: int
    minutes: float
    workers: int

    @property
    def seconds(self) -> float:
        """Work of all trials together, in seconds."""
        return 60 * self.minutes * self.workers

    def left(self, study: Study) -> float:
        """Seconds that a trial which begins now may take."""
        return max(0.0, self.seconds - study.seconds) / self.workers


def work(study: Study, rules: TrialRules, budget: Budget, parent: int = 0) -> None:
    """Run trials, one after the other, until the study has all that it is asked for.

    Args:
        study: The study.
        rules: How each trial is fitted.
        budget: When the study has enough trials.
        parent: Process without which the worker ends, too; 0 for none.

    Raises:
        SessRecError: If the default options cannot be fitted.
    """
    while not parent or os.getppid() == parent:
        asked = study.ask(budget.trials, budget.seconds)
        if asked is None:
            if study.is_exhausted or not study.is_waiting_for_others:
                return
            time.sleep(_PAUSE)
            continue
        trial, options = asked
        start = time.monotonic()
        with signs_of_life(trial):
            outcome = run_trial(trial, options, rules, budget.left(study))
        if not study.tell(trial, outcome.state, outcome.value, epochs=outcome.epochs, reason=outcome.reason):
            print(f"trial {trial.number} was taken for one of a killed worker, and is repeated", flush=True)
            continue
        if not options and outcome.value is None:
            raise SessRecError(f"the default options cannot be fitted: {outcome.reason}")
        print(_line(trial, options, outcome, study, budget, time.monotonic() - start), flush=True)
        _log(study.folder, trial, options, outcome, rules.monitor)


def _line(
    trial: optuna.Trial, options: Mapping[str, str], outcome: Outcome, study: Study, budget: Budget, seconds: float
) -> str:
    """What is printed of a trial."""
    n_done, best = len(study.done), study.best
    found = "no value" if outcome.value is None else f"{outcome.value:.4f}"
    after = f", epoch {outcome.epochs}" if outcome.value is not None else ""
    head = f"trial {trial.number} ({n_done} of {budget.trials} done): {found}{after}, {seconds_text(seconds)}"
    of_best = "" if best is None else f"; best {best.value:.4f}, trial {best.number}"
    reason = f"; {outcome.reason}" if outcome.reason else ""
    chosen = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in options.items()) or "default options"
    return f"{head}{reason}{of_best}\n  {chosen}"


def _log(folder: Path, trial: optuna.Trial, options: Mapping[str, str], outcome: Outcome, monitor: str) -> None:
    """Log a trial for TensorBoard's page of hyper-parameters."""
    logger = TensorBoardLogger(folder, "trials", f"{trial.number:04d}", default_hp_metric=False)
    frozen = next(one for one in trial.study.get_trials(deepcopy=False) if one.number == trial.number)
    for epoch, value in sorted(frozen.intermediate_values.items()):
        logger.log_metrics({monitor: value}, step=epoch)
    value = math.nan if outcome.value is None else outcome.value
    logger.log_hyperparams(dict(options), {f"best/{monitor}": value, "best/epochs": float(outcome.epochs)})
    logger.finalize("success")


def work_on_ray(number: int, args: Sequence[str]) -> None:
    """Have processes on a Ray cluster work on a study, until it has all that it is asked for.

    Args:
        number: Number of processes.
        args: Arguments of the command.

    Raises:
        SessRecError: If one of them fails.
    """
    with ray_pool(number) as pool:
        for worker in [pool.submit(_joined, list(args)) for _ in range(number)]:
            worker.result()


def _joined(args: list[str]) -> None:
    """Join a study by the same command, in a process of its own."""
    words = [sys.executable, "-m", "sessrec.tune", *args, "--parent", str(os.getpid())]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"it was ended by signal {-done.returncode}").splitlines()
        raise SessRecError(f"a worker of the study has failed: {said[-1].partition('error: ')[2] or said[-1]}")


@contextmanager
def other_workers(number: int, args: Sequence[str]) -> Iterator[None]:
    """Have processes of their own work on the same study; they and this one share the processors.

    Args:
        number: Number of processes.
        args: Arguments of the command.
    """
    threads = max(1, (os.cpu_count() or 1) // (number + 1))
    own = os.environ | {name: os.environ.get(name, str(threads)) for name in _THREADS}
    before = torch.get_num_threads()
    if number and "OMP_NUM_THREADS" not in os.environ:  # more threads than processors wait for each other
        torch.set_num_threads(threads)
    words = [sys.executable, "-m", "sessrec.tune", *args, "--parent", str(os.getpid())]
    processes = [subprocess.Popen(words, env=own) for _ in range(number)]
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            with suppress(KeyboardInterrupt):
                process.wait()
        torch.set_num_threads(before)
