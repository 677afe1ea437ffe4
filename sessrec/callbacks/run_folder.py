"""A run's folder: its name, its config and curves, and the results that are printed and kept."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from sessrec.callbacks.loggers import log_file, log_parameters
from sessrec.data.report import DataReport
from sessrec.environment import hardware, versions
from sessrec.models.base import SessionRecommender
from sessrec.writing import write_json, write_text

FIT_FILE = "fit.json"


def free_run_name(log_folder: Path, model: str) -> str:
    """The first of ``model-1``, ``model-2``, ... that no run has yet."""
    names = (f"{model}-{number}" for number in itertools.count(1))
    return next(name for name in names if not (log_folder / name).exists())


class RunConfig(SaveConfigCallback):
    """Keeps the config of the command line in the run's folder, written whole or not at all."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, run_folder: Path) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.run_folder = run_folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config."""
        write_text(self.run_folder / self.config_filename, self.parser.dump(self.config, skip_none=False))


class RunSummary(Callback):
    """Prints and keeps the data report, and what a fit took; logs parameters and final metrics; prints results.

    Args:
        checkpoint: The checkpoint file that is evaluated or gone on from, if any.
    """

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the data report of a fit or a prediction; the results of an evaluation come first."""
        self._start = time.perf_counter()
        if stage in ("fit", "predict"):
            rank_zero_only(print)(f"\n{_report(trainer)}\n")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the data report in the run's folder."""
        folder = trainer.log_dir  # which all processes have to ask for
        if folder and trainer.is_global_zero:
            write_json(Path(folder) / "data_report.json", _report(trainer).as_dict())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the hyper-parameters and the config, now that the seed is known."""
        assert isinstance(pl_module, SessionRecommender)
        folder = trainer.log_dir
        if folder and trainer.is_global_zero:
            log_parameters(trainer, hyper_parameters(trainer, pl_module))
            log_file(trainer, Path(folder, "config.yaml"))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the final metrics, keep what the fit took, and print the results."""
        assert isinstance(pl_module, SessionRecommender)
        folder = trainer.log_dir
        if folder and trainer.is_global_zero:
            write_json(Path(folder) / FIT_FILE, self._effort(trainer, pl_module))
            final = {f"final/{name}": value for name, value in pl_module.results.items()}
            final["final/step"] = float(trainer.global_step if not final else pl_module.results_step or 0)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):  # whose page of parameters has the metrics beside them
                    logger.log_hyperparams(hyper_parameters(trainer, pl_module), final)
                    logger.save()
            pl_module.log_at_step(final, but=TensorBoardLogger)
        self._print(trainer, pl_module, "fit")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of a validation outside a fit."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module, "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of the test."""
        self._print(trainer, pl_module, "test")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print what the data report says of the evaluated part, after the results."""
        part = {"validate": "val", "test": "test"}.get(stage)
        if part is not None:
            rank_zero_only(print)(f"\n{part_of_report(_report(trainer), part)}")

    def _effort(self, trainer: Trainer, model: SessionRecommender) -> dict[str, Any]:
        """What a fit took; one that went on from a checkpoint does not know how long the whole was."""
        seconds = None if self.checkpoint else round(time.perf_counter() - self._start, 3)
        done = {"seconds": seconds, "epochs": trainer.current_epoch, "steps": trainer.global_step, "seed": model.seed}
        validation = {"step": model.results_step, "metrics": model.results} if model.results else None
        return done | {"validation": validation, "versions": versions(), "hardware": hardware(model.device)}

    def _print(self, trainer: Trainer, model: LightningModule, stage: str) -> None:
        assert isinstance(model, SessionRecommender)
        seconds = time.perf_counter() - self._start
        head = f"{stage} of {type(model).__name__}, {seconds:.0f} s, run {trainer.log_dir}"
        rules = f"{model.n_items:,} items ranked, ties {model.tie_mode}, {_candidates(model)}"
        of_step = f"{_step(trainer, model, self.checkpoint)}\n" if model.results else ""
        rank_zero_only(print)(f"\n{head}\n{rules}\n{of_step}{results_table(model.results)}")


def hyper_parameters(trainer: Trainer, model: SessionRecommender) -> dict[str, Any]:
    """All that a fit was asked for, flat: the options of the model and the data by their names, seed and length."""
    data = trainer.datamodule.hparams  # type: ignore[attr-defined]
    options = {name: value for name, value in {**data, **model.hparams}.items() if not name.startswith("_")}
    named = {"model": type(model).__name__, "seed": model.seed, "max_epochs": trainer.max_epochs}
    lengths = {"max_steps": trainer.max_steps, "precision": trainer.precision, "processes": trainer.world_size}
    return named | lengths | options


def part_of_report(report: DataReport, part: str) -> DataReport:
    """What a data report says of the reading and of one part; what is 0 or of other parts is left out."""
    short = DataReport()
    for name in ("read", "cleaned", f"{part} cut", part):
        figures = {key: value for key, value in report.sections.get(name, {}).items() if value}
        if figures:
            short.add(name, figures)
    other = "the val part" if part == "test" else "the test part"
    short.warn([warning for warning in report.warnings if other not in warning])
    return short


def _step(trainer: Trainer, model: SessionRecommender, checkpoint: Path | None) -> str:
    """Which weights the results are of."""
    step = "an unknown step" if model.results_step is None else f"step {model.results_step:,}"
    if trainer.state.fn != "fit":
        return f"weights of {step}" + (f" ({checkpoint})" if checkpoint else "")
    return f"validation of {step}" + (
        "" if model.results_step == trainer.global_step else f"; the fit went on to step {trainer.global_step:,}"
    )


def _candidates(model: SessionRecommender) -> str:
    allowed = "" if model.allowed is None else f"{int(model.allowed.sum()):,} of them allowed, "
    if model.exclude_seen:
        return f"{allowed}no item of the session so far a candidate"
    if model.exclude_last:
        return f"{allowed}the last item no candidate"
    return f"{allowed}all of {'these' if allowed else 'them'} candidates"


def results_table(results: dict[str, float]) -> str:
    """Lay results such as ``val/recall@20`` out as a table of metrics by cutoffs.

    Example:
        >>> print(results_table({"val/recall@1": 0.25, "val/recall@20": 0.5, "val/mrr@1": 0.25, "val/mrr@20": 0.3,
        ...                      "val/ndcg@1": 0.25, "val/ndcg@20": 0.35}))
        val          @1      @20
        recall   0.2500   0.5000
        mrr      0.2500   0.3000
        ndcg     0.2500   0.3500
    """
    if not results:
        return "no validation was run, so there are no metrics"
    stage = next(iter(results)).split("/")[0]
    cells = {tuple(name.split("/")[1].split("@")): value for name, value in results.items()}
    cutoffs = sorted({cutoff for _, cutoff in cells}, key=int)
    lines = [f"{stage:<6}" + "".join(f"{'@' + cutoff:>9}" for cutoff in cutoffs)]
    for metric in ("recall", "mrr", "ndcg"):
        lines.append(f"{metric:<6}" + "".join(f"{cells[metric, cutoff]:9.4f}" for cutoff in cutoffs))
    return "\n".join(lines)


def _report(trainer: Trainer) -> Any:
    return trainer.datamodule.report  # type: ignore[attr-defined]
