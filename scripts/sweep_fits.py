"""The fits of `scripts/sweep.py`: their models, the check of their words, and how they are run."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from sweep_experiments import Experiment, generated_log, recent_log
from sweep_tables import EVERY_VALUE

import sessrec.models
from sessrec.cli import SessRecCLI
from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import fit_and_test, is_random

ORACLE = "Oracle"

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_QUIET = ["--trainer.enable_progress_bar", "false"]


class Model(NamedTuple):
    """A model of a sweep, and the words of fit that choose it."""

    name: str
    class_name: str
    words: list[str]

    @property
    def is_random(self) -> bool:
        """Whether its fit draws random numbers; that of somebody else's model may."""
        return is_random(self.class_name)


class Fit(NamedTuple):
    """One fit: its model, the value of what is swept, its seed where it draws random numbers, and its words."""

    model: str
    value: str
    seed: int | None
    run_name: str
    words: list[str]


class Sweep(NamedTuple):
    """What is to be done."""

    name: str
    experiment: Experiment
    values: list[str]
    models: list[Model]
    seeds: list[int]
    words: list[str]
    source: str
    generated: tuple[int, int] | None
    run_prefix: str
    output: Path


def model_of(text: str, is_generated: bool) -> Model:
    """The model that a word of ``--models`` names.

    Args:
        text: A class name, a config file, or a name and one of these: ``GRU4Rec``, ``configs/stan.yaml``,
            ``wide=configs/gru4rec.yaml``.
        is_generated: Whether the sessions are generated; GRU4Rec has options for them, and others for a log.

    Returns:
        The model.

    Raises:
        SessRecError: If the config is not there, or the name cannot be part of a run's.
    """
    name, _, what = text.rpartition("=")
    if what == "GRU4Rec":
        name, what = name or what, str(_CONFIGS / ("synthetic.yaml" if is_generated else "gru4rec.yaml"))
    is_config = what.endswith((".yaml", ".yml"))
    if is_config and not Path(what).is_file():
        raise SessRecError(f"there is no config {what}")
    name = name or (Path(what).stem if is_config else what)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SessRecError(f"the model {text!r} has no name that a run can have: give NAME={what or 'CONFIG'}")
    if not is_config and "." not in what and what not in sessrec.models.__all__:
        raise SessRecError(f"there is no model {what}: give a config, or one of {', '.join(sessrec.models.__all__)}")
    if not is_config:
        return Model(name, what, ["--model", what, *_QUIET])
    class_name = (yaml.safe_load(Path(what).read_text(encoding="utf-8")) or {}).get("model", {}).get("class_path")
    if class_name is None:
        raise SessRecError(f"the config {what} names no model")
    return Model(name, class_name.rpartition(".")[2], ["--config", what, *_QUIET])


def parsed(words: Sequence[str]) -> SessRecCLI:
    """Parse the words of a fit without fitting.

    Args:
        words: The words.

    Returns:
        The command line, with its model's options and its data; no log is read.

    Raises:
        SessRecError: If fit would refuse them.
    """
    with _captured(is_verbose=False) as captured:
        try:
            return SessRecCLI("prepare", list(words))
        except SystemExit as stop:
            raise SessRecError(_last_line(captured)) from stop
        except Exception as error:
            fault: BaseException | None = error
            while fault is not None and not isinstance(fault, SessRecError):
                fault = fault.__cause__ or fault.__context__
            if fault is None:
                raise
            raise fault from error


def run_fit(fit: Fit, is_verbose: bool) -> Path:
    """Fit and test, or test what is fitted already.

    Args:
        fit: The fit.
        is_verbose: Whether to show what it prints.

    Returns:
        Folder of the run.

    Raises:
        SystemExit: If it failed or was stopped, after a line on stderr that names the run and its words.
    """
    with _captured(is_verbose) as captured:
        try:
            return fit_and_test(fit.words, fit.run_name)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) and stop.code else 1
    said = "" if is_verbose else f": {_last_line(captured)}"
    kept = "finished runs are kept for the next sweep, another --name begins anew"
    words = shlex.join(fit.words)
    print(f"\nerror: the run {fit.run_name} ended with code {code}{said} (words: {words}; {kept})", file=sys.stderr)
    raise SystemExit(code)


def _last_line(captured: io.StringIO) -> str:
    """The fault that a command named last."""
    lines = captured.getvalue().split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return re.sub(r"^(python -m )?sessrec\.\w+: (error: )?", "", said)


@contextlib.contextmanager
def _captured(is_verbose: bool) -> Iterator[io.StringIO]:
    """Keep what a command prints from the terminal, unless it is to be shown."""
    captured = io.StringIO()
    if is_verbose:
        yield captured
        return
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(captured), contextlib.redirect_stderr(captured), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            yield captured
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _log_words(sweep: Sweep, value: str) -> list[str]:
    """The words that open the log of one value; it is generated, or cut, where there is need."""
    words = []
    if sweep.generated:
        n_sessions, n_items = sweep.generated
        words = ["--data.path", str(generated_log(n_sessions, int(value) if sweep.name == "catalogue" else n_items))]
    if sweep.name == "sessions":
        preparation = parsed([*sweep.models[0].words, *sweep.words, *words]).datamodule.preparation
        return recent_log(preparation, float(value), sweep.output)
    return words


def _model_words(sweep: Sweep, model: Model, value: str) -> list[str]:
    """The words of one model at one value, without the log's."""
    words = [*model.words, *sweep.words]
    if model.class_name == ORACLE and sweep.generated:
        n_items = value if sweep.name == "catalogue" else str(sweep.generated[1])
        words += ["--model.process_items", n_items, "--model.process_seed", "42"]
    return words


def fits_of(sweep: Sweep) -> list[Fit]:
    """All fits, value by value; a model that a value means nothing to is fitted once.

    Args:
        sweep: What is to be done.

    Returns:
        The fits, each of which fit would accept.

    Raises:
        SessRecError: If fit would refuse one.
    """
    fits = []
    for value in sweep.values:
        log_words = _log_words(sweep, value)
        for model in sweep.models:
            is_swept = sweep.experiment.swept_class in (None, model.class_name)
            if not is_swept and value != sweep.values[0]:
                continue
            words = [*_model_words(sweep, model, value), *log_words]
            words += sweep.experiment.words(value) if is_swept else []
            shown = value if is_swept else EVERY_VALUE
            run = f"{sweep.run_prefix}-{model.name}-{shown}"
            if not model.is_random:
                fits.append(Fit(model.name, shown, None, run, words))
                continue
            for seed in sweep.seeds:
                seeded = [*words, "--seed_everything", str(seed)]
                fits.append(Fit(model.name, shown, seed, f"{run}-{seed}", seeded))
    _check(fits)
    return fits


def _check(fits: Sequence[Fit]) -> None:
    """Refuse words that no fit can work with, before the first."""
    for fit in fits:
        cli = parsed(fit.words)
        if 20 not in list(cli.config.model.init_args.cutoffs):
            raise SessRecError("the tables are of metrics at 20: --model.cutoffs must have it")
        if not cli.datamodule.preparation.has_test:
            raise SessRecError(
                "there is no test part: give --data.test_ratio, --data.test_duration or --data.test_start"
            )
