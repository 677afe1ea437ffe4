"""ContentKNN: items whose features are like those of the session's last items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sessrec.errors import check_least
from sessrec.features.encoding import CategoryEncoder
from sessrec.models.base import SessionRecommender
from sessrec.models.compatibility import check_ranges
from sessrec.models.knows_features import KnowsFeatures

_DIGITS = 6  # of a likeness that count
_OF_POPULARITY = 4e-7  # less than half of the last digit: decides where likenesses are equal, and nowhere else


class ContentKNN(KnowsFeatures, SessionRecommender):
    """Ranks items by how like their features are to those of the session's last items; it learns no transition.

    The likeness of two items is the mean over the columns of the cosine of what they hold: shares of categories,
    weights of a number's knots, components of a vector. The last items count less the further back they are. Of items
    that are equally like, the more popular come first.

    Args:
        features: Columns of --data.items that are compared: any positive number for categories, ``soft`` for numbers,
            ``vector`` or a number of components for vectors, such as {category: 1, price: soft, text: vector}.
        n_last: Last events of the session that count.
        decay: Weight of an event over that of the one after it.
        cold_items: Whether items of --data.items without a click in training are ranked, too.
        protocol: Options of `SessionRecommender`.
    """

    scores_in_blocks = False
    needs_features = True

    def __init__(
        self,
        features: dict[str, Any] | None = None,
        n_last: int = 5,
        decay: float = 0.5,
        cold_items: bool = False,
        **protocol: Any,
    ) -> None:
        super().__init__(features, cold_items, **protocol)
        self.save_hyperparameters("n_last", "decay")
        check_least("--model.n_last", n_last, 1)
        check_ranges(self.options, {"[0, 1]": "decay"})
        self.n_last, self.decay = n_last, decay

    def build(self) -> None:
        """Lay out what items hold, each column scaled so that the likeness is an inner product."""
        if self.encoder is None or self.encoded is None:  # nothing is known of any item
            self._lay_out(csr_array((self.n_items, 1)), np.zeros((self.n_items, 0)))
            return
        items, n_rows = self.encoded, self.encoder.n_rows
        categories, numbers = csr_array((len(items.codes), n_rows)), [np.zeros((len(items.codes), 0))]
        first_code = first_number = 0
        for encoder in self.encoder.encoders.values():
            if isinstance(encoder, CategoryEncoder):
                is_own = (items.codes >= first_code) & (items.codes < first_code + len(encoder.names))
                row, place = is_own.nonzero()
                own = (items.weights[row, place], (row, items.codes[row, place]))
                categories = categories + _of_length_1(csr_array(own, shape=categories.shape))
                first_code += len(encoder.names)
            else:
                block = items.numbers[:, first_number : first_number + encoder.n_numbers].astype(np.float64)
                numbers.append(_of_length_1(csr_array(block)).toarray())
                first_number += encoder.n_numbers
        scale = len(self.encoder.encoders) ** -0.5  # of both items: the mean over the columns
        self._lay_out(csr_array(categories * scale), np.concatenate(numbers, axis=1) * scale)

    def _lay_out(self, categories: csr_array, numbers: np.ndarray) -> None:
        self._categories, self._numbers = categories, numbers
        self._categories_of_items = csr_array(categories.T)  # made once: (categories, N)

    def encode(self, items: Tensor) -> Tensor:
        """The last items at each position, the newest first, -1 where there are fewer, int64, shape (S, L, n_last)."""
        padded = torch.nn.functional.pad(items, (self.n_last - 1, 0), value=-1)
        return padded.unfold(1, self.n_last, 1).flip(2)

    @property
    def looks_back(self) -> int:
        """Newest events that a query depends on."""
        return self.n_last

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Likeness of each item to the last ones, weighted, float64, shape (P, n)."""
        last = queries.cpu().numpy()
        row, place = (last >= 0).nonzero()
        weights = csr_array(
            (self.decay ** place.astype(np.float64), (row, last[row, place])), (len(last), self.n_items)
        )
        scores = (weights @ self._categories @ self._categories_of_items).toarray()[:, items]
        scores += (weights @ self._numbers) @ self._numbers[items].T
        scores = scores.round(_DIGITS) + _OF_POPULARITY * self.vocabulary.popularity[items]
        return torch.from_numpy(scores).to(queries.device)


def _of_length_1(rows: csr_array) -> csr_array:
    """Rows over their lengths; rows of zeros stay."""
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths, dtype=np.float64), where=lengths > 0)
    return csr_array(rows.multiply(scale[:, None]))
