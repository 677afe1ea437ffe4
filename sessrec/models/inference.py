"""Rank and recommend with any model; nothing of a call stays on the model, so that threads may share it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from sessrec.data.loaders import EvaluationBatch
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import PositionCounts
from sessrec.evaluation.ranking import EXCLUDED, AvailableAt, Excluded, best_items, count_positions, items_so_far
from sessrec.evaluation.screening import Screen

Model = Any  # a SessionRecommender, which imports this module


class CandidateRules(NamedTuple):
    """Which items may be in a list."""

    exclude_last: bool = False
    """Whether the session's last item is no candidate."""
    exclude_seen: bool = False
    """Whether no item of the session so far is a candidate."""
    allowed: Tensor | None = None
    """Which items may be candidates, in all lists, bool, shape (N,), or in each, shape (S, N); all where None."""


class TopItems(NamedTuple):
    """The best items for some sessions, best first."""

    sessions: Tensor
    """Index of each session, int64, shape (S,)."""
    items: Tensor
    """Item indices, int64, shape (S, k)."""
    scores: Tensor
    """Their scores, float, shape (S, k)."""


def rank_positions(
    model: Model,
    batch: EvaluationBatch,
    weights: Tensor | None = None,
    bounds: Tensor | None = None,
    times: Tensor | None = None,
) -> PositionCounts:
    """Count the items above each position's target, and the other items tied with it; positions session by session.

    Args:
        model: The model.
        batch: Padded sessions of at least two events.
        weights: Weight of each item, as `weight_digits`, to be summed up over the items above and tied; None sums none.
        bounds: See `AvailableAt`; all items are always there where None.
        times: Time of each position, float64, shape (P,), where there are bounds.
    """
    items, rules = batch.items[:, :-1], model.candidate_rules  # the last item is a target only
    row, place = batch.positions()
    queries = model.encode_sessions(items, batch.lengths - 1)[row, place]  # (P, anything)
    targets = batch.items[row, place + 1]
    available = None if bounds is None or times is None else AvailableAt(bounds, times, targets)
    with full_precision(model.device):
        return count_positions(
            model.score,
            model.score_targets,
            queries,
            targets,
            model.n_items,
            _excluded(rules, items, row, place),
            model.scores_in_blocks,
            weights,
            rules.allowed,
            available,
        )


def top_items_at_positions(model: Model, batch: EvaluationBatch, k: int) -> Tensor:
    """The k best next items at every position of sessions of at least two events, where the targets are ranked.

    Returns:
        Item indices, best first, int64, shape (P, min(k, N)); -1 in place of items that are no candidates.
    """
    row, place = batch.positions()
    if not len(row):
        return row.new_empty(0, min(k, model.n_items))
    items = batch.items[:, :-1]
    queries = model.encode_sessions(items, batch.lengths - 1)[row, place]
    best, scores = _best(model, queries, items, row, place, k, model.candidate_rules)
    return best.masked_fill_(scores <= EXCLUDED, -1)


