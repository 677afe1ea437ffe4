"""Losses of a session-parallel step, as pure functions on logits.

Every function takes the logits of the step's candidates, shape (B, C): row i is lane i, and candidate i is its target;
the other candidates are its negatives (the other lanes' targets, then the sampled items). Every function returns one
loss a lane, shape (B,). ``excluded`` (bool, shape (B, C)) names candidates that are no negatives of a lane, such as
copies of its target; the target's own column never is one.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016: BPR, TOP1.
    Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018:
    cross-entropy with sampled negatives, BPR-max, TOP1-max.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(logits: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Minus the log softmax of the target among the candidates.

    Args:
        logits: Float, shape (B, C).
        excluded: Candidates to leave out of the softmax, see the module's head.

    Returns:
        Loss of each lane, shape (B,); 0 where the target is the only candidate.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
        >>> cross_entropy(logits).mean()
        tensor(0.3763)
    """
    if excluded is not None:
        logits = logits.masked_fill(excluded, -torch.inf)
    return -logits.log_softmax(dim=1).diagonal()  # many times faster than logsumexp on a CPU


def bpr_max(logits: Tensor, bpreg: float = 1.0, elu_param: float = 0.5, excluded: Tensor | None = None) -> Tensor:
    r"""BPR-max: push the target above the negatives, each negative weighed by its softmax share.

    With :math:`r` the ELU of the logits and :math:`s_j` the softmax of the negatives' :math:`r_j`, the loss is

    .. math:: -\log \sum_j s_j \sigma(r_i - r_j) + \lambda \sum_j s_j r_j^2

    The sum is taken in log space, so the gradient does not vanish where every :math:`\sigma(r_i - r_j)` underflows. The
    gradient is worked out beside the loss; it cannot be differentiated again.

    Args:
        logits: Float, shape (B, C).
        bpreg: Weight :math:`\lambda` of the score regularisation.
        elu_param: Negative saturation of the ELU; 0 leaves the logits as they are.
        excluded: Candidates that are no negatives, see the module's head.

    Returns:
        Loss of each lane, shape (B,); 0 where a lane has no negative.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
        >>> bpr_max(logits, bpreg=0.0, elu_param=0.0).mean()
        tensor(0.2260)
    """
    scores = F.elu(logits, elu_param) if elu_param > 0 else logits
    if excluded is None and logits.shape[1] > 1:  # every lane has a negative
        return _BPRMax.apply(scores, None, bpreg)
    no_negative = _is_no_negative(logits, excluded)
    loss = _BPRMax.apply(scores, no_negative, bpreg)
    return torch.where(no_negative.all(dim=1), 0.0, loss)


class _BPRMax(torch.autograd.Function):
    r"""BPR-max and its gradient in one go, a third of the passes over (B, C) that autograd takes.

    With :math:`s` the softmax of the negatives' scores, :math:`w` that of :math:`r_j + \log\sigma(r_i - r_j)` and
    :math:`P = \sum_j s_j r_j^2`, the gradient is :math:`s_j (1 + \lambda (r_j^2 - P + 2 r_j)) - w_j \sigma(r_i - r_j)`
    at a negative and :math:`\sum_j w_j \sigma(r_i - r_j) - 1` at the target.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, no_negative: Tensor | None, bpreg: float) -> Tensor:
        """Loss of each lane from the scores (B, C); the gradient is kept."""
        lag = scores - scores.diagonal()[:, None]  # of the target behind each candidate
        of_negatives = _negatives_alone(scores.clone(), no_negative)
        share, log_total = _softmax(of_negatives)
        # log sigma(-lag) = -softplus(lag), which is the faster of the two
        pull, log_gain = _softmax(of_negatives.sub_(F.softplus(lag, threshold=40)))
        pull.mul_(lag.neg_().sigmoid_())  # w * sigma
        square = torch.mul(scores, scores, out=lag)  # fresh memory would cost more than the work
        penalty = torch.mul(share, square, out=of_negatives).sum(dim=1)
        slope = square.add_(scores, alpha=2).sub_(penalty[:, None]).mul_(bpreg).add_(1)
        gradient = share.mul_(slope).sub_(pull)
        gradient.diagonal().copy_(pull.sum(dim=1) - 1)
        ctx.save_for_backward(gradient)
        return bpreg * penalty - (log_gain - log_total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradient that is kept."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None], None, None


def _negatives_alone(values: Tensor, no_negative: Tensor | None) -> Tensor:
    """Put -1e30 where a candidate is no negative, in place: in the target's own column where no mask is given.

    It is not -inf, for a lane without negatives must give no NaN.
    """
    if no_negative is None:
        values.diagonal().fill_(-1e30)
        return values
    return values.masked_fill_(no_negative, -1e30)


def _softmax(values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of each row, and the log of the sum of its exponentials, shape (B,)."""
    softmax = values.softmax(dim=1)
    return softmax, values.amax(dim=1) - softmax.amax(dim=1).log()


def bpr(logits: Tensor, excluded: Tensor | None = None) -> Tensor:
    r"""BPR: mean over the negatives of :math:`-\log \sigma(o_i - o_j)`.

    Args:
        logits: Float, shape (B, C).
        excluded: Candidates that are no negatives, see the module's head.

    Returns:
        Loss of each lane, shape (B,); 0 where a lane has no negative.
    """
    return _mean_over_negatives(-F.logsigmoid(logits.diagonal()[:, None] - logits), excluded)


def top1(logits: Tensor, excluded: Tensor | None = None) -> Tensor:
    r"""TOP1: mean over the negatives of :math:`\sigma(o_j - o_i) + \sigma(o_j^2)`.

    Args:
        logits: Float, shape (B, C).
        excluded: Candidates that are no negatives, see the module's head.

    Returns:
        Loss of each lane, shape (B,); 0 where a lane has no negative.
    """
    return _mean_over_negatives(_top1_terms(logits), excluded)


def top1_max(logits: Tensor, excluded: Tensor | None = None) -> Tensor:
    """TOP1-max: the terms of TOP1 weighed by the softmax of the negatives' logits in place of the mean.

    Args:
        logits: Float, shape (B, C).
        excluded: Candidates that are no negatives, see the module's head.

    Returns:
        Loss of each lane, shape (B,); 0 where a lane has no negative.
    """
    log_weight, has_negative = _log_softmax_weight(logits, excluded)
    return torch.where(has_negative, (log_weight.exp() * _top1_terms(logits)).sum(dim=1), 0.0)


def _top1_terms(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits - logits.diagonal()[:, None]) + torch.sigmoid(logits.square())  # (B, C)


def _is_no_negative(logits: Tensor, excluded: Tensor | None) -> Tensor:
    own = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    return own if excluded is None else own | excluded


def _log_softmax_weight(scores: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log of each negative's softmax share, (B, C), -1e30 elsewhere; and which lanes have a negative, (B,)."""
    no_negative = _is_no_negative(scores, excluded)
    # a large finite number and not -inf: a lane without negatives must give no NaN in the gradient
    return scores.masked_fill(no_negative, -1e30).log_softmax(dim=1).masked_fill(no_negative, -1e30), ~no_negative.all(
        1
    )


def _mean_over_negatives(terms: Tensor, excluded: Tensor | None) -> Tensor:
    no_negative = _is_no_negative(terms, excluded)
    n_negatives = (~no_negative).sum(dim=1).clamp(min=1)
    return terms.masked_fill(no_negative, 0.0).sum(dim=1) / n_negatives
