"""What a checkpoint costs: `benchmark.py save`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.training import vocabulary_of, zipf_sessions
from sessrec.callbacks.checkpoints import CheckpointFiles, LastCheckpoint
from sessrec.data import SessionDataModule
from sessrec.data.loaders import SessionParallelLoader
from sessrec.models import GRU4Rec


class _Timed(LastCheckpoint):
    """Keeps the seconds that each checkpoint takes, until it is synced to the disk."""

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps, every_minutes=None)
        self.seconds: list[float] = []

    def _save(self, trainer: Trainer) -> None:
        start = time.perf_counter()
        super()._save(trainer)
        self.seconds.append(time.perf_counter() - start)


class _ManyItems(LightningDataModule):
    """Sessions over a large catalogue."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.sessions = zipf_sessions(n_items, 200_000)
        self.vocabulary = vocabulary_of(self.sessions, n_items)

    def train_dataloader(self) -> SessionParallelLoader:
        """Windows of 32 lanes."""
        return SessionParallelLoader(self.sessions, 32)


def save(repeats: int, catalogues: Sequence[int] = (1_000_000,)) -> list[dict[str, Any]]:
    """Size and time of a checkpoint inside an epoch, and its share of a minute.

    Args:
        repeats: Checkpoints of each fit.
        catalogues: Numbers of items to measure beside the default config with its generated sessions.
    """
    rows = []
    data: dict[str, Any] = {"default_config": SessionDataModule(cache_dir=None)}
    data |= {f"{n_items}_items": _ManyItems(n_items) for n_items in catalogues}
    for name, module in data.items():
        timed = _Timed(every_n_steps=16)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                max_steps=16 * repeats,
                limit_val_batches=0,
                logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
                callbacks=[timed],
                plugins=[CheckpointFiles()],
                enable_checkpointing=True,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
            trainer.fit(GRU4Rec(), module)
            size = (Path(folder) / "checkpoints" / "last.ckpt").stat().st_size
        seconds = statistics.median(timed.seconds)
        rows.append({"name": name, "mb": size / 1e6, "ms": 1e3 * seconds, "percent_of_a_minute": 100 * seconds / 60})
    return rows
