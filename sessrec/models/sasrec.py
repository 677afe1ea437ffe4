"""SASRec: causal self-attention over the session.

References:
    Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from sessrec.data.loaders import SessionBatch, TrainingBatches
from sessrec.errors import SessRecError
from sessrec.evaluation.ranking import on_enough_rows
from sessrec.models.compatibility import check_ranges
from sessrec.models.inference import full_precision
from sessrec.models.neural import NeuralRecommender, seeded
from sessrec.nn.losses import Candidates, cross_entropy
from sessrec.nn.negatives import LogQ, NegativeSampler

_RANGES = {
    "[1, inf)": "hidden_size n_blocks n_heads max_length",
    "[0, 1)": "dropout",
    "[0, 1]": "logq",
    "(0, inf)": "learning_rate",
    "[0, inf]": "n_sample sample_alpha",
}
_WINDOWS = 512  # windows of long sessions that are encoded at once


class SASRec(NeuralRecommender):
    """Blocks of causal self-attention with learned places, trained on whole sessions by cross-entropy.

    Every position of a session predicts its next event, in one pass. Input and output share one item embedding. Where
    the paper compares a target with one negative, the softmax here is over all items, or over the targets of the batch
    and samples, as in GRU4Rec. The batch size of the data counts sessions.

    Args:
        hidden_size: Size of the embedding and of all layers (paper: 50; GRU4Rec's size here).
        n_blocks: Number of blocks, each of attention and two pointwise layers (paper: 2).
        n_heads: Number of attention heads (paper: 1).
        max_length: Events that a position looks back at; a longer session is trained on in pieces of that length
            (paper: 50 for the sparse logs).
        dropout: Probability to drop an element of an embedding or of a layer's output (paper: 0.2 for the dense log,
            0.5 for the sparse ones).
        learning_rate: Learning rate of Adam (paper: 0.001, with one negative a target).
        n_sample: Negative samples of a step, shared by all positions, beside the other positions' targets; 0 compares a
            target with all items.
        sample_alpha: Samples are drawn in proportion to an item's count to this power.
        logq: Strength in [0, 1] of the popularity correction of sampled logits in training.
        protocol: Options of `NeuralRecommender` and `SessionRecommender`.
    """

    batches: TrainingBatches = "sessions"

    def __init__(
        self,
        hidden_size: int = 100,
        n_blocks: int = 2,
        n_heads: int = 1,
        max_length: int = 50,
        dropout: float = 0.2,
        learning_rate: float = 0.002,
        n_sample: int = 2048,
        sample_alpha: float = 0.75,
        logq: float = 1.0,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        check_ranges(self.options, _RANGES)
        if hidden_size % n_heads:
            raise SessRecError(f"--model.hidden_size {hidden_size} is no multiple of --model.n_heads {n_heads}")

    def build(self) -> None:
        """Create the embeddings, the blocks and the negative sampler."""
        h = self.options
        self.item_embedding = nn.Parameter(torch.empty(self.n_items, h.hidden_size).normal_(std=h.hidden_size**-0.5))
        self.place_embedding = nn.Parameter(torch.empty(h.max_length, h.hidden_size).normal_(std=h.hidden_size**-0.5))
        self.blocks = nn.ModuleList(_Block(h.hidden_size, h.n_heads) for _ in range(h.n_blocks))
        self.norm = nn.LayerNorm(h.hidden_size)
        counts = torch.from_numpy(self.vocabulary.counts)
        self.sampler = NegativeSampler(counts, h.sample_alpha)
        self.log_q = LogQ(counts, h.sample_alpha)

    def configure_optimizers(self) -> Optimizer:
        """Adam on all parameters."""
        return Adam(self.parameters(), lr=self.options.learning_rate, betas=(0.9, 0.98))

    @property
    def clips_gradients(self) -> bool:
        """Yes."""
        return True

    # -- training ----------------------------------------------------------------------------------------------------

    def train_window(self, window: SessionBatch, optimizer: Optimizer, generator: torch.Generator) -> Tensor:
        """Take one step on some whole sessions; its summed loss, shape (1,)."""
        inputs, targets, has_target = self._pieces(window)
        with seeded(generator), torch.enable_grad():
            queries = self._attend(inputs, self.options.dropout)[has_target]  # (P, H)
            loss = self._backward(queries, targets[has_target], generator)
        self.take_step(optimizer)
        return loss[None]

    def _pieces(self, batch: SessionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and targets of all pairs, int64, (pieces, length), and which of the cells hold one."""
        items, lengths, most = batch.items, batch.lengths, self.options.max_length
        n_pieces = -(-(items.shape[1] - 1) // most)
        items = F.pad(items, (0, n_pieces * most + 1 - items.shape[1]))
        pair = torch.arange(n_pieces * most, device=items.device)
        has_target = (pair < lengths[:, None] - 1).view(-1, most)
        inputs, targets = items[:, :-1].reshape(-1, most), items[:, 1:].reshape(-1, most)
        kept, width = has_target[:, 0], int(has_target.sum(dim=1).max())
        return inputs[kept, :width], targets[kept, :width], has_target[kept, :width]

    def _backward(self, queries: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Leave the gradient of the mean loss in the parameters; the summed loss."""
        h, n_targets, dtype = self.options, len(targets), self.item_embedding.dtype
        if h.n_sample == 0:
            with full_precision(self.device):
                loss = F.cross_entropy(queries.to(dtype) @ self.item_embedding.T, targets, reduction="sum")
            (loss / n_targets).backward()
            return loss.detach()
        negatives = self.sampler.sample((1, h.n_sample), generator)
        weights = self.item_embedding.new_ones(n_targets + h.n_sample)
        if h.logq:
            weights = self.log_q(targets[None], negatives)[0].mul_(-h.logq).exp_().to(dtype)
        items = torch.cat([targets, negatives[0]])
        with full_precision(self.device):
            logits = queries.to(dtype) @ self.item_embedding[items].T
            loss, gradient = cross_entropy(logits.detach().clone(), Candidates.each_once(n_targets, weights))
            logits.backward(gradient / n_targets)
        return loss.sum()

    def _attend(self, items: Tensor, dropout: float = 0.0) -> Tensor:
        """Output at each event, shape (S, L, H), L at most ``max_length``; no position sees what comes after it."""
        states = self.item_embedding[items] * self.options.hidden_size**0.5 + self.place_embedding[: items.shape[1]]
        states = F.dropout(states, dropout)
        for block in self.blocks:
            states = block(states, dropout)
        return self.norm(states)

    # -- inference ---------------------------------------------------------------------------------------------------

    def encode(self, items: Tensor) -> Tensor:
        """Output at each event, from it and the ``max_length`` - 1 events before it, float32, shape (S, L, H)."""
        return self.encode_sessions(items, items.new_full(items.shape[:1], items.shape[1]))

    @torch.no_grad()
    def encode_sessions(self, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode` for the events that sessions have: an event past ``max_length`` has a window of its own."""
        most, n_later = self.options.max_length, max(0, items.shape[1] - self.options.max_length)
        queries = F.pad(on_enough_rows(self._attend, items[:, :most]), (0, 0, 0, n_later))
        place = torch.arange(1, n_later + 1, device=items.device)  # of each window's first event
        row, first = (place + most <= lengths[:, None]).nonzero().T
        within = torch.arange(most, device=items.device)
        for part, start in zip(row.split(_WINDOWS), first.split(_WINDOWS), strict=True):
            windows = items[part[:, None], place[start, None] + within]
            queries[part, start + most] = on_enough_rows(self._attend, windows)[:, -1]
        return queries

    def score(self, queries: Tensor, items: slice | Tensor) -> Tensor:
        """Inner product with each item's embedding, float32, shape (P, n)."""
        return queries.float() @ self.item_embedding[items].float().T

    def score_targets(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Score of each position's target, float32, shape (P, 1), by the matrix product that scores the items."""
        return self.score(queries, targets).diagonal()[:, None].clone()


class _Block(nn.Module):
    """Self-attention and two pointwise layers, each with a norm before and a residual around it."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(hidden), nn.LayerNorm(hidden)])
        self.inputs, self.output = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.inner, self.outer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, states: Tensor, dropout: float) -> Tensor:
        """States after the block, shape (S, L, H)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.inputs(self.norms[0](states)).chunk(3, 2)
        )  # (S, heads, L, H / heads)
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        states = states + F.dropout(self.output(attended.transpose(1, 2).flatten(2)), dropout)
        inner = F.dropout(F.relu(self.inner(self.norms[1](states))), dropout)
        return states + F.dropout(self.outer(inner), dropout)
