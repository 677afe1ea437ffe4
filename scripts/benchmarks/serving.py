"""How fast the server answers; the work of ``benchmark.py serve``."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from benchmarks.common import vocabulary_of, zipf_sessions
from benchmarks.http_load import Load
from sessrec.callbacks.checkpoints import CheckpointFiles
from sessrec.data.loaders import LogLoader, SessionParallelLoader
from sessrec.data.sessions import Sessions
from sessrec.models import VMISKNN, GRU4Rec, SessionRecommender

CASES: dict[str, tuple[str, int, float]] = {
    "items_17600": ("GRU4Rec", 17_600, 1000.0),
    "vmis_knn": ("VMISKNN", 17_600, 250.0),
    "items_100000": ("GRU4Rec", 100_000, 500.0),
    "items_1000000": ("GRU4Rec", 1_000_000, 100.0),
}
"""Model, number of items, and requests a second at which the times are taken."""
N_SESSIONS = 50_000


def serve(seconds: float) -> list[dict[str, Any]]:
    """Times at a rate, answers a second, and their share of those of a server that does nothing.

    The server has one core, the client another, where there are two.

    Args:
        seconds: Time of each measurement.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, n_items, rate) in CASES.items():
            sessions = zipf_sessions(n_items, N_SESSIONS)
            checkpoint = Path(folder, f"{name}.ckpt")
            _save(model, sessions, n_items, checkpoint)
            bodies = _bodies(sessions)
            with _server("empty") as (port, _):
                _warm_up(port, bodies, seconds)
                empty = _measure(port, bodies, rate, seconds)
            with _server(str(checkpoint)) as (port, process):
                _warm_up(port, bodies, seconds)
                before = _memory(process)
                row = _measure(port, bodies, rate, seconds)
                memory = _memory(process)
            share = row["saturated"] / empty["saturated"]
            rows.append({"name": name, **row, "share_of_empty": share, "mb": memory, "mb_more": memory - before})
    return rows


def _save(name: str, sessions: Sessions, n_items: int, file: Path) -> None:
    """A checkpoint of a model after a step, or one pass."""
    model: SessionRecommender = GRU4Rec(layers=[100]) if name == "GRU4Rec" else VMISKNN()
    model.set_vocabulary(vocabulary_of(sessions, n_items))
    loader = SessionParallelLoader(sessions, 32) if name == "GRU4Rec" else LogLoader(sessions)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=1, accelerator="cpu", plugins=[CheckpointFiles()], enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(model, loader)
    trainer.save_checkpoint(file)


def _bodies(sessions: Sessions, n: int = 2000) -> list[bytes]:
    """Requests for the beginnings of some sessions."""
    rng, found = np.random.default_rng(1), []
    for number in rng.integers(len(sessions), size=n):
        items = np.asarray(sessions.items[sessions.offsets[number] : sessions.offsets[number + 1]])
        found.append(json.dumps({"items": [str(item) for item in items[: rng.integers(1, len(items) + 1)]]}).encode())
    return found


def _measure(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> dict[str, float]:
    load = Load(port, bodies, n_connections=64)
    asyncio.run(load.at_rate(rate, seconds))
    times = np.percentile(1000 * np.array(load.seconds), [50, 90, 99])
    full = Load(port, bodies)
    saturated = asyncio.run(full.saturated(seconds))
    if load.n_failed or full.n_failed:
        raise SystemExit(f"{load.n_failed + full.n_failed} requests were not answered with 200")
    return {
        "rate": rate,
        **dict(zip(("p50_ms", "p90_ms", "p99_ms"), times.tolist(), strict=True)),
        "saturated": saturated,
        "requests": len(load.seconds) + len(full.seconds),
    }


def _warm_up(port: int, bodies: Sequence[bytes], seconds: float) -> None:
    asyncio.run(Load(port, bodies).saturated(min(1.0, seconds)))


def _memory(process: int) -> float:
    """Memory of a process in MB, where Linux tells it."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


@contextmanager
def _server(what: str) -> Iterator[tuple[int, int]]:
    """A server of a checkpoint, or the empty one, on a core of its own; gives its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if what == "empty":
        words = [str(Path(__file__).with_name("empty_server.py")), str(port)]
    else:
        words = ["-m", "sessrec.serve", "--ckpt_path", what, "--port", str(port), "--threads", "1"]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    try:
        if len(cores) > 1:
            os.sched_setaffinity(process.pid, {cores[0]})
            os.sched_setaffinity(0, {cores[1]})
        _wait_for(port, process)
        yield port, process.pid
    finally:
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores))
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=120).read()
            return
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                raise SystemExit("the server does not start") from None
            time.sleep(0.1)
    raise SystemExit("the server does not answer")
