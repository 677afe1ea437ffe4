"""Item embeddings for TensorBoard's projector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import make_vocabulary

from sessrec.callbacks.projector import item_embeddings, write_projector
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec, Popularity


def test_the_projector_finds_each_vector_with_its_item(tmp_path: Path) -> None:
    model = GRU4Rec(layers=[4])
    model.set_vocabulary(make_vocabulary(5))
    counts, ids = model.vocabulary.counts, model.vocabulary.item_ids
    for _ in range(2):  # a second test takes the place of the first
        assert write_projector(model, tmp_path / "projector") == 5
    (vectors,), (names,) = tmp_path.rglob("tensors.tsv"), tmp_path.rglob("metadata.tsv")
    head, *rows = (line.split("\t") for line in names.read_text().splitlines())
    assert head == ["item", "training events"]
    items = [ids.index(name) for name, _ in rows]
    assert [int(count) for _, count in rows] == sorted(counts, reverse=True)
    np.testing.assert_allclose(np.loadtxt(vectors), model.output_embedding.detach()[items], rtol=1e-6)
    config = (tmp_path / "projector" / "projector_config.pbtxt").read_text()
    assert str(vectors.relative_to(tmp_path / "projector")) in config
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1


def test_a_model_without_embeddings_is_refused() -> None:
    with pytest.raises(SessRecError, match="Popularity has no item embeddings"):
        item_embeddings(Popularity())
