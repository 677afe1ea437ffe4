"""Adagrad with momentum, on touched rows only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class AdagradMomentum(Optimizer):
    r"""Adagrad whose scaled step goes through a heavy-ball momentum.

    With gradient :math:`g`, for each weight: :math:`a \mathrel{+}= g^2`,
    :math:`v = \mu v - \eta\, g / \sqrt{a + \epsilon}`, :math:`p \mathrel{+}= v`. Accumulator and momentum start at 0. A
    parameter whose gradient is sparse (rows of an embedding table) is updated in the gradient's rows only; the other
    rows keep weight, accumulator and momentum. ``torch.optim.Adagrad`` is another method: its epsilon stands outside
    the root, and it has no momentum.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate :math:`\eta`.
        momentum: Momentum :math:`\mu`.
        eps: Constant :math:`\epsilon` inside the root.

    References:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011; the optimiser of the GRU4Rec papers.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 0.05, momentum: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes gradients and loss first, as in every torch optimiser.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["momentum"], group["eps"])
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, lr: float, momentum: float, eps: float) -> None:
        state = self.state[parameter]
        if not state:
            state["accumulator"] = torch.zeros_like(parameter)
        if momentum and "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        if gradient.is_sparse:
            gradient = gradient.coalesce()  # sums the gradients of a row met twice, before they are squared
            rows, gradient = gradient._indices()[0], gradient._values()
            accumulator = state["accumulator"].index_select(0, rows).addcmul_(gradient, gradient)
            state["accumulator"].index_copy_(0, rows, accumulator)
        else:
            rows, accumulator = None, state["accumulator"].addcmul_(gradient, gradient)
        step = (accumulator + eps).rsqrt_().mul_(gradient)
        if not momentum:
            _add(parameter, rows, step, -lr)
        elif rows is None:
            parameter.add_(state["momentum"].mul_(momentum).add_(step, alpha=-lr))
        else:
            velocity = step.mul_(-lr).add_(state["momentum"].index_select(0, rows), alpha=momentum)
            state["momentum"].index_copy_(0, rows, velocity)
            _add(parameter, rows, velocity, 1.0)


def _add(parameter: Tensor, rows: Tensor | None, change: Tensor, factor: float) -> None:
    if rows is None:
        parameter.add_(change, alpha=factor)
    else:
        parameter.index_add_(0, rows, change, alpha=factor)
