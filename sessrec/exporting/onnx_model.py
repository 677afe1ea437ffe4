"""A written model in onnxruntime; torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

NO_CANDIDATE = -1e30
"""Score of an item that a mask has taken out."""


class OnnxModel:
    """A written model in onnxruntime, with torch nowhere.

    Args:
        content: The graph: the bytes of ``model.onnx``.
        about: Content of ``model.json``; its kind and sizes are looked at.
        n_threads: Threads; 0 for one a core.
    """

    def __init__(self, content: bytes, about: dict[str, Any], n_threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, n_threads
        self.about = about
        self._runtime = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._runtime.get_outputs()]

    def lists(self, sessions: Sequence[Sequence[int]], mask: np.ndarray | None = None) -> list[tuple[Any, Any]]:
        """Items and scores of each session's list, best first.

        Args:
            sessions: Item indices of each, at least one.
            mask: Which items may be in a list, bool, shape (N,); all where None.
        """
        more = {} if mask is None else {"mask": mask}
        if self.about["kind"] == "sessions":
            return self._whole([session[-self.about["max_length"] :] for session in sessions], more)
        return self._step_by_step(sessions, more)

    def _whole(self, sessions: Sequence[Sequence[int]], more: dict[str, np.ndarray]) -> list[tuple[Any, Any]]:
        lengths = np.array([len(session) for session in sessions], dtype=np.int64)
        items = np.zeros((len(sessions), int(lengths.max())), dtype=np.int64)
        for row, session in zip(items, sessions, strict=True):
            row[: len(session)] = session
        outputs = self._run({"items": items, "lengths": lengths, **more})
        return list(zip(outputs["items_out"], outputs["scores"], strict=True))

    def _step_by_step(self, sessions: Sequence[Sequence[int]], more: dict[str, np.ndarray]) -> list[tuple[Any, Any]]:
        found: list[Any] = [None] * len(sessions)
        states = {
            f"state_{number}": np.zeros((len(sessions), size), dtype=np.float32)
            for number, size in enumerate(self.about["layers"])
        }
        for place in range(max(map(len, sessions))):
            live = [row for row, session in enumerate(sessions) if len(session) > place]
            item = np.array([sessions[row][place] for row in live], dtype=np.int64)
            outputs = self._run({"item": item, **{name: state[live] for name, state in states.items()}, **more})
            for name, state in states.items():
                state[live] = outputs[name.replace("state_", "state_out_")]
            for number, row in enumerate(live):
                if len(sessions[row]) == place + 1:
                    found[row] = outputs["items_out"][number], outputs["scores"][number]
        return found

    def _run(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        return dict(zip(self._names, self._runtime.run(None, inputs), strict=True))
