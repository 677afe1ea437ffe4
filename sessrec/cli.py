"""The command line that all commands share: it parses, and builds model, data and trainer when a command asks for them.

Each command is told from top to bottom in the file of its name: fit.py, validate.py, test.py, predict.py, prepare.py.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import cuda

import sessrec.models  # noqa: F401 - makes the models known by their class names
from sessrec.callbacks.checkpoints import CheckpointFiles, resolve_checkpoint
from sessrec.callbacks.loggers import with_kept_ids
from sessrec.callbacks.run_folder import RunSummary, free_run_name
from sessrec.callbacks.run_place import RunTrainer, keep_checkpoints_in, place_run
from sessrec.callbacks.signals import StoppedError
from sessrec.data import SessionDataModule
from sessrec.distributed import LanesStrategy
from sessrec.environment import tune_memory
from sessrec.errors import SessRecError, error_text, exit_with_error, message_prefix, one_line
from sessrec.model_choice import with_one_model
from sessrec.models.base import SessionRecommender
from sessrec.models.candidates import ItemList, candidates_of_options
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.models.compatibility import check_trainer
from sessrec.models.sharded import ShardedStrategy
from sessrec.options import (
    CommandParser,
    add_options,
    given_option,
    naming_changes,
    parser_settings,
    with_current_options,
)
from sessrec.paths import with_home_folder
from sessrec.ray_launcher import Outcome, is_ray_worker, ray_strategy, run_on_ray
from sessrec.text import escape_on_console
from sessrec.trainer_options import check_hardware, check_seed, check_share, trainer_refusal
from sessrec.writing import check_writable

_RUN_NAME = "SESSREC_RUN_NAME"
_REJECTED = 2  # exit code
_STRATEGIES = {"ddp": LanesStrategy, "sharded": ShardedStrategy}
_LOGGERS = ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed")
_SAYS_NOTHING = re.compile(
    "Tip:|^(Seed set to|[GT]PU available:|Restoring states from|Restored all states|Loaded model weights|"
    r"Using bfloat16|LOCAL_RANK|`Trainer\.fit` stopped: `max_)"
)


class SessRecCLI(LightningCLI):
    """Parses YAML files and flags; later ones take precedence, and unknown keys are errors.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``prepare``.
        args: Command-line arguments; default: `sys.argv[1:]`.
    """

    datamodule: SessionDataModule
    model: SessionRecommender
    trainer: RunTrainer
    run_folder: Path | None = None
    run_option = "--trainer.logger.version"
    """The option that gives the run another name."""
    _is_numbered = False  # for want of a name

    def __init__(self, command: str, args: Sequence[str] | None = None) -> None:
        self.command = command
        self.args = with_home_folder(sys.argv[1:] if args is None else list(args))
        super().__init__(
            SessionRecommender,
            SessionDataModule,
            trainer_class=RunTrainer,
            subclass_mode_model=True,
            args=with_one_model(with_current_options(command, self.args)),
            run=False,
            parser_class=CommandParser,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            save_config_callback=None,
            parser_kwargs=parser_settings(command),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that are not the trainer's, the model's or the data's."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and refuse a seed before it is set."""
        super().parse_arguments(parser, args)
        check_seed(self.config.seed_everything)

    def instantiate_classes(self) -> None:
        """Build nothing yet: a command asks for what it needs."""

    def name_run(self) -> Path:
        """Folder of the run, by the trainer's options; a run without a name gets a number.

        Raises:
            SessRecError: If the options name no folder for a run.
        """
        self.run_folder, self.run_option = place_run(self.config.trainer, self._free_name)
        return self.run_folder

    @property
    def folder_option(self) -> str:
        """The option that puts the run into another folder."""
        return self.run_option.replace("logger.version", "logger.save_dir")

    def _free_name(self, log_folder: Path) -> str:
        # the processes of a fit are started with the same arguments, and have to find the same name
        model = self.config.model.class_path.rpartition(".")[2].lower()
        name = os.environ.get(_RUN_NAME) if is_follower() else free_run_name(log_folder, model)
        if name is None:
            raise SessRecError("processes started by torchrun or a scheduler need --trainer.logger.version")
        os.environ[_RUN_NAME], self._is_numbered = name, True
        return name

    @property
    def launches(self) -> bool:
        """Whether other processes are to do the work, which this one has to start."""
        return self.config.launcher is not None and not is_ray_worker()

    def launch(self, run: Callable[[list[str]], Outcome]) -> None:
        """Have the processes that the launcher starts do the work; what they reject ends this one, too.

        Args:
            run: Runs the command with some arguments in one of them.

        Raises:
            SessRecError: If an option says otherwise how many processes there are, or the launcher fails.
            StoppedError: If they were stopped.
        """
        assert self.run_folder is not None
        trainer, given = self.config.trainer, given_option(self.args, "--ckpt_path")
        if trainer.devices not in ("auto", 1, "1") or trainer.num_nodes != 1:
            raise SessRecError("with --launcher ray, --workers says how many processes there are: give no other number")
        if trainer.strategy == "sharded":
            raise SessRecError("--trainer.strategy sharded works with torchrun and Slurm, not with --launcher ray")
        if given not in (None, "last", "auto"):
            raise SessRecError(f"--ckpt_path {given}: with --launcher ray, a fit resumes from last or auto")
        name = self.run_folder.name if "version" in self.run_option else str(self.run_folder)
        words = [*self.args, "--ckpt_path", "auto", self.run_option, name]
        use_gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and cuda.is_available())
        folder = self.run_folder / "ray"
        try:
            code, message = run_on_ray(run, words, self.config.workers, use_gpu, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                self.run_folder.rmdir()  # where nothing was fitted
        if code == _REJECTED:
            raise SessRecError(message)
        if code:
            raise StoppedError(message, code - 128)

    def find_checkpoint(self, run_folder: Path) -> Path | None:
        """The checkpoint that ``--ckpt_path`` names, None where there is no such option.

        Raises:
            SessRecError: If the file is not there.
        """
        # a config that follows the flag resets it
        ckpt_path = self.config.ckpt_path or given_option(self.args, "--ckpt_path")
        self.config.ckpt_path = None  # a saved config starts a new fit
        if ckpt_path in ("best", "last") and self._is_numbered:
            options = f"--config RUN/config.yaml or {self.run_option}"
            raise SessRecError(
                f"--ckpt_path {ckpt_path} is of a run, and none is named: give {options}, or name a file"
            )
        return None if ckpt_path is None else resolve_checkpoint(ckpt_path, run_folder)

    def build_model_and_data(self) -> tuple[SessionRecommender, SessionDataModule]:
        """Build the model and the data by their options."""
        config = self.config.clone()
        if self.run_folder is not None:
            config.trainer = with_kept_ids(config.trainer, self.run_folder)
        self.config_init = self.parser.instantiate_classes(config)
        self.model, self.datamodule = self.config_init.model, self.config_init.data
        return self.model, self.datamodule

    def build_trainer(self, callbacks: Sequence[Callback] = ()) -> RunTrainer:
        """Build the trainer by its options, after model and data.

        Args:
            callbacks: Callbacks of the command, beside those of the options.

        Raises:
            SessRecError: If the strategy is not supported.
        """
        self.trainer_defaults["callbacks"] = list(callbacks)
        if not sys.stdout.isatty() and self.config.trainer.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"].append(TQDMProgressBar(refresh_rate=0))  # a file is no place for a bar
        check_hardware(self.config_init.trainer)
        named = self.config_init.trainer.strategy
        if named not in ("auto", *_STRATEGIES):
            raise SessRecError(
                f"--trainer.strategy {named} is not supported: auto for one device, ddp or sharded for several"
            )
        strategy, plugins = _STRATEGIES[named]() if named in _STRATEGIES else named, [CheckpointFiles()]
        if is_ray_worker():
            strategy, environment = ray_strategy()
            plugins.append(environment)
        changed = {"plugins": plugins, "strategy": strategy, "enable_autolog_hparams": False}
        if self.command not in ("fit", "test"):
            changed["logger"] = False  # which log nothing
        self.trainer = self.instantiate_trainer(**changed)
        self.trainer.run_folder = self.run_folder
        if self.run_folder is not None:
            keep_checkpoints_in(self.trainer, self.run_folder)
        return self.trainer

    def instantiate_trainer(self, **kwargs: Any) -> RunTrainer:
        """Build the trainer; what it refuses are its options.

        Raises:
            SessRecError: If it refuses some.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError, ModuleNotFoundError) as error:
            raise trainer_refusal(self.config.trainer, error) from error
        assert isinstance(trainer, RunTrainer)
        return trainer

    def build_for_evaluation(self, callbacks: Callable[[Path], Sequence[Callback]]) -> Path:
        """Build model, data and trainer, map the data to the checkpoint's vocabulary, and give the checkpoint.

        Args:
            callbacks: Gives the command's callbacks, from the checkpoint.

        Raises:
            SessRecError: If there is no checkpoint, or what is built does not fit it.
        """
        if self.config.launcher is not None:
            raise SessRecError(f"--launcher is for fit: {self.command} works in the processes of --trainer.devices")
        part = {"validate": "val"}.get(self.command, self.command)
        if self.config.trainer[f"limit_{part}_batches"] == 0:
            raise SessRecError(f"--trainer.limit_{part}_batches 0 leaves nothing to {self.command}")
        given = [ItemList.of_option(f"--{name}", self.config[name]) for name in ("allow", "exclude")]
        run_folder = self.name_run()
        checkpoint = self.find_checkpoint(run_folder)
        if checkpoint is None:
            raise SessRecError(f"{self.command} needs a fitted model: --ckpt_path best, last or a file")
        if self.command == "test":
            check_writable(run_folder, self.folder_option)
        model, data = self.build_model_and_data()
        trainer = self.build_trainer([RunSummary(checkpoint), *callbacks(checkpoint)])
        check_trainer(trainer, self.command, type(model).__name__, model.trains_in_parallel)
        content = read_checkpoint(checkpoint)
        with naming_changes(content, {"model": model}):
            model.on_load_checkpoint(content)
        model.allowed, notes = candidates_of_options(model.vocabulary, *given)
        data.vocabulary = model.vocabulary
        data.setup(self.command)
        data.report.warn(notes)
        check_share(trainer, part, len(getattr(data, f"{part}_dataloader")()))
        return checkpoint


def run_command(command: str, story: Callable[[SessRecCLI], None], args: Sequence[str] | None = None) -> SessRecCLI:
    """Run a command and give its command line, with what was built; a user error ends it with a line and exit code 2.

    Args:
        command: Name of the command.
        story: What it does with the parsed command line.
        args: Command-line arguments; default: `sys.argv[1:]`.
    """
    tune_memory()
    escape_on_console()
    try:
        with quiet(command), interrupt_at_once():
            cli = SessRecCLI(command, args)
            story(cli)
    except InterruptError:
        what = "stopped; there was nothing to save yet" if command == "fit" else "stopped"
        print(f"sessrec.{command}: {what}", file=sys.stderr)
        raise SystemExit(130) from None
    except StoppedError as stop:
        if not is_follower():
            print(f"sessrec.{command}: {stop}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        fault = user_error(error)
        if fault is None:
            raise
        exit_with_error(command, error_text(fault))
    return cli


def outcome_of(command: str, story: Callable[[SessRecCLI], None], args: Sequence[str]) -> Outcome:
    """Run a command, and give its exit code and what it says last, in place of ending this process by them.

    Args:
        command: Name of the command.
        story: What it does with the parsed command line.
        args: Command-line arguments.
    """
    tune_memory()
    try:
        with quiet(command):
            story(SessRecCLI(command, args))
    except StoppedError as stop:
        return stop.exit_code, str(stop)
    except Exception as error:
        if (fault := user_error(error)) is None:
            raise
        return _REJECTED, error_text(fault)
    return 0, ""


def user_error(error: BaseException | None) -> BaseException | None:
    """The user error behind an exception, None where there is none; the parser wraps those of options."""
    while error is not None and not isinstance(error, (SessRecError, MisconfigurationException, OSError)):
        error = error.__cause__ or error.__context__
    return error


def is_follower() -> bool:
    """Whether this process is one that the first process of a fit has started, or is to work with it."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


class InterruptError(BaseException):
    """Ctrl-C where there is nothing to save; Lightning would end the process itself at a KeyboardInterrupt."""


@contextmanager
def interrupt_at_once() -> Iterator[None]:
    """Raise `InterruptError` at SIGINT, to stop a command; a fit that trains listens itself."""

    def interrupt(number: int, frame: Any) -> None:
        raise InterruptError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet(command: str | None = None) -> Iterator[None]:
    """Silence what says nothing to a user of the commands, and give the rest the form of a command's messages.

    Args:
        command: Name of the command; None leaves the form.
    """
    loggers = [logging.getLogger(f"lightning.{name}") for name in _LOGGERS]
    in_style = partial(_in_style, command)
    for logger in loggers:
        logger.addFilter(in_style)
    format_before = warnings.formatwarning
    if command is not None:
        warnings.formatwarning = lambda message, *_, **__: f"{message_prefix(command)}: warning: {one_line(message)}\n"
    with warnings.catch_warnings():
        for text in (
            "LightningCLI's args parameter",
            "Checkpoint directory .* exists and is not empty",
            "Experiment logs directory .* exists and is not empty",  # and what was logged is kept
            "Be aware that when using `ckpt_path`, callbacks",  # the checkpoint callbacks belong to a fit
            "Total length of `list` across ranks is zero",  # a fit without a validation part
            "Couldn't infer the batch indices",  # the predictions carry their sessions
            "The number of training batches .* is smaller than the logging interval",  # the models log by steps
            ".*TreeSpec",
            "You called `self.log",  # a command that keeps its results itself has no logger
            "`ModelCheckpoint.* could not find the monitored key",  # max_steps has ended the fit before a validation
            "It is recommended to use `self.log",  # the metrics are summed over the processes before they are logged
        ):
            warnings.filterwarnings("ignore", text)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(in_style)
            warnings.formatwarning = format_before


def _in_style(command: str | None, record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log says something; one that does begins with the command's name."""
    message = record.getMessage()
    if _SAYS_NOTHING.search(message):
        return False
    if command is not None and not message.startswith(message_prefix(command)):
        record.msg, record.args = f"{message_prefix(command)}: {one_line(message)}", ()
    return True
