"""Say so where the times of a click log cannot be right, and name the unit in which they would be."""

from __future__ import annotations

import time as clock

import numpy as np

from sessrec.click_log.times import SECONDS_PER_UNIT
from sessrec.text import counted, time_text

_YEAR_1990, _DAY = 631152000, 86400
_SPREADSHEET = 25569  # days from 1899-12-30 to 1970-01-01
_SPAN, _SESSIONS = 60, 1000  # so many sessions in so few seconds are no shop


def warn_of_times(times: np.ndarray, n_sessions: int, unit: str | None) -> list[str]:
    """Warn of times that all lie before 1990 or after today, or that span seconds for thousands of sessions.

    Args:
        times: Unix seconds as the log was read, shape (events,).
        n_sessions: Number of sessions.
        unit: Unit in which numbers were read; None where the times are no numbers, or those of several files differ.
    """
    low, high = float(times.min()), float(times.max())
    is_early, is_late = high < _YEAR_1990, low > clock.time() + _DAY
    is_short = n_sessions >= _SESSIONS and high - low < _SPAN
    if not (is_early or is_late or is_short):
        return []
    warning = f"all times lie from {_shown(low)} to {_shown(high)}"
    if is_short and not is_early and not is_late:
        warning = f"{counted(n_sessions, 'session')} in {high - low:.3g} seconds, {warning}"
    if unit is None:
        return [f"{warning}: are they right?"]
    warning += f", as numbers of the unit {unit}"
    raw = [low / SECONDS_PER_UNIT[unit], high / SECONDS_PER_UNIT[unit]]
    for other, seconds in SECONDS_PER_UNIT.items():
        begin, end = (number * seconds for number in raw)
        if other != unit and _YEAR_1990 <= begin <= end <= clock.time() + _DAY:
            shown = f"{_shown(begin)} to {_shown(end)}"
            return [f"{warning}; in {other} they would be {shown}: --data.time_unit {other}"]
    begin, end = ((number - _SPREADSHEET) * _DAY for number in raw)
    if _YEAR_1990 <= begin <= end <= clock.time() + _DAY:
        return [f"{warning}: days of a spreadsheet? write them as ISO 8601 dates"]
    return [f"{warning}, and are no Unix times in another: only their order means something"]


def _shown(t: float) -> str:
    """A time as a date, also one near 1970."""
    return str(np.datetime64(int(t), "s")).replace("T", " ") if abs(t) < 1e11 else time_text(t)
