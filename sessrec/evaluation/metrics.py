"""Full-ranking metrics: the target's rank among all items, and Recall, MRR and NDCG at a cutoff.

References:
    Hidasi and Czapp, "Widespread Flaws in Offline Evaluation of Recommender Systems", RecSys 2023, on sampled metrics
    and tie breaking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from sessrec.errors import SessRecError

TieMode = Literal["conservative", "standard", "median"]
CUTOFFS = (1, 5, 10, 20)
_DIGIT = 1 << 12  # so many digits below this have an exact sum in float32, whatever the order


def target_rank(scores: Tensor, target: Tensor, tie_mode: TieMode = "conservative", block_size: int = 8192) -> Tensor:
    """Rank of each target among all items, from 1.

    Args:
        scores: Score of every item, float, shape (P, N).
        target: Item index of each position's target, int64, shape (P,).
        tie_mode: Where items score as the target does: ``conservative`` ranks them all above it, ``standard`` below it,
            ``median`` half of them above.
        block_size: Items compared at once; bounds the memory and changes nothing else.

    Returns:
        Rank, int64, shape (P,); float64 with ``median``.

    Raises:
        SessRecError: If a score is not finite.

    Example:
        >>> scores = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.5]])
        >>> [target_rank(scores, torch.tensor([2]), mode).item() for mode in ("standard", "conservative", "median")]
        [2, 4, 3.0]
    """
    target_score = scores.gather(1, target[:, None])
    blocks = scores.split(min(block_size, 1 << 20), dim=1)
    counts, _ = count_above_and_tied(blocks, target_score, target)
    return rank_from_counts(counts.above, counts.tied, tie_mode)


class PositionCounts(NamedTuple):
    """What stands before the target at some positions; the target itself is left out."""

    above: Tensor
    """Items that score higher, int64, shape (P,)."""
    tied: Tensor
    """Other items that score the same, int64, shape (P,)."""
    weight: Tensor | None = None
    """Sum of the weights of all these items, a whole number in float64, shape (P,); None where they have no weights."""


def weight_digits(weights: Tensor) -> Tensor:
    """Whole numbers as digits to the base 4096, the lowest first: sums of them are exact, however they are grouped.

    Args:
        weights: Weight of each item, int64, at least 0, shape (N,).

    Returns:
        Digits, float32, shape (digits, N).

    Example:
        >>> weight_digits(torch.tensor([5, 4096, 8195])).tolist()
        [[5.0, 0.0, 3.0], [0.0, 1.0, 2.0]]
    """
    digits: list[Tensor] = []
    while not digits or weights.any():
        digits.append(weights % _DIGIT)
        weights = weights // _DIGIT
    return torch.stack(digits).float()


def count_above_and_tied(
    blocks: Iterable[Tensor], target_score: Tensor, target: Tensor, weights: Tensor | None = None
) -> tuple[PositionCounts, Tensor]:
    """Count, block by block over the catalogue, the items that score above the target and those that tie with it.

    Args:
        blocks: Scores of consecutive items, float, shapes (P, block), together (P, N).
        target_score: Score of each target, shape (P, 1).
        target: Item index of each target, int64, shape (P,).
        weights: Weight of each item, as `weight_digits`; None sums up none.

    Returns:
        The counts, and each target's score as it stands among the blocks, shape (P, 1).

    Raises:
        SessRecError: If a score is not finite, or the sum of a block's scores is not.
    """
    above, at_least, own_scores, sums, starts = [], [], [], [], [0]
    weighed: list[Tensor] = []
    room = target_score.new_empty(0)
    for block in blocks:
        if room.numel() < block.numel():
            room = _room_for(block).view(-1)
        above.append(count_true(torch.gt, block, target_score, room))
        at_least.append(count_true(torch.ge, block, target_score, room))
        if weights is not None:  # the comparison stands in the room
            is_at_least = room[: block.numel()].view(block.shape)
            of_block = weights[:, starts[-1] : starts[-1] + block.shape[1]].to(room.dtype)
            for part, digits in zip(is_at_least.split(_DIGIT, dim=1), of_block.split(_DIGIT, dim=1), strict=True):
                # one digit after the other: a product of two columns takes ten times as long on a CPU
                weighed.append(torch.stack([part @ digit for digit in digits]))
        own_scores.append(block.gather(1, (target - starts[-1]).clamp_(0, block.shape[1] - 1)[:, None]))
        sums.append(block.sum(dtype=torch.promote_types(block.dtype, torch.float32)))  # not finite if any score is not
        starts.append(starts[-1] + block.shape[1])
        del block  # its memory serves the next one
    broken = (~torch.isfinite(torch.stack(sums))).nonzero()[:, 0].tolist()  # asked once: asking waits for a GPU
    if broken:
        raise not_finite(slice(starts[broken[0]], starts[broken[0] + 1]))
    own_block = torch.bucketize(target, torch.tensor(starts[1:], device=target.device), right=True)
    own_score = torch.cat(own_scores, dim=1).gather(1, own_block[:, None])
    n_above = torch.stack(above).double().sum(dim=0).long() - (own_score > target_score)[:, 0].long()
    counts_itself = (own_score >= target_score)[:, 0].long()
    n_at_least = torch.stack(at_least).double().sum(dim=0).long() - counts_itself
    weight = None
    if weights is not None:
        digit_sums = torch.stack(weighed).double().sum(dim=0) - counts_itself * weights[:, target].double()
        weight = (digit_sums * _DIGIT ** torch.arange(len(weights), device=target.device)[:, None]).sum(dim=0)
    return PositionCounts(n_above, n_at_least - n_above, weight), own_score


def not_finite(items: slice) -> SessRecError:
    """The error of scores that are no numbers."""
    return SessRecError(
        f"a score among items {items.start} to {items.stop - 1} is not finite, so there is no ranking: the model has "
        "diverged (a lower --model.learning_rate may help) or its checkpoint is damaged"
    )


def count_true(compare: Callable[..., Tensor], scores: Tensor, threshold: Tensor, room: Tensor | None = None) -> Tensor:
    """How many scores of each row pass a comparison, such as ``torch.gt``, with the row's threshold.

    Args:
        compare: A comparison that takes ``out``.
        scores: Shape (P, n), n below 2**24.
        threshold: Shape (P, 1).
        room: Memory to work in, at least P * n floats: fresh memory costs more than the work.

    Returns:
        Counts, float, shape (P,).
    """
    # comparisons written as 0.0 and 1.0 are summed up many times faster than as bool
    ones = _room_for(scores) if room is None else room[: scores.numel()].view(scores.shape)
    return compare(scores, threshold, out=ones).sum(dim=1)


def _room_for(scores: Tensor) -> Tensor:
    """Memory for counts: in the scores' own type, which is written fastest, but never in 16 bits."""
    return torch.empty(scores.shape, dtype=torch.promote_types(scores.dtype, torch.float32), device=scores.device)


