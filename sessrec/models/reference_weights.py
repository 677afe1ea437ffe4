"""Import weights that the reference implementation of GRU4Rec (hidasib/GRU4Rec_PyTorch_Official) has trained.

Only a ``state_dict`` of tensors is read: nothing is ever unpickled.
"""

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
_TABLES = {"Wy.weight": "output_embedding", "By.weight": "output_bias"}  # a row an item
_ONE_HOT_CELL = {"GE.Wrz0": "weight_rz", "GE.Wh0": "weight_n", "GE.Bh0": "bias"}
_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_OPTIONS = "give --model.layers, --model.constrained_embedding and --model.embedding as they were in its training"


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Read a ``state_dict`` that was saved with ``torch.save``; nothing in the file is executed.

    Args:
        file: The file.

    Returns:
        The tensors by their names, on the CPU.

    Raises:
        SessRecError: If there is no such file, it is damaged, or it holds anything but tensors by name.
    """
    file = Path(file)
    if not file.is_file():
        raise SessRecError(f"there is no file {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
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
    rows = _rows_of(model, item_ids)
    names = _parameter_names(model, state_dict)
    parameters = dict(model.named_parameters())
    for name, own in names.items():
        if name not in state_dict:
            expected = tuple(parameters[own].shape)
            raise SessRecError(f"the weights have no {name}, which should be of shape {expected}: {_OPTIONS}")
    for name, weight in state_dict.items():
        if name not in names:
            raise SessRecError(f"the weights' {name}, of shape {tuple(weight.shape)}, has no place here: {_OPTIONS}")
        _check(name, weight, parameters[names[name]])
    with torch.no_grad():
        for name, own in names.items():
            is_table = own in ("input_embedding", *_TABLES.values())
            parameters[own].copy_(state_dict[name][rows] if is_table else state_dict[name])


def _check(name: str, weight: Tensor, parameter: Tensor) -> None:
    """Refuse a tensor that does not fit the parameter."""
    found, expected = tuple(weight.shape), tuple(parameter.shape)
    if found != expected:
        is_other_catalogue = found[1:] == expected[1:] and name in (*_TABLES, "E.weight", "GE.Wx0.weight")
        what = (
            "give the click log, the --data options and the items of its training" if is_other_catalogue else _OPTIONS
        )
        raise SessRecError(f"the weights' {name} is of shape {found} and the model needs {expected}: {what}")
    if not weight.is_floating_point() or not weight.isfinite().all():
        raise SessRecError(
            f"the weights' {name}, of shape {found}, must be of finite floating-point numbers: train and export anew"
        )


def _rows_of(model: GRU4Rec, item_ids: Sequence[str]) -> Tensor:
    """Row of the reference's tables for each item of the model's vocabulary, int64, shape (N,)."""
    vocabulary = model.vocabulary
    index = vocabulary.index_of(item_ids)
    remedy = "give the items of the weights, and the click log and --data options that they were trained on"
    if (index < 0).any():
        row = int(np.argmax(index < 0))
        raise SessRecError(f"item {item_ids[row]!r}, row {row} of the weights, is not known to the model: {remedy}")
    times = np.bincount(index, minlength=len(vocabulary))
    if (times != 1).any():
        item = int(np.argmax(times != 1))
        raise SessRecError(
            f"item {vocabulary.item_ids[item]!r} is named {times[item]} times among the {len(item_ids)} items of the "
            f"weights, and should be once: {remedy}"
        )
    return torch.from_numpy(np.argsort(index))


def _parameter_names(model: GRU4Rec, names: Mapping[str, Tensor]) -> dict[str, str]:
    """Our name of each tensor that the reference has for such a model."""
    found, first_plain = dict(_TABLES), 0
    if model.one_hot:
        found["GE.Wx0.weight"], first_plain = "input_embedding", 1
        found |= {name: f"cells.0.{part}" for name, part in _ONE_HOT_CELL.items()}
    elif not model.shared_inputs:
        found["E.weight"] = "input_embedding"
    # above a one-hot layer the cells may be counted from 0 or from 1; their order is the same
    from_zero = any(name.startswith("G.0.") for name in names)
    skipped = first_plain if from_zero else 0
    for layer in range(first_plain, len(model.layers)):
        found |= {f"G.{layer - skipped}.{part}": f"cells.{layer}.{part}" for part in _CELL}
    return found
