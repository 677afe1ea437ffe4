"""Import weights that the reference implementation of GRU4Rec (hidasib/GRU4Rec_PyTorch_Official) has trained."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec

EXPORT = (
    "import torch; whole = torch.load({file!r}, weights_only=False); torch.save(next(part for part in [whole, "
    "*vars(whole).values()] if isinstance(part, torch.nn.Module) and 'Wy.weight' in part.state_dict()).state_dict(), "
    "'weights.pt')"
)
"""Python that turns a whole pickled model into a file of tensors, where the reference's own code is at hand."""
_TABLES = {"Wy.weight", "By.weight", "E.weight", "GE.Wx0.weight"}  # a row an item
_OPTIONS = "give --model.layers, --model.constrained_embedding and --model.embedding as they were in its training"
_LOG = "give the click log, the --data options and the items of its training"


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Read a ``state_dict`` that was saved with ``torch.save``, to the CPU; nothing in the file is executed.

    Raises:
        SessRecError: If there is no such file, it is damaged, or it holds anything but tensors by name.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SessRecError(f"there is no file {file}") from None
    except pickle.UnpicklingError:
        raise SessRecError(
            f"{file} holds a whole pickled object, as the reference's own saving makes, or is no file of torch; it is "
            "not opened, for that can run any code. Export the tensors in the environment that it was made in, in the "
            f"reference's folder, with python: {EXPORT.format(file=str(file))}"
        ) from None
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise SessRecError(f"cannot read {file}: it is damaged or no file of torch ({type(error).__name__})") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SessRecError(f"{file} holds a {type(content).__name__} and no state_dict: save model.state_dict() alone")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise SessRecError(
                f"{file} holds {name}, which is a {type(value).__name__} and no tensor: save model.state_dict() alone"
            )
    return content


def import_weights(model: GRU4Rec, state_dict: Mapping[str, Tensor], item_ids: Sequence[str]) -> None:
    """Copy weights with the reference's names into a model; where anything does not fit, nothing is copied.

    Args:
        model: A model that has its vocabulary, with the layers and embeddings that the weights were trained with.
        state_dict: The reference's tensors: ``Wy.weight``, ``By.weight``, ``E.weight``, ``G.0.weight_ih``, ...
        item_ids: Item id of each row of the reference's tables, which numbers the items in order of first appearance;
            rows are brought into the order of the model's vocabulary by these.

    Raises:
        SessRecError: If a tensor is missing, has no place in the model, is of another shape, or is not finite; or if
            the items are not those of the model.
    """
    rows, parameters = _rows_of(model, item_ids), dict(model.named_parameters())
    own = {name: parameters[place] for name, place in _places(model, state_dict).items()}
    if missing := own.keys() - state_dict.keys():
        name = min(missing)
        raise SessRecError(f"the weights have no {name}, which should be of shape {tuple(own[name].shape)}: {_OPTIONS}")
    for name, weight in state_dict.items():
        found = f"the weights' {name}, of shape {tuple(weight.shape)},"
        if name not in own:
            raise SessRecError(f"{found} has no place here: {_OPTIONS}")
        if weight.shape != own[name].shape:
            is_other_catalogue = name in _TABLES and weight.shape[1:] == own[name].shape[1:]
            remedy = _LOG if is_other_catalogue else _OPTIONS
            raise SessRecError(f"{found} has to be of shape {tuple(own[name].shape)}: {remedy}")
        if not weight.is_floating_point() or not weight.isfinite().all():
            raise SessRecError(f"{found} must be of finite floating-point numbers: train and export anew")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state_dict[name][rows] if name in _TABLES else state_dict[name])


def _rows_of(model: GRU4Rec, item_ids: Sequence[str]) -> Tensor:
    """Row of the reference's tables for each item of the model's vocabulary, int64, shape (N,)."""
    vocabulary = model.vocabulary
    index = vocabulary.index_of(item_ids)
    if (index < 0).any():
        row = int(np.argmax(index < 0))
        raise SessRecError(f"item {item_ids[row]!r}, row {row} of the weights, is not known to the model: {_LOG}")
    times = np.bincount(index, minlength=len(vocabulary))
    if (times != 1).any():
        item = int(np.argmax(times != 1))
        raise SessRecError(
            f"item {vocabulary.item_ids[item]!r} is named {times[item]} times among the {len(item_ids)} items of the "
            f"weights, and should be once: {_LOG}"
        )
    return torch.from_numpy(np.argsort(index))


def _places(model: GRU4Rec, names: Mapping[str, Tensor]) -> dict[str, str]:
    """Our name of each tensor that the reference has for such a model."""
    found, first = {"Wy.weight": "output_embedding", "By.weight": "output_bias"}, 0
    if model.one_hot:
        first = 1
        found |= {"GE.Wx0.weight": "input_embedding", "GE.Bh0": "cells.0.bias"}
        found |= {"GE.Wrz0": "cells.0.weight_rz", "GE.Wh0": "cells.0.weight_n"}
    elif not model.shared_inputs:
        found["E.weight"] = "input_embedding"
    # above a one-hot layer the cells may be counted from 0 or from 1; their order is the same
    skipped = first if any(name.startswith("G.0.") for name in names) else 0
    for layer in range(first, len(model.layers)):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            found[f"G.{layer - skipped}.{part}"] = f"cells.{layer}.{part}"
    return found
