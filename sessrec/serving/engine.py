"""A fitted model that answers many requests at once, each as `recommend` does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sessrec.callbacks.checkpoints import load_model
from sessrec.errors import SessRecError
from sessrec.evaluation.ranking import EXCLUDED
from sessrec.models.base import SessionRecommender
from sessrec.models.candidates import allowed_items
from sessrec.models.inference import CandidateRules, popular_items, top_items

_TRIES = 3


class Request(NamedTuple):
    """What a list is asked for."""

    item_ids: Sequence[str]
    """Items of the session so far, oldest first."""
    k: int = 20
    allow: Sequence[str] | None = None
    """Items that may be recommended; all where None."""
    exclude: Sequence[str] = ()
    """Items that may not be."""
    exclude_last: bool | None = None
    """Whether the last item may not be; the model's option where None."""
    exclude_seen: bool | None = None
    """Whether no item of the session may be; the model's option where None."""


class Answer(NamedTuple):
    """A list of items, best first."""

    item_ids: list[str]
    scores: list[float]
    n_known: int
    """Items of the session that the model knows."""
    fallback: str | None
    """Why these are the items most frequent in training; None where the model was asked."""
    engine: Engine
    """Whose list it is."""


@dataclass(frozen=True)
class Engine:
    """A model with where it is from.

    Args:
        model: The model.
        run: Name of its run.
        digest: SHA-256 of its checkpoint.
        trained_until: Time of the last event it was trained on, ISO 8601; None where that is not known.
        available: Which items may be recommended at present, bool, shape (N,); all where None.
    """

    model: SessionRecommender
    run: str
    digest: str
    trained_until: str | None = None
    available: Tensor | None = None

    @classmethod
    def of_checkpoint(cls, file: Path) -> Engine:
        """Load a checkpoint of a model of sessrec.

        Raises:
            SessRecError: If it is damaged, or no such checkpoint.
        """
        model, digest = _load(file)
        folder = file.resolve().parent
        run = folder.parent.name if folder.name == "checkpoints" else file.stem
        until = model.trained_until
        return cls(
            model, run, digest, None if until is None else datetime.fromtimestamp(until, timezone.utc).isoformat()
        )

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, the same but for rounding whatever requests are beside it."""
        vocabulary = self.model.vocabulary
        known = [index[index >= 0] for index in (vocabulary.index_of(request.item_ids) for request in requests)]
        answers: dict[int, Answer] = {}
        groups: dict[tuple[bool, bool], list[int]] = {}
        for number, (request, items) in enumerate(zip(requests, known, strict=True)):
            if len(items):
                groups.setdefault(self._flags(request), []).append(number)
            else:
                reason = "unknown_items" if request.item_ids else "empty_session"
                answers[number] = self.popular(request, reason)
        for flags, numbers in groups.items():
            lists = self._rank([requests[n] for n in numbers], [torch.from_numpy(known[n]) for n in numbers], flags)
            for number, (item_ids, scores) in zip(numbers, lists, strict=True):
                answers[number] = Answer(item_ids, scores, len(known[number]), None, self)
        return [answers[number] for number in range(len(requests))]

    def popular(self, request: Request, reason: str) -> Answer:
        """The items most frequent in training that the request allows, for a reason that the answer tells."""
        vocabulary, (last, seen) = self.model.vocabulary, self._flags(request)
        index = vocabulary.index_of(request.item_ids)
        known = index[index >= 0].tolist()
        gone = known if seen else known[-1:] if last else []
        items = popular_items(vocabulary, request.k, self._allowed(request), set(gone))
        scores = [float(vocabulary.counts[item]) for item in items]
        return Answer([vocabulary.item_ids[item] for item in items], scores, len(known), reason, self)

    def _flags(self, request: Request) -> tuple[bool, bool]:
        last, seen = request.exclude_last, request.exclude_seen
        rules = self.model.candidate_rules
        return rules.exclude_last if last is None else last, rules.exclude_seen if seen is None else seen

    def _allowed(self, request: Request) -> Tensor | None:
        """Which items may be candidates of a request, bool, shape (N,); all where None."""
        own = allowed_items(self.model.vocabulary, request.allow, request.exclude)
        if own is None or self.available is None:
            return self.available if own is None else own
        return own & self.available

    def _rank(
        self, requests: Sequence[Request], sessions: Sequence[Tensor], flags: tuple[bool, bool]
    ) -> list[tuple[list[str], list[float]]]:
        """Lists for sessions of known items, all by the same flags."""
        lengths = torch.tensor([len(session) for session in sessions])
        items = torch.nn.utils.rnn.pad_sequence(list(sessions), batch_first=True)
        allowed = [self._allowed(request) for request in requests]
        mask = self.available
        if any(own is not self.available for own in allowed):
            everything = torch.ones(self.model.n_items, dtype=torch.bool)
            mask = torch.stack([everything if own is None else own for own in allowed])  # (S, N)
        device = self.model.device
        rules = CandidateRules(*flags, None if mask is None else mask.to(device))
        k = max(request.k for request in requests)
        with torch.inference_mode():
            best, scores = top_items(self.model, items.to(device), lengths.to(device), k, rules)
        return [
            self._named(*own, request.k) for own, request in zip(zip(best, scores, strict=True), requests, strict=True)
        ]

    def _named(self, best: Tensor, scores: Tensor, k: int) -> tuple[list[str], list[float]]:
        ids, pairs = self.model.vocabulary.item_ids, zip(best[:k].tolist(), scores[:k].tolist(), strict=True)
        kept = [(ids[item], score) for item, score in pairs if score > EXCLUDED]
        return [item_id for item_id, _ in kept], [score for _, score in kept]


def _load(file: Path) -> tuple[SessionRecommender, str]:
    """The model of a checkpoint and the digest of the very file, which another one may replace meanwhile."""
    try:
        for _ in range(_TRIES):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            model = load_model(file)
            if hashlib.sha256(file.read_bytes()).hexdigest() == digest:
                return model, digest
    except OSError as error:
        raise SessRecError(f"cannot read {file}: {error.strerror or error}") from error
    raise SessRecError(f"{file} changes while it is read")
