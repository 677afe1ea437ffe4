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
    :math:`v = \mu v - \eta\, g / \sqrt{a}`, :math:`p \mathrel{+}= v`. The accumulator :math:`a` starts at
    :math:`\epsilon`, which so stands inside the root, and the momentum :math:`v` at 0. A parameter whose gradient is
    sparse (rows of an embedding table) is updated in the gradient's rows only; the other rows keep weight, accumulator
    and momentum. ``torch.optim.Adagrad`` is another method: its epsilon stands outside the root, and it has no
    momentum.

    A sparse gradient that says it is coalesced is taken as it is; the rows of another one are summed up first, without
    a sort and without waiting for the device, so that a step can be captured in a CUDA graph.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate :math:`\eta`; a scalar tensor, set in the parameter groups, is read at every step.
        momentum: Momentum :math:`\mu`.
        eps: First value :math:`\epsilon` of the accumulator.

    References:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011; the optimiser of the GRU4Rec papers.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 0.05, momentum: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; what the closure, which computes gradients first, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    def update(self) -> None:
        """`step` where no gradients are recorded, without the hooks and the profiling that torch wraps around it."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, lr, momentum = self.state[parameter], group["lr"], group["momentum"]
        if not state:
            state["accumulator"] = torch.full_like(parameter, group["eps"])
        if momentum and "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        if gradient.is_sparse:
            self._update_rows(parameter, gradient, state, lr, momentum)
            return
        step = state["accumulator"].addcmul_(gradient, gradient).rsqrt().mul_(gradient)
        if isinstance(lr, Tensor):  # which a captured graph can read, and `alpha` cannot be
            step, lr = step.mul_(lr), 1.0
        if momentum:
            parameter.add_(state["momentum"].mul_(momentum).sub_(step, alpha=lr))
        else:
            parameter.sub_(step, alpha=lr)

    def _update_rows(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float | Tensor, momentum: float
    ) -> None:
        rows, values = gradient._indices()[0], gradient._values()
        if parameter.shape[1:].numel() == 1:  # torch takes much longer over rows of one element than over elements
            parameter, values = parameter.view(-1), values.view(-1)
            state = {name: value.view(-1) for name, value in state.items()}
        if not gradient.is_coalesced():  # every copy of a row gets the sum of all, before it is squared
            # whichever copy a device writes last stands for all; to find the first one takes a GPU five times as long
            places = rows.new_empty(len(parameter)).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
            chosen = places.index_select(0, rows)
            values = torch.zeros_like(values).index_add_(0, chosen, values).index_select(0, chosen)
        accumulator = gather_rows(state["accumulator"], rows).addcmul_(values, values)
        state["accumulator"].index_copy_(0, rows, accumulator)
        change = accumulator.rsqrt_().mul_(values).mul_(-lr)
        if momentum:
            change.add_(gather_rows(state["momentum"], rows), alpha=momentum)
            state["momentum"].index_copy_(0, rows, change)
        parameter.index_copy_(0, rows, gather_rows(parameter, rows).add_(change))  # copies of a row write the same


class JoinedOptimizers(Optimizer):
    """Several optimisers, each of its own parameters, as one.

    The parameter groups are theirs, so that a learning rate that is set reaches them. ``rate_factor`` in a group is its
    learning rate over that of the first group: what is set for all of them is multiplied by it.

    Args:
        parts: The optimisers.
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([{"params": group["params"]} for part in parts for group in part.param_groups], {})
        self._share_groups()
        for group in self.param_groups:
            group["rate_factor"] = group["lr"] / self.param_groups[0]["lr"]

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the step of each; what the closure, which computes gradients first, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """State of each."""
        return {"parts": [part.state_dict() for part in self.parts], "state": {}, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of each."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Copy some rows, int64, shape (R,), of a table of floats, shape (N, H) or (N,)."""
    if table.device.type != "cpu" or table.dim() == 1:
        return table.index_select(0, rows)
    # as bags of one row each, for which torch reads ahead: in a table that does not fit the cache that is faster
    return torch.embedding_bag(table, rows, torch.arange(len(rows)), mode=0)[0]


def first_occurrence(values: Tensor, table: Tensor) -> Tensor:
    """Place of the first number equal to each of some whole numbers from 0 up, int64, shape (R,).

    The table is memory to work in, longer than the largest number, int32 or int64; the smaller, the faster.

    Example:
        >>> first_occurrence(torch.tensor([4, 2, 4, 4, 2, 0]), torch.empty(5, dtype=torch.int64))
        tensor([0, 1, 0, 0, 1, 5])
    """
    places = torch.arange(len(values), dtype=table.dtype, device=values.device)
    # only what is written is read: the table's content does not matter
    return table.scatter_reduce_(0, values, places, "amin", include_self=False).index_select(0, values).long()
