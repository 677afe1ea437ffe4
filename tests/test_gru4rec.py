"""GRU4Rec's parts that the reference trajectories do not cover: dropout, logQ, masks, resets, initialisation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import make_sessions, make_vocabulary

from sessrec.batches import LaneGrid, SessionParallelLoader
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec


def model_for(n_items: int, **options) -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(**({"layers": [6], "n_sample": 0, "dropout_p_embed": 0.0, "logq": 0.0} | options))
    model.set_vocabulary(make_vocabulary(n_items))
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": [5, 7]},
        {"constrained_embedding": False, "embedding": 4},
        {"constrained_embedding": False},
        {"constrained_embedding": False, "layers": [5, 7]},
    ],
)
def test_whole_session_equals_step_by_step(options: dict) -> None:
    """Evaluation of a whole session, of its prefixes and of the training recurrence agree."""
    model = model_for(9, **options).eval()
    session = torch.tensor([[3, 1, 8, 8, 0]])
    with torch.no_grad():
        whole = model._encode(session)[0]
        for length in range(1, 6):
            prefix = model._encode(session[:, :length])[0, -1]
            torch.testing.assert_close(whole[length - 1], prefix, rtol=1e-6, atol=1e-6)
    ids = [f"i{item}" for item in session[0].tolist()]
    by_hand = model.score(whole[-1:], slice(0, 9))[0]
    for item_id, score in model.recommend(ids, k=9):
        assert score == pytest.approx(by_hand[int(item_id[1:])].item(), rel=1e-5)


def test_states_do_not_pass_between_sessions() -> None:
    """A window gives every session the losses that it has alone."""
    sequences = [[0, 1, 2, 3], [4, 5], [6, 7, 8], [1, 4], [2, 6, 0]]
    model = model_for(9, n_sample=5, learning_rate=1e-30)  # too small to change a weight
    seen: dict[tuple[int, int], torch.Tensor] = {}
    step_loss = model.step_loss

    def recorded(inputs, targets, negatives, hidden, masks):  # noqa: ANN001, ANN202
        loss, new = step_loss(inputs, targets, negatives, hidden, masks)
        seen.update(
            {
                pair: state
                for pair, state in zip(
                    zip(inputs.tolist(), targets.tolist(), strict=True), new[-1].detach(), strict=True
                )
            }
        )
        return loss, new

    model.step_loss = recorded  # type: ignore[method-assign]
    for window in SessionParallelLoader(make_sessions(sequences), n_lanes=3, steps_per_window=2):
        model.train_window(window, model.configure_optimizers(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for sequence in sequences:
            alone = model.encode(torch.tensor([sequence]))[0]
            for place, pair in enumerate(zip(sequence, sequence[1:], strict=False)):
                torch.testing.assert_close(seen[pair], alone[place])
    assert len(seen) == 9


def test_loss_is_divided_by_the_nominal_batch_size() -> None:
    """Weights move by the same step whether the empty lanes are there or not, apart from the division."""
    sessions = make_sessions([[0, 1], [2, 3]])
    gradients = []
    for n_lanes in (2, 8):
        model = model_for(5, n_sample=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        before = copy.deepcopy(model.state_dict())
        model.train_window(LaneGrid(sessions, n_lanes).window(0, 1), optimizer, torch.Generator().manual_seed(0))
        gradients.append(before["output_embedding"] - model.state_dict()["output_embedding"])
    torch.testing.assert_close(gradients[0], 4 * gradients[1])
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("mode", ["published", "textbook"])
def test_logq(mode: str) -> None:
    model = model_for(6, n_sample=2, logq=0.7, logq_mode=mode, sample_alpha=0.5)
    counts = np.arange(1, 7)  # of items 0 to 5
    candidates = torch.tensor([4, 2, 0, 5])  # two targets, then two samples
    expected = np.log([5.0, 3.0, 1.0**0.5, 6.0**0.5])
    if mode == "textbook":
        expected[:2] = np.log(2 * np.array([5.0, 3.0]) / counts.sum())
        expected[2:] = np.log(2 * np.array([1.0, 6.0]) ** 0.5 / (counts**0.5).sum())
    np.testing.assert_allclose(model.log_q(candidates[:2], candidates[2:]).numpy(), expected, rtol=1e-5, atol=1e-6)
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    corrected = logits.numpy() - 0.7 * expected
    plain = [np.log(np.exp(row).sum()) - row[lane] for lane, row in enumerate(corrected)]
    np.testing.assert_allclose(model._loss(logits, candidates, 2).numpy(), plain, rtol=1e-5)


def test_copies_of_the_target_are_negatives_unless_excluded() -> None:
    candidates = torch.tensor([3, 1, 3, 0])
    logits = torch.tensor([[1.0, 0.5, 1.0, -1.0], [0.2, 0.3, 0.1, 0.0]])
    with_copies = model_for(5)._loss(logits, candidates, 2)
    without = model_for(5, exclude_target_copies=True)._loss(logits, candidates, 2)
    row = np.exp(logits[0].numpy())
    assert with_copies[0].item() == pytest.approx(np.log(row.sum()) - 1.0, rel=1e-6)
    assert without[0].item() == pytest.approx(np.log(row[[0, 1, 3]].sum()) - 1.0, rel=1e-6)
    assert without[1] == with_copies[1]


def test_dropout_masks_keep_the_mean_and_fall_where_they_should() -> None:
    model = model_for(9, layers=[40], dropout_p_embed=0.25, dropout_p_hidden=0.5)
    input_mask, hidden_mask = model._dropout_masks(50, 30, torch.Generator().manual_seed(0))
    assert input_mask is not None
    assert hidden_mask is not None
    assert input_mask.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert set(hidden_mask.unique().tolist()) == {0.0, 2.0}
    assert (input_mask == 0).float().mean().item() == pytest.approx(
        0.25, abs=0.01
    )  # a drop probability, not a keep one
    # inputs and targets, negatives: the output rows are never dropped, the state is the dropped-out output
    inputs, targets = torch.tensor([0, 1]), torch.tensor([2, 3])
    state = [torch.zeros(2, 40)]
    _, dropped = model.step_loss(inputs, targets, torch.tensor([4]), state, [None, hidden_mask[0, :2]])
    _, whole = model.step_loss(inputs, targets, torch.tensor([4]), state, [None, None])
    torch.testing.assert_close(dropped[0], whole[0] * hidden_mask[0, :2])
    # with every input dropped, the loss does not know the inputs, but it still knows the output rows of the same table
    losses = [
        model.step_loss(items, targets, torch.tensor([4]), state, [torch.zeros(2, 40), None])[0]
        for items in (inputs, torch.tensor([7, 8]))
    ]
    assert torch.equal(*losses)
    assert losses[0] != model.step_loss(inputs, targets, torch.tensor([4]), state, [None, None])[0]


def test_masks_are_none_without_dropout() -> None:
    assert model_for(9)._dropout_masks(3, 2, torch.Generator()) == [None, None]


def test_evaluation_is_free_of_dropout() -> None:
    model = model_for(9, dropout_p_embed=0.9, dropout_p_hidden=0.9)
    items = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.encode(items), model.encode(items))


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        ({}, {"output_embedding": (60, 6), "cells.0.weight_ih": (6, 6), "cells.0.weight_hh": (6, 6)}),
        (
            {"constrained_embedding": False, "embedding": 20},
            {"input_embedding": (60, 20), "cells.0.weight_ih": (20, 6)},
        ),
        (
            {"constrained_embedding": False},
            {"input_embedding": (60, 6), "cells.0.weight_rz": (6, 6), "cells.0.weight_n": (6, 6)},
        ),
        (
            {"layers": [6, 30]},
            {"output_embedding": (60, 30), "cells.1.weight_ih": (6, 30), "cells.0.weight_ih": (30, 6)},
        ),
    ],
)
def test_initialisation(options: dict, bounds: dict[str, tuple[int, int]]) -> None:
    """Every gate's matrix is uniform within sqrt(6 / (rows + columns)) of its own shape, biases are zero."""
    model = model_for(60, **options)
    weights = model.state_dict()
    for name, shape in bounds.items():
        bound = (6 / sum(shape)) ** 0.5
        greatest = weights[name].abs().max().item()
        assert 0.8 * bound < greatest <= bound, name
    for name, weight in weights.items():
        if "bias" in name:
            assert not weight.any(), name


