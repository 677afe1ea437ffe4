"""A log whose training part is cut to its most recent sessions."""

from __future__ import annotations

from pathlib import Path

from sessrec.data.cleaning import clean_events
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.data.split import split_time
from sessrec.errors import SessRecError
from sessrec.experiments.plain_log import plain_log, plain_log_words, write_plain_log

NO_WINDOW = [
    *("--data.train_ratio", "null", "--data.train_duration", "null", "--data.train_start", "null"),
    *("--data.replay", "null"),
]
"""Words of fit on a log whose training part is cut already."""


def recent_log_words(whole: Preparation, share: float, file: Path) -> list[str]:
    """Cut the training part of a log to its most recent sessions; its test part stays as it is.

    The log is cleaned before it is cut, so that an item's support is that in the whole log whatever the share.

    Args:
        whole: The whole log, and how it is cleaned and split.
        share: Share of the training sessions to keep.
        file: Where the cut log is written.

    Returns:
        Words of fit that open the cut log and split it where the whole one is split.

    Raises:
        SessRecError: If the share is out of range, or nothing is left to train on.
    """
    if not 0 < share <= 1:
        raise SessRecError(f"--train_share must be above 0 and at most 1, got {share}")
    cleaning = (whole.drop_repeats, whole.min_session_length, whole.min_item_support, whole.max_session_length)
    events, _ = clean_events(whole.read(DataReport()), *cleaning, whole.filter_passes)
    if not len(events):
        raise SessRecError("no session is left to train on after cleaning")
    t = split_time(events, whole.test_ratio, whole.test_duration, whole.test_start)
    n_train = int((events.starts < t).sum())
    window, _ = whole.training_window.cut(events.sessions_between(0, n_train))
    kept = events.sessions_between(n_train - max(1, round(share * window.n_sessions)), events.n_sessions)
    write_plain_log(plain_log(kept), file)
    split = ["--data.test_start", f"{t:.17g}", "--data.test_duration", "null", "--data.min_item_support", "1"]
    return [*plain_log_words(file), *split, *NO_WINDOW]
