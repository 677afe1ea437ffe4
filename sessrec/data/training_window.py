"""Keep the newest part of the training sessions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sessrec.click_log.events import Events
from sessrec.click_log.times import parse_duration
from sessrec.data.split import parse_time
from sessrec.errors import SessRecError
from sessrec.text import time_text

RatioOf = Literal["sessions", "positions"]


class TrainingWindow(NamedTuple):
    """Which training sessions are kept, at most one of the three; validation sessions are cut off these.

    Args:
        ratio: Share of the sessions, the latest ones.
        duration: Time before the last training event, seconds or a text such as ``30d``.
        start: Time at which a session begins at the earliest, in seconds or as ISO text.
        replay: Number of sessions before the window that are kept, too, as a share of those in it; drawn at random.
        ratio_of: Whether the share is one of the sessions or of the positions; as many positions as these are kept, for
            which the oldest session is cut to its head.

    Raises:
        SessRecError: If two are given, or a share is out of its range.
    """

    ratio: float | None = None
    duration: str | float | None = None
    start: str | float | None = None
    replay: float | None = None
    ratio_of: RatioOf = "sessions"

    def check(self) -> None:
        """Refuse what does not go together."""
        window = {"ratio": self.ratio, "duration": self.duration, "start": self.start}
        given = [f"--data.train_{name}" for name, value in window.items() if value is not None]
        if len(given) > 1:
            raise SessRecError(f"give one of {' and '.join(given)}, not both")
        if self.replay and not given:
            raise SessRecError("--data.replay keeps sessions before --data.train_ratio, train_duration or train_start")
        if self.replay is not None and not 0 <= self.replay < float("inf"):
            raise SessRecError(f"--data.replay must be at least 0, got {self.replay}")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise SessRecError(f"--data.train_ratio must be above 0 and at most 1, got {self.ratio}")
        if self.duration is not None and parse_duration(self.duration, "--data.train_duration") <= 0:
            raise SessRecError(f"--data.train_duration must be above 0, got {self.duration}")

    def cut(self, events: Events) -> tuple[Events, dict[str, str | int]]:
        """Keep the sessions that begin in the window; a session that began before it is dropped as a whole.

        Args:
            events: Events of the training part, in session order.

        Returns:
            The events that are kept, and figures for the report: ``t``, ``sessions_before`` and ``events_before``.

        Raises:
            SessRecError: If no session begins in the window, or the log has no times to measure a duration in.
        """
        if self.ratio is None and self.duration is None and self.start is None:
            return events, {}
        n_events, n_sessions, starts = len(events), events.n_sessions, events.starts
        if self.ratio is not None and self.ratio_of == "positions":
            first, events = _newest_positions(events, self.ratio)
        elif self.ratio is not None:
            first = n_sessions - max(1, int(self.ratio * n_sessions + 1e-9))
        else:
            first = int(np.searchsorted(starts, self._begin(events)))
        if first == n_sessions:
            option, value = ("duration", self.duration) if self.start is None else ("start", self.start)
            raise SessRecError(
                f"--data.train_{option} {value} leaves no session to train on: the last one begins at "
                f"{time_text(float(starts[-1]))}"
            )
        n_replayed = min(first, round((self.replay or 0) * (n_sessions - first)))
        replayed = np.sort(np.random.default_rng(0).choice(first, n_replayed, replace=False))
        kept = events.sessions_between(first, n_sessions)
        if n_replayed:
            kept = events.take_sessions(np.concatenate([replayed, np.arange(first, n_sessions)]))
        shown = time_text(float(starts[first])) if events.has_times else f"row {starts[first]:.0f}"
        figures: dict[str, str | int] = {"t": shown, "sessions_before": first, "events_before": n_events - len(kept)}
        if self.replay:
            figures |= {"sessions_before": first - n_replayed, "sessions_replayed": n_replayed}
        return kept, figures

    def _begin(self, events: Events) -> float:
        if self.start is not None:
            return parse_time(self.start, "--data.train_start")
        assert self.duration is not None
        if not events.has_times:
            raise SessRecError("--data.train_duration needs times; with --data.time_column null use --data.train_ratio")
        return float(events.time.max()) - parse_duration(self.duration, "--data.train_duration")


def _newest_positions(events: Events, ratio: float) -> tuple[int, Events]:
    """The first of the sessions that hold the newest share of the positions, and the events with that one cut to it."""
    positions = events.lengths - 1
    n_kept = max(1, int(ratio * positions.sum() + 1e-9))
    from_end = positions[::-1].cumsum()
    n_sessions = int(np.searchsorted(from_end, n_kept)) + 1
    first = events.n_sessions - n_sessions
    keep = np.ones(len(events), dtype=bool)
    end = events.offsets[first + 1]
    keep[end - (from_end[n_sessions - 1] - n_kept) : end] = False
    return first, events.select(keep)
