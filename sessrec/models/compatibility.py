"""What a model refuses: options out of range, trainers that it cannot work in, and checkpoints that are not its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, StochasticWeightAveraging
from torch import Tensor

from sessrec.data.vocabulary import Vocabulary
from sessrec.distributed import LanesStrategy
from sessrec.errors import SessRecError

_PRECISIONS = ("32-true", "bf16-mixed", "64-true")  # others need a gradient scaler, or keep weights in 16 bits

_FINDERS = {
    LearningRateFinder: "compare values by scripts/sweep.py --option model.learning_rate",
    BatchSizeFinder: "compare values by scripts/sweep.py --option data.batch_size",
}


def check_ranges(options: Mapping[str, Any], ranges: Mapping[str, str]) -> None:
    """Refuse options out of their range.

    Args:
        options: Options of a model.
        ranges: Names of options by the interval in which they must be, such as ``{"[0, 1)": "dropout momentum"}``.

    Raises:
        SessRecError: If one is outside.
    """
    for interval, names in ranges.items():
        least, most = map(float, interval[1:-1].split(","))
        for name in names.split():
            value = options[name]
            above = value >= least if interval[0] == "[" else value > least
            below = value <= most if interval[-1] == "]" else value < most
            if not (above and below):
                raise SessRecError(f"--model.{name} is {value!r} but must be in {interval}")


def check_trainer(trainer: Trainer, stage: str, model: str, trains_in_parallel: bool) -> None:
    """Refuse what the training and ranking of a model, given by its name, do not heed.

    Raises:
        SessRecError: If precision, callbacks or the number of processes are not supported in this stage.
    """
    if trainer.precision not in _PRECISIONS:
        raise SessRecError(
            f"--trainer.precision {trainer.precision} is not supported: use one of {', '.join(_PRECISIONS)}"
        )
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if stage == "fit" and any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise SessRecError("StochasticWeightAveraging is not supported: its checkpoints hold no weights of the model's")
    if stage == "fit":
        for finder, instead in _FINDERS.items():
            if any(isinstance(callback, finder) for callback in callbacks):
                raise SessRecError(
                    f"{finder.__name__} (Tuner) is not supported: it cannot count the many optimiser steps in a batch "
                    f"of the trainer; {instead}"
                )
    if trainer.barebones:
        raise SessRecError(
            "barebones is not supported: it logs no metric; give logger, enable_progress_bar and enable_checkpointing "
            "as False"
        )
    if trainer.world_size == 1:
        return
    if not isinstance(trainer.strategy, LanesStrategy):
        raise SessRecError("several processes need --trainer.strategy ddp")
    if stage == "fit" and not trains_in_parallel:
        raise SessRecError(f"{model} is fitted in one process: give --trainer.devices 1")


def check_clipping(trainer: Trainer, model: str, clips_gradients: bool) -> None:
    """Refuse to clip the gradients of a model, given by its name, whose training step does not.

    Raises:
        SessRecError: If it does not, or the value is not positive.
    """
    value = trainer.gradient_clip_val
    if value is None:
        return
    if not clips_gradients:
        raise SessRecError(
            f"--trainer.gradient_clip_val {value} is not supported: the training step of {model} clips no gradients; "
            "those of SASRec, NARM, SRGNN and of models with a `loss` method do"
        )
    if value <= 0:
        raise SessRecError(f"--trainer.gradient_clip_val must be above 0, or null for no clipping, got {value}")


def check_class(checkpoint: Mapping[str, Any], expected: type) -> None:
    """Refuse the checkpoint of a model of another class.

    Raises:
        SessRecError: If it is not of the class expected.
    """
    own_class = f"{expected.__module__}.{expected.__qualname__}"
    if "vocabulary" not in checkpoint or checkpoint.get("class_path") != own_class:
        raise SessRecError(
            f"the checkpoint holds {checkpoint.get('class_path', 'no model of sessrec')}, not {own_class}: "
            "give the --model it was fitted with"
        )


def check_vocabulary(given: Vocabulary, own: Vocabulary, of_given: str, of_own: str) -> None:
    """Refuse items of a checkpoint or of data that are numbered otherwise than the model's own.

    Raises:
        SessRecError: If they are not the same; it says of what the former and the latter are.
    """
    if given.item_ids != own.item_ids:
        raise SessRecError(
            f"{of_given} {len(given):,} items and {of_own} {len(own):,}, {_differences(given, own)}: use the click log "
            "and the --data options of the first fit, and a SessionDataModule for each model"
        )


def _differences(given: Vocabulary, own: Vocabulary) -> str:
    """Which items are in one of two vocabularies only."""
    of_given, of_own = set(given.item_ids), set(own.item_ids)
    sides = [("the former", of_given - of_own), ("the latter", of_own - of_given)]
    texts = [f"{len(ids):,} only in {side}, such as {', '.join(sorted(ids)[:3])}" for side, ids in sides if ids]
    return " and ".join(texts) or "the same in another order"


def check_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights of a checkpoint that other options have made.

    Raises:
        SessRecError: If names or shapes differ from the model's own.
    """
    for one, other, place in ((weights, own, "the checkpoint"), (own, weights, "the model")):
        if alone := sorted(one.keys() - other.keys()):
            raise SessRecError(
                f"only {place} has {', '.join(alone[:3])}: give the --model options that it was fitted with"
            )
    for name, weight in weights.items():
        if own[name].shape != weight.shape:
            raise SessRecError(
                f"the checkpoint's {name} is of shape {tuple(weight.shape)} and the model's of "
                f"{tuple(own[name].shape)}: give the --model options that it was fitted with"
            )
