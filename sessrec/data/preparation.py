"""From a click log to the sessions of train, validation and test: read, clean, split, map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from sessrec.click_log.events import Events, events_from_frame
from sessrec.click_log.files import IN_MEMORY, check_paths
from sessrec.click_log.log_engine import LogEngine
from sessrec.click_log.log_format import BadLines, ItemLists, LogFormat
from sessrec.click_log.memory_table import as_arrow, is_table
from sessrec.click_log.ordering import count_codes
from sessrec.click_log.reading import GapEvents, read_events
from sessrec.click_log.times import TimeUnit, parse_duration
from sessrec.data.cleaning import clean_events
from sessrec.data.expected_counts import compare_with_expected
from sessrec.data.given_parts import PATHS, check_parts, describe_leaks, describe_shared_ids
from sessrec.data.log_statistics import describe, log_warnings, precision_warning
from sessrec.data.report import DataReport
from sessrec.data.sessions import Sessions, map_events
from sessrec.data.split import Straddling, leakage_report, split_events, split_time
from sessrec.data.synthetic import generate_synthetic_sessions
from sessrec.data.training_window import RatioOf, TrainingWindow
from sessrec.data.vocabulary import Vocabulary
from sessrec.engines import Engine, check_engine, log_engine, scratch_of
from sessrec.errors import SessRecError, check_choice, check_least
from sessrec.text import time_text


@dataclass
class PreparedLog:
    """The sessions of a click log, ready for training and evaluation."""

    sessions: dict[str, Sessions]
    """Sessions of ``train``, ``val`` and ``test``, where there are any."""
    vocabulary: Vocabulary
    """Items of the training part, or those of the model that is evaluated."""
    report: DataReport
    """What was read, dropped and split."""


@dataclass(frozen=True)
class Preparation(LogFormat):
    """How a click log is read, cleaned and split.

    Args:
        path: Click log, as `SessionDataModule` takes it.
        train_path: Training part of a split that somebody else has made, in place of path; session ids of different
            parts are different sessions, and the report tells what the split leaks.
        val_path: Its validation part; without one, val_ratio or val_duration cut it off the training part.
        test_path: Its test part; without one, the test part is cut off the training part likewise.
        session_gap: Time without an event after which a new session begins, such as 30m or 1h; null cuts nowhere.
        gap_events: Whether a gap lies between events of any kind (all) or of the kept kinds (kept).
        events: Kinds of event to keep, such as [view]; null keeps all.
        drop_repeats: Whether to drop immediate repeats of an item inside a session.
        min_session_length: Shorter sessions are dropped, at least 2.
        min_item_support: Items with fewer events are dropped.
        max_session_length: Longer sessions keep their first events only; null keeps all.
        filter_passes: How often short sessions and rare items are dropped, before short sessions are dropped a last
            time; null goes on until nothing changes.
        test_ratio: Share of the sessions that are the test part, the latest ones; 0 for no test part. Used where
            neither test_duration nor test_start is given.
        test_duration: Length of the test part in time, such as 1d, 12h or seconds.
        test_start: Begin of the test part: seconds (row numbers where the log has those) or ISO text.
        val_ratio: Share of the training sessions that are the validation part, the latest ones; 0 or null for none:
            then the whole training part is fitted and the last checkpoint kept. Used where val_duration is not given.
        val_duration: Length of the validation part in time, such as 1d; 0 for no validation part.
        train_ratio: Share of the training sessions to keep, the latest ones; null keeps all. The validation part is cut
            off these. Items, their counts and the filter of the test part follow from what is kept.
        train_ratio_of: Whether train_ratio is a share of the sessions or of the positions; of positions, the oldest
            session is cut to its head, as in the published 1/64 of Yoochoose.
        train_duration: Length of the training part in time, before its last event, such as 30d.
        train_start: Time at which the training sessions begin at the earliest: seconds or ISO text.
        replay: Number of sessions before that part that are trained on, too, as a share of those in it, such as 0.2;
            drawn at random, the same in every fit.
        straddling: A session under way at the time of a split is cut there (its head trains, its tail is dropped), or
            goes to the later part as a whole (test).
        expected: Published counts, such as {train_positions: 554.0k, test_sessions: 15324}: the report says whether the
            prepared log has them.
        engine: What prepares the log: local in memory, duckdb on disk, spark on a cluster; to the same bytes.
        memory_limit: Memory of DuckDB or of Spark's driver, such as 2GB, beside that of Python; null: as these choose.
        scratch_dir: Folder for 100 bytes an event, which Spark's machines share; null: that of temporary files.

    Raises:
        SessRecError: If an option is out of its range, or two of them do not go together.
    """

    path: str | list[str] | None = None
    train_path: str | list[str] | None = None
    val_path: str | list[str] | None = None
    test_path: str | list[str] | None = None
    session_gap: str | float | None = None
    gap_events: GapEvents = "all"
    events: list[str] | None = None
    drop_repeats: bool = False
    min_session_length: int = 2
    min_item_support: int = 1
    max_session_length: int | None = None
    filter_passes: int | None = None
    test_ratio: float | None = 0.2
    test_duration: str | float | None = None
    test_start: str | float | None = None
    val_ratio: float | None = 0.1
    val_duration: str | float | None = None
    train_ratio: float | None = None
    train_ratio_of: RatioOf = "sessions"
    train_duration: str | float | None = None
    train_start: str | float | None = None
    replay: float | None = None
    straddling: Straddling = "cut"
    expected: dict[str, str | int] | None = None
    engine: Engine = "local"
    memory_limit: str | None = None
    scratch_dir: str | None = None
    _tables: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Check the options; they become plain values, so that a prepared log can be kept under them."""
        self._name_sources()
        for name, value in vars(self).copy().items():
            if name in ("column_names", "missing_values", "events") and value is not None:
                if isinstance(value, str):
                    raise SessRecError(f"--data.{name} must be a list of texts, got {value!r}")
                value = list(map(str, value))
            object.__setattr__(self, name, value.item() if isinstance(value, np.generic) else value)
        defaults = {field.name: field.default for field in fields(self)}
        check_parts({name: getattr(self, name) for name in defaults}, defaults)
        check_least("--data.min_session_length", self.min_session_length, 2)
        check_least("--data.min_item_support", self.min_item_support, 0)
        check_least("--data.filter_passes", self.filter_passes, 0)
        if self.max_session_length is not None and self.max_session_length < self.min_session_length:
            raise SessRecError(
                f"--data.max_session_length {self.max_session_length} is below the minimum {self.min_session_length}"
            )
        check_choice("--data.straddling", self.straddling, Straddling)
        check_choice("--data.train_ratio_of", self.train_ratio_of, RatioOf)
        check_choice("--data.gap_events", self.gap_events, GapEvents)
        check_choice("--data.time_unit", self.time_unit, TimeUnit)
        if self.item_lists is not None:
            check_choice("--data.item_lists", self.item_lists, ItemLists)
        check_choice("--data.bad_lines", self.bad_lines, BadLines)
        check_engine(self.engine, self.memory_limit)
        if self.test_duration is not None and self.test_start is not None:
            raise SessRecError("give --data.test_duration or --data.test_start, not both")
        self.training_window.check()
        if self.visitor_column is not None and self.session_gap is None:
            raise SessRecError("--data.visitor_column needs --data.session_gap, such as 30m or 1h, to cut sessions")
        if (self.event_column is None) != (self.events is None):
            raise SessRecError("--data.event_column and --data.events go together: the column, and the kinds to keep")

    def _name_sources(self) -> None:
        """Make text of paths, and a mark of tables, which no field holds: no config or checkpoint must."""
        tables = {}
        for name in ("path", *PATHS):
            log = getattr(self, name)
            if is_table(log):
                tables[name], log = log if isinstance(log, pd.DataFrame) else as_arrow(log), IN_MEMORY
            elif isinstance(log, (list, tuple)):
                if any(is_table(file) for file in log):
                    raise SessRecError(f"--data.{name} takes one table in memory, not several: concatenate them")
                log = [str(file) for file in log]
            elif log is not None:
                check_paths(log, f"--data.{name}")
            object.__setattr__(self, name, None if log is None else log if isinstance(log, list) else str(log))
        object.__setattr__(self, "_tables", tables)

    @property
    def sources(self) -> dict[str, str | list[str]]:
        """Files of the log, or of its given parts, by the option that names them; none where the log is generated.

        Raises:
            SessRecError: If the log is given as a whole and in parts.
        """
        given = {name: getattr(self, name) for name in ("path", *PATHS) if getattr(self, name) is not None}
        if "path" in given and len(given) > 1:
            parts = " and ".join(f"--data.{name}" for name in PATHS if name in given)
            raise SessRecError(f"--data.path gives the whole log, and {parts} its parts: leave out either (null)")
        return given

    @property
    def log(self) -> Any:
        """The log as a whole: its files, or the table in memory."""
        return self._tables.get("path", self.path)

    @property
    def is_from_files(self) -> bool:
        """Whether the log is read from files, whose state tells whether a prepared log is up to date."""
        return bool(self.sources) and not self._tables

    @property
    def log_engine(self) -> LogEngine:
        """Who finds, reads and sorts the rows."""
        return log_engine(self.engine, self.memory_limit, self.scratch_dir)

    @property
    def training_window(self) -> TrainingWindow:
        """Which training sessions are kept."""
        window = (self.train_ratio, self.train_duration, self.train_start)
        return TrainingWindow(*window, self.replay, self.train_ratio_of)

    @property
    def has_test(self) -> bool:
        """Whether the options ask for a test part."""
        if self.test_path is not None:
            return True
        if self.test_duration is not None:
            return parse_duration(self.test_duration, "--data.test_duration") > 0
        return bool(self.test_ratio) or self.test_start is not None

    @property
    def has_validation(self) -> bool:
        """Whether the options ask for a validation part."""
        if self.val_path is not None:
            return True
        if self.val_duration is not None:
            return parse_duration(self.val_duration, "--data.val_duration") > 0
        return bool(self.val_ratio)

    def run(
        self, vocabulary: Vocabulary | None = None, grow: Callable[[Vocabulary], Vocabulary] | None = None
    ) -> PreparedLog:
        """Prepare the log.

        Args:
            vocabulary: Items of a fitted model, for the evaluation on another log; None takes those of the training
                part.
            grow: Makes the items of a fit of those of the training part: it adds those of an earlier fit.

        Raises:
            SessRecError: If the log cannot be read, or nothing is left to train on.
        """
        with scratch_of(self.engine, self.scratch_dir):
            return self._run(vocabulary, grow)

    def _run(self, vocabulary: Vocabulary | None, grow: Callable[[Vocabulary], Vocabulary] | None) -> PreparedLog:
        report = DataReport()
        events = self.read(report, "train_path" if "train_path" in self.sources else "path")
        report.warn(log_warnings(events, self.max_session_length, self.order_column is not None))
        report.add("log", describe(events))
        cleaning = (self.drop_repeats, self.min_session_length, self.min_item_support, self.max_session_length)
        events, dropped = clean_events(events, *cleaning, self.filter_passes)
        report.add("cleaned", dropped | events.counts())
        parts = self._split(events, report, needs_train=vocabulary is None)
        known = Vocabulary.of_events(parts["train"]) if vocabulary is None else vocabulary
        known = known if grow is None else grow(known)
        mapped = {part: map_part(part, own, known, report) for part, own in parts.items()}
        sessions = {part: own for part, own in mapped.items() if len(own)}
        empty = [part for part in parts if part not in sessions]
        report.warn(f"the {part} part has no usable session, so there are no {part} targets" for part in empty)
        if "test" in sessions:
            report.warn(precision_warning("test", sessions["test"].n_positions))
        if self.expected and "train" in parts:
            is_cut = self.has_validation and self.val_path is None
            report.warn(compare_with_expected(self.expected, report, is_cut))
        return PreparedLog(sessions, known, report)

    def read(self, report: DataReport, option: str = "path", section: str = "read") -> Events:
        """Read the log, or generate one where there is no path, and report it; nothing is cleaned yet.

        Args:
            report: The report.
            option: The option that names what is read: ``path``, or that of a part.
            section: Section of the report.

        Raises:
            SessRecError: If the log cannot be read, or is given in parts only and is wanted as a whole.
        """
        path = getattr(self, option)
        if path is None and self.train_path is not None:
            raise SessRecError("the log is given in parts (--data.train_path), and one log is needed: give --data.path")
        if path is None:
            source = "synthetic sessions (20,000 over 1,000 items; no --data.path)"
            events = events_from_frame(generate_synthetic_sessions())
        else:
            source = path if isinstance(path, str) else ", ".join(path)
            gap = None if self.session_gap is None else parse_duration(self.session_gap, "--data.session_gap")
            log, name = self._tables.get(option, path), f"--data.{option}"
            with scratch_of(self.engine, self.scratch_dir):
                events = read_events(log, self, gap, self.gap_events, self.events, name, self.log_engine)
        if len(events) == 0:
            raise SessRecError(f"no event of {source} is left: none is of the kinds {self.events} (--data.events)")
        report.has_times = events.has_times
        report.add(section, {"source": source, **events.figures})
        report.add(section, {f"note_{number}": note for number, note in enumerate(events.notes, 1)})
        report.warn(events.warnings)
        return events

    def _split(self, events: Events, report: DataReport, needs_train: bool) -> dict[str, Events]:
        """Cut off the test part and then the validation part; in the order train (if it is needed), val, test."""
        parts: dict[str, Events] = {}
        self._check_not_empty(events, report)
        for part, is_wanted, ratio, duration, start in (
            ("test", self.has_test and not self.test_path, self.test_ratio, self.test_duration, self.test_start),
            ("val", self.has_validation and not self.val_path, self.val_ratio, self.val_duration, None),
        ):
            if part == "val" and len(events) and (needs_train or is_wanted):
                events, figures = self.training_window.cut(events)
                if figures:
                    report.add("train window", figures)
            if is_wanted:
                if not needs_train and not len(events):
                    parts[part] = events
                    continue
                self._check_not_empty(events, report)
                t = split_time(events, ratio, duration, start, part)
                events, parts[part], counts = split_events(events, t, self.straddling, self.min_session_length)
                report.cuts[part] = t
                shown = time_text(t) if events.has_times else f"row {t:.0f}"
                report.add(f"{part} cut", {"t": shown, **counts})
        if needs_train:
            self._check_not_empty(events, report)
            parts["train"] = events
        for part, t in report.cuts.items():  # against what is left to train on
            report.add(f"{part} cut", leakage_report(events, parts[part], t))
        for part in ("val", "test"):
            if getattr(self, f"{part}_path") is not None:
                earlier = {"train": events} | parts
                parts[part] = self._read_part(part, report)
                self._describe_leaks(part, parts[part], earlier, report)
        return {part: parts[part] for part in ("train", "val", "test") if part in parts}

    def _read_part(self, part: str, report: DataReport) -> Events:
        """Read and clean a given part, in which no item is rare."""
        section = f"{part} given"
        events = self.read(report, f"{part}_path", section)
        report.warn(log_warnings(events, self.max_session_length, self.order_column is not None))
        events, dropped = clean_events(
            events, self.drop_repeats, self.min_session_length, max_session_length=self.max_session_length
        )
        report.add(section, dropped | events.counts())
        return events

    def _describe_leaks(self, part: str, given: Events, others: Mapping[str, Events], report: DataReport) -> None:
        """Report what a given part leaks; numbers of rows, where these are sessions, are no ids that parts share."""
        train, found = others["train"], []
        if len(given) and len(train):
            found.append(describe_leaks(part, train, given))
        if not self.rows_are_sessions:
            found += [describe_shared_ids(part, given, other, events) for other, events in others.items()]
        for figures, warnings in found:
            report.add(f"{part} given", figures)
            report.warn(warnings)

    def _check_not_empty(self, events: Events, report: DataReport) -> None:
        if len(events) == 0:
            raise report.explain(
                f"{report.sections['log']['sessions']} sessions read, 0 left to train on: no session of "
                f"{self.min_session_length} or more events stays after cleaning and splitting"
            )


def map_part(part: str, events: Events, vocabulary: Vocabulary, report: DataReport, min_length: int = 2) -> Sessions:
    """Turn a part's events into sessions as `map_events` does, and report it."""
    read = events.counts()
    sessions, counts = map_events(events, vocabulary, min_length)
    figures = {"sessions": len(sessions), "events": len(sessions.items), "positions": sessions.n_positions}
    items = int(np.count_nonzero(count_codes(sessions.items, len(vocabulary))))
    removed = round(1 - len(sessions.items) / max(read["events"], 1), 4)
    before = {"sessions_before": read["sessions"], "events_before": read["events"], "share_of_events_removed": removed}
    report.add(part, {**figures, "items": items, **before, **counts})
    return sessions
