"""Rank the whole catalogue for many queries, block by block, so that memory is bounded whatever the catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sessrec.evaluation.metrics import PositionCounts, count_above_and_tied, count_true, not_finite
from sessrec.evaluation.screening import ScreenedQueries

MIN_ROWS = 32  # matrix products of few rows take other kernels and round otherwise; from here on rows round alike
_LEAST_ROWS = 2  # a product of one row rounds equal columns apart on some processors
_POSITIONS = 1024  # positions ranked at once
_SCREENED = 16  # sessions whose items are screened at once: for more, the products take longer than the reading of rows
_SESSIONS = 128  # sessions given their best items at once, from larger blocks of items
_ITEMS_A_PLACE = 128  # torch sorts the scores of fewer items for a place in the list as a whole
_SCORES_OF_A_BLOCK = 1 << 17  # at least, where the best items are wanted: each block has work of its own
_BLOCK = {"cpu": 1024, "cuda": 32768}  # items scored at once: smaller blocks fit the cache, but there are more of them

_SCORES = 1 << 21  # scores at once where the catalogue is scored as a whole
EXCLUDED = -1e30
"""Score of an item that is no candidate: below all others, and still a number."""
MISSED = 1 << 31
"""Items above a target that is no candidate: more than any list is long."""

Score = Callable[[Tensor, Any], Tensor]
"""Scores of consecutive items for each query: queries (P, anything) and items to scores (P, n)."""
ScoreTargets = Callable[[Tensor, Tensor], Tensor]
"""Score of one item for each query: queries (P, anything) and items (P,) to scores (P, 1)."""
Excluded = Callable[[slice], tuple[Tensor, Tensor]]
"""Items that are no candidates for some consecutive queries: (number of the query among these, item), int64, (E,)."""


class AvailableAt(NamedTuple):
    """Which items are there at the time of each position; its target, which was clicked, always is."""

    bounds: Tensor
    """Times at which each item comes and goes, in turn, ascending, infinite where there are no more, float64, shape
    (N, 2 K)."""
    times: Tensor
    """Time of each position, float64, shape (P,)."""
    targets: Tensor
    """Its target, int64, shape (P,)."""

    def part(self, part: slice) -> AvailableAt:
        """Some consecutive positions."""
        return AvailableAt(self.bounds, self.times[part], self.targets[part])

    def is_there(self, items: slice) -> Tensor:
        """Which of some items are there, bool, shape (P, n)."""
        bounds = self.bounds[items]
        found = torch.zeros(len(self.times), len(bounds), dtype=torch.bool, device=bounds.device)
        for bound in bounds.T:
            if bool((bound == torch.inf).all()):  # no item of these comes or goes any more
                break
            found ^= self.times[:, None] >= bound
        column = self.targets - items.start
        inside = ((column >= 0) & (column < len(bounds))).nonzero()[:, 0]
        found[inside, column[inside]] = True
        return found


def on_enough_rows(function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    """A function's rows for items (S, L), int64, rounded alike whatever S is: too few are filled up with item 0."""
    missing = max(0, MIN_ROWS - len(items))
    return function(F.pad(items, (0, 0, 0, missing)))[: len(items)]


def _with_rows(queries: Tensor, least: int) -> Tensor:
    """Queries, the last one repeated where there are fewer; those that are no tensor are looked up, not multiplied."""
    missing = least - len(queries) if isinstance(queries, Tensor) else 0
    return torch.cat([queries, queries[-1:].expand(missing, *queries.shape[1:])]) if missing > 0 else queries


def items_so_far(items: Tensor, row: Tensor, place: Tensor, last_only: bool) -> Excluded:
    """What a session holds up to each position, to be excluded from its candidates.

    Args:
        items: Items of sessions, int64, shape (S, L).
        row: Session of each position, int64, shape (P,).
        place: Its place in the session, int64, shape (P,).
        last_only: Whether only the item at that place is meant, and none before it.
    """

    def pairs(part: slice) -> tuple[Tensor, Tensor]:
        session, last = items[row[part]], place[part, None]  # (P, L), (P, 1)
        column = torch.arange(items.shape[1], device=items.device)
        position, column = (column == last if last_only else column <= last).nonzero().T
        return position, session[position, column]

    return pairs


def item_blocks(n_items: int, device: torch.device, at_least: int = 0) -> list[slice]:
    """Consecutive blocks of all items, of about equal size, the same whatever else is scored."""
    return _equal_parts(n_items, max(at_least, _BLOCK.get(device.type, _BLOCK["cpu"])))


