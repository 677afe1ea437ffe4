"""Parity with the reference trajectories: batches, losses, weights and metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import CASES, WITH_METRICS, Case, assert_recorded_metrics, sessions_for

from sessrec.data.loaders import LaneGrid

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def test_all_nine_cases_are_here() -> None:
    assert len(CASES) == 9


@pytest.mark.parametrize("name", CASES)
def test_batches(name: str) -> None:
    case = Case(name)
    grid = LaneGrid(sessions_for(case.model(case.item_ids)), n_lanes=4)
    window = grid.window(0, grid.n_steps)
    widths = case.arrays["width"]
    # without samples the reference drops the tail in which a single lane is left
    assert grid.n_steps == len(widths) or name == "ce_inbatch_only"
    for step, width in enumerate(widths.tolist()):
        live = window.live[step]
        assert window.widths[step] == width == live.sum()
        for ours, theirs in ((window.inputs, "inputs"), (window.targets, "targets"), (window.starts, "reset")):
            np.testing.assert_array_equal(ours[step][live].numpy(), case.arrays[theirs][step][:width])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_losses_weights_and_metrics(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name)
    model, expected = case.model(case.item_ids, "init"), case.model(case.item_ids, "final").state_dict()
    n_steps = len(case.arrays["losses"])
    grid = LaneGrid(sessions_for(model), n_lanes=4)
    negatives = torch.from_numpy(case.arrays.get("neg", np.zeros((n_steps, 0), dtype=np.int64))).to(device)
    optimizer = model.to(device).configure_optimizers()
    losses = []
    for first in range(0, n_steps, 9):  # on a GPU the second window is captured, and the third replays it
        window = grid.window(first, min(first + 9, n_steps))
        window = type(window)(*(part.to(device) for part in window[:4]), *window[4:])
        monkeypatch.setattr(model.sampler, "sample", lambda shape, _, own=negatives[first : first + 9]: own)
        losses.append(model.train_window(window, optimizer, torch.Generator(device)))
    np.testing.assert_allclose(torch.cat(losses).cpu() / 4, case.arrays["losses"], rtol=1e-5)
    for key, ours in model.state_dict().items():
        theirs = expected[key]
        scale = theirs.abs().max().item()
        np.testing.assert_allclose(ours.cpu().numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4 * scale, err_msg=key)
    live = window.live[-1]
    final_hidden = torch.cat([state[live] for state in model._hidden], dim=1).cpu()
    np.testing.assert_allclose(final_hidden.numpy(), case.arrays["final_hidden"], rtol=1e-4, atol=1e-5)
    if name in WITH_METRICS:
        assert_recorded_metrics(model, case)