def top_items(
    model: Model,
    items: Tensor,
    lengths: Tensor,
    k: int,
    rules: CandidateRules | None = None,
    screen: Screen | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best next items of padded sessions, shape (S, L), of some lengths, shape (S,).

    Args:
        model: The model.
        items: Item indices, int64, padded at the end.
        lengths: Number of items of each session, int64.
        k: Length of the lists.
        rules: Which items are candidates; the model's rules where None.
        screen: Rows of the model's `factors`, to look through a large catalogue faster for a few sessions.

    Returns:
        Item indices (int64) and scores, both of shape (S, min(k, N)), best first; equal scores by item index. Items
        that are no candidates come last, with the score `EXCLUDED`.
    """
    if not len(lengths):  # one of several processes may have no session left
        nothing = torch.empty(0, min(k, model.n_items), device=items.device)
        return nothing.long(), nothing
    rules = model.candidate_rules if rules is None else rules
    row = torch.arange(len(lengths), device=lengths.device)
    newest, n_newest = _newest(items, lengths, model.looks_back)
    queries = model.encode_sessions(newest, n_newest)[row, n_newest - 1]
    return _best(model, queries, items, row, lengths - 1, k, rules, screen)


def _newest(items: Tensor, lengths: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """The newest events of each session, at most so many, and their numbers."""
    if most is None or items.shape[1] <= most:
        return items, lengths
    first = (lengths - most).clamp(min=0)
    column = first[:, None] + torch.arange(most, device=items.device)  # (S, most)
    return items.gather(1, column.clamp(max=items.shape[1] - 1)), lengths - first


def _best(
    model: Model,
    queries: Tensor,
    items: Tensor,
    row: Tensor,
    place: Tensor,
    k: int,
    rules: CandidateRules,
    screen: Screen | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best items for queries of some places of sessions, and their scores."""
    with full_precision(model.device):
        excluded = _excluded(rules, items, row, place)
        own = None if screen is None else screen.of_queries(model.factors(queries, slice(0, 1))[0])
        arguments = (model.score, queries, model.n_items, k, excluded, model.scores_in_blocks, rules.allowed)
        return best_items(*arguments, screen=own)


def _excluded(rules: CandidateRules, items: Tensor, row: Tensor, place: Tensor) -> Excluded | None:
    """The items of sessions that are no candidates at some of their places."""
    if not (rules.exclude_last or rules.exclude_seen):
        return None
    return items_so_far(items, row, place, last_only=not rules.exclude_seen)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Scores and losses are never taken in 16 bits: whole groups of items would tie."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


@torch.inference_mode()
def recommend(
    model: Model,
    item_ids: Sequence[str],
    k: int,
    lists: tuple[Sequence[str] | None, Sequence[str]],
    exclude_last: bool | None,
    exclude_seen: bool | None,
) -> list[tuple[str, float]]:
    """Recommend the next item of one session; see `SessionRecommender.recommend`; lists are allow and exclude."""
    for given in (item_ids, *(own for own in lists if own is not None)):
        if isinstance(given, str) or not all(isinstance(item_id, str) for item_id in given):
            raise SessRecError(f"recommend takes a list of item ids as text, such as ['10', '25'], got {given!r}")
    if k < 1:
        raise SessRecError(f"k must be at least 1, got {k}")
    vocabulary = model.vocabulary
    index = vocabulary.index_of(item_ids)
    if (unknown := int((index < 0).sum())) > 0:
        rank_zero_warn(f"{unknown} of {len(index)} items of the session are unknown to the model", stacklevel=3)
    items = torch.from_numpy(index[index >= 0]).to(model.device)
    rules = _rules_of_call(model, lists, exclude_last, exclude_seen)
    if not len(items):
        found = vocabulary.popular(k, None if rules.allowed is None else rules.allowed.cpu().numpy())
        return [(vocabulary.item_ids[item], float(vocabulary.counts[item])) for item in found]
    if was_training := model.training:  # a model of one's own may have layers that differ
        model.eval()
    best, scores = top_items(model, items[None], torch.tensor([len(items)], device=items.device), k, rules)
    if was_training:
        model.train()
    ranked = zip(best[0].tolist(), scores[0].tolist(), strict=True)
    return [(vocabulary.item_ids[item], score) for item, score in ranked if score > EXCLUDED]


def _rules_of_call(
    model: Model,
    lists: tuple[Sequence[str] | None, Sequence[str]],
    exclude_last: bool | None,
    exclude_seen: bool | None,
) -> CandidateRules:
    """The rules of a call, and the model's where the call has none; what either forbids is no candidate."""
    rules, mask = model.candidate_rules, model.vocabulary.mask(*lists)
    if mask is not None:
        allowed = torch.from_numpy(mask).to(model.device)
        rules = rules._replace(allowed=allowed if rules.allowed is None else allowed & rules.allowed)
    return rules._replace(
        exclude_last=rules.exclude_last if exclude_last is None else exclude_last,
        exclude_seen=rules.exclude_seen if exclude_seen is None else exclude_seen,
    )
