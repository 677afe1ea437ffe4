"""Speed and size of the baselines: `benchmark.py baselines`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import vocabulary_of, zipf_sessions
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.models import AR, SKNN, SR, STAN, VMISKNN, VSKNN, VSTAN, ItemKNN
from sessrec.models.base import SessionRecommender

N_BATCHES = 24  # of the test part, that are ranked in a round
N_RECOMMENDATIONS = 500
MODELS = {
    "vsknn_100_1000": VSKNN,
    "stan_500_2500": STAN,
    "vstan_500_2500": VSTAN,
    "sknn_500_1000": SKNN,
    "vmis-knn_100_500": VMISKNN,
    "item-knn": ItemKNN,
    "ar": AR,
    "sr": SR,
}


def baselines(
    repeats: int, log: Path | None, time_column: str | None, test_start: float | None, n_events: int = 400_000
) -> list[dict[str, Any]]:
    """Speed of a full ranking and of single recommendations, and size of what each model has learnt.

    Args:
        repeats: Rounds; medians are given.
        log: Click log; sessions as popular as those of RSC15 are generated where None, items drawn one by one.
        time_column: Its column of times.
        test_start: Where its test part begins; the last tenth of the sessions where None.
        n_events: Events to generate.
    """
    train, test, vocabulary = _sessions(log, time_column, test_start, n_events)
    rows = []
    for name, kind in tqdm(MODELS.items(), desc="baselines", disable=None):
        model = kind().eval()
        start = time.perf_counter()
        model.learn(train, vocabulary)
        learnt = time.perf_counter() - start
        size = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
        speeds = [_positions_a_second(model, test) for _ in range(repeats)]
        milliseconds = _recommendations(model, test)
        rows.append(
            {
                "name": name,
                "positions_per_second": statistics.median(speeds),
                "fit_seconds": learnt,
                "recommend_ms_p50": float(np.percentile(milliseconds, 50)),
                "recommend_ms_p90": float(np.percentile(milliseconds, 90)),
                "times_size_of_clicks": size / (train.items.nbytes + train.offsets.nbytes),
            }
        )
    return rows


def _sessions(
    log: Path | None, time_column: str | None, test_start: float | None, n_events: int
) -> tuple[Sessions, Sessions, Vocabulary]:
    if log is None:
        train, test = zipf_sessions(18_000, n_events), zipf_sessions(18_000, n_events // 10)
        return train, test, vocabulary_of(train, 18_000)
    split = {"test_ratio": 0.1, "test_start": test_start, "val_ratio": 0}
    data = SessionDataModule(str(log), time_column=time_column, cache_dir=None, **split)  # type: ignore[arg-type]
    data.setup("fit")
    data.setup("test")
    assert data.vocabulary is not None
    return data.sessions["train"], data.sessions["test"], data.vocabulary


@torch.no_grad()
def _positions_a_second(model: SessionRecommender, test: Sessions) -> float:
    loader = EvaluationLoader(test, 128)  # short sessions first, so that batches all along stand for all
    numbers = np.unique(np.linspace(0, len(loader) - 1, N_BATCHES).astype(int))
    start, n_positions = time.perf_counter(), 0
    for number in numbers:
        n_positions += len(model.count_positions(loader[number])[0])
    return n_positions / (time.perf_counter() - start)


def _recommendations(model: SessionRecommender, test: Sessions) -> list[float]:
    """Milliseconds of one recommendation of 20 items each."""
    item_ids, milliseconds = model.vocabulary.item_ids, []
    for session in np.linspace(0, len(test) - 1, N_RECOMMENDATIONS).astype(int):
        clicks = [item_ids[item] for item in test[session]]
        start = time.perf_counter()
        model.recommend(clicks, k=20)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    return milliseconds[N_RECOMMENDATIONS // 10 :]  # the first ones warm up
