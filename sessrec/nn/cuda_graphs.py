"""Windows of training steps captured as CUDA graphs: a GPU then waits for no launches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = Sequence[Tensor | None]
Call = Callable[[], object]
Run = Callable[[Tensors], Tensor]
"""Takes the steps of a window from tensors, changes weights and states in place, and gives the loss of each step."""


class CapturedRun:
    """Runs a function on tensors of some few shapes, each captured once and then replayed.

    A graph repeats the very kernels that were captured on the very memory: it reads its own copies of the tensors, and
    everything else that the function uses (weights, optimiser state, hidden states) must stay where it is. The first
    run of a shape is made as usual, as a warm-up in which libraries set themselves up; the second is captured.

    Args:
        run: The function; it must not wait for the device, and not depend on anything but tensors and the key.
        capture: Captures a call without making it, and gives what replays it.
    """

    def __init__(self, run: Run, capture: Callable[[Call], Call] | None = None) -> None:
        self._run = run
        self._capture = capture or _CudaGraphs()
        self._settings: Hashable = None
        self._warm: dict[Hashable, Tensor] = {}  # what the first run of each shape gave
        self._captured: dict[Hashable, tuple[Tensors, Tensor, Call]] = {}

    def __call__(self, tensors: Tensors, settings: Hashable = None) -> Tensor:
        """Run the function.

        Args:
            tensors: What the function reads; their shapes choose the graph.
            settings: Numbers that the function uses as they are at the time of the capture, such as a learning rate:
                others are captured anew.
        """
        if settings != self._settings:
            self._settings = settings
            self._warm.clear()
            self._captured.clear()
        key = tuple(None if tensor is None else tensor.shape for tensor in tensors)
        if key not in self._warm:
            self._warm[key] = self._run(tensors)
            return self._warm[key].clone()
        if key not in self._captured:
            self._captured[key] = self._capture_run(tensors, torch.empty_like(self._warm[key]))
        own_tensors, result, replay = self._captured[key]
        for own, tensor in zip(own_tensors, tensors, strict=True):
            if own is not None and tensor is not None:
                own.copy_(tensor)
        replay()
        return result.clone()

    def _capture_run(self, tensors: Tensors, result: Tensor) -> tuple[Tensors, Tensor, Call]:
        own_tensors = [None if tensor is None else tensor.clone() for tensor in tensors]
        return own_tensors, result, self._capture(lambda: result.copy_(self._run(own_tensors)))


class _CudaGraphs:
    """Captures calls as CUDA graphs that share their memory: nothing in it is of use after a replay."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Call) -> Call:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        self._pool = graph.pool()
        return graph.replay
