"""SR: sequential rules, from an item to those that come some steps later.

References:
    Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
    Interaction 28, 2018.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from sessrec.data.sessions import Sessions
from sessrec.errors import check_least
from sessrec.models.item_rules import ItemRulesRecommender


class SR(ItemRulesRecommender):
    """Ranks items by how soon and how often they came after the last item in training.

    An item that stands d steps after another one in a session, at most ``n_steps``, adds 1/d to the rule from that one
    to it.

    Args:
        n_rules: Successors kept for each item, the best; of equal ones the more popular, then the first in the
            vocabulary (session-rec: 20).
        n_steps: Greatest distance that counts (session-rec: 10).
        self_rules: Whether an item that is repeated in a session makes a rule to itself, as in session-rec.
        protocol: Options of `SessionRecommender`.
    """

    def __init__(self, n_rules: int = 20, n_steps: int = 10, self_rules: bool = True, **protocol: Any) -> None:
        super().__init__(n_rules, self_rules, **protocol)
        self.save_hyperparameters()
        check_least("--model.n_steps", n_steps, 1)
        self.n_steps = n_steps

    def rules(self, sessions: Sessions) -> csr_array:
        """Summed weights from item to item, float64, shape (N, N)."""
        session = np.repeat(np.arange(len(sessions)), np.diff(sessions.offsets))
        items = np.asarray(sessions.items, dtype=np.int64)
        total = csr_array((self.n_items, self.n_items), dtype=np.float64)
        for distance in range(1, self.n_steps + 1):
            together = session[distance:] == session[:-distance]
            pair = items[:-distance][together], items[distance:][together]
            weights = np.full(len(pair[0]), 1 / distance)
            total = total + csr_array(coo_array((weights, pair), shape=total.shape))
        return self.with_earlier(total)

    @property
    def inexact(self) -> str:
        """Items whose rules may have been cut, and the rounding of what is kept."""
        return "; ".join(filter(None, [super().inexact, "sums are known to 32 bits"]))
