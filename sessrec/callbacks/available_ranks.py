"""Rank each target of a test a second time, among the items that were there at the time of its position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sessrec.data.loaders import EvaluationBatch
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.ranking import MISSED, items_so_far
from sessrec.features.availability import ItemIntervals
from sessrec.models.base import SessionRecommender
from sessrec.models.inference import rank_positions

COUNTS = ("above_available", "tied_available", "candidates_available", "target_is_there")


class AvailableRanks:
    """Counts of a test whose candidates are the items that are there when a list is made, at the time of an event.

    A target that is not there, by the table, is a candidate nevertheless: it was clicked.

    Args:
        model: The model.
        sessions: The test part.
        intervals: When each item of the model is there.
        has_times: Whether the times of the sessions are times, and no numbers of rows.

    Raises:
        SessRecError: If the log has no times.
    """

    def __init__(
        self, model: SessionRecommender, sessions: Sessions, intervals: ItemIntervals, has_times: bool
    ) -> None:
        if not has_times or sessions.times is None:
            raise SessRecError("--data.availability needs a click log with times: this one has only an order of events")
        self.model, self.sessions, self.intervals = model, sessions, intervals
        self._bounds = torch.from_numpy(intervals.bounds).to(model.device)
        allowed = model.allowed
        self._allowed = np.ones(model.n_items, dtype=bool) if allowed is None else allowed.cpu().numpy()
        self._of_allowed = ItemIntervals(intervals.bounds[self._allowed])

    def rank(self, batch: EvaluationBatch) -> dict[str, Tensor]:
        """The counts of `COUNTS` for the positions of a batch, int64, shape (P,) each."""
        row, place = batch.positions()
        event = torch.from_numpy(self.sessions.offsets[batch.sessions.cpu().numpy()])[row.cpu()] + place.cpu()
        times = torch.from_numpy(np.asarray(self.sessions.times)[event.numpy()].astype(np.float64))
        counts = rank_positions(self.model, batch, None, self._bounds, times.to(self._bounds.device))
        targets = batch.items[row, place + 1].cpu().numpy()
        is_there = self.intervals.are_there(targets, times.numpy())
        n_candidates = self._n_candidates(batch, row, place, times.numpy(), targets, is_there)
        found = (counts.above, counts.tied, torch.from_numpy(n_candidates), torch.from_numpy(is_there.astype(np.int64)))
        return dict(zip(COUNTS, found, strict=True))

    def _n_candidates(
        self,
        batch: EvaluationBatch,
        row: Tensor,
        place: Tensor,
        times: np.ndarray,
        targets: np.ndarray,
        is_there: np.ndarray,
    ) -> np.ndarray:
        """Items that are there and allowed, and the target, without those of the session that are excluded."""
        found = self._of_allowed.counts(times) + (~is_there & self._allowed[targets])
        rules = self.model.candidate_rules
        if rules.exclude_last or rules.exclude_seen:
            pairs = items_so_far(batch.items[:, :-1], row, place, last_only=not rules.exclude_seen)
            position, item = (part.cpu().numpy() for part in pairs(slice(0, len(row))))
            distinct = np.unique(position * self.model.n_items + item)
            position, item = distinct // self.model.n_items, distinct % self.model.n_items
            counts = self.intervals.are_there(item, times[position]) | (item == targets[position])
            np.subtract.at(found, position[counts & self._allowed[item]], 1)
        return found

    def columns(self, counts: dict[str, np.ndarray]) -> dict[str, pa.Array]:
        """Columns for the ranks file, of the counts of all positions."""
        rank = self._ranks(counts)
        candidates = pa.array(counts["candidates_available"].astype(np.int32))
        return {"rank_available": pa.array(rank, mask=np.isinf(rank)), "candidates_available": candidates}

    def figures(self, counts: dict[str, np.ndarray]) -> dict[str, Any]:
        """Figures for ``metrics.json``, of the counts of the positions that were ranked."""
        rank = self._ranks(counts)
        names = [str(name).removeprefix("test/") for name in self.model.test_metrics]
        return {
            "metrics": {name: float(gains(rank, name).mean()) for name in names},
            "mean_candidates": float(counts["candidates_available"].mean()),
            "targets_not_there": int((counts["target_is_there"] == 0).sum()),
            "items_always_there": self.intervals.n_unlisted,
        }

    def _ranks(self, counts: dict[str, np.ndarray]) -> np.ndarray:
        above, tied = (torch.from_numpy(counts[name]) for name in COUNTS[:2])
        rank = rank_from_counts(above, tied, self.model.tie_mode).double().numpy()
        return np.where(counts["above_available"] >= MISSED, np.inf, rank)
