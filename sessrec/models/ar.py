"""AR: association rules of two items, seen in one session.

References:
    Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
    Interaction 28, 2018.
"""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array, diags_array

from sessrec.data.sessions import Sessions
from sessrec.models.item_rules import ItemRulesRecommender, events_of_sessions


class AR(ItemRulesRecommender):
    """Ranks items by how often they stand in a session with the last item, before or after it.

    Every pair of events of a session counts once in both directions, so that two events of one item count twice.

    Args:
        n_rules: Successors kept for each item, the best; of equal ones the more popular, then the first in the
            vocabulary (session-rec: 20).
        self_rules: Whether an item that is repeated in a session makes a rule to itself, as in session-rec.
        protocol: Options of `SessionRecommender`.
    """

    def __init__(self, n_rules: int = 20, self_rules: bool = True, **protocol: Any) -> None:
        super().__init__(n_rules, self_rules, **protocol)
        self.save_hyperparameters()

    def rules(self, sessions: Sessions) -> csr_array:
        """Pairs of events with each two items, in both directions, float64, shape (N, N)."""
        events = events_of_sessions(sessions, self.n_items)
        pairs = csr_array(events.T @ events - diags_array(events.sum(axis=0)))  # no event makes a pair with itself
        return self.with_earlier(pairs)
