"""ItemKNN: items that stand in the same sessions as the last item.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, section 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

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
        both = csr_array(events.T @ events).tocoo()
        support = np.bincount(events.indices, minlength=self.n_items) + self.regularisation
        row, column = both.coords
        similar = both.data / (support[row] ** self.balance * support[column] ** (1 - self.balance))
        return csr_array(coo_array((similar, (row, column)), shape=both.shape))
