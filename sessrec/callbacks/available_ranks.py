"""Rank each target of a test a second time, among the items that were there at the time of its position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sessrec.data.loaders import EvaluationBatch
from sessrec.data.sessions import Sessions
from sessrec.distributed import sum_over_processes
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.ranking import MISSED
from sessrec.features.availability import ItemIntervals
from sessrec.models.base import SessionRecommender
from sessrec.models.inference import rank_positions


class AvailableRanks:
    """Counts of a test whose candidates are the items that are there when a list is made, at the time of an event.

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
        self.model, self.intervals = model, intervals
        times, is_last = np.asarray(sessions.times, dtype=np.float64), sessions.offsets[1:] - 1
        self._times = torch.from_numpy(np.delete(times, is_last)).to(model.device)  # (P,)
        self._targets = np.delete(np.asarray(sessions.items), sessions.offsets[:-1])
        self._bounds = torch.from_numpy(intervals.bounds).to(model.device)
        self._counts = torch.zeros(2, len(self._times), dtype=torch.int64)

    def add(self, batch: EvaluationBatch, positions: Tensor) -> None:
        """Count for the positions of a batch, whose numbers in the whole test are given, int64, shape (P,)."""
        counts = rank_positions(self.model, batch, None, self._bounds, self._times[positions.to(self._times.device)])
        self._counts[0, positions], self._counts[1, positions] = counts.above.cpu(), counts.tied.cpu()

    def finish(self, is_ranked: np.ndarray) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        """Columns for the ranks file, and figures for ``metrics.json``; every process has to ask.

        Args:
            is_ranked: Which positions were ranked, bool, shape (P,).
        """
        above, tied = sum_over_processes(self._counts.to(self.model.device)).cpu()
        rank = rank_from_counts(above, tied, self.model.tie_mode).double().numpy()
        rank[above.numpy() >= MISSED] = np.inf
        times = self._times.cpu().numpy()
        there = self.intervals.bounds[self._targets] <= times[:, None]
        is_there = there.sum(axis=1) % 2 == 1
        n_candidates = self.intervals.counts(times) + ~is_there
        metrics = {}
        for name in map(str, self.model.test_metrics):
            metric = name.removeprefix("test/")
            metrics[metric] = float(gains(rank[is_ranked], metric).mean()) if is_ranked.any() else float("nan")
        figures = {
            "metrics": metrics,
            "mean_candidates": float(n_candidates[is_ranked].mean()) if is_ranked.any() else float("nan"),
            "targets_not_there": int((~is_there & is_ranked).sum()),
            "items_always_there": self.intervals.n_unlisted,
        }
        columns = {
            "rank_available": pa.array(rank, mask=np.isinf(rank)),
            "candidates_available": pa.array(n_candidates.astype(np.int32)),
        }
        return columns, figures
