"""How fast training is, and how near to what the machine allows; the work of ``benchmark.py train`` and ``scale``."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tqdm import tqdm

from benchmarks.common import now, vocabulary_of, zipf_sessions
from sessrec.data.loaders import SessionParallelLoader
from sessrec.data.session_parallel import Window
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.models import GRU4Rec

N_ITEMS = 18_000
CROSS_ENTROPY = {"loss": "cross-entropy", "n_sample": 2048}
BPR_MAX = {"loss": "bpr-max", "n_sample": 2048, "dropout_p_embed": 0.5, "dropout_p_hidden": 0.05, "momentum": 0.4}
BPR_MAX |= {"learning_rate": 0.05}
CONFIGS: dict[str, tuple[int, dict[str, Any]]] = {
    "ce_32_100_2048": (32, {"layers": [100], **CROSS_ENTROPY}),
    "bpr-max_80_224_2048": (80, {"layers": [224], **BPR_MAX}),
    "ce_240_512_2048": (240, {"layers": [512], **CROSS_ENTROPY}),
}


class Limit:
    """The matrix products of a step of these sizes, and its rows read and written, in memory that is there already.

    The products are those of the logits and of the GRU, forwards and backwards. The rows are those of the weights, of
    the accumulator and, where there is one, of the momentum, for the very items of each step. Every draw counts, as in
    the reference implementation; a step that multiplies equal draws once, as ours does, has a quarter less to do at the
    popularity of these sessions, and could go below.

    Args:
        model: A built model with one layer and a shared embedding.
        n_lanes: Number of lanes.
    """

    def __init__(self, model: GRU4Rec, n_lanes: int) -> None:
        self.model = model
        n_items, hidden, options = model.n_items, model.layers[-1], model.options
        self.n_candidates = n_lanes + options.n_sample
        device = model.device
        self.tables = [torch.rand(n_items, hidden, device=device) for _ in range(3 if options.momentum else 2)]
        self.rows = [torch.empty(self.n_candidates + n_lanes, hidden, device=device) for _ in self.tables]
        state = torch.rand(n_lanes, hidden, device=device)
        weight, terms = torch.rand(3 * hidden, hidden, device=device), torch.rand(n_lanes, 3 * hidden, device=device)
        logits = torch.rand(n_lanes, self.n_candidates, device=device)
        candidates = self.rows[0][: self.n_candidates]
        pairs = [
            *[(state, weight.T)] * 2,
            (state, candidates.T),
            (logits, candidates),
            (logits.T, state),
            (terms, weight),
            *[(terms.T, state)] * 2,
        ]
        self.products = [(left, right, left.new_empty(left.shape[0], right.shape[1])) for left, right in pairs]

    @torch.no_grad()
    def seconds(self, window: Window) -> float:
        """Time for the steps of a window."""
        generator = torch.Generator(self.model.device).manual_seed(0)
        negatives = self.model.sampler.sample((len(window.widths), self.model.options.n_sample), generator)
        items = torch.cat([part.to(negatives.device) for part in (window.targets, negatives, window.inputs)], dim=1)
        start = now(items)
        for step in items.unbind():
            for table, rows in zip(self.tables, self.rows, strict=True):
                torch.index_select(table, 0, step, out=rows)
            for left, right, product in self.products:
                torch.mm(left, right, out=product)
            for table, rows in zip(self.tables, self.rows, strict=True):
                table.index_copy_(0, step, rows)
        return now(items) - start


class PacedLoader:
    """Windows for a trainer, in turn with the limit on the same window, and the time that each of both took.

    What passes from one window to the next is the trainer's: loading, training step, logging, progress bar.
    """

    def __init__(self, loader: SessionParallelLoader, model: GRU4Rec, n_windows: int) -> None:
        self.loader, self.model, self.n_windows = loader, model, n_windows
        self.pairs: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return self.n_windows + 2

    def __iter__(self) -> Iterator[Window]:
        limit = Limit(self.model, self.loader.n_lanes)
        device_of = self.model.output_bias
        windows = iter(self.loader)
        start = now(device_of)
        for number, window in enumerate(windows):
            started = now(device_of) - start
            limit_seconds = limit.seconds(window)
            start = now(device_of)
            yield window
            steps = len(window.widths)
            if number:  # the first one warms up, and after the last one nobody asks for more
                self.pairs.append(((now(device_of) - start + started) / steps, limit_seconds / steps))
            start = now(device_of)


def in_lightning(
    loader: SessionParallelLoader, vocabulary: Vocabulary, n_windows: int, options: dict[str, Any], accelerator: str
) -> list[tuple[float, float]]:
    """Seconds a step and seconds of its limit, window by window, in a trainer with progress bar and TensorBoard."""
    model = GRU4Rec(**options)
    model.set_vocabulary(vocabulary)
    paced = PacedLoader(loader, model, n_windows)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=1,
            num_sanity_val_steps=0,
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(model, paced)
    return paced.pairs


def train(
    names: Sequence[str], n_windows: int, repeats: int, accelerator: str, reference: Path | None
) -> list[dict[str, Any]]:
    """Speed of each named configuration and its share of the limit: medians over all windows."""
    sessions = zipf_sessions(N_ITEMS, 20_000 + 6_000 * n_windows)
    vocabulary = vocabulary_of(sessions, N_ITEMS)
    rows = []
    for name in names:
        n_lanes, options = CONFIGS[name]
        loader = SessionParallelLoader(sessions, n_lanes)
        pairs, ratios = [], []
        for _ in range(repeats):
            own = in_lightning(loader, vocabulary, n_windows, options, accelerator)
            pairs += own
            if reference is not None:
                speed = reference_speed(reference, sessions, n_lanes, options, accelerator)
                ratios.append(1 / statistics.median(seconds for seconds, _ in own) / speed)
        steps_per_second = 1 / statistics.median(seconds for seconds, _ in pairs)
        row = {
            "name": name,
            "steps_per_second": steps_per_second,
            "events_per_second": steps_per_second * n_lanes,
            "limit_steps_per_second": 1 / statistics.median(limit for _, limit in pairs),
            "share_of_limit": statistics.median(limit / seconds for seconds, limit in pairs),
        }
        rows.append(row | ({"times_reference": statistics.median(ratios)} if ratios else {}))
    return rows


def reference_speed(
    checkout: Path, sessions: Sessions, n_lanes: int, options: dict[str, Any], accelerator: str, n_sessions: int = 8000
) -> float:
    """Steps a second that a checkout of hidasib/GRU4Rec_PyTorch_Official reports for an epoch of some sessions.

    Raises:
        SystemExit: If it does not run, with what it says.
    """
    n_events = int(sessions.offsets[n_sessions])
    session = np.repeat(np.arange(n_sessions), np.diff(sessions.offsets[: n_sessions + 1]))
    parameters = {"constrained_embedding": True, "n_epochs": 1, "batch_size": n_lanes, "sample_alpha": 0.75}
    if options["loss"] == "cross-entropy":
        parameters |= {"logq": 1.0, "dropout_p_embed": 0.1, "learning_rate": 0.1}
    parameters |= options | {"layers": "/".join(map(str, options["layers"]))}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clicks.tsv"
        rows = zip(session.tolist(), sessions.items[:n_events].tolist(), range(n_events), strict=True)
        lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = ["-ps", ",".join(f"{name}={value}" for name, value in parameters.items())]
        device = "cuda:0" if accelerator == "gpu" else "cpu"
        command = [sys.executable, str(checkout.resolve() / "run.py"), str(file), *words, "-d", device]
        done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"([\d.]+) mb/s", done.stdout)
    if done.returncode or found is None:
        raise SystemExit(f"{checkout} does not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return float(found.group(1))


def scale(
    names: Sequence[str], n_windows: int, accelerator: str, catalogues: tuple[int, int] = (10_000, 1_000_000)
) -> list[dict[str, Any]]:
    """How much longer a step, and its limit, takes in a large catalogue than in a small one; windows of both in turn.

    All samples are drawn uniformly, so that the steps have about as many different items to look up.
    """
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    rows = []
    for name in names:
        n_lanes, options = CONFIGS[name]
        runs: list[Any] = []
        for n_items in catalogues:
            sessions = zipf_sessions(n_items, 20_000 + 6_000 * n_windows)
            model = GRU4Rec(**options, sample_alpha=0.0)
            model.set_vocabulary(vocabulary_of(sessions, n_items))
            model.to(device)
            windows = iter(SessionParallelLoader(sessions, n_lanes))
            runs.append((model, model.configure_optimizers(), windows, Limit(model, n_lanes)))
        seconds = np.zeros((n_windows, 4))
        for number in tqdm(range(n_windows), desc=name, disable=None):
            for place, (model, optimizer, windows, limit) in enumerate(runs):
                window = next(windows)
                window = Window(*(tensor.to(device) for tensor in window[:4]), *window[4:])
                start = now(model.output_bias)
                model.train_window(window, optimizer, torch.Generator(device).manual_seed(number))
                seconds[number, place] = (now(model.output_bias) - start) / len(window.widths)
                seconds[number, 2 + place] = limit.seconds(window) / len(window.widths)
        seconds = seconds[1:]  # the first window warms up
        small, large, _, _ = np.median(1e6 * seconds, axis=0).tolist()
        growth, limit_growth = (float(np.median(seconds[:, place + 1] / seconds[:, place])) for place in (0, 2))
        row = {"name": name, f"us_{catalogues[0]}_items": small, f"us_{catalogues[1]}_items": large, "growth": growth}
        rows.append(row | {"growth_of_limit": limit_growth})
    return rows
