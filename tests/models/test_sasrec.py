"""SASRec against a plain computation of its own, one session and one position at a time."""

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

from sessrec import fit
from sessrec.data.loaders import SessionBatch, SessionLoader
from sessrec.errors import SessRecError
from sessrec.models import SASRec

N_ITEMS = 9
SEQUENCES = [[(5 * session + 2 * step * step) % N_ITEMS for step in range(2 + session % 7)] for session in range(20)]


def model_of(**options: Any) -> SASRec:
    torch.manual_seed(3)
    model = SASRec(**({"hidden_size": 6, "n_heads": 2, "max_length": 4, "n_sample": 5, "dropout": 0.0} | options))
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases begin as if they were not there
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def layer_norm(vector: Tensor, norm: Any) -> Tensor:
    centred = vector - vector.mean()
    return norm.weight * centred / ((centred**2).mean() + norm.eps).sqrt() + norm.bias


def gate_of(block: Any, half: int, normed: Tensor) -> Tensor | float:
    if not len(block.gates):
        return 1.0
    return 1 / (1 + (-block.gates[half].weight @ normed - block.gates[half].bias).exp())


def output_of(model: SASRec, items: list[int]) -> Tensor:
    """Output at the last of some items, by the formulas: nothing after a place is looked at."""
    hidden, heads = model.options.hidden_size, model.options.n_heads
    size = hidden // heads
    states = [model.item_embedding[item] * math.sqrt(hidden) for item in items]
    for block in model.blocks:
        normed = [layer_norm(state, block.norms[0]) for state in states]
        parts = [(block.inputs.weight @ state + block.inputs.bias).split(hidden) for state in normed]
        attended = []
        for place in range(len(states)):
            heads_out = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                scores = torch.stack(
                    [
                        parts[place][0][own] @ parts[k][1][own] / math.sqrt(size) + block.bias[head, place - k]
                        for k in range(place + 1)
                    ]
                )
                share = scores.exp() / scores.exp().sum()
                heads_out.append(sum(share[k] * parts[k][2][own] for k in range(place + 1)))
            added = block.output.weight @ torch.cat(heads_out) + block.output.bias
            attended.append(states[place] + gate_of(block, 0, normed[place]) * added)
        states = []
        for state in attended:
            normed = layer_norm(state, block.norms[1])
            inner = block.inner.weight @ normed + block.inner.bias
            if len(block.gates):
                gate, value = inner.split(len(inner) // 2)
                inner = gate / (1 + (-gate).exp()) * value
            else:
                inner = inner.clamp(min=0)
            states.append(state + gate_of(block, 1, normed) * (block.outer.weight @ inner + block.outer.bias))
    return model.output.weight @ layer_norm(states[-1], model.norm) + model.output.bias


LIGR = {"block": "ligr", "inner_factor": 2}


@pytest.mark.parametrize("options", [{}, {"n_blocks": 1, "n_heads": 1}, {"n_heads": 3, "max_length": 2}, LIGR])
def test_outputs_are_those_of_the_formulas(options: dict[str, Any]) -> None:
    """A position sees itself and the max_length - 1 events before it, also in sessions that are longer."""
    model = model_of(**options)
    items = [3, 1, 4, 1, 5, 8, 2]
    with torch.no_grad():
        queries = model.encode(torch.tensor([items, [0] * 7]))[0]
        for last in range(len(items)):
            seen = items[max(0, last + 1 - model.options.max_length) : last + 1]
            torch.testing.assert_close(queries[last], output_of(model, seen), rtol=1e-9, atol=1e-9)


def loss_of(model: SASRec, sessions: list[list[int]], negatives: list[int] | None) -> Tensor:
    """Summed loss of all pairs, by autograd, with the popularity correction written out."""
    most, pairs = model.options.max_length, []
    for session in sessions:
        for start in range(0, len(session) - 1, most):
            piece = session[start : start + most + 1]
            pairs += [(piece[: place + 1], piece[place + 1]) for place in range(len(piece) - 1)]
    h, targets, total = model.options, [target for _, target in pairs], torch.zeros((), dtype=torch.float64)
    counts = torch.from_numpy(model.vocabulary.counts).double()
    for number, (seen, target) in enumerate(pairs):
        query, drawn, own = output_of(model, seen), torch.arange(N_ITEMS), target
        power = torch.zeros(N_ITEMS)
        if negatives is not None:
            drawn, own = torch.tensor([*targets, *negatives]), number
            power = torch.tensor([1.0] * len(targets) + [h.sample_alpha] * len(negatives))
        rows = model.item_embedding[drawn]
        if h.loss == "bpr-max":
            logits = torch.nn.functional.elu(rows @ query, h.elu_param)
            others = torch.tensor([place for place in range(len(drawn)) if place != own])
            share = logits[others].softmax(0)
            above = (share * (logits[own] - logits[others]).sigmoid()).sum()
            total = total - above.log() + h.bpreg * (share * logits[others] ** 2).sum()
            continue
        if h.temperature:
            scores = (rows @ query) / (rows.square().sum(1) * query.square().sum()).sqrt() / h.temperature
        else:
            scores = rows @ query
        scores = scores - h.logq * power * counts[drawn].log()
        total = total + scores.logsumexp(0) - scores[own]
    return total


@pytest.mark.parametrize("n_sample", [0, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"logq": 0.7},
        {"temperature": 0.0, "block": "ligr"},
        {"loss": "bpr-max"},
        {"loss": "bpr-max", "bpreg": 0.3, "elu_param": 1.0, "block": "ligr"},
    ],
)
def test_a_step_follows_the_gradient_of_the_mean_loss(
    n_sample: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options | {"n_sample": n_sample}
    model, twin = model_of(**options), model_of(**options)
    batch = next(iter(SessionLoader(make_sessions(SEQUENCES), batch_size=6)))
    drawn = [4, 4, 0, 7, 2]
    monkeypatch.setattr(model.objective.sampler, "sample", lambda *_: torch.tensor(drawn))
    losses = model.train_window(batch, model.configure_optimizers(), torch.Generator())
    sessions = [row[:length].tolist() for row, length in zip(batch.items, batch.lengths, strict=True)]
    expected = loss_of(twin, sessions, drawn if n_sample else None)
    # the logs of the counts are in 32 bits
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-7, atol=1e-7)
    (expected / int(batch.widths[0])).backward()
    layers = [parameter for name, parameter in twin.named_parameters() if "embedding" not in name]
    torch.optim.Adam(layers, lr=model.options.learning_rate, betas=(0.9, 0.98)).step()
    with torch.no_grad():  # the first step of Adagrad, whose accumulator begins at 1e-6
        table = twin.item_embedding
        assert table.grad is not None
        table -= model.options.table_learning_rate * table.grad / (table.grad**2 + 1e-6).sqrt()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, dict(twin.named_parameters())[name], rtol=0, atol=1e-6, msg=name)


