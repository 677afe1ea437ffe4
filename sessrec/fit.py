"""Fit a model to a click log: ``python -m sessrec.fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from sessrec.callbacks.checkpoints import BestCheckpoint, check_run_is_free, is_inside_epoch, work_done
from sessrec.callbacks.early_stopping import OwnPatience
from sessrec.callbacks.loggers import open_loggers
from sessrec.callbacks.run_folder import RunConfig, RunSummary
from sessrec.cli import SessRecCLI, is_follower, outcome_of, run_command
from sessrec.data import SessionDataModule
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.models.compatibility import check_clipping, check_trainer
from sessrec.models.earlier import Earlier
from sessrec.models.knows_features import KnowsFeatures
from sessrec.models.neural import NeuralRecommender
from sessrec.models.warm_start import WarmStart, grown_vocabulary
from sessrec.options import changed_options, naming_changes
from sessrec.suggestions import did_you_mean
from sessrec.trainer_options import check_batches, check_stopping, check_trainer_options
from sessrec.writing import check_writable


def fit(cli: SessRecCLI) -> None:
    """Fit the model; whatever can be rejected is rejected before the trainer starts and writes."""
    run_folder, config = cli.name_run(), cli.config
    checkpoint = _check_run(cli, run_folder)
    if cli.launches:
        cli.launch(partial(outcome_of, "fit", fit))
        return
    config.launcher, config.workers = None, 1  # a saved config says nothing of where it was fitted
    model, data = cli.build_model_and_data()
    metrics = [str(name) for name in model.val_metrics]
    if data.has_validation and config.monitor not in metrics:
        hint = did_you_mean(config.monitor, metrics)
        raise SessRecError(f"--monitor {config.monitor} is none of the metrics {', '.join(metrics)}{hint}")
    saving: list[Callback] = [BestCheckpoint(config.monitor)] if data.has_validation else []
    saving.append(cli.config_init.checkpoint)
    if not config.trainer.fast_dev_run:  # which leaves no run
        saving.append(RunConfig(cli.parser, config, run_folder))
    trainer = cli.build_trainer([RunSummary(checkpoint), OwnPatience(), *saving])
    _check_folders(trainer, run_folder)
    check_trainer(trainer, "fit", type(model).__name__, model.trains_in_parallel)
    check_clipping(trainer, type(model).__name__, model.clips_gradients)
    is_own = type(model).__module__.startswith("sessrec.")
    check_stopping(trainer, metrics if data.has_validation else (), logs_more=not is_own)
    if isinstance(model, NeuralRecommender):
        model.schedule.check_end(trainer)
    content = None if checkpoint is None else read_checkpoint(checkpoint)
    _set_up(cli, begins=content is None)
    if isinstance(model, KnowsFeatures):
        model.encode_data(data)
    _check_batches(trainer, model, data)
    place: tuple[int | None, bool] = (None, False)
    if content is not None:
        inside_epoch = is_inside_epoch(content)
        _check_resumable(cli, content, inside_epoch)
        if done := work_done(content, inside_epoch, trainer):
            _check_same_options(cli, content, run_folder)
            print(f"nothing to do: the checkpoint {checkpoint} has {done}")
            return
        place = (content["global_step"], inside_epoch)
    with open_loggers(trainer, *place):
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)


def _check_run(cli: SessRecCLI, run_folder: Path) -> Path | None:
    """Reject options that are not a fit's, and a run that it would overwrite; the checkpoint that it resumes from."""
    for option in ("allow", "exclude"):
        if cli.config[option] is not None:
            raise SessRecError(f"--{option} is for validate, test and predict: a fit ranks all items")
    if cli.config.launcher is None and cli.config.workers != 1:
        raise SessRecError(
            f"--workers {cli.config.workers} goes with --launcher ray; without it, give --trainer.devices"
        )
    checkpoint = cli.find_checkpoint(run_folder)
    if not is_follower():
        check_run_is_free(run_folder, checkpoint, cli.run_option)
        check_writable(run_folder / "checkpoints", cli.folder_option)
    check_trainer_options(cli.config.trainer)
    return checkpoint


