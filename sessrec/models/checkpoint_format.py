"""What a checkpoint of sessrec holds, and how one of an earlier release is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sessrec.errors import SessRecError
from sessrec.models.checksum import checksum_holds

CHECKPOINT_FORMAT = 3
"""Version of the contents of a checkpoint; a file without one is of version 1."""

_PARTS = {"class_path", "epoch", "global_step", "hyper_parameters", "loops", "seed", "state_dict"}
_RENAMED = {"SASRec": {"hidden": "hidden_size", "blocks": "n_blocks", "heads": "n_heads"}, "GRU4Rec": {}}  # until 0.2
_REMOVED = {"logq_mode": "published", "exclude_target_copies": False}  # their defaults until 0.2


class DamagedCheckpointError(SessRecError):
    """A file that is damaged or no checkpoint at all.

    Args:
        file: The file.
        reason: What is wrong with it.
    """

    def __init__(self, file: Path, reason: str) -> None:
        self.newest = newest_checkpoint(file.parent, file)
        """The checkpoint beside it that is whole and has the most steps, None where there is none."""
        instead = "" if self.newest is None else f"; the newest whole one beside it is {self.newest}"
        super().__init__(f"cannot read {file}: it is damaged or no checkpoint ({reason}){instead}")


def newest_checkpoint(folder: Path, other_than: Path) -> Path | None:
    """The checkpoint of a folder that is whole and has the most steps, None where there is none."""
    steps = {}
    for file in sorted(folder.glob("*.ckpt")):
        if file != other_than:
            try:
                steps[file] = int(_load(file, "cpu")["global_step"])
            except Exception:  # noqa: S112 # it is not the one that is wanted, whatever is wrong with it
                continue
    return max(steps, key=lambda file: steps[file], default=None)


def _load(file: Path, map_location: Any) -> Any:
    if not checksum_holds(file):
        raise ValueError("its checksum is of something else, or gone")
    return torch.load(file, map_location=map_location, weights_only=True)


def read_checkpoint(file: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of sessrec, its tensors to a device; nothing in the file is executed.

    Raises:
        DamagedCheckpointError: If the file is damaged or no checkpoint at all.
        SessRecError: If it cannot be read, is no checkpoint of sessrec, of a later one, or has an option that is gone.
    """
    file = Path(file)
    try:
        checkpoint = _load(file, map_location)
    except OSError as error:
        raise SessRecError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise DamagedCheckpointError(file, str(error)) from error
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise DamagedCheckpointError(file, type(error).__name__) from error
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
