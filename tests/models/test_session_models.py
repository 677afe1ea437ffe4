"""NARM and SR-GNN against plain computations of their own, one session so far at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fit_log, make_sessions, make_vocabulary
from torch import Tensor

from sessrec import fit, models
from sessrec.data.loaders import SessionLoader
from sessrec.errors import SessRecError
from sessrec.models.inference import top_items
from sessrec.models.whole_sessions import WholeSessions

N_ITEMS = 9
SEQUENCES = [[(5 * session + 2 * step * step) % N_ITEMS for step in range(2 + session % 7)] for session in range(20)]
SESSIONS = [[3, 1, 4, 1, 5, 1, 4, 2], [2, 7], [0, 0, 0, 0, 0], [6], [5, 5, 3, 1, 5]]
SMALL: dict[str, dict[str, Any]] = {
    "NARM": {"hidden_size": 6, "embedding_size": 5, "dropout_p_embed": 0.0, "dropout_p_session": 0.0},
    "SRGNN": {"hidden_size": 6, "n_steps": 2},
}
each_model = pytest.mark.parametrize("name", SMALL)


def model_of(name: str, **options: Any) -> Any:
    torch.manual_seed(3)
    model = getattr(models, name)(**({"max_length": 4} | SMALL[name] | options))
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def gru_step(weights: Any, value: Tensor, state: Tensor, suffix: str = "") -> Tensor:
    """torch's GRU: its weights are those of the gates r, z and n one above the other."""
    of_value, of_state = (
        (getattr(weights, f"weight_{kind}{suffix}") @ vector + getattr(weights, f"bias_{kind}{suffix}")).split(
            len(state)
        )
        for kind, vector in (("ih", value), ("hh", state))
    )
    reset, update = ((of_value[gate] + of_state[gate]).sigmoid() for gate in (0, 1))
    return (1 - update) * (of_value[2] + reset * of_state[2]).tanh() + update * state


def attention(model: Any, last: Tensor, each: list[Tensor]) -> Tensor:
    bias = 0 if model.of_last.bias is None else model.of_last.bias
    terms = [(model.of_last.weight @ last + bias + model.of_each.weight @ state).sigmoid() for state in each]
    return sum((model.weight.weight[0] @ term) * state for term, state in zip(terms, each, strict=True))  # type: ignore[return-value]


def narm(model: Any, items: list[int]) -> Tensor:
    states, state = [], torch.zeros(model.options.hidden_size, dtype=torch.float64)
    for item in items:
        state = gru_step(model.gru, model.item_embedding[item], state, "_l0")
        states.append(state)
    return model.decoder.weight @ torch.cat([state, attention(model, state, states)])


def sr_gnn(model: Any, items: list[int]) -> Tensor:
    nodes = {item: model.item_embedding[item] for item in items}
    pairs = set(zip(items, items[1:], strict=False))
    nothing = torch.zeros(model.options.hidden_size, dtype=torch.float64)
    for _ in range(model.options.n_steps):
        new = {}
        for item, state in nodes.items():
            sides = []
            for linear, others in (
                (model.from_before, [a for a, b in pairs if b == item]),
                (model.from_after, [b for a, b in pairs if a == item]),
            ):
                sent = [linear.weight @ nodes[other] + linear.bias for other in others]
                sides.append(sum(sent, nothing) / max(1, len(sent)))
            new[item] = gru_step(model.cell, torch.cat(sides), state)
        nodes = new
    last = nodes[items[-1]]
    attended = attention(model, last, [nodes[item] for item in items])
    return model.join.weight @ torch.cat([attended, last]) + model.join.bias


FORMULAS: dict[str, Callable[[Any, list[int]], Tensor]] = {"NARM": narm, "SRGNN": sr_gnn}