def _set_up(cli: SessRecCLI, begins: bool) -> None:
    """Prepare the data, and give the model the weights of ``--init_from`` where a fit begins with it."""
    model, data, file = cli.model, cli.datamodule, cli.config.init_from
    data.ranks_cold_items = model.ranks_cold_items
    if file is None and cli.config.init_drop:
        raise SessRecError("--init_drop leaves out items of --init_from: give both")
    if file is None:
        data.setup("fit")
        return
    if not isinstance(model, NeuralRecommender):
        _add_counts(cli)
        return
    warm = WarmStart(read_checkpoint(file))
    data.grow = partial(grown_vocabulary, warm.vocabulary, drop=cli.config.init_drop)
    if isinstance(model, KnowsFeatures):
        model.encoder_before = warm.encoder
    data.setup("fit")
    if begins:
        model.take_data(data)
        n_known, model.warm_start = warm.copy_weights(model), warm
        n_new, n_gone = model.n_items - n_known, len(warm.vocabulary) - n_known
        print(f"begins with {file}: {n_known:,} items of it, {n_new:,} new ones, {n_gone:,} left out")


def _add_counts(cli: SessRecCLI) -> None:
    """Prepare the data of a model that counts, and have it add the counts of ``--init_from``."""
    model, data, file = cli.model, cli.datamodule, cli.config.init_from
    if not model.adds_up:
        raise SessRecError(f"--init_from: {type(model).__name__} has nothing to add up: fit it to all sessions")
    if data.preparation.replay:
        raise SessRecError("--data.replay gives sessions again that --init_from has counted already: leave it out")
    before = type(model).load_from_checkpoint(file)
    data.grow = partial(grown_vocabulary, before.vocabulary, drop=cli.config.init_drop, adds=True)
    data.setup("fit")
    assert data.vocabulary is not None
    model.earlier = Earlier(before, dict(model.hparams), data.vocabulary)
    lost = f"; {before.inexact}" if before.inexact else ""
    print(f"adds to the counts of {file}, of {len(before.vocabulary):,} items{lost}")


def _check_batches(trainer: Trainer, model: SessionRecommender, data: SessionDataModule) -> None:
    """Reject what only the data can tell: parts of an epoch that are none, and a warm-up as long as the fit."""
    trainer.strategy.connect(model)  # which the loader asks for the kind of its batches
    data.trainer = trainer
    loader = data.train_dataloader()
    check_batches(trainer, len(loader), len(data.val_dataloader()))
    if isinstance(model, NeuralRecommender) and model.schedule.changes:
        model.schedule.length(trainer, loader)


def _check_folders(trainer: Trainer, run_folder: Path) -> None:
    """Reject a checkpoint callback that writes outside of the run."""
    for callback in trainer.checkpoint_callbacks:
        folder = getattr(callback, "dirpath", None)
        if folder is not None and not Path(folder).resolve().is_relative_to(run_folder.resolve()):
            raise SessRecError(f"a checkpoint callback's dirpath {folder} is outside of the run {run_folder}")


def _check_resumable(cli: SessRecCLI, content: dict[str, Any], inside_epoch: bool) -> None:
    """Reject a checkpoint that this fit cannot resume from."""
    model, data = cli.model, cli.datamodule
    if "SessionDataModule" not in content:
        raise SessRecError("the checkpoint was not fitted to a click log by sessrec: it keeps no schedule")
    assert data.vocabulary is not None
    with naming_changes(content, {"model": model, "data": data}):
        model.take_data(data)
        model.on_load_checkpoint(content)
        data.check_training(content["SessionDataModule"], inside_epoch, cli.trainer)
    if content["seed"] != cli.config.seed_everything:
        print(f"the fit resumes with its own seed {content['seed']}, not {cli.config.seed_everything}")


def _check_same_options(cli: SessRecCLI, content: dict[str, Any], run_folder: Path) -> None:
    """Reject options of a finished fit that are not those it was fitted with: they would have no effect."""
    changed = [
        *changed_options(content["hyper_parameters"], cli.model.hparams, "model"),
        *changed_options(content["datamodule_hyper_parameters"], cli.datamodule.hparams, "data"),
    ]
    if changed:
        raise SessRecError(f"the run {run_folder} was fitted with {', '.join(changed)}: give another {cli.run_option}")


main = partial(run_command, "fit", fit)

if __name__ == "__main__":
    main()
