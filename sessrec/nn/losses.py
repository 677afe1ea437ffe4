"""Losses of a session-parallel step with their gradients, as pure functions on logits.

Every function takes the logits of the step's candidates, float, shape (B, C), one row a lane, and which candidate is
whose target and how much each one weighs (`Candidates`). It returns one loss a lane, shape (B,), 0 where a lane has no
negative, and its gradient with respect to the logits, shape (B, C), and may overwrite the logits. Logits of 16 bits are
taken in 32, and so are loss and gradient: a sum of thousands of shares has too few digits in 16.

The negatives of a lane are all candidates but its own target: the other lanes' targets and the sampled items. An item
that was drawn three times is one candidate that counts three times, at the cost of one.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016: BPR, TOP1.
    Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018:
    cross-entropy with sampled negatives, BPR-max, TOP1-max.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_LOG2_E = 1.4426950408889634  # exp2 takes a third of the time of exp on a CPU
_NEAR = 40.0  # targets that are no further below take one exponential a candidate: both ends have their digits
_MOST = 37.0  # exp(-37) added to 1 is lost in float64
Loss = Callable[..., tuple[Tensor, Tensor]]


class Candidates(NamedTuple):
    """Which candidates a step compares, and how much each one weighs.

    With plain losses a weight is a number of copies. With the popularity correction of cross-entropy it is the sum over
    the copies of exp(-correction).
    """

    targets: Tensor
    """Place of each lane's target in the flattened logits, lane * C + column, int64, shape (B,)."""
    weights: Tensor
    """Weight of each candidate, above 0, float, shape (C,)."""
    target_weights: Tensor
    """Weight of each lane's target as the target, float, shape (B,)."""
    own_weights: Tensor
    """Weight that is left of the target's column as the lane's negative: that of copies; float, shape (B,)."""

    @classmethod
    def each_once(cls, n_lanes: int, weights: Tensor, first: int = 0) -> Candidates:
        """Every column a candidate of its own; lane i's target is in column ``first`` + i."""
        targets = torch.arange(n_lanes, device=weights.device) * (len(weights) + 1) + first
        own = weights[first : first + n_lanes]
        return cls(targets, weights, own, torch.zeros_like(own))


def _in_32_bits(loss: Loss) -> Loss:
    """Take logits and weights of 16 bits in 32."""

    @wraps(loss)
    def with_32_bits(logits: Tensor, candidates: Candidates, *options: float, **named: float) -> tuple[Tensor, Tensor]:
        if logits.element_size() == 2:
            logits, candidates = logits.float(), Candidates(candidates.targets, *(w.float() for w in candidates[1:]))
        return loss(logits, candidates, *options, **named)

    return with_32_bits


