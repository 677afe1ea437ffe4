"""Tables whose rows are shared out over the processes of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sessrec.distributed import gradient_of_rows, n_processes, process_rank, sum_over_processes

_ROWS = 1 << 16  # that are brought together at a time


class RowShards:
    """Tables of which row i is on the process i modulo R, at the place i // R.

    Args:
        n_rows: Number of rows of the whole tables, N.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows, self.rank, self.n_ranks = n_rows, process_rank(), n_processes()

    def part(self, table: Tensor) -> Tensor:
        """Copy this process's rows of a whole table, (N, ...)."""
        return table[self.rank :: self.n_ranks].clone()

    def gather(self, parts: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
        """Rows of tables, which all processes ask for at a time.

        Args:
            parts: This process's part of each table, shapes (n, width).
            rows: Numbers of the rows, int64, shape (U,), the same in all processes.

        Returns:
            The rows of each, shapes (U, width).
        """
        own, places = self.own(rows)
        widths = [part.shape[1] for part in parts]
        block = parts[0].new_zeros(len(rows), sum(widths))  # (U, all widths)
        block.index_copy_(0, own, torch.cat([part.index_select(0, places) for part in parts], dim=1))
        return [of_table.contiguous() for of_table in sum_over_processes(block).split(widths, dim=1)]

    def own(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of some rows, int64, (U,), are here, and their places in this process's part; both int64."""
        own = (rows % self.n_ranks == self.rank).nonzero()[:, 0]
        return own, rows.index_select(0, own) // self.n_ranks

    def own_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """This process's part of a sparse gradient of rows of the whole table."""
        own, places = self.own(gradient._indices()[0])
        values = gradient._values().index_select(0, own)
        return gradient_of_rows(places, values, shape, gradient.is_coalesced())

    def whole(self, part: Tensor) -> Tensor:
        """The whole table, (N, ...), in the memory of the CPU, from the parts of all processes."""
        table = torch.empty(self.n_rows, *part.shape[1:], dtype=part.dtype)
        for start in range(0, self.n_rows, _ROWS):
            rows = torch.arange(start, min(start + _ROWS, self.n_rows), device=part.device)
            own, places = self.own(rows)
            block = part.new_zeros(len(rows), *part.shape[1:])
            block[own] = part[places]
            table[start : start + len(rows)] = sum_over_processes(block).cpu()
        return table
