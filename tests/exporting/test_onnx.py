"""Models in onnxruntime: each list is that of the model, and an export that is not the same leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import fit_log, make_vocabulary, one_error, random_rows

from sessrec import export, models
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.exporting import onnx_files
from sessrec.exporting.onnx_files import write_onnx
from sessrec.exporting.onnx_model import OnnxModel

N_ITEMS = 70
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("GRU4Rec", {"layers": [9]}),
    ("GRU4Rec", {"layers": [8, 6, 7], "loss": "bpr-max"}),
    ("GRU4Rec", {"layers": [6], "constrained_embedding": False}),
    ("GRU4Rec", {"layers": [6, 5], "constrained_embedding": False}),
    ("GRU4Rec", {"layers": [6, 5, 4], "constrained_embedding": False, "embedding": 3}),
    ("SASRec", {"hidden_size": 12, "max_length": 5}),
    ("SASRec", {"hidden_size": 12, "max_length": 7, "n_heads": 2, "block": "ligr", "inner_factor": 3}),
    ("SASRec", {"hidden_size": 8, "temperature": 0.0, "n_blocks": 1}),
]


def model_of(name: str, options: dict[str, Any], spread: float = 0.3) -> Any:
    torch.manual_seed(0)
    model = getattr(models, name)(**options)
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model.eval()


def read(folder: Path) -> OnnxModel:
    about = json.loads((folder / "model.json").read_text())
    return OnnxModel((folder / "model.onnx").read_bytes(), about)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_lists_are_those_of_the_model(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """All items, alone and 64 at a time, with and without a mask; sessions are longer than the model looks back."""
    model, rng = model_of(name, options), np.random.default_rng(1)
    write_onnx(model, {"digest": "d"}, tmp_path / "out", k=1000)
    runtime, ids = read(tmp_path / "out"), model.vocabulary.item_ids
    assert (tmp_path / "out" / "items.txt").read_text().splitlines() == ids
    sessions = [rng.integers(N_ITEMS, size=rng.integers(1, 13)).tolist() for _ in range(64)]
    mask = rng.random(N_ITEMS) < 0.5
    allowed = [item for item, is_allowed in zip(ids, mask, strict=True) if is_allowed]
    for given, allow, n in ((None, None, N_ITEMS), (mask, allowed, len(allowed))):
        together = runtime.lists(sessions, given)
        for session, in_batch in zip(sessions, together, strict=True):
            expected = model.recommend([ids[item] for item in session], N_ITEMS, allow)
            for items, scores in (in_batch, runtime.lists([session], given)[0]):
                assert [ids[item] for item in items[:n]] == [item for item, _ in expected]
                found = [score for _, score in expected]
                assert scores[:n] == pytest.approx(found, rel=1e-5, abs=1e-5 * max(map(abs, found)))
                assert (scores[n:] <= -1e30).all()


def test_equal_scores_are_by_item_index(tmp_path: Path) -> None:
    model = model_of("GRU4Rec", {"layers": [4]})
    with torch.no_grad():
        model.output_embedding[1:] = model.output_embedding[1]
        model.output_bias[1:] = model.output_bias[1]
    write_onnx(model, {}, tmp_path / "out", k=20)
    ((items, _),) = read(tmp_path / "out").lists([[3, 4]])
    expected = [model.vocabulary.item_ids.index(item) for item, _ in model.recommend(["i3", "i4"], 20)]
    assert items.tolist() == expected
    assert items.tolist() in ([*range(20)], [*range(1, 21)])


def test_graphs_have_plain_operators_alone(tmp_path: Path) -> None:
    """No GRU of ONNX, whose reset gate torch's exporters set wrongly."""
    for name, options in MODELS:
        write_onnx(model_of(name, options), {}, tmp_path / f"{name}-{len(str(options))}", k=5)
    for file in tmp_path.glob("*/model.onnx"):
        graph = onnx.load(file).graph
        assert not {node.op_type for node in graph.node} & {"GRU", "LSTM", "RNN", "Scan", "Loop", "Attention"}
        assert {node.domain for node in graph.node} == {""}


def test_an_export_that_is_not_the_same_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("GRU4Rec", {"layers": [4]})
    graph_of = onnx_files.gru4rec_graph

    def wrong(model: Any, k: int) -> Any:
        other = model_of("GRU4Rec", {"layers": [4]})
        with torch.no_grad():
            other.cells[0].weight_hh.mul_(1.01)
        return graph_of(other, k)

    monkeypatch.setattr(onnx_files, "gru4rec_graph", wrong)
    with pytest.raises(SessRecError, match="onnxruntime gives another list for the session .* nothing is written"):
        write_onnx(model, {}, tmp_path / "out", k=5)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(onnx_files, "triton_config", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_onnx(model, {}, tmp_path / "out", k=5)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    model = model_of("GRU4Rec", {"layers": [4]})
    with pytest.raises(SessRecError, match="exists: remove it"):
        write_onnx(model, {}, tmp_path / "there", k=5)
    narm = model_of("NARM", {"hidden_size": 4, "embedding_size": 4})
    with pytest.raises(SessRecError, match="export knows GRU4Rec and SASRec, not NARM"):
        write_onnx(narm, {}, tmp_path / "out", k=5)
    broken = models.GRU4Rec(layers=[4])
    broken.set_vocabulary(Vocabulary(["a", "b\nc"], np.array([1, 1])))
    with pytest.raises(SessRecError, match=r"item id 'b\\nc' has an end of line"):
        write_onnx(broken, {}, tmp_path / "out", k=5)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(120, 14))]
    Path("clicks.tsv").write_text("\n".join(rows) + "\n")
    run = fit_log("clicks.tsv", "--model.layers", "[6]", "--model.exclude_seen", "true", model="GRU4Rec", run="run")
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    export.main(["--ckpt_path", checkpoint, "--output", "shop/1", "--k", "9"])
    assert "GRU4Rec, 14 items, lists of 9: shop/1" in capsys.readouterr().out
    about = json.loads(Path("shop/1/model.json").read_text())
    assert about["rules"] == {"exclude_last": False, "exclude_seen": True}
    assert (about["model"], about["kind"], about["k"], about["n_items"]) == ("GRU4Rec", "step", 9, 14)
    assert len(about["probes"]) == 200
    model = models.GRU4Rec.load_from_checkpoint(checkpoint)
    probe = about["probes"][7]
    expected = model.recommend(probe["session"], 9, exclude_seen=False)
    assert list(zip(probe["items"], probe["scores"], strict=True)) == expected
    text = Path("shop/1/config.pbtxt").read_text()
    assert 'input_name: "state_0" output_name: "state_out_0" data_type: TYPE_FP32 dims: [6]' in text
    assert "exists: remove it" in one_error(capsys, export.main, ["--ckpt_path", checkpoint, "--output", "shop/1"])
    assert "--k must be at least 1" in one_error(capsys, export.main, ["--ckpt_path", checkpoint, "--k", "0"])