@_in_32_bits
def cross_entropy(logits: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Minus the log softmax of the target among the candidates.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
        >>> loss, gradient = cross_entropy(logits, Candidates.each_once(3, torch.ones(3)))
        >>> loss.mean()
        tensor(0.3763)
    """
    targets, flat = candidates.targets, logits.view(-1)
    own = flat.index_select(0, targets)  # (B,)
    target = own + candidates.target_weights.log()  # (B,)
    logits.add_(candidates.weights.log())  # (B, C), of which the targets have a weight of their own
    flat.index_copy_(0, targets, own + (candidates.target_weights + candidates.own_weights).log())
    highest = logits.amax(dim=1)  # (B,)
    share = torch.softmax(logits, dim=1)  # (B, C); many times faster than logsumexp on a CPU
    loss = (highest - target).sub_(share.amax(dim=1).log_())  # (B,)
    share.view(-1).index_add_(0, targets, torch.full_like(own, -1.0))
    return loss, share


@_in_32_bits
def bpr_max(
    logits: Tensor, candidates: Candidates, bpreg: float = 1.0, elu_param: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""BPR-max: push the target above the negatives, each negative weighed by its softmax share.

    With :math:`r` the ELU of the logits, saturating at minus ``elu_param`` (0 leaves them as they are), :math:`s_j` the
    softmax of the negatives' :math:`r_j`, and :math:`\lambda` the ``bpreg``, the loss is

    .. math:: -\log \sum_j s_j \sigma(r_i - r_j) + \lambda \sum_j s_j r_j^2

    With :math:`P = \sum_j s_j r_j^2` and :math:`w_j` proportional to :math:`s_j \sigma(r_i - r_j)`, its gradient is
    :math:`s_j (1 + \lambda (r_j^2 - P + 2 r_j)) - w_j \sigma(r_i - r_j)` at a negative and
    :math:`\sum_j w_j \sigma(r_i - r_j) - 1` at the target. All of it follows from one exponential a candidate,
    :math:`E_j = \exp(r_j - \max r)`, as :math:`\sigma(r_i - r_j) = E_i / (E_i + E_j)`; :math:`E_i` is divided out of
    the sum, so that the gradient does not vanish where every sigmoid underflows. Where a target is far below,
    no exponential holds both ends: the shares follow from :math:`E_j`, the sigmoids from :math:`\exp(r_j - r_i)`.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
        >>> bpr_max(logits, Candidates.each_once(3, torch.ones(3)), bpreg=0.0, elu_param=0.0)[0].mean()
        tensor(0.2260)
    """
    targets, own_weights = candidates.targets, candidates.own_weights
    scores = _elu(logits, elu_param) if elu_param > 0 else logits  # r, (B, C)
    own = scores.view(-1).index_select(0, targets)  # r_i, (B,)
    power = scores * _LOG2_E  # (B, C), E some lines on; a target is a negative only by its copies
    power.view(-1).index_copy_(0, targets, own.mul(_LOG2_E).masked_fill_(own_weights == 0, -1e30))
    highest = power.amax(dim=1)  # of a lane's negatives, (B,)
    no_negative = highest < -1e29
    power.sub_(highest[:, None]).exp2_()
    lead = (own - highest.div_(_LOG2_E)).clamp_(max=_MOST)  # r_i before the highest negative, (B,)
    own_power = lead.exp()  # E_i, (B,)
    share = power * candidates.weights  # s times its total, (B, C)
    share.view(-1).index_copy_(0, targets, own_power * own_weights)
    total = share.sum(dim=1).masked_fill_(no_negative, torch.inf)  # (B,)
    pulling = share  # the weighed E of the sigmoids, (B, C)
    # a GPU would have to wait for the answer, and a captured graph could not
    if logits.device.type != "cpu" or bool((lead < -_NEAR).any()):
        floor = torch.minimum(own, highest)  # r_i of the lanes in question, (B,); as before in others
        power = scores.sub(floor[:, None]).clamp_(max=_MOST).exp_()
        own_power = (own - floor).clamp_(max=_MOST).exp_()
        pulling = power * candidates.weights
        pulling.view(-1).index_copy_(0, targets, own_power * own_weights)
    power.view(-1).index_copy_(0, targets, own_power)
    tail = power.add_(own_power[:, None]).reciprocal_()  # 1 / (E_i + E_j), (B, C)
    pull = pulling * tail  # (B, C)
    gain = pull.sum(dim=1).masked_fill_(no_negative, 1.0)  # (B,)
    pull.mul_(tail).mul_((own_power / gain).masked_fill_(no_negative, 0.0)[:, None])  # w sigma
    gradient = share.mul_((1 / total)[:, None])  # s, (B, C)
    penalty = torch.zeros_like(total)  # lambda P, (B,)
    if bpreg:
        square = torch.mul(scores, scores, out=tail)  # fresh memory would cost more than the work
        penalty = torch.linalg.vecdot(share, square).mul_(bpreg)
        gradient.mul_(square.add_(scores, alpha=2).mul_(bpreg).sub_((penalty - 1)[:, None]))
    gradient.sub_(pull)
    gradient.view(-1).index_add_(0, targets, pull.sum(dim=1).sub_(1).masked_fill_(no_negative, 0.0))
    if elu_param > 0:
        gradient = torch.ops.aten.elu_backward(gradient, elu_param, 1.0, 1.0, True, scores)
    return (total / gain).log_().sub_(lead).masked_fill_(no_negative, 0.0).add_(penalty), gradient


def _elu(logits: Tensor, elu_param: float) -> Tensor:
    below = logits.clamp(max=0).mul_(_LOG2_E).exp2_().sub_(1).mul_(elu_param)
    return below.add_(logits.clamp_(min=0))


def _differentiated(
    loss_of: Callable[[Tensor, Candidates], Tensor],
) -> Callable[[Tensor, Candidates], tuple[Tensor, Tensor]]:
    """Give a loss its gradient, as autograd finds it."""

    @wraps(loss_of)
    def with_gradient(logits: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            loss = loss_of(logits, candidates)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
        return loss.detach(), gradient

    return with_gradient


@_in_32_bits
@_differentiated
def bpr(logits: Tensor, candidates: Candidates) -> Tensor:
    r"""BPR: mean over the negatives of :math:`-\log \sigma(o_i - o_j)`."""
    return _mean_over_negatives(-F.logsigmoid(_own(logits, candidates) - logits), candidates)


@_in_32_bits
@_differentiated
def top1(logits: Tensor, candidates: Candidates) -> Tensor:
    r"""TOP1: mean over the negatives of :math:`\sigma(o_j - o_i) + \sigma(o_j^2)`."""
    return _mean_over_negatives(_top1_terms(logits, candidates), candidates)


@_in_32_bits
@_differentiated
def top1_max(logits: Tensor, candidates: Candidates) -> Tensor:
    """TOP1-max: the terms of TOP1 weighed by the softmax of the negatives' logits in place of the mean."""
    weights = _negative_weights(candidates)
    # a large finite number and not -inf: a lane without negatives must give no NaN in the gradient
    share = (logits + weights.log().clamp(min=-1e30)).softmax(dim=1)
    loss = (share * _top1_terms(logits, candidates)).sum(dim=1)
    return loss * weights.any(dim=1)


def _top1_terms(logits: Tensor, candidates: Candidates) -> Tensor:
    return torch.sigmoid(logits - _own(logits, candidates)) + torch.sigmoid(logits.square())  # (B, C)


def _mean_over_negatives(terms: Tensor, candidates: Candidates) -> Tensor:
    weights = _negative_weights(candidates)
    return torch.linalg.vecdot(weights, terms) / weights.sum(dim=1).clamp(min=1)


def _negative_weights(candidates: Candidates) -> Tensor:
    """Weight of every candidate as a negative of every lane, shape (B, C)."""
    weights = candidates.weights.repeat(len(candidates.targets), 1)
    weights.view(-1).index_copy_(0, candidates.targets, candidates.own_weights)
    return weights


def _own(logits: Tensor, candidates: Candidates) -> Tensor:
    """Logit of each lane's target, shape (B, 1)."""
    return logits.view(-1).index_select(0, candidates.targets)[:, None]
