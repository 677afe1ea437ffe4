"""What the loggers of a run get beside the curves, and how they go on in what they have of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from sessrec.callbacks.event_files import drop_steps_after, is_logged_again
from sessrec.callbacks.run_place import options_of_loggers, refused
from sessrec.writing import atomic_write, write_json

_IDS_FILE = "logger_ids.json"


def with_kept_ids(trainer: Namespace, run_folder: Path) -> Namespace:
    """The options of the trainer with the ids under which trackers have the run, which its config does not hold."""
    file = run_folder / _IDS_FILE
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    trainer = trainer.clone()
    for logger in options_of_loggers(trainer):
        for option in kept.keys() & logger.init_args.keys():
            if logger.init_args[option] is None and logger.init_args.get("version") is None:
                logger.init_args[option] = kept[option]
    return trainer


@contextmanager
def open_loggers(trainer: Trainer, step: int | None = None, inside_epoch: bool = False) -> Iterator[None]:
    """Open the loggers of a run, with what they have logged up to a step, and close them in the end.

    Args:
        trainer: The trainer, in front of its fit or test.
        step: Step that a fit resumes from; what was logged after it is dropped where a logger can. None keeps all.
        inside_epoch: Whether the fit resumes inside an epoch, so that the epoch's loss is still to come.

    Raises:
        SessRecError: If a logger cannot be opened.
    """
    if getattr(rank_zero_only, "rank", 0) == 0:
        for logger in trainer.loggers:
            _open(logger, step, inside_epoch)
        _keep_ids(trainer)
    try:
        yield
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # the next run of this process would log to it


def log_parameters(trainer: Trainer, parameters: Mapping[str, Any]) -> None:
    """Log the hyper-parameters of a fit to every logger."""
    for logger in trainer.loggers:
        new = parameters
        if isinstance(logger, MLFlowLogger):  # which has each parameter once and for all
            kept = logger.experiment.get_run(logger.run_id).data.params
            texts = {name: str(value)[:250] for name, value in parameters.items()}  # as Lightning cuts them
            changed = [name for name in kept.keys() & texts.keys() if kept[name] != texts[name]]
            if changed:
                print(f"MLflow keeps the first values of parameters that have changed: {', '.join(sorted(changed))}")
            new = {name: value for name, value in parameters.items() if name not in kept}
        logger.log_hyperparams(dict(new))


def log_file(trainer: Trainer, file: Path) -> None:
    """Log a file of the run, if it is there, as an artefact to the loggers that have them."""
    for logger in trainer.loggers if file.exists() else ():
        if isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(file))
        elif isinstance(logger, WandbLogger):
            logger.experiment.log_artifact(str(file), name=f"{logger.experiment.id}-{file.stem}", type=file.stem)


def _open(logger: Logger, step: int | None, inside_epoch: bool) -> None:
    if isinstance(logger, CSVLogger):
        _keep_rows(logger, step, inside_epoch)
    elif isinstance(logger, TensorBoardLogger):
        if step is not None:
            drop_steps_after(Path(logger.log_dir), step, inside_epoch)
    else:
        name = type(logger).__name__
        try:
            _ = getattr(logger, "experiment", None)
        except Exception as error:
            raise refused(name, error) from error
        if step is not None:
            print(f"{name} appends to what it has: steps after {step} that were logged before are there twice")


def _keep_rows(logger: CSVLogger, step: int | None, inside_epoch: bool) -> None:
    """Have a CSV logger go on in its file, which it would remove, without what is logged again."""
    file = Path(logger.log_dir, "metrics.csv")
    rows: list[dict[str, str]] = []
    if file.exists():
        with file.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if _is_whole(row)]
    if step is not None:
        for row in rows:
            logged = {name: value for name, value in row.items() if name != "step" and value}
            again = [name for name in logged if is_logged_again(name, int(row["step"]), step, inside_epoch)]
            row.update(dict.fromkeys(again, ""))
        rows = [row for row in rows if any(value for name, value in row.items() if name != "step")]
    experiment = logger.experiment
    if rows:
        names = sorted(rows[0])
        with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=names)
            writer.writeheader()
            writer.writerows(rows)
        experiment.metrics_keys = names


def _is_whole(row: dict[Any, Any]) -> bool:
    """Whether a row is not one that was cut off as it was written."""
    return None not in row and None not in row.values() and row.get("step", "").isdigit()


def _keep_ids(trainer: Trainer) -> None:
    """Keep under which ids trackers have the run, so that a resumed fit and a test go on in them."""
    ids = {}
    for logger in trainer.loggers:
        if isinstance(logger, MLFlowLogger):
            ids["run_id"] = logger.run_id
        elif isinstance(logger, WandbLogger):
            ids["id"] = logger.experiment.id
    if ids and trainer.log_dir is not None:
        write_json(Path(trainer.log_dir, _IDS_FILE), ids)
