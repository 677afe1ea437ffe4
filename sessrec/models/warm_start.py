"""Begin a fit with the weights of an earlier one, whose items may be others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.features.encoder import FeatureEncoder
from sessrec.models.compatibility import check_class


def grown_vocabulary(old: Vocabulary, new: Vocabulary, drop: bool = False, adds: bool = False) -> Vocabulary:
    """The items of an earlier fit, in their order, and then those that only the new log has.

    Counts and first times are those of the new log, a count of 0 for items that it lacks; first times of known items
    are the earlier of both.

    Args:
        old: Items of the earlier fit.
        new: Items of the new log.
        drop: Whether items that the new log lacks are left out.
        adds: Whether counts are those of both logs together.

    Example:
        >>> old, new = Vocabulary(["a", "b"], np.array([5, 1])), Vocabulary(["c", "a"], np.array([2, 3]))
        >>> grown = grown_vocabulary(old, new)
        >>> grown.item_ids, grown.counts.tolist()
        (['a', 'b', 'c'], [3, 0, 2])
        >>> grown_vocabulary(old, new, drop=True).item_ids
        ['a', 'c']
    """
    in_new, in_old = new.index_of(old.item_ids), old.index_of(new.item_ids)
    kept = np.flatnonzero(in_new >= 0) if drop else np.arange(len(old))
    added = np.flatnonzero(in_old < 0)
    item_ids = [*(old.item_ids[item] for item in kept), *(new.item_ids[item] for item in added)]
    counts = np.concatenate([np.where(in_new[kept] >= 0, new.counts[in_new[kept]], 0), new.counts[added]])
    counts[: len(kept)] += old.counts[kept] if adds else 0
    first_times = None
    if new.first_times is not None:
        of_kept = np.where(in_new[kept] >= 0, new.first_times[in_new[kept]], np.inf)
        if old.first_times is not None:
            of_kept = np.fmin(of_kept, old.first_times[kept])  # one of an item without a click is NaN
        first_times = np.concatenate([of_kept, new.first_times[added]])
    return Vocabulary(item_ids, counts, first_times)


class WarmStart:
    """Weights and optimiser state of a checkpoint, for a model that knows more items, or other ones.

    Args:
        checkpoint: What `read_checkpoint` has read.

    Raises:
        SessRecError: If the checkpoint is of a model without weights.
    """

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        self.vocabulary = Vocabulary.from_state_dict(checkpoint["vocabulary"])
        self._checkpoint, self._weights = checkpoint, checkpoint["state_dict"]
        items = checkpoint.get("items")
        self.encoder = None if items is None else FeatureEncoder.from_state_dict(items["encoder"])
        """How features were encoded, which the fit goes on with; None where there were none."""
        self._optimizer: Any = next(iter(checkpoint.get("optimizer_states", [])), None)
        if "added_items" in checkpoint:
            raise SessRecError("--init_from: sessrec items has added items to that checkpoint: give the one before")
        if self._optimizer is None:
            name = checkpoint["class_path"].rpartition(".")[2]
            raise SessRecError(f"--init_from takes a model that is trained by gradients, and {name} is none")

    def copy_weights(self, model: Any) -> int:
        """Give a model the weights: rows of the items that both know, and all that does not hang on items.

        Returns:
            Number of items that both know.

        Raises:
            SessRecError: If the model is of another class, or of other sizes.
        """
        check_class(self._checkpoint, type(model))
        self._check_features(model)
        for name, value in model.state_dict().items():
            if name == "folded":  # which follows from the others
                continue
            old, rows = self._weights.get(name), self._rows_of(name, model)
            n_free = int(rows is not None)  # dimensions that may differ
            if old is None or old.shape[n_free:] != value.shape[n_free:]:
                found = "nothing" if old is None else list(old.shape)
                raise SessRecError(f"--init_from has {found} for {name}, and the options want {list(value.shape)}")
            if rows is not None:
                value[rows[0]] = old[rows[1]].to(value)
            else:
                value.copy_(old)
        return len(self._rows(model.vocabulary)[0])

    def state_for(self, optimizer: Optimizer, model: Any) -> dict[str, Any]:
        """State of the optimiser, with rows for the model's items; those of new items are as at the start of a fit."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def grown(state: Mapping[str, Any], own: Optimizer) -> dict[str, Any]:
            parameters = [parameter for group in own.param_groups for parameter in group["params"]]
            found = {}
            for number, parameter in enumerate(parameters):
                kept = state["state"].get(number, {})
                rows = self._rows_of(names[id(parameter)], model)
                found[number] = {
                    name: value if rows is None else self._grown(value, parameter, name, own, rows)
                    for name, value in kept.items()
                }
            return own.state_dict() | {"state": found}

        parts: Sequence[Optimizer] | None = getattr(optimizer, "parts", None)
        if parts is None:
            return grown(self._optimizer, optimizer)
        states = [grown(state, part) for state, part in zip(self._optimizer["parts"], parts, strict=True)]
        return optimizer.state_dict() | {"parts": states}

    @staticmethod
    def _grown(value: Any, parameter: Tensor, name: str, optimizer: Optimizer, rows: tuple[Tensor, Tensor]) -> Any:
        if not isinstance(value, Tensor) or value.dim() != parameter.dim():
            return value  # a number of steps
        start = optimizer.param_groups[0]["eps"] if name == "accumulator" else 0.0
        grown = torch.full_like(parameter, start)
        grown[rows[0]] = value[rows[1]].to(grown)
        return grown.detach()

    def _check_features(self, model: Any) -> None:
        """Refuse other features than those of the earlier fit: what was learnt of a column is of no use to another."""
        before, now = (
            {name: wanted for name, wanted in (options.get("features") or {}).items() if wanted}
            for options in (self._checkpoint["hyper_parameters"], model.hparams)
        )
        kinds = [
            [(name, type(own).__name__) for name, own in getattr(encoder, "encoders", {}).items()]
            for encoder in (self.encoder, getattr(model, "encoder", None))
        ]
        if list(before.items()) != list(now.items()) or kinds[0] != kinds[1]:
            raise SessRecError(f"--init_from was fitted with --model.features {before}, not {now}: give the same")

    def _rows_of(self, name: str, model: Any) -> tuple[Tensor, Tensor] | None:
        """Rows of a parameter, in the model and in the checkpoint, that stand for the same; None where it has none."""
        if name in model.item_rows:
            return self._rows(model.vocabulary)
        if name.startswith("item_features.tables."):  # whose new categories come after those of the earlier fit
            same = torch.arange(len(self._weights.get(name, ())))
            return same, same
        return None

    def _rows(self, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Indices of the items that both know, in the model and in the checkpoint."""
        there = self.vocabulary.index_of(vocabulary.item_ids)
        here = np.flatnonzero(there >= 0)
        return torch.from_numpy(here), torch.from_numpy(there[here])
