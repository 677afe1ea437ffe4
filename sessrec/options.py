"""The options that the commands share beside trainer, model and data, and their parser."""

from __future__ import annotations

import itertools
import os
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from sessrec.callbacks.checkpoints import LastCheckpoint
from sessrec.errors import SessRecError
from sessrec.evaluation.slices import Slices
from sessrec.models.checkpoint_format import current_options, read_checkpoint
from sessrec.program import DESCRIPTIONS, program
from sessrec.shipped_configs import DEFAULT_CONFIG, find_config

_OWN_LOG = """

An own log in three commands: look at it, fit, test. It has columns SessionId, ItemId and Time, or the options
--data.session_column, --data.item_column and --data.time_column name them.
  sessrec prepare --data.path clicks.tsv.gz
  sessrec fit --config gru4rec --data.path clicks.tsv.gz --trainer.logger.version my-run
  sessrec test --config lightning_logs/my-run/config.yaml --ckpt_path best"""


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the description."""


class CommandParser(LightningArgumentParser):
    """Says what is wrong with an option in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the fault and leave with exit code 2."""
        print(f"{self.prog}: error: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(2) from ex


def parser_settings(command: str) -> dict[str, Any]:
    """What a command's parser is made with."""
    return {
        "default_config_files": [str(DEFAULT_CONFIG)],
        "description": DESCRIPTIONS[command] + _OWN_LOG,
        "formatter_class": _HelpFormatter,
        "prog": program(command),
        "usage": f"{program(command)} [--config FILE] [--GROUP.OPTION VALUE ...]",
    }


def add_options(parser: LightningArgumentParser) -> None:
    """Add what is neither trainer's, model's nor data's."""
    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint to start from: `best` or `last` of the run that the config names, or a file. `auto`, "
        "for a fit that a scheduler may start again: go on from last where there is one, else begin.",
    )
    parser.add_class_arguments(LastCheckpoint, "checkpoint")
    parser.add_argument(
        "--monitor", type=str, default="val/mrr@20", help="Validation metric that chooses the best checkpoint in a fit."
    )
    parser.add_class_arguments(Slices, "slices")
    parser.add_argument(
        "--list_length",
        type=int,
        default=0,
        help="Length of the lists whose coverage, Gini coefficient and popularity test reports; 0 makes no lists, "
        "which take as long again as the ranks.",
    )
    text = "Whether test writes the item embeddings for TensorBoard's projector."
    parser.add_argument("--projector", type=bool, default=False, help=text)
    parser.add_argument("--output", type=str, default="predictions.tsv", help="File that predict writes.")
    text = "Folder for the report and figures of prepare."
    parser.add_argument("--report_dir", type=str, default="lightning_logs/data_report", help=text)


def check_trainer_options(options: Any) -> None:
    """Refuse what leaves nothing to train, and what the training step would not heed.

    Raises:
        SessRecError: If there is one such.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if options[name] == 0:
            raise SessRecError(f"--trainer.{name} 0 leaves nothing to train")
    for name, usual in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if options[name] not in (usual, None):
            raise SessRecError(f"--trainer.{name} is not supported: every mini-batch is one update by its own gradient")


def given_option(args: list[str], name: str) -> str | None:
    """Value of an option given as ``--name value`` or ``--name=value``; None where it is not given.

    Example:
        >>> given_option(["--ckpt_path", "best", "--model.k=5"], "--model.k")
        '5'
    """
    for number, word in enumerate(args):
        if word == name and number + 1 < len(args):
            return args[number + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def with_current_options(command: str, args: list[str]) -> list[str]:
    """Arguments in which configs of earlier releases have today's option names, and a checkpoint brings its options."""
    args = ["--config" if word == "-c" else word for word in args]
    args = [argument for word in args for argument in (word.split("=", 1) if word.startswith("--config=") else [word])]
    for place, (option, config) in enumerate(itertools.pairwise(args), 1):
        if option == "--config" and not _is_config_text(config):
            args[place] = _current_config(find_config(config))
    if command in ("fit", "prepare") or "--config" in args:
        return args
    ckpt_path = given_option(args, "--ckpt_path")
    return args if ckpt_path is None or not Path(ckpt_path).is_file() else [*_settings_of(Path(ckpt_path)), *args]


def _is_config_text(config: str) -> bool:
    """Whether a config is given itself in place of its file, which the parser allows."""
    try:
        return isinstance(yaml.safe_load(config), dict)
    except yaml.YAMLError:
        return False


def _current_config(file: Path) -> str:
    """The file, or its text with today's names where it has a model's options under others."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return str(file)  # the parser says what is wrong with it
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(options := model.get("init_args"), dict):
        return str(file)
    if (current := current_options(str(model.get("class_path")), options)) == options:
        return str(file)
    model["init_args"] = current
    return yaml.safe_dump(config)


def _settings_of(checkpoint: Path) -> list[str]:
    """The checkpoint's own model, data and run, as a config."""
    content = read_checkpoint(checkpoint)
    model = {"class_path": content["class_path"], "init_args": content["hyper_parameters"]}
    settings: dict[str, Any] = {"model": model, "data": content["datamodule_hyper_parameters"]}
    run_folder = checkpoint.resolve().parent.parent
    if (run_folder / "config.yaml").exists():
        save_dir = os.path.relpath(run_folder.parent.parent)
        place = {"save_dir": save_dir, "name": run_folder.parent.name, "version": run_folder.name}
        logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": place}
        settings["trainer"] = {"logger": logger}
    return ["--config", yaml.safe_dump(settings)]
