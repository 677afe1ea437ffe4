"""The help of a command: what it uses, one line an option."""

from __future__ import annotations

import re
import shutil
import textwrap
from argparse import Action
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from sessrec.click_log.row_index import ENGINE_OPTIONS
from sessrec.models import SessionRecommender
from sessrec.option_types import known_classes

_COMMANDS_OF = {
    "ckpt_path": ("fit", "validate", "test", "predict"),
    "init_from": ("fit",),
    "init_drop": ("fit",),
    "launcher": ("fit",),
    "workers": (),  # which launcher's help names
    "monitor": ("fit",),
    "checkpoint": ("fit",),
    "list_length": ("test",),
    "projector": ("test",),
    "slices": ("test",),
    "allow": ("validate", "test", "predict"),
    "exclude": ("validate", "test", "predict"),
    "url": ("test",),
    "output": ("predict",),
    "report_dir": ("prepare",),
    "data.availability": ("test",),
}
"""Commands that use an option or a group of options; all of them use those that are not named here."""
_DATA_OF_CHECKPOINT = {  # the others come with the checkpoint
    *("data.path", "data.eval_batch_size", "data.availability"),
    *(f"data.{name}" for name in ENGINE_OPTIONS),
}
_TRAINER = {
    "max_epochs": "Epochs to train.",
    "max_steps": "Steps to train, where they are fewer; -1 for no limit.",
    "val_check_interval": "Batches, or share of an epoch, between two validations; default: an epoch.",
    "accelerator": "auto, cpu or gpu.",
    "devices": "Number of processes, each with a device of its own.",
    "strategy": "auto for one device, ddp for several, sharded for tables too large for one.",
    "gradient_clip_val": "Largest norm of a gradient of SASRec, NARM, SRGNN and of models with a loss method.",
    "precision": "32-true, bf16-mixed or 64-true; default: 32-true.",
}
_EVALUATION = ("accelerator", "devices", "strategy", "precision")
_PARSER = {
    "help": "Show this help.",
    "config": "File of options, such as configs/gru4rec.yaml; later ones and flags take precedence.",
    "print_config": "Print all options as a config, and run nothing.",
    "seed_everything": "Seed of everything random.",
}
_LOGGER = {"version": "Name of the run; default: the model's, with a number.", "save_dir": "Where lightning_logs is."}
_WIDTH = 29  # of a column of names


def _commands_of(name: str, default: str) -> tuple[str, ...]:
    """Commands that use an option."""
    return _COMMANDS_OF.get(name, _COMMANDS_OF.get(name.partition(".")[0], (default,)))


def short_help(parser: LightningArgumentParser, command: str) -> str:
    """The options that a command uses, one line each, and where to read more.

    Args:
        parser: The command's parser.
        command: Name of the command.
    """
    options, defaults = _options(parser), parser.get_defaults()
    names = [name for name in options if command in _commands_of(name, command)]
    own = [name for name in names if name.partition(".")[0] not in ("model", "data", "trainer", "logger")]
    lines = [f"usage: {parser.usage}", "", *(parser.description or "").splitlines(), "", f"Options of {command}:"]
    lines += [_line(name, _PARSER.get(name) or _summary(options[name].help), defaults.get(name)) for name in own]
    if command == "fit":
        lines += ["", "Models, chosen by --model NAME; the options of one: --model.help NAME"]
        lines += [f"  {name:12}{about}" for name, about in _about_models()]
    elif command == "predict":
        lines.append(_line("model.k", "Items that a session gets.", "the fit's"))
    is_of_checkpoint = command in ("validate", "test", "predict")
    data = [name for name in names if name.startswith("data.")]
    lines += ["", "The click log; more about each option: --data.help"]
    for name in data:
        if not is_of_checkpoint or name in _DATA_OF_CHECKPOINT:
            lines.append(_line(name, _summary(options[name].help), None if is_of_checkpoint else defaults.get(name)))
    if command != "prepare":
        lines += ["", "The trainer; all of its options: --trainer.help"]
        trained = _EVALUATION if is_of_checkpoint else _TRAINER
        lines += [_line(f"trainer.{name}", _TRAINER[name], defaults.get(f"trainer.{name}")) for name in trained]
        lines.append(
            _line("trainer.logger", "Class of the logger, such as CSVLogger; false for none.", "TensorBoardLogger")
        )
        lines += [_line(f"trainer.logger.{name}", text, None) for name, text in _LOGGER.items()]
    return "\n".join(lines) + "\n"


def group_help(full_help: str, parser: LightningArgumentParser, group: str) -> str:
    """The part of a parser's full help that is about a group of options.

    Args:
        full_help: The full help.
        parser: The parser.
        group: Name of the group, such as ``trainer``.
    """
    title = (parser.groups or {})[group].title
    sections = re.split(r"\n\n(?=\S)", full_help)
    return next(section for section in sections if section.startswith(f"{title}:")).rstrip() + "\n"


def _options(parser: LightningArgumentParser) -> Mapping[str, Action]:
    """The options by their names, without those that stand for a whole group."""
    flags = {flag[2:]: action for action in parser._actions for flag in action.option_strings if flag[:2] == "--"}
    groups = parser.groups or {}
    hidden = ("+", ".help", "print_shtab")
    return {name: one for name, one in flags.items() if not name.endswith(hidden) and name not in groups}


def _about_models() -> list[tuple[str, str]]:
    """Names of the models, and the first line about each."""
    return [(cls.__name__, (cls.__doc__ or "").partition("\n")[0]) for cls in known_classes(SessionRecommender)]


def _line(name: str, text: str, default: Any) -> str:
    shown = "" if default is None else f" [{_shown(default)}]"
    head = f"  {'--' + name:{_WIDTH}} "
    width = min(shutil.get_terminal_size((120, 24)).columns, 120)
    lines = textwrap.wrap(f"{text}{shown}", max(width - len(head), 30))
    return head + f"\n{' ' * (_WIDTH + 3)}".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _summary(text: str | None) -> str:
    """The first sentence of a text, up to a semicolon."""
    plain = " ".join((text or "").replace("`", "").split())
    return re.split(r"(?<=[^.][^.])\. |; ", plain)[0].rstrip(".:") + "."
