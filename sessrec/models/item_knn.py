"""ItemKNN: items that stand in the same sessions as the last item.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, section 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.models.compatibility import check_ranges
from sessrec.models.item_rules import ItemRulesRecommender, events_of_sessions


class ItemKNN(ItemRulesRecommender):
    """Ranks items by their similarity to the last item: sessions with both, over what their supports lead to expect.

    With c sessions that hold both items and s, t that hold each, the similarity is c / ((s + r)^a (t + r)^(1 - a)), and
    that of an item with itself 0.

    Args:
        n_rules: Similar items kept for each item; of equal ones the more popular, then the first in the vocabulary
            (GRU4Rec's baselines: 100).
        regularisation: r, which keeps rare items from being similar by chance (GRU4Rec's baselines: 20).
        balance: a: 0.5 is the cosine, 1 divides by the last item's support alone (GRU4Rec's baselines: 0.5).
        protocol: Options of `SessionRecommender`.
    """

    supports: Tensor
    """Training sessions that hold each item, int64, shape (N,); zeros where an earlier release made it."""

    def __init__(self, n_rules: int = 100, regularisation: float = 20.0, balance: float = 0.5, **protocol: Any) -> None:
        super().__init__(n_rules, self_rules=False, **protocol)
        self.save_hyperparameters()
        if not 0 <= regularisation < np.inf:
            raise SessRecError(f"--model.regularisation must be a number of at least 0, got {regularisation}")
        self.regularisation, self.balance = regularisation, balance
        check_ranges(vars(self), {"[0, 1]": "balance"})

    def rules(self, sessions: Sessions) -> csr_array:
        """Similarities, float64, shape (N, N)."""
        events = events_of_sessions(sessions, self.n_items)
        events.data[:] = 1
        both, supports = csr_array(events.T @ events), np.bincount(events.indices, minlength=self.n_items)
        if self.earlier is not None:
            both = both + self._earlier_pairs()
            supports += self.earlier.by_item(self.earlier.model.supports.numpy())
        self.supports = torch.from_numpy(supports)
        both = both.tocoo()
        row, column = both.coords
        similar = both.data / self._expected(supports, row, column)
        return csr_array(coo_array((similar, (row, column)), shape=both.shape))

    def _expected(self, supports: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """What the number of sessions with both items is divided by."""
        support = supports + self.regularisation
        return support[row] ** self.balance * support[column] ** (1 - self.balance)

    def _earlier_pairs(self) -> csr_array:
        """Sessions with both items that the earlier fit has counted, of the rules that it has kept."""
        assert self.earlier is not None
        own = self.earlier.model
        if len(own.weights) and not own.supports.any():
            raise SessRecError("--init_from: an earlier release has not kept the supports of items: fit anew")
        offsets, successors = own.offsets.numpy(), own.successors.numpy()
        row = np.repeat(np.arange(own.n_items), np.diff(offsets))
        counts = np.rint(own.weights.numpy() * self._expected(own.supports.numpy(), row, successors))
        return self.earlier.by_pair(offsets, successors, counts)

    def build(self) -> None:
        """Create an empty table of rules, and supports."""
        super().build()
        self.register_buffer("supports", torch.zeros(self.n_items, dtype=torch.int64))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what an earlier release has not kept as 0."""
        if "popularity" in (weights := checkpoint["state_dict"]):
            weights.setdefault("supports", torch.zeros_like(weights["popularity"], dtype=torch.int64))
        super().on_load_checkpoint(checkpoint)
