"""NARM: a recurrent encoder with attention over the session.

References:
    Li et al., "Neural Attentive Session-based Recommendation", CIKM 2017.
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

_RANGES = {"[1, inf)": "hidden_size embedding_size", "[0, 1)": "dropout_p_embed dropout_p_session"}


class NARM(WholeSessions, NeuralRecommender):
    """A GRU whose last state attends to the states before it, trained on whole sessions by cross-entropy.

    The state after an event stands for the whole session so far; a sum of all states so far, weighted by
    v . sigmoid(A h_last + B h), for its main purpose. A bilinear decoder compares both with the item embedding.

    Args:
        hidden_size: Units of the GRU and of the attention (paper: 100).
        embedding_size: Size of the item embedding (paper: 50).
        dropout_p_embed: Probability to drop an element of an input embedding (paper: 0.25).
        dropout_p_session: Probability to drop an element of what the decoder gets (paper: 0.5).
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
        embedding_size: int = 50,
        dropout_p_embed: float = 0.25,
        dropout_p_session: float = 0.5,
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
        """Create the embedding, the GRU, the attention and the decoder.

        All but the attention, which the authors' program normalises and the paper does not, begin as in that program;
        from torch's smaller weights, the first epochs learn little more than popularity.
        """
        h = self.options
        self.item_embedding = nn.Parameter(torch.empty(self.n_items, h.embedding_size))
        gru: Any = nn.GRU(h.embedding_size, h.hidden_size, batch_first=True)
        self.gru = gru
        self.of_last = nn.Linear(h.hidden_size, h.hidden_size, bias=False)
        self.of_each = nn.Linear(h.hidden_size, h.hidden_size, bias=False)
        self.weight = nn.Linear(h.hidden_size, 1, bias=False)
        self.decoder = nn.Linear(2 * h.hidden_size, h.embedding_size, bias=False)
        nn.init.normal_(self.item_embedding, std=(2 / self.n_items) ** 0.5)
        for weight in (gru.weight_ih_l0, self.decoder.weight):
            nn.init.normal_(weight, std=(2 / h.embedding_size) ** 0.5)
        for gate in gru.weight_hh_l0.data.chunk(3):
            nn.init.orthogonal_(gate)
        self.objective = Objective(
            torch.from_numpy(self.vocabulary.counts), "cross-entropy", h.n_sample, h.sample_alpha, h.logq
        )
        self.build_features()

    def configure_optimizers(self) -> Optimizer:
        """Adam on all parameters."""
        return Adam(self.parameters(), lr=self.options.learning_rate)

    def queries(self, items: Tensor, wanted: Tensor, training: bool = False) -> Tensor:
        """What the decoder makes of each wanted event's state and attention; see `WholeSessions`."""
        h, so_far = self.options, SessionsSoFar.of(wanted)
        embedded = F.dropout(self.rows(items), h.dropout_p_embed, training)
        states, _ = self.gru(embedded)  # (S, L, H)
        states = states.to(self.item_embedding.dtype)
        last, each = states[so_far.row, so_far.last], states.flatten(0, 1)  # (P, H), (S L, H)
        event = so_far.row[so_far.number] * items.shape[1] + so_far.place  # (E,)
        terms = self.of_last(last)[so_far.number] + self.of_each(each)[event]  # (E, H)
        weights = self.weight(terms.sigmoid())[:, 0].to(each.dtype)  # (E,)
        attended = F.embedding_bag(event, each, so_far.first, mode="sum", per_sample_weights=weights)  # (P, H)
        return self.decoder(F.dropout(torch.cat([last, attended], dim=1), h.dropout_p_session, training))
