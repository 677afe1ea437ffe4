"""How fast a full ranking is, and in how much memory; the work of ``benchmark.py eval`` and ``memory``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from benchmarks.common import in_new_process, now, vocabulary_of, zipf_sessions
from sessrec.data.loaders import EvaluationBatch, EvaluationLoader, SessionParallelLoader
from sessrec.models import GRU4Rec
from sessrec.models.inference import top_items

HIDDEN = 100


class EvaluationLimit:
    """What no full ranking can go below: the product that scores all items, and one comparison of every score."""

    def __init__(self, model: GRU4Rec, n_positions: int = 512, n_columns: int = 1024) -> None:
        self.model, self.n_positions = model, n_positions
        device = model.device
        self.queries = torch.rand(n_positions, HIDDEN, device=device)
        self.threshold = torch.rand(n_positions, 1, device=device)
        self.n_columns = n_columns if device.type == "cpu" else 32768
        self.scores = torch.empty(n_positions, self.n_columns, device=device)

    def seconds(self, n_positions: int) -> float:
        """Time for some positions."""
        table, bias = self.model.output_embedding, self.model.output_bias[:, 0]
        start = now(table)
        for first in range(0, n_positions, self.n_positions):
            queries = self.queries[: n_positions - first]
            for stop in range(0, len(table), self.n_columns):
                items = slice(stop, stop + self.n_columns)
                scores = self.scores[: len(queries), : len(bias[items])]
                torch.addmm(bias[items], queries, table[items].T, out=scores)
                torch.gt(scores, self.threshold[: len(queries)], out=scores)
        return now(table) - start


class PacedEvaluation:
    """Batches for a trainer, in turn with the limit for as many positions, and the time that each of both took.

    The last batch is not timed: after it the trainer asks for no more.
    """

    def __init__(self, loader: EvaluationLoader, model: GRU4Rec) -> None:
        self.loader, self.model = loader, model
        self.times: list[tuple[int, float, float]] = []

    def __len__(self) -> int:
        return len(self.loader)

    @torch.inference_mode()
    def __iter__(self) -> Iterator[EvaluationBatch]:
        limit = EvaluationLimit(self.model)
        for number in range(len(self.loader)):
            start = now(self.model.output_bias)
            batch = self.loader[number]
            loaded = now(self.model.output_bias) - start
            n_positions = int((batch.lengths - 1).sum())
            limit_seconds = limit.seconds(n_positions)
            start = now(self.model.output_bias)
            yield batch
            self.times.append((n_positions, now(self.model.output_bias) - start + loaded, limit_seconds))


def model_of(n_items: int, n_sessions: int) -> tuple[GRU4Rec, EvaluationLoader]:
    """A model with random weights, and sessions to evaluate it on."""
    sessions = zipf_sessions(n_items, n_sessions)
    model = GRU4Rec(layers=[HIDDEN])
    model.set_vocabulary(vocabulary_of(sessions, n_items))
    return model, EvaluationLoader(sessions, batch_size=512)


def evaluate(
    repeats: int, accelerator: str, catalogues: tuple[int, ...] = (18_000, 500_000), n_scores: int = 200_000_000
) -> list[dict[str, Any]]:
    """Positions a second of a test with all metrics and its share of the limit: medians over the repeats."""
    rows = []
    for n_items in catalogues:
        model, loader = model_of(n_items, n_scores // n_items + 512)
        speeds, shares = [], []
        for repeat in range(repeats + 1):
            paced = PacedEvaluation(loader, model)
            Trainer(accelerator=accelerator, devices=1, logger=False).test(model, paced, verbose=False)
            n_positions, seconds, limit_seconds = map(sum, zip(*paced.times, strict=True))
            if repeat:  # the first round warms up
                speeds.append(n_positions / seconds)
                shares.append(limit_seconds / seconds)
        row = {"name": f"items_{n_items}_hidden_{HIDDEN}", "positions_per_second": statistics.median(speeds)}
        rows.append(row | {"share_of_limit": statistics.median(shares)})
    return rows


def peak_memory(what: str) -> dict[str, float]:
    """Peak in MB, beyond the model (and its optimiser's state), of a full ranking or of training with 1 million items.

    For a process of its own, on Linux, which can forget the peak of making the model.
    """
    model, loader = model_of(1_000_000, 2048)
    state_mb = 0.0
    own = Path("/proc/self")
    (own / "clear_refs").write_text("5", encoding="utf-8")  # the peak starts from now
    before = _status_mb(own / "status", "VmRSS")
    if what == "evaluation":
        with torch.inference_mode():
            for number in range(len(loader)):
                model.count_positions(loader[number])
                top_items(model, loader[number].items, loader[number].lengths, 20)
    else:
        optimizer = model.configure_optimizers()
        for window in SessionParallelLoader(loader.sessions, 32):
            model.train_window(window, optimizer, torch.Generator())
        kept = [value for states in optimizer.state.values() for value in states.values()]
        state_mb = sum(value.numel() * value.element_size() for value in kept) / 1e6
    return {"mb": _status_mb(own / "status", "VmHWM") - before - state_mb}


def _status_mb(file: Path, name: str) -> float:
    line = next(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def memory(repeats: int) -> dict[str, float]:
    """Peak memory beyond the model with 1 million items, and the time from the command to its first step's end."""
    figures = {f"{what}_peak_mb": in_new_process(peak_memory, what)["mb"] for what in ("evaluation", "training")}
    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "sessrec.fit", "--trainer.max_steps", "1", "--trainer.limit_val_batches"]
            command += ["0", "--trainer.logger.save_dir", folder, "--data.cache_dir", f"{folder}/prepared"]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    return figures | {"seconds_of_a_fit_of_one_step": float(np.median(seconds))}
