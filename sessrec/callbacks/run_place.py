"""The folder of a run, whatever its loggers are."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sessrec.errors import SessRecError

_RUNS = "lightning_logs"
_DEFAULT = {"save_dir": ".", "name": _RUNS, "version": None, "default_hp_metric": False}  # as in configs/default.yaml
_FOLDER_LOGGERS = (TensorBoardLogger, CSVLogger)
_EXTRAS = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
_RUN_NAME = ("run_name", "name")  # options of MLflow and W&B for the name that they show
_NAMES = ("version", "id", "run_id", *_RUN_NAME)  # by which a logger without a folder may name the run


class RunTrainer(Trainer):
    """A trainer that knows the folder of its run, which need not be that of a logger."""

    run_folder: Path | None = None

    @property
    def log_dir(self) -> str | None:
        """The run's folder; None in a `fast_dev_run`, which leaves no run."""
        if self.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return super().log_dir if self.run_folder is None else str(self.run_folder)


def place_run(trainer: Namespace, free_name: Callable[[Path], str]) -> tuple[Path, str]:
    """Find the folder of a run by the trainer's options, and complete them so that they name it.

    It is that of the first logger with a folder, TensorBoard's or CSV; else ``trainer.default_root_dir``, by default
    the folder in ``lightning_logs`` of the name that a logger gives the run.

    Args:
        trainer: Options of the trainer; a run without a name gets one.
        free_name: Gives a name for a new run in a folder.

    Returns:
        The folder of the run, and the option that gives a run another one.

    Raises:
        SessRecError: If the options name no folder for a run, keep nothing of it, or name a logger that cannot be used.
    """
    if trainer.barebones:
        raise SessRecError(
            "--trainer.barebones true keeps no checkpoint and no result: give --trainer.logger false, "
            "--trainer.enable_progress_bar false and --trainer.log_every_n_steps 0 for a fit without their cost"
        )
    if trainer.logger in (True, None, []):
        path = f"{TensorBoardLogger.__module__.rpartition('.')[0]}.{TensorBoardLogger.__name__}"
        trainer.logger = Namespace(class_path=path, init_args=Namespace(**_DEFAULT))
    loggers = options_of_loggers(trainer)
    if with_folder := [logger.init_args for logger in loggers if _has_folder(logger)]:
        return _folder_of_loggers(with_folder, free_name), "--trainer.logger.version"
    for logger in loggers:
        _forget_default(logger.init_args)
    if trainer.default_root_dir is None:
        given = [
            str(value) for logger in loggers for name in _NAMES if (value := logger.init_args.get(name)) is not None
        ]
        name = given[0] if given else free_name(Path(_RUNS))
        _check_inside(Path(), name, _RUNS)
        trainer.default_root_dir = str(Path(_RUNS, name))
    folder = Path(trainer.default_root_dir).expanduser()
    for logger in loggers:
        for option in _RUN_NAME:
            if logger.init_args.get(option, "") is None:
                logger.init_args[option] = folder.name
        _check_logger(logger)
    return folder, "--trainer.default_root_dir"


def _folder_of_loggers(loggers: list[Namespace], free_name: Callable[[Path], str]) -> Path:
    """Folder of the first of the loggers, by its options; the others get its version where they have none."""
    first = loggers[0]
    first.save_dir = os.path.expanduser(first.save_dir)
    log_folder = Path(first.save_dir, first.name or "")
    if first.version is None:
        given = (logger.version for logger in loggers if logger.version is not None)
        first.version = next(given, None) or free_name(log_folder)
    for other in loggers[1:]:
        other.version = first.version if other.version is None else other.version
    name = first.version if isinstance(first.version, str) else f"version_{first.version}"
    _check_inside(Path(first.name or ""), name, first.save_dir)
    return log_folder / name


def keep_checkpoints_in(trainer: Trainer, run_folder: Path) -> None:
    """Have checkpoint callbacks write into the run's folder where its first logger has none."""
    if trainer.loggers and isinstance(trainer.loggers[0], _FOLDER_LOGGERS):
        return
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(run_folder / "checkpoints")


def settings_of_run(run_folder: Path) -> dict[str, Any]:
    """Options of the trainer by which a run is found, also where it has been moved; it has a config.

    Raises:
        SessRecError: If that is no config of a run.
    """
    file = run_folder / "config.yaml"
    save_dir = os.path.relpath(run_folder.parent.parent)
    place = {"save_dir": save_dir, "name": run_folder.parent.name, "version": run_folder.name}
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))["trainer"]["logger"]
        loggers = [
            logger | {"init_args": logger["init_args"] | place} if _has_folder(Namespace(logger)) else logger
            for logger in (given if isinstance(given, list) else [given] if given else [])
        ]
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise SessRecError(f"{file}, beside the checkpoint's folder, is no config of a run: give --config") from error
    logger = loggers if isinstance(given, list) else loggers[0] if loggers else given
    return {"logger": logger, "default_root_dir": os.path.relpath(run_folder)}


def options_of_loggers(trainer: Namespace) -> list[Namespace]:
    """Class path and options of each logger among the trainer's options.

    Raises:
        SessRecError: If the library of one is not installed.
    """
    given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger] if trainer.logger else []
    for logger in given:
        logger.init_args = logger.get("init_args") or Namespace()
        name = logger.class_path.rpartition(".")[2]
        extra = _EXTRAS.get(name)
        if extra is not None and importlib.util.find_spec(extra) is None:
            what = f"{extra}, which is not installed: pip install sessrec[{extra}]"
            raise SessRecError(f"--trainer.logger {name} needs {what}")
    return given


def refused(logger: str, error: Exception) -> SessRecError:
    """The error for a logger, given by its class's name, that its library refuses; each has errors of its own."""
    return SessRecError(f"--trainer.logger {logger}: {' '.join(str(error).split()) or type(error).__name__}")


def _has_folder(logger: Namespace) -> bool:
    """Whether a logger's options name a folder for the run."""
    options = logger.get("init_args") or {}
    return issubclass(_class_of(logger), _FOLDER_LOGGERS) and {"save_dir", "name", "version"} <= set(options.keys())


def _check_inside(folder: Path, name: str, parent: Any) -> None:
    """Refuse a name by which what is written would leave the folder of runs."""
    if not name or Path(name).name != name or name == ".." or ".." in folder.parts or folder.is_absolute():
        raise SessRecError(f"--trainer.logger: {str(folder / name)!r} is no name for a run inside {parent}")


def _forget_default(options: Namespace) -> None:
    """Take back the place in the default config, which the parser hands on from TensorBoard's logger to another one."""
    if options.get("name") == _DEFAULT["name"]:
        options.name = None
    if "tracking_uri" in options and options.save_dir in (_DEFAULT["save_dir"], "./mlruns"):
        import mlflow

        options.save_dir = "./mlruns"
        options.tracking_uri = options.tracking_uri or mlflow.get_tracking_uri()  # its default is not Lightning's


def _check_logger(logger: Namespace) -> None:
    try:
        _class_of(logger)(**logger.init_args.as_dict())
    except Exception as error:
        raise refused(logger.class_path.rpartition(".")[2], error) from error


def _class_of(logger: Namespace) -> Any:
    module, _, name = logger.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
