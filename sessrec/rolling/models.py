"""The models of a roll, and what their configs must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from sessrec.data.preparation import Preparation
from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import is_random, model_of_config, parsed
from sessrec.shipped_configs import find_config

NO_REPLAY = ["--data.replay", "null"]
"""Words of a fit to a whole training window."""
_OF_TRAINING = ("train_ratio", "train_duration", "train_start")
_MAY_DIFFER = {
    *("min_item_support", "filter_passes", "val_ratio", "val_duration", "test_ratio", "test_duration", "test_start"),
    *("straddling", "train_ratio_of", "expected"),
}
"""Options of the preparation that do not change the test part of a window."""


class Model(NamedTuple):
    """A model that is fitted in the windows."""

    name: str
    words: list[str]
    """Words of fit that choose it."""
    starts_warm: bool
    """Whether a fit can begin with the weights of an earlier one."""


def chosen_models(named: Sequence[str], words: Sequence[str]) -> tuple[list[Model], list[str]]:
    """The models, and the words that are left for every fit; ``--config`` with a model names one more.

    Args:
        named: Configs of models, by file or name.
        words: Words that go to every fit.

    Raises:
        SessRecError: If there is none, no such config, or two of one name.
    """
    names, left = list(named), []
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    while parts:
        word = parts.pop(0)
        if word == "--config" and parts and model_of_config(find_config(parts[0])):
            names.append(parts.pop(0))
        else:
            left.append(word)
    if not names:
        raise SessRecError("give --models: configs of models, by file or name")
    configs = list({config.resolve(): config for config in (find_config(name, "--models") for name in names)}.values())
    if len({config.stem for config in configs}) < len(configs):
        raise SessRecError("two of the --models have one name: their runs would, too")
    return [Model(config.stem, ["--config", str(config)], is_random(str(config))) for config in configs], left


def common_preparation(models: Sequence[Model], words: Sequence[str]) -> Preparation:
    """How the log is read and cleaned, which has to be the same for all models.

    Raises:
        SessRecError: If it is not, or a config cuts the training part.
    """
    own = {model.name: parsed([*model.words, *words, *NO_REPLAY]).datamodule.preparation for model in models}
    first, *others = own
    for name, preparation in own.items():
        for option in _OF_TRAINING:
            if getattr(preparation, option) is not None:
                raise SessRecError(f"the config of {name} has --data.{option}: --train_window gives the training part")
    for name in others:
        for field in fields(own[name]):
            value, of_first = (getattr(own[one], field.name) for one in (name, first))
            if field.name not in _MAY_DIFFER and value != of_first:
                raise SessRecError(
                    f"--data.{field.name} is {value} for {name} and {of_first} for {first}: models are tested on the "
                    "same positions, so give it once, for all"
                )
    return own[first]
