"""The command line of fit, validate, test, predict and prepare."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import sessrec.models  # noqa: F401 - makes the models known by their class names
from sessrec.callbacks.checkpoints import (
    CheckpointFiles,
    check_run_is_free,
    checkpoint_callbacks,
    is_inside_epoch,
    read_checkpoint,
    resolve_checkpoint,
    work_done,
)
from sessrec.callbacks.event_files import drop_steps_after
from sessrec.callbacks.prediction_writer import PredictionWriter
from sessrec.callbacks.rank_writer import RankWriter
from sessrec.callbacks.run_folder import RunConfig, RunSummary, free_run_name
from sessrec.callbacks.signals import StoppedError
from sessrec.data.datamodule import SessionDataModule
from sessrec.distributed import LanesStrategy
from sessrec.errors import SessRecError
from sessrec.evaluation.tested_runs import RESULT_NEUTRAL_OPTIONS
from sessrec.figures.data import write_data_report
from sessrec.models.base import SessionRecommender
from sessrec.models.compatibility import check_trainer
from sessrec.options import (
    CommandParser,
    add_options,
    check_trainer_options,
    given_option,
    parser_settings,
    with_settings_of_checkpoint,
)

_RUN_NAME = "SESSREC_RUN_NAME"


class SessRecCLI(LightningCLI):
    """Builds trainer, model and data from YAML files and flags; later ones win, and unknown keys are errors.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``prepare``.
        args: Words of the command line; those of the process where None.
    """

    datamodule: SessionDataModule
    model: SessionRecommender
    trainer: Trainer

    def __init__(self, command: str, args: list[str] | None = None) -> None:
        self.command = command
        self.checkpoint: Path | None = None
        args = self.args = sys.argv[1:] if args is None else list(args)
        super().__init__(
            SessionRecommender,
            SessionDataModule,
            subclass_mode_model=True,
            args=args if command == "fit" else with_settings_of_checkpoint(args),
            run=False,
            parser_class=CommandParser,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig if command == "fit" else None,
            parser_kwargs=parser_settings(command),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is neither trainer's, model's nor data's."""
        add_options(parser)

    def before_instantiate_classes(self) -> None:
        """Name the run, find the checkpoint, and refuse what cannot work, before anything is built."""
        if self.command == "prepare":
            if Path(self.config.report_dir).is_file():
                raise SessRecError(f"--report_dir {self.config.report_dir} is a file; name a folder")
            return
        self.run_folder = self._name_run()
        # a config that follows the flag resets it
        ckpt_path = self.config.ckpt_path or given_option(self.args, "--ckpt_path")
        if ckpt_path is not None:
            self.checkpoint = resolve_checkpoint(ckpt_path, self.run_folder)
        if self.checkpoint is None and self.command != "fit":
            raise SessRecError(f"{self.command} needs a fitted model: --ckpt_path best, last or a file")
        self.config.ckpt_path = None  # a saved config starts afresh
        if self.command == "fit":
            if not _is_follower():
                check_run_is_free(self.run_folder, self.checkpoint)
            check_trainer_options(self.config.trainer)
            self.save_config_kwargs["run_folder"] = self.run_folder
        extra: list[Callback] = [RunSummary(self.checkpoint)]
        if not sys.stdout.isatty() and self.config.trainer.enable_progress_bar is not False:
            extra.append(TQDMProgressBar(refresh_rate=0))  # a bar redrawn in a file is thousands of lines
        if self.command == "predict":
            extra.append(PredictionWriter(self.config.output))
        self.trainer_defaults["callbacks"] = extra

    def _name_run(self) -> Path:
        """Folder of the run, by the logger's options; a run without a name gets a number."""
        logger = self.config.trainer.logger
        place = getattr(logger[0] if isinstance(logger, list) and logger else logger, "init_args", None)
        if place is None or "default_hp_metric" not in place:
            raise SessRecError("a run is kept in its logger's folder: --trainer.logger must be a TensorBoardLogger")
        log_folder = Path(place.save_dir, place.name or "")
        if place.version is None:
            model = self.config.model.class_path.rpartition(".")[2].lower()
            # the processes of a fit are started with the same words, and have to find the same name
            place.version = os.environ.get(_RUN_NAME) if _is_follower() else free_run_name(log_folder, model)
            if place.version is None:
                raise SessRecError("processes started by torchrun or a scheduler need --trainer.logger.version")
            os.environ[_RUN_NAME] = place.version
        name = place.version if isinstance(place.version, str) else f"version_{place.version}"
        folder = Path(place.name or "")  # what is written must not leave the folder of runs
        if Path(name).name != name or name == ".." or ".." in folder.parts or folder.is_absolute():
            raise SessRecError(f"--trainer.logger: {folder / name} is no name for a run inside {place.save_dir}")
        return log_folder / name

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; prepare needs the data only."""
        if self.command == "prepare":
            self.datamodule = self.parser.instantiate_classes(self.config).data
        else:
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with checkpoints where it fits."""
        if self.command == "fit":
            model, has_validation = self.config_init.model, self.config_init.data.has_validation
            if has_validation and self.config_init.monitor not in list(model.val_metrics):
                raise SessRecError(
                    f"--monitor {self.config_init.monitor} is none of the metrics {', '.join(model.val_metrics)}"
                )
            self.trainer_defaults["callbacks"] += checkpoint_callbacks(
                self.config_init.monitor, has_validation, self.config_init.checkpoint
            )
        elif self.command == "test":
            record = RankWriter(
                self.config_init.slices,
                self.checkpoint,
                list_length=self.config_init.list_length,
                projector=self.config_init.projector,
            )
            self.trainer_defaults["callbacks"].append(record)
        if (strategy := self.config_init.trainer.strategy) == "ddp":
            kwargs["strategy"] = LanesStrategy()
        elif strategy != "auto":
            raise SessRecError(f"--trainer.strategy {strategy} is not supported: auto for one device, ddp for several")
        return super().instantiate_trainer(plugins=[CheckpointFiles()], **kwargs)

    def run(self) -> None:
        """Run the command; whatever can be refused is refused before the trainer starts and writes."""
        if self.command == "prepare":
            write_data_report(self.datamodule.prepare(), self.config.report_dir)
            return
        model, data, ckpt_path = self.model, self.datamodule, self.checkpoint
        for callback in self.trainer.checkpoint_callbacks if self.command == "fit" else ():
            folder = getattr(callback, "dirpath", None)
            if folder is not None and not Path(folder).resolve().is_relative_to(self.run_folder.resolve()):
                raise SessRecError(f"a checkpoint callback's dirpath {folder} is outside of the run {self.run_folder}")
        check_trainer(self.trainer, self.command, type(model).__name__, model.trains_in_parallel)
        content = None if ckpt_path is None else read_checkpoint(ckpt_path)
        if content is not None and self.command != "fit":
            model.on_load_checkpoint(content)
            data.vocabulary = model.vocabulary  # the model's items are what the data are mapped to
        data.setup(self.command)
        if self.command == "fit":
            inside_epoch = content is not None and self._check_resumable(content)
            if content and (done := work_done(content, self.trainer.max_epochs, self.trainer.max_steps)):
                self._check_options(content)
                print(f"nothing to do: the checkpoint {ckpt_path} has {done}")
                return
            if content and not _is_follower():
                drop_steps_after(self.run_folder, content["global_step"], inside_epoch)
            self.trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        elif self.command == "validate":
            self.trainer.validate(model, data, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        elif self.command == "test":
            self.trainer.test(model, data, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        else:
            self.trainer.predict(model, data, ckpt_path=ckpt_path, return_predictions=False, weights_only=True)

    def _check_resumable(self, content: dict[str, Any]) -> bool:
        """Reject a checkpoint that this fit cannot resume from; whether it resumes inside an epoch."""
        model, data, inside = self.model, self.datamodule, is_inside_epoch(content)
        if "SessionDataModule" not in content:
            raise SessRecError(f"{self.checkpoint} was not fitted to a click log by sessrec: it keeps no schedule")
        assert data.vocabulary is not None
        model.set_vocabulary(data.vocabulary)
        model.on_load_checkpoint(content)
        data.check_training(content["SessionDataModule"], inside, self.trainer)
        if content["seed"] != self.config.seed_everything:
            print(f"the fit goes on with its own seed {content['seed']}, not {self.config.seed_everything}")
        return inside

    def _check_options(self, content: dict[str, Any]) -> None:
        """Refuse options of a finished fit that are not those it was fitted with: they would come to nothing."""
        for group, kept, own in (
            ("model", content["hyper_parameters"], self.model.hparams),
            ("data", content["datamodule_hyper_parameters"], self.datamodule.hparams),
        ):
            for name in own.keys() & kept.keys() - RESULT_NEUTRAL_OPTIONS:
                if _listed(own[name]) != _listed(kept[name]):
                    raise SessRecError(
                        f"the run {self.run_folder} was fitted with --{group}.{name} {kept[name]}, not {own[name]}: "
                        "give another --trainer.logger.version"
                    )


def run_command(command: str, args: list[str] | None = None) -> SessRecCLI:
    """Run a command; a fault that the user can mend ends it with one line and exit code 1.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``prepare``.
        args: Words of the command line; those of the process where None.

    Returns:
        The command line with its trainer, model and data.
    """
    _quieten()
    try:
        cli = SessRecCLI(command, args)
        cli.run()
    except KeyboardInterrupt:
        print(f"sessrec.{command}: stopped; there was nothing to save yet", file=sys.stderr)
        raise SystemExit(130) from None
    except SystemExit as stop:  # Lightning's, where no fit was under way that could be saved, or at a second signal
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print(f"sessrec.{command}: stopped at once", file=sys.stderr)
        raise SystemExit(130) from None
    except StoppedError as stop:
        if not _is_follower():
            print(f"sessrec.{command}: {stop}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        fault = user_error(error)
        if fault is None:
            raise
        print(f"sessrec.{command}: error: {fault}", file=sys.stderr)
        raise SystemExit(1) from error
    return cli


def user_error(error: BaseException | None) -> BaseException | None:
    """The fault that the user can mend behind an error; the parser wraps those of options.

    Args:
        error: Any error.

    Returns:
        The fault, None where there is none.
    """
    while error is not None and not isinstance(error, (SessRecError, MisconfigurationException, OSError)):
        error = error.__cause__ or error.__context__
    return error


def _listed(value: Any) -> list[Any]:
    """A value as a list: a checkpoint has tuples where a config has lists."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_follower() -> bool:
    """Whether this process is one that the first process of a fit has started, or is to work with it."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _quieten() -> None:
    """Silence warnings and advertisements that say nothing to a user of the commands."""
    for text in (
        "LightningCLI's args parameter",
        "Checkpoint directory .* exists and is not empty",
        "Be aware that when using `ckpt_path`, callbacks",  # the checkpoint callbacks belong to a fit
        "Total length of `list` across ranks is zero",  # a fit without a validation part
        "Couldn't infer the batch indices",  # the predictions carry their sessions
        "The number of training batches .* is smaller than the logging interval",  # the models log by steps
        ".*TreeSpec",
        "You're resuming from a checkpoint that ended before the epoch ended",  # the model has the loader go on
        "It is recommended to use `self.log",  # the metrics are summed over the processes before they are logged
    ):
        warnings.filterwarnings("ignore", text)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
