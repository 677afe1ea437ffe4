"""Lists found by 8-bit products are those of all scores in 64 bits."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_model, make_vocabulary
from torch import Tensor

from sessrec.errors import SessRecError
from sessrec.evaluation import screening
from sessrec.evaluation.ranking import EXCLUDED, best_items
from sessrec.evaluation.screening import Screen, screen_where_faster
from sessrec.models.inference import CandidateRules, top_items

N = 3000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_ITEMS", 256)


def table_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(N, 13, generator=generator)
    if kind == "norms":
        rows *= torch.rand(N, 1, generator=generator) ** 4 * 50
    elif kind == "bias":  # a column a hundred times as large
        rows[:, -1] *= 100
    elif kind == "ties":
        rows = rows[torch.arange(N) % 40]
    elif kind == "zeros":
        rows = torch.zeros(N, 13)
    return rows


@pytest.mark.parametrize("kind", ["plain", "norms", "bias", "ties", "zeros"])
@pytest.mark.parametrize("rule", ["all", "excluded", "allowed", "few allowed"])
def test_lists_are_those_of_all_scores(kind: str, rule: str) -> None:
    rows = table_of(kind)
    queries = torch.randn(3, 13, generator=torch.Generator().manual_seed(2))
    queries[:, -1] = 1.0
    n_scored = 0

    def score(own: Tensor, items: Any) -> Tensor:
        nonlocal n_scored
        n_scored += len(rows[items])
        return own @ rows[items].T

    exact = queries.double().numpy() @ rows.double().numpy().T
    excluded, allowed = None, None
    if rule == "excluded":
        gone = torch.tensor(np.argsort(-exact, axis=1)[:, :5].copy())  # the best ones
        excluded = lambda _: (torch.arange(3).repeat_interleave(5), gone.flatten())  # noqa: E731
        np.put_along_axis(exact, gone.numpy(), EXCLUDED, axis=1)
    elif rule.endswith("allowed"):
        allowed = torch.arange(N) % (500 if rule == "few allowed" else 3) == 1
        exact[:, ~allowed.numpy()] = EXCLUDED
    screen = Screen(lambda items: rows[items], N).of_queries(queries)
    best, scores = best_items(score, queries, N, 20, excluded, allowed=allowed, screen=screen)
    n_listed = 6 if rule == "few allowed" else 20
    own = np.take_along_axis(exact, best.numpy(), axis=1)[:, :n_listed]  # of the items that are listed
    expected = -np.sort(-exact, axis=1)[:, :n_listed]
    assert np.allclose(own, expected, rtol=1e-5, atol=1e-4)
    assert np.allclose(scores.numpy()[:, :n_listed], expected, rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == len(row) for row in best.tolist())
    if kind == "ties":  # equal scores by item index
        assert all(
            (row[1:] > row[:-1]).all()
            for row in np.split(best.numpy()[0, :n_listed], np.flatnonzero(np.diff(own[0]) < -1e-4) + 1)
        )
    if kind in ("plain", "norms", "bias") and rule in ("all", "excluded"):
        assert n_scored < N / 3


def test_long_lists_and_single_queries() -> None:
    rows = table_of("plain")[:700]
    for queries in (rows[:1], rows[:16], rows[:33]):
        screen = Screen(lambda items: rows[items], len(rows)).of_queries(queries)
        for k in (1, 300, 2000):
            best, scores = best_items(lambda own, items: own @ rows[items].T, queries, len(rows), k, screen=screen)
            expected, all_scores = best_items(lambda own, items: own @ rows[items].T, queries, len(rows), k)
            assert torch.allclose(scores, all_scores, rtol=1e-5, atol=1e-5)
            assert best.shape == expected.shape == (len(queries), min(k, 700))


CHECK = """
import torch
from sessrec.evaluation.screening import Screen, _is_exact, screen_where_faster
from sessrec.evaluation.ranking import best_items
generator = torch.Generator().manual_seed(0)
queries = torch.sign(torch.randn(8, 100, generator=generator))
rows = torch.cat([torch.randn(20000, 100, generator=generator), queries * 2])
score = lambda own, items: own @ rows[items].T
expected = best_items(score, queries, len(rows), 20)[0]
if _is_exact():
    screen = Screen(lambda items: rows[items], len(rows)).of_queries(queries)
    assert torch.equal(best_items(score, queries, len(rows), 20, screen=screen)[0], expected)
else:
    assert screen_where_faster(lambda items: rows[items], len(rows)) is None
"""


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_no_list_is_wrong_on_a_processor_that_sums_in_16_bits(instructions: str) -> None:
    """oneDNN, which multiplies for torch, takes the instructions of an older processor where it is told so."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["GRU4Rec", "GRU4Rec two layers", "SASRec", "NARM", "SRGNN"])
def test_models_give_the_lists_that_they_give_without(name: str) -> None:
    model = make_model(name).eval()
    model.set_vocabulary(make_vocabulary(1200))
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        for parameter in model.parameters():  # biases, too
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        items = torch.randint(1200, (35, 6), generator=generator)  # more than are looked through at once
        lengths = torch.tensor([6, 1, 3, 2, 5] * 7)
        factors = model.factors(torch.empty(0, 0), slice(0, 1))
        assert factors is not None
        screen = Screen(lambda own: model.factors(torch.empty(0, 0), own)[1], 1200)  # type: ignore[index]
        for rules in (CandidateRules(), CandidateRules(exclude_seen=True)):
            expected, scores = top_items(model, items, lengths, 10, rules)
            found, found_scores = top_items(model, items, lengths, 10, rules, screen)
            assert torch.equal(found, expected)
            assert torch.allclose(found_scores, scores, rtol=1e-5, atol=1e-6)


def test_models_whose_scores_are_no_products_have_no_factors() -> None:
    assert make_model("Markov").factors(torch.empty(0, 0), slice(0, 1)) is None


def test_what_is_not_finite_is_refused() -> None:
    rows = table_of("plain")
    rows[700, 3] = float("nan")
    with pytest.raises(SessRecError, match="no numbers"):
        Screen(lambda items: rows[items], N)


def test_a_screen_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table_of("plain")
    for times, is_taken in ((iter([1.0, 2.0]), True), (iter([2.0, 1.0]), False)):
        monkeypatch.setattr(screening, "_seconds", lambda _, times=times: next(times))
        assert (screen_where_faster(lambda items: rows[items], N) is not None) == is_taken
    monkeypatch.delattr(torch, "_int_mm")
    assert screen_where_faster(lambda items: rows[items], N) is None
