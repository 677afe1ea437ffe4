"""Several processes that train one model, each on lanes of its own.

Every process takes its own lanes of each session-parallel step and works out their gradients; these are summed up over
the processes, and every process makes the same update. Rows of the item tables travel as rows: nothing of the size of
a table does.
"""

from __future__ import annotations

from collections.abc import Sequence

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
            for tensor in [*self.model.parameters(), *self.model.buffers()]:
                dist.broadcast(tensor.detach(), src=0)


def n_processes() -> int:
    """Number of processes of this fit or evaluation."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum of the tensors that all processes give, of the same shape in each; in place."""
    if n_processes() > 1:
        dist.all_reduce(tensor)
    return tensor


def greatest_of_processes(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The greatest of the numbers that the processes give, place by place."""
    if n_processes() == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def join_lanes(own: Tensor) -> Tensor:
    """The rows of all processes one after the other, from the same number of rows in each."""
    if n_processes() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(n_processes())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)


def exchange_gradients(tables: Sequence[nn.Parameter], others: Sequence[nn.Parameter], takes_part: bool) -> bool:
    """Give every process the sum of all processes' gradients; all have to call it for every step.

    Args:
        tables: Parameters whose gradients are sparse, in rows.
        others: Parameters whose gradients are dense.
        takes_part: Whether this process has learnt something in the step; otherwise it has no gradients to give.

    Returns:
        Whether any process takes part; if none does, there is no update to make.
    """
    n_rows = [table.grad._nnz() if takes_part and table.grad is not None else 0 for table in tables]
    counts = torch.tensor([[int(takes_part), *n_rows]], device=tables[0].device)
    all_counts = join_lanes(counts).tolist()
    if not any(count[0] for count in all_counts):
        return False
    for place, table in enumerate(tables, 1):
        _exchange_rows(table, [count[place] for count in all_counts])
    gradients = [p.grad if takes_part and p.grad is not None else torch.zeros_like(p) for p in others]
    total = sum_over_processes(torch.cat([gradient.flatten() for gradient in gradients]))
    for parameter, gradient in zip(others, total.split([p.numel() for p in others]), strict=True):
        parameter.grad = gradient.view_as(parameter)
    return True


def _exchange_rows(table: nn.Parameter, counts: list[int]) -> None:
    """Put the rows of all processes one after the other; rows that two of them have stay two."""
    own, most = counts[process_rank()], max(counts)
    rows = torch.zeros(most, dtype=torch.int64, device=table.device)
    values = table.new_zeros(most, *table.shape[1:])
    if own:
        assert table.grad is not None
        rows[:own], values[:own] = table.grad._indices()[0], table.grad._values()
    is_filled = torch.cat([torch.arange(most, device=table.device) < count for count in counts])
    rows, values = join_lanes(rows)[is_filled], join_lanes(values)[is_filled]
    table.grad = torch.sparse_coo_tensor(rows[None], values, table.shape, is_coalesced=False, check_invariants=False)
