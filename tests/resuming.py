"""What the tests of resumed fits share: small runs, stops at chosen places, child processes, equality of runs."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from helpers import random_rows
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from sessrec import fit
from sessrec.callbacks.run_folder import RunSummary
from sessrec.models import GRU4Rec
from sessrec.models.base import SessionRecommender

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # in child processes, too

RUN = Path("lightning_logs", "r")
RESUME = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "last"]
COMMON = [
    *("--data.path", "log.tsv", "--data.cache_dir", "null", "--trainer.logger.version", "r"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "7"),
    *("--data.batch_size", "5", "--data.steps_per_window", "7", "--data.eval_batch_size", "4"),
]
GRU = [
    *("--model", "GRU4Rec", "--model.layers", "[8,6]", "--model.n_sample", "9", "--model.dropout_p_hidden", "0.2"),
    *("--model.momentum", "0.3", "--data.shuffle", "true", "--trainer.max_epochs", "2"),
]
INSIDE = ["--trainer.val_check_interval", "0.3"]  # several validations in an epoch
MAIN = [*COMMON, *GRU, *INSIDE]
NOT_REPEATABLE = "train/events_per_second"


def in_new_folder(folder: Path, n_sessions: int = 150) -> Path:
    """Make a folder with a log of its own and go there; callers go back by monkeypatch.chdir."""
    folder.mkdir()
    os.chdir(folder)
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(n_sessions))]
    Path("log.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / RUN


def fit_code(args: Sequence[str]) -> int:
    """Exit code of a fit in this process."""
    try:
        fit.main(list(args))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def stop_self() -> None:
    """Send this process a signal that a fit listens to; the handler runs before the call returns."""
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def stop_at_step(step: int) -> Iterator[None]:
    """A real signal arrives while the window is trained in which a step lies; the fit stops at the window's end."""
    original, sent = GRU4Rec.train_window, []

    def train_window(self: GRU4Rec, window: Any, *args: Any) -> Any:
        losses = original(self, window, *args)
        if self.global_step + len(losses) >= step and not sent:
            sent.append(step)
            stop_self()
        return losses

    with patch.object(GRU4Rec, "train_window", train_window):
        yield


@contextmanager
def stop_in_validation(batch: int) -> Iterator[None]:
    """A real signal arrives while a batch is ranked, counted over all validations of the fit from 0."""
    original, seen = SessionRecommender.validation_step, []

    def validation_step(self: SessionRecommender, *args: Any) -> None:
        original(self, *args)
        seen.append(batch)
        if len(seen) == batch + 1:
            stop_self()

    with patch.object(SessionRecommender, "validation_step", validation_step):
        yield


@contextmanager
def should_stop_at(step: int) -> Iterator[None]:
    """Another callback asks the trainer to stop, as Timer does."""

    def ask(self: RunSummary, trainer: Any, *args: Any) -> None:
        if trainer.global_step >= step:
            trainer.should_stop = True

    with patch.object(RunSummary, "on_train_batch_end", ask):
        yield


def fit_with_stops(args: Sequence[str], stops: Sequence[Any]) -> None:
    """Fit, stop in each of the contexts, go on, and at last go on to the end."""
    command = args
    for stop in stops:
        with stop:
            assert fit_code(command) == 128 + signal.SIGTERM
        command = RESUME
    assert fit_code(command) == 0


