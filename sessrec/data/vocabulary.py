"""Item id <-> item index, and how often each item occurs in training."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:  # a server of exported models has neither pandas nor torch to wait for
    from sessrec.click_log.events import Events

_POPULAR_AT_ONCE = 4096
_EVENTS = 1 << 20  # worked on at a time


class Vocabulary:
    """The items that a model knows, in the order of their indices.

    Args:
        item_ids: Item id of each item index, text exactly as in the click log.
        counts: Training events of each item, int64, shape (N,).
        first_times: Time of each item's first training event, Unix seconds, float64, shape (N,); None where the log has
            no times.

    Example:
        >>> vocabulary = Vocabulary(["0012", "12"], np.array([3, 1]))
        >>> vocabulary.index_of(["12", "12.0", "0012"]).tolist()
        [1, -1, 0]
    """

    def __init__(self, item_ids: Iterable[str], counts: np.ndarray, first_times: np.ndarray | None = None) -> None:
        self.item_ids = list(item_ids)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.first_times = None if first_times is None else np.asarray(first_times, dtype=np.float64)
        self._index = {item_id: index for index, item_id in enumerate(self.item_ids)}
        if len(self._index) != len(self.item_ids) or len(self.counts) != len(self.item_ids):
            raise ValueError("a vocabulary needs distinct item ids and one count for each")

    @classmethod
    def of_events(cls, events: Events) -> Vocabulary:
        """Build the vocabulary of some events, items in order of first appearance."""
        import pandas as pd

        counts, codes, first_times = events.item_counts, pd.unique(events.item), None
        if events.has_times:  # sessions overlap, so that the first event in session order may not be the earliest
            earliest = np.full(len(counts), np.inf)
            for start in range(0, len(events), _EVENTS):
                block = slice(start, start + _EVENTS)
                np.minimum.at(earliest, events.item[block], events.time[block])
            first_times = earliest[codes]
        return cls(events.item_ids.take(pa.array(codes)).to_pylist(), counts[codes], first_times)

    @classmethod
    def of_indices(cls, items: np.ndarray) -> Vocabulary:
        """Items without ids, from the item index of every training event: each is named by its own number."""
        counts = np.bincount(items)
        return cls(map(str, range(len(counts))), counts)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @property
    def popularity(self) -> np.ndarray:
        """Share of the training events that each item has, float64, shape (N,)."""
        return self.counts / self.counts.sum()

    @cached_property
    def by_count(self) -> np.ndarray:
        """Item indices, the most frequent first, equal counts by index, int64, shape (N,)."""
        return np.argsort(-self.counts, kind="stable")

    def index_of(self, item_ids: Iterable[str]) -> np.ndarray:
        """Item index of each item id, -1 where unknown, int64."""
        return np.array([self._index.get(item_id, -1) for item_id in item_ids], dtype=np.int64)

    def mask(self, allow: Iterable[str] | None = None, exclude: Iterable[str] = ()) -> np.ndarray | None:
        """Which items may be candidates, bool, shape (N,); None for all. Ids that are not known are ignored.

        Args:
            allow: Item ids that may be; all where None.
            exclude: Item ids that may not be, also among those allowed.

        Example:
            >>> Vocabulary(["a", "b", "c"], np.array([3, 2, 1])).mask(allow=["a", "c", "x"], exclude=["a"]).tolist()
            [False, False, True]
        """
        if allow is None and not exclude:
            return None
        allowed = np.full(len(self), allow is None)
        for item_ids, value in ((allow or (), True), (exclude, False)):
            index = self.index_of(item_ids)
            allowed[index[index >= 0]] = value
        return allowed

    def popular(self, k: int, allowed: np.ndarray | None = None, gone: Collection[int] = ()) -> list[int]:
        """The k items most frequent in training, for a session of which nothing is known; equal counts by item index.

        Args:
            k: Length of the list.
            allowed: Which items may be in it, bool, shape (N,); all where None.
            gone: Item indices that may not.
        """
        found: list[int] = []
        for start in range(0, len(self), _POPULAR_AT_ONCE):
            items = self.by_count[start : start + _POPULAR_AT_ONCE]
            if allowed is not None:
                items = items[allowed[items]]
            found += [item for item in items.tolist() if item not in gone]
            if len(found) >= k:
                break
        return found[:k]

    def state_dict(self) -> dict[str, Any]:
        """Plain text and tensors, as a checkpoint may hold them."""
        import torch

        first_times = None if self.first_times is None else torch.from_numpy(self.first_times)
        return {"item_ids": self.item_ids, "counts": torch.from_numpy(self.counts), "first_times": first_times}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Vocabulary:
        """The vocabulary that `state_dict` described."""
        first_times = state.get("first_times")  # older checkpoints have none
        first_times = None if first_times is None else first_times.cpu().numpy()
        return cls(state["item_ids"], state["counts"].cpu().numpy(), first_times)


def with_cold_items(vocabulary: Vocabulary, item_ids: Iterable[str]) -> Vocabulary:
    """A vocabulary, and after it the items that it lacks, without a click.

    Example:
        >>> grown = with_cold_items(Vocabulary(["a"], np.array([3])), ["b", "a"])
        >>> grown.item_ids, grown.counts.tolist()
        (['a', 'b'], [3, 0])
    """
    item_ids = list(item_ids)
    cold = [item_id for item_id, index in zip(item_ids, vocabulary.index_of(item_ids), strict=True) if index < 0]
    counts = np.concatenate([vocabulary.counts, np.zeros(len(cold), dtype=np.int64)])
    first_times = vocabulary.first_times
    if first_times is not None:
        first_times = np.concatenate([first_times, np.full(len(cold), np.nan)])
    return Vocabulary([*vocabulary.item_ids, *cold], counts, first_times)
