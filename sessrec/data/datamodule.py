"""`SessionDataModule`: from a click log to the loaders of train, validation, test and prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer

from sessrec.click_log.files import IN_MEMORY
from sessrec.click_log.memory_table import is_table
from sessrec.click_log.row_index import ENGINE_OPTIONS
from sessrec.data.cache import find_prepared, open_or_prepare
from sessrec.data.cleaning import clean_events
from sessrec.data.loaders import EvaluationLoader, LogLoader, SessionLoader, SessionParallelLoader, TrainingBatches
from sessrec.data.prediction_log import read_for_prediction
from sessrec.data.preparation import Preparation, PreparedLog, map_part
from sessrec.data.report import DataReport
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary, with_cold_items
from sessrec.distributed import n_processes, process_rank
from sessrec.errors import SessRecError, check_least
from sessrec.features.availability import ItemIntervals, read_availability
from sessrec.features.item_table import ItemTable
from sessrec.features.reading import read_item_table

_MOST_LANES = 1 << 17  # a window of as many lanes takes 200 MB, whether they hold sessions or not


class SessionDataModule(LightningDataModule):
    """A click log, cleaned, split in time and laid out for training and evaluation.

    Args:
        path: Click log: a file of TSV, CSV or JSON lines (plain, or compressed by gzip, zip, bzip2, xz or zstd), a
            Parquet file, a folder of such files, a pattern such as logs/*.csv, or a list of these. In Python also a
            table in memory, of pandas (whose index is ignored), polars, pyarrow or any other with the Arrow C stream
            interface; it is neither cached nor kept by a run. Without one, 20,000 synthetic sessions over 1,000 items
            are generated (see sessrec.data.synthetic).
        batch_size: Lanes of the session-parallel mini-batch in training, of each process; of sessions where a model
            trains on whole sessions.
        eval_batch_size: Sessions in an evaluation batch; changes speed and memory, never the results.
        steps_per_window: Training steps in one batch of the trainer.
        shuffle: Whether training takes the sessions in a new random order each epoch; else in time order.
        items: Table of features of the items, for --model.features: Parquet, CSV or TSV; the item ids in item_column, a
            feature in each other column. In Python also a table in memory.
        availability: Table of when items are there, in columns From and To beside the item ids, one row an interval:
            test ranks each target among these as well; in Python also a table in memory.
        cache_dir: Folder of prepared logs, to be opened at once the next time; null keeps none.
        **preparation: Options of `Preparation`: how the log is written, and how it is cleaned and split.

    Raises:
        SessRecError: If an option is out of its range, or two of them do not go together.
        TypeError: If there is no such option.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 512,
        steps_per_window: int = 64,
        shuffle: bool = False,
        items: str | None = None,
        availability: str | None = None,
        cache_dir: str | None = "data/.prepared",
        **preparation: Any,
    ) -> None:
        super().__init__()
        self.preparation = Preparation(path, **preparation)
        cache_dir = None if cache_dir is None else str(cache_dir)
        own = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "steps_per_window": steps_per_window}
        for option, value in own.items():
            check_least(f"--data.{option}", value, 1)
        if batch_size > _MOST_LANES:
            raise SessRecError(f"--data.batch_size must be at most {_MOST_LANES:,}, got {batch_size}")
        self._items, items = items, IN_MEMORY if is_table(items) else items
        self._availability, availability = availability, IN_MEMORY if is_table(availability) else availability
        path, preparation = self.preparation.path, {}  # Lightning compares the arguments, and tables compare to tables
        others = {"shuffle": shuffle, "items": items, "availability": availability, "cache_dir": cache_dir}
        kept = {name: value for name, value in asdict(self.preparation).items() if name not in ENGINE_OPTIONS}
        self.save_hyperparameters(kept | own | others)  # no checkpoint asks another machine for an engine
        self.options: Any = self.hparams
        if cache_dir is not None and not cache_dir.strip():
            raise SessRecError("--data.cache_dir is empty: name a folder, or null to keep nothing")
        self.vocabulary: Vocabulary | None = None
        self.sessions: dict[str, Sessions] = {}
        self.report = DataReport()
        self.seed = torch.initial_seed()
        self.grow: Callable[[Vocabulary], Vocabulary] | None = None
        """Makes the items of a fit of those of the training part, see `Preparation.run`; such a log is not kept."""
        self.ranks_cold_items = False
        """Whether a fit also takes the items of the item table that have no click in training."""
        self._prepared: PreparedLog | None = None

    @cached_property
    def item_table(self) -> ItemTable | None:
        """The table of the option ``items``, read once; None where there is none.

        Raises:
            SessRecError: If it cannot be read.
        """
        return None if self._items is None else read_item_table(self._items, self.preparation.item_column)

    @cached_property
    def availability(self) -> ItemIntervals | None:
        """When each item of the model is there, by the table of the option; None where there is none.

        Raises:
            SessRecError: If it cannot be read.
        """
        if self._availability is None:
            return None
        own, known = self.preparation, self.vocabulary
        assert known is not None
        table = read_availability(self._availability, own.item_column, own.time_unit, own.time_format)
        intervals = table.of(known.item_ids)
        n_strangers = int((known.index_of(table.item_ids) < 0).sum())
        if n_strangers == len(table.item_ids):
            raise SessRecError(f"{table.source} (--data.availability) has no item that the model knows")
        notes = {f"note_{number}": note for number, note in enumerate(table.notes, 1)}
        rows = {"items": len(table.item_ids), "items_unknown_to_the_model": n_strangers}
        always = {"items_of_the_model_always_there": intervals.n_unlisted}
        self.report.add("availability", {"source": table.source, **rows, **always, **notes})
        return intervals

    def setup(self, stage: str) -> None:
        """Read and prepare what the stage needs: fit, validate, test or predict.

        Raises:
            SessRecError: If the log cannot be read, or a part that is needed has nothing in it.
        """
        part = _PART_OF_STAGE[stage]
        if part in self.sessions:
            return
        if stage == "predict":
            self._read_for_prediction()
            return
        if stage == "validate" and not self.has_validation:
            raise SessRecError("there is no validation part: give --data.val_ratio or --data.val_duration")
        if stage == "test" and not self.preparation.has_test:
            raise SessRecError(
                "there is no test part: give --data.test_ratio, --data.test_duration or --data.test_start"
            )
        if stage == "fit":
            self.item_table  # noqa: B018 - what is wrong with it is said before the log is read
            grow = self._grow()
            prepared = self.prepare() if grow is None else self.preparation.run(grow=grow)
            known = prepared.vocabulary
            self._report_items(prepared)
        else:
            known = self._known_items(part)
            found = self._prepared or find_prepared(self.preparation, self.options.cache_dir)
            is_of_model = found is not None and found.vocabulary.item_ids == known.item_ids
            prepared = found if found is not None and is_of_model else self.preparation.run(known)
        self.vocabulary, self.sessions, self.report = known, prepared.sessions, prepared.report
        if stage == "test":
            self.availability  # noqa: B018 - what is wrong with it is said before the test
        for needed in ("train", "val") if stage == "fit" and self.has_validation else (part,):
            self._check_usable(needed)

    def _grow(self) -> Callable[[Vocabulary], Vocabulary] | None:
        """What makes the items of a fit of those of the training part; None where they are the same."""
        model = None if self.trainer is None else self.trainer.lightning_module
        if not (self.ranks_cold_items or getattr(model, "ranks_cold_items", False)):
            return self.grow
        if self.item_table is None:
            raise SessRecError("--model.cold_items true needs --data.items, the table that has these items")
        before, item_ids = self.grow, self.item_table.item_ids
        return lambda known: with_cold_items(known if before is None else before(known), item_ids)

    def _report_items(self, prepared: PreparedLog) -> None:
        """Report what the item table holds, and how it meets the items of the training part."""
        if self.item_table is not None:
            counted = prepared.vocabulary.counts > 0
            known = [item_id for item_id, n in zip(prepared.vocabulary.item_ids, counted, strict=True) if n]
            prepared.report.sections.pop("items", None)
            prepared.report.add("items", self.item_table.describe(known))

    def prepare(self) -> PreparedLog:
        """Prepare the log, or open what was prepared before; once for all stages.

        Raises:
            SessRecError: If the log cannot be read, or nothing is left to train on.
        """
        if self._prepared is None:
            self._prepared = open_or_prepare(self.preparation, self.options.cache_dir)
            self._report_items(self._prepared)
            self.report = self._prepared.report
        return self._prepared

    def _read_for_prediction(self) -> None:
        """All sessions of the log; of the cleaning, only repeats are dropped, as the model never saw any."""
        self.report = DataReport()
        events = read_for_prediction(self.preparation, self.report)
        events, dropped = clean_events(events, self.options.drop_repeats, min_session_length=1)
        self.report.add("cleaned", {"events_dropped_repeats": dropped["events_dropped_repeats"]})
        known = self._known_items("predict")
        self.sessions["predict"] = map_part("predict", events, known, self.report, min_length=1)
        self._check_usable("predict")

    def _known_items(self, part: str) -> Vocabulary:
        """Items of the loaded model, or of an earlier fit."""
        known = self.vocabulary
        if known is None and self.trainer is not None:
            known = getattr(self.trainer.lightning_module, "_vocabulary", None)
        if known is None:
            raise SessRecError(f"the {part} part needs the items of a fitted model: load it from its checkpoint first")
        return known

    def _check_usable(self, part: str) -> None:
        if len(self.sessions.get(part, ())):
            return
        figures = self.report.sections[part]
        raise self.report.explain(
            f"the {part} part has no usable session, so there are no {part} targets: {figures['sessions_before']} "
            f"sessions and {figures['events_before']} events were read, {figures['unknown_events']} of the events are "
            "of items unknown to the model"
        )

    @property
    def has_validation(self) -> bool:
        """Whether the options ask for a validation part."""
        return self.preparation.has_validation

    def train_dataloader(self) -> SessionParallelLoader | SessionLoader | LogLoader:
        """Session-parallel windows over the train part, whole sessions of it or all of it, as the model asks for."""
        h, sessions, seed = self.options, self.sessions["train"], self.seed % 2**32
        model = None if self.trainer is None else self.trainer.lightning_module
        batches: TrainingBatches = getattr(model, "batches", "window")
        if batches == "log":
            return LogLoader(sessions)
        # as the trainer has it: a fit is checked before its other processes begin
        n_ranks = 1 if self.trainer is None else self.trainer.world_size
        if batches == "sessions":
            return SessionLoader(sessions, h.batch_size, h.shuffle, seed, n_ranks)
        return SessionParallelLoader(sessions, h.batch_size, h.steps_per_window, h.shuffle, seed, n_ranks)

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        """Whole sessions of the validation part; nothing where there is none."""
        return self._evaluation_loader("val") if "val" in self.sessions else []

    def test_dataloader(self) -> EvaluationLoader:
        """Whole sessions of the test part."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> EvaluationLoader:
        """Whole sessions of the log, to predict what follows each."""
        return self._evaluation_loader("predict", by_length=False)

    def _evaluation_loader(self, part: str, by_length: bool = True) -> EvaluationLoader:
        if part not in self.sessions:
            raise SessRecError(f"there is no {part} part: give --data.{part}_ratio or --data.{part}_duration")
        h = self.options
        return EvaluationLoader(self.sessions[part], h.eval_batch_size, by_length, process_rank(), n_processes())

    def state_dict(self) -> dict[str, Any]:
        """What the order of training follows from: the sessions, and the seed of their shuffled orders."""
        if self.trainer is None:  # nothing is trained
            return {}
        sessions = self.sessions["train"].digest
        return {"seed": self.seed, "sessions": sessions, "schedule": self._schedule(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the session orders of the first fit."""
        self.seed = state_dict["seed"]

    def check_training(self, state_dict: dict[str, Any], inside_epoch: bool, trainer: Trainer) -> None:
        """Refuse sessions and options with which a fit cannot go on as it began.

        Args:
            state_dict: What `state_dict` gave in the first fit.
            inside_epoch: Whether the fit goes on inside an epoch, in its very steps.
            trainer: The trainer that it goes on with.

        Raises:
            SessRecError: If the training sessions are others, or the steps would be.
        """
        if state_dict.get("sessions") not in (None, self.sessions["train"].digest):  # 0.1 kept no digest
            raise SessRecError(
                "the checkpoint was fitted to other training sessions: go on with the click log and the --data options "
                "of the first fit"
            )
        if inside_epoch and state_dict["schedule"].get("--trainer.devices", 1) > 1:
            raise SessRecError(
                "the checkpoint was taken inside an epoch by several processes of an earlier release, whose steps were "
                "others: resume from one that was taken at the end of an epoch"
            )
        schedule = self._schedule(trainer)
        for option, value in state_dict["schedule"].items() if inside_epoch else ():
            if option in schedule and schedule[option] != value:
                together = " of all processes together" if option == "--data.batch_size" else ""
                raise SessRecError(
                    f"the checkpoint was taken inside an epoch with {option} {value}{together}, and the rest of it "
                    f"cannot be done with {schedule[option]}: change it at the end of an epoch"
                )

    def _schedule(self, trainer: Trainer) -> dict[str, Any]:
        """What the steps of an epoch follow from, beside the sessions."""
        return {f"--data.{name}": self.options[name] for name in ("steps_per_window", "shuffle")} | {
            "--data.batch_size": self.options.batch_size * trainer.world_size,
            "--trainer.limit_train_batches": trainer.limit_train_batches,
            "--trainer.overfit_batches": trainer.overfit_batches,  # type: ignore[attr-defined]
        }


_PART_OF_STAGE = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
