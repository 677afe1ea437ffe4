"""AR: association rules of two items, seen in one session.

References:
    Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
    Interaction 28, 2018.
"""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array

from sessrec.models.item_rules import ItemRulesRecommender, events_of_sessions
from sessrec.sessions import Sessions


class AR(ItemRulesRecommender):
    """Ranks items by how often they stand in a session with the last item, before or after it.

    Every pair of events of a session counts once, in both directions; an item makes no pair with itself.

    Args:
        n_rules: Successors kept for each item, the best; of equal ones the more popular, then the first in the
            vocabulary (session-rec: 20).
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_rules: int = 20,
        **protocol: Any,
    ) -> None:
        super().__init__(n_rules, **protocol)
        self.save_hyperparameters()

    def rules(self, sessions: Sessions) -> csr_array:
        """Pairs of events with each two items, float64, shape (N, N)."""
        events = events_of_sessions(sessions, self.n_items)
        return events.T @ events