def rank_from_counts(above: Tensor, tied: Tensor, tie_mode: TieMode) -> Tensor:
    """Rank from the number of items above and of other items tied, see `target_rank`."""
    if tie_mode == "conservative":
        return 1 + above + tied
    if tie_mode == "standard":
        return 1 + above
    if tie_mode == "median":
        return 1 + above + tied.double() / 2
    raise SessRecError(f"tie_mode must be conservative, standard or median, got {tie_mode!r}")


class _Mean(Metric):
    """Mean over positions; two sum states, float64 and int64 whatever a model is cast to: 16 bits count to 256."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    positions: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # float64: a float32 sum stops counting ones at 16.8 million positions
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("positions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        """Add a value of each position, float64, shape (P,)."""
        self.total += values.sum()
        self.positions += values.numel()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        """Move the states as a module's tensors are moved, and leave their type."""

        def moved(state: Tensor) -> Tensor:
            new = fn(state)
            return new if new.dtype == state.dtype else state.to(new.device)

        return super()._apply(moved, *args, **kwargs)

    def compute(self) -> Tensor:
        """Average over all positions seen; NaN before the first."""
        return self.total / self.positions


class TiedShare(_Mean):
    """Share of positions at which other items score exactly as the target does."""

    def update(self, tied: Tensor) -> None:
        """Add positions by the number of items tied with each target, int64, shape (P,)."""
        self._add((tied > 0).double())


class _RankMetric(_Mean):
    """Mean gain of targets that rank at most K; others gain 0.

    Every position weighs the same, so long sessions weigh more than short ones, as in the GRU4Rec papers.

    Args:
        cutoff: Length K of the recommendation list, at least 1; it may exceed the catalogue.
        kwargs: See :class:`torchmetrics.Metric`.

    Raises:
        SessRecError: If ``cutoff`` is below 1.
    """

    higher_is_better = True
    gain: Callable[[Tensor], Tensor]
    """Gain in [0, 1] by rank, both float64, shape (P,)."""

    def __init__(self, cutoff: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if cutoff < 1:
            raise SessRecError(f"a cutoff must be at least 1, got {cutoff}")
        self.cutoff = cutoff

    def update(self, rank: Tensor) -> None:
        """Add positions by the rank of each target from 1, int64 or float, shape (P,)."""
        self._add(torch.where(rank <= self.cutoff, self.gain(rank.double()), 0.0))


class Recall(_RankMetric):
    """Recall@K of the next item: the share of targets that rank at most K; with one target a position, the hit rate.

    Example:
        >>> recall = Recall(cutoff=3)
        >>> recall.update(torch.tensor([1, 2, 4, 3]))
        >>> round(recall.compute().item(), 4)
        0.75
    """

    gain = staticmethod(torch.ones_like)


class MRR(_RankMetric):
    """Mean reciprocal rank of the next item, MRR@K: the mean of 1 / rank, 0 where the rank exceeds K.

    Example:
        >>> mrr = MRR(cutoff=3)
        >>> mrr.update(torch.tensor([1, 2, 4]))  # the last one is past the cutoff
        >>> round(mrr.compute().item(), 4)
        0.5
    """

    gain = staticmethod(torch.reciprocal)


class NDCG(_RankMetric):
    """NDCG@K of the next item: the mean of 1 / log2(rank + 1), 0 where the rank exceeds K; the ideal gain is 1.

    Example:
        >>> ndcg = NDCG(cutoff=3)
        >>> ndcg.update(torch.tensor([1, 3, 4]))
        >>> round(ndcg.compute().item(), 4)
        0.5
    """

    gain = staticmethod(lambda rank: torch.log2(rank + 1).reciprocal())


def ranking_metrics(cutoffs: Sequence[int] = CUTOFFS, prefix: str = "") -> MetricCollection:
    """Recall, MRR and NDCG at every cutoff, named ``recall@20`` and so on behind the prefix.

    Example:
        >>> sorted(ranking_metrics([20], prefix="val/"))
        ['val/mrr@20', 'val/ndcg@20', 'val/recall@20']
    """
    kinds = {"recall": Recall, "mrr": MRR, "ndcg": NDCG}
    metrics: dict[str, Metric | MetricCollection] = {
        f"{name}@{k}": kind(k) for k in cutoffs for name, kind in kinds.items()
    }
    # compute groups would merge metrics whose states are equal after the first batch, such as Recall@1 and Recall@5
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
