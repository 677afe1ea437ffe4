"""Mixed precision: products in 16 bits, weights, losses and ranks in 32."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from helpers import make_sessions, make_trainer, make_vocabulary
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback, StochasticWeightAveraging

from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.session_parallel import LaneGrid
from sessrec.data.synthetic import generate_synthetic_sessions
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec
from sessrec.nn.losses import Candidates

SEQUENCES = [[(5 * session + 3 * step) % 13 for step in range(7)] for session in range(6)]


def model_for(**options: object) -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(**({"layers": [8], "n_sample": 10, "dropout_p_embed": 0.0} | options))  # type: ignore[arg-type]
    model.set_vocabulary(make_vocabulary(13))
    return model


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_no_step_takes_weights_from_before(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast keeps its 16-bit copies of weights while it lasts: a window of six steps equals six windows of one."""
    grid = LaneGrid(make_sessions(SEQUENCES), n_lanes=3)
    negatives = torch.randint(13, (6, 10), generator=torch.Generator().manual_seed(1))
    weights = []
    for bounds in ([0, 6], [0, 1, 2, 3, 4, 5, 6]):
        model = model_for(loss=loss)
        optimizer = model.configure_optimizers()
        for start, window in zip(bounds, grid.windows(bounds), strict=False):
            drawn = negatives[start : start + len(window.widths)]
            monkeypatch.setattr(model.sampler, "sample", lambda shape, generator, drawn=drawn: drawn)
            with torch.autocast("cpu", torch.bfloat16):
                model.train_window(window, optimizer, torch.Generator())
        weights.append(model.state_dict())
    plain = model_for(loss=loss)
    monkeypatch.setattr(plain.sampler, "sample", lambda shape, generator: negatives)
    plain.train_window(grid.window(0, 6), plain.configure_optimizers(), torch.Generator())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name
    assert not torch.equal(weights[0]["cells.0.weight_hh"], plain.state_dict()["cells.0.weight_hh"])


def test_scores_are_taken_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for()
    batch = EvaluationLoader(make_sessions(SEQUENCES), batch_size=6)[0]
    seen = []
    score = model.score

    def spy(queries: torch.Tensor, items: slice) -> torch.Tensor:
        scores = score(queries, items)
        seen.append((torch.is_autocast_enabled("cpu"), queries.dtype, scores.dtype))
        return scores

    monkeypatch.setattr(model, "score", spy)
    with torch.autocast("cpu", torch.bfloat16):
        model.count_positions(batch)
        model.predict_step(batch, 0)
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    assert set(seen) == {(False, torch.float32, torch.float32)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"precision": f"{bits}-true"}, f"--trainer.precision {bits}-true is not supported: use one of 32-true")
          for bits in ("16", "bf16")),
        # what it leaves in a checkpoint cannot be loaded as the model's weights
        ({"callbacks": [StochasticWeightAveraging(0.1)]}, "StochasticWeightAveraging is not supported"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_other_precisions_and_averages_of_weights_are_refused(options: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(SessRecError, match=said):
        make_trainer(tmp_path, max_epochs=1, **options).fit(model_for(), SessionDataModule(cache_dir=None))


@pytest.mark.filterwarnings("ignore")
def test_precisions_agree(tmp_path: Path) -> None:
    """The same fit in 16, 32 and 64 bits, from the same weights, ends at about the same metric."""
    generate_synthetic_sessions(1500, 100, seed=1).to_csv(tmp_path / "log.tsv", sep="\t", index=False)
    results: dict[str, float] = {}
    weights: list[dict[str, torch.Tensor]] = []

    def begin(_: Trainer, model: GRU4Rec) -> None:
        weights.append(copy.deepcopy(model.state_dict()))
        model.load_state_dict(weights[0])

    for precision in ("32-true", "bf16-mixed", "64-true"):
        torch.manual_seed(3)
        model = GRU4Rec(layers=[16], n_sample=64, cutoffs=[5])
        data = SessionDataModule(str(tmp_path / "log.tsv"), val_ratio=0.3, batch_size=16, cache_dir=None)
        callbacks = [LambdaCallback(on_fit_start=begin)]
        make_trainer(tmp_path, precision=precision, max_epochs=1, callbacks=callbacks).fit(model, data)
        results[precision] = model.results["val/recall@5"]
    assert weights[2]["output_embedding"].dtype == torch.float64
    assert results["32-true"] > 0.1
    assert results["64-true"] == pytest.approx(results["32-true"], rel=0.01)
    assert results["bf16-mixed"] == pytest.approx(results["32-true"], rel=0.03)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "bpr"])
def test_logits_and_losses_are_taken_in_32_bits(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also their parts that autocast would lower by itself, such as dot products."""
    model = model_for(loss=loss)
    loss_of = model._loss
    pairs = []

    def spy(logits: torch.Tensor, candidates: Candidates) -> tuple[torch.Tensor, torch.Tensor]:
        before = logits.clone()
        ours = loss_of(logits, candidates)
        with torch.autocast("cpu", enabled=False):
            pairs.append((tuple(part.clone() for part in ours), loss_of(before, candidates)))
        return ours

    monkeypatch.setattr(model, "_loss", spy)
    window = LaneGrid(make_sessions(SEQUENCES), n_lanes=3).window(0, 2)
    with torch.autocast("cpu", torch.bfloat16):
        model.train_window(window, model.configure_optimizers(), torch.Generator())
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16  # autocast goes on as before
    for ours, exact in pairs:
        assert ours[0].dtype == torch.float32
        assert torch.equal(ours[0], exact[0])
        assert torch.equal(ours[1], exact[1])
