"""What a checkpoint of sessrec holds, and how one of an earlier release is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sessrec.errors import SessRecError

CHECKPOINT_FORMAT = 3
"""Version of the contents of a checkpoint; a file without one is of version 1."""

_PARTS = {"class_path", "epoch", "global_step", "hyper_parameters", "loops", "seed", "state_dict"}
_RENAMED = {"SASRec": {"hidden": "hidden_size", "blocks": "n_blocks", "heads": "n_heads"}, "GRU4Rec": {}}  # until 0.2
_REMOVED = {"logq_mode": "published", "exclude_target_copies": False}  # their defaults until 0.2


def read_checkpoint(file: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of sessrec, its tensors to a device; nothing in the file is executed.

    Raises:
        SessRecError: If the file is damaged, no checkpoint of sessrec, of a later one, or has an option that is gone.
    """
    try:
        checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise SessRecError(f"cannot read {file}: it is damaged or no checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "vocabulary" not in checkpoint:
        raise SessRecError(f"{file} is no checkpoint of sessrec")
    if missing := _PARTS - checkpoint.keys():
        raise SessRecError(f"{file} is no whole checkpoint of sessrec: it has no {min(missing)}")
    written = checkpoint.get("format", 1)
    if not isinstance(written, int) or written > CHECKPOINT_FORMAT:
        raise SessRecError(
            f"{file} was written by a later sessrec (format {written}, this one knows {CHECKPOINT_FORMAT}): update it"
        )
    for part in ("hyper_parameters", "datamodule_hyper_parameters"):
        options = checkpoint.get(part, {}).items()
        checkpoint[part] = {name: value for name, value in options if not name.startswith("_")}  # Lightning's own
    checkpoint["hyper_parameters"] = current_options(checkpoint["class_path"], checkpoint["hyper_parameters"])
    return checkpoint


def current_options(class_path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model under the names that they have today.

    Args:
        class_path: The model's class, as a checkpoint or a config names it.
        options: Its options, of this sessrec or an earlier one.

    Raises:
        SessRecError: If an option that is gone has another value than its default.

    Example:
        >>> current_options("sessrec.models.SASRec", {"hidden": 64, "logq_mode": "published", "dropout": 0.2})
        {'hidden_size': 64, 'dropout': 0.2}
    """
    module, _, name = class_path.rpartition(".")
    if name not in _RENAMED or module not in ("", "sessrec.models", f"sessrec.models.{name.lower()}"):
        return dict(options)
    for gone in _REMOVED.keys() & options.keys():
        if options[gone] != _REMOVED[gone]:
            raise SessRecError(f"--model.{gone} {options[gone]} of sessrec 0.2 is gone: fit again without it")
    return {_RENAMED[name].get(option, option): value for option, value in options.items() if option not in _REMOVED}
