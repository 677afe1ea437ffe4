"""Fit and test in one go, through the very commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

import sessrec.models
from sessrec import fit, test
from sessrec.cli import SessRecCLI, quiet, user_error
from sessrec.errors import SessRecError
from sessrec.models.neural import NeuralRecommender
from sessrec.shipped_configs import find_config


def fit_and_test(words: Sequence[str], run_name: str) -> Path:
    """Fit by words of the command line and test the checkpoint that the fit chose; gives the folder of the run.

    That is `best` with a validation part, `last` without. A run of that name that is there already is gone on with; one
    that is finished is tested only, and refused where the words are not those that it was fitted with.
    """
    run = Path("lightning_logs", run_name)
    fit.main([*words, "--trainer.logger.version", run_name, "--ckpt_path", "auto"])
    best = "best" if (run / "checkpoints" / "best.ckpt").exists() else "last"
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", best])
    return run


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
    seeds = seeds if is_random(model) else seeds[:1]
    return [fit_and_test([*words, "--seed_everything", str(seed)], f"{name}-{seed}") for seed in seeds]


def is_random(model: str) -> bool:
    """Whether the fit of a model, see `fit_seeds`, draws random numbers; that of somebody else's model may."""
    if model.endswith((".yaml", ".yml")):
        named = (yaml.safe_load(find_config(model).read_text(encoding="utf-8")) or {}).get("model") or {}
        model = named if isinstance(named, str) else named.get("class_path", "")
    package, _, name = model.rpartition(".")
    own = getattr(sessrec.models, name, NeuralRecommender) if package in ("", "sessrec.models") else NeuralRecommender
    return issubclass(own, NeuralRecommender)
