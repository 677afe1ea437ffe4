"""Oracle: the best ranking that the synthetic process allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sessrec.data.synthetic import SyntheticProcess
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender


class Oracle(SessionRecommender):
    """Ranks items by their exact probability under the process that generated the synthetic sessions.

    It learns nothing: it knows the process and filters the hidden intent of a session exactly, so no model can pass it
    on such data but by chance. Its options must be those that the sessions were generated with.

    Args:
        process_items: Number of items of the process.
        process_seed: Seed of the process.
        protocol: Options of `SessionRecommender`.
    """

    process_index: Tensor

    def __init__(self, process_items: int = 1000, process_seed: int = 42, **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        self.process = SyntheticProcess(n_items=process_items, seed=process_seed)

    def build(self) -> None:
        """Find the process's item behind each item of the vocabulary.

        Raises:
            SessRecError: If an item is none of the process's.
        """
        legal = {str(number + 1): number for number in range(self.process.n_items)}
        strangers = [item_id for item_id in self.vocabulary.item_ids if item_id not in legal]
        if strangers:
            raise SessRecError(
                f"item {strangers[0]} is none of the synthetic process's {len(legal)} items: Oracle needs sessions of "
                "sessrec.data.synthetic, and --model.process_items and --model.process_seed as they were generated with"
            )
        index = torch.tensor([legal[item_id] for item_id in self.vocabulary.item_ids])
        self.register_buffer("process_index", index)

    def encode(self, items: Tensor) -> Tensor:
        """Belief about the hidden intent, then the position's item, float64, shape (S, L, intents + 1)."""
        numbers = self.process_index[items].cpu().numpy()
        belief = self.process.start_belief(numbers[:, 0])
        beliefs = [belief]
        for previous, current in zip(numbers.T, numbers.T[1:], strict=False):
            belief = self.process.update(belief, previous, current)
            beliefs.append(belief)
        queries = np.concatenate([np.stack(beliefs, axis=1), numbers[:, :, None]], axis=2)
        return torch.from_numpy(queries).to(items.device)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Probability that each item is the next one, float64, shape (P, n)."""
        known = queries.cpu().numpy()
        probabilities = self.process.next_item_probabilities(known[:, :-1], known[:, -1].astype(np.int64))
        return torch.from_numpy(probabilities[:, self.process_index[items].cpu().numpy()]).to(queries.device)
