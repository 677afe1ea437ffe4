"""What models share that are trained on whole sessions: steps, and queries for sessions of any length."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from sessrec.data.loaders import SessionBatch, TrainingBatches
from sessrec.distributed import n_processes, own_part
from sessrec.evaluation.ranking import MIN_ROWS
from sessrec.models.featured_items import FeaturedItems
from sessrec.models.inference import full_precision
from sessrec.models.neural import seeded
from sessrec.nn.objective import Objective

SESSION_RANGES = {
    "[1, inf)": "max_length",
    "(0, inf)": "learning_rate",
    "[0, inf]": "n_sample sample_alpha",
    "[0, 1]": "logq",
}
_SESSIONS = 128  # sessions encoded at once where nothing is trained


class WholeSessions(FeaturedItems):
    """Beside `NeuralRecommender`, a model of whole sessions: every event of a session predicts the next one.

    The model offers `queries`, has the options of `SESSION_RANGES`, and in `build` creates ``item_embedding``, whose
    rows score the items, and ``objective``, and ends it with `build_features`. The batch size of the data counts
    sessions.
    """

    batches: TrainingBatches = "sessions"
    item_rows: tuple[str, ...] = ("item_embedding",)
    has_sparse_gradients = False
    """Whether the optimiser takes gradients of the embedding's touched rows."""
    item_embedding: Tensor
    objective: Objective
    options: Any

    def queries(self, items: Tensor, wanted: Tensor, training: bool = False) -> Tensor:
        """One query for each wanted event, from it and the events before it.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L), L at most ``max_length``.
            wanted: Which events get a query, bool, shape (S, L).
            training: Whether to apply dropout.

        Returns:
            Queries in the order of ``wanted.nonzero()``, shape (P, width of ``item_embedding``).
        """
        raise TypeError(f"{type(self).__name__} has no queries method")

    def rows(self, items: Tensor) -> Tensor:
        """Vectors of items, shape (..., H), for items (...), int64.

        The gradient of the item embedding is sparse where the optimiser takes it so and nothing is clipped, which needs
        it whole.
        """
        trainer = self._trainer  # type: ignore[attr-defined]
        clips = trainer is not None and bool(trainer.gradient_clip_val)
        is_plain = self.item_features is None or not torch.is_grad_enabled()
        table = self.item_table if is_plain else self.item_embedding
        own = F.embedding(items, table, sparse=self.has_sparse_gradients and not clips)
        if is_plain:
            return own
        assert self.item_features is not None
        own = own if self.kept is None else own * self.kept[items][..., None]
        return own + self.item_features(items.flatten()).view_as(own)

    def _candidates(self, items: Tensor | None) -> Tensor:
        """Vectors of some candidates of a step, or of all items, with features of all that have a click in training."""
        if items is not None:
            return self.rows(items)
        if self.item_features is None:
            return self.item_embedding
        items, own = self.trained_items, self.item_embedding
        if len(items) < len(own):
            own = own.index_select(0, items)
        added = self.item_features(items)
        return added + (own if self.kept is None else own * self.kept[items, None])

    @property
    def looks_back(self) -> int:
        """Newest events that a query depends on."""
        return self.options.max_length

    @property
    def clips_gradients(self) -> bool:
        """Yes."""
        return True

    @property
    def trains_in_parallel(self) -> bool:
        """Yes: each process takes its part of every batch's sessions, unless a subclass takes them otherwise."""
        return type(self).train_window is WholeSessions.train_window

    def train_window(self, window: SessionBatch, optimizer: Optimizer, generator: torch.Generator) -> Tensor:
        """Take one step on some whole sessions; its summed loss, shape (1,)."""
        table = self.item_embedding
        self.begin_window(generator)
        inputs, targets, has_target = pieces(window, self.options.max_length)
        chosen, own = targets[has_target], own_part(len(inputs))  # (P,) of all processes, and this one's pieces
        if self.item_features is not None and not self.objective.n_sample:
            chosen = self.place_among_trained[chosen]  # as `_candidates` orders them
        loss = table.new_zeros(())
        if own.start < own.stop:  # a batch may have fewer pieces than there are processes
            first = 0 if n_processes() == 1 else int(has_target[: own.start].sum())
            with seeded(generator), torch.enable_grad():
                queries = self.queries(inputs[own], has_target[own], training=True).to(table.dtype)  # (own P, H)
                with full_precision(table.device):
                    loss = self.objective.backward(queries, chosen, self._candidates, generator, first)
        self.take_step(optimizer)  # type: ignore[attr-defined]
        return loss[None]

    def encode(self, items: Tensor) -> Tensor:
        """Query at each event, from it and the ``max_length`` - 1 events before it, shape (S, L, H)."""
        return self.encode_sessions(items, items.new_full(items.shape[:1], items.shape[1]))

    @torch.no_grad()
    def encode_sessions(self, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode` for the events that sessions have: an event past ``max_length`` has a window of its own."""
        most = self.options.max_length
        is_event = torch.arange(items.shape[1], device=items.device) < lengths[:, None]  # (S, L)
        queries = self.item_embedding.new_zeros(*items.shape, self.item_embedding.shape[1])
        queries[:, :most][is_event[:, :most]] = self._in_parts(items[:, :most], is_event[:, :most])
        row, start = is_event[:, most:].nonzero().T  # of each window; its first event is at start + 1
        if len(row):
            windows = items[row[:, None], start[:, None] + torch.arange(1, most + 1, device=items.device)]
            is_last = torch.zeros_like(windows, dtype=torch.bool)
            is_last[:, -1] = True
            queries[row, start + most] = self._in_parts(windows, is_last)
        return queries

    def _in_parts(self, items: Tensor, wanted: Tensor) -> Tensor:
        """`queries`, some sessions at once, rounded alike whatever sessions are there."""
        found = []
        for rows, chosen in zip(items.split(_SESSIONS), wanted.split(_SESSIONS), strict=True):
            fill = (0, 0, 0, max(0, MIN_ROWS - len(rows)))
            n_wanted, chosen = int(chosen.sum()), F.pad(chosen, fill)
            chosen[len(rows) :, 0] = True
            found.append(self.queries(F.pad(rows, fill), chosen)[:n_wanted].to(self.item_embedding.dtype))
        return torch.cat(found)

    def score(self, queries: Tensor, items: slice | Tensor) -> Tensor:
        """Score of each item's row by the objective, float32, shape (P, n)."""
        return self.objective.scores(queries.float(), self.item_table[items].float())

    def factors(self, queries: Tensor, items: slice) -> tuple[Tensor, Tensor]:
        """See `SessionRecommender.factors`."""
        return self.objective.factors(queries.float(), self.item_table[items].float())

    def score_targets(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Score of each position's target, float32, shape (P, 1), by the matrix product that scores the items."""
        return self.score(queries, targets).diagonal()[:, None].clone()


def pieces(batch: SessionBatch, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and targets of all pairs, int64, (pieces, length), in pieces of ``most`` pairs; which cells hold one."""
    items, lengths = batch.items, batch.lengths
    n_pieces = -(-(items.shape[1] - 1) // most)
    items = F.pad(items, (0, n_pieces * most + 1 - items.shape[1]))
    pair = torch.arange(n_pieces * most, device=items.device)
    has_target = (pair < lengths[:, None] - 1).view(-1, most)
    inputs, targets = items[:, :-1].reshape(-1, most), items[:, 1:].reshape(-1, most)
    kept, width = has_target[:, 0], int(has_target.sum(dim=1).max())
    return inputs[kept, :width], targets[kept, :width], has_target[kept, :width]


class SessionsSoFar(NamedTuple):
    """The sessions up to some of their events, each with its events in order, one after the other without padding."""

    row: Tensor
    """Session of each one, int64, shape (P,)."""
    last: Tensor
    """Place of its last event in the session, int64, shape (P,)."""
    first: Tensor
    """Number of its first event among all events, int64, shape (P,)."""
    number: Tensor
    """Which one each event belongs to, int64, shape (E,)."""
    place: Tensor
    """Place of each event in the session, int64, shape (E,)."""

    @classmethod
    def of(cls, wanted: Tensor) -> SessionsSoFar:
        """Those that end with the wanted events of sessions, bool, shape (S, L).

        Example:
            >>> so_far = SessionsSoFar.of(torch.tensor([[False, True, True], [True, False, False]]))
            >>> so_far.number.tolist(), so_far.place.tolist()
            ([0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0])
        """
        row, last = wanted.nonzero().T
        first = (last + 1).cumsum(0) - last - 1
        number = torch.arange(len(last), device=last.device).repeat_interleave(last + 1)
        return cls(row, last, first, number, torch.arange(len(number), device=last.device) - first[number])
