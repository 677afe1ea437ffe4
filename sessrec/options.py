"""The options that the commands share beside trainer, model and data, and their parser."""

from __future__ import annotations

import itertools
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from sessrec.callbacks.checkpoints import LastCheckpoint
from sessrec.callbacks.run_place import settings_of_run
from sessrec.errors import SessRecError, exit_with_error
from sessrec.evaluation.slices import Slices
from sessrec.evaluation.tested_runs import ADDED_OPTIONS, RESULT_NEUTRAL_OPTIONS
from sessrec.help_texts import group_help, short_help
from sessrec.models.checkpoint_format import current_options, read_checkpoint
from sessrec.option_errors import explain
from sessrec.paths import expanded
from sessrec.program import DESCRIPTIONS, program
from sessrec.ray_launcher import Launcher
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
    """Helps in short with what a command uses, and says what is wrong with an option in one line.

    Args:
        command: Name of the command; None for a parser inside a command's, of the options of a class.
    """

    def __init__(self, *args: Any, command: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.command = command

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse arguments, or print the help of a group of options where ``--GROUP.help`` is among them."""
        for group in self.groups or () if self.command else ():
            if (flag := f"--{group}.help") in (args or ()) and flag not in self._option_string_actions:
                print(group_help(super().format_help(), self, group), end="")
                self.exit(0)
        try:
            config = super().parse_args(args, *more, **kwargs)
        except UnicodeDecodeError as error:  # of a config
            self.error(str(error), error)
        if self.command is None:
            return config
        for group in self.groups or ():
            if not isinstance(config.get(group), Namespace):
                self.error(f"--{group} is a group of options")
        return expanded("", config)

    def format_help(self, *args: Any) -> str:
        """The options that the command uses, one line each; those of a class in full."""
        return super().format_help(*args) if self.command is None else short_help(self, self.command)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the fault and leave; a parser inside this one, of a class's options, leaves that to it.

        Raises:
            ArgumentError: If it is the parser of a class.
            SystemExit: If it is the parser of the command line.
        """
        if not self.exit_on_error:
            raise ArgumentError(None, message) from ex
        exit_with_error(self.prog, explain(self, list(self.args), message))


def parser_settings(command: str) -> dict[str, Any]:
    """What a command's parser is made with."""
    return {
        "allow_abbrev": False,
        "command": command,
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
        help="Checkpoint to start from: a file, or `best`, `last` or `auto` of the config's run. `auto` "
        "is for a fit that a scheduler may start again: it resumes from last where there is one, else begins.",
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="Checkpoint whose weights and optimiser state, or whose counts, a new fit begins with; items that only "
        "the new log has are added.",
    )
    text = "Whether items of --init_from that the new training part lacks are left out."
    parser.add_argument("--init_drop", type=bool, default=False, help=text)
    text = (
        "What starts the processes of a fit, if not Lightning: `ray`, as many as --workers says; see docs/cluster.md."
    )
    parser.add_argument("--launcher", type=Launcher | None, default=None, help=text)
    text = "Number of processes that --launcher starts, each on a CPU or a GPU of its own."
    parser.add_argument("--workers", type=int, default=1, help=text)
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
    text = "Address of a server, whose lists test ranks in place of the model's own; see sessrec serve --most_k."
    parser.add_argument("--url", type=str | None, default=None, help=text)
    for name, text in {
        "allow": "Items that validate, test and predict may rank, such as those in stock: a file with one item id a "
        "line, or ids with commas between them; null for all.",
        "exclude": "Items that validate, test and predict may not rank, also among those allowed; given alike.",
    }.items():
        parser.add_argument(f"--{name}", type=str | None, default=None, help=text)
    parser.add_argument("--output", type=str, default="predictions.tsv", help="File that predict writes.")
    text = "Folder for the report and figures of prepare."
    parser.add_argument("--report_dir", type=str, default="lightning_logs/data_report", help=text)


def changed_options(kept: Mapping[str, Any], own: Mapping[str, Any], group: str) -> list[str]:
    """Options that are not as a checkpoint has them, but for those that change no result.

    Args:
        kept: The checkpoint's.
        own: Those that are given.
        group: Group of the options, ``model`` or ``data``.

    Example:
        >>> changed_options({"layers": (16,), "k": 20}, {"layers": [9], "k": 20}, "model")
        ['--model.layers [16], not [9]']
    """
    kept = {**ADDED_OPTIONS, **kept}
    names = sorted(own.keys() & kept.keys() - RESULT_NEUTRAL_OPTIONS)
    pairs = [(name, _plain(kept[name]), _plain(own[name])) for name in names]
    return [f"--{group}.{name} {before}, not {now}" for name, before, now in pairs if before != now]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # a checkpoint has tuples where a config has lists


@contextmanager
def naming_changes(content: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[None]:
    """Add to a refusal of a checkpoint which options it was fitted with, where they are others.

    Args:
        content: The checkpoint.
        built: What is built by the options, with its ``hparams``, by its group of options.
    """
    try:
        yield
    except SessRecError as error:
        kept = {"model": content.get("hyper_parameters", {}), "data": content.get("datamodule_hyper_parameters", {})}
        changed = [text for group, one in built.items() for text in changed_options(kept[group], one.hparams, group)]
        if not changed or "class_path" not in content or content["class_path"].rpartition(".")[2] not in _names(built):
            raise
        raise SessRecError(f"{error}; it was fitted with {', '.join(changed)}") from error


def _names(built: Mapping[str, Any]) -> list[str]:
    return [type(one).__name__ for one in built.values()]


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
    """The file; its text where the parser would read it otherwise, or where it has old names of a model's options."""
    try:
        text = file.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return str(file)  # the parser says what is wrong with it
    same = str(file) if text.isascii() else yaml.safe_dump(config)  # the parser reads in the encoding of the locale
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(options := model.get("init_args"), dict):
        return same
    if (current := current_options(str(model.get("class_path")), options)) == options:
        return same
    model["init_args"] = current
    return yaml.safe_dump(config)


def _settings_of(checkpoint: Path) -> list[str]:
    """The checkpoint's own model, data and run, as a config."""
    content = read_checkpoint(checkpoint)
    model = {"class_path": content["class_path"], "init_args": content["hyper_parameters"]}
    settings: dict[str, Any] = {"model": model, "data": content["datamodule_hyper_parameters"]}
    run_folder = checkpoint.resolve().parent.parent
    if (run_folder / "config.yaml").exists():
        settings["trainer"] = settings_of_run(run_folder)
    return ["--config", yaml.safe_dump(settings)]
