"""A fit that was stopped anywhere and goes on ends as one that was not, to the bit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import one_error
from resuming import (
    COMMON,
    GRU,
    INSIDE,
    MAIN,
    RESUME,
    RUN,
    assert_equal_runs,
    curves,
    differences,
    finish,
    fit_code,
    fit_with_stops,
    hashes,
    in_new_folder,
    records,
    said,
    seeded_steps,
    should_stop_at,
    start,
    stop_at_step,
    stop_in_validation,
)

from sessrec import fit
from sessrec.callbacks.checkpoints import LastCheckpoint
from sessrec.models import GRU4Rec

CONFIGS: dict[str, list[str]] = {
    "validation by windows": [
        *GRU,
        *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "3"),
    ],
    "bpr-max without samples": [*GRU, *INSIDE, "--model.loss", "bpr-max", "--model.n_sample", "0"],
    "separate embedding": [*GRU, "--model.constrained_embedding", "false", "--model.embedding", "7"],
    "one-hot, in time order": [*GRU, "--model.constrained_embedding", "false", "--data.shuffle", "false"],
    "no validation part": [*GRU, "--data.val_ratio", "0"],
    "cosine after a warm-up": [*GRU, *INSIDE, "--model.schedule", "cosine", "--model.warmup", "20"],
}


def last_checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def epoch_ends(run: Path) -> list[int]:
    """Steps at which the epochs of a fit of GRU4Rec ended."""
    return [step for tag, step, _ in records(run) if tag == "train/loss_epoch"]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of each config that was never stopped, fitted once."""
    runs: dict[str, Path] = {}

    def reference(name: str) -> Path:
        if name not in runs:
            here = Path.cwd()
            run = in_new_folder(tmp_path_factory.mktemp("reference") / "folder")
            assert fit_code(COMMON + CONFIGS[name]) == 0
            os.chdir(here)
            runs[name] = run
        return runs[name]

    return reference


# Exactness


@pytest.mark.parametrize("config", CONFIGS)
def test_a_fit_that_was_stopped_anywhere_equals_one_that_was_not(
    references: Callable[[str], Path], run: Path, config: str
) -> None:
    reference = references(config)
    n_steps = last_checkpoint(reference)["global_step"]
    (step,) = seeded_steps(len(config), n_steps, n_stops=1)
    fit_with_stops(COMMON + CONFIGS[config], [stop_at_step(1), stop_at_step(step)])
    assert_equal_runs(run, reference)


