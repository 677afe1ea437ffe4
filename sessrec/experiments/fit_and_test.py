"""Fit and test in one go, through the very commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

import sessrec.models
from sessrec import fit, test
from sessrec.callbacks.run_place import place_run
from sessrec.cli import SessRecCLI, quiet, user_error
from sessrec.errors import SessRecError
from sessrec.models.neural import NeuralRecommender
from sessrec.shipped_configs import find_config

USUAL_FOLDER = [
    *("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.default_hp_metric", "false"),
    *("--trainer.logger.save_dir", ".", "--trainer.logger.name", "lightning_logs"),
]
"""Words of fit for the logger of the default config."""


def fit_and_test(words: Sequence[str], run_name: str) -> Path:
    """Fit by words of the command line and test the checkpoint that the fit chose; gives the folder of the run.

    That is `best` with a validation part, `last` without. A run of that name that is there already is gone on with; one
    that is finished is tested only, and refused where the words are not those that it was fitted with.
    """
    name, run = _place(words, run_name)
    fit.main([*words, *name, "--ckpt_path", "auto"])
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", checkpoint_to_test(run).stem])
    return run


def checkpoint_to_test(run: Path) -> Path:
    """The checkpoint of a fitted run that is tested: `best` with a validation part, `last` without."""
    best = run / "checkpoints" / "best.ckpt"
    return best if best.exists() else best.with_name("last.ckpt")


def _place(words: Sequence[str], run_name: str) -> tuple[list[str], Path]:
    """The words of fit that name a run, and its folder: its loggers may keep it elsewhere, or have no folder."""
    with quiet():
        trainer = SessRecCLI("fit", words).config.trainer
    usual = USUAL_FOLDER if trainer.logger in (True, None, []) else []  # which no other option can follow
    folder, option = place_run(trainer, lambda _: run_name)
    if option == "--trainer.logger.version":
        return [*usual, option, run_name], folder.parent / run_name
    run = Path("lightning_logs", run_name)
    return [option, str(run)], run


def parsed(words: Sequence[str]) -> SessRecCLI:
    """Parse the words of a fit and build model, data and trainer, without fitting.

    Raises:
        SessRecError: If fit would refuse them.
    """
    try:
        with quiet():
            cli = SessRecCLI("fit", words)
            cli.build_model_and_data()
            cli.build_trainer()
    except Exception as error:
        fault = user_error(error)  # the parser wraps those of options
        if fault is None:
            raise
        raise SessRecError(str(fault)) from error
    return cli


def model_words(model: str) -> list[str]:
    """Words of fit that choose a model by the name of its class, or by a config.

    Raises:
        SessRecError: If there is no such config.
    """
    if not model.endswith((".yaml", ".yml")):
        return ["--model", model]
    return ["--config", str(find_config(model, "--models"))]


def fit_seeds(model: str, words: Sequence[str], seeds: Sequence[int], name: str) -> list[Path]:
    """Fit and test a model with every seed, once if it draws no random numbers; gives the folders of the runs.

    Args:
        model: Name of its class, with or without that of its module, or a config.
        words: Words of the command line of fit, those that choose the model among them.
        seeds: The seeds.
        name: First part of the runs' names.
    """
    return [fit_and_test(own, run) for own, run in words_of_seeds(model, words, seeds, name)]


def words_of_seeds(
    model: str, words: Sequence[str], seeds: Sequence[int], name: str
) -> Iterator[tuple[list[str], str]]:
    """Words and name of the run of each seed; see `fit_seeds`."""
    for seed in seeds if is_random(model) else seeds[:1]:
        yield [*words, "--seed_everything", str(seed)], f"{name}-{seed}"


def model_of_config(config: Path) -> str:
    """The class that a config chooses as the model, empty where it chooses none."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return ""  # the parser says what is wrong with it
    named = content.get("model") if isinstance(content, dict) else None
    return str(named.get("class_path", "") if isinstance(named, dict) else named or "")


def is_random(model: str) -> bool:
    """Whether the fit of a model, see `fit_seeds`, draws random numbers; that of somebody else's model may."""
    if model.endswith((".yaml", ".yml")):
        model = model_of_config(find_config(model))
    package, _, name = model.rpartition(".")
    own = getattr(sessrec.models, name, NeuralRecommender) if package in ("", "sessrec.models") else NeuralRecommender
    return issubclass(own, NeuralRecommender)
