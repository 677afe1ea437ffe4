"""A fitted model that answers many requests at once, each as `recommend` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sessrec.callbacks.checkpoints import load_model_with_digest
from sessrec.evaluation.ranking import EXCLUDED
from sessrec.evaluation.screening import Screen, screen_where_faster
from sessrec.models.base import SessionRecommender
from sessrec.models.inference import CandidateRules, top_items
from sessrec.serving.known_items import KnownItems
from sessrec.serving.requests import Answer, Origin, Request

_LARGE = 100_000  # items
_MOST_SCREENED = 200  # items of a list


@dataclass(frozen=True, kw_only=True)
class TorchEngine(KnownItems):
    """Any model of sessrec, in torch.

    Args:
        model: The model.
        screen: Rows of the model in 8 bits, where its catalogue is large; none where None.
    """

    model: SessionRecommender
    screen: Screen | None = None

    @classmethod
    def of_checkpoint(cls, file: Path) -> TorchEngine:
        """Load a checkpoint.

        Raises:
            SessRecError: If it is damaged, or none of a model of sessrec.
        """
        model, digest = load_model_with_digest(file)
        folder = file.resolve().parent
        run, rules = folder.parent.name if folder.name == "checkpoints" else file.stem, model.candidate_rules
        name = type(model).__name__
        origin = Origin(name, run, digest, model.trained_until, rules.exclude_last, rules.exclude_seen)
        return cls(vocabulary=model.vocabulary, origin=origin, model=model, screen=_screen_of(model))

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Engine`."""
        known = [self.known(request) for request in requests]
        answers: dict[int, Answer] = {}
        groups: dict[tuple[bool, bool], list[int]] = {}
        for number, (request, items) in enumerate(zip(requests, known, strict=True)):
            if len(items):
                groups.setdefault(self.origin.flags(request), []).append(number)
            else:
                reason = "unknown_items" if request.item_ids else "empty_session"
                answers[number] = self.popular(request, reason)
        for flags, numbers in groups.items():
            lists = self._rank([requests[n] for n in numbers], [torch.from_numpy(known[n]) for n in numbers], flags)
            for number, (item_ids, scores) in zip(numbers, lists, strict=True):
                answers[number] = Answer(item_ids, scores, len(known[number]), None, self.origin)
        return [answers[number] for number in range(len(requests))]

    def _rank(
        self, requests: Sequence[Request], sessions: Sequence[Tensor], flags: tuple[bool, bool]
    ) -> list[tuple[list[str], list[float]]]:
        """Lists for sessions of known items, all by the same flags."""
        lengths = torch.tensor([len(session) for session in sessions])
        items = torch.nn.utils.rnn.pad_sequence(list(sessions), batch_first=True)
        allowed, mask = [self.allowed(request) for request in requests], self.available
        if any(own is not self.available for own in allowed):
            everything = np.ones(self.model.n_items, dtype=bool)
            mask = np.stack([everything if own is None else own for own in allowed])  # (S, N)
        device = self.model.device
        rules = CandidateRules(*flags, None if mask is None else torch.from_numpy(mask).to(device))
        k = max(request.k for request in requests)
        with torch.inference_mode():
            best, scores = top_items(
                self.model, items.to(device), lengths.to(device), k, rules, self._screen_of(mask, k)
            )
        return [
            self._named(*own, request.k) for own, request in zip(zip(best, scores, strict=True), requests, strict=True)
        ]

    def _screen_of(self, mask: np.ndarray | None, k: int) -> Screen | None:
        """The screen, where most items are candidates and the list is short: else it would leave out too few."""
        if self.screen is None or k > _MOST_SCREENED:
            return None
        return self.screen if mask is None or 2 * int(mask.sum()) > mask.size else None

    def _named(self, best: Tensor, scores: Tensor, k: int) -> tuple[list[str], list[float]]:
        ids, pairs = self.item_ids, zip(best[:k].tolist(), scores[:k].tolist(), strict=True)
        kept = [(ids[item], score) for item, score in pairs if score > EXCLUDED]
        return [item_id for item_id, _ in kept], [score for _, score in kept]


def _screen_of(model: SessionRecommender) -> Screen | None:
    """Rows of a model with many items, where its scores are products and are found faster so."""
    if model.n_items < _LARGE or model.device.type != "cpu":
        return None

    def rows(items: slice) -> Tensor:
        found = model.factors(torch.empty(0, 0), items)
        assert found is not None
        return found[1]

    with torch.inference_mode():
        return (
            None if model.factors(torch.empty(0, 0), slice(0, 1)) is None else screen_where_faster(rows, model.n_items)
        )
