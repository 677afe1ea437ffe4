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

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return logits.logsumexp(dim=1) - logits.diagonal()


def bpr_max(logits: Tensor, bpreg: float = 1.0, elu_param: float = 0.5, excluded: Tensor | None = None) -> Tensor:
    r"""BPR-max: push the target above the negatives, each negative weighed by its softmax share.

    With :math:`r` the ELU of the logits and :math:`s_j` the softmax of the negatives' :math:`r_j`, the loss is

    .. math:: -\log \sum_j s_j \sigma(r_i - r_j) + \lambda \sum_j s_j r_j^2

    The sum is taken in log space, so the gradient does not vanish where every :math:`\sigma(r_i - r_j)` underflows.

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
    target_score = scores.diagonal()[:, None]  # (B, 1)
    log_weight, has_negative = _log_softmax_weight(scores, excluded)
    gain = (log_weight + F.logsigmoid(target_score - scores)).logsumexp(dim=1)  # log of the sum over negatives
    penalty = (log_weight.exp() * scores.square()).sum(dim=1)
    return torch.where(has_negative, bpreg * penalty - gain, 0.0)


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
