"""What item features cost: `benchmark.py features`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import vocabulary_of, zipf_sessions
from benchmarks.training import CONFIGS, N_ITEMS
from sessrec.data.loaders import EvaluationLoader, SessionLoader, SessionParallelLoader
from sessrec.data.sessions import Sessions
from sessrec.features.item_table import Categories, ItemTable, Vectors
from sessrec.models import GRU4Rec, SASRec

FEATURES: dict[str, int | str | None] = {"category": 32, "brand": 16, "text": "vector"}
_N_EVALUATED = 4  # batches of sessions that are ranked in a round


def item_table(n_items: int) -> ItemTable:
    """A category of 30, a brand of 500, and a vector of 384 numbers for each item, drawn at random."""
    generator, ends = np.random.default_rng(0), np.arange(n_items + 1)
    columns: dict[str, Any] = {
        name: Categories([str(number) for number in range(size)], generator.integers(0, size, n_items), ends)
        for name, size in {"category": 30, "brand": 500}.items()
    }
    vectors = generator.normal(size=(n_items, 384)).astype(np.float32)
    columns["text"] = Vectors(vectors, np.ones(n_items, dtype=bool))
    return ItemTable(map(str, range(n_items)), columns, "generated")


def features(
    configs: Sequence[str], n_windows: int, repeats: int, n_items: int = N_ITEMS, n_sessions: int = 20_000
) -> list[dict[str, Any]]:
    """Times of a model with two categories and a vector over those of the same model without, in turn.

    Args:
        configs: Sizes of GRU4Rec; SASRec with its default options comes after them.
        n_windows: Windows of 64 steps in a round, or as many steps of SASRec as there are windows times 8.
        repeats: Rounds; medians of the ratios are given.
        n_items: Size of the catalogue.
        n_sessions: Sessions that the steps are taken from.
    """
    sessions, table = zipf_sessions(n_items, n_sessions), item_table(n_items)
    kinds: list[tuple[str, Any, dict[str, Any], int]] = [
        (name, GRU4Rec, CONFIGS[name][1], CONFIGS[name][0]) for name in configs
    ]
    rows = []
    for name, kind, options, batch_size in tqdm([*kinds, ("sasrec", SASRec, {}, 64)], desc="features", disable=None):
        pair = [_Measured(kind(**options, features=own), sessions, table, batch_size) for own in (None, FEATURES)]
        for measured in pair:
            measured.train(2)  # warms up
        steps, rankings = [], []
        for _ in range(repeats):
            without, with_features = (measured.train(n_windows) for measured in pair)
            steps.append((without, with_features))
            rankings.append([measured.rank() for measured in pair])
        rows.append(
            {
                "name": name,
                "us_a_step": 1e6 * statistics.median(without for without, _ in steps),
                "us_with_features": 1e6 * statistics.median(own for _, own in steps),
                "step_ratio": statistics.median(own / without for without, own in steps),
                "evaluation_ratio": statistics.median(own / without for without, own in rankings),
            }
        )
    return rows


class _Measured:
    """A model, and what it is trained on and ranks."""

    def __init__(self, model: Any, sessions: Sessions, table: ItemTable, batch_size: int) -> None:
        torch.manual_seed(0)
        vocabulary = vocabulary_of(sessions, len(table))
        if model.uses_features:
            model.encode_items(table, vocabulary)
        model.set_vocabulary(vocabulary)
        self.model, self.optimizer = model, model.configure_optimizers()
        is_windowed = model.batches == "window"
        self.per_window = 1 if is_windowed else 8
        own: Any = SessionParallelLoader(sessions, batch_size) if is_windowed else SessionLoader(sessions, batch_size)
        self.loader, self.batches = own, iter(own)
        self.evaluated = EvaluationLoader(sessions, 128)

    def train(self, n_windows: int) -> float:
        """Seconds a step, of some windows."""
        n_steps, seconds = 0, 0.0
        for _ in range(n_windows * self.per_window):
            window = next(self.batches, None)
            if window is None:
                self.batches = iter(self.loader)
                window = next(self.batches)
            generator = torch.Generator().manual_seed(window.number)
            start = time.perf_counter()
            self.model.train_window(window, self.optimizer, generator)
            seconds += time.perf_counter() - start
            n_steps += window.n_steps
        return seconds / n_steps

    def rank(self) -> float:
        """Seconds to rank the targets of some sessions."""
        self.model.item_table  # noqa: B018 - added up once after a fit, and not for each batch
        start = time.perf_counter()
        with torch.inference_mode():
            for number in range(_N_EVALUATED):
                self.model.count_positions(self.evaluated[len(self.evaluated) // 2 + number])
        return time.perf_counter() - start
