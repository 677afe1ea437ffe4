"""Learning rates against values worked out by hand, and clipped gradients against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_trainer, one_error
from torch.optim import Adam, Optimizer

from sessrec import fit
from sessrec.data import SessionDataModule
from sessrec.errors import SessRecError
from sessrec.models import NARM, GRU4Rec, SASRec
from sessrec.models.neural import NeuralRecommender
from sessrec.models.schedules import Schedule
from sessrec.nn.optim import AdagradMomentum

HALF = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]


@pytest.mark.parametrize(
    ("schedule", "total", "expected"),
    [
        (("constant", "step", 0), None, [1.0, 1.0, 1.0]),
        (("constant", "step", 3), None, [0.25, 0.5, 0.75, 1.0, 1.0]),
        (("constant", "epoch", 1), 2, [0.5, 1.0, 1.0]),
        (("linear", "step", 0), 4, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        (("linear", "step", 3), 5, [0.25, 0.5, 0.75, 1.0, 0.5, 0.0]),
        (("cosine", "epoch", 0), 4, [*HALF, 0.0, 0.0]),
        (("cosine", "step", 2), 6, [1 / 3, 2 / 3, *HALF, 0.0]),
        (("stairs", "epoch", 0), 2, [1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01]),
        (("stairs", "step", 1, 2), None, [0.5, 1.0, 1.0, 0.1, 0.1, 0.01]),
    ],
)
def test_factors_by_hand(schedule: tuple[Any, ...], total: int | None, expected: list[float]) -> None:
    own = Schedule(*schedule)
    own.check()
    assert [own.factor(done, total) for done in range(len(expected))] == pytest.approx(expected, abs=1e-15)
    assert own.changes == (schedule != ("constant", "step", 0))


class OwnLoss(NeuralRecommender):
    """Every item has a weight of its own, and sessions none."""

    batches = "sessions"

    def __init__(self, learning_rate: float = 0.1, **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()

    def build(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(self.n_items))

    def configure_optimizers(self) -> Optimizer:
        return Adam(self.parameters(), self.options.learning_rate)

    def loss(self, batch: Any) -> torch.Tensor:
        place = torch.arange(1, batch.items.shape[1])
        targets = batch.items[:, 1:][place < batch.lengths[:, None]]
        return -self.weight.log_softmax(0)[targets].sum()


class OwnStep(OwnLoss):
    def train_window(self, window: Any, optimizer: Optimizer, generator: torch.Generator) -> torch.Tensor:
        return super().train_window(window, optimizer, generator)


@pytest.fixture
def data(write_log: Callable[..., Path]) -> Callable[..., SessionDataModule]:
    """Data of a log of 23 sessions."""
    rows = [(s, f"i{(5 * s + n * n) % 7}", 1_600_000_000 + 100 * s + n) for s in range(23) for n in range(2 + s % 5)]
    log = str(write_log(rows))
    return lambda **options: SessionDataModule(
        log, **({"val_ratio": 0, "test_ratio": 0, "batch_size": 4, "steps_per_window": 3, "cache_dir": None} | options)
    )


def rates_of_fit(
    monkeypatch: pytest.MonkeyPatch, trainer: Any, model: NeuralRecommender, data: SessionDataModule
) -> list[float]:
    """The learning rate of every update of a fit."""
    rates: list[float] = []

    def spied(original: Callable[..., Any]) -> Callable[..., Any]:
        def spy(self: Optimizer, *args: Any) -> Any:
            rates.extend(group["lr"] for group in self.param_groups)
            return original(self, *args)

        return spy

    monkeypatch.setattr(AdagradMomentum, "update", spied(AdagradMomentum.update))
    monkeypatch.setattr(Adam, "step", spied(Adam.step))
    trainer.fit(model, data)
    return rates


@pytest.mark.parametrize(
    "model_of", [lambda **o: GRU4Rec(layers=[4], n_sample=5, **o), lambda **o: NARM(hidden_size=4, **o), OwnLoss]
)
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 20}, {"max_epochs": 9, "limit_train_batches": 2}])
def test_every_step_has_its_rate(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Callable[..., SessionDataModule],
    model_of: Callable[..., NeuralRecommender],
    limit: dict[str, int],
) -> None:
    """Also inside a window, and the curve shows it."""
    logged = []

    def fit_of(**schedule: Any) -> list[float]:
        trainer = make_trainer(tmp_path, **limit, log_every_n_steps=1)
        model = model_of(learning_rate=0.02, **schedule)
        monkeypatch.setattr(model, "log_at_step", lambda figures: logged.append(figures.get("train/learning_rate")))
        with monkeypatch.context() as patch:
            return rates_of_fit(patch, trainer, model, data())

    constant = fit_of()
    total = len(constant)
    assert total > 12
    assert set(constant) == {0.02}
    logged.clear()
    rates = fit_of(schedule="cosine", warmup=3)
    expected = [(n + 1) / 4 if n < 3 else (1 + math.cos(math.pi * (n - 3) / (total - 3))) / 2 for n in range(total)]
    assert rates == pytest.approx([0.02 * factor for factor in expected], rel=1e-12)
    assert {rate for rate in logged if rate is not None} <= set(rates)
    assert [rate for rate in logged if rate is not None][-1] == rates[-1]
    if "max_epochs" in limit:
        n_epochs = limit["max_epochs"]
        per_epoch = [0.02 * (1 - epoch / n_epochs) for epoch in range(n_epochs)]
        expected = [rate for rate in per_epoch for _ in range(total // n_epochs)]
        assert fit_of(schedule="linear", schedule_unit="epoch") == pytest.approx(expected, rel=1e-12)
    else:
        assert len(set(fit_of(schedule="linear", schedule_unit="epoch"))) > 1


@pytest.mark.parametrize(
    ("options", "limit", "message"),
    [
        ({"schedule": "step"}, {}, "--model.schedule must be constant, linear, cosine or stairs"),
        ({"schedule_unit": "window"}, {}, "--model.schedule_unit must be step or epoch"),
        ({"warmup": -1}, {}, "--model.warmup must be at least 0"),
        ({"stair": 0}, {}, "--model.stair must be at least 1"),
        ({"schedule": "cosine"}, {"max_epochs": -1}, "--model.schedule cosine falls to the end of the fit, which has"),
        (
            {"schedule": "linear", "warmup": 50},
            {"max_steps": 50},
            "--model.warmup 50 must be less than the 50 steps of the fit",
        ),
        (
            {"schedule": "cosine", "schedule_unit": "epoch", "warmup": 2},
            {"max_epochs": 2},
            r"--model.warmup 2 must be less than the 2 epochs of the fit \(--model.schedule_unit epoch\)",
        ),
    ],
)
def test_schedules_without_a_meaning_are_refused(
    tmp_path: Path, data: Callable[..., SessionDataModule], options: dict, limit: dict, message: str
) -> None:
    with pytest.raises(SessRecError, match=message):
        make_trainer(tmp_path, **limit).fit(OwnLoss(**options), data())


# Clipping


def gradients_of_steps(monkeypatch: pytest.MonkeyPatch, trainer: Any, model: Any, data: Any) -> list[np.ndarray]:
    """All gradients at each call of the optimiser."""
    gradients = []

    def step(self: Optimizer) -> None:
        gradients.append(np.concatenate([p.grad.double().numpy().ravel() for p in self.param_groups[0]["params"]]))

    with monkeypatch.context() as patch:
        patch.setattr(Adam, "step", step)
        trainer.fit(model, data)
    return gradients


@pytest.mark.parametrize("model_of", [lambda: NARM(hidden_size=4, embedding_size=4, n_sample=3), OwnLoss])
@pytest.mark.parametrize("algorithm", ["norm", "value", None])
def test_gradients_are_clipped(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Callable[..., SessionDataModule],
    model_of: Callable[[], NeuralRecommender],
    algorithm: str | None,
) -> None:
    def fits(*values: float | None) -> list[list[np.ndarray]]:
        found = []
        for value in values:
            torch.manual_seed(1)
            trainer = make_trainer(tmp_path, max_epochs=1, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
            found.append(gradients_of_steps(monkeypatch, trainer, model_of(), data()))
            assert trainer.gradient_clip_val == value
        return found

    usual, (whole,) = fits(None)[0], fits(1e9)
    assert len(usual) == 6
    np.testing.assert_array_equal(whole, usual)
    size = 0.5 * (np.abs(usual).max() if algorithm == "value" else np.linalg.norm(usual, axis=1).max())
    (clipped,) = fits(size)
    for own, before in zip(clipped, usual, strict=True):
        expected = np.clip(before, -size, size)
        if algorithm != "value":
            expected = before * min(1.0, size / np.linalg.norm(before))
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-9)
    assert any((own != before).any() for own, before in zip(clipped, usual, strict=True))


def test_a_trainer_clips_in_every_fit(tmp_path: Path, data: Callable[..., SessionDataModule]) -> None:
    trainer, model = make_trainer(tmp_path, max_epochs=1, gradient_clip_val=0.1), OwnLoss()
    for _ in range(2):
        trainer.fit(model, data())
        assert trainer.gradient_clip_val == 0.1


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (
            GRU4Rec(layers=[4]),
            1.0,
            "gradient_clip_val 1.0 is not supported: the training step of GRU4Rec clips no gradients",
        ),
        (OwnStep(), 1.0, "--trainer.gradient_clip_val 1.0 is not supported: the training step of OwnStep clips"),
        (OwnLoss(), -1.0, "--trainer.gradient_clip_val must be above 0"),
        (SASRec(), 0.0, "--trainer.gradient_clip_val must be above 0"),
    ],
)
def test_clipping_that_would_have_no_effect_is_refused(
    tmp_path: Path, data: Callable[..., SessionDataModule], model: Any, value: float, message: str
) -> None:
    with pytest.raises(SessRecError, match=message):
        make_trainer(tmp_path, max_epochs=1, gradient_clip_val=value).fit(model, data())


@pytest.mark.parametrize("model", ["GRU4Rec", "Popularity"])
def test_the_command_refuses_it_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.tsv").write_text("SessionId\tItemId\tTime\n1\ta\t1\n1\tb\t2\n")
    words = ["--model", model, "--data.path", "log.tsv", "--trainer.gradient_clip_val", "1", "--data.val_ratio", "0"]
    message = one_error(capsys, fit.main, words)
    assert f"--trainer.gradient_clip_val 1.0 is not supported: the training step of {model} clips no" in message
    assert [file.name for file in tmp_path.iterdir()] == ["log.tsv"]
