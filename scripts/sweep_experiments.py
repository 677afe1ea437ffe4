"""The experiments of `scripts/sweep.py`: what each sweeps, and the words of fit that a value stands for."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import make_synth_data
import pyarrow as pa
import pyarrow.parquet as pq

from sessrec.data.cleaning import clean_events
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.data.split import split_time
from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import plain_log_words
from sessrec.writing import replacing

_SAME_SESSIONS = (
    "All rows are tested on the same sessions, but an item that the training part of a row lacks is left out of them "
    "and of the ranking: the test positions and the items ranked differ where their columns say so."
)
_OTHER_POSITIONS = (
    "The rows of different values are not measured on the same positions, nor against the same items: see the columns. "
    "Compare the models at one value; what differs between values is the task, too."
)
_SHARE = "a share above 0, at most 1"


class Experiment(NamedTuple):
    """What is swept, and on which generated sessions where no log is given.

    ``read`` checks a value and writes it in the shortest way, ``words`` gives the words of fit that it stands for,
    ``note`` is said where the rows are not of one test, and where ``swept_class`` is set, no other model heeds a value.
    """

    label: str
    values: tuple[str, ...]
    read: Callable[[str], str]
    words: Callable[[str], list[str]]
    note: str
    is_categorical: bool = False
    n_sessions: int = 20000
    n_items: int = 1000
    swept_class: str | None = None


def _number(text: str, is_right: Callable[[float], bool], wanted: str) -> str:
    """The shortest way to write a number, so that it is one value however it is typed."""
    try:
        number = float(text)
    except ValueError:
        raise SessRecError(f"the value {text!r} is no number: give {wanted}") from None
    if not is_right(number):
        raise SessRecError(f"the value {text} is out of range: give {wanted}")
    return f"{number:.15g}"


def _rules(text: str, known: dict[str, str], example: str) -> str:
    """A value such as support-5+no-repeats, or none."""
    for rule in text.split("+") if text != "none" else ():
        if not any(re.fullmatch(pattern, rule) for pattern in known):
            raise SessRecError(f"the value {text!r} is no rule: give none or one such as {example}")
    return text


def _rule_words(text: str, known: dict[str, str], off: Sequence[str]) -> list[str]:
    """The words of the rules, after those that switch all rules off."""
    words = list(off)
    for rule in text.split("+") if text != "none" else ():
        option = next(known[pattern] for pattern in known if re.fullmatch(pattern, rule))
        words += [option, "true" if rule == "no-repeats" else rule.partition("-")[2]]
    return words


_FILTERS = {r"support-[1-9]\d*": "--data.min_item_support", "no-repeats": "--data.drop_repeats"}
_NO_FILTERS = ["--data.min_item_support", "1", "--data.drop_repeats", "false"]
_LENGTHS = {r"max-[1-9]\d*": "--data.max_session_length", r"min-[1-9]\d*": "--data.min_session_length"}
_NO_LENGTHS = ["--data.min_session_length", "2", "--data.max_session_length", "null"]
_OTHER_SPLITS = ["--data.test_duration", "null", "--data.test_start", "null"]  # they would win over the ratio

EXPERIMENTS = {
    "sessions": Experiment(
        "share of the training part kept, the most recent",
        ("0.05", "0.1", "0.25", "0.5", "1"),
        lambda text: _number(text, lambda share: 0 < share <= 1, f"{_SHARE}, of the training sessions"),
        lambda value: [],  # the log itself is cut
        _SAME_SESSIONS,
    ),
    "train_ratio": Experiment(
        "share of the sessions before the test part",
        ("0.5", "0.6", "0.7", "0.8", "0.9"),
        lambda text: _number(text, lambda share: 0 < share < 1, "a share above 0 and below 1"),
        lambda value: ["--data.test_ratio", f"{1 - float(value):.12g}", *_OTHER_SPLITS],
        _OTHER_POSITIONS,
    ),
    "catalogue": Experiment(
        "items of the process",
        ("250", "500", "1000", "2000", "4000"),
        lambda text: _number(text, lambda n: n >= 2 and n == int(n), "a whole number of items, at least 2"),
        lambda value: [],  # another log is generated
        _OTHER_POSITIONS,
    ),
    "alpha": Experiment(
        "alpha: share of popularity in the score of Markov",
        ("0", "0.1", "0.25", "0.5", "0.75", "0.9", "1"),
        lambda text: _number(text, lambda alpha: 0 <= alpha <= 1, "a number from 0 to 1"),
        lambda value: ["--model.alpha", value],
        _OTHER_POSITIONS,
        swept_class="Markov",
    ),
    "filtering": Experiment(
        "what is filtered out of the log",
        ("none", "support-5", "no-repeats", "support-5+no-repeats"),
        lambda text: _rules(text, _FILTERS, "support-5, no-repeats or support-5+no-repeats"),
        lambda value: _rule_words(value, _FILTERS, _NO_FILTERS),
        _OTHER_POSITIONS
        + " support-N drops items with fewer than N events, no-repeats events of the item before them.",
        is_categorical=True,
        n_sessions=10000,
        n_items=3000,
    ),
    "session_length": Experiment(
        "rule for the length of sessions",
        ("max-3", "max-5", "max-10", "none", "min-3", "min-5"),
        lambda text: _rules(text, _LENGTHS, "max-5 (first 5 events of each session), min-3 or min-3+max-10"),
        lambda value: _rule_words(value, _LENGTHS, _NO_LENGTHS),
        _OTHER_POSITIONS + " max-N keeps the first N events of a session, min-N drops sessions with fewer.",
        is_categorical=True,
        n_sessions=10000,
    ),
}
OWN_CATALOGUE = Experiment(
    "least events of an item (min_item_support)",
    ("1", "2", "5", "10", "20"),
    lambda text: _number(text, lambda n: n >= 1 and n == int(n), "a whole number of events, at least 1"),
    lambda value: ["--data.min_item_support", value],
    _OTHER_POSITIONS,
)


def generated_log(n_sessions: int, n_items: int) -> Path:
    """Generate sessions as `make_synth_data.py` does, where that was not done before.

    Args:
        n_sessions: Number of sessions.
        n_items: Number of items of the process.

    Returns:
        The file, whose name holds both numbers.
    """
    file = Path("data", f"sweep-{n_sessions}-{n_items}.tsv")
    if not file.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            numbers = ["--n_sessions", str(n_sessions), "--n_items", str(n_items)]
            make_synth_data.main([*numbers, "--output", str(file)])
    return file


def recent_log(preparation: Preparation, share: float, folder: Path) -> list[str]:
    """Cut the training part of a log to its most recent sessions; its test part stays as it is.

    The log is cleaned before it is cut, so that an item's support is that in the whole log whatever the share.

    Args:
        preparation: The whole log, and how it is cleaned and split.
        share: Share of the training sessions to keep.
        folder: Where the cut log is written.

    Returns:
        Words of fit that open the cut log and split it where the whole one is split.
    """
    p = preparation
    events = p.read(DataReport())
    cleaning = (p.drop_repeats, p.min_session_length, p.min_item_support, p.max_session_length, p.filter_passes)
    events, _ = clean_events(events, *cleaning)
    if not len(events):
        raise SessRecError("no session is left to train on after cleaning")
    t = split_time(events, p.test_ratio, p.test_duration, p.test_start)
    n_train = int((events.starts < t).sum())
    kept = events.sessions_between(n_train - max(1, round(share * n_train)), events.n_sessions)
    sessions, items = (
        kept.session_ids.take(pa.array(kept.numbers[kept.session])),
        kept.item_ids.take(pa.array(kept.item)),
    )
    table = pa.table({"SessionId": sessions, "ItemId": items, "Time": pa.array(kept.time)})
    file = folder / f"recent-{share:.15g}.parquet"
    if not file.exists() or not pq.read_table(file).equals(table):  # a file written anew is prepared anew
        with replacing(file) as temporary:
            pq.write_table(table, temporary)
    split = ["--data.test_start", f"{t:.17g}", "--data.test_duration", "null", "--data.min_item_support", "1"]
    return [*plain_log_words(file), *split]
