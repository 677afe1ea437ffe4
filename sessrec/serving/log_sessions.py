"""Sessions of a click log, for the page."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import yaml

from sessrec.click_log.events import Events
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.click_log.times import parse_duration
from sessrec.data.cleaning import clean_events
from sessrec.errors import SessRecError

_NEWEST = 1000  # sessions of which one is drawn where the log does not tell which are newer than the model


class LogSession(NamedTuple):
    """A session of a click log."""

    session_id: str
    items: list[str]
    """Its item ids, oldest first."""
    start: float | None
    """Unix seconds of its first event; None where the log has no times."""


class LogSessions:
    """Sessions of two events or more, by id or by chance.

    Args:
        events: The click log.
        seed: Seed of the drawing.
    """

    def __init__(self, events: Events, seed: int = 1) -> None:
        self._events, self._draw = events, random.Random(seed)
        self._long = np.flatnonzero(events.lengths > 1)  # by their first events
        self._ids = events.session_ids.cast(pa.string())

    def __len__(self) -> int:
        """Number of sessions of two events or more."""
        return len(self._long)

    def one_after(self, time: float | None) -> LogSession | None:
        """One of the sessions that begin after a time, else of the newest; None where there is none.

        Args:
            time: Unix seconds.
        """
        newer = self._long[:0]
        if time is not None and self._events.has_times:
            newer = self._long[self._events.starts[self._long] > time]
        found = newer if len(newer) else self._long[-_NEWEST:]
        return self._session(int(self._draw.choice(found))) if len(found) else None

    def of_id(self, session_id: str) -> LogSession | None:
        """The session of an id; None where there is none."""
        code = self._ids.index(session_id).as_py()
        found = self._long[self._events.numbers[self._long] == code]  # none where the code is -1
        return self._session(int(found[0])) if len(found) else None

    def _session(self, number: int) -> LogSession:
        events = self._events
        begin, end = events.offsets[number : number + 2].tolist()
        items = events.item_ids.take(pa.array(events.item[begin:end])).to_pylist()
        start = float(events.time[begin]) if events.has_times else None
        return LogSession(self._ids[int(events.numbers[number])].as_py(), items, start)


def read_log_sessions(log: str, checkpoint: Path) -> LogSessions:
    """Read the sessions of a click log, written as the log that a model was fitted to.

    Args:
        log: File, folder or pattern.
        checkpoint: Checkpoint of the model; the config.yaml of its run tells how the log is written, and columns
            SessionId, ItemId and Time where there is none.

    Raises:
        SessRecError: If the log cannot be read.
    """
    data = _options_of(checkpoint.resolve().parent.parent / "config.yaml")
    own = {one.name: data[one.name] for one in fields(LogFormat) if one.name in data}
    gap = data.get("session_gap")
    seconds = None if gap is None else parse_duration(gap, "--data.session_gap")
    rules = (seconds, data.get("gap_events", "all"), data.get("events"))
    events = read_events(log, LogFormat(**own), *rules, option="--sessions")
    cleaned, _ = clean_events(events, data.get("drop_repeats", False), 1, 0, data.get("max_session_length"), 0)
    return LogSessions(cleaned)


def _options_of(config: Path) -> dict[str, Any]:
    """Options of the data of a run; none where it has no config.

    Raises:
        SessRecError: If the file is no config.
    """
    if not config.is_file():
        return {}
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise SessRecError(f"cannot read {config}: {error}") from error
    if not isinstance(data, dict):
        raise SessRecError(f"cannot read {config}: it has no options of the data")
    return data
