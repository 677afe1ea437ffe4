"""Parity with the reference trajectories: batches, losses, weights and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sessrec.click_log.reading import read_events
from sessrec.data.loaders import EvaluationLoader, LaneGrid
from sessrec.data.sessions import Sessions, map_events
from sessrec.data.vocabulary import Vocabulary
from sessrec.evaluation.metrics import rank_from_counts, ranking_metrics
from sessrec.models import GRU4Rec

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = sorted(file.stem for file in GOLDEN.glob("*.npz"))
OUR_NAMES = {
    "Wy.weight": "output_embedding",
    "By.weight": "output_bias",
    "E.weight": "input_embedding",
    "GE.Wx0.weight": "input_embedding",
    "GE.Wrz0": "cells.0.weight_rz",
    "GE.Wh0": "cells.0.weight_n",
    "GE.Bh0": "cells.0.bias",
}


class Case:
    """One reference trajectory with our sessions and model for it."""

    def __init__(self, name: str) -> None:
        self.arrays = dict(np.load(GOLDEN / f"{name}.npz"))
        meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))
        events = read_events(GOLDEN / "sessions.tsv")
        item_ids = [str(item_id) for item_id in self.arrays["item_ids"]]
        index = np.array([item_ids.index(item_id) for item_id in events.item_ids.to_pylist()])
        vocabulary = Vocabulary(item_ids, np.bincount(index[events.item]))
        self.sessions: Sessions = map_events(events, vocabulary)[0]
        options = {
            key: float(meta[key]) for key in ("momentum", "sample_alpha", "logq", "bpreg", "elu_param") if key in meta
        }
        self.model = GRU4Rec(
            layers=[int(size) for size in meta["layers"].split("/")],
            loss=meta["loss"],
            constrained_embedding=meta["constrained_embedding"] == "True",
            embedding=int(meta["embedding"]),
            n_sample=int(meta["n_sample"]),
            learning_rate=meta["learning_rate"],
            dropout_p_embed=0.0,
            dropout_p_hidden=0.0,
            **options,
        )
        self.model.set_vocabulary(vocabulary)
        self.model.load_state_dict(self.weights("init"))

    def weights(self, when: str) -> dict[str, torch.Tensor]:
        """The reference's weights by our names."""
        renamed = {}
        for key, value in self.arrays.items():
            if key.startswith(f"{when}/"):
                name = key.partition("/")[2]
                renamed[OUR_NAMES.get(name, name.replace("G.", "cells."))] = torch.from_numpy(value)
        return renamed


def test_all_nine_cases_are_here() -> None:
    assert len(CASES) == 9


@pytest.mark.parametrize("name", CASES)
def test_batches(name: str) -> None:
    case = Case(name)
    grid = LaneGrid(case.sessions, n_lanes=4)
    window = grid.window(0, grid.n_steps)
    widths = case.arrays["width"]
    # without samples the reference drops the tail in which a single lane is left
    assert grid.n_steps == len(widths) or name == "ce_inbatch_only"
    for step, width in enumerate(widths.tolist()):
        live = window.live[step]
        assert window.widths[step] == width == live.sum()
        for ours, theirs in ((window.inputs, "inputs"), (window.targets, "targets"), (window.starts, "reset")):
            np.testing.assert_array_equal(ours[step][live].numpy(), case.arrays[theirs][step][:width])


@pytest.mark.parametrize("name", CASES)
def test_losses_weights_and_metrics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name)
    n_steps = len(case.arrays["losses"])
    window = LaneGrid(case.sessions, n_lanes=4).window(0, n_steps)
    negatives = torch.from_numpy(case.arrays.get("neg", np.zeros((n_steps, 0), dtype=np.int64)))
    monkeypatch.setattr(case.model.sampler, "sample", lambda shape, generator: negatives)
    losses: list[float] = []
    train_step = case.model.train_step

    def recorded(*args: Any) -> Any:
        loss, hidden = train_step(*args)
        losses.append(loss.item() / 4)
        return loss, hidden

    monkeypatch.setattr(case.model, "train_step", recorded)
    case.model.train_window(window, case.model.configure_optimizers(), torch.Generator())
    np.testing.assert_allclose(losses, case.arrays["losses"], rtol=1e-5)
    ours = case.model.state_dict()
    for key, theirs in case.weights("final").items():
        scale = theirs.abs().max().item()
        np.testing.assert_allclose(ours[key].numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4 * scale, err_msg=key)
    live = window.live[-1]
    final_hidden = torch.cat([state[live] for state in case.model._hidden], dim=1)
    np.testing.assert_allclose(final_hidden.numpy(), case.arrays["final_hidden"], rtol=1e-4, atol=1e-5)
    if name != "ce_inbatch_only":
        check_metrics(case)


def check_metrics(case: Case) -> None:
    """Recall and MRR on the training sessions equal the reference's in both tie modes."""
    for mode in ("standard", "conservative"):
        metrics = ranking_metrics([1, 3, 5, 10])
        for batch in EvaluationLoader(case.sessions, batch_size=7):
            with torch.no_grad():
                metrics.update(rank_from_counts(*case.model.count_positions(batch), tie_mode=mode))  # type: ignore[arg-type]
        results = {key: value.item() for key, value in metrics.compute().items()}
        for metric in ("recall", "mrr"):
            ours = [results[f"{metric}@{cutoff}"] for cutoff in (1, 3, 5, 10)]
            np.testing.assert_allclose(ours, case.arrays[f"{metric}_{mode}"], atol=1e-6)
