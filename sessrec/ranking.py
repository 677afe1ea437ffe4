"""Rank the whole catalogue for many queries, block by block, so that memory is bounded whatever the catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sessrec.metrics import count_above_and_tied, count_true

MIN_ROWS = 32  # matrix products of few rows take other kernels and round otherwise; from here on rows round alike
_POSITIONS = 1024  # positions ranked at once
_SESSIONS = 128  # sessions given their best items at once, from larger blocks of items
_ITEMS_A_PLACE = 128  # torch sorts the scores of fewer items for a place in the list as a whole
_BLOCK = {"cpu": 1024, "cuda": 32768}  # items scored at once: smaller blocks fit the cache, but there are more of them

Score = Callable[[Tensor, slice], Tensor]
"""Scores of consecutive items for each query: queries (P, anything) and items to scores (P, n)."""
ScoreTargets = Callable[[Tensor, Tensor], Tensor]
"""Score of one item for each query: queries (P, anything) and items (P,) to scores (P, 1)."""


def item_blocks(n_items: int, device: torch.device, at_least: int = 0) -> list[slice]:
    """Consecutive blocks of all items, of about equal size, the same whatever else is scored."""
    n_blocks = -(-n_items // max(at_least, _BLOCK.get(device.type, _BLOCK["cpu"])))
    bounds = [n_items * number // n_blocks for number in range(n_blocks + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def count_positions(
    score: Score, score_targets: ScoreTargets, queries: Tensor, targets: Tensor, n_items: int
) -> tuple[Tensor, Tensor]:
    """Count the items above each position's target, and the other items tied with it.

    A position's counts do not depend on the positions beside it.

    Args:
        score: Scores items in blocks.
        score_targets: Scores one item for each query, as ``score`` does.
        queries: One query a position, shape (P, anything).
        targets: Item index of each target, int64, shape (P,).
        n_items: Number of items N.

    Returns:
        Items above and items tied, int64, shape (P,).
    """
    if not len(targets):
        return torch.zeros_like(targets), torch.zeros_like(targets)
    counts = [
        _count_block(score, score_targets, query, target, n_items)
        for query, target in zip(queries.split(_POSITIONS), targets.split(_POSITIONS), strict=True)
    ]
    above, tied = zip(*counts, strict=True)
    return torch.cat(above), torch.cat(tied)


def _count_block(
    score: Score, score_targets: ScoreTargets, queries: Tensor, targets: Tensor, n_items: int
) -> tuple[Tensor, Tensor]:
    n_positions = len(targets)
    missing = max(0, MIN_ROWS - n_positions)
    if missing:  # repeat the last position up to the number of rows from which rounding is the same
        queries = torch.cat([queries, queries[-1:].expand(missing, -1)])
        targets = torch.cat([targets, targets[-1:].expand(missing)])
    blocks = item_blocks(n_items, targets.device)
    scores: Iterable[Tensor] = (score(queries, items) for items in blocks)
    if len(blocks) == 1:  # the targets' scores are among those at hand
        scores = list(scores)
        target_score = scores[0].gather(1, targets[:, None])
    else:
        target_score = score_targets(queries, targets)
    above, tied, own_score = count_above_and_tied(scores, target_score, targets)
    if not torch.equal(own_score, target_score):  # the shorter way to them rounds otherwise on this device
        scores = (score(queries, items) for items in blocks)
        above, tied, _ = count_above_and_tied(scores, own_score, targets)
    return above[:n_positions], tied[:n_positions]


def target_scores_in_blocks(score: Score, queries: Tensor, targets: Tensor, n_items: int) -> Tensor:
    """Score of one item for each query, picked out of the scores of all items, shape (P, 1)."""
    picked = []
    for items in item_blocks(n_items, targets.device):
        inside = ((targets >= items.start) & (targets < items.stop))[:, None]
        column = (targets - items.start).clamp(0, items.stop - items.start - 1)
        picked.append(score(queries, items).gather(1, column[:, None]).masked_fill(~inside, 0.0))
    return torch.stack(picked).sum(dim=0)


def best_items(score: Score, queries: Tensor, n_items: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best items for each query, fewer where the catalogue is smaller.

    Args:
        score: Scores items in blocks.
        queries: Queries, shape (P, anything).
        n_items: Number of items N.
        k: Length of the list.

    Returns:
        Item indices (int64) and scores, both of shape (P, min(k, N)), best first; equal scores by item index.
    """
    found = [_best_of_block(score, query, n_items, k) for query in queries.tensor_split(-(-len(queries) // _SESSIONS))]
    best, scores = zip(*found, strict=True)
    return torch.cat(best), torch.cat(scores)


def _best_of_block(score: Score, queries: Tensor, n_items: int, k: int) -> tuple[Tensor, Tensor]:
    best, best_scores = None, None
    for items in item_blocks(n_items, queries.device, at_least=k * _ITEMS_A_PLACE):
        scores, found = _stable_topk(score(queries, items), k)
        found = found + items.start
        if best is not None and best_scores is not None:
            scores, found = torch.cat([best_scores, scores], dim=1), torch.cat([best, found], dim=1)
        by_item = found.argsort(dim=1)
        by_score = scores.gather(1, by_item).argsort(dim=1, descending=True, stable=True)
        order = by_item.gather(1, by_score)[:, :k]
        best, best_scores = found.gather(1, order), scores.gather(1, order)
    assert best is not None
    assert best_scores is not None
    return best, best_scores


def _stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns; where the last place is tied, the first columns of the tie have it."""
    k = min(k, scores.shape[1])
    best, columns = scores.topk(k, dim=1)
    last = best[:, -1:]
    tied = (count_true(torch.ge, scores, last) > k).nonzero()[:, 0]  # rare but for models that count
    if len(tied):
        ordered = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
        columns[tied], best[tied] = ordered, scores[tied].gather(1, ordered)
    return best, columns
