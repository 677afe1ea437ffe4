"""Exported models behind the server: their answers are those of the model in torch, which is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_engine import N_ITEMS, engine_of, requests_of

from sessrec.errors import SessRecError
from sessrec.exporting.onnx_files import write_onnx
from sessrec.serving.onnx_engine import OnnxEngine
from sessrec.serving.requests import Request

RULES = {"exclude_last": False, "exclude_seen": False}
WITHOUT_TORCH = """
import sys
for name in ("torch", "lightning", "pandas"):
    sys.modules[name] = None  # importing it is an error
from sessrec import serve
serve.main(sys.argv[1:])
"""


def exported(name: str, folder: Path) -> Any:
    """The model in torch, written into a folder."""
    engine = engine_of(name)
    origin = {"digest": "digest", "trained_until": 1_600_000_000.0, "rules": RULES}
    write_onnx(engine.model, origin, folder, k=2 * N_ITEMS)
    return engine


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec"])
def test_answers_are_those_of_torch(name: str, tmp_path: Path) -> None:
    engine = exported(name, tmp_path / "shop")
    onnx = OnnxEngine.of_folder(tmp_path / "shop", 1)
    assert onnx.origin.trained_until == "2020-09-13T12:26:40+00:00"
    ids, rng = engine.item_ids, np.random.default_rng(5)
    for available, unavailable in ((None, []), (ids[:40], ids[3:7]), (None, ids[::2])):
        both = [one.with_availability(available, unavailable) for one in (engine, onnx)]
        assert both[0].n_available == both[1].n_available
        requests = requests_of(80, seed=int(rng.integers(99)))
        for own, other in zip(*(one.answer(requests) for one in both), strict=True):
            assert own.item_ids == other.item_ids
            greatest = max(map(abs, own.scores), default=0.0)
            assert other.scores == pytest.approx(own.scores, rel=1e-5, abs=1e-5 * greatest)
            assert own[2:4] == other[2:4]


def test_what_is_no_exported_model(tmp_path: Path) -> None:
    exported("GRU4Rec", tmp_path / "shop")
    with pytest.raises(SessRecError, match="cannot read .*missing, which sessrec export writes"):
        OnnxEngine.of_folder(tmp_path / "missing")
    file = tmp_path / "shop" / "model.onnx"
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 100):
        file.write_bytes(damaged)
        with pytest.raises(SessRecError, match="is damaged, or no exported model"):
            OnnxEngine.of_folder(tmp_path / "shop")
    file.write_bytes(whole)
    (tmp_path / "shop" / "items.txt").write_text("a\nb\n")
    with pytest.raises(SessRecError, match="is damaged, or no exported model: .*one count for each"):
        OnnxEngine.of_folder(tmp_path / "shop")


def test_the_server_needs_no_torch(tmp_path: Path) -> None:
    engine = exported("GRU4Rec", tmp_path / "shop")
    words = ["--ckpt_path", "shop", "--backend", "onnx", "--port", "0", "--threads", "1"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("GRU4Rec of shop, 60 items: http://127.0.0.1:")
        address = line.split()[-1]
        answer = httpx.post(f"{address}/v1/recommend", json={"items": ["i3", "i4"], "k": 5}).json()
        (expected,) = engine.answer([Request(["i3", "i4"], 5)])
        assert [item["id"] for item in answer["items"]] == expected.item_ids
        assert answer["model"]["digest"] == "digest"
        assert httpx.post(f"{address}/v1/recommend", json={"items": ["i3"], "k": 61}).status_code == 422
        about = json.loads((tmp_path / "shop" / "model.json").read_text())
        (tmp_path / "shop" / "model.json").write_text(json.dumps(about | {"digest": "newer"}))
        assert httpx.post(f"{address}/v1/reload").json()["digest"] == "newer"
        server.terminate()
