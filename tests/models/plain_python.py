"""Rankings of models against plain Python, written from their formulas and not from their code.

Scores are close to those of plain Python. Ranks are equal, in every tie mode: plain Python compares rules exactly, as
fractions, and the scores of neighbourhood methods up to the twelfth digit. As the methods document it, sums of weights
and similarities are rounded to 32 bits before they are compared, and so they are here. The logs are chosen such that
ties are clear: no two scores are nearly but not quite equal, which `rank_counts` checks, nor equal but for the order in
which their parts are added up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Log, all_counts, all_scores, fit_log

from sessrec import models, test
from sessrec.data import SessionDataModule
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.models import SessionRecommender
from sessrec.models.neighbourhood import NeighbourhoodRecommender

Brute = Callable[[list[int]], tuple[list[float], Sequence[Any]]]
"""Gives a session so far the scores of all items, and what to rank them by."""


def in_32_bits(number: float) -> float:
    return float(np.float32(number))


def rank_counts(keys: Sequence[Any], target: int) -> tuple[int, int]:
    """Items above the target and tied with it; floats are equal that differ by rounding alone."""
    own, above, tied = keys[target], 0, 0
    for item, key in enumerate(keys):
        if item == target:
            continue
        if isinstance(key, float):
            apart = abs(key - own) / max(abs(key), abs(own), 1e-300)
            assert apart < 1e-13 or apart > 1e-11, "an unlucky log: two scores are nearly equal"
            tied, above = tied + (apart < 1e-13), above + (apart > 1e-11 and key > own)
        else:
            tied, above = tied + (key == own), above + (key > own)
    return above, tied


def rank_of(above: int, tied: int, tie_mode: str) -> float:
    return 1 + above + {"conservative": tied, "standard": 0, "median": tied / 2}[tie_mode]


def assert_as_in_plain_python(model: SessionRecommender, log: Log, brute: Brute) -> list[tuple[int, int]]:
    """Compare scores and ranks; gives the items above and tied at every position."""
    expected = [brute(prefix) for prefix in log.prefixes]
    scores, wanted = all_scores(model, log.queries), np.array([scores for scores, _ in expected], dtype=np.float64)
    assert scores.shape == wanted.shape
    np.testing.assert_array_less(np.abs(scores - wanted), 1e-6 * np.maximum(1, np.abs(wanted)) + 1e-15)
    if isinstance(model, NeighbourhoodRecommender):  # whose scores are equal where they are equal in 32 bits
        expected = [(scores, [in_32_bits(key) for key in keys]) for scores, keys in expected]
    counts = [rank_counts(keys, target) for (_, keys), target in zip(expected, log.targets, strict=True)]
    assert sum(all_counts(model, log.queries), []) == counts
    for tie_mode in ("conservative", "standard", "median"):
        ranks = rank_from_counts(*torch.tensor(counts).T, tie_mode).tolist()  # type: ignore[arg-type]
        assert ranks == [rank_of(*pair, tie_mode) for pair in counts]
    return counts


def assert_commands_agree(name: str, options: list[str], make_brute: Callable[[Log], Brute], log_file: str) -> None:
    """Fit and test a log by the commands: metrics are those of plain Python, whatever the batches, and so are lists."""
    run = fit_log(log_file, "--data.val_ratio", "0", "--model.cutoffs", "[1,4]", *options, model=name)
    data = SessionDataModule(log_file, val_ratio=0)
    data.setup("fit")
    train, later = data.sessions["train"], data.sessions["test"]
    parts = [np.split(part, train.offsets[1:-1]) for part in (train.items, train.times)]
    rows, times = ([row.tolist() for row in part] for part in parts)
    item_ids = data.vocabulary.item_ids
    log = Log(rows, times, [later[number].tolist() for number in range(len(later))], len(item_ids))
    brute = make_brute(log)
    model = getattr(models, name).load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.vocabulary.item_ids == item_ids
    ranks = [rank_of(*pair, "median") for pair in assert_as_in_plain_python(model, log, brute)]

    again = ["--model.tie_mode", "median", "--data.eval_batch_size", "7"]
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last", *again])
    kept = json.loads((run / "metrics.json").read_text())
    assert kept["protocol"]["tie_mode"] == "median"
    assert kept["data"]["positions"] == len(ranks)
    for cutoff in (1, 4):
        recall = sum(rank <= cutoff for rank in ranks) / len(ranks)
        mrr = sum(1 / rank for rank in ranks if rank <= cutoff) / len(ranks)
        assert kept["metrics"][f"test/recall@{cutoff}"] == pytest.approx(recall, abs=1e-12)
        assert kept["metrics"][f"test/mrr@{cutoff}"] == pytest.approx(mrr, abs=1e-12)

    for prefix in list(log.prefixes)[:10]:
        scores, recommended = brute(prefix)[0], model.recommend([item_ids[item] for item in prefix], k=5)
        best = sorted(scores, reverse=True)[:5]
        assert [score for _, score in recommended] == pytest.approx(best, rel=1e-6, abs=1e-6)
        for item_id, score in recommended:
            assert scores[item_ids.index(item_id)] == pytest.approx(score, rel=1e-6, abs=1e-6)