@pytest.mark.parametrize(("at_once", "max_length"), [(1, 4), (2, 3), (128, 3), (128, 50), (128, 1)])
@each_model
def test_queries_are_those_of_the_formulas(
    name: str, at_once: int, max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each event and the max_length - 1 events before it, whatever comes after and whatever sessions are beside."""
    monkeypatch.setattr("sessrec.models.whole_sessions._SESSIONS", at_once)
    model = model_of(name, max_length=max_length)
    items = torch.tensor([session + [8] * (9 - len(session)) for session in SESSIONS])
    with torch.no_grad():
        queries = model.encode_sessions(items, torch.tensor([len(session) for session in SESSIONS]))
        assert queries.shape == (5, 9, model.item_embedding.shape[1])
        for session, own in zip(SESSIONS, queries, strict=True):
            for last in range(len(session)):
                expected = FORMULAS[name](model, session[max(0, last + 1 - max_length) : last + 1])
                torch.testing.assert_close(own[last], expected, rtol=1e-9, atol=1e-9)
                scores = model.score(own[last][None], slice(0, N_ITEMS))[0]
                torch.testing.assert_close(scores, (model.item_embedding @ expected).float(), rtol=1e-5, atol=1e-5)


@each_model
def test_a_query_is_the_same_to_the_bit_whatever_sessions_are_beside(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(models, name)(max_length=6)
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    long = torch.randint(N_ITEMS, (200, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(200) % 9 + 1
    together = model.encode_sessions(long, lengths)
    for row in (0, 8, 77, 199):
        n = int(lengths[row])
        alone = model.encode_sessions(long[row : row + 1, :n], lengths[row : row + 1])
        assert torch.equal(alone[0], together[row, :n])


@pytest.mark.parametrize("name", [*SMALL, "SASRec"])
def test_lists_after_long_sessions_are_of_the_newest_events_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a rule excludes is of all events."""
    model = getattr(models, name)(max_length=4)
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    model.eval()
    encoded: list[int] = []
    encode = model.encode_sessions
    monkeypatch.setattr(model, "encode_sessions", lambda i, n: encoded.append(i.shape[1]) or encode(i, n))
    items = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [7, 8, 1, 0, 0, 0, 0]])
    best, scores = top_items(model, items, torch.tensor([7, 3]), N_ITEMS)
    assert encoded == [4]
    for row, newest in enumerate(([3, 4, 5, 6], [7, 8, 1])):
        alone = top_items(model, torch.tensor([newest]), torch.tensor([len(newest)]), N_ITEMS)
        assert torch.equal(best[row], alone[0][0])
        torch.testing.assert_close(scores[row], alone[1][0], rtol=1e-5, atol=1e-6)
    model.exclude_seen = True
    left = top_items(model, items, torch.tensor([7, 3]), 2)[0]
    assert set(left[0].tolist()) == {7, 8}


def loss_of(model: Any, formula: Callable[..., Tensor], sessions: list[list[int]], negatives: list[int]) -> Tensor:
    """Summed loss of all pairs, by autograd, with the popularity correction written out."""
    most, pairs = model.options.max_length, []
    for session in sessions:
        for start in range(0, len(session) - 1, most):
            piece = session[start : start + most + 1]
            pairs += [(piece[: place + 1], piece[place + 1]) for place in range(len(piece) - 1)]
    targets, total = [target for _, target in pairs], torch.zeros((), dtype=torch.float64)
    counts = torch.from_numpy(model.vocabulary.counts).double()
    drawn = torch.tensor([*targets, *negatives])
    power = torch.tensor([1.0] * len(targets) + [model.options.sample_alpha] * len(negatives))
    for number, (seen, target) in enumerate(pairs):
        scores = model.item_embedding @ formula(model, seen)
        if negatives:
            scores = scores[drawn] - model.options.logq * power * counts[drawn].log()
        total = total + scores.logsumexp(0) - scores[number if negatives else target]
    return total


