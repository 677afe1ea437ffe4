"""Killed processes, full disks, damaged and foreign files: nothing is lost and nothing in a file is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import one_error, paint_blanks
from resuming import (
    MAIN,
    RESUME,
    RUN,
    assert_equal_runs,
    child_code,
    finish,
    fit_code,
    hashes,
    in_new_folder,
    run_differences,
    said,
    start,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from sessrec import fit, predict, prepare, test
from sessrec.data.cache import _digest, _file_digest, open_prepared
from sessrec.models.base import SessionRecommender

AUTO = [*MAIN, "--checkpoint.every_n_steps", "3", "--ckpt_path", "auto"]
LAST_NAME = Path("checkpoints", "last.ckpt")
LAST = RUN / LAST_NAME
TEST = ["--config", str(RUN / "config.yaml"), "--ckpt_path", str(LAST)]
KILLS = ((0, 0.1), (1, 0.05), (3, 0.0), (2, 0.02))
"""How often each process has written its last checkpoint before it is killed, and seconds after that."""


# Killed anywhere


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file of a run; files may come and go meanwhile."""
    found = {}
    for file in [*folder.glob("*"), *folder.glob("checkpoints/*")]:
        try:
            state = file.stat()
        except FileNotFoundError:
            continue
        found[str(file)] = (state.st_size, state.st_mtime_ns)
    return found


def test_killed_at_any_moment_and_started_again(run: Path, tmp_path: Path) -> None:
    """No process has a chance to say or save anything; each goes on from what is on the disk."""
    command, folder, steps = [*AUTO, "--trainer.max_epochs", "5"], run.parents[1], []
    for n_written, seconds in KILLS:
        before, begin, written = state_of(run), time.monotonic(), {state_of(run).get(str(run / LAST_NAME))}
        process = start(folder, command)
        while process.is_alive() and ((state := state_of(run)) == before or len(written) <= n_written):
            assert time.monotonic() - begin < 30
            written.add(state.get(str(run / LAST_NAME)))
            time.sleep(0.002)
        process.join(seconds)
        assert process.is_alive(), f"the run ended: {(folder / 'stderr').read_text()[-500:]}"
        process.kill()
        assert finish(process) == -signal.SIGKILL
        if LAST.exists():
            steps.append(torch.load(LAST, weights_only=True)["global_step"])
    assert steps == sorted(steps)
    assert len(set(steps)) > 1  # the kills are spread over the run
    command += ["--checkpoint.every_n_steps", "null"]  # the rest is quicker so, and the same
    assert fit_code(command) == 0
    other = in_new_folder(tmp_path / "one-go")
    assert fit_code(command) == 0
    assert_equal_runs(run, other)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """True at the n-th time that it is asked, counted from 1."""

    def __init__(self, number: int) -> None:
        self.left = number

    def is_over(self) -> bool:
        self.left -= 1
        return self.left == 0


def die_before_the_sync(number: int) -> None:
    """In a child: die when the n-th last.ckpt is written but not yet synced."""
    sync, countdown = os.fsync, Countdown(number)

    def fsync(descriptor: int) -> None:
        if "last.ckpt" in os.readlink(f"/proc/self/fd/{descriptor}") and countdown.is_over():
            kill_self()
        sync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


def die_after(owner: type, method: str, text: str, number: int) -> None:
    """In a child: die right after the n-th call of a method whose last argument has a text in it."""
    original, countdown = getattr(owner, method), Countdown(number)

    def call(*args: Any) -> Any:
        result = original(*args)
        if text in str(args[-1]) and countdown.is_over():
            kill_self()
        return result

    setattr(owner, method, call)


def die_half_way(number: int) -> None:
    """In a child: die when half of the n-th last.ckpt is written."""
    save, countdown = torch.save, Countdown(number)

    def half(content: Any, stream: Any, *args: Any, **kwargs: Any) -> None:
        buffer = io.BytesIO()
        save(content, buffer)
        if "last.ckpt" in str(stream.name) and countdown.is_over():
            stream.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
            stream.flush()
            kill_self()
        stream.write(buffer.getvalue())

    torch.save = half


