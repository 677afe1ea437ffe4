"""Give a fitted model items that it has not seen, by what its features add."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from sessrec.data.vocabulary import with_cold_items
from sessrec.errors import SessRecError
from sessrec.features.encoder import EncodedItems, unknown_text
from sessrec.features.item_table import ItemTable


class AddedItems(NamedTuple):
    """What was added to a model."""

    added: int
    """Items that it did not know."""
    known: int
    """Items of the table that it knew; they stay as they are."""
    without_features: int
    """Added items of which nothing is known that the fit has learnt: their vector is zero."""
    notes: list[str]
    """Categories that the fit has not seen."""


@torch.no_grad()
def add_items(model: Any, table: ItemTable) -> AddedItems:
    """Add the items of a table that a model does not know; nothing is trained, and the items before stay as they are.

    Args:
        model: A fitted model with features.
        table: The items, with the columns that the model was fitted with.

    Raises:
        SessRecError: If the model has no features, the table lacks one of their columns, or has no new item.
    """
    encoder, encoded = getattr(model, "encoder", None), getattr(model, "encoded", None)
    if encoder is None or encoded is None:
        raise SessRecError(
            f"this {type(model).__name__} was fitted without --model.features: nothing tells it of new items"
        )
    if missing := [name for name in encoder.encoders if name not in table.columns]:
        raise SessRecError(
            f"{table.source} has no column {', '.join(missing)}, which the model was fitted with; it has "
            f"{', '.join(table.columns)}"
        )
    if not model.takes_new_items:
        raise SessRecError(f"{type(model).__name__} has counted what clicks do; it cannot take items without them")
    item_rows = getattr(model, "item_rows", ())
    n_before, weights = model.n_items, {name: value.clone() for name, value in model.state_dict().items()}
    vocabulary = with_cold_items(model.vocabulary, table.item_ids)
    new_ids = vocabulary.item_ids[n_before:]
    if not new_ids:
        raise SessRecError(f"the model knows all {len(table):,} items of {table.source} already")
    try:
        own, unknown = encoder.encode(table.select(new_ids, encoder.encoders), len(new_ids))
    except SessRecError as error:
        raise SessRecError(f"{table.source}: {error}") from error
    model.encoded = joined(encoded, own, encoder.n_rows)
    model.set_vocabulary(vocabulary)
    for name, value in model.state_dict().items():
        if name in item_rows:
            value[:n_before], value[n_before:] = weights[name], 0
        elif name != "folded":
            value.copy_(weights[name])
    without = int((~own.has_any).sum())
    return AddedItems(len(new_ids), len(table) - len(new_ids), without, unknown_text(unknown))


def joined(first: EncodedItems, second: EncodedItems, nothing: int) -> EncodedItems:
    """Items and more items, with as many codes an item as either has; ``nothing`` is the code that fills up."""
    width = max(first.codes.shape[1], second.codes.shape[1])

    def wide(values: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)

    return EncodedItems(
        np.concatenate([wide(first.codes, nothing), wide(second.codes, nothing)]),
        np.concatenate([wide(first.weights, 0.0), wide(second.weights, 0.0)]),
        np.concatenate([first.numbers, second.numbers]),
    )
