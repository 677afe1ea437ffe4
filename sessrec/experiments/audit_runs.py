"""Runs that an audit needs beside those it audits: on shuffled sessions, on a leaking split, of other models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from sessrec.callbacks.rank_writer import RankWriter
from sessrec.cli import SessRecCLI, quiet
from sessrec.click_log.events import Events
from sessrec.data.datamodule import SessionDataModule
from sessrec.data.report import DataReport
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.evaluation.tested_runs import Run, read_run
from sessrec.experiments.fit_and_test import USUAL_FOLDER, fit_and_test
from sessrec.experiments.plain_log import plain_log, plain_log_words, write_plain_log
from sessrec.writing import atomic_write

_ONE_PROCESS = ["--trainer.devices", "1", "--trainer.strategy", "auto"]


def shuffle_sessions(sessions: Sessions, seed: int) -> Sessions:
    """The same sessions with the same items, each in a random order."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.offsets))
    order = np.lexsort((rng.random(len(session)), session))
    return replace(sessions, items=np.asarray(sessions.items)[order])


def rank_shuffled(run: Run, seed: int) -> Run:
    """Test a run's model again with the clicks shuffled inside each session, into its folder's ``audits/order``."""
    folder = run.folder / "audits" / "order"
    words = ["--config", str(run.folder / "config.yaml"), "--ckpt_path", str(checkpoint_of(run))]
    no_curves = [
        "--trainer.logger",
        "false",
        "--trainer.default_root_dir",
        str(run.folder),
    ]  # those are of its own test
    with quiet("audit"):
        cli = SessRecCLI("test", [*words, *_rules(run), *_ONE_PROCESS, *no_curves])
        checkpoint = cli.build_for_evaluation(lambda file: [RankWriter(cli.config_init.slices, file, folder)])
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if data.sessions["test"].digest_of_ids(model.vocabulary.item_ids) != run.report["protocol"]["data_digest"]:
        raise SessRecError(f"{run.folder} was tested on another log than the one in its config.yaml")
    data.sessions["test"] = shuffle_sessions(data.sessions["test"], seed)
    with quiet("audit"):
        trainer.test(model, data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return read_run(folder)


def randomize_split(events: Events, seed: int) -> pa.Table:
    """A log of the same sessions in which each begins when another one did, at random.

    A split by time then deals the sessions to its parts at random: a model is trained on sessions from after those that
    it is tested on, and knows what will be new, or in fashion.

    Returns:
        Columns SessionId, ItemId and Time.
    """
    order = np.random.default_rng(seed).permutation(events.n_sessions)
    moves = events.starts[order] - events.starts
    return plain_log(replace(events, time=events.time + np.repeat(moves, events.lengths)))


def fit_leaking(run: Run, seed: int) -> Run:
    """Fit and test a run's model once more, with sessions dealt to train and test at random."""
    config = _config_of(run)
    log = run.folder / "audits" / "leakage" / f"dealt-{seed}.parquet"
    if not log.exists():
        events = SessionDataModule(**config["data"]).preparation.read(DataReport())
        write_plain_log(randomize_split(events, seed), log)
    words = ["--config", str(run.folder / "config.yaml"), *_rules(run), *plain_log_words(log), *USUAL_FOLDER]
    return read_run(fit_and_test(words, f"{run.folder.resolve().name}-leaking-{seed}"))


def fit_other_model(run: Run, name: str, options: Sequence[str] = (), ending: str = "") -> Run:
    """Fit and test another model, by its class and words for its options, on a run's data by its rules.

    The new run's name is the run's, the model's and, for several with different options, an ending.
    """
    config = _config_of(run)
    config["model"] = {"class_path": name}
    config_file = run.folder / "audits" / "other_models" / f"{name}.yaml"
    with atomic_write(config_file) as temporary:
        temporary.write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["--config", str(config_file), *_rules(run), *options, *USUAL_FOLDER, *_ONE_PROCESS]
    return read_run(fit_and_test(words, f"{run.folder.resolve().name}-{name.lower()}{ending}"))


def _rules(run: Run) -> list[str]:
    """Words for the rules that a run was tested by: they may have been changed for the test.

    Raises:
        SessRecError: If it was tested on some items only, which are not kept.
    """
    if (allowed := run.report["protocol"]["allowed_items"]) != "all":
        raise SessRecError(f"{run.folder} was tested with --allow or --exclude ({allowed}), which cannot be done again")
    rules = {name: str(run.report["protocol"][name]).lower() for name in ("tie_mode", "exclude_last", "exclude_seen")}
    return [word for name, value in rules.items() for word in (f"--model.{name}", value)]


def _config_of(run: Run) -> dict[str, Any]:
    file = run.folder / "config.yaml"
    if not file.is_file():
        raise SessRecError(f"{run.folder} has no config.yaml, so it cannot be fitted or tested again")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def checkpoint_of(run: Run) -> Path:
    """The checkpoint that was tested, found in the run even if that was moved.

    Raises:
        SessRecError: If it is gone.
    """
    _config_of(run)
    file = run.folder / "checkpoints" / Path(run.report["checkpoint"]).name
    if not file.is_file():
        raise SessRecError(f"the checkpoint {file} that was tested is gone")
    return file
