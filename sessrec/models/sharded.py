"""Training in several processes, each of which keeps its part of the item tables alone."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from sessrec.distributed import LanesStrategy
from sessrec.errors import SessRecError
from sessrec.nn.row_shards import RowShards


class ShardedTables:
    """Beside `NeuralRecommender`, a model whose ``item_rows`` can be shared out over processes."""

    item_rows: tuple[str, ...]
    n_items: int
    warm_start: Any
    shards: RowShards | None = None
    """How the rows are shared out; None where each process has all."""
    _whole: dict[str, Tensor] = {}  # tables that are put together for an evaluation

    def tables(self) -> dict[str, nn.Parameter]:
        """The parameters with a row for each item."""
        return {name: getattr(self, name) for name in self.item_rows if hasattr(self, name)}

    def shard_tables(self) -> None:
        """Keep this process's rows of the tables alone."""
        self.shards = RowShards(self.n_items)
        for table in self.tables().values():
            table.data = self.shards.part(table.data)

    def whole_tables(self) -> dict[str, Tensor]:
        """Tables that are shared out, whole, in the memory of the CPU; to be called by all processes."""
        shards = self.shards
        return {} if shards is None else {name: shards.whole(table.data) for name, table in self.tables().items()}

    def whole_table(self, name: str) -> Tensor:
        """A table that an evaluation can take all rows of."""
        return self._whole.get(name, getattr(self, name))

    @property
    def id_embedding(self) -> Tensor:
        """The items' own vectors, shape (N, H)."""
        return self.whole_table(self.item_rows[0])

    def keep_own_rows(self) -> None:
        """Keep the gradients of the rows that are here."""
        if self.shards is None:
            return
        for table in self.tables().values():
            if table.grad is not None:
                table.grad = self.shards.own_gradient(table.grad, table.shape)

    def on_validation_start(self) -> None:
        """Put the tables together."""
        self._whole = self.whole_tables()

    def on_validation_end(self) -> None:
        """Forget the whole tables."""
        self._whole = {}

    def on_fit_end(self) -> None:
        """Have whole tables again."""
        for name, table in self.whole_tables().items():
            getattr(self, name).data = table
        self.shards = None


def taken(table: Tensor, items: slice | Tensor, device: torch.device | None = None) -> Tensor:
    """Rows of a table, (n, ...), on a device, which need not be that of the table; by default that of the items."""
    if isinstance(items, Tensor):
        device, items = device or items.device, items.to(table.device)
    return table[items].to(device)


class ShardedStrategy(LanesStrategy):
    """`LanesStrategy` for tables that are larger than a GPU: each of R processes keeps 1 / R of their rows.

    Weights and optimiser state of a table are shared out while a model is trained. Checkpoints hold whole tables, so
    that any number of processes can resume from them; they are put together in the memory of the CPU, as is the table
    that a validation ranks by.
    """

    def connect(self, model: LightningModule) -> None:
        """Take the model.

        Raises:
            SessRecError: If its tables cannot be shared out.
        """
        if not isinstance(model, ShardedTables):
            raise SessRecError(f"--trainer.strategy sharded is for GRU4Rec, not for {type(model).__name__}: take ddp")
        if getattr(model, "uses_features", False):
            raise SessRecError("--trainer.strategy sharded knows no --model.features: take ddp")
        if model.warm_start is not None:
            raise SessRecError("--init_from needs --trainer.strategy ddp: the state that it brings is of whole tables")
        super().connect(model)

    def setup(self, trainer: Trainer) -> None:
        """Share the tables out before a fit moves them to its device and makes the optimiser."""
        if trainer.state.fn == "fit":
            self._sharded.shard_tables()
        super().setup(trainer)

    def common_tensors(self, model: LightningModule) -> list[Tensor]:
        """All but the tables, whose first rows follow from the seed that all processes have."""
        own = {id(table) for table in self._sharded.tables().values()}
        return [tensor for tensor in super().common_tensors(model) if id(tensor) not in own]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights of the model, with whole tables; to be called by all processes."""
        return super().lightning_module_state_dict() | self._sharded.whole_tables()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State of the optimiser, for whole tables; to be called by all processes."""
        state = super().optimizer_state(optimizer)
        shards = self._sharded.shards
        return state if shards is None else self._of_tables(optimizer, state, shards.whole)

    def load_optimizer_state_dict(self, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Load this process's part of the state."""
        shards = self._sharded.shards
        if shards is not None:
            pairs = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
            own = [self._of_tables(optimizer, state, shards.part) for optimizer, state in pairs]
            checkpoint = checkpoint | {"optimizer_states": own}
        super().load_optimizer_state_dict(checkpoint)

    @property
    def _sharded(self) -> ShardedTables:
        model = self.lightning_module
        assert isinstance(model, ShardedTables)
        return model

    def _of_tables(self, optimizer: Optimizer, state: dict[str, Any], change: Any) -> dict[str, Any]:
        """An optimiser's state in which that of the tables is changed."""
        tables = {id(table) for table in self._sharded.tables().values()}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        changed = dict(state["state"])
        for number, parameter in enumerate(parameters):
            if id(parameter) in tables and number in changed:
                changed[number] = {name: _changed(value, change) for name, value in changed[number].items()}
        return state | {"state": changed}


def _changed(value: Any, change: Any) -> Any:
    return change(value) if isinstance(value, Tensor) and value.dim() else value
