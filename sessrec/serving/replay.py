"""Ranks the positions of a test by the lists of a server: what is served is what was tested."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from sessrec.callbacks.checkpoints import digest_of_file
from sessrec.data.loaders import EvaluationBatch
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import PositionCounts
from sessrec.evaluation.ranking import MISSED
from sessrec.models.base import SessionRecommender

_SCORES = 200_000  # asked for at once
_MOST_REQUESTS = 256  # of a batch


class Replay:
    """Asks a server for the list of all items at every position; called in place of `rank_positions`.

    Args:
        url: Address of the server.
        checkpoint: The checkpoint that it should serve.

    Raises:
        SessRecError: If there is no such server, or it serves another checkpoint.
    """

    def __init__(self, url: str, checkpoint: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SessRecError(f"--url {url} is no address such as http://127.0.0.1:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url, self._connection = url, kind(parts.hostname, parts.port, timeout=600)
        served = self._ask("GET", "/v1/model")
        if served["digest"] != digest_of_file(checkpoint):
            raise SessRecError(f"--url {url} serves another checkpoint than {checkpoint} (its run: {served['run']})")

    def __call__(
        self, model: SessionRecommender, batch: EvaluationBatch, weights: Tensor | None = None
    ) -> PositionCounts:
        """See `rank_positions`; the weights are those of the training events."""
        row, place = batch.positions()
        ids, places = model.vocabulary.item_ids, list(zip(row.tolist(), place.tolist(), strict=True))
        items = [[ids[item] for item in session] for session in batch.items.tolist()]
        sessions, targets = [items[r][: p + 1] for r, p in places], [items[r][p + 1] for r, p in places]
        at_once = max(1, min(_MOST_REQUESTS, _SCORES // model.n_items))
        counts: list[tuple[int, int, int]] = []
        for start in range(0, len(sessions), at_once):
            part = slice(start, start + at_once)
            lists = self._lists(model, sessions[part])
            counts += [self._count(model, *pair) for pair in zip(lists, targets[part], strict=True)]
        above, tied, weight = torch.tensor(counts, dtype=torch.int64).view(-1, 3).T
        return PositionCounts(above, tied, weight.double())

    def _lists(self, model: SessionRecommender, sessions: Sequence[Sequence[str]]) -> list[Any]:
        rules = model.candidate_rules
        asked: dict[str, Any] = {"k": model.n_items}
        asked |= {"exclude_last": rules.exclude_last, "exclude_seen": rules.exclude_seen}
        if rules.allowed is not None:
            ids = model.vocabulary.item_ids
            asked["allow"] = [ids[item] for item in rules.allowed.nonzero()[:, 0].tolist()]
        requests = [{"items": session, **asked} for session in sessions]
        return self._ask("POST", "/v1/recommend:batch", {"requests": requests})

    def _count(self, model: SessionRecommender, answer: dict[str, Any], target: str) -> tuple[int, int, int]:
        """Items above the target, other items tied with it, and the training events of all these."""
        if answer["fallback"] is not None:
            raise SessRecError(f"--url {self.url} gives popular items ({answer['fallback']}) in place of the model's")
        scores = {item["id"]: item["score"] for item in answer["items"]}
        own = scores.pop(target, None)
        before = [item for item, score in scores.items() if own is None or score >= own]
        weight = int(model.vocabulary.counts[model.vocabulary.index_of(before)].sum())
        if own is None:
            return MISSED, 0, weight
        n_tied = sum(scores[item] == own for item in before)
        return len(before) - n_tied, n_tied, weight

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            found = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SessRecError(f"--url {self.url} does not answer as sessrec serve does: {error}") from error
        if answer.status != 200:
            raise SessRecError(f"--url {self.url} answers {path} with {answer.status}: {found.get('detail', found)}")
        return found
