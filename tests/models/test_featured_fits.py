"""Fits with item features by the commands: cold items, resuming, a warm start, added items, serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TRAINER, one_error

from sessrec import fit, items, models, prepare
from sessrec import test as run_test
from sessrec.callbacks.checkpoints import load_model
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.serving.engine import TorchEngine
from sessrec.serving.requests import Request

RUNS = Path("lightning_logs")
LOG = ["--data.path", "log.tsv", "--data.test_ratio", "0.2", "--data.val_ratio", "0", "--data.batch_size", "4"]
SMALL = {
    "GRU4Rec": ["--model.layers", "[6]", "--model.n_sample", "4"],
    "SASRec": ["--model.hidden_size", "6", "--model.n_sample", "4"],
}
FEATURES = ["--data.items", "items.csv", "--model.features", "{kind: 3, price: soft}"]


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 sessions over items a to f; g is clicked in the test part only, h never."""
    monkeypatch.chdir(tmp_path)
    sessions = [*["abc", "bcd", "cde", "def", "efa", "fab", "ace", "bdf"] * 2, "abg", "gab", "cgd", "bcf"]
    rows = [
        f"{number}\t{item}\t{1_700_000_000 + 1000 * number + place}"
        for number, session in enumerate(sessions)
        for place, item in enumerate(session)
    ]
    Path("log.tsv").write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    table = ["ItemId,kind,price", "a,x,1", "b,x,2", "c,y,3", "d,y,4", "e,z,5", "f,,6", "g,x,1.5", "h,new,"]
    Path("items.csv").write_text("\n".join(table) + "\n")


def fit_run(name: str, *words: str, model: str = "GRU4Rec") -> dict[str, Any]:
    own = ["--model", model, *SMALL[model], *LOG, *TRAINER, "--trainer.logger.version", name]
    fit.main([*own, *words])
    return read_checkpoint(RUNS / name / "checkpoints" / "last.ckpt")


def report_of(name: str, *words: str) -> dict[str, Any]:
    run_test.main(["--config", str(RUNS / name / "config.yaml"), "--ckpt_path", "last", *words])
    return json.loads((RUNS / name / "metrics.json").read_text())


@pytest.mark.parametrize("model", ["GRU4Rec", "SASRec"])
def test_cold_items_are_ranked_and_counted(model: str) -> None:
    fit_run("warm", *FEATURES, model=model)
    content = fit_run("cold", *FEATURES, "--model.cold_items", "true", model=model)
    assert content["vocabulary"]["item_ids"] == [*"abcdef", "g", "h"]
    assert content["vocabulary"]["counts"].tolist()[6:] == [0, 0]
    own = content["state_dict"]["output_embedding" if model == "GRU4Rec" else "item_embedding"]
    assert torch.equal(own[6:], torch.zeros(2, own.shape[1]))  # no step touches them
    warm, cold = report_of("warm"), report_of("cold")
    assert [report["protocol"]["items_ranked"] for report in (warm, cold)] == [6, 8]
    assert [report["protocol"]["cold_items_ranked"] for report in (warm, cold)] == [0, 2]
    assert [report["data"]["unknown_events"] for report in (warm, cold)] == [3, 0]
    assert cold["slices"]["target's clicks"]["0"]["positions"] == 2
    assert "0" not in warm["slices"]["target's clicks"]
    loaded = load_model(RUNS / "cold" / "checkpoints" / "last.ckpt")
    assert {item_id for item_id, _ in loaded.recommend(["a", "g"], k=8)} == set("abcdefgh")
    assert loaded.recommend(["h"], k=2)  # a session of a cold item has a list, too