# What equal runs are


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Places at which two checkpoints differ, by type, shape or any bit."""
    if type(ours) is not type(theirs):
        return [f"{place}: {type(ours).__name__} and {type(theirs).__name__}"]
    if isinstance(ours, dict):
        found = [f"{place}/{name}: in one only" for name in ours.keys() ^ theirs.keys()]
        return found + [
            line
            for name in ours.keys() & theirs.keys()
            for line in differences(ours[name], theirs[name], f"{place}/{name}")
        ]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return [f"{place}: lengths {len(ours)} and {len(theirs)}"]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{place}/{number}")]
    if isinstance(ours, torch.Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)
        return [] if same else [f"{place}: other values"]
    return [] if ours == theirs else [f"{place}: {ours!r} and {theirs!r}"]


def records(run: Path) -> list[tuple[str, int, bytes]]:
    """(tag, step, value) of all records of all event files, each file read on its own, in the order of writing."""
    files = []
    for file in run.glob("*tfevents*"):
        events = list(EventFileLoader(str(file)).Load())
        found = [
            (
                value.tag,
                event.step,
                tensor_util.make_ndarray(value.tensor).tobytes() if value.HasField("tensor") else b"",
            )
            for event in events
            for value in event.summary.value
        ]
        files.append((events[0].wall_time, found))
    return [record for _, found in sorted(files) for record in found]


def curves(run: Path) -> dict[str, list[tuple[int, bytes]]]:
    """The curve of each tag, with the bits of its values; each step has one, and they ascend."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for tag, step, value in records(run):
        found.setdefault(tag, []).append((step, value))
    for tag, curve in found.items():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps)), (tag, steps)
    found[NOT_REPEATABLE] = [(step, b"") for step, _ in found.get(NOT_REPEATABLE, [])]
    return found


def run_differences(run: Path, other: Path) -> list[str]:
    """Differences of two runs' checkpoints, curves, reports and file names."""
    lines = []
    names = [{file.name for file in (one / "checkpoints").iterdir()} for one in (run, other)]
    if names[0] != names[1]:
        return [f"checkpoints {names[0]} and {names[1]}"]
    for name in sorted(names[0]):
        contents = [torch.load(one / "checkpoints" / name, weights_only=True) for one in (run, other)]
        for content in contents:
            del content["loops"]  # Lightning's own counters, of which a resumed fit counts some more
        lines += differences(*contents, name)
    lines += differences(curves(run), curves(other), "curves")
    for one in (run, other):
        lines += [
            f"left over: {file}" for file in one.rglob("*") if file.name.startswith(".") or "partial" in file.name
        ]
    return lines


def assert_equal_runs(run: Path, other: Path) -> None:
    found = run_differences(run, other)
    assert not found, "\n".join(found[:20])


def hashes(folder: Path) -> dict[str, str]:
    """Digest of every file, by its path."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def seeded_steps(seed: int, n_steps: int, n_stops: int) -> list[int]:
    """Random steps at which to stop, ascending."""
    return sorted(np.random.default_rng(seed).choice(np.arange(1, n_steps), n_stops, replace=False).tolist())


# Child processes

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "lightning.pytorch", "sessrec.cli"])  # so that children start at once


def start(
    folder: Path,
    args: Sequence[str],
    prepare: Callable[..., None] | None = None,
    *more: Any,
    main: Callable[[list[str]], Any] = fit.main,
) -> BaseProcess:
    """Start a fit in a process and a folder of its own; what it says goes to ``stdout`` and ``stderr`` there.

    Args:
        folder: Where it runs.
        args: Words of the command.
        prepare: Called in the child before the command, with ``more``.
        more: Arguments of ``prepare``.
        main: Another command than a fit.
    """
    process = _CONTEXT.Process(target=_child, args=(folder, list(args), main, prepare, more))
    process.start()
    return process


def _child(
    folder: Path,
    args: list[str],
    main: Callable[[list[str]], Any],
    prepare: Callable[..., None] | None,
    more: tuple[Any, ...],
) -> None:
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests beside itself ignores it
    torch.set_num_threads(1)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["fit"]
    if prepare is not None:
        prepare(*more)
    main(args)


def finish(process: BaseProcess, timeout: float = 60) -> int:
    """Wait for a child, and give its exit code; a signal's number, negated, where one ended it."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise AssertionError("the child does not end")
    assert process.exitcode is not None
    return process.exitcode


def child_code(folder: Path, args: Sequence[str], prepare: Callable[..., None] | None = None, *more: Any) -> int:
    """Run a fit in a process of its own to its end."""
    return finish(start(folder, args, prepare, *more))


def said(folder: Path) -> list[str]:
    """Lines on stderr of the last child in a folder that are not Lightning's."""
    lines = (folder / "stderr").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("sessrec.") or "Traceback" in line or "signal" in line.lower()]
