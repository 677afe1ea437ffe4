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
from sessrec.evaluation.ranking import EXCLUDED, Excluded, best_items, count_positions, items_so_far

Model = Any  # a SessionRecommender, which imports this module


class TopItems(NamedTuple):
    """The best items for some sessions, best first."""

    sessions: Tensor
    """Index of each session, int64, shape (S,)."""
    items: Tensor
    """Item indices, int64, shape (S, k)."""
    scores: Tensor
    """Their scores, float, shape (S, k)."""


def rank_positions(model: Model, batch: EvaluationBatch, weights: Tensor | None = None) -> PositionCounts:
    """Count the items above each position's target, and the other items tied with it; positions session by session.

    Args:
        model: The model.
        batch: Padded sessions of at least two events.
        weights: Weight of each item, as `weight_digits`, to be summed up over the items above and tied; None sums none.
    """
    items = batch.items[:, :-1]  # the last item is a target only
    row, place = batch.positions()
    queries = model.encode_sessions(items, batch.lengths - 1)[row, place]  # (P, anything)
    with full_precision(model.device):
        return count_positions(
            model.score,
            model.score_targets,
            queries,
            batch.items[row, place + 1],
            model.n_items,
            _excluded(model, items, row, place),
            model.scores_in_blocks,
            weights,
        )


def top_items_at_positions(model: Model, batch: EvaluationBatch, k: int) -> Tensor:
    """The k best next items at every position of sessions of at least two events, where the targets are ranked.

    Returns:
        Item indices, best first, int64, shape (P, min(k, N)); -1 in place of items that are no candidates.
    """
    row, place = batch.positions()
    if not len(row):
        return row.new_empty(0, min(k, model.n_items))
    best, scores = _best(model, batch.items[:, :-1], batch.lengths - 1, row, place, k)
    return best.masked_fill_(scores <= EXCLUDED, -1)


def top_items(model: Model, items: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best next items of padded sessions, shape (S, L), of some lengths, shape (S,).

    Returns:
        Item indices (int64) and scores, both of shape (S, min(k, N)), best first; equal scores by item index. Items
        that are no candidates come last, with the score `EXCLUDED`.
    """
    return _best(model, items, lengths, torch.arange(len(lengths), device=lengths.device), lengths - 1, k)


def _best(model: Model, items: Tensor, lengths: Tensor, row: Tensor, place: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items after some places of sessions, and their scores."""
    queries = model.encode_sessions(items, lengths)[row, place]
    with full_precision(model.device):
        excluded = _excluded(model, items, row, place)
        return best_items(model.score, queries, model.n_items, k, excluded, model.scores_in_blocks)


def _excluded(model: Model, items: Tensor, row: Tensor, place: Tensor) -> Excluded | None:
    """The items that are no candidates at some places of sessions, by the rules of the model."""
    if not (model.exclude_last or model.exclude_seen):
        return None
    return items_so_far(items, row, place, last_only=not model.exclude_seen)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Scores and losses are never taken in 16 bits: whole groups of items would tie."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


@torch.inference_mode()
def recommend(model: Model, item_ids: Sequence[str], k: int) -> list[tuple[str, float]]:
    """Recommend the next item of one session; see `SessionRecommender.recommend`."""
    if isinstance(item_ids, str) or not all(isinstance(item_id, str) for item_id in item_ids):
        raise SessRecError(f"recommend takes a list of item ids as text, such as ['10', '25'], got {item_ids!r}")
    if k < 1:
        raise SessRecError(f"k must be at least 1, got {k}")
    vocabulary = model.vocabulary
    index = vocabulary.index_of(item_ids)
    if (unknown := int((index < 0).sum())) > 0:
        rank_zero_warn(f"{unknown} of {len(index)} items of the session are unknown to the model", stacklevel=3)
    items = torch.from_numpy(index[index >= 0]).to(model.device)
    if not len(items):
        counts, best = torch.from_numpy(vocabulary.counts).sort(descending=True, stable=True)
        return [(vocabulary.item_ids[item], float(counts[n])) for n, item in enumerate(best[:k].tolist())]
    if was_training := model.training:  # a model of one's own may have layers that differ
        model.eval()
    best, scores = top_items(model, items[None], torch.tensor([len(items)], device=items.device), k)
    if was_training:
        model.train()
    ranked = zip(best[0].tolist(), scores[0].tolist(), strict=True)
    return [(vocabulary.item_ids[item], score) for item, score in ranked if score > EXCLUDED]