def test_a_resumed_fit_ends_as_a_straight_one() -> None:
    words = [*FEATURES, "--model.id_dropout", "0.4", "--model.momentum", "0.2"]
    straight = fit_run("straight", *words, "--trainer.max_epochs", "3")
    fit_run("parts", *words, "--trainer.max_steps", "5")
    config = ["--config", str(RUNS / "parts" / "config.yaml"), "--ckpt_path", "last"]
    fit.main([*config, "--trainer.max_steps", "-1", "--trainer.max_epochs", "3"])
    parts = read_checkpoint(RUNS / "parts" / "checkpoints" / "last.ckpt")
    assert parts["global_step"] == straight["global_step"] > 5
    for name, weight in straight["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], weight), name
    table = Path("items.csv").read_text()
    Path("items.csv").write_text(table.replace("a,x,1", "a,y,1"))
    with pytest.raises(SystemExit):
        fit.main([*config, "--trainer.max_steps", "-1", "--trainer.max_epochs", "4"])


def test_the_checkpoint_has_the_parts_and_their_sum() -> None:
    content = fit_run("run", *FEATURES, "--model.cold_items", "true")
    model = load_model(RUNS / "run" / "checkpoints" / "last.ckpt")
    assert isinstance(model, models.GRU4Rec)
    with torch.no_grad():
        parts = model.output_embedding + model.item_features()
    torch.testing.assert_close(content["state_dict"]["folded"], parts, rtol=1e-6, atol=1e-6)
    assert torch.equal(model.item_table, content["state_dict"]["folded"])
    assert content["state_dict"]["item_features.map"].abs().sum() > 0


def test_items_are_added_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    fit_run("run", *FEATURES)
    source = RUNS / "run" / "checkpoints" / "last.ckpt"
    before = load_model(source)
    Path("new.csv").write_text("ItemId,price,kind,other\na,9,z,1\nnew1,1,x,1\nnew2,3,y|z,2\nnew3,,unheard,3\n")
    capsys.readouterr()
    items.main(["--ckpt_path", str(source), "--data.items", "new.csv", "--output", "grown.ckpt"])
    printed = capsys.readouterr().out
    assert "items added                  3" in printed
    assert "of them without any feature  1" in printed
    assert "items that were known        1" in printed
    assert "note: kind: 1 value unknown to the fit" in printed
    after: Any = load_model(Path("grown.ckpt"))
    assert after.vocabulary.item_ids == [*before.vocabulary.item_ids, "new1", "new2", "new3"]
    assert torch.equal(after.item_table[:6], before.item_table)
    places = [after.encoder.encoders["kind"].names.index(name) for name in "xyz"]
    own, price = after.item_features.map.split([3, len(after.item_features.map) - 3])
    rows = after.item_features.tables[0][places] @ own
    torch.testing.assert_close(after.item_table[6], rows[0] + price[0])
    place = after.encoder.encoders["price"].encode(after_price(3.0)) @ price.detach().numpy()
    torch.testing.assert_close(after.item_table[7], (rows[1] + rows[2]) / 2 + torch.from_numpy(place[0]))
    assert torch.equal(after.item_table[8], torch.zeros(6))
    engine = TorchEngine.of_checkpoint(Path("grown.ckpt"))
    answer = engine.answer([Request(item_ids=["a", "new1"], k=9)])[0]
    assert set(answer.item_ids) == {*"abcdef", "new1", "new2", "new3"}
    message = one_error(capsys, items.main, ["--ckpt_path", "grown.ckpt", "--data.items", "new.csv", "--output", "x"])
    assert "the model knows all 4 items of new.csv already" in message
    message = one_error(
        capsys, items.main, ["--ckpt_path", str(source), "--data.items", "new.csv", "--output", "grown.ckpt"]
    )
    assert "--output grown.ckpt exists" in message
    for text in ("new,x,", "new,x,n/a", "new,,"):  # a column without a value is missing
        Path("new.csv").write_text(f"ItemId,kind,price\n{text}\n")
        Path("y").unlink(missing_ok=True)
        items.main(["--ckpt_path", str(source), "--data.items", "new.csv", "--output", "y"])
    capsys.readouterr()
    for text, column in {"new,x,cheap": "price holds 1 category, and the fit had numbers there"}.items():
        Path("new.csv").write_text(f"ItemId,kind,price\n{text}\n")
        words = ["--ckpt_path", str(source), "--data.items", "new.csv", "--output", "x"]
        assert f"new.csv: column {column}" in one_error(capsys, items.main, words)
    Path("short.csv").write_text("ItemId,kind\nnew,x\n")
    message = one_error(capsys, items.main, ["--ckpt_path", str(source), "--data.items", "short.csv", "--output", "x"])
    assert "short.csv has no column price, which the model was fitted with" in message
    assert not Path("x").exists()


def after_price(value: float) -> Any:
    import numpy as np

    from sessrec.features.item_table import Numbers

    return Numbers(np.array([value]), are_whole=False)


@pytest.mark.parametrize("model", ["GRU4Rec", "SASRec"])
def test_a_warm_start_keeps_what_was_learnt_of_categories(model: str) -> None:
    old = fit_run("old", *FEATURES, model=model)
    table = Path("items.csv").read_text().replace("f,,6", "f,aa,6").replace("a,x,1", "a,x|0,1")
    Path("items.csv").write_text(table)
    options = ["--init_from", str(RUNS / "old" / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "1"]
    rates = ["--model.learning_rate", "1e-12", *(["--model.table_learning_rate", "1e-12"] if model == "SASRec" else [])]
    new = fit_run("new", *FEATURES, *options, *rates, model=model)
    names = new["items"]["encoder"]["kind"]["names"]
    assert names[: len(old["items"]["encoder"]["kind"]["names"])] == old["items"]["encoder"]["kind"]["names"]
    assert set(names) == {"x", "y", "z", "aa", "0"}
    for name in ("item_features.tables.0", "item_features.map"):
        before, after = old["state_dict"][name], new["state_dict"][name]
        torch.testing.assert_close(after[: len(before)], before, rtol=0, atol=1e-6)
    assert len(new["state_dict"]["item_features.tables.0"]) == 5


@pytest.mark.parametrize(
    "features", ["{price: soft, kind: 3}", "{kind: 3}", "{kind: 4, price: soft}", "{kind: 3, price: 0}"]
)
def test_a_warm_start_with_other_features_is_refused(features: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit_run("old", *FEATURES)
    capsys.readouterr()
    own = ["--model", "GRU4Rec", *SMALL["GRU4Rec"], *LOG, *TRAINER, "--trainer.logger.version", "new"]
    words = [*own, *FEATURES[:2], "--init_from", str(RUNS / "old" / "checkpoints" / "last.ckpt")]
    message = one_error(capsys, fit.main, [*words, "--model.features", features])
    assert "--init_from was fitted with --model.features {'kind': 3, 'price': 'soft'}, not" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.features", "{kind: 3}"], "--model.features needs --data.items"),
        (["--model.cold_items", "true"], "--model.cold_items true needs --model.features"),
        (["--model.id_dropout", "1"], r"--model.id_dropout is 1.0 but must be in \[0, 1\)"),
        ([*FEATURES[:2], "--model.features", "{brand: 3}"], "names brand, which is no column of items.csv"),
        (["--data.items", "none.csv", "--model.features", "{kind: 3}"], r"no such file: none.csv \(--data.items\)"),
        ([*FEATURES, "--model.constrained_embedding", "false"], "--model.features needs --model.constrained_embedding"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", "GRU4Rec", *SMALL["GRU4Rec"], *LOG, *TRAINER, "--trainer.logger.version", "x"]
    import re

    assert re.search(message, one_error(capsys, fit.main, [*own, *words]))
    assert not (RUNS / "x").exists()


def test_the_report_of_the_data_has_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(["--data.path", "log.tsv", "--data.items", "items.csv", "--data.cache_dir", "null"])
    printed = capsys.readouterr().out
    assert "column kind                               4 categories, 1 missing" in printed
    assert "items of the log with a row               6" in printed
