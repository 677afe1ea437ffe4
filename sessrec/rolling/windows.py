"""Windows of a click log: a training part before a cut and a test part after it, again and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sessrec.click_log.events import Events
from sessrec.data.cleaning import clean_events
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.data.split import leakage_report, split_events
from sessrec.errors import SessRecError
from sessrec.experiments.plain_log import plain_format_words, plain_log, write_plain_log
from sessrec.text import time_text

_DAY = 86_400


class Window(NamedTuple):
    """One fit and its test."""

    number: int
    """From 1."""
    start: float
    """Time at which training sessions begin at the earliest, in Unix seconds."""
    cut: float
    """Time at which training ends and the test begins."""
    end: float
    """Time before which test sessions begin."""


@dataclass(frozen=True)
class Plan:
    """Where the windows of a log lie.

    Args:
        n_windows: Number of windows.
        train_window: Length of the training part, in seconds; None takes all that lies before the cut.
        step: Time from one cut to the next, in seconds.
        horizon: Length of the test part, in seconds: at most a step, or a whole number of steps.
        offset: Time from the log's first event to the first window, in seconds; None ends the last window's first step
            with the log.

    Raises:
        SessRecError: If an option is out of its range, or two of them do not go together.
    """

    n_windows: int
    train_window: float | None
    step: float
    horizon: float
    offset: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("train_window", "step", "horizon"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SessRecError(f"--{name} must be above 0, got {value:g} s")
        if self.horizon > self.step and abs(self.horizon / self.step - self.n_steps) > 1e-9:
            raise SessRecError("--horizon must be at most --step, or a whole number of steps")
        if self.offset is not None and self.train_window is None:
            raise SessRecError("--offset needs --train_window")

    @property
    def n_steps(self) -> int:
        """Number of steps in the horizon: the ages at which a model is tested."""
        return max(1, round(self.horizon / self.step))

    def windows(self, first: float, last: float) -> list[Window]:
        """The windows of a log.

        Args:
            first: Time of its first event.
            last: Time of its last event.

        Raises:
            SessRecError: If it is too short.
        """
        end, length = math.floor(last) + 1.0, self.train_window
        if self.offset is None:
            cut = end - min(self.step, self.horizon) - (self.n_windows - 1) * self.step
        else:
            assert length is not None
            cut = first + self.offset + length
        begin = cut if length is None else cut - length  # of the first window
        last_cut = cut + (self.n_windows - 1) * self.step
        if (begin <= first if length is None else begin < first) or last_cut >= end:
            raise SessRecError(
                f"the log lasts {duration_text(last - first)}, from {time_text(first)} to {time_text(last)}, too short "
                f"for {self.n_windows} windows: give fewer --windows, a shorter --step or a shorter --train_window"
            )
        cuts = [cut + number * self.step for number in range(self.n_windows)]
        return [
            Window(number, -math.inf if length is None else cut - length, cut, min(cut + self.horizon, end))
            for number, cut in enumerate(cuts, 1)
        ]


def duration_text(seconds: float) -> str:
    """A length of time in days or hours."""
    return f"{seconds / _DAY:.1f} days" if seconds >= _DAY else f"{seconds / 3600:.1f} hours"


def read_whole(whole: Preparation) -> Events:
    """Read the log and clean it, but for rare items: each window drops those that are rare in its training part.

    Raises:
        SessRecError: If it has no times, or is given in parts.
    """
    events = whole.read(DataReport())
    if not events.has_times:
        raise SessRecError("roll needs times: the log has none (--data.time_column null)")
    events, _ = clean_events(events, whole.drop_repeats, whole.min_session_length, 1, whole.max_session_length)
    if not len(events):
        raise SessRecError("no session is left after cleaning")
    return events


def cut_window(events: Events, window: Window, min_length: int = 2) -> tuple[Events, Events]:
    """Training and test part of a window; a session that is under way at the cut trains with its head.

    Args:
        events: The whole log, cleaned.
        window: The window.
        min_length: Heads with fewer events are dropped.
    """
    first, stop = np.searchsorted(events.starts, [window.start, window.end])
    train, test, _ = split_events(events.sessions_between(int(first), int(stop)), window.cut, "cut", min_length)
    return train, test


def check_windows(events: Events, windows: Sequence[Window], tested: float, min_length: int, is_warm: bool) -> None:
    """Refuse windows in which nothing can be trained on or tested, before any fit.

    Args:
        events: The whole log, cleaned.
        windows: The windows.
        tested: Seconds after its cut in which a window must have a test session.
        min_length: Heads with fewer events are dropped.
        is_warm: Whether a fit goes on with what is new since the window before.

    Raises:
        SessRecError: If there is one.
    """
    for window in windows:
        train, test = cut_window(events, window, min_length)
        known = np.isin(test.item, train.item)
        n_known = np.bincount(test.session, known, test.n_sessions)
        lacking = {
            "training session": not len(train),
            f"test session in the {duration_text(tested)} after its cut": not (test.starts < window.cut + tested).any(),
            "test session with two items of its training part": not (n_known >= 2).any(),
        }
        if is_warm and window.number > 1 and len(train):
            lacking["new training session"] = train.starts[-1] < windows[window.number - 2].cut
        for what in (what for what, is_lacking in lacking.items() if is_lacking):
            raise SessRecError(
                f"window {window.number} has no {what}, at {time_text(window.cut)}: give a longer --step, or other "
                "windows"
            )


def write_window(events: Events, window: Window, folder: Path, min_length: int) -> dict[str, float | int]:
    """Write the parts of a window as logs, and give its figures, those of `leakage_report` among them."""
    train, test = cut_window(events, window, min_length)
    for part, file in zip((train, test), window_files(window, folder), strict=True):
        write_plain_log(plain_log(part), file)
    figures = {f"{name}_{what}": number for name, part in (("train", train), ("test", test))
               for what, number in part.counts().items()}  # fmt: skip
    times = {"train_from": float(train.starts[0]), "cut": window.cut, "test_to": window.end}
    return {"window": window.number, **times, **figures, **leakage_report(train, test, window.cut)}


def window_files(window: Window, folder: Path) -> tuple[Path, Path]:
    """Files of the training part and of the test part."""
    train, test = (folder / f"window-{window.number:02d}-{part}.parquet" for part in ("train", "test"))
    return train, test


def window_words(window: Window, folder: Path) -> list[str]:
    """Words of fit that read the parts of a window."""
    train, test = window_files(window, folder)
    no_cut = ["--data.test_ratio", "0", "--data.test_duration", "null", "--data.test_start", "null"]
    no_cut += ["--data.train_ratio", "null", "--data.train_duration", "null", "--data.train_start", "null"]
    paths = ["--data.path", "null", "--data.train_path", str(train), "--data.test_path", str(test)]
    return [*paths, "--data.val_path", "null", *no_cut, *plain_format_words()]
