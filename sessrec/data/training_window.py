"""Keep the newest part of the training sessions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sessrec.click_log.events import Events
from sessrec.click_log.times import parse_duration
from sessrec.data.split import parse_time
from sessrec.errors import SessRecError
from sessrec.text import time_text


class TrainingWindow(NamedTuple):
    """Which training sessions are kept, at most one of the three; validation sessions are cut off these.

    Args:
        ratio: Share of the sessions, the latest ones.
        duration: Time before the last training event, seconds or a text such as ``30d``.
        start: Time at which a session begins at the earliest, in seconds or as ISO text.

    Raises:
        SessRecError: If two are given, or a share is out of its range.
    """

    ratio: float | None = None
    duration: str | float | None = None
    start: str | float | None = None

    def check(self) -> None:
        """Refuse what does not go together."""
        given = [f"--data.train_{name}" for name, value in self._asdict().items() if value is not None]
        if len(given) > 1:
            raise SessRecError(f"give one of {' and '.join(given)}, not both")
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
        if not any(value is not None for value in self):
            return events, {}
        n_sessions, starts = events.n_sessions, events.starts
        if self.ratio is not None:
            first = n_sessions - max(1, int(self.ratio * n_sessions + 1e-9))
        else:
            first = int(np.searchsorted(starts, self._begin(events)))
        if first == n_sessions:
            option, value = ("duration", self.duration) if self.start is None else ("start", self.start)
            raise SessRecError(
                f"--data.train_{option} {value} leaves no session to train on: the last one begins at "
                f"{time_text(float(starts[-1]))}"
            )
        kept = events.sessions_between(first, n_sessions)
        shown = time_text(float(starts[first])) if events.has_times else f"row {starts[first]:.0f}"
        return kept, {"t": shown, "sessions_before": first, "events_before": len(events) - len(kept)}

    def _begin(self, events: Events) -> float:
        if self.start is not None:
            return parse_time(self.start, "--data.train_start")
        assert self.duration is not None
        if not events.has_times:
            raise SessRecError("--data.train_duration needs times; with --data.time_column null use --data.train_ratio")
        return float(events.time.max()) - parse_duration(self.duration, "--data.train_duration")