@pytest.mark.parametrize(("n_sample", "logits"), [(0, 1 << 21), (0, 30), (5, 1)])
@each_model
def test_a_step_follows_the_gradient_of_the_mean_loss(
    name: str, n_sample: int, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessrec.nn.objective._LOGITS", logits)
    monkeypatch.setattr("sessrec.nn.objective._LEAST", 2)
    model, twin = (model_of(name, n_sample=n_sample, logq=0.7) for _ in range(2))
    batch = next(iter(SessionLoader(make_sessions(SEQUENCES), batch_size=15)))
    drawn = [4, 4, 0, 7, 2][:n_sample]
    monkeypatch.setattr(model.objective.sampler, "sample", lambda *_: torch.tensor(drawn))
    losses = model.train_window(batch, torch.optim.SGD(model.parameters(), lr=1.0), torch.Generator())
    sessions = [row[:length].tolist() for row, length in zip(batch.items, batch.lengths, strict=True)]
    assert max(map(len, sessions)) > 5  # more pairs than a piece has
    expected = loss_of(twin, FORMULAS[name], sessions, drawn)
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-7, atol=1e-7)  # the logs of counts are in 32 bits
    (expected / int(batch.widths[0])).backward()
    for parameter, weight in model.named_parameters():
        own = twin.get_parameter(parameter)
        torch.testing.assert_close(weight, own - own.grad, rtol=0, atol=1e-7, msg=parameter)


@pytest.mark.parametrize("n_sample", [0, 8])
@each_model
def test_learns_a_cycle_of_items_by_heart(name: str, n_sample: int) -> None:
    sequences = [[(start + step) % 8 for step in range(5)] for start in range(8)] * 3
    torch.manual_seed(0)
    model = getattr(models, name)(hidden_size=16, n_sample=n_sample, learning_rate=0.02)
    model.set_vocabulary(make_vocabulary(8))
    optimizer = model.configure_optimizers()
    for epoch in range(20):
        loader = SessionLoader(make_sessions(sequences), 8, shuffle=True)
        loader.set_epoch(epoch)
        for batch in loader:
            model.train_window(batch, optimizer, torch.Generator().manual_seed(100 * epoch + batch.number))
    for item in range(8):
        assert model.recommend([f"i{(item - 1) % 8}", f"i{item}"], k=1)[0][0] == f"i{(item + 1) % 8}"


def test_dropout_follows_from_the_generator_of_the_batch() -> None:
    batch, weights = next(iter(SessionLoader(make_sessions(SEQUENCES), batch_size=6))), []
    for options, seed in (
        ({}, 7),
        ({"dropout_p_embed": 0.5}, 7),
        ({"dropout_p_session": 0.5}, 7),
        ({"dropout_p_session": 0.5}, 7),
    ):
        model = model_of("NARM", **options)
        torch.manual_seed(len(weights))
        model.train_window(batch, model.configure_optimizers(), torch.Generator().manual_seed(seed))
        weights.append(model.item_embedding.detach().clone())
    assert torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("NARM", "dropout_p_session", 1.0),
        ("NARM", "embedding_size", 0),
        ("NARM", "max_length", 0),
        ("SRGNN", "n_steps", 0),
        ("SRGNN", "weight_decay", -1.0),
        ("SRGNN", "n_sample", -1),
        ("SRGNN", "learning_rate", math.inf),
    ],
)
def test_wrong_options_are_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(SessRecError, match=f"--model.{option} is {value}"):
        getattr(models, name)(**{option: value})


@each_model
def test_a_fit_stopped_anywhere_ends_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(s, f"i{i}", 1_600_000_000 + 100 * s + p) for s, row in enumerate(SEQUENCES) for p, i in enumerate(row)]
    words = "--model.hidden_size 8 --model.max_length 3 --data.batch_size 3 --data.shuffle true "
    words += "--model.warmup 9 --trainer.gradient_clip_val 0.5 --model.n_sample 4"
    log, options = write_log(rows).name, [*words.split(), "--trainer.max_epochs", "2"]
    runs = [fit_log(log, *options, model=name, run="whole")]
    runs.append(fit_log(log, *options, "--trainer.max_steps", "7", model=name, run="halves"))
    fit.main(["--config", str(runs[1] / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "-1"])
    whole, halves = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert whole["global_step"] == halves["global_step"] > 7
    for key, weight in whole["state_dict"].items():
        assert torch.equal(weight, halves["state_dict"][key]), key
    assert np.isfinite(list(whole["results"].values())).all()


def test_a_model_without_queries_says_so() -> None:
    with pytest.raises(TypeError, match="WholeSessions has no queries method"):
        object.__new__(WholeSessions).queries(torch.zeros(1, 1), torch.ones(1, 1))
