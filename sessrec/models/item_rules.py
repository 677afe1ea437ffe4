"""What models share that rank by rules from the last item to others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.errors import check_least
from sessrec.models.base import SessionRecommender
from sessrec.text import counted

_NO_RULE = 1e-30  # weight of popularity where there is no rule: below every rule
_TIE_BREAK = 2.0**-26  # weight of popularity: below the least difference, in proportion, of two numbers of 32 bits


class ItemRulesRecommender(SessionRecommender):
    """Scores items by the last item's rules, the best of which are kept; offers `rules`.

    Popularity breaks ties: items that no rule leads to follow in its order. Rules are equal where they are equal in 32
    bits: sums are the same whatever the order in which they were summed up.
    """

    popularity: Tensor
    """Training events of each item, over the greatest, float64, shape (N,)."""
    offsets: Tensor
    """First rule of each item, and the number of rules, int32, shape (N + 1,)."""
    successors: Tensor
    """Where each rule leads, by item, int32, shape (rules,)."""
    weights: Tensor
    """Score of each rule, above 0, float32, shape (rules,)."""

    data_dependent_buffers = ("successors", "weights")
    adds_up = True

    def __init__(self, n_rules: int, self_rules: bool, **protocol: Any) -> None:
        super().__init__(**protocol)
        check_least("--model.n_rules", n_rules, 1)
        self.n_rules = n_rules
        self.self_rules = self_rules

    def rules(self, sessions: Sessions) -> csr_array:
        """Score of the rule from each item (rows) to each item (columns), sparse, float64, shape (N, N).

        What stands in the diagonal is left out without ``self_rules``.
        """
        raise TypeError(f"{type(self).__name__} has no rules method")

    def with_earlier(self, rules: csr_array) -> csr_array:
        """Rules with those of `earlier` added, as far as it has kept them."""
        if self.earlier is None:
            return rules
        own = self.earlier.model
        return rules + self.earlier.by_pair(own.offsets.numpy(), own.successors.numpy(), own.weights.numpy())

    @property
    def inexact(self) -> str:
        """Items whose rules may have been cut."""
        n_cut = int((self.offsets.diff() >= self.n_rules).sum())
        return f"of {counted(n_cut, 'item')} only the best {self.n_rules} rules are known" if n_cut else ""

    def build(self) -> None:
        """Create an empty table of rules."""
        counts = torch.from_numpy(self.vocabulary.counts)
        self.register_buffer("popularity", counts / counts.max().clamp(min=1).double())
        self.register_buffer("offsets", torch.zeros(self.n_items + 1, dtype=torch.int32))
        self.register_buffer("successors", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(0))

    def learn_sessions(self, sessions: Sessions) -> None:
        """Keep each item's best rules; of equal ones the more popular, then the first in the vocabulary."""
        table = self.rules(sessions).tocoo()
        row, column = table.coords
        is_rule = (table.data > 0) & (self.self_rules | (row != column))
        row, column, weights = row[is_rule], column[is_rule], table.data[is_rule].astype(np.float32)
        order = np.lexsort((column, -self.vocabulary.counts[column], -weights, row))
        row, column, weights = row[order], column[order], weights[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = rank < self.n_rules
        counts = np.bincount(row[kept], minlength=self.n_items)
        self.offsets = torch.from_numpy(np.concatenate([[0], counts.cumsum()]).astype(np.int32))
        self.successors = torch.from_numpy(column[kept].astype(np.int32))
        self.weights = torch.from_numpy(weights[kept])

    def encode(self, items: Tensor) -> Tensor:
        """The position's own item, int64, shape (S, L, 1)."""
        return items[:, :, None]

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Score of each item, float64, shape (P, n)."""
        last = queries[:, 0]
        row, rule = rows_of(self.offsets, last)
        successor = self.successors[rule].long()
        inside = (successor >= items.start) & (successor < items.stop)
        scores = (_NO_RULE * self.popularity[items]).repeat(len(last), 1)
        row, successor, rule = row[inside], successor[inside], rule[inside]
        weights = self.weights[rule].double() * (1 + _TIE_BREAK * self.popularity[successor])
        scores[row, successor - items.start] = weights
        return scores


def rows_of(offsets: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    """Look up the entries of each position's item, shape (P,), in a table sorted by item, with offsets (N + 1,).

    Returns:
        The position and the entry, for every entry of every position, both int64, shape (entries,).
    """
    start, n_entries = offsets[item].long(), (offsets[item + 1] - offsets[item]).long()
    row = torch.repeat_interleave(n_entries)
    entry = start[row] + torch.arange(len(row), device=item.device) - (n_entries.cumsum(0) - n_entries)[row]
    return row, entry


def events_of_sessions(sessions: Sessions, n_items: int) -> csr_array:
    """How often each item stands in each session, float64, shape (S, N)."""
    items = np.asarray(sessions.items, dtype=np.int64)
    offsets = np.array(sessions.offsets)  # a copy: summing up works in place
    events = csr_array((np.ones(len(items)), items, offsets), shape=(len(sessions), n_items))
    events.sum_duplicates()
    return events
