"""What the models of whole sessions are trained for: queries that score their targets above other items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sessrec.nn.losses import Candidates, bpr_max, cross_entropy
from sessrec.nn.negatives import LogQ, NegativeSampler

ObjectiveName = Literal["cross-entropy", "bpr-max"]
_LOGITS = 1 << 21  # logits that are held at once against all items: 8 MB, which a cache holds, ...
_LEAST = 64  # ... but of no fewer positions


class Objective(nn.Module):
    """Scores of queries by items, and the loss of a target's score against all items or against samples.

    A score is the inner product of query and item row, or, with a temperature, their cosine over it. The module follows
    the model to its device and adds nothing to its checkpoint.

    Args:
        counts: Events of each item in training, all above 0, int64, shape (N,).
        loss: ``cross-entropy`` or ``bpr-max``.
        n_sample: Samples of a step, shared by all queries, beside the other queries' targets; 0 compares with all
            items.
        sample_alpha: Samples are drawn in proportion to an item's count to this power.
        logq: Strength in [0, 1] of the popularity correction of cross-entropy's logits where items are sampled.
        temperature: Temperature of cosines; 0 for inner products.
        bpreg: Weight of the score regularisation of BPR-max.
        elu_param: Saturation of the ELU in BPR-max; 0 for none.

    Example:
        >>> objective = Objective(torch.tensor([3, 1]), temperature=0.5)
        >>> objective.scores(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        tensor([[2.0000, 1.2000]])
    """

    def __init__(
        self,
        counts: Tensor,
        loss: ObjectiveName = "cross-entropy",
        n_sample: int = 0,
        sample_alpha: float = 0.75,
        logq: float = 1.0,
        temperature: float = 0.0,
        bpreg: float = 1.0,
        elu_param: float = 0.5,
    ) -> None:
        super().__init__()
        self.sampler, self.log_q = NegativeSampler(counts, sample_alpha), LogQ(counts, sample_alpha)
        self.n_sample, self.temperature = n_sample, temperature
        self.logq = logq if loss == "cross-entropy" else 0.0
        self.loss_options = {} if loss == "cross-entropy" else {"bpreg": bpreg, "elu_param": elu_param}
        self.loss = cross_entropy if loss == "cross-entropy" else bpr_max

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Score of each item's row, (n, H), for each query, (P, H); float, shape (P, n)."""
        left, right = self.factors(queries, rows)
        return left @ right.T

    def factors(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What is multiplied for the scores: of the queries, (P, H), and of the rows, (n, H)."""
        if not self.temperature:
            return queries, rows
        return F.normalize(queries) / self.temperature, F.normalize(rows)

    def backward(
        self,
        queries: Tensor,
        targets: Tensor,
        rows_of: Callable[[Tensor | None], Tensor],
        generator: torch.Generator,
        first: int = 0,
    ) -> Tensor:
        """Leave the gradient of the mean loss in what queries and rows were computed from.

        Args:
            queries: Queries, shape (P, H), of the dtype of the rows.
            targets: Items of the step, int64, shape (all P,): those of the queries, and those of other processes, to
                whose mean loss these queries add their part.
            rows_of: Gives the rows of some items, int64, shape (n,), or with None of all; shape (n, H).
            generator: Source of the samples, on the device of the queries.
            first: Place of the first query's target.

        Returns:
            Sum of the loss over the queries, scalar.
        """
        n_targets, own = len(targets), slice(first, first + len(queries))
        if self.n_sample:
            negatives = self.sampler.sample((self.n_sample,), generator)
            draw_weights = self._weights(targets, negatives)
            # each item is multiplied once, and weighs what its draws do
            items, column = torch.cat([targets, negatives]).unique(return_inverse=True)
            rows, columns, at_once = rows_of(items), column[own], n_targets
            weights = draw_weights.new_zeros(len(items)).index_add_(0, column, draw_weights).to(rows.dtype)
            target_weights = draw_weights[own].to(rows.dtype)
        else:
            rows, columns = rows_of(None), targets[own]
            at_once = max(_LEAST, _LOGITS // len(rows))
            weights, target_weights = rows.new_ones(len(rows)), rows.new_ones(len(columns))
        sides = self.factors(queries, rows)
        left, right = (side.detach() for side in sides)
        gradients, total = (torch.empty_like(left), torch.zeros_like(right)), left.new_zeros(())
        split = (of.split(at_once) for of in (left, columns, target_weights, gradients[0]))
        for part, own_columns, own_weights, gradient in zip(*split, strict=True):
            candidates = _candidates(own_columns, own_weights, weights)
            loss, of_logits = self.loss(part @ right.T, candidates, **self.loss_options)
            of_logits = of_logits.to(right.dtype).div_(n_targets)
            torch.mm(of_logits, right, out=gradient)
            gradients[1].addmm_(of_logits.T, part)
            total += loss.sum()
        torch.autograd.backward(sides, gradients)
        return total

    def _weights(self, targets: Tensor, negatives: Tensor) -> Tensor:
        """Weight of each target and each sample among the candidates, float32."""
        if not self.logq:
            return torch.ones(len(targets) + len(negatives), device=targets.device)
        return self.log_q(targets[None], negatives[None])[0].mul_(-self.logq).exp_()


def _candidates(columns: Tensor, target_weights: Tensor, weights: Tensor) -> Candidates:
    """The columns of some queries' targets, with their weights as such, among all columns, with all their weight."""
    places = torch.arange(len(columns), device=columns.device) * len(weights) + columns
    return Candidates(places, weights, target_weights, weights.index_select(0, columns) - target_weights)
