"""Item embeddings for TensorBoard's projector."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender

_MOST_ITEMS = 10_000  # more than that makes the projector slow


def item_embeddings(model: SessionRecommender) -> Tensor:
    """The table of item embeddings of a model, shape (N, size).

    Raises:
        SessRecError: If it has none.
    """
    table = getattr(model, "item_table", getattr(model, "item_embedding", None))
    if not isinstance(table, Tensor):
        raise SessRecError(f"{type(model).__name__} has no item embeddings: leave --projector out")
    return table


def write_projector(model: SessionRecommender, folder: Path) -> int:
    """Write the item embeddings for TensorBoard's projector, of the most popular items where there are very many.

    Args:
        model: A model with item embeddings.
        folder: Where the files go, in place of what is there; below the run's, so that TensorBoard finds them.

    Returns:
        Number of items.
    """
    from torch.utils.tensorboard import SummaryWriter  # imports TensorFlow where it is installed

    vocabulary = model.vocabulary
    items = np.argsort(-vocabulary.counts, kind="stable")[:_MOST_ITEMS]
    names = [" ".join(vocabulary.item_ids[item].split()) or "(blank)" for item in items]  # a line an item
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier test
    with SummaryWriter(folder) as writer:
        vectors = item_embeddings(model).detach()[torch.from_numpy(items)].float()
        metadata = list(zip(names, vocabulary.counts[items].tolist(), strict=True))
        writer.add_embedding(vectors, metadata, metadata_header=["item", "training events"], tag="item embeddings")
    return len(items)