def test_steps_without_negatives_change_nothing_and_say_so() -> None:
    window = LaneGrid(make_sessions([[0, 1, 2]]), n_lanes=1).window(0, 2)
    model = model_for(4, loss="bpr-max")
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match="steps of a single lane are skipped"):
        model.train_window(window, model.configure_optimizers(), torch.Generator())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SessRecError, match="--model.momentum is 1.5"):
        GRU4Rec(momentum=1.5)


def test_learns_a_cycle_of_items_by_heart() -> None:
    """On sessions that walk a fixed cycle there is one right answer at every position."""
    sequences = [[(start + step) % 8 for step in range(5)] for start in range(8)] * 6
    for loss in ("cross-entropy", "bpr-max", "bpr", "top1", "top1-max"):
        model = model_for(8, layers=[16], loss=loss, n_sample=8, learning_rate=0.1)
        optimizer = model.configure_optimizers()
        for epoch in range(8):
            model._hidden = []
            for window in SessionParallelLoader(make_sessions(sequences), n_lanes=4):
                model.train_window(window, optimizer, torch.Generator().manual_seed(epoch))
        for item in range(8):
            assert model.recommend([f"i{(item - 1) % 8}", f"i{item}"], k=1)[0][0] == f"i{(item + 1) % 8}", loss
