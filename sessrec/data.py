"""`SessionDataModule`: from a click log to the loaders of train, validation, test and prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from sessrec.batches import EvaluationLoader, SessionParallelLoader
from sessrec.errors import SessRecError, check_choice
from sessrec.events import Events, clean_events, events_from_frame, read_events
from sessrec.report import DataReport, time_text
from sessrec.sessions import Sessions, map_events
from sessrec.split import Straddling, leakage_report, parse_duration, split_events, split_time
from sessrec.synthetic import generate_synthetic_sessions
from sessrec.times import TimeUnit
from sessrec.vocabulary import Vocabulary


class SessionDataModule(LightningDataModule):
    """A click log, cleaned, split in time and laid out for training and evaluation.

    Args:
        path: Click log: a TSV or CSV file (plain, gzipped or zipped) or a Parquet file, or a list of such files.
            Without one, 20,000 synthetic sessions over 1,000 items are generated (see sessrec.synthetic).
        session_column: Column of the session id.
        item_column: Column of the item id.
        time_column: Column of the time: Unix time or ISO 8601 text. null where the log has none: then the order of rows
            is the order of events.
        time_unit: Unit of numeric times: s, ms, us or ns; auto tells it from their size and reports it.
        separator: Character between the fields of a text file; null finds it.
        drop_repeats: Whether to drop immediate repeats of an item inside a session.
        min_session_length: Shorter sessions are dropped, at least 2.
        min_item_support: Items with fewer events are dropped.
        max_session_length: Longer sessions keep their first events only; null keeps all.
        test_ratio: Share of the sessions that are the test part, the latest ones; 0 for no test part. Used where
            neither test_duration nor test_start is given.
        test_duration: Length of the test part in time, such as 1d, 12h or seconds.
        test_start: Time at which the test part begins: seconds (row numbers where the log has those) or ISO text.
        val_ratio: Share of the training sessions that are the validation part, the latest ones; 0 or null for none:
            then the whole training part is fitted and the last checkpoint kept. Used where val_duration is not given.
        val_duration: Length of the validation part in time, such as 1d; 0 for no validation part.
        straddling: A session under way at the time of a split is cut there (its head trains, its tail is dropped), or
            goes to the later part as a whole (test).
        batch_size: Number of lanes of the session-parallel mini-batch in training.
        eval_batch_size: Sessions in an evaluation batch; changes speed and memory, never the results.
        steps_per_window: Training steps in one batch of the trainer.
        shuffle: Whether training takes the sessions in a new random order each epoch, in place of time order.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        session_column: str = "SessionId",
        item_column: str = "ItemId",
        time_column: str | None = "Time",
        time_unit: TimeUnit = "auto",
        separator: str | None = None,
        drop_repeats: bool = False,
        min_session_length: int = 2,
        min_item_support: int = 1,
        max_session_length: int | None = None,
        test_ratio: float | None = 0.2,
        test_duration: str | float | None = None,
        test_start: str | float | None = None,
        val_ratio: float | None = 0.1,
        val_duration: str | float | None = None,
        straddling: Straddling = "cut",
        batch_size: int = 32,
        eval_batch_size: int = 512,
        steps_per_window: int = 64,
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.options: Any = self.hparams
        for option, least in (
            ("min_session_length", 2),
            ("batch_size", 1),
            ("eval_batch_size", 1),
            ("steps_per_window", 1),
        ):
            if self.options[option] < least:
                raise SessRecError(f"--data.{option} must be at least {least}, got {self.options[option]}")
        if max_session_length is not None and max_session_length < min_session_length:
            raise SessRecError(
                f"--data.max_session_length {max_session_length} is below the minimum {min_session_length}"
            )
        check_choice("--data.straddling", straddling, Straddling)
        check_choice("--data.time_unit", time_unit, TimeUnit)
        if test_duration is not None and test_start is not None:
            raise SessRecError("give --data.test_duration or --data.test_start, not both")
        self.vocabulary: Vocabulary | None = None
        self.sessions: dict[str, Sessions] = {}
        self.report = DataReport()
        self.seed = torch.initial_seed()

    def setup(self, stage: str) -> None:
        """Read and prepare what the stage needs: fit, validate, test or predict.

        Raises:
            SessRecError: If the log cannot be read, or a part that is needed has nothing in it.
        """
        if _PART_OF_STAGE[stage] in self.sessions:
            return
        self.report = DataReport()
        events = self._read()
        if stage == "predict":
            self._map("predict", events, min_length=1)
            return
        events, dropped = clean_events(events, **{name: self.options[name] for name in _CLEANING})
        self.report.add("cleaned", {f"dropped_{rule}": count for rule, count in dropped.items()} | events.counts())
        train, val, test = self._split(events)
        if stage == "fit":
            self.vocabulary = Vocabulary.from_codes(train.item, train.item_ids)
            self._map("train", train)
        if val is None and stage == "validate":
            raise SessRecError("there is no validation part: give --data.val_ratio or --data.val_duration")
        if test is None and stage == "test":
            raise SessRecError(
                "there is no test part: give --data.test_ratio, --data.test_duration or --data.test_start"
            )
        if val is not None and stage in ("fit", "validate"):
            self._map("val", val)
        if test is not None and stage in ("fit", "test"):
            self._map("test", test, required=stage == "test")

    def _read(self) -> Events:
        h = self.options
        if h.path is None:
            source = "synthetic sessions (20,000 over 1,000 items; no --data.path)"
            events = events_from_frame(generate_synthetic_sessions())
        else:
            source = h.path if isinstance(h.path, str) else ", ".join(h.path)
            events = read_events(h.path, h.session_column, h.item_column, h.time_column, h.separator, h.time_unit)
        self.report.add("read", {"source": source, **events.counts()})
        self.report.add("read", {f"note_{number}": note for number, note in enumerate(events.notes, 1)})
        return events

    def _split(self, events: Events) -> tuple[Events, Events | None, Events | None]:
        """Cut off the test part and then the validation part; None where there is none."""
        h = self.options
        test = val = None
        if h.test_ratio or h.test_duration is not None or h.test_start is not None:
            self._refuse_empty(events)
            t = split_time(events, h.test_ratio, h.test_duration, h.test_start, "test")
            events, test = self._cut(events, t, "test")
        if self.has_validation:
            self._refuse_empty(events)
            t = split_time(events, h.val_ratio, h.val_duration, None, "val")
            events, val = self._cut(events, t, "val")
        self._refuse_empty(events)
        return events, val, test

    def _cut(self, events: Events, t: float, part: str) -> tuple[Events, Events]:
        earlier, later, counts = split_events(events, t, self.options.straddling)
        earlier, dropped = clean_events(earlier, min_session_length=self.options.min_session_length)
        counts["events_of_short_heads"] = dropped["in_short_sessions"]
        self.report.add(f"{part} cut", {"t": time_text(t), **counts, **leakage_report(earlier, later, t)})
        return earlier, later

    def _refuse_empty(self, events: Events) -> None:
        if len(events) == 0:
            raise SessRecError(
                f"{self.report.sections['read']['sessions']} sessions read, 0 left to train on: no session of "
                f"{self.options.min_session_length} or more events stays after cleaning and splitting"
            )

    def _map(self, part: str, events: Events, min_length: int = 2, required: bool = True) -> None:
        """Turn a part's events into sessions of item indices, by the vocabulary of the fit or of the loaded model."""
        if self.vocabulary is None and self.trainer is not None:
            self.vocabulary = getattr(self.trainer.lightning_module, "vocabulary", None)
        if self.vocabulary is None:
            raise SessRecError(f"the {part} part needs the items of a fitted model: load it from its checkpoint first")
        sessions, counts = map_events(events, self.vocabulary, min_length)
        figures = {"sessions": len(sessions), "events": len(sessions.items), "positions": sessions.n_positions}
        self.report.add(part, figures | {"items": len(np.unique(sessions.items))} | counts)
        if not len(sessions) and required:
            raise SessRecError(
                f"the {part} part has no usable session: {events.counts()['sessions']} sessions and {len(events)} "
                f"events were read, {counts['unknown_events']} of the events are of items unknown to the model"
            )
        if len(sessions):
            self.sessions[part] = sessions

    @property
    def has_validation(self) -> bool:
        """Whether the options ask for a validation part."""
        duration = self.options.val_duration
        if duration is not None:
            return parse_duration(duration, "--data.val_duration") > 0
        return bool(self.options.val_ratio)

    def train_dataloader(self) -> SessionParallelLoader:
        """Session-parallel windows over the train part."""
        h = self.options
        return SessionParallelLoader(
            self.sessions["train"], h.batch_size, h.steps_per_window, h.shuffle, seed=self.seed % 2**32
        )

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
        return EvaluationLoader(self.sessions[part], self.options.eval_batch_size, by_length)

    def state_dict(self) -> dict[str, Any]:
        """The seed of the shuffled session orders."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the session orders of the first fit."""
        self.seed = state_dict["seed"]


_CLEANING = ("drop_repeats", "min_session_length", "min_item_support", "max_session_length")
_PART_OF_STAGE = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
