"""How the recommended lists of a test spread over the catalogue."""

from __future__ import annotations

import numpy as np


def list_statistics(times_recommended: np.ndarray, item_counts: np.ndarray) -> dict[str, float]:
    """Coverage, concentration and popularity of recommended lists.

    Args:
        times_recommended: How many of the lists each item is on, int64, shape (N,).
        item_counts: Training events of each item, int64, shape (N,).

    Returns:
        ``coverage``, the share of the catalogue that is on any list; ``gini``, the Gini coefficient of how often items
        are on a list (0: all alike; near 1: a few items only); ``mean_popularity``, the training events of a
        recommended item, on average over all places of all lists; ``mean_popularity_of_catalogue``, the same if every
        item were recommended alike.

    Example:
        >>> list_statistics(np.array([3, 1, 0, 0]), np.array([10, 2, 1, 1]))["gini"]
        0.625
    """
    n_items, total = len(times_recommended), times_recommended.sum()
    ordered = np.sort(times_recommended)
    places = np.arange(1, n_items + 1)
    gini = float((2 * places - n_items - 1) @ ordered / (n_items * total)) if total else float("nan")
    popularity = float(times_recommended @ item_counts / total) if total else float("nan")
    return {
        "coverage": float((times_recommended > 0).mean()),
        "gini": gini,
        "mean_popularity": popularity,
        "mean_popularity_of_catalogue": float(item_counts.mean()),
    }
