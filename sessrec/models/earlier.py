"""What an earlier fit has counted, for a fit of the same model that adds to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError

_PROTOCOL = {"cutoffs", "tie_mode", "k", "exclude_last", "exclude_seen"}


class Earlier:
    """A fitted model, whose items are found in another vocabulary.

    Args:
        model: The fitted model.
        options: Options of the model that adds to it.
        vocabulary: Items of that model; those that it lacks are left out.

    Raises:
        SessRecError: If options that change what is counted differ.
    """

    def __init__(self, model: Any, options: dict[str, Any], vocabulary: Vocabulary) -> None:
        for name, value in model.hparams.items():
            if name not in _PROTOCOL and options.get(name, value) != value:
                raise SessRecError(
                    f"--init_from was fitted with --model.{name} {value}, not {options[name]}: give the same"
                )
        self.model = model
        self._place = vocabulary.index_of(model.vocabulary.item_ids)  # of each of its items; -1 where it is left out
        self._n_items = len(vocabulary)

    def by_item(self, values: np.ndarray) -> np.ndarray:
        """Values of the earlier model's items as values of the items here, 0 for new ones, shape (N,)."""
        found = np.zeros(self._n_items, dtype=values.dtype)
        kept = self._place >= 0
        found[self._place[kept]] = values[kept]
        return found

    def by_pair(self, offsets: np.ndarray, successors: np.ndarray, values: np.ndarray) -> csr_array:
        """Values of pairs of items, the first by offsets (n + 1,), as a matrix of the items here, float64, (N, N)."""
        row = self._place[np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))]
        column = self._place[successors]
        kept = (row >= 0) & (column >= 0)
        pairs = (values[kept].astype(np.float64), (row[kept], column[kept]))
        return csr_array(coo_array(pairs, shape=(self._n_items, self._n_items)))

    def place_of(self, items: np.ndarray) -> np.ndarray:
        """Index here of the earlier model's items, -1 where one is left out."""
        return self._place[items]
