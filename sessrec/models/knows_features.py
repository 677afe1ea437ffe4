"""What models share that are told of the features of items: they encode the item table and keep it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.features.encoder import EncodedItems, FeatureEncoder, unknown_text
from sessrec.features.item_table import ItemTable


class KnowsFeatures:
    """Beside a `SessionRecommender`, a model that uses columns of the data's item table.

    Args:
        features: What is made of columns of --data.items, such as {category: 32, price: soft, text: vector}; see
            `FeatureEncoder.of`.
        cold_items: Whether items of --data.items without a click in training are ranked, too.
        protocol: Options of the model.
    """

    vocabulary: Vocabulary
    needs_features = False
    """Whether a fit without any is refused."""
    takes_new_items = True
    """Whether items can be added to a fitted model; see `add_items`."""

    def __init__(self, features: dict[str, Any] | None = None, cold_items: bool = False, **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters("features", "cold_items")  # type: ignore[attr-defined]
        self.encoder: FeatureEncoder | None = None
        self.encoder_before: FeatureEncoder | None = None
        """Encoder of the fit that --init_from names."""
        self.encoded: EncodedItems | None = None
        if cold_items and not self.uses_features:
            raise SessRecError("--model.cold_items true needs --model.features: else nothing is known of such items")

    @property
    def options(self) -> Any:
        """Options of the model, by name."""
        return self.hparams  # type: ignore[attr-defined]

    @property
    def uses_features(self) -> bool:
        """Whether the options name a column."""
        return any((self.options.features or {}).values())

    def take_data(self, data: Any) -> None:
        """Encode the items that the data have, and build the model; see `SessionRecommender.take_data`."""
        self.encode_data(data)
        super().take_data(data)  # type: ignore[misc]

    def encode_data(self, data: Any) -> None:
        """Encode the items that the data have, where that is not done.

        Raises:
            SessRecError: If the data have no item table, or it does not have what the options name.
        """
        if self.needs_features and not self.uses_features:
            raise SessRecError(f"{type(self).__name__} compares features: give --model.features and --data.items")
        if not self.uses_features or self.encoded is not None:
            return
        if data.item_table is None:
            raise SessRecError("--model.features needs --data.items, the table of the items' features")
        self.encode_items(data.item_table, data.vocabulary)

    def encode_items(self, table: ItemTable, vocabulary: Vocabulary) -> None:
        """Learn how the columns are encoded from the items that are trained on, and encode all items."""
        trained = (item_id for item_id, n in zip(vocabulary.item_ids, vocabulary.counts, strict=True) if n)
        self.encoder = FeatureEncoder.of(self.options.features, table, trained, self.encoder_before)
        columns = table.select(vocabulary.item_ids, self.encoder.encoders)
        self.encoded, unknown = self.encoder.encode(columns, len(vocabulary))
        for note in unknown_text(unknown):
            rank_zero_warn(note)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how features are encoded, beside what `SessionRecommender.on_save_checkpoint` saves."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        self.save_items(checkpoint)

    def save_items(self, checkpoint: dict[str, Any]) -> None:
        """Put the vocabulary and the encoded items into a checkpoint."""
        checkpoint["vocabulary"] = self.vocabulary.state_dict()
        if self.encoder is not None and self.encoded is not None:
            arrays = {name: torch.from_numpy(value) for name, value in vars(self.encoded).items()}
            checkpoint["items"] = {"encoder": self.encoder.state_dict(), **arrays}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the encoded items of a checkpoint, which have to be those of the data where there are any.

        Raises:
            SessRecError: If the item table has changed since.
        """
        self.take_items(checkpoint)
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]

    def take_items(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the encoded items of a checkpoint; see `on_load_checkpoint`."""
        if (state := checkpoint.get("items")) is None:
            return
        encoded = EncodedItems(*(state[name].cpu().numpy() for name in ("codes", "weights", "numbers")))
        encoder = FeatureEncoder.from_state_dict(state["encoder"])
        used = [name for name, wanted in (self.options.features or {}).items() if wanted]
        if used != list(encoder.encoders):
            known, given = (", ".join(names) or "none" for names in (encoder.encoders, used))
            raise SessRecError(f"the checkpoint was fitted with features of {known}, not of {given}")
        if self.encoded is not None and not _are_alike(self.encoded, encoded):
            raise SessRecError(
                "the items are not those of the checkpoint, or other features of them: give its --data.items, "
                "--model.features and --model.cold_items"
            )
        self.encoder, self.encoded = encoder, encoded


def _are_alike(one: EncodedItems, other: EncodedItems) -> bool:
    """Whether items are encoded alike; principal components may differ in their last digits on another machine."""
    if any(getattr(one, name).shape != getattr(other, name).shape for name in vars(one)):
        return False
    is_same = np.array_equal(one.codes, other.codes) and np.array_equal(one.weights, other.weights)
    return is_same and np.allclose(one.numbers, other.numbers, atol=1e-3)
