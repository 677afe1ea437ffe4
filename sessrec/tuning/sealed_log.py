"""A click log without its test part, on which a study is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sessrec.click_log.events import Events
from sessrec.data.cleaning import clean_events
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.data.split import split_events, split_time
from sessrec.errors import SessRecError
from sessrec.experiments.plain_log import plain_log, plain_log_words, write_plain_log

_NO_TEST = ["--data.test_ratio", "0", "--data.test_duration", "null", "--data.test_start", "null"]


def sealed_log_words(whole: Preparation, file: Path, share: float = 1.0, is_written: bool = False) -> list[str]:
    """Cut the test part off a log, before any cleaning of the rest; what is in it changes no trial.

    Where the test part is a file of its own, that is never opened.

    Args:
        whole: The log, and how it is cleaned and split.
        file: Where the log without the test part is written.
        share: Share of the sessions before the test part that is kept, the newest ones.
        is_written: Whether another process of the study has written it just now.

    Returns:
        Words of fit that open that log.

    Raises:
        SessRecError: If the log has no validation part, the test part cannot be told, or the study has another log;
            if a share is to be kept of what is given in parts.
    """
    if not whole.has_validation:
        raise SessRecError("tune chooses on the validation part: give --data.val_ratio or --data.val_duration")
    if share < 1 and whole.train_path is not None:
        raise SessRecError("--train_share cuts one log: give --data.path in place of parts")
    if whole.test_path is not None:
        return ["--data.test_path", "null", *_NO_TEST]
    if whole.train_path is not None:
        raise SessRecError("--data.train_path is given without --data.test_path: tune cannot tell the test part")
    if whole.sources and not whole.is_from_files:
        raise SessRecError("tune takes the files of a click log (--data.path), no table in memory")
    if not is_written:
        events = _before_test(whole)
        n_kept = max(1, round(share * events.n_sessions))
        _write_once(plain_log(events.sessions_between(events.n_sessions - n_kept, events.n_sessions)), file)
    return [*plain_log_words(file), *_NO_TEST]


def _write_once(table: pa.Table, file: Path) -> None:
    """Write the log of a study, which its workers read, unless it is there.

    Raises:
        SessRecError: If the study has another log.
    """
    if file.exists() and not pq.read_table(file).equals(table):
        raise SessRecError(f"--study {file.parent.name} is there with another click log ({file}): give another --study")
    write_plain_log(table, file)


def _before_test(whole: Preparation) -> Events:
    """All events but those of the test part, which is told by the log that is cleaned."""
    events = whole.read(DataReport())
    if whole.has_test:
        cleaning = (whole.drop_repeats, whole.min_session_length, whole.min_item_support, whole.max_session_length)
        cleaned, _ = clean_events(events, *cleaning, whole.filter_passes)
        if not len(cleaned):
            raise SessRecError("no session is left to train on after cleaning")
        t = split_time(cleaned, whole.test_ratio, whole.test_duration, whole.test_start)
        events, _, _ = split_events(events, t, whole.straddling)
    return events


def refit_words(whole: Preparation) -> list[str]:
    """Words of fit that train on training and validation part together.

    Args:
        whole: The log, and how it is split.
    """
    words = ["--data.val_ratio", "0", "--data.val_duration", "null"]
    if whole.val_path is not None:
        parts: Sequence[str] = [*_listed(whole.train_path), *_listed(whole.val_path)]
        words += ["--data.val_path", "null", "--data.train_path", f"[{', '.join(parts)}]"]
    return words


def _listed(path: str | list[str] | None) -> list[str]:
    return [] if path is None else path if isinstance(path, list) else [path]