def _equal_parts(n: int, at_most: int) -> list[slice]:
    n_parts = -(-n // at_most)
    bounds = [n * number // n_parts for number in range(n_parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def count_positions(
    score: Score,
    score_targets: ScoreTargets,
    queries: Tensor,
    targets: Tensor,
    n_items: int,
    excluded: Excluded | None = None,
    in_blocks: bool = True,
    weights: Tensor | None = None,
    allowed: Tensor | None = None,
    available: AvailableAt | None = None,
) -> PositionCounts:
    """Count the items above each position's target, and the other items tied with it.

    A position's counts do not depend on the positions beside it.

    Args:
        score: Scores items in blocks.
        score_targets: Scores one item for each query, as ``score`` does.
        queries: One query a position, shape (P, anything).
        targets: Item index of each target, int64, shape (P,).
        n_items: Number of items N.
        excluded: Items that are no candidates. A target that is none is a miss whatever the length of the list: it has
            `MISSED` items above it.
        in_blocks: Whether to score the catalogue in blocks; a model whose work it is to find the scores at all scores
            it as a whole, for fewer positions at once.
        weights: Weight of each item, as `weight_digits`, to be summed up over the items above and tied; None sums none.
        allowed: Which items may be candidates, bool, shape (N,); all where None.
        available: Which items may be at the time of each position; all where None.
    """
    if not len(targets):
        none = torch.zeros_like(targets)
        return PositionCounts(none, none, None if weights is None else none.double())
    blocks = item_blocks(n_items, targets.device) if in_blocks else [slice(0, n_items)]
    chunk = _POSITIONS if in_blocks else positions_at_once(n_items)
    counts = []
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        pairs = None if excluded is None else excluded(part)
        own = None if available is None else available.part(part)
        parts = (queries[part], targets[part], blocks, pairs, weights, allowed, own)
        counts.append(_count_block(score, score_targets, *parts))
    above, tied, weight = zip(*counts, strict=True)
    return PositionCounts(torch.cat(above), torch.cat(tied), None if weights is None else torch.cat(weight))


def positions_at_once(n_items: int) -> int:
    """How many positions are scored at once where the catalogue is scored as a whole: some tens of MB of scores."""
    return max(1, min(_POSITIONS // 2, _SCORES // n_items))


def _count_block(
    score: Score,
    score_targets: ScoreTargets,
    queries: Tensor,
    targets: Tensor,
    blocks: list[slice],
    excluded: tuple[Tensor, Tensor] | None,
    weights: Tensor | None,
    allowed: Tensor | None,
    available: AvailableAt | None,
) -> PositionCounts:
    n_positions = len(targets)
    queries = _with_rows(queries, MIN_ROWS if len(blocks) > 1 else _LEAST_ROWS)
    targets = _with_rows(targets, len(queries))
    if available is not None:
        available = AvailableAt(available.bounds, _with_rows(available.times, len(queries)), targets)

    def candidates(items: slice) -> Tensor:
        scores = _without(score(queries, items), items, excluded, allowed)
        return scores if available is None else scores.masked_fill(~available.is_there(items), EXCLUDED)

    scores: Iterable[Tensor] = map(candidates, blocks)
    if len(blocks) == 1:  # the targets' scores are among those at hand
        scores = list(scores)
        target_score = scores[0].gather(1, targets[:, None])
    else:
        target_score = score_targets(queries, targets)
    missed = torch.zeros_like(targets, dtype=torch.bool) if allowed is None else ~allowed[targets]  # (P,)
    if excluded is not None:
        row, item = excluded
        missed[row[targets[row] == item]] = True
    target_score.masked_fill_(missed[:, None], EXCLUDED)
    counts, own_score = count_above_and_tied(scores, target_score, targets, weights)
    if not torch.equal(own_score, target_score):  # the shorter way to them rounds otherwise on this device
        counts, _ = count_above_and_tied(map(candidates, blocks), own_score, targets, weights)
    counts.above.masked_fill_(missed, MISSED)
    counts.tied.masked_fill_(missed, 0)
    weight = None if counts.weight is None else counts.weight[:n_positions]
    return PositionCounts(counts.above[:n_positions], counts.tied[:n_positions], weight)


def _without(
    scores: Tensor, items: slice | Tensor, excluded: tuple[Tensor, Tensor] | None, allowed: Tensor | None
) -> Tensor:
    """Scores of some items, ascending, those of no candidates put below all others."""
    if allowed is not None:
        scores = scores.masked_fill(~allowed[..., items], EXCLUDED)
    if excluded is not None:
        row, item = excluded
        if isinstance(items, slice):
            column, inside = item - items.start, (item >= items.start) & (item < items.stop)
        else:
            column = torch.searchsorted(items, item).clamp(max=len(items) - 1)
            inside = items[column] == item
        scores[row[inside], column[inside]] = EXCLUDED
    return scores


def target_scores_in_blocks(score: Score, queries: Tensor, targets: Tensor, n_items: int) -> Tensor:
    """Score of one item for each query, picked out of the scores of all items, shape (P, 1)."""
    picked = []
    for items in item_blocks(n_items, targets.device):
        inside = ((targets >= items.start) & (targets < items.stop))[:, None]
        column = (targets - items.start).clamp(0, items.stop - items.start - 1)
        picked.append(score(queries, items).gather(1, column[:, None]).masked_fill(~inside, 0.0))
    return torch.stack(picked).sum(dim=0)


def best_items(
    score: Score,
    queries: Tensor,
    n_items: int,
    k: int,
    excluded: Excluded | None = None,
    in_blocks: bool = True,
    allowed: Tensor | None = None,
    screen: ScreenedQueries | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best items for each query, fewer where the catalogue is smaller.

    Args:
        score: Scores items in blocks.
        queries: Queries, shape (P, anything).
        n_items: Number of items N.
        k: Length of the list.
        excluded: Items that are no candidates: where the list is longer than what is left, they come last, with the
            score `EXCLUDED`.
        in_blocks: See `count_positions`.
        allowed: Which items may be candidates, of all queries or of each, bool, shape (N,) or (P, N); all where None.
        screen: The queries in 8 bits, to leave out items without their scores; ``score`` has to take item indices, too.

    Returns:
        Item indices (int64) and scores, both of shape (P, min(k, N)), best first; equal scores by item index.
    """
    at_least = max(k * _ITEMS_A_PLACE, _SCORES_OF_A_BLOCK // max(1, len(queries)))
    blocks = item_blocks(n_items, queries.device, at_least) if in_blocks else [slice(0, n_items)]
    at_once = _SCREENED if screen is not None else _SESSIONS if in_blocks else positions_at_once(n_items)
    found = []
    for part in _equal_parts(len(queries), at_once):  # of about equal size: products of a few rows round otherwise
        pairs = None if excluded is None else excluded(part)
        own = allowed[part] if allowed is not None and allowed.dim() > 1 else allowed
        if screen is None:
            found.append(_best_of_part(score, queries[part], blocks, k, pairs, own))
        else:
            found.append(_best_screened(score, queries[part], screen.part(part), k, pairs, own))
    best, scores = zip(*found, strict=True)
    return torch.cat(best), torch.cat(scores)


def _best_of_part(
    score: Score,
    queries: Tensor,
    blocks: list[slice],
    k: int,
    excluded: tuple[Tensor, Tensor] | None,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    found = [_best_of_block(score, queries, items, k, excluded, allowed) for items in blocks]
    best, scores = zip(*found, strict=True)
    return _in_order(torch.cat(best, dim=1), torch.cat(scores, dim=1), k)


def _best_screened(
    score: Score,
    queries: Tensor,
    screen: ScreenedQueries,
    k: int,
    excluded: tuple[Tensor, Tensor] | None,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same, without the scores of items that cannot be among the best."""
    best, scores = queries.new_empty(len(queries), 0, dtype=torch.int64), queries.new_empty(len(queries), 0)
    waiting: list[Tensor] = []  # items of several blocks, to be scored together

    def merge(items: slice | Tensor) -> tuple[Tensor, Tensor]:
        own, own_scores = _best_of_block(score, queries, items, k, excluded, allowed)
        return _in_order(torch.cat([best, own], dim=1), torch.cat([scores, own_scores], dim=1), k)

    for number, items in enumerate(screen.items):
        columns = screen.columns(number, scores[:, -1]) if scores.shape[1] == k else None
        if columns is None:
            best, scores = merge(items)
        elif len(columns):
            waiting.append(columns + items.start)
            if sum(map(len, waiting)) >= k * len(queries):
                best, scores = merge(torch.cat(waiting))
                waiting.clear()
    return merge(torch.cat(waiting)) if waiting else (best, scores)


def _best_of_block(
    score: Score,
    queries: Tensor,
    items: slice | Tensor,
    k: int,
    excluded: tuple[Tensor, Tensor] | None,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The k best of some items, ascending."""
    n_queries = len(queries)
    block = score(_with_rows(queries, _LEAST_ROWS), items)[:n_queries]
    if not block.sum(dtype=torch.promote_types(block.dtype, torch.float32)).isfinite():
        raise not_finite(items if isinstance(items, slice) else slice(int(items[0]), int(items[-1]) + 1))
    scores, columns = _stable_topk(_without(block, items, excluded, allowed), k)
    return columns + items.start if isinstance(items, slice) else items[columns], scores


def _in_order(items: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of items of several blocks, best first; equal scores by item index."""
    by_item = items.argsort(dim=1)
    by_score = scores.gather(1, by_item).argsort(dim=1, descending=True, stable=True)
    order = by_item.gather(1, by_score)[:, :k]
    return items.gather(1, order), scores.gather(1, order)


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
