"""The contract of models/fit_loop.py with Lightning: what it relies on is there, and means what it takes it to mean."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
from helpers import make_trainer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.tuner import Tuner

from sessrec.data import SessionDataModule
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec, Popularity
from sessrec.models.fit_loop import Progress, resume_inside_epoch


class Counts(Callback):
    """Notes Lightning's counters of batches and steps at the start of each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int, int]] = []

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress
        self.seen.append((trainer.global_step, batches.current.ready, batches.current.completed, batches.total.ready))


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """After two epochs of windows of 8 steps."""
    data = SessionDataModule(cache_dir=None, batch_size=64, steps_per_window=8, val_ratio=0)
    trainer = make_trainer(tmp_path, callbacks=[Counts()], max_epochs=2, limit_train_batches=3)
    trainer.fit(GRU4Rec(layers=[8], n_sample=16), data)
    return trainer


def test_the_lightning_that_was_read() -> None:
    assert lightning.__version__.startswith("2.6."), (
        "read the loops again, then change models/fit_loop.py and this line"
    )


def test_steps_are_counted_and_batches_are_those_of_the_loop(trainer: Trainer) -> None:
    counts = next(callback for callback in trainer.callbacks if isinstance(callback, Counts))  # type: ignore[attr-defined]
    assert [row[1:] for row in counts.seen] == [(1, 0, 1), (2, 1, 2), (3, 2, 3), (1, 0, 4), (2, 1, 5), (3, 2, 6)]
    steps = [row[0] for row in counts.seen]
    assert steps[0] == 0
    assert all(7 <= later - step <= 8 for step, later in zip(steps, steps[1:], strict=False))  # of windows, not batches
    assert trainer.global_step > steps[-1]


def test_a_resumed_epoch_has_its_batches_behind_it(trainer: Trainer) -> None:
    loop = trainer.fit_loop
    loop.epoch_progress.current.processed -= 1  # as in a checkpoint from inside an epoch
    loop.restarting = True
    resume_inside_epoch(trainer, 2)
    batches = loop.epoch_loop.batch_progress
    for counts, expected in ((batches.current, 2), (batches.total, 3 + 2)):
        assert {counts.ready, counts.started, counts.processed, counts.completed} == {expected}
    assert not batches.is_last_batch
    assert loop.restarted_mid_epoch
    assert loop.epoch_loop.restarted_on_last  # the validation after batch 2 is not done again


def test_a_new_fit_of_a_model_left_inside_an_epoch_starts_a_new_epoch(tmp_path: Path) -> None:
    data = SessionDataModule(cache_dir=None, batch_size=64, steps_per_window=8, val_ratio=0)
    model = GRU4Rec(layers=[8], n_sample=16)
    for max_steps in (12, 20):
        counts = Counts()
        make_trainer(tmp_path, callbacks=[counts], max_steps=max_steps).fit(model, data)
        n_windows = -(-max_steps // 8)
        assert counts.seen[0][0] == 0
        assert [row[1] for row in counts.seen] == list(range(1, n_windows + 1))
        assert model.progress.windows == n_windows - 1  # the last one is cut


def test_progress() -> None:
    progress = Progress()
    assert not progress.inside_epoch
    progress.add(n_steps=3, loss=1.5, n_pairs=12, is_whole=False)
    assert (progress.inside_epoch, progress.windows, progress.steps) == (True, 0, 3)
    progress.add(n_steps=5, loss=2.5, n_pairs=20, is_whole=True)
    assert progress == Progress(windows=1, steps=0, loss=4.0, n_pairs=32)
    assert Progress.of_checkpoint({"format": 3, "progress": progress.state_dict()}) == progress
    assert Progress.of_checkpoint({"format": 2, "progress": {"steps": 9}}) == Progress()


@pytest.mark.parametrize(
    ("tool", "said"),
    [("lr_find", "--option model.learning_rate"), ("scale_batch_size", "--option data.batch_size")],
)
def test_tools_that_count_batches_are_refused(tmp_path: Path, tool: str, said: str) -> None:
    """They would change nothing between the steps of a window (case 117)."""
    tuner = Tuner(make_trainer(tmp_path, max_epochs=1))
    with pytest.raises(SessRecError, match=f"cannot count the many optimiser steps .*{said}"):
        getattr(tuner, tool)(GRU4Rec(layers=[4]), datamodule=SessionDataModule(cache_dir=None))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_barebones_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", barebones=True, default_root_dir=tmp_path)
    with pytest.raises(SessRecError, match="barebones is not supported: it logs no metric; give logger"):
        trainer.fit(Popularity(), SessionDataModule(cache_dir=None))
