"""Fits whose processes Ray starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from resuming import differences
from test_distributed import ARGS, LAUNCH, TWO, checkpoint_of, folder  # noqa: F401

pytest.importorskip("ray.train", reason="needs Ray: make test-engines")
RAY = ["--launcher", "ray", "--workers", "2"]
OF_RUN = ["--trainer.logger.version"]


def command(*args: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCH}
    words = [sys.executable, "-m", "sessrec.fit", *ARGS, *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=environment | {"OMP_NUM_THREADS": "1"}, **pipes)  # type: ignore[call-overload]


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """What a command has said when it ends."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out + err)[-3000:]
    return out, err


def worker() -> int:
    """A process of those that Ray has started for a fit."""
    words = ["pgrep", "-f", "ray::.*RayTrainWorker"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])


def assert_equal(run: str, other: str) -> None:
    one, two = checkpoint_of(run), checkpoint_of(other)
    for key in ("global_step", "state_dict", "optimizer_states"):
        assert not differences(one[key], two[key], key)


def test_two_workers_fit_as_two_processes_of_lightning(folder: Path) -> None:  # noqa: F811
    ended(command(*TWO, *OF_RUN, "plain"))
    out, err = ended(command(*RAY, *OF_RUN, "ray"))
    assert_equal("plain", "ray")
    assert out.count("fit of GRU4Rec") == 1
    assert "Ray" not in out + err
    assert not Path("lightning_logs/ray/ray").exists()
    assert "launcher: null" in Path("lightning_logs/ray/config.yaml").read_text()
    assert json.loads(Path("lightning_logs/ray/fit.json").read_text())["steps"] > 50


def test_a_worker_that_is_killed_is_replaced_and_the_fit_ends_equal(folder: Path) -> None:  # noqa: F811
    longer = ["--trainer.max_epochs", "40", "--checkpoint.every_n_steps", "50"]
    ended(command(*TWO, *longer, *OF_RUN, "plain"))
    process = command(*RAY, *longer, *OF_RUN, "ray")
    last, end = Path("lightning_logs/ray/checkpoints/last.ckpt"), time.monotonic() + 400
    while not last.exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(worker(), signal.SIGKILL)
    ended(process)
    assert_equal("plain", "ray")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.path", "nowhere.tsv"], "no such file: nowhere.tsv (--data.path)"),
        (["--ckpt_path", "best"], "no checkpoint lightning_logs/run/checkpoints/best.ckpt"),
        (["--workers", "1000"], "--workers 1000: the Ray cluster has "),
        (["--trainer.devices", "2"], "with --launcher ray, --workers says how many processes there are"),
    ],
)
def test_what_cannot_work_is_one_line(args: list[str], message: str, folder: Path) -> None:  # noqa: F811
    err = ended(command(*RAY, *args), code=2)[1]
    assert message in err
    assert "Traceback" not in err
    assert not Path("lightning_logs").exists() or not list(Path("lightning_logs").iterdir())
