"""One trial of a study: a fit that keeps its validation metric alone."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optuna
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from optuna.trial import TrialState

from sessrec.cli import SessRecCLI, quiet, user_error
from sessrec.errors import SessRecError, one_line
from sessrec.models.base import SessionRecommender
from sessrec.models.compatibility import check_trainer
from sessrec.tuning.space import words_of

_KEEPS_NOTHING = [
    *("--trainer.logger", "false"),
    *("--trainer.enable_checkpointing", "false"),
    *("--trainer.enable_model_summary", "false"),
]
_HAS_FAILED = (SessRecError, MemoryError, torch.OutOfMemoryError)


class TrialRules(NamedTuple):
    """How each trial of a study is fitted.

    Args:
        words: Words of the command line of fit, without a trial's options.
        monitor: Validation metric that is maximised.
        patience: Validations without a better one after which a trial ends.
        max_epochs: Epochs after which it ends.
        shows_progress: Whether it shows a progress bar.
    """

    words: Sequence[str]
    monitor: str
    patience: int
    max_epochs: int
    shows_progress: bool = False


class Outcome(NamedTuple):
    """What a trial found."""

    state: TrialState
    value: float | None
    """The best value of the monitored metric."""
    epochs: int
    """Epochs after which it was found, at least 1."""
    reason: str = ""
    """Why the trial was stopped or failed."""


class TrialReport(Callback):
    """Tells a study each validation of a trial, and ends the trial where that is to be.

    Args:
        trial: The trial.
        monitor: Validation metric that is told.
        seconds: Time after which the trial ends with what it has found.
    """

    def __init__(self, trial: optuna.Trial, monitor: str, seconds: float = math.inf) -> None:
        self.trial, self.monitor = trial, monitor
        self.values: dict[int, float] = {}
        self.is_pruned = False
        self._end = time.monotonic() + seconds

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        """End the trial when its time is over; a last validation follows."""
        if self.is_out_of_time:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the metric, and end the trial where it falls behind the others."""
        assert isinstance(pl_module, SessionRecommender)
        if trainer.sanity_checking:
            return
        epoch = trainer.current_epoch + 1
        self.values[epoch] = value = pl_module.results[self.monitor]
        self.trial.report(value, epoch)
        if pl_module.batches != "log" and self.trial.should_prune():
            self.is_pruned = trainer.should_stop = True


def run_trial(trial: optuna.Trial, options: Mapping[str, str], rules: TrialRules, seconds: float) -> Outcome:
    """Fit with a trial's options.

    Args:
        trial: The trial.
        options: Its options, as on the command line.
        rules: How it is fitted.
        seconds: Time after which it ends with what it has found.
    """
    report = TrialReport(trial, rules.monitor, seconds)
    try:
        with quiet("tune"):
            warnings.filterwarnings("ignore", "at .* other items score exactly")  # which is of the best options alone
            _fit([*rules.words, *words_of(options), *_KEEPS_NOTHING], rules, report, trial)
    except Exception as error:
        fault = error if isinstance(error, _HAS_FAILED) else user_error(error)
        if fault is None:
            raise
        return Outcome(TrialState.PRUNED, None, 1, one_line(fault))
    if not report.values:
        return Outcome(TrialState.PRUNED, None, 1, "its time was over before the first validation")
    epochs = max(report.values, key=lambda epoch: (report.values[epoch], -epoch))
    value, reason = report.values[epochs], "its time was over" if report.is_out_of_time else ""
    if report.is_pruned:
        return Outcome(TrialState.PRUNED, value, epochs, "it fell behind the other trials")
    return Outcome(TrialState.COMPLETE, value, epochs, reason)


def _fit(words: Sequence[str], rules: TrialRules, report: TrialReport, trial: optuna.Trial) -> None:
    bar = "true" if rules.shows_progress else "false"
    lengths = ["--trainer.max_epochs", str(rules.max_epochs), "--trainer.enable_progress_bar", bar]
    cli = SessRecCLI("fit", [*words, *lengths])
    model, data = cli.build_model_and_data()
    stop = EarlyStopping(rules.monitor, patience=rules.patience, mode="max", check_finite=False)
    trainer = cli.build_trainer([report, stop] if model.batches != "log" else [report])
    check_trainer(trainer, "fit", type(model).__name__, model.trains_in_parallel)
    data.setup("fit")
    trial.set_user_attr("validation", data.sessions["val"].digest)
    trainer.fit(model, data)
