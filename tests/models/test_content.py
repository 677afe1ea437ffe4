"""ContentKNN and ContentMix against plain Python, fitted by the command, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import MODELS, learn, make_model, one_error, random_log, random_rows, scores_after
from tested import LOGS, fit_run, report_of, test_run, write_rows

from sessrec import fit
from sessrec.callbacks.checkpoints import load_model
from sessrec.data.vocabulary import Vocabulary
from sessrec.features.item_table import Categories, ItemTable, Numbers, Vectors
from sessrec.models import ContentKNN, ContentMix
from sessrec.models.content_mix import CountingName

LOG = random_log(1)
FEATURES: dict[str, Any] = {"tags": 1, "price": "soft", "text": "vector"}


def table_of(n_items: int) -> ItemTable:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, n_items)
    codes = np.concatenate([rng.permutation(5)[:length] for length in lengths])
    tags = Categories([*"abcde"], codes.astype(np.int64), np.concatenate([[0], np.cumsum(lengths)]))
    prices = np.where(rng.random(n_items) < 0.2, np.nan, rng.integers(0, 4, n_items).astype(float))
    there = rng.random(n_items) < 0.8
    vectors = Vectors(np.where(there[:, None], rng.normal(size=(n_items, 5)), 0).astype(np.float32), there)
    columns = {"tags": tags, "price": Numbers(prices, True), "text": vectors}
    return ItemTable((str(item + 1) for item in range(n_items)), columns, "items")


def likeness(model: Any, table: ItemTable) -> np.ndarray:
    """Mean over the columns of the cosine of what two items hold, (N, N)."""
    columns: dict[str, Any] = table.columns
    tags, n_items = columns["tags"], len(table)
    held = [set(tags.codes[start:end]) for start, end in zip(tags.offsets, tags.offsets[1:], strict=False)]
    knots = model.encoder.encoders["price"].knots
    text = model.encoder.encoders["text"].encode(columns["text"])
    found = np.zeros((n_items, n_items))
    for one in range(n_items):
        for other in range(n_items):
            both = len(held[one] & held[other])
            found[one, other] += both / np.sqrt(len(held[one]) * len(held[other])) if both else 0
            pair = [columns["price"].values[item] for item in (one, other)]
            if not np.isnan(pair).any():
                hats = [np.array([np.interp(value, knots, unit) for unit in np.eye(len(knots))]) for value in pair]
                found[one, other] += hats[0] @ hats[1] / np.linalg.norm(hats[0]) / np.linalg.norm(hats[1])
            lengths = np.linalg.norm(text[one]) * np.linalg.norm(text[other])
            found[one, other] += text[one] @ text[other] / lengths if lengths else 0
    return found / 3


@pytest.mark.parametrize(("n_last", "decay"), [(1, 0.5), (3, 0.5), (20, 1.0), (2, 0.0)])
def test_scores_are_the_likeness_to_the_last_items(n_last: int, decay: float) -> None:
    table = table_of(LOG.n_items)
    model = ContentKNN(features=FEATURES, n_last=n_last, decay=decay)
    model.encode_items(table, Vocabulary(table.item_ids, np.array(LOG.popularity)))
    learn(model, LOG)
    alike, popularity = likeness(model, table), np.array(LOG.popularity) / sum(LOG.popularity)
    for prefix in ([3], [0, 1], [5, 5, 2, 7, 1, 0, 4]):
        weights = [decay**place for place in range(n_last)]
        expected = sum(weight * alike[item] for weight, item in zip(weights, prefix[::-1], strict=False))
        np.testing.assert_allclose(scores_after(model, prefix), expected + 4e-7 * popularity, atol=6e-7)


def test_equal_likeness_is_ordered_by_popularity() -> None:
    counts = np.array([3, 900_000, 50, 51, 1])
    kinds = Categories(["a", "b"], np.array([0, 0, 0, 0, 1]), np.arange(6))
    table = ItemTable(map(str, range(5)), {"kind": kinds}, "x")
    model = ContentKNN(features={"kind": 1})
    vocabulary = Vocabulary(table.item_ids, counts)
    model.encode_items(table, vocabulary)
    model.set_vocabulary(vocabulary)
    found = model.recommend(["2"], k=5)
    assert [item_id for item_id, _ in found] == ["1", "3", "2", "0", "4"]
    assert len({score for _, score in found}) == 5


@pytest.mark.parametrize("model", get_args(CountingName))
def test_a_mix_is_that_of_the_ranks(model: Any) -> None:
    table = table_of(LOG.n_items)
    options = {name: value for name, value in MODELS[model].items() if name != "model"}
    mix = ContentMix(model=model, model_options=options, features=FEATURES, weight=0.3, constant=4.0)
    mix.encode_items(table, Vocabulary(table.item_ids, np.array(LOG.popularity)))
    learn(mix, LOG)
    own = learn(make_model(model), LOG)
    for prefix in ([3], [0, 1], [5, 5, 2, 7, 1, 0, 4]):
        lists = [scores_after(one, prefix) for one in (own, mix.content)]
        ranks = [[1 + sum(other > score for other in scores) for score in scores] for scores in lists]
        expected = [0.7 / (4 + first) + 0.3 / (4 + second) for first, second in zip(*ranks, strict=True)]
        np.testing.assert_allclose(scores_after(mix, prefix), expected, rtol=1e-9)


@pytest.mark.parametrize("model", ["ContentKNN", "ContentMix"])
def test_fits_by_the_command(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(random_rows(60))
    Path("items.csv").write_text("\n".join(["ItemId,kind", *(f"x{item},{item % 6}" for item in range(14))]) + "\n")
    words = ["--data.items", "items.csv", "--model.features", "{kind: 1}", "--model.cold_items", "true"]
    fit_run(model, *words)
    test_run(model)
    report = report_of(model)
    assert report["protocol"]["items_ranked"] == 14
    assert report["protocol"]["cold_items_ranked"] == 2
    assert report["metrics"]["test/mrr@20"] > 0.1
    loaded = load_model(LOGS / model / "checkpoints" / "last.ckpt")
    best = [item_id for item_id, _ in loaded.recommend(["x3", "x0"], k=3 if model == "ContentKNN" else 14)]
    assert "x12" in best  # alike, and never clicked
    assert loaded.state_dict().keys() == {
        name for name in torch.load(LOGS / model / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    }
    capsys.readouterr()
    wrong = ["--model", model, "--data.path", "log.tsv", "--trainer.logger.version", "x"]
    assert f"{model} compares features: give --model.features and --data.items" in one_error(capsys, fit.main, wrong)
