"""The steps of a window: which rows of the tables each one looks up, and which of its candidates is what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sessrec.nn.losses import Candidates
from sessrec.nn.optim import first_occurrence

_N_AT_ONCE = 16  # steps laid out together: their tables stay in the cache, and calls cost little beside the work


class Step(NamedTuple):
    """One session-parallel step over U rows of the item table, the first C of which are candidates.

    Of all L live lanes, V are those of this process; they are all where there is one process.
    """

    items: Tensor
    """Item of each row, int64, shape (U,)."""
    inputs: Tensor
    """Row of each lane's input; its item where inputs have a separate embedding; int64, shape (V,)."""
    all_inputs: Tensor
    """Item of each lane's input, of all processes, int64, shape (L,)."""
    own: slice
    """Which of these are those of this process."""
    candidates: Candidates
    not_reset: Tensor
    """0 where a lane begins a session, else 1; float, shape (V, 1)."""
    masks: Sequence[Tensor | None]
    """Dropout mask on the inputs, then on each layer's output, (V, size) or None."""
    distinct: bool
    """Whether no item has two rows."""


class StepLayout:
    """Lays out the steps of a window.

    With ``distinct`` every item has one row, and a candidate that was drawn twice weighs twice: less to multiply, and
    no gradients of equal rows to add up; in a small catalogue that is most of the work. Without, every draw has a row
    of its own: all steps are then of one shape and nothing waits for the device, as a CUDA graph needs it. The losses
    and gradients are the same.

    With ``shared_inputs``, the inputs are rows of the candidates' table, too.
    """

    def __init__(self, n_items: int, distinct: bool, shared_inputs: bool) -> None:
        self.n_items = n_items
        self.distinct = distinct
        self.shared_inputs = shared_inputs
        self._table = torch.empty(n_items if distinct else 0, dtype=torch.int32)

    def steps(
        self,
        inputs: Tensor,
        targets: Tensor,
        negatives: Tensor,
        weights: Tensor,
        not_reset: Tensor,
        masks: Sequence[Tensor | None],
        own: slice | None = None,
    ) -> Iterator[Step]:
        """Lay out consecutive steps of the same L lanes, V of them of this process.

        Args:
            inputs: Item of each lane, int64, shape (steps, L).
            targets: Next item of each lane, int64, shape (steps, L).
            negatives: Sampled items, int64, shape (steps, n).
            weights: Weight of each target and each sample, float, shape (steps, L + n).
            not_reset: See `Step`, shape (steps, V, 1).
            masks: See `Step`, shapes (steps, V, size).
            own: Which of the L lanes the V are; all where None.
        """
        own = slice(0, inputs.shape[1]) if own is None else own
        items = torch.cat([targets, negatives, *([inputs] if self.shared_inputs else [])], dim=1)
        mask_steps = [[None] * len(items) if mask is None else mask.unbind() for mask in masks]
        laid_out: Iterator[tuple[Tensor, Tensor, Candidates]]
        if self.distinct:
            parts = zip(*(part.split(_N_AT_ONCE) for part in (items, inputs, weights)), strict=True)
            laid_out = (step for some in parts for step in self._distinct(some[0], some[1], some[2], own))
        else:
            laid_out = self._as_drawn(items, inputs, weights, own)
        for (rows, own_inputs, candidates), all_inputs, own_not_reset, *own_masks in zip(
            laid_out, inputs.unbind(), not_reset.unbind(), *mask_steps, strict=True
        ):
            yield Step(rows, own_inputs, all_inputs, own, candidates, own_not_reset, own_masks, self.distinct)

    def _distinct(
        self, items: Tensor, inputs: Tensor, weights: Tensor, own: slice
    ) -> Iterator[tuple[Tensor, Tensor, Candidates]]:
        """Steps whose rows are their items in the order in which these come first; all steps' rows are numbered on."""
        n_draws, n_own = weights.shape[1], own.stop - own.start
        first = self._first_in_step(items)  # (steps, draws)
        is_first = first == torch.arange(items.numel()).view_as(items)
        # row of every draw, (steps, draws): a row of U follows for each first draw
        row = is_first.view(-1).cumsum(0).sub_(1).index_select(0, first.view(-1)).view_as(items)
        n_rows, n_candidates = is_first.sum(dim=1), is_first[:, :n_draws].sum(dim=1)  # U and C of each step, (steps,)
        row_weights = weights.new_zeros(int(n_rows.sum())).index_add_(0, row[:, :n_draws].reshape(-1), weights.view(-1))
        target_weights = weights[:, own]  # (steps, V)
        own_weights = row_weights[row[:, own]] - target_weights  # (steps, V)
        row -= (n_rows.cumsum(0) - n_rows)[:, None]  # from here on each step counts from 0
        sizes = torch.stack([n_candidates, n_rows - n_candidates], dim=1).view(-1).tolist()
        yield from zip(
            items.masked_select(is_first).split(n_rows.tolist()),
            (row[:, n_draws:] if self.shared_inputs else inputs)[:, own].unbind(),
            map(
                Candidates,
                (row[:, own] + n_candidates[:, None] * torch.arange(n_own)).unbind(),
                row_weights.split(sizes)[::2],
                target_weights.unbind(),
                own_weights.unbind(),
            ),
            strict=True,
        )

    def _first_in_step(self, items: Tensor) -> Tensor:
        """Place of the first draw of each draw's item in its own step, counted through all steps; (steps, draws)."""
        names, n_names = items, self.n_items
        if n_names > items.numel():  # by the place where an item comes first: fewer numbers than a large catalogue has
            names, n_names = first_occurrence(items.view(-1), self._table).view_as(items), items.numel()
        if len(self._table) < n_names * len(items):
            self._table = torch.empty(n_names * len(items), dtype=torch.int32)
        step = torch.arange(len(items))[:, None]
        return first_occurrence((names + step * n_names).view(-1), self._table).view_as(items)

    def _as_drawn(
        self, items: Tensor, inputs: Tensor, weights: Tensor, own: slice
    ) -> Iterator[tuple[Tensor, Tensor, Candidates]]:
        n_draws = weights.shape[1]
        own_rows = torch.arange(n_draws + own.start, n_draws + own.stop, device=items.device)
        for step_items, step_inputs, step_weights in zip(
            items.unbind(), inputs.unbind(), weights.unbind(), strict=True
        ):
            candidates = Candidates.each_once(len(own_rows), step_weights, own.start)
            yield step_items, own_rows if self.shared_inputs else step_inputs[own], candidates
