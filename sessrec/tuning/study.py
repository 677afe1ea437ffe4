"""A study: its trials on disk or in a database, shared by workers, of which any may be killed at any moment."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from sessrec.errors import SessRecError, one_line
from sessrec.tuning.space import SearchSpace

JOURNAL = "study.log"
_HEARTBEAT = 5.0  # seconds between two signs of life of a worker
_GRACE = 60.0  # seconds without one after which a worker of another machine counts as killed
_REPEATS = 3  # of a trial whose worker is killed, which may be what kills it
_REDRAWS = 10  # of values that were tried before, after which values are drawn at random
_MOST_REDRAWS = 100  # after which a space counts as exhausted
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_HELD = (*_DONE, TrialState.RUNNING)


class Study:
    """Trials of one search, asked for and told by several workers.

    Args:
        folder: Folder of the study; its name is that of the study.
        storage: URL of a database that Optuna knows; None for a journal file in the folder.
        settings: What the values of the trials follow from; a study goes on with the same alone.
        space: The options it tries.
        defaults: Values of the options, as on the command line, of the first trial.
        seed: Seed of the search.
        prunes: Whether trials that fall behind are stopped early.

    Raises:
        SessRecError: If the study is there with other settings, or its storage cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        settings: Mapping[str, Any],
        space: SearchSpace,
        defaults: Mapping[str, str],
        seed: int = 42,
        prunes: bool = True,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.space, self.defaults, self.seed = folder, space, defaults, seed
        self.is_exhausted = False
        self._lock = FileLock(folder / ".lock")
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if prunes else optuna.pruners.NopPruner()
        with self._lock:
            try:
                self.optuna = optuna.create_study(
                    storage=storage or _journal(folder),
                    study_name=folder.name,
                    direction="maximize",
                    pruner=pruner,
                    load_if_exists=True,
                )
            except Exception as error:  # each database has its own
                where = storage or folder / JOURNAL
                raise SessRecError(f"--storage {where} cannot be used: {one_line(error)}") from error
            self._check_settings(settings)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        kept = self.optuna.user_attrs.get("settings")
        if kept is None:
            self.optuna.set_user_attr("settings", settings)
            return
        # a study of an earlier release lacks options that were added since, which are null
        pairs = {name: [one.get(name, "null") for one in (kept, settings)] for name in {**kept, **settings}}
        if changed := [f"{name} {old}, not {new}" for name, (old, new) in pairs.items() if old != new]:
            raise SessRecError(
                f"--study {self.folder.name} is there with {', '.join(changed[:3])}: give another --study"
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, of all workers, as they are now."""
        return self.optuna.get_trials(deepcopy=False)

    @property
    def done(self) -> list[FrozenTrial]:
        """Trials that have ended, with a value or as ones that were stopped or refused."""
        return [trial for trial in self.trials if trial.state in _DONE]

    @property
    def is_waiting_for_others(self) -> bool:
        """Whether a trial runs in a worker."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials)

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the greatest value, the first of several; None where there is none."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    @property
    def seconds(self) -> float:
        """Work of all trials so far, in seconds."""
        return sum(trial.user_attrs.get("seconds", 0.0) for trial in self.trials)

    def ask(self, n_trials: int, seconds: float) -> tuple[optuna.Trial, dict[str, str]] | None:
        """Begin a trial, unless the study has all that it is asked for, or others are at the last ones.

        Args:
            n_trials: Number of trials of the study.
            seconds: Work of all trials after which none begins.

        Returns:
            The trial and its options as on the command line, none in the first one; None where none is to begin now.
        """
        with self._lock:
            self._repeat_killed()
            for redraws in range(_MOST_REDRAWS):
                held = [trial for trial in self.trials if trial.state in _HELD]
                if len(held) >= n_trials or (held and self.seconds >= seconds):
                    return None
                trial, options = self._draw(at_random=redraws >= _REDRAWS)
                if all(self._whole(other) != {**self._of_space, **options} for other in held):
                    return trial, options
                trial.set_user_attr("known", True)
                self.optuna.tell(trial, state=TrialState.FAIL)
            self.is_exhausted = True
            return None

    def _draw(self, at_random: bool) -> tuple[optuna.Trial, dict[str, str]]:
        """Begin a trial, whose values follow from its place alone, not from which trials were killed."""
        known = {_start_of(trial) for trial in self.trials}
        for number in range(1 + len(self.space.starts)):
            if number not in known:
                own = {"start": number} | ({} if number else {"default": True})
                self.optuna.enqueue_trial(self._values_of_start(number), user_attrs=own)
        place = sum(trial.state != TrialState.WAITING and not is_killed(trial) for trial in self.trials)
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        kind = optuna.samplers.RandomSampler if at_random else optuna.samplers.TPESampler
        self.optuna.sampler = kind(seed=seed)
        trial = self.optuna.ask()
        trial.set_user_attr("worker", [socket.gethostname(), os.getpid()])
        is_default = "default" in trial.user_attrs
        chosen = self.space.suggest(trial, self.defaults, self.space.nearest(self.defaults) if is_default else None)
        options = {} if is_default else chosen
        trial.set_user_attr("options", options)
        return trial, options

    def _values_of_start(self, number: int) -> dict[str, Any]:
        """Optuna's values of one of the trials that come first; the first of all has the default options."""
        return self.space.nearest({**self.defaults, **(self.space.starts[number - 1] if number else {})})

    @property
    def _of_space(self) -> dict[str, str]:
        """Default values of the options that are tried."""
        return {one.option: self.defaults.get(one.option, "") for one in self.space.dimensions}

    def _whole(self, trial: FrozenTrial) -> dict[str, str]:
        """Values of all options that are tried in a trial, also of those that it leaves at their default."""
        return {**self._of_space, **trial.user_attrs.get("options", {})}

    def tell(self, trial: optuna.Trial, state: TrialState, value: float | None, **attributes: Any) -> bool:
        """End a trial; gives whether it counts, which it does not where it was taken for one of a killed worker.

        Args:
            trial: The trial.
            state: Whether it is complete, or was pruned.
            value: Its value, if it is complete.
            attributes: What is kept beside it.
        """
        try:
            for name, kept in attributes.items():
                trial.set_user_attr(name, kept)
            self.optuna.tell(trial, value if state == TrialState.COMPLETE else None, state)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def _repeat_killed(self) -> None:
        """Count the trials of killed workers as failed, and have them run again."""
        for trial in self.trials:
            if trial.state != TrialState.RUNNING or _lives(trial):
                continue
            is_known = "known" in trial.user_attrs
            kept = {key: value for key, value in trial.user_attrs.items() if key in ("default", "start", "kills")}
            kept["kills"] = kept.get("kills", 0) + 1
            is_last = kept["kills"] > _REPEATS and not is_known
            if not is_last and not is_known:  # first, for this worker may be killed, too; what comes twice is known
                values = trial.params if "options" in trial.user_attrs else {}
                values = values if (start := _start_of(trial)) is None else self._values_of_start(start)
                self.optuna.enqueue_trial(values, user_attrs=kept)
            with suppress(UpdateFinishedTrialError, ValueError):  # a worker that was slow has ended it
                self.optuna.tell(trial.number, state=TrialState.PRUNED if is_last else TrialState.FAIL)


def _start_of(trial: FrozenTrial) -> int | None:
    """Which of the trials that come first it is; None where it is drawn."""
    return trial.user_attrs.get("start", 0 if "default" in trial.user_attrs else None)


def is_killed(trial: FrozenTrial) -> bool:
    """Whether a trial has failed since its worker was killed; others fail where their values were tried before."""
    return trial.state == TrialState.FAIL and "known" not in trial.user_attrs


@contextmanager
def signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Keep the time, and the seconds of work, in a trial while it runs."""
    start, ended = time.monotonic(), threading.Event()

    def keep() -> None:
        with suppress(UpdateFinishedTrialError):  # the worker was taken for killed
            trial.set_user_attr("seconds", round(time.monotonic() - start, 3))
            trial.set_user_attr("alive", time.time())

    def beat() -> None:
        while not ended.wait(_HEARTBEAT):
            keep()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        keep()


def _journal(folder: Path) -> JournalStorage:
    lock: Any = _KernelLock(folder / f".{JOURNAL}.lock")
    return JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))


class _KernelLock:
    """The lock of a journal file that the kernel takes back from a process that is killed."""

    def __init__(self, file: Path) -> None:
        self._lock = FileLock(file)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _lives(trial: FrozenTrial) -> bool:
    """Whether the worker of a trial that runs is alive; to be asked where the study is locked."""
    if "worker" not in trial.user_attrs:  # it is named before the lock is let go
        return False
    began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    if time.time() - trial.user_attrs.get("alive", began) > _GRACE:
        return False
    host, process = trial.user_attrs["worker"]
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a killed process waits for its parent to notice."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