def test_many_stops_in_sequence(straight: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the optimiser saw over all parts of a fit is what it sees in one go: every pair once, in the same order."""
    seen: list[tuple[int, int, int, int, int]] = []
    original = GRU4Rec.train_window

    def train_window(self: GRU4Rec, window: Any, *args: Any) -> Any:
        for step in range(window.n_steps):
            for lane in window.live[step].nonzero()[:, 0].tolist():
                pair = (int(window.inputs[step, lane]), int(window.targets[step, lane]))
                seen.append((self.current_epoch, window.first_step + step, lane, *pair))
        return original(self, window, *args)

    monkeypatch.setattr(GRU4Rec, "train_window", train_window)
    first, second = epoch_ends(straight)
    command = MAIN
    for step, stopped_at in ((2, 6), (30, 33), (first, first), (first + 1, first + 6), (100, 106)):  # ends of windows
        with stop_at_step(step):
            assert fit_code(command) == 143
        assert last_checkpoint(run)["global_step"] == stopped_at
        command = RESUME
    with stop_at_step(second):  # there is nothing left to stop
        assert fit_code(RESUME) == 0
    assert_equal_runs(run, straight)
    of_parts = seen.copy()
    seen.clear()
    in_new_folder(tmp_path / "one-go")
    assert fit_code(MAIN) == 0
    assert of_parts == seen
    assert len(set(seen)) == len(seen)
    pairs = [Counter((row[3], row[4]) for row in seen if row[0] == number) for number in range(2)]
    assert pairs[0] == pairs[1]
    n_pairs = json.loads((RUN / "data_report.json").read_text())["train"]["positions"]
    assert sum(pairs[0].values()) == n_pairs


def test_stops_during_validations(straight: Path, run: Path) -> None:
    """The fit stops after the validation: none is done twice or left out."""
    fit_with_stops(MAIN, [stop_in_validation(batch) for batch in (1, 4, 2)])
    assert_equal_runs(run, straight)


@pytest.mark.parametrize(("config", "batch"), [("validation by windows", 4), ("separate embedding", 1)])
def test_a_stop_during_a_validation(references: Callable[[str], Path], run: Path, config: str, batch: int) -> None:
    """After some windows, and at an epoch's end."""
    fit_with_stops(COMMON + CONFIGS[config], [stop_in_validation(batch)])
    assert_equal_runs(run, references(config))


@pytest.mark.parametrize("every_n_steps", ["1", "null"])
def test_saving_changes_nothing(straight: Path, run: Path, every_n_steps: str) -> None:
    assert fit_code([*MAIN, "--checkpoint.every_n_steps", every_n_steps, "--checkpoint.every_minutes", "null"]) == 0
    assert_equal_runs(run, straight)


def test_saving_by_minutes_changes_nothing_and_can_be_gone_on_with(straight: Path, run: Path) -> None:
    """An interval of nearly nothing saves after every window."""
    saved: list[int] = []
    original = LastCheckpoint._save

    def save(self: LastCheckpoint, trainer: Any) -> None:
        original(self, trainer)
        saved.append(trainer.global_step)
        if len(saved) == 5:
            raise SystemExit(9)  # as if the process had ended right after it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastCheckpoint, "_save", save)
        assert fit_code([*MAIN, "--checkpoint.every_minutes", "1e-9"]) == 9
    assert saved == [6, 13, 19, 26, 33]  # windows of 6 or 7 steps
    assert fit_code(RESUME) == 0
    assert_equal_runs(run, straight)


@pytest.mark.parametrize("max_steps", ["3", "72", "73", "74"])  # in the first window and the last of an epoch
def test_more_steps_after_max_steps(straight: Path, run: Path, max_steps: str) -> None:
    """The rest of a window that was cut draws the negatives and masks that it would have drawn."""
    assert epoch_ends(straight)[0] == 73
    assert fit_code([*MAIN, "--trainer.max_steps", max_steps]) == 0
    assert last_checkpoint(run)["global_step"] == int(max_steps)
    assert fit_code([*RESUME, "--trainer.max_steps", "-1"]) == 0
    assert_equal_fits(run, straight)


def test_more_epochs_up_to_max_steps(straight: Path, run: Path) -> None:
    """A fit that resumes at the end of an epoch begins the next one, with a limit of steps, too."""
    assert fit_code([*MAIN, "--trainer.max_epochs", "1"]) == 0
    assert fit_code([*RESUME, "--trainer.max_epochs", "2", "--trainer.max_steps", "100"]) == 0
    checkpoint = last_checkpoint(run)
    assert (checkpoint["global_step"], checkpoint["epoch"]) == (100, 1)
    assert fit_code([*RESUME, "--trainer.max_steps", "-1"]) == 0
    assert_equal_fits(run, straight)


def assert_equal_fits(run: Path, straight: Path) -> None:
    """Equal but for what a stop inside a window, or one by a callback, adds: its own figures, and a validation."""
    ours, theirs = last_checkpoint(run), last_checkpoint(straight)
    for name in ("state_dict", "optimizer_states", "epoch", "global_step", "progress", "hidden"):
        assert not differences(ours[name], theirs[name], name)
    assert curves(run)["train/loss_epoch"] == curves(straight)["train/loss_epoch"]
    assert set(curves(straight)["val/mrr@20"]) <= set(curves(run)["val/mrr@20"])


@pytest.mark.parametrize("step", [1, 40, 73])
def test_resuming_after_another_callback_stopped_the_fit(straight: Path, run: Path, step: int) -> None:
    """Timer, for --trainer.max_time, does no more than this; Lightning validates once more then."""
    with should_stop_at(step):
        assert fit_code(MAIN) == 0
    assert step <= last_checkpoint(run)["global_step"] < last_checkpoint(straight)["global_step"]
    assert fit_code(RESUME) == 0
    assert_equal_fits(run, straight)
    assert set(curves(straight)["train/loss"]) <= set(curves(run)["train/loss"])


def test_going_on_after_early_stopping(straight: Path, run: Path) -> None:
    stopping = "[{class_path: EarlyStopping, init_args: {monitor: val/mrr@20, mode: max, patience: 1}}]"
    assert fit_code([*MAIN, "--trainer.callbacks", stopping]) == 0
    assert last_checkpoint(run)["global_step"] < last_checkpoint(straight)["global_step"]
    assert fit_code([*RESUME, "--trainer.callbacks", "[]"]) == 0
    assert_equal_runs(run, straight)


def test_curves_have_each_step_once_in_whichever_file(straight: Path, run: Path) -> None:
    """The checkpoint is older than what was logged last: steps that are taken anew are not logged twice."""
    assert fit_code([*MAIN, "--checkpoint.every_n_steps", "50", "--trainer.max_steps", "59"]) == 0
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert fit_code([*RESUME, "--trainer.max_steps", "79", "--trainer.log_every_n_steps", "1"]) == 0
    (run / "checkpoints" / "last.ckpt").write_bytes(before)  # as if nothing had been saved since
    assert fit_code([*RESUME, "--trainer.max_steps", "-1", "--trainer.log_every_n_steps", "7"]) == 0
    assert len(list(run.glob("*tfevents*"))) == 3
    found = records(run)
    assert len({(tag, step) for tag, step, _ in found}) == len(found)
    assert curves(run) == curves(straight)
    assert len(curves(run)["train/loss"]) > 20


# Signals


def test_each_signal_saves_and_stops_with_its_exit_code(run: Path, straight: Path) -> None:
    """One after the other in one fit, whose end is that of the fit which nothing happened to."""
    folder, last, command = (
        run.parents[1],
        run / "checkpoints" / "last.ckpt",
        [*MAIN, "--checkpoint.every_n_steps", "1"],
    )
    stopped_at = written = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        process = start(folder, command, slow_windows, 0.02)
        wait_for(last, newer_than=written)
        os.kill(process.pid or 0, number)
        assert finish(process) == 128 + number
        lines, before = said(folder), stopped_at
        stopped_at = last_checkpoint(run)["global_step"]
        assert before < stopped_at < last_checkpoint(straight)["global_step"]
        assert lines[-1] == (
            f"sessrec.fit: stopped by {number.name} at step {stopped_at} and saved; resume with: python -m sessrec.fit "
            "--config lightning_logs/r/config.yaml --ckpt_path last"
        )
        assert not any("Traceback" in line for line in lines)
        command, written = RESUME, last.stat().st_mtime_ns
    assert fit_code(RESUME) == 0
    assert_equal_runs(run, straight)


def test_a_second_signal_stops_at_once(run: Path) -> None:
    """The first is heeded after the window, which takes ten minutes here."""
    folder = run.parents[1]
    process = start(folder, MAIN, slow_windows, 600)
    wait_for(folder / "started")
    begin = time.monotonic()
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGTERM)
        time.sleep(0.2)
    assert finish(process) == -signal.SIGTERM
    assert time.monotonic() - begin < 60
    assert "SIGTERM: the fit is saved and stops; once more stops it at once" in (folder / "stderr").read_text()


