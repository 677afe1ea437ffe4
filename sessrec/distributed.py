"""Several processes that train one model, each on its own part of every step.

All processes read the same batch and draw the same negatives, so each one knows the whole step: which items it looks
up, and in which order. A process computes the gradients of its own lanes or sessions, the processes add them up, and
each makes the same update. So R processes of B lanes train as one process of R x B lanes does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn


class LanesStrategy(DDPStrategy):
    """Lightning's ``ddp`` without its wrapper, which would keep and exchange a dense gradient of every item table."""

    def configure_ddp(self) -> None:
        """Give all processes the weights of the first one; from there on all make the same updates."""
        assert isinstance(self.model, LightningModule)
        if dist.is_initialized():
            for tensor in self.common_tensors(self.model):
                dist.broadcast(tensor.detach(), src=0)

    def common_tensors(self, model: LightningModule) -> list[Tensor]:
        """Weights and buffers that are the same in all processes."""
        return [*model.parameters(), *model.buffers()]


def _let_others_run() -> None:
    """Give the core to the threads that wait for it."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def n_processes() -> int:
    """Number of processes of this fit or evaluation."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def can_be_captured() -> bool:
    """Whether what the processes exchange can be part of a CUDA graph; where there is one, there is nothing."""
    return n_processes() == 1 or dist.get_backend() == "nccl"


def process_rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum of the tensors that all processes give, of the same shape in each; in place."""
    if n_processes() == 1:
        return tensor
    if tensor.is_cuda:
        dist.all_reduce(tensor)
        return tensor
    # a core that sleeps in the meantime takes a millisecond to wake up, as long as a whole step
    work = dist.all_reduce(tensor, async_op=True)
    while not work.is_completed():
        _let_others_run()
    work.wait()  # and raise what has gone wrong
    return tensor


def greatest_of_processes(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The greatest of the numbers that the processes give, place by place."""
    if n_processes() == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def own_part(n: int) -> slice:
    """This process's part of n things, next to each other and as many for each as can be."""
    return part_of(n, process_rank(), n_processes())


def part_of(n: int, rank: int, n_ranks: int) -> slice:
    """The part of n things that one of several processes takes.

    Example:
        >>> [part_of(5, rank, 2) for rank in range(2)]
        [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(rank * n // n_ranks, (rank + 1) * n // n_ranks)


def join_rows(own: Tensor) -> Tensor:
    """The rows of all processes one after the other, from the same number of rows in each."""
    if n_processes() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(n_processes())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, which have the same shapes, and the same rows where they are sparse.

    All of them travel at once, and nothing of the size of a table does.
    """
    own = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    values = [gradient._values() if gradient.is_sparse else gradient for _, gradient in own]
    total = sum_over_processes(torch.cat([value.reshape(-1) for value in values]))
    parts = total.split([value.numel() for value in values])
    for (parameter, gradient), value, part in zip(own, values, parts, strict=True):
        part = part.view_as(value)
        if gradient.is_sparse:
            part = gradient_of_rows(gradient._indices()[0], part, gradient.shape, gradient.is_coalesced())
        parameter.grad = part


def gradient_of_rows(rows: Tensor, values: Tensor, shape: torch.Size, distinct: bool) -> Tensor:
    """Sparse gradient of a table of some shape, of rows, int64, (U,), with values, (U, ...), distinct or not."""
    return torch.sparse_coo_tensor(rows[None], values, shape, is_coalesced=distinct, check_invariants=False)


def exchange_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of all gradients, which may have other rows in each, or be missing.

    A gradient that some process has is left in all of them: in rows where it is sparse in each, else as a whole. Rows
    that two processes have stay two.
    """
    own = [_n_rows(parameter) for parameter in parameters]
    counts = join_rows(torch.tensor([own], device=parameters[0].device)).T.tolist()  # of each parameter, by process
    dense = []
    for parameter, of_processes in zip(parameters, counts, strict=True):
        if _WHOLE in of_processes:
            dense.append(parameter)
            if parameter.grad is None or parameter.grad.is_sparse:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
        elif max(of_processes) > _NONE:
            _exchange_rows(parameter, [max(count, 0) for count in of_processes])
    if dense:
        sum_gradients(dense)


_WHOLE, _NONE = -2, -1


def _n_rows(parameter: nn.Parameter) -> int:
    """Number of rows of a sparse gradient, or what stands for another one."""
    if parameter.grad is None:
        return _NONE
    return parameter.grad._nnz() if parameter.grad.is_sparse else _WHOLE


def _exchange_rows(table: nn.Parameter, counts: list[int]) -> None:
    """Put the rows of all processes one after the other; rows that two of them have stay two."""
    own, most = counts[process_rank()], max(counts)
    rows = torch.zeros(most, dtype=torch.int64, device=table.device)
    values = table.new_zeros(most, *table.shape[1:])
    if own:
        assert table.grad is not None
        rows[:own], values[:own] = table.grad._indices()[0], table.grad._values()
    is_filled = torch.cat([torch.arange(most, device=table.device) < count for count in counts])
    rows, values = join_rows(rows)[is_filled], join_rows(values)[is_filled]
    table.grad = gradient_of_rows(rows, values, table.shape, distinct=False)
