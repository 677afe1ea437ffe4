"""Item embeddings for TensorBoard's projector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import nn

from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.writing import replacing

_MOST_ITEMS = 10_000  # more than that makes the projector slow


def item_embeddings(model: SessionRecommender) -> nn.Parameter:
    """The table of item embeddings of a model, shape (N, size).

    Args:
        model: The model.

    Raises:
        SessRecError: If it has none.
    """
    table = next(
        (getattr(model, name) for name in ("output_embedding", "item_embedding") if hasattr(model, name)), None
    )
    if not isinstance(table, nn.Parameter):
        raise SessRecError(f"{type(model).__name__} has no item embeddings: leave --projector out")
    return table


def write_projector(model: SessionRecommender, folder: Path) -> int:
    """Write the item embeddings for TensorBoard's projector, of the most popular items where there are very many.

    Args:
        model: A model with item embeddings.
        folder: Folder of the run, where ``tensorboard --logdir`` finds them.

    Returns:
        Number of items.

    Raises:
        SessRecError: If the model has no item embeddings.
    """
    table = item_embeddings(model)
    vocabulary = model.vocabulary
    items = np.argsort(-vocabulary.counts, kind="stable")[:_MOST_ITEMS]
    with replacing(folder / "item_embeddings.tsv") as temporary:
        vectors = table.detach()[torch.from_numpy(items)].float().cpu().numpy()
        np.savetxt(temporary, vectors, delimiter="\t", fmt="%.6g")
    with replacing(folder / "item_names.tsv") as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("item\ttraining events\n")
        for item in items:
            name = " ".join(vocabulary.item_ids[item].split()) or "(blank)"  # a line an item, whatever is in its id
            stream.write(f"{name}\t{vocabulary.counts[item]}\n")
    config = ProjectorConfig()
    config.embeddings.add(
        tensor_name="item embeddings", tensor_path="item_embeddings.tsv", metadata_path="item_names.tsv"
    )
    with replacing(folder / "projector_config.pbtxt") as temporary:
        temporary.write_text(str(config), encoding="utf-8")
    return len(items)