@pytest.mark.parametrize(
    ("die", "arguments"),
    [
        (die_before_the_sync, (15,)),  # in the second epoch
        (die_after, (Path, "replace", "last.ckpt", 9)),  # which has its name, and the fit does not know it yet
        (die_half_way, (1,)),  # there is no checkpoint before it
        (die_half_way, (8,)),
        (die_after, (SessionRecommender, "validation_step", "", 4)),
    ],
    ids=["before the sync", "after the rename", "first half", "eighth half", "in a validation"],
)
def test_killed_while_writing(run: Path, straight: Path, die: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    folder = run.parents[1]
    assert child_code(folder, AUTO, die, *arguments) == -signal.SIGKILL
    assert LAST.exists() == (arguments != (1,))
    if LAST.exists():
        assert torch.load(LAST, weights_only=True)["global_step"] > 0
    assert child_code(folder, AUTO) == 0
    assert_equal_runs(run, straight)


def test_killed_while_the_curves_are_cut(stopped: Path, straight: Path) -> None:
    """A fit that goes on rewrites its event files before it trains."""
    folder, before = stopped.parents[1], hashes(stopped)
    assert child_code(folder, AUTO, die_after, RecordWriter, "write", "", 3) == -signal.SIGKILL
    left = {name: digest for name, digest in hashes(stopped).items() if not name.endswith(".partial")}
    assert left == before
    assert child_code(folder, AUTO) == 0
    assert_equal_runs(stopped, straight)


def test_a_record_cut_by_a_kill_is_dropped(stopped: Path, straight: Path) -> None:
    (file,) = stopped.glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-5])
    assert fit_code(AUTO) == 0
    assert not [line for line in run_differences(stopped, straight) if not line.startswith("curves/")]


# Nothing can be written


def limit_file_size(n_bytes: int) -> None:
    """In a child: as on a full disk, no file can grow beyond a size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize("what", ["checkpoint", "curves"])
def test_a_full_disk_loses_nothing(stopped: Path, straight: Path, what: str) -> None:
    folder, before = stopped.parents[1], LAST.read_bytes()
    n_bytes = len(before) // 2 if what == "checkpoint" else 64
    assert child_code(folder, AUTO, limit_file_size, n_bytes) == 2
    lines = said(folder)
    assert len(lines) == 1
    assert "error: " in lines[0]
    assert "File too large" in lines[0]
    if what == "checkpoint":
        assert "cannot write the checkpoint" in lines[0]
        assert "the one before it is whole" in lines[0]
        assert "--config lightning_logs/r/config.yaml --ckpt_path last" in lines[0]
    assert LAST.read_bytes() == before
    assert not [file for file in stopped.rglob("*") if "partial" in file.name]
    assert fit_code(AUTO) == 0
    assert_equal_runs(stopped, straight)


def test_no_room_for_a_checkpoint_named_by_the_system(
    stopped: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb" and "last.ckpt" in self.name:
            raise OSError(28, "No space left on device", str(self))
        return original(self, mode, *args, **kwargs)

    before = LAST.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert "No space left on device; the one before it is whole" in one_error(capsys, fit.main, RESUME)
    assert LAST.read_bytes() == before
    assert fit_code(RESUME) == 0
    assert_equal_runs(stopped, straight)


def test_a_file_in_place_of_the_checkpoints_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.mkdir(parents=True)
    (run / "checkpoints").write_text("in the way")
    message = one_error(capsys, fit.main, AUTO)
    assert "checkpoints" in message
    assert (run / "checkpoints").read_text() == "in the way"


# Damaged and foreign checkpoints


def refused(capsys: pytest.CaptureFixture[str], run: Path, content: bytes, command: list[str] = RESUME) -> str:
    """What a fit says to a last.ckpt of another content; nothing else changes."""
    LAST.write_bytes(content)
    before = hashes(run)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        fit.main(command)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sessrec.")]
    assert len(lines) == 1
    assert hashes(run) == before
    return lines[0]


def test_truncated_checkpoints(stopped: Path, straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = LAST.read_bytes()
    for length in (1, len(whole) // 3, len(whole) - 1):
        for command in (RESUME, AUTO):  # auto does not begin anew over a run that could be mended
            message = refused(capsys, stopped, whole[:length], command)
            assert f"cannot read {LAST}: it is damaged or no checkpoint" in message
    LAST.write_bytes(whole)
    assert fit_code(RESUME) == 0
    assert_equal_runs(stopped, straight)


def as_bytes(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_bytes({"state_dict": {}, "epoch": 3}), "is no checkpoint of sessrec"),
        (as_bytes([1, 2]), "is no checkpoint of sessrec"),
        (as_bytes({"vocabulary": 3}), "error: "),
        (as_bytes(torch.ones(3)), "is no checkpoint of sessrec"),
        (b"SessionId,ItemId,Time\n1,a,0\n", "it is damaged or no checkpoint"),
        (b"", "it is damaged or no checkpoint"),
        (b"PK\x03\x04" + bytes(200), "it is damaged or no checkpoint"),
    ],
    ids=["dict", "list", "something of that name", "tensor", "text", "empty", "no zip"],
)
def test_foreign_checkpoints(stopped: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    assert message in refused(capsys, stopped, content)


def test_a_folder_is_no_checkpoint(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LAST.unlink()
    LAST.mkdir()
    assert "no checkpoint" in one_error(capsys, fit.main, RESUME)
    assert "cannot read" in one_error(capsys, fit.main, AUTO)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("progress"), "error: "),
        (lambda content: content.pop("loops"), "error: "),
        (lambda content: content.pop("state_dict"), "error: "),
        (lambda content: content.pop("SessionDataModule"), "error: "),
        (lambda content: content["state_dict"].pop("output_bias"), "error: "),
        (lambda content: content.update(format="two"), "error: "),
        (lambda content: content.update(progress={"unknown": 3}), "error: "),
        (
            lambda content: content.update(format=99),
            "was written by a later sessrec (format 99, this one knows 3): update it",
        ),
        (
            lambda content: content.update(class_path="sessrec.models.popularity.Popularity"),
            "holds sessrec.models.popularity.Popularity, not sessrec.models.gru4rec.GRU4Rec",
        ),
        (
            lambda content: content["vocabulary"]["item_ids"].__setitem__(3, "y1"),
            "12 items and the data give 12, 1 only in the former, such as y1 and 1 only in the latter, such as x",
        ),
    ],
    ids=["progress", "loops", "state_dict", "data", "weight", "format", "place", "later", "other model", "other items"],
)
def test_a_checkpoint_of_something_else(
    stopped: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    """A line says so, and nothing in the run changes."""
    content = torch.load(LAST, weights_only=True)
    spoil(content)
    assert message in refused(capsys, stopped, as_bytes(content))


# Nothing in a file is executed


class Malicious:
    """Creates a file when it is unpickled by whoever executes what a pickle asks for."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("executed"),)


