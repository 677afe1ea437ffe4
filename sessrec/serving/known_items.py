"""What engines share, whatever computes their lists: the items of a model, and which of them may be recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import Self

from sessrec.data.vocabulary import Vocabulary
from sessrec.serving.requests import Answer, Origin, Request


@dataclass(frozen=True)
class KnownItems:
    """Items of a model; torch is not imported.

    Args:
        vocabulary: The items.
        origin: Which model it is.
        most_k: See `Engine`.
        available: Which items may be recommended at present, bool, shape (N,); all where None.
    """

    vocabulary: Vocabulary
    origin: Origin
    most_k: int | None = None
    available: np.ndarray | None = None

    @property
    def item_ids(self) -> list[str]:
        """See `Engine`."""
        return self.vocabulary.item_ids

    @property
    def n_available(self) -> int:
        """See `Engine`."""
        return len(self.vocabulary) if self.available is None else int(self.available.sum())

    def with_availability(self, available: Sequence[str] | None, unavailable: Sequence[str]) -> Self:
        """See `Engine`."""
        return replace(self, available=self.vocabulary.mask(available, unavailable))

    def popular(self, request: Request, reason: str) -> Answer:
        """See `Engine`."""
        known = self.known(request)
        gone = set(self.gone(request, known).tolist())
        items = self.vocabulary.popular(request.k, self.allowed(request), gone)
        scores = [float(self.vocabulary.counts[item]) for item in items]
        return Answer([self.item_ids[item] for item in items], scores, len(known), reason, self.origin)

    def known(self, request: Request) -> np.ndarray:
        """Indices of the items of a session that the model knows, int64."""
        index = self.vocabulary.index_of(request.item_ids)
        return index[index >= 0]

    def gone(self, request: Request, known: np.ndarray) -> np.ndarray:
        """Which of the known items of a session may not be in its list, as indices, int64."""
        last, seen = self.origin.flags(request)
        return known if seen else known[-1:] if last else known[:0]

    def allowed(self, request: Request) -> np.ndarray | None:
        """Which items a request and availability allow, bool, shape (N,); all where None."""
        own = self.vocabulary.mask(request.allow, request.exclude)
        if own is None or self.available is None:
            return self.available if own is None else own
        return own & self.available
