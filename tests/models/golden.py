"""The reference trajectories of tests/golden: batches, losses, weights and metrics of the reference implementation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from helpers import ROOT

from sessrec.click_log.reading import read_events
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.sessions import Sessions, map_events
from sessrec.data.vocabulary import Vocabulary
from sessrec.evaluation.metrics import rank_from_counts, ranking_metrics
from sessrec.models import GRU4Rec
from sessrec.models.reference_weights import import_weights

GOLDEN = ROOT / "tests" / "golden"
CASES = sorted(file.stem for file in GOLDEN.glob("*.npz"))
WITH_METRICS = [name for name in CASES if name != "ce_inbatch_only"]
CUTOFFS = [1, 3, 5, 10]
MODES = ("standard", "conservative")


class Case:
    """One trajectory, with the options that it was trained with."""

    def __init__(self, name: str) -> None:
        self.arrays: dict[str, np.ndarray] = dict(np.load(GOLDEN / f"{name}.npz"))
        meta = json.loads(str(self.arrays["meta"]))
        self.item_ids = [str(item_id) for item_id in self.arrays["item_ids"]]
        self.options: dict[str, Any] = {
            "layers": [int(size) for size in meta["layers"].split("/")],
            "loss": meta["loss"],
            "constrained_embedding": meta["constrained_embedding"] == "True",
            "embedding": int(meta["embedding"]),
            "n_sample": int(meta["n_sample"]),
            "dropout_p_embed": 0.0,
        }
        numbers = {"learning_rate", "momentum", "sample_alpha", "logq", "bpreg", "elu_param"} & meta.keys()
        self.options |= {name: float(meta[name]) for name in numbers}

    def weights(self, when: str) -> dict[str, torch.Tensor]:
        """The reference's weights by its names, as they were at the ``init`` or the ``final`` step."""
        names = [name for name in self.arrays if name.startswith(f"{when}/")]
        return {name.partition("/")[2]: torch.from_numpy(self.arrays[name]) for name in names}

    def model(self, item_ids: list[str], when: str | None = None) -> GRU4Rec:
        """A model of ours that numbers the items in this order, with the reference's weights."""
        events, model = read_events(GOLDEN / "sessions.tsv"), GRU4Rec(**self.options)
        counts = dict(zip(events.item_ids.to_pylist(), events.item_counts.tolist(), strict=True))
        model.set_vocabulary(Vocabulary(item_ids, np.array([counts[item_id] for item_id in item_ids])))
        if when is not None:
            import_weights(model, self.weights(when), self.item_ids)
        return model


def sessions_for(model: GRU4Rec) -> Sessions:
    """The training sessions, by the numbers of a model's items."""
    return map_events(read_events(GOLDEN / "sessions.tsv"), model.vocabulary)[0]


def assert_recorded_metrics(model: GRU4Rec, case: Case) -> None:
    """Recall and MRR on the training sessions equal the reference's in both tie modes."""
    for mode in MODES:
        metrics = ranking_metrics(CUTOFFS).to(model.device)
        for batch in EvaluationLoader(sessions_for(model), batch_size=7):  # type: ignore[attr-defined]
            batch = type(batch)(*(part.to(model.device) for part in batch))
            with torch.no_grad():
                metrics.update(rank_from_counts(*model.count_positions(batch), tie_mode=mode))  # type: ignore[arg-type]
        results = {key: value.item() for key, value in metrics.compute().items()}
        for metric in ("recall", "mrr"):
            ours = [results[f"{metric}@{cutoff}"] for cutoff in CUTOFFS]
            np.testing.assert_allclose(ours, case.arrays[f"{metric}_{mode}"], atol=1e-6)
