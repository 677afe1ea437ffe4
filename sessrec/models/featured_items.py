"""What models share whose item vectors have a part that follows from the features of items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sessrec.models.compatibility import check_ranges
from sessrec.models.inference import full_precision
from sessrec.models.knows_features import KnowsFeatures
from sessrec.nn.item_features import ItemFeatures
from sessrec.nn.layers import dropout_mask


class FeaturedItems(KnowsFeatures):
    """Beside `NeuralRecommender`, a model whose item vectors are those of ids, plus what features of the items add.

    The model names its table of item vectors first in ``item_rows``, takes the vectors of a step from its parts, and
    those of an evaluation from `item_table`, where the parts are added up once; `build_features` ends its `build`.

    Args:
        features: What is made of columns of --data.items, such as {category: 32, price: soft, text: vector}: the size
            of an embedding of categories; ``soft`` for numbers, a soft one-hot; ``vector`` or a number of components
            for vectors, their principal components after a LayerNorm. 0 or null leaves a column out.
        id_dropout: Probability to drop the own vector of an item that has features, for a window of steps, so that its
            features carry alone.
        cold_items: Whether items of --data.items without a click in training are ranked, too; their vectors are what
            their features add.
        protocol: Options of `NeuralRecommender`.
    """

    item_rows: tuple[str, ...]
    folded: Tensor
    has_no_feature: Tensor
    trained_items: Tensor
    """Items that have a click in training, int64, ascending."""
    place_among_trained: Tensor
    """Place of each item among these, int64, shape (N,)."""
    kept: Tensor | None
    """1 where an item has its own vector in the window that is trained, else 0, float, (N,); None where all have."""

    def __init__(
        self,
        features: dict[str, Any] | None = None,
        id_dropout: float = 0.1,
        cold_items: bool = False,
        **protocol: Any,
    ) -> None:
        super().__init__(features, cold_items, **protocol)
        self.save_hyperparameters("id_dropout")  # type: ignore[attr-defined]
        self.item_features: ItemFeatures | None = None
        self.register_buffer("kept", None, persistent=False)  # type: ignore[attr-defined]
        self._folded_at: tuple[int, ...] = ()
        self.register_state_dict_pre_hook(_add_up)  # type: ignore[attr-defined]
        self.register_load_state_dict_post_hook(_take_sum)  # type: ignore[attr-defined]
        check_ranges(self.options, {"[0, 1)": "id_dropout"})

    # -- from the data to the module ---------------------------------------------------------------------------------

    @property
    def id_embedding(self) -> Tensor:
        """The items' own vectors, shape (N, H)."""
        return getattr(self, self.item_rows[0])

    @torch.no_grad()
    def build_features(self) -> None:
        """Create what features add; last, so that all else begins as without them. Cold items have no own vector."""
        if self.encoder is None or self.encoded is None:
            return
        table, items = self.id_embedding, self.encoded
        codes, weights, numbers = map(torch.from_numpy, (items.codes, items.weights, items.numbers))
        self.item_features = ItemFeatures(codes, weights, numbers, self.encoder.table_shapes, table.shape[1])
        self.register_buffer("folded", torch.zeros_like(table))  # type: ignore[attr-defined]
        has_none = torch.from_numpy(~items.has_any)
        self.register_buffer("has_no_feature", has_none, persistent=False)  # type: ignore[attr-defined]
        trained = torch.from_numpy(self.vocabulary.counts > 0)
        self.register_buffer("trained_items", trained.nonzero()[:, 0], persistent=False)  # type: ignore[attr-defined]
        self.register_buffer("place_among_trained", trained.cumsum(0) - 1, persistent=False)  # type: ignore[attr-defined]
        self._folded_at, self.kept = (), None
        table[torch.from_numpy(self.vocabulary.counts == 0)] = 0

    # -- training ----------------------------------------------------------------------------------------------------

    def begin_window(self, generator: torch.Generator) -> None:
        """Draw which items have no own vector in a window of steps."""
        self._folded_at = ()  # a CUDA graph changes weights without their versions
        if self.item_features is None or not self.options.id_dropout:
            return
        drawn = dropout_mask((len(self.vocabulary),), self.options.id_dropout, generator).sign_()
        drawn = drawn.masked_fill_(self.has_no_feature, 1.0).to(self.id_embedding.dtype)
        if self.kept is None or (self.kept.device, self.kept.dtype) != (drawn.device, drawn.dtype):
            self.kept = drawn
        else:
            self.kept.copy_(drawn)  # captured windows read this memory

    # -- evaluation --------------------------------------------------------------------------------------------------

    @property
    def item_table(self) -> Tensor:
        """The vector of each item, of all its parts, shape (N, H)."""
        if self.item_features is None:
            return self.id_embedding
        versions = self.versions
        if self._folded_at != versions:
            with torch.no_grad(), full_precision(self.folded.device):
                self.folded.copy_(self.id_embedding + self.item_features())
            self._folded_at = versions
        return self.folded

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers that change with every change of what the vectors are added up of."""
        parts = () if self.item_features is None else self.item_features.parameters()
        return tuple(part._version for part in (self.id_embedding, *parts))

    # -- checkpoint --------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `KnowsFeatures.on_load_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        if self.item_features is not None and self.encoded is not None:
            self.item_features.numbers.copy_(torch.from_numpy(self.encoded.numbers))


def _add_up(model: FeaturedItems, prefix: str, keep_vars: bool) -> None:
    """Have the table up to date in a state dict."""
    if model.item_features is not None:
        model.item_table  # noqa: B018


def _take_sum(model: FeaturedItems, incompatible: Any) -> None:
    """Take the table of a state dict as it is, unless it has none."""
    if model.item_features is not None:
        is_there = not any(name.endswith("folded") for name in incompatible.missing_keys)
        model._folded_at = model.versions if is_there else ()
