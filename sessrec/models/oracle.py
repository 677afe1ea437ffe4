"""Oracle: the best ranking that the synthetic process allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sessrec.data.drift import DriftingProcess
from sessrec.data.synthetic import N_DAYS, SyntheticProcess
from sessrec.errors import SessRecError, check_least
from sessrec.models.base import SessionRecommender

_HALF_HOUR = 1800


class Oracle(SessionRecommender):
    """Ranks items by their exact probability under the process that generated the synthetic sessions.

    It learns nothing: it knows the process and filters the hidden intent of a session exactly, so no model can pass it
    on such data but by chance. Its options must be those that the sessions were generated with. Of a process that
    drifts it knows one day: on that day it is the ceiling, and after it, what the best model of that day is worth.

    Args:
        process_items: Number of items of the process.
        process_seed: Seed of the process.
        process_drift: Share of the transitions that change from a day to the next.
        process_turnover: Share of the items that vanish from a day to the next.
        process_day: Day of the process that it knows, from 0; null is that of half an hour after the last training
            event: where training ends at midnight, the day that begins.
        protocol: Options of `SessionRecommender`.
    """

    process_index: Tensor

    def __init__(
        self,
        process_items: int = 1000,
        process_seed: int = 42,
        process_drift: float = 0.0,
        process_turnover: float = 0.0,
        process_day: int | None = None,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        check_least("--model.process_day", process_day, 0)
        if process_day is not None and process_day >= N_DAYS:
            raise SessRecError(f"--model.process_day must be at most {N_DAYS - 1}, got {process_day}")
        self.process_day = process_day
        self.drifting = DriftingProcess(process_items, process_seed, process_drift, process_turnover)

    def build(self) -> None:
        """Find the process's item behind each item of the vocabulary.

        Raises:
            SessRecError: If an item is none of the process's.
        """
        n_items = self.drifting.n_items_ever
        legal = {str(number + 1): number for number in range(n_items)}
        strangers = [item_id for item_id in self.vocabulary.item_ids if item_id not in legal]
        if strangers:
            raise SessRecError(
                f"item {strangers[0]} is none of the synthetic process's {n_items} items: Oracle needs sessions of "
                "sessrec.data.synthetic, and --model.process_items and --model.process_seed as they were generated with"
            )
        index = torch.tensor([legal[item_id] for item_id in self.vocabulary.item_ids])
        self.register_buffer("process_index", index)

    @property
    def day(self) -> int:
        """The day of the process that it knows."""
        if self.process_day is not None:
            return self.process_day
        return int(self.drifting.day_of(np.array((self.trained_until or 0) + _HALF_HOUR)))

    @property
    def process(self) -> SyntheticProcess:
        """The process of that day, over places."""
        return self.drifting.process_of(self.day)

    def _places(self) -> np.ndarray:
        """Place of each item of the vocabulary on that day, -1 for those that are not there, int64, shape (N,)."""
        places = np.full(self.drifting.n_items_ever, -1)
        places[self.drifting.item_of_place[self.day]] = np.arange(self.drifting.n_items)
        return places[self.process_index.cpu().numpy()]

    def encode(self, items: Tensor) -> Tensor:
        """Belief about the hidden intent, then the position's place, float64, shape (S, L, intents + 1)."""
        places = self._places()[items.cpu().numpy()]
        process = self.process
        belief = np.full((len(places), process.n_intents), 1 / process.n_intents)
        last = np.full(len(places), -1)
        queries = []
        for place in places.T:
            is_first, is_next = (place >= 0) & (last < 0), (place >= 0) & (last >= 0)
            belief[is_first] = process.start_belief(place[is_first])
            belief[is_next] = process.update(belief[is_next], last[is_next], place[is_next])
            last = np.where(place >= 0, place, last)
            queries.append(np.concatenate([belief, last[:, None]], axis=1))
        return torch.from_numpy(np.stack(queries, axis=1)).to(items.device)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Probability that each item is the next one, float64, shape (P, n)."""
        known, places = queries.cpu().numpy(), self._places()[items]
        last = known[:, -1].astype(np.int64)
        process = self.process
        of_place = np.empty((len(known), process.n_items))
        of_place[last >= 0] = process.next_item_probabilities(known[last >= 0, :-1], last[last >= 0])
        of_place[last < 0] = process.popularity  # nothing that is there any more was clicked
        return torch.from_numpy(np.where(places >= 0, of_place[:, places], 0.0)).to(queries.device)
