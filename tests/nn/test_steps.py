"""Steps against a layout in plain Python, and whole training windows against a plain twin that torch differentiates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import make_sessions, make_vocabulary, paper_loss
from torch import Tensor

import sessrec.nn.steps
from sessrec.data.session_parallel import LaneGrid, Window
from sessrec.models import GRU4Rec, gru4rec
from sessrec.nn.steps import Step, StepLayout


class Draws(NamedTuple):
    """What `StepLayout.steps` is given."""

    inputs: Tensor
    targets: Tensor
    negatives: Tensor
    weights: Tensor
    not_reset: Tensor
    masks: list[Tensor | None]


def random_draws(n_steps: int, n_lanes: int, n_samples: int, n_items: int, whole_weights: bool, seed: int) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randint(n_items, (2, n_steps, n_lanes), generator=generator)
    weights = torch.rand(n_steps, n_lanes + n_samples, generator=generator, dtype=torch.float64) + 0.1
    return Draws(
        inputs,
        targets,
        torch.randint(n_items, (n_steps, n_samples), generator=generator),
        torch.ones_like(weights) if whole_weights else weights,
        torch.randint(2, (n_steps, n_lanes, 1), generator=generator).double(),
        [torch.rand(n_steps, n_lanes, 3, generator=generator), None, torch.rand(n_steps, n_lanes, 2)],
    )


def check_common_parts(step: Step, draws: Draws, number: int, distinct: bool) -> None:
    assert step.distinct == distinct
    assert torch.equal(step.not_reset, draws.not_reset[number])
    for ours, given in zip(step.masks, draws.masks, strict=True):
        assert (ours is None and given is None) or torch.equal(ours, given[number])


@pytest.mark.parametrize("shared_inputs", [False, True])
@pytest.mark.parametrize("whole_weights", [False, True])
@pytest.mark.parametrize("at_once", [None, 1, 2])
@pytest.mark.parametrize(
    ("n_steps", "n_lanes", "n_samples", "n_items"),
    [(7, 4, 6, 9), (4, 5, 0, 3), (3, 1, 0, 1), (5, 2, 30, 1000), (6, 3, 5, 23), (40, 3, 2, 50)],
)
def test_distinct_rows_against_plain_python(
    monkeypatch: pytest.MonkeyPatch,
    n_steps: int,
    n_lanes: int,
    n_samples: int,
    n_items: int,
    shared_inputs: bool,
    whole_weights: bool,
    at_once: int | None,
) -> None:
    if at_once is not None:
        monkeypatch.setattr(sessrec.nn.steps, "_N_AT_ONCE", at_once)
    layout = StepLayout(n_items, True, shared_inputs)
    list(layout.steps(*random_draws(n_steps, n_lanes, n_samples, n_items, whole_weights, seed=0)))  # leaves no trace
    draws = random_draws(n_steps, n_lanes, n_samples, n_items, whole_weights, seed=1)
    steps = list(layout.steps(*draws))
    assert len(steps) == n_steps
    for number, step in enumerate(steps):
        inputs, targets = draws.inputs[number].tolist(), draws.targets[number].tolist()
        drawn, weights = targets + draws.negatives[number].tolist(), draws.weights[number].tolist()
        columns = list(dict.fromkeys(drawn))
        rows = list(dict.fromkeys(drawn + inputs)) if shared_inputs else columns
        assert step.items.tolist() == rows
        assert step.inputs.tolist() == ([rows.index(item) for item in inputs] if shared_inputs else inputs)
        candidates = step.candidates
        assert candidates.targets.tolist() == [
            lane * len(columns) + columns.index(item) for lane, item in enumerate(targets)
        ]
        assert candidates.target_weights.tolist() == weights[:n_lanes]
        summed = [sum(weight for weight, item in zip(weights, drawn, strict=True) if item == own) for own in columns]
        np.testing.assert_allclose(candidates.weights.numpy(), summed, rtol=1e-12)
        for lane, own_weight in enumerate(candidates.own_weights.tolist()):
            copies = [weights[draw] for draw, item in enumerate(drawn) if item == targets[lane] and draw != lane]
            if not copies:
                assert own_weight == 0.0  # exactly: it tells a lane's only copy from others
            else:
                assert own_weight == pytest.approx(sum(copies), rel=1e-12)
        check_common_parts(step, draws, number, distinct=True)


@pytest.mark.parametrize("shared_inputs", [False, True])
@pytest.mark.parametrize(("n_steps", "n_lanes", "n_samples", "n_items"), [(7, 4, 6, 5), (4, 5, 0, 3), (3, 1, 0, 1)])
def test_rows_as_drawn_against_plain_python(
    n_steps: int, n_lanes: int, n_samples: int, n_items: int, shared_inputs: bool
) -> None:
    draws = random_draws(n_steps, n_lanes, n_samples, n_items, False, seed=n_items)
    steps = list(StepLayout(n_items, False, shared_inputs).steps(*draws))
    assert len(steps) == n_steps
    for number, step in enumerate(steps):
        inputs, targets = draws.inputs[number].tolist(), draws.targets[number].tolist()
        drawn = targets + draws.negatives[number].tolist()
        assert step.items.tolist() == drawn + (inputs if shared_inputs else [])
        assert step.inputs.tolist() == ([len(drawn) + lane for lane in range(n_lanes)] if shared_inputs else inputs)
        candidates = step.candidates
        assert candidates.targets.tolist() == [lane * len(drawn) + lane for lane in range(n_lanes)]
        assert torch.equal(candidates.weights, draws.weights[number])
        assert torch.equal(candidates.target_weights, draws.weights[number, :n_lanes])
        assert not candidates.own_weights.any()
        check_common_parts(step, draws, number, distinct=False)


class Twin:
    """GRU4Rec's training, slow and plain: every draw a column of its own, dense gradients by torch, float64.

    Args:
        model: The model whose weights and options it starts from.
        counts: Count of each item in training.
    """

    def __init__(self, model: GRU4Rec, counts: np.ndarray) -> None:
        self.options: Any = model.options
        self.layers = model.layers
        self.counts = counts
        self.weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.accumulators = {name: torch.full_like(weight, 1e-6) for name, weight in self.weights.items()}
        self.velocities = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.hidden: dict[int, list[Tensor]] = {}  # of each lane, one vector a layer

    def train_window(self, window: Window, negatives: Tensor, masks: list[Tensor | None]) -> float:
        """Sum of the loss over the window's pairs."""
        return sum(self._step(window, negatives[number], masks, number) for number in range(len(window.inputs)))

    def _step(self, window: Window, negatives: Tensor, masks: list[Tensor | None], number: int) -> float:
        n_lanes = window.live.shape[1]
        lanes = [lane for lane in range(n_lanes) if window.live[number, lane]]
        for lane in lanes:
            if window.starts[number, lane]:
                self.hidden[lane] = [torch.zeros(size, dtype=torch.float64) for size in self.layers]
        own_masks = [None if mask is None else mask[number, lanes] for mask in masks]
        inputs, targets = window.inputs[number, lanes], window.targets[number, lanes]
        draws = torch.cat([targets, negatives])
        weights = {name: weight.clone().requires_grad_() for name, weight in self.weights.items()}
        states = self._recur(weights, inputs, lanes, own_masks)
        logits = states[-1] @ weights["output_embedding"][draws].T + weights["output_bias"][draws, 0]
        loss = self._loss(logits, targets, negatives).sum()
        if len(draws) > 1 or self.options.loss == "cross-entropy":
            gradients = torch.autograd.grad(loss / n_lanes, list(weights.values()), allow_unused=True)
            self._update(dict(zip(weights, gradients, strict=True)), inputs, draws)
        for place, lane in enumerate(lanes):
            self.hidden[lane] = [state[place].detach() for state in states]
        return loss.item()

    def _recur(
        self, weights: dict[str, Tensor], inputs: Tensor, lanes: list[int], masks: list[Tensor | None]
    ) -> list[Tensor]:
        h = self.options
        below = weights["output_embedding" if h.constrained_embedding else "input_embedding"][inputs]
        below = below if masks[0] is None else below * masks[0]
        states = []
        for layer, size in enumerate(self.layers):
            own = {name.split(".")[2]: weight for name, weight in weights.items() if name.startswith(f"cells.{layer}.")}
            state = torch.stack([self.hidden[lane][layer] for lane in lanes])
            if "weight_rz" in own:
                a_n, a_r, a_z = (below + own["bias"]).split(size, dim=1)
                u_r, u_z = own["weight_rz"].split(size, dim=1)
                reset, update = torch.sigmoid(a_r + state @ u_r), torch.sigmoid(a_z + state @ u_z)
                below = (1 - update) * state + update * torch.tanh(a_n + (reset * state) @ own["weight_n"])
            else:
                x_r, x_z, x_n = (below @ own["weight_ih"].T + own["bias_ih"]).split(size, dim=1)
                h_r, h_z, h_n = (state @ own["weight_hh"].T + own["bias_hh"]).split(size, dim=1)
                reset, update = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
                below = (1 - update) * torch.tanh(x_n + reset * h_n) + update * state
            mask = masks[1 + layer]
            below = below if mask is None else below * mask
            states.append(below)
        return states

    def _loss(self, logits: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        h = self.options
        if h.loss == "cross-entropy":
            logits = logits - h.logq * torch.from_numpy(self._log_q(targets.numpy(), negatives.numpy()))
        none_excluded = torch.zeros(logits.shape, dtype=torch.bool)
        return paper_loss(h.loss.replace("-", "_"), logits, h.bpreg, h.elu_param, none_excluded)

    def _log_q(self, targets: np.ndarray, negatives: np.ndarray) -> np.ndarray:
        of_targets, of_negatives = self.counts.astype(float), self.counts**self.options.sample_alpha
        return np.log(np.concatenate([of_targets[targets], of_negatives[negatives]]))

    def _update(self, gradients: dict[str, Tensor | None], inputs: Tensor, draws: Tensor) -> None:
        touched = {"output_embedding": draws, "output_bias": draws, "input_embedding": inputs}
        if self.options.constrained_embedding:
            touched["output_embedding"] = torch.cat([draws, inputs])
        for name, weight in self.weights.items():
            gradient = torch.zeros_like(weight) if gradients[name] is None else gradients[name]
            for row in touched[name].unique() if name in touched else [slice(None)]:
                own, velocity = gradient[row], self.velocities[name]
                self.accumulators[name][row] += own**2
                scaled = self.options.learning_rate * own / self.accumulators[name][row].sqrt()
                velocity[row] = self.options.momentum * velocity[row] - scaled
                weight[row] += velocity[row]


TABLES: dict[str, dict[str, Any]] = {
    "constrained": {},
    "separate": {"constrained_embedding": False, "embedding": 4},
    "one-hot": {"constrained_embedding": False},
}


class Run:
    """A model with settings drawn from a seed, and what it is trained on.

    Args:
        loss: Its loss.
        table: Its kind of input, of `TABLES`.
        seed: Number of the draw.
    """

    def __init__(self, loss: str, table: str, seed: int) -> None:
        generator = np.random.default_rng([seed, len(loss), len(table)])

        def choice(*values: Any) -> Any:
            return values[generator.integers(len(values))]

        n_items, self.n_lanes, n_sample = choice(5, 9, 40), choice(2, 4, 5), (0, 12, 3, 30)[seed % 4]
        options: dict[str, Any] = {
            "layers": choice([5], [5, 7]),
            "n_sample": n_sample,
            "dropout_p_embed": choice(0.0, 0.3),
            "dropout_p_hidden": choice(0.0, 0.4),
            "momentum": choice(0.0, 0.3),
            "logq": choice(0.0, 0.6, 1.0),
            "sample_alpha": choice(0.0, 0.5, 1.0),
            "bpreg": choice(0.0, 1.3),
            "elu_param": choice(0.0, 0.5, 1.0),
            **TABLES[table],
        }
        if not n_sample and loss == "cross-entropy":
            options["momentum"] = 0.0  # a step of a single lane is in test_gru4rec.py
        self.steps_at_once = choice(None, 1, 3)
        self.n_items = n_items
        self.options = {"loss": loss, **options}
        lengths = [*generator.integers(2, 6, size=3 * self.n_lanes), 11]  # the last lane outlives the others
        self.sessions = make_sessions([generator.integers(n_items, size=length).tolist() for length in lengths])
        self.table = table
        self.seed = seed

    def model(self) -> GRU4Rec:
        """The model in float64, with biases that are not 0."""
        torch.manual_seed(self.seed)
        model = GRU4Rec(**self.options)
        model.set_vocabulary(make_vocabulary(self.n_items))
        model.double()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
        counts = model.vocabulary.counts
        model.log_q.log_counts = torch.from_numpy(np.log(counts))  # which float32 would have rounded
        model._hidden = [torch.zeros(self.n_lanes, size, dtype=torch.float64) for size in model.layers]
        return model

    def windows(self) -> list[tuple[Window, Tensor, list[Tensor | None]]]:
        """Three windows, up to where the last lane runs out, each with negatives and dropout masks."""
        generator = torch.Generator().manual_seed(self.seed)
        grid = LaneGrid(self.sessions, self.n_lanes)
        h, parts = self.options, []
        first_size = {"constrained": h["layers"][-1], "separate": 4, "one-hot": 3 * h["layers"][0]}[self.table]
        drops = [(first_size, h["dropout_p_embed"]), *((size, h["dropout_p_hidden"]) for size in h["layers"])]
        for window in grid.windows([0, 2, 5, grid.n_steps]):
            n_steps = len(window.inputs)
            masks = [
                (torch.rand(n_steps, self.n_lanes, size, generator=generator, dtype=torch.float64) > p) / (1 - p)
                if p
                else None
                for size, p in drops
            ]
            negatives = torch.randint(self.n_items, (n_steps, h["n_sample"]), generator=generator)
            parts.append((window, negatives, masks))
        assert parts[-1][0].widths[-1] == 1
        return parts

    def train(self, monkeypatch: pytest.MonkeyPatch, distinct: bool) -> tuple[GRU4Rec, list[float]]:
        """The model after all windows, and the loss of each."""
        model, losses = self.model(), []
        monkeypatch.setattr(gru4rec, "StepLayout", lambda n_items, _, shared: StepLayout(n_items, distinct, shared))
        if self.steps_at_once is not None:
            monkeypatch.setattr(sessrec.nn.steps, "_N_AT_ONCE", self.steps_at_once)
        optimizer = model.configure_optimizers()
        for window, negatives, masks in self.windows():
            monkeypatch.setattr(model.sampler, "sample", lambda *_, drawn=negatives: drawn)
            monkeypatch.setattr(model, "_dropout_masks", lambda *_, drawn=masks: drawn)
            losses.append(model.train_window(window, optimizer, torch.Generator()).sum().item())
        return model, losses


def check_weights(model: GRU4Rec, expected: dict[str, Tensor], tolerance: float) -> None:
    for name, weight in model.named_parameters():
        torch.testing.assert_close(
            weight.detach(),
            expected[name],
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"])
@pytest.mark.filterwarnings("ignore:steps of a single lane")
def test_training_is_that_of_a_plain_twin(monkeypatch: pytest.MonkeyPatch, loss: str, table: str, seed: int) -> None:
    """Losses, weights and states after three windows, with equal items in one row and with a row for every draw."""
    run = Run(loss, table, seed)
    start = run.model()
    twin = Twin(start, start.vocabulary.counts)
    expected = [twin.train_window(*part) for part in run.windows()]
    models = []
    for distinct in (True, False):
        model, losses = run.train(monkeypatch, distinct)
        np.testing.assert_allclose(losses, expected, rtol=1e-9)
        check_weights(model, twin.weights, 1e-9)
        for lane, states in twin.hidden.items():
            for state, own in zip(model._hidden, states, strict=True):
                torch.testing.assert_close(state[lane], own, rtol=1e-9, atol=1e-9)
        models.append(model)
    check_weights(models[0], dict(models[1].named_parameters()), 1e-10)
    for name, weight in start.named_parameters():
        assert not torch.equal(weight, twin.weights[name]), name
