"""Ranks and metrics against a sort in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import (
    MRR,
    NDCG,
    Recall,
    TiedShare,
    count_above_and_tied,
    ranking_metrics,
    target_rank,
    weight_digits,
)
from sessrec.models import Popularity


def plain_rank(scores: list[float], target: int, mode: str) -> float:
    """Rank by walking over the items."""
    higher = [score for score in scores if score > scores[target]]
    equal = [score for number, score in enumerate(scores) if score == scores[target] and number != target]
    return 1 + len(higher) + {"standard": 0, "conservative": len(equal), "median": len(equal) / 2}[mode]


@pytest.mark.parametrize("mode", ["standard", "conservative", "median"])
@pytest.mark.parametrize("block_size", [1, 3, 50])
def test_target_rank(mode: str, block_size: int) -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(-4, 4, size=(40, 20)).astype(np.float32)  # many ties
    targets = generator.integers(0, 20, size=40)
    ours = target_rank(torch.from_numpy(scores), torch.from_numpy(targets), mode, block_size)  # type: ignore[arg-type]
    expected = [plain_rank(row.tolist(), target, mode) for row, target in zip(scores, targets, strict=True)]
    assert ours.tolist() == expected


def test_constant_scores_earn_nothing_by_default() -> None:
    assert target_rank(torch.zeros(5, 5), torch.arange(5)).tolist() == [5] * 5


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_negative_scores_and_a_shift_change_nothing(shift: float) -> None:
    scores = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -5.0]]) + shift
    assert target_rank(scores, torch.tensor([0])).item() == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = torch.zeros(2, 6)
    scores[1, 4] = bad
    with pytest.raises(SessRecError, match="not finite"):
        target_rank(scores, torch.tensor([0, 1]), block_size=3)


def test_own_column_is_not_counted_when_the_target_score_was_rounded_otherwise() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    for rounded in (1.9999, 2.0001):
        weights = weight_digits(torch.tensor([4, 2, 1]))
        (above, tied, weight), own = count_above_and_tied(
            [scores], torch.tensor([[rounded]]), torch.tensor([1]), weights
        )
        assert (above.item(), tied.item(), weight.item(), own.item()) == (1, 0, 1.0, 2.0)


def test_weights_of_all_sizes_are_summed_up_exactly() -> None:
    generator = np.random.default_rng(0)
    weights = (2.0 ** generator.uniform(0, 36, 10_000)).astype(np.int64)
    scores, target = torch.from_numpy(generator.random((5, 10_000), dtype=np.float32)), torch.arange(5) * 1999
    own = scores.gather(1, target[:, None])
    expected = [
        sum(weights[item].item() for item in range(10_000) if item != at and row[item] >= row[at])
        for row, at in zip(scores.tolist(), target.tolist(), strict=True)
    ]
    for width in (10_000, 4097, 300):
        for rows in (slice(0, 5), slice(1, 2)):
            digits = weight_digits(torch.from_numpy(weights))
            counts, _ = count_above_and_tied(scores[rows].split(width, dim=1), own[rows], target[rows], digits)
            assert counts.weight is not None
            assert counts.weight.tolist() == expected[rows]


@pytest.mark.parametrize("cutoff", [1, 3, 20])
def test_metrics(cutoff: int) -> None:
    ranks = np.random.default_rng(1).integers(1, 30, size=200)
    hits = [rank for rank in ranks.tolist() if rank <= cutoff]
    expected = {
        Recall: len(hits) / 200,
        MRR: sum(1 / rank for rank in hits) / 200,
        NDCG: sum(1 / math.log2(rank + 1) for rank in hits) / 200,
    }
    for metric_class, value in expected.items():
        metric = metric_class(cutoff)
        for part in np.array_split(ranks, 7):  # of unequal size: a mean of means would differ
            metric.update(torch.from_numpy(part))
        assert metric.compute().item() == pytest.approx(value, abs=1e-12)


def test_cutoffs_do_not_share_state_after_equal_first_batches() -> None:
    metrics = ranking_metrics([1, 3])
    metrics.update(torch.tensor([1]))  # both count a hit
    metrics(torch.tensor([3]))  # forward between updates
    for _ in range(2):
        results = metrics.compute()
        assert (results["recall@1"].item(), results["recall@3"].item()) == (0.5, 1.0)


def test_states_stay_small() -> None:
    metric = Recall(20)
    for _ in range(200):
        metric.update(torch.ones(1000, dtype=torch.int64))
    assert metric.total.numel() + metric.positions.numel() == 2
    assert metric.compute().item() == 1.0


CASTS: list[Callable[[nn.Module], nn.Module]] = [
    *(lambda module, kind=kind: module.to(kind) for kind in (torch.bfloat16, torch.float16, torch.float32)),
    *(lambda module, name=name: getattr(module, name)() for name in ("half", "bfloat16", "float", "double", "cpu")),
    lambda module: module.type(torch.float16),
    lambda module: module.to(torch.device("cpu"), torch.bfloat16),
]


@pytest.mark.parametrize("cast", CASTS)
def test_sums_have_64_bits_whatever_a_module_is_cast_to(cast: Callable[[nn.Module], nn.Module]) -> None:
    """Also those of before the cast, and of a model."""
    recall, mrr, tied, model = Recall(1), MRR(3), TiedShare(), Popularity()
    recall.set_dtype(torch.bfloat16)
    metrics = [recall, mrr, tied, model.val_metrics, model.test_metrics, model.tied_share]
    for metric in metrics:
        metric.update(torch.ones(700, dtype=torch.int64))
    for module in (recall, mrr, tied, model):
        cast(module)
    for metric in metrics:
        for _ in range(2):
            metric.update(torch.full((1001,), 3))
            metric.update(torch.ones(650, dtype=torch.int64))
    assert (recall.total.dtype, recall.positions.dtype) == (torch.float64, torch.int64)
    assert recall.compute().item() == 2000 / 4002
    assert model.val_metrics.compute()["val/recall@1"].item() == 2000 / 4002
    assert mrr.compute().item() == pytest.approx((2000 + 2002 / 3) / 4002, rel=1e-15)
    assert tied.compute().item() == model.tied_share.compute().item() == 1.0
    recall.reset()
    recall.update(torch.ones(1000, dtype=torch.int64))
    assert recall.compute().item() == 1.0


def test_cutoff_below_one_is_refused() -> None:
    with pytest.raises(SessRecError, match="at least 1"):
        Recall(0)
