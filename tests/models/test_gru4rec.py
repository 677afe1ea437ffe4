"""GRU4Rec's parts that the reference trajectories do not cover: dropout, logQ, masks, resets, initialisation."""

from __future__ import annotations

import copy
import resource
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WHOLE, fit_log, make_sessions, make_vocabulary
from resuming import curves

from sessrec.data.loaders import SessionParallelLoader
from sessrec.data.session_parallel import LaneGrid, Window
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec
from sessrec.nn.losses import Candidates
from sessrec.nn.steps import Step, StepLayout


def model_for(n_items: int, **options) -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(**({"layers": [6], "n_sample": 0, "dropout_p_embed": 0.0, "logq": 0.0} | options))
    model.set_vocabulary(make_vocabulary(n_items))
    return model


def step_of(
    model: GRU4Rec,
    inputs: list[int],
    targets: list[int],
    negatives: list[int],
    masks: list[torch.Tensor | None] | None = None,
    distinct: bool = True,
) -> Step:
    """One step of a model, none of whose lanes begins a session."""
    rows = [torch.tensor([items], dtype=torch.int64) for items in (inputs, targets, negatives)]
    layout = StepLayout(model.n_items, distinct, model.shared_inputs)
    all_masks = [None] * (1 + len(model.layers)) if masks is None else masks
    by_step = [None if mask is None else mask[None] for mask in all_masks]
    return next(layout.steps(*rows, model._weights(*rows[1:]), torch.ones(1, len(inputs), 1), by_step))


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
        whole = model.encode_sessions(session, torch.tensor([session.shape[1]]))[0]
        for length in range(1, 6):
            prefix = model.encode_sessions(session[:, :length], torch.tensor([length]))[0, -1]
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
    train_step = model.train_step

    def recorded(step: Step, hidden: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, new = train_step(step, hidden)
        columns = step.candidates.targets % len(step.candidates.weights)
        pairs = zip(step.items[step.inputs].tolist(), step.items[columns].tolist(), strict=True)
        seen.update(zip(pairs, new[-1].clone(), strict=True))
        return loss, new

    model.train_step = recorded  # type: ignore[method-assign]
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


def test_logq() -> None:
    model = model_for(6, n_sample=2, logq=0.7, sample_alpha=0.5)  # items 0 to 5 have counts 1 to 6
    targets, negatives = torch.tensor([[4, 2]]), torch.tensor([[0, 5]])
    expected = np.log([5.0, 3.0, 1.0**0.5, 6.0**0.5])
    np.testing.assert_allclose(model.log_q(targets, negatives)[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    corrected = logits.numpy() - 0.7 * expected
    plain = [np.log(np.exp(row).sum()) - row[lane] for lane, row in enumerate(corrected)]
    candidates = Candidates.each_once(2, model._weights(targets, negatives)[0])
    np.testing.assert_allclose(model._loss(logits, candidates)[0].numpy(), plain, rtol=1e-5)


def test_logq_of_steps_without_samples_and_of_other_losses() -> None:
    targets, negatives = torch.tensor([[4, 2, 2]]), torch.empty(1, 0, dtype=torch.int64)
    expected = np.log([5.0, 3.0, 3.0])
    np.testing.assert_allclose(model_for(6).log_q(targets, negatives)[0].numpy(), expected, rtol=1e-5)
    for options in ({"loss": "bpr-max", "logq": 1.0}, {"loss": "cross-entropy", "logq": 0.0}):
        assert model_for(6, **options)._weights(targets, torch.tensor([[0, 5]])).tolist() == [[1.0] * 5]


@pytest.mark.parametrize("distinct", [False, True])
def test_copies_of_the_target_are_negatives(distinct: bool) -> None:
    by_item = torch.tensor([[-1.0, 0.5, 0.0, 1.0, 0.0], [0.0, 0.3, 0.0, 0.2, 0.0]])
    model = model_for(5)
    step = step_of(model, [0, 2], [3, 1], [3, 0], distinct=distinct)
    loss, _ = model._loss(by_item[:, step.items[: len(step.candidates.weights)]], step.candidates)
    row = np.exp(by_item[0].numpy())
    assert loss[0].item() == pytest.approx(np.log(row[[3, 1, 3, 0]].sum()) - 1.0, rel=1e-6)


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
    # the output rows are never dropped, the state is the dropped-out output
    model._hidden = [torch.zeros(2, 40)]

    def loss_and_state(inputs: list[int], masks: list[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            loss, state = model.train_step(step_of(model, inputs, [2, 3], [4], masks), [torch.zeros(2, 40)])
        return loss, state[0]

    whole_loss, whole = loss_and_state([0, 1], [None, None])
    torch.testing.assert_close(loss_and_state([0, 1], [None, hidden_mask[0, :2]])[1], whole * hidden_mask[0, :2])
    # with every input dropped, the loss does not know the inputs, but it still knows the output rows of the same table
    losses = [loss_and_state(inputs, [torch.zeros(2, 40), None])[0] for inputs in ([0, 1], [7, 8])]
    assert torch.equal(*losses)
    assert losses[0] != whole_loss


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


LOSSES = ["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"]


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_without_negatives_change_nothing(loss: str) -> None:
    """Cross-entropy has no loss there, by its formula; the others have none by definition, which is said."""
    window = LaneGrid(make_sessions([[0, 1, 2]]), n_lanes=1).window(0, 2)
    model = model_for(4, loss=loss)
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = model.train_window(window, model.configure_optimizers(), torch.Generator())
    assert losses.tolist() == [0.0, 0.0]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    said = any("steps of a single lane are skipped" in str(warning.message) for warning in caught)
    assert said == (loss != "cross-entropy")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings("ignore:steps of a single lane")
def test_momentum_does_not_go_on_in_steps_without_negatives(loss: str) -> None:
    """The first three steps have two lanes, the last two a single one."""
    window = LaneGrid(make_sessions([[0, 1, 2, 3, 1, 0], [3, 2, 1, 0]]), n_lanes=2).window(0, 5)
    assert window.widths.tolist() == [2, 2, 2, 1, 1]
    after = []
    for n_steps in (3, 5):
        model = model_for(4, loss=loss, momentum=0.5)
        model.train_window(window.part(0, n_steps), model.configure_optimizers(), torch.Generator())
        after.append(model.state_dict())
    for name, weight in after[0].items():
        assert torch.equal(weight, after[1][name]), name


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
@pytest.mark.parametrize(
    "table", [{}, {"constrained_embedding": False, "embedding": 4}, {"constrained_embedding": False}]
)
def test_gradients_under_autocast_are_about_those_without(loss: str, table: dict) -> None:
    gradients = []
    for enabled in (False, True):
        model = model_for(9, loss=loss, layers=[5, 6], **table)
        model._hidden = [0.3 * torch.ones(3, size) for size in (5, 6)]
        step = step_of(model, [1, 2, 1], [3, 4, 0], [4, 7, 7])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            model.train_step(step, model._hidden)
        gradients.append({name: weight.grad.to_dense() for name, weight in model.named_parameters()})  # type: ignore[union-attr]
    for name, plain in gradients[0].items():
        cast = gradients[1][name]
        assert cast.dtype == torch.float32
        torch.testing.assert_close(cast, plain, rtol=0.0, atol=0.05 * plain.abs().max().item())
    assert not torch.equal(gradients[0]["output_embedding"], gradients[1]["output_embedding"])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SessRecError, match="--model.momentum is 1.5"):
        GRU4Rec(momentum=1.5)


def test_learns_a_cycle_of_items_by_heart() -> None:
    """On sessions that walk a fixed cycle there is one right answer at every position."""
    sequences = [[(start + step) % 8 for step in range(5)] for start in range(8)] * 3
    for loss in LOSSES:
        model = model_for(8, layers=[16], loss=loss, n_sample=8, learning_rate=0.2)
        optimizer = model.configure_optimizers()
        for epoch in range(8):
            model._hidden = []
            for window in SessionParallelLoader(make_sessions(sequences), n_lanes=4):
                model.train_window(window, optimizer, torch.Generator().manual_seed(epoch))
        for item in range(8):
            assert model.recommend([f"i{(item - 1) % 8}", f"i{item}"], k=1)[0][0] == f"i{(item + 1) % 8}", loss


def test_memory_stays_flat_and_states_are_cut_off() -> None:
    """In a session of 1000 events every step goes on from the state of the one before it, and from no more of it."""
    model = model_for(50, n_sample=10)
    optimizer, generator = model.configure_optimizers(), torch.Generator()
    memory = []
    for window in SessionParallelLoader(make_sessions([[k % 50 for k in range(1000)]]), n_lanes=1, steps_per_window=50):
        model.train_window(window, optimizer, generator)
        assert all(not state.requires_grad and state.any() for state in model._hidden)
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    assert len(memory) == 20
    assert memory[-1] - memory[2] < 2_500_000


def test_the_epochs_loss_is_weighed_by_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Losses 1, 2, 3, 4 in steps of 3, 3, 2, 1 rows."""

    def train_window(self: GRU4Rec, window: Window, *_: Any) -> torch.Tensor:
        return (window.first_step + 1 + torch.arange(window.n_steps)) * torch.from_numpy(window.widths)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(GRU4Rec, "train_window", train_window)
    rows = [f"{s},{item},{1000 * s + k}\n" for s, items in enumerate(["abcd", "ef", "ghi", "jk", "lmn"])
            for k, item in enumerate(items)]  # fmt: skip
    Path("log.csv").write_text("SessionId,ItemId,Time\n" + "".join(rows))
    for steps_per_window in ("1", "3", "64"):
        options = ["--model.layers", "[8]", "--data.batch_size", "3", "--data.steps_per_window", steps_per_window]
        run = fit_log("log.csv", *WHOLE, *options, model="GRU4Rec", run=f"by-{steps_per_window}")
        ((step, loss),) = curves(run)["train/loss_epoch"]
        assert (step, np.frombuffer(loss, np.float32)) == (4, pytest.approx(19 / 9))  # 2.1111 and not 2.5
    assert not [warning for warning in recwarn if "batch size" in str(warning.message).lower()]
