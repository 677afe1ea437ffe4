"""A synthetic process that changes from day to day: transitions drift, items appear and vanish.

The best next-item ranking is known for each day, and so is what a model loses that knows an earlier day only: the right
answer of every question about ageing.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd

from sessrec.data.synthetic import (
    FIRST_DAY,
    N_DAYS,
    IntArray,
    SyntheticProcess,
    draw_distinct,
    require,
    sample_lengths,
    sample_times,
    sessions_frame,
)

_SECONDS = 86_400


class DriftingProcess:
    """A `SyntheticProcess` for each day, over places that items take: one that vanishes leaves its place to a new one.

    The first day is the process of the same seed. From each day to the next, each row of the successor categories and
    of the links is drawn anew with the probability ``drift``, and each place gets a new item with the probability
    ``turnover``; a new item has the category, popularity and transitions of its place.

    Args:
        n_items: Number of items on each day, at least 2.
        seed: Seed of the tables and of their changes, at least 0.
        drift: Share of the transitions that change from a day to the next, 0 to 1.
        turnover: Share of the items that vanish from a day to the next, each for a new one, 0 to 1.
        options: Options of `SyntheticProcess`.

    Attributes:
        item_of_place: int64 (days, N), the item index in each place on each day.
        n_items_ever: Number of items of all days.

    Raises:
        SessRecError: An argument is out of its range.

    Example:
        >>> process = DriftingProcess(n_items=50, seed=1, turnover=0.1)
        >>> process.n_items_ever > 50, process.day_of(np.array([1704067200, 1704153600])).tolist()
        (True, [0, 1])
    """

    def __init__(
        self, n_items: int = 1000, seed: int = 42, drift: float = 0.0, turnover: float = 0.0, **options: Any
    ) -> None:
        require("drift", drift, 0, 1)
        require("turnover", turnover, 0, 1)
        self.n_items, self.drift, self.turnover = n_items, drift, turnover
        days = [SyntheticProcess(n_items, seed=seed, **options)]
        items = [np.arange(n_items)]
        rng = np.random.default_rng([seed, 3])
        for _ in range(1, N_DAYS):
            days.append(_drifted(days[-1], drift, rng) if drift else days[-1])
            vanishes = rng.random(n_items) < turnover
            first_new = items[-1].max() + 1
            items.append(np.where(vanishes, first_new + np.cumsum(vanishes) - 1, items[-1]))
        self._days = days
        self.item_of_place: IntArray = np.stack(items)
        self.n_items_ever = int(self.item_of_place.max()) + 1

    @property
    def item_ids(self) -> list[str]:
        """Ids of the items of all days."""
        return [str(item + 1) for item in range(self.n_items_ever)]

    @property
    def categories(self) -> list[str]:
        """Name of each item's category, which is that of its place."""
        category = np.empty(self.n_items_ever, dtype=np.int64)
        for items in self.item_of_place:
            category[items] = self._days[0].item_categories
        return [f"c{number}" for number in category.tolist()]

    def process_of(self, day: int) -> SyntheticProcess:
        """The process over the places on a day, from 0."""
        return self._days[day]

    def day_of(self, time: np.ndarray) -> IntArray:
        """The day of times in Unix seconds, int64; the first and the last one go on before and after."""
        day = (np.asarray(time) - FIRST_DAY) // _SECONDS
        return np.clip(day, 0, len(self._days) - 1).astype(np.int64)

    def sample(
        self, n_sessions: int, min_session_len: int = 2, max_session_len: int = 20, seed: int = 42
    ) -> pd.DataFrame:
        """Draw sessions as `SyntheticProcess.sample` does, each from the process of the day on which it begins."""
        if not (self.drift or self.turnover):
            return self._days[0].sample(n_sessions, min_session_len, max_session_len, seed)
        require("seed", seed, 0)
        rng = np.random.default_rng([seed, 1])
        lengths = sample_lengths(rng, n_sessions, min_session_len, max_session_len)
        times = sample_times(rng, n_sessions, int(lengths.max()))
        day = self.day_of(times[:, 0])
        items = np.zeros(times.shape, dtype=np.int64)
        for today in np.unique(day).tolist():
            rows = np.flatnonzero(day == today)
            places = self._days[today].sample_items(rng, lengths[rows])
            items[rows, : places.shape[1]] = self.item_of_place[today][places]
        return sessions_frame(items, times, lengths)


def _drifted(process: SyntheticProcess, share: float, rng: np.random.Generator) -> SyntheticProcess:
    """The same process with a share of its transitions drawn anew."""
    changed = copy.copy(process)
    successors = process.successor_categories.copy()
    for intent, taste in enumerate(process.tastes):
        changes = np.flatnonzero(rng.random(process.n_categories) < share)
        nothing = np.empty((len(changes), 0), dtype=np.int64)
        successors[intent, changes] = draw_distinct(rng, taste, nothing, successors.shape[2])
    links = process.link_items.copy()
    changes = np.flatnonzero(rng.random(process.n_items) < share)
    uniform = np.full(process.n_items, 1 / process.n_items)
    links[changes] = draw_distinct(rng, uniform, changes[:, None], links.shape[1])
    changed.successor_categories, changed.link_items = successors, links
    return changed