def test_a_signal_before_training_says_that_nothing_was_saved(run: Path) -> None:
    folder = run.parents[1]
    process = start(folder, MAIN, slow_preparation)
    wait_for(folder / "started")
    os.kill(process.pid or 0, signal.SIGINT)
    assert finish(process) == 130
    assert said(folder)[-1] == "sessrec.fit: stopped; there was nothing to save yet"
    assert not RUN.exists()


def test_the_signals_are_given_back(run: Path) -> None:
    """Whoever calls a fit from Python can be ended by SIGTERM afterwards, however the fit ended."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with stop_at_step(40):
            assert fit_code(MAIN) == 143
        assert [signal.getsignal(number) for number in numbers] == before
        assert fit_code([*RESUME, "--trainer.max_steps", "47"]) == 0
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def slow_windows(seconds: float) -> None:
    """In a child: every window takes longer."""
    original = GRU4Rec.train_window

    def train_window(self: GRU4Rec, *args: Any) -> Any:
        Path("started").touch()
        time.sleep(seconds)
        return original(self, *args)

    GRU4Rec.train_window = train_window  # type: ignore[method-assign]


def slow_preparation() -> None:
    """In a child: the log takes a minute to read."""
    from sessrec.data.preparation import Preparation

    def run(self: Preparation, *args: Any) -> None:
        Path("started").touch()
        time.sleep(600)

    Preparation.run = run  # type: ignore[method-assign, assignment]


def wait_for(file: Path, newer_than: int = 0) -> None:
    end = time.monotonic() + 30
    while not file.exists() or file.stat().st_mtime_ns <= newer_than:
        assert time.monotonic() < end, f"no {file}"
        time.sleep(0.005)


# How a fit goes on


def test_auto_begins_goes_on_and_ends(straight: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*MAIN, "--ckpt_path", "auto"]
    with stop_at_step(60):
        assert fit_code(command) == 143
    assert fit_code(command) == 0
    assert_equal_runs(run, straight)
    before = hashes(run)
    for again in (command, RESUME):
        capsys.readouterr()
        assert fit_code(again) == 0
        assert f"nothing to do: the checkpoint {RUN}/checkpoints/last.ckpt has 2 of 2 epochs" in capsys.readouterr().out
    message = one_error(capsys, fit.main, MAIN)
    assert f"the run {RUN} exists: give another --trainer.logger.version, or go on with it" in message
    assert hashes(run) == before


def test_the_schedule_changes_between_epochs_only(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"batch_size": "6", "steps_per_window": "9", "shuffle": "false"}
    before = hashes(stopped)
    for option, value in changes.items():
        message = one_error(capsys, fit.main, [*RESUME, f"--data.{option}", value])
        assert f"inside an epoch with --data.{option} " in message
        assert f"cannot be done with {yaml.safe_load(value)}: change it at the end of an epoch" in message
        assert hashes(stopped) == before
    assert fit_code([*RESUME, "--trainer.max_epochs", "1"]) == 0
    all_changes = [word for option, value in changes.items() for word in (f"--data.{option}", value)]
    assert fit_code([*RESUME, "--trainer.max_epochs", "2", *all_changes]) == 0
    checkpoint = last_checkpoint(stopped)
    assert (checkpoint["epoch"], checkpoint["progress"]["steps"]) == (1, 0)
    for option, value in changes.items():
        assert checkpoint["datamodule_hyper_parameters"][option] == yaml.safe_load(value)


@pytest.mark.parametrize("max_epochs", [None, "1"], ids=["inside", "at the end of an epoch"])
def test_other_training_sessions_are_refused(
    stopped: Path, capsys: pytest.CaptureFixture[str], max_epochs: str | None
) -> None:
    """They have the same items, as often, in the same number of sessions and events."""
    if max_epochs:
        assert fit_code([*RESUME, "--trainer.max_epochs", max_epochs]) == 0
    lines = Path("log.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    swap = next(n for n in range(300, 400) if rows[n][0] == rows[n + 1][0] and rows[n][1] != rows[n + 1][1])
    rows[swap][1], rows[swap + 1][1] = rows[swap + 1][1], rows[swap][1]  # in the middle of the train part
    Path("other.tsv").write_text("\n".join([lines[0], *map("\t".join, rows)]) + "\n")
    before = hashes(stopped)
    message = one_error(capsys, fit.main, [*RESUME, "--data.path", "other.tsv", "--trainer.max_epochs", "3"])
    assert "fitted to other training sessions" in message
    assert hashes(stopped) == before


def test_a_new_learning_rate_wins_inside_an_epoch(straight: Path, stopped: Path) -> None:
    assert fit_code([*RESUME, "--model.learning_rate", "0.5"]) == 0
    checkpoint = last_checkpoint(stopped)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
    assert checkpoint["hyper_parameters"]["learning_rate"] == 0.5
    assert yaml.safe_load((stopped / "config.yaml").read_text())["model"]["init_args"]["learning_rate"] == 0.5
    assert differences(checkpoint["state_dict"], last_checkpoint(straight)["state_dict"])  # so that it was used
    logged = dict(curves(stopped)["train/learning_rate"])
    rates = dict(curves(straight)["train/learning_rate"])
    assert {step for step, rate in logged.items() if rate != rates[step]} == {step for step in rates if step > 46}


def test_another_seed_on_the_command_line_is_not_used_and_said(
    straight: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_code([*RESUME, "--seed_everything", "7"]) == 0
    assert "the fit resumes with its own seed 42, not 7" in capsys.readouterr().out
    assert_equal_runs(stopped, straight)
