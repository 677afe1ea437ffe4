"""A model that `sessrec export` has written, served by onnxruntime: torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.exporting.onnx_model import NO_CANDIDATE, OnnxModel
from sessrec.serving.known_items import KnownItems
from sessrec.serving.requests import Answer, Origin, Request


@dataclass(frozen=True, kw_only=True)
class OnnxEngine(KnownItems):
    """An exported model.

    Args:
        model: The model in onnxruntime.
    """

    model: OnnxModel

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
            rules, vocabulary = about["rules"], Vocabulary(item_ids, about["counts"])
            if about["format"] != 1 or len(item_ids) != about["n_items"]:
                raise ValueError("its files do not belong together")
            model = OnnxModel(content, about, n_threads)
        except OSError as error:
            raise SessRecError(f"cannot read {folder}, which sessrec export writes: {error}") from error
        except Exception as error:  # onnxruntime has a dozen kinds of its own
            raise SessRecError(f"{folder} is damaged, or no exported model: {error}") from error
        parts = (about["model"], folder.name, about["digest"], about["trained_until"])
        origin = Origin(*parts, rules["exclude_last"], rules["exclude_seen"])
        return cls(vocabulary=vocabulary, origin=origin, most_k=about["k"], model=model)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Engine`."""
        answers: dict[int, Answer] = {}
        together: dict[int, list[int]] = {}  # known items by the number of the request
        for number, request in enumerate(requests):
            known = self.known(request)
            if not len(known):
                answers[number] = self.popular(request, "unknown_items" if request.item_ids else "empty_session")
            elif request.allow is None and not request.exclude and self.origin.flags(request) == (False, False):
                together[number] = known.tolist()
            else:  # the graph has one mask for all sessions
                answers[number] = self._ranked([request], [known.tolist()], self._mask(request, known))[0]
        if together:
            chosen = [requests[number] for number in together]
            found = self._ranked(chosen, [*together.values()], self.available)
            answers |= dict(zip(together, found, strict=True))
        return [answers[number] for number in range(len(requests))]

    def _mask(self, request: Request, known: np.ndarray) -> np.ndarray | None:
        """Which items may be in the list of a request, bool, shape (N,); all where None."""
        gone, allowed = self.gone(request, known), self.allowed(request)
        if not len(gone):
            return allowed
        mask = np.ones(len(self.vocabulary), dtype=bool) if allowed is None else allowed.copy()
        mask[gone] = False
        return mask

    def _ranked(
        self, requests: Sequence[Request], sessions: Sequence[list[int]], mask: np.ndarray | None
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