def test_the_malicious_pickle_works(run: Path) -> None:
    """Otherwise the tests below could not fail."""
    pickle.loads(pickle.dumps(Malicious()))
    assert Path("executed").exists()
    Path("executed").unlink()
    torch.load(io.BytesIO(as_bytes({"vocabulary": Malicious()})), weights_only=False)
    assert Path("executed").exists()


@pytest.mark.parametrize(
    "content", [as_bytes({"vocabulary": Malicious()}), pickle.dumps(Malicious())], ids=["as torch saves", "plain"]
)
def test_a_malicious_checkpoint_is_refused(stopped: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    refused(capsys, stopped, content)
    refused(capsys, stopped, content, AUTO)
    for command, args in (
        (test.main, TEST),
        (predict.main, ["--ckpt_path", str(LAST), "--data.path", "log.tsv"]),
    ):
        assert "it is damaged or no checkpoint" in one_error(capsys, command, args)
    assert not Path("executed").exists()


@pytest.mark.parametrize("digests", ["left as they were", "forged"])
@pytest.mark.parametrize("name", ["train_items.npy", "item_counts.npy"])
def test_a_malicious_prepared_log_is_made_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch, digests: str, name: str
) -> None:
    paint_blanks(monkeypatch)
    command = ["--data.path", "log.tsv", "--data.cache_dir", "cache", "--report_dir", "report"]
    prepare.main(command)
    (folder,) = Path("cache").iterdir()
    items = open_prepared(folder).sessions["train"].items.copy()
    trap = np.empty(len(items), dtype=object)
    trap[:] = Malicious()
    np.save(folder / name, trap, allow_pickle=True)
    np.load(folder / name, allow_pickle=True)
    assert Path("executed").exists()  # the trap works
    Path("executed").unlink()
    if digests == "forged":
        (index_file,) = folder.glob("*.json")
        index = json.loads(index_file.read_text())
        index["digests"][name] = _file_digest(folder / name)
        del index["digest"]
        index["digest"] = _digest(index)
        index_file.write_text(json.dumps(index))
    prepare.main(command)
    assert not Path("executed").exists()
    report = json.loads(next(Path("report").glob("*.json")).read_text())
    assert "the prepared log was damaged" in report["read"]["prepared_anew"]
    np.testing.assert_array_equal(open_prepared(folder).sessions["train"].items, items)


@pytest.mark.parametrize("key", ["seed_everything", "data", "model"])
def test_a_config_executes_nothing(run: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    Path("trap.yaml").write_text(f"{key}: !!python/object/apply:os.system ['touch executed']\n")
    for command in (fit.main, prepare.main):
        with pytest.raises(SystemExit) as caught:
            command(["--config", "trap.yaml", "--data.path", "log.tsv"])
        assert caught.value.code == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not Path("executed").exists()
    assert not Path("lightning_logs").exists()


# Determinism


def test_another_process_gives_the_same_bytes(
    straight: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's hashes differ between processes; files must not."""
    test_words = ["--config", f"{RUN}/config.yaml", "--ckpt_path", "best"]
    code = "import sys; from sessrec import fit, test; fit.main(sys.argv[5:]); test.main(sys.argv[1:5])"
    environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *test_words, *MAIN]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    own = shutil.copytree(straight.parents[1], tmp_path / "own")  # a test adds to the files of a run
    monkeypatch.chdir(own)
    test.main(test_words)
    ours, theirs = hashes(own / RUN), hashes(run)
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "ranks.parquet", "config.yaml"):
        assert ours[name] == theirs[name], name
