"""A model that `sessrec export` has written, served by onnxruntime: torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sessrec.errors import SessRecError
from sessrec.exporting.onnx_model import NO_CANDIDATE, OnnxModel
from sessrec.serving.requests import Answer, Origin, Request


@dataclass(frozen=True)
class OnnxEngine:
    """An exported model.

    Args:
        model: The model in onnxruntime.
        origin: Which model it is.
        item_ids: Item id of each index.
        counts: Training events of each item, int64, shape (N,).
        most_k: Longest list that it can give.
        available: Which items may be recommended at present, bool, shape (N,); all where None.
    """

    model: OnnxModel
    origin: Origin
    item_ids: Sequence[str]
    counts: np.ndarray
    most_k: int | None
    available: np.ndarray | None = None

    @classmethod
    def of_folder(cls, folder: Path, n_threads: int = 0) -> OnnxEngine:
        """Open what `sessrec export` has written.

        Args:
            folder: The folder.
            n_threads: Threads of onnxruntime; 0 for one a core.

        Raises:
            SessRecError: If files are missing or damaged.
        """
        try:
            about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            content = (folder / "model.onnx").read_bytes()
            item_ids = (folder / "items.txt").read_text(encoding="utf-8").splitlines()
            counts, rules = np.array(about["counts"], dtype=np.int64), about["rules"]
            if about["format"] != 1 or not len(item_ids) == len(counts) == about["n_items"]:
                raise ValueError("its files do not belong together")
            model = OnnxModel(content, about, n_threads)
        except OSError as error:
            raise SessRecError(f"cannot read {folder}, which sessrec export writes: {error}") from error
        except Exception as error:  # onnxruntime has a dozen kinds of its own
            raise SessRecError(f"{folder} is damaged, or no exported model: {error}") from error
        parts = (about["model"], folder.name, about["digest"], about["trained_until"])
        origin = Origin(*parts, rules["exclude_last"], rules["exclude_seen"])
        return cls(model, origin, item_ids, counts, about["k"])

    @property
    def n_available(self) -> int:
        """See `Engine`."""
        return len(self.item_ids) if self.available is None else int(self.available.sum())

    def with_availability(self, available: Sequence[str] | None, unavailable: Sequence[str]) -> OnnxEngine:
        """See `Engine`."""
        return replace(self, available=self._mask(available, unavailable))

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Engine`."""
        answers: dict[int, Answer] = {}
        together: list[int] = []
        for number, request in enumerate(requests):
            known = self._known(request)
            if not known:
                answers[number] = self.popular(request, "unknown_items" if request.item_ids else "empty_session")
            elif request.allow is None and not request.exclude and self.origin.flags(request) == (False, False):
                together.append(number)
            else:  # the graph has one mask for all sessions
                answers[number] = self._ranked([request], [known], self._allowed(request, known))[0]
        if together:
            chosen = [requests[number] for number in together]
            found = self._ranked(chosen, [self._known(request) for request in chosen], self.available)
            answers |= dict(zip(together, found, strict=True))
        return [answers[number] for number in range(len(requests))]

    def popular(self, request: Request, reason: str) -> Answer:
        """See `Engine`."""
        known = self._known(request)
        allowed, found = self._allowed(request, known), self._by_count
        if allowed is not None:
            found = found[allowed[found]]
        found = found[: request.k]
        scores = [float(self.counts[item]) for item in found]
        return Answer([self.item_ids[item] for item in found], scores, len(known), reason, self.origin)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def _by_count(self) -> np.ndarray:
        return np.argsort(-self.counts, kind="stable")

    def _known(self, request: Request) -> list[int]:
        return [self._index[item_id] for item_id in request.item_ids if item_id in self._index]

    def _mask(self, allow: Sequence[str] | None, exclude: Sequence[str]) -> np.ndarray | None:
        if allow is None and not exclude:
            return None
        mask = np.full(len(self.item_ids), allow is None)
        for item_ids, value in ((allow or (), True), (exclude, False)):
            mask[[self._index[item_id] for item_id in item_ids if item_id in self._index]] = value
        return mask

    def _allowed(self, request: Request, known: Sequence[int]) -> np.ndarray | None:
        """Which items may be in the list of a request, bool, shape (N,); all where None."""
        last, seen = self.origin.flags(request)
        gone = [self.item_ids[item] for item in (known if seen else known[-1:] if last else ())]
        own = self._mask(request.allow, [*request.exclude, *gone])
        if own is None or self.available is None:
            return self.available if own is None else own
        return own & self.available

    def _ranked(
        self, requests: Sequence[Request], sessions: Sequence[Sequence[int]], mask: np.ndarray | None
    ) -> list[Answer]:
        found = []
        for request, session, (items, scores) in zip(requests, sessions, self.model.lists(sessions, mask), strict=True):
            pairs = zip(items[: request.k].tolist(), scores[: request.k].tolist(), strict=True)
            kept = [(self.item_ids[item], score) for item, score in pairs if score > NO_CANDIDATE]
            ids, own_scores = [item_id for item_id, _ in kept], [score for _, score in kept]
            if not np.isfinite(own_scores).all():
                raise SessRecError("the scores are no numbers")
            found.append(Answer(ids, own_scores, len(session), None, self.origin))
        return found
