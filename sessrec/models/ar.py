"""AR: association rules of two items, seen in one session.

References:
    Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
    Interaction 28, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.sparse import csr_array

from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.item_rules import ItemRulesRecommender, events_of_sessions
from sessrec.sessions import Sessions


class AR(ItemRulesRecommender):
    """Ranks items by how often they stand in a session with the last item, before or after it.

    Every pair of events of a session counts once, in both directions; an item makes no pair with itself.

    Args:
        n_rules: Successors kept for each item, the best; of equal ones the more popular, then the first in the
            vocabulary (session-rec: 20).
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    def __init__(
        self,
        n_rules: int = 20,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__(
            n_rules,
            cutoffs=cutoffs,
            tie_mode=tie_mode,
            k=k,
            exclude_last=exclude_last,
            exclude_seen=exclude_seen,
        )
        self.save_hyperparameters()

    def rules(self, sessions: Sessions) -> csr_array:
        """Pairs of events with each two items, float64, shape (N, N)."""
        events = events_of_sessions(sessions, self.n_items)
        return events.T @ events
