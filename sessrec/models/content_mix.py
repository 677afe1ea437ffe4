"""ContentMix: the ranks of a model that counts clicks, and those of items that are alike, mixed."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError, check_choice
from sessrec.models.ar import AR
from sessrec.models.base import SessionRecommender
from sessrec.models.compatibility import check_ranges
from sessrec.models.content_knn import ContentKNN
from sessrec.models.item_knn import ItemKNN
from sessrec.models.knows_features import KnowsFeatures
from sessrec.models.markov import Markov
from sessrec.models.popularity import Popularity
from sessrec.models.s_pop import SPop
from sessrec.models.sknn import SKNN
from sessrec.models.sr import SR
from sessrec.models.stan import STAN
from sessrec.models.vmis_knn import VMISKNN
from sessrec.models.vsknn import VSKNN
from sessrec.models.vstan import VSTAN

CountingName = Literal[
    "AR", "ItemKNN", "Markov", "Popularity", "SKNN", "SPop", "SR", "STAN", "VMISKNN", "VSKNN", "VSTAN"
]
_COUNTING: dict[str, type[SessionRecommender]] = {
    model.__name__: model for model in (AR, ItemKNN, Markov, Popularity, SKNN, SPop, SR, STAN, VMISKNN, VSKNN, VSTAN)
}


class ContentMix(KnowsFeatures, SessionRecommender):
    """Ranks items by two lists: that of a model of clicks, and that of `ContentKNN`.

    An item's score is (1 - w) / (c + r) + w / (c + r'), of its rank r by clicks and r' by features; equal scores have
    equal ranks. Ranks need no scale on which both models agree.

    Args:
        model: The model of clicks, by its name.
        model_options: Its options, such as {n_neighbours: 100}.
        features: Columns of --data.items that are compared, see `ContentKNN`.
        n_last: Last events of the session whose features count.
        decay: Weight of an event over that of the one after it, in features.
        weight: w, the share of the features.
        constant: c; the greater, the less the first ranks stand out.
        cold_items: Whether items of --data.items without a click in training are ranked, too.
        protocol: Options of `SessionRecommender`.

    References:
        Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
        Methods", SIGIR 2009.
    """

    scores_in_blocks = False
    needs_features = True
    takes_new_items = False

    def __init__(
        self,
        model: CountingName = "STAN",
        model_options: dict[str, Any] | None = None,
        features: dict[str, Any] | None = None,
        n_last: int = 5,
        decay: float = 0.5,
        weight: float = 0.1,
        constant: float = 10.0,
        cold_items: bool = False,
        **protocol: Any,
    ) -> None:
        super().__init__(features, cold_items, **protocol)
        self.save_hyperparameters("model", "model_options", "n_last", "decay", "weight", "constant")
        check_choice("--model.model", model, CountingName)
        check_ranges(self.options, {"[0, 1]": "weight", "[0, inf)": "constant"})
        self.content = ContentKNN(features, n_last, decay)
        try:
            self.clicks = _COUNTING[model](**(model_options or {}))
        except TypeError as error:
            raise SessRecError(f"--model.model_options {model_options}: {error}") from error
        self.weight, self.constant = weight, constant

    def build(self) -> None:
        """Build both models."""
        self.content.encoder, self.content.encoded = self.encoder, self.encoded
        self.content.set_vocabulary(self.vocabulary)
        self.clicks.set_vocabulary(self.vocabulary)

    def learn_sessions(self, sessions: Sessions) -> None:
        """Have the model of clicks learn."""
        self.clicks.learn_sessions(sessions)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for what the model of clicks has counted."""
        if self._vocabulary is None:
            self.take_items(checkpoint)
            self.set_vocabulary(Vocabulary.from_state_dict(checkpoint["vocabulary"]))
        for name in self.clicks.data_dependent_buffers:
            self.clicks.register_buffer(name, torch.zeros_like(checkpoint["state_dict"][f"clicks.{name}"]))
        super().on_load_checkpoint(checkpoint)

    def encode(self, items: Tensor) -> Both:
        """Queries of both models, shape (S, L)."""
        return Both(self.clicks.encode(items), self.content.encode(items))

    def encode_sessions(self, items: Tensor, lengths: Tensor) -> Both:
        """See `SessionRecommender.encode_sessions`."""
        return Both(self.clicks.encode_sessions(items, lengths), self.content.encode_sessions(items, lengths))

    def score(self, queries: Both, items: slice) -> Tensor:
        """Mixed reciprocal ranks, float64, shape (P, n)."""
        everything = slice(0, self.n_items)
        of_clicks = _ranks(self.clicks.score(queries.clicks, everything))
        of_content = _ranks(self.content.score(queries.content, everything))
        mixed = (1 - self.weight) / (self.constant + of_clicks) + self.weight / (self.constant + of_content)
        return mixed[:, items]


class Both:
    """Queries of two models, indexed like one.

    Args:
        clicks: Those of the model of clicks.
        content: Those of the model of features.
    """

    def __init__(self, clicks: Any, content: Any) -> None:
        self.clicks, self.content = clicks, content

    def __getitem__(self, place: Any) -> Both:
        """Those of some positions."""
        return Both(self.clicks[place], self.content[place])

    def __len__(self) -> int:
        """Size of the first dimension."""
        return len(self.clicks)


def _ranks(scores: Tensor) -> Tensor:
    """Rank of each item, 1 for the best, equal scores with equal ranks, float64, shape (P, N)."""
    ascending = scores.sort(dim=1).values.contiguous()
    return (scores.shape[1] + 1 - torch.searchsorted(ascending, scores.contiguous(), right=True)).double()