def test_a_batch_has_sessions_of_all_lengths() -> None:
    """Not sorted by length: the lengths of a random batch vary as those of the log do."""
    sequences = [[0] * (2 + number % 10) for number in range(400)]
    lengths = [batch.lengths.double() for batch in SessionLoader(make_sessions(sequences), 20, shuffle=True)]
    within = torch.stack([own.var() for own in lengths]).mean().item()
    assert within == pytest.approx(np.var([len(sequence) for sequence in sequences]), rel=0.15)


@pytest.mark.parametrize(("batch_size", "shuffle"), [(1, False), (6, False), (6, True), (50, True)])
def test_every_session_comes_once_an_epoch(batch_size: int, shuffle: bool) -> None:
    loader = SessionLoader(make_sessions(SEQUENCES), batch_size, shuffle, seed=5)
    orders = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [batch.number for batch in batches] == list(range(len(loader)))
        rows = [
            row[:length].tolist() for batch in batches for row, length in zip(batch.items, batch.lengths, strict=True)
        ]
        assert sorted(rows) == sorted(SEQUENCES)
        assert sum(int(batch.widths[0]) for batch in batches) == sum(len(sequence) - 1 for sequence in SEQUENCES)
        orders.append(rows)
    assert (orders[0] == orders[1]) == (not shuffle)
    loader.load_state_dict({"batch": 2})
    rest: list[SessionBatch] = list(loader)
    assert [batch.number for batch in rest] == list(range(2, len(loader)))


def test_learns_a_cycle_of_items_by_heart() -> None:
    sequences = [[(start + step) % 8 for step in range(5)] for start in range(8)] * 3
    model = SASRec(hidden_size=16, n_sample=8, dropout=0.1, learning_rate=0.02)
    model.set_vocabulary(make_vocabulary(8))
    optimizer = model.configure_optimizers()
    for epoch in range(30):
        loader = SessionLoader(make_sessions(sequences), 8, shuffle=True)
        loader.set_epoch(epoch)
        for batch in loader:
            model.train_window(batch, optimizer, torch.Generator().manual_seed(100 * epoch + batch.number))
    for item in range(8):
        assert model.recommend([f"i{(item - 1) % 8}", f"i{item}"], k=1)[0][0] == f"i{(item + 1) % 8}"


def test_the_same_batch_draws_the_same() -> None:
    """Samples and dropout follow from the generator of the batch alone, and leave those of others as they were."""
    weights = []
    batch = next(iter(SessionLoader(make_sessions(SEQUENCES), batch_size=6)))
    for seed in (1, 2):
        model = model_of(dropout=0.5).train()
        torch.manual_seed(seed)
        model.train_window(batch, model.configure_optimizers(), torch.Generator().manual_seed(7))
        after = torch.rand(3)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(3))
        weights.append(model.item_embedding.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_heads", 3),
        ("dropout", 1.0),
        ("n_blocks", 0),
        ("n_sample", -1),
        ("logq", 2.0),
        ("block", "x"),
        ("loss", "bpr"),
        ("temperature", -1.0),
    ],
)
def test_wrong_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(SessRecError, match=option):
        SASRec(**{option: value})


def test_a_checkpoint_of_the_last_release_is_rejected() -> None:
    with pytest.raises(SessRecError, match="the SASRec of sessrec 0.2, which had no last map: fit anew"):
        SASRec().on_load_checkpoint({"state_dict": {"place_embedding": torch.zeros(2, 2)}})


def test_a_fit_stopped_anywhere_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(s, f"i{i}", 1_600_000_000 + 100 * s + p) for s, row in enumerate(SEQUENCES) for p, i in enumerate(row)]
    words = "--model.hidden_size 8 --model.max_length 3 --model.n_sample 4 --data.batch_size 3 --data.shuffle true "
    words += "--model.warmup 9 --trainer.gradient_clip_val 0.5"
    log, options = write_log(rows).name, [*words.split(), "--trainer.max_epochs", "2"]
    runs = [fit_log(log, *options, model="SASRec", run="whole")]
    runs.append(fit_log(log, *options, "--trainer.max_steps", "7", model="SASRec", run="halves"))
    fit.main(["--config", str(runs[1] / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "-1"])
    whole, halves = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert whole["global_step"] == halves["global_step"] > 7
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, halves["state_dict"][name]), name
    assert np.isfinite(list(whole["results"].values())).all()
    optimizer = whole["optimizer_states"][0]["parts"][1]["state"]
    for number, state in optimizer.items():
        assert torch.equal(
            state["accumulator"], halves["optimizer_states"][0]["parts"][1]["state"][number]["accumulator"]
        )
