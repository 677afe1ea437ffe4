"""SR-GNN: a gated graph network over the items of the session.

References:
    Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from sessrec.models.compatibility import check_ranges
from sessrec.models.neural import NeuralRecommender
from sessrec.models.whole_sessions import SESSION_RANGES, SessionsSoFar, WholeSessions
from sessrec.nn.objective import Objective

_RANGES = {"[1, inf)": "hidden_size n_steps", "[0, inf)": "weight_decay"}


class SRGNN(WholeSessions, NeuralRecommender):
    """A gated graph network over the session's items, with attention, trained on whole sessions by cross-entropy.

    The session so far is a graph: its distinct items are the nodes, and an edge leads from an item to one that follows
    it. An edge counts once, as in the authors' program; the paper counts how often it occurs. In each step a node takes
    the mean of what its predecessors send, and that of its successors, through a GRU cell. The session is the last
    item's state and the sum of all events' states, weighted by q . sigmoid(W v_last + U v + c).

    Args:
        hidden_size: Size of the item embedding and of the states (paper: 100).
        n_steps: Steps of the gated graph network (paper: 1).
        weight_decay: Weight of the L2 penalty on all parameters, as a part of the gradient (paper: 0.00001).
        max_length: Events that a position looks back at; a longer session is trained on in pieces of that length.
        learning_rate: Learning rate of Adam (paper: 0.001).
        n_sample: Negative samples of a step, shared by all positions, besides the other positions' targets; 0 compares
            a target with all items (as the paper does).
        sample_alpha: Samples are drawn in proportion to an item's count to this power.
        logq: Strength in [0, 1] of the popularity correction of sampled logits in training.
        protocol: Options of `FeaturedItems`, `NeuralRecommender` and `SessionRecommender`.
    """

    def __init__(
        self,
        hidden_size: int = 100,
        n_steps: int = 1,
        weight_decay: float = 0.00001,
        max_length: int = 50,
        learning_rate: float = 0.001,
        n_sample: int = 0,
        sample_alpha: float = 0.75,
        logq: float = 1.0,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        check_ranges(self.options, SESSION_RANGES)
        check_ranges(self.options, _RANGES)

    def build(self) -> None:
        """Create the embedding, the graph network and the attention, all drawn from U(-s, s), s = hidden_size^-0.5."""
        h, size = self.options, self.options.hidden_size
        self.item_embedding = nn.Parameter(torch.empty(self.n_items, size))
        self.from_before, self.from_after = nn.Linear(size, size), nn.Linear(size, size)
        self.cell = nn.GRUCell(2 * size, size)
        self.of_last, self.of_each = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.weight = nn.Linear(size, 1, bias=False)
        self.join = nn.Linear(2 * size, size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)
        self.objective = Objective(
            torch.from_numpy(self.vocabulary.counts), "cross-entropy", h.n_sample, h.sample_alpha, h.logq
        )
        self.build_features()

    def configure_optimizers(self) -> Optimizer:
        """Adam with an L2 penalty on all parameters."""
        return Adam(self.parameters(), lr=self.options.learning_rate, weight_decay=self.options.weight_decay)

    def queries(self, items: Tensor, wanted: Tensor, training: bool = False) -> Tensor:
        """Each wanted event's session so far, from a graph of its own; see `WholeSessions`."""
        so_far = SessionsSoFar.of(wanted)
        event_items = items[so_far.row[so_far.number], so_far.place]  # (E,)
        # a node is an item in one of the sessions so far
        nodes, node = (so_far.number * self.n_items + event_items).unique(return_inverse=True)  # (V,), (E,)
        states = self._propagate(self.rows(nodes % self.n_items), node, so_far.place)  # (V, H)
        last = states[node[so_far.first + so_far.last]]  # (P, H)
        terms = self.of_last(last)[so_far.number] + self.of_each(states)[node]  # (E, H)
        weights = self.weight(terms.sigmoid())[:, 0].to(states.dtype)  # (E,)
        attended = F.embedding_bag(node, states, so_far.first, mode="sum", per_sample_weights=weights)  # (P, H)
        return self.join(torch.cat([attended, last], dim=1))

    def _propagate(self, states: Tensor, node: Tensor, place: Tensor) -> Tensor:
        """States of the nodes, shape (V, H), after the steps; events have a node and a place, int64, shape (E,)."""
        n_nodes, follows = len(states), place[1:] > 0
        edges = (node[:-1] * n_nodes + node[1:])[follows].unique()
        source, target = edges // n_nodes, edges % n_nodes  # by source
        by_target = target.argsort(stable=True)
        bounds = torch.arange(n_nodes, device=node.device)
        first_out, first_in = torch.searchsorted(source, bounds), torch.searchsorted(target[by_target], bounds)
        for _ in range(self.options.n_steps):
            sent = self.from_before(states).to(states.dtype), self.from_after(states).to(states.dtype)
            before = F.embedding_bag(source[by_target], sent[0], first_in, mode="mean")  # (V, H), 0 without an edge
            after = F.embedding_bag(target, sent[1], first_out, mode="mean")
            states = self.cell(torch.cat([before, after], dim=1), states).to(states.dtype)
        return states
