"""Real click logs, where they lie beside the checkout: counts of the splits and the baselines' known results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ROOT

from sessrec.data import SessionDataModule
from sessrec.metrics import rank_from_counts, ranking_metrics
from sessrec.models import Markov, Popularity

LOGS = ROOT.parent / "shared" / "data"
SPLITS: dict[str, dict[str, Any]] = {
    "serenade_example": {"test_ratio": 0.1},
    "yoochoose1_64": {"time_column": "Order", "test_start": 486026},
    "retailrocket": {"time_column": "Order", "test_start": 685984},
}
COUNTS = {  # train events, sessions and items; test sessions and positions
    "serenade_example": (104875, 21944, 17599, 2269, 7875),
    "yoochoose1_64": (486026, 116167, 17376, 15233, 55400),
    "retailrocket": (None, 126168, 36968, 4735, 19867),
}
RESULTS = {  # Recall@20 and MRR@20 in %, ties broken by popularity
    ("yoochoose1_64", Popularity): (7.37, 1.70),
    ("yoochoose1_64", Markov): (65.80, 30.03),
    ("retailrocket", Popularity): (2.38, 0.49),
    ("retailrocket", Markov): (38.49, 20.00),
}


def prepared(name: str) -> SessionDataModule:
    file = LOGS / f"{name}.tsv.gz"
    if not file.exists():
        pytest.skip(f"the click log {name} is not here: its terms do not let it be shipped")
    data = SessionDataModule(str(file), val_ratio=0, batch_size=512, **SPLITS[name])
    data.setup("fit")
    return data


@pytest.mark.parametrize("name", SPLITS)
def test_counts(name: str) -> None:
    data = prepared(name)
    train, test = data.sessions["train"], data.sessions["test"]
    assert data.vocabulary is not None
    counts = (len(train.items), len(train), len(data.vocabulary), len(test), test.n_positions)
    expected = COUNTS[name]
    assert counts[1:] == expected[1:]
    assert expected[0] in (None, counts[0])
    assert data.report.sections["test cut"]["train_events_at_or_after_t"] == 0


@pytest.mark.parametrize(("name", "model_class"), RESULTS)
def test_baselines(name: str, model_class: type[Popularity] | type[Markov]) -> None:
    data = prepared(name)
    assert data.vocabulary is not None
    model = model_class()
    model.set_vocabulary(data.vocabulary)
    for window in data.train_dataloader():
        model.count(window)
    model.finish_counting()
    metrics = ranking_metrics([20])
    with torch.no_grad():
        for batch in data.test_dataloader():
            metrics.update(rank_from_counts(*model.count_positions(batch), "conservative"))
    results = {key: 100 * value.item() for key, value in metrics.compute().items()}
    recall, mrr = RESULTS[name, model_class]
    assert results["recall@20"] == pytest.approx(recall, abs=0.05)
    assert results["mrr@20"] == pytest.approx(mrr, abs=0.05)
