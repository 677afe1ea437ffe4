"""A log of columns SessionId, ItemId and Time that an experiment writes, and opens in place of the one it is of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sessrec.click_log.events import Events
from sessrec.writing import atomic_write

_OTHER_LOGS = (
    *("order_column", "visitor_column", "session_gap", "event_column", "events", "item_lists", "next_item_column"),
    *("missing_values", "column_names", "separator", "quoting", "time_format", "expected"),
)
"""Options of the data that a log of three columns has no use for."""


def plain_log(events: Events) -> pa.Table:
    """Events as a table of columns SessionId, ItemId and Time, in seconds."""
    sessions = events.session_ids.cast(pa.string()).take(pa.array(events.numbers[events.session]))
    items = events.item_ids.take(pa.array(events.item))
    return pa.table({"SessionId": sessions, "ItemId": items, "Time": pa.array(events.time)})


def write_plain_log(table: pa.Table, file: Path) -> None:
    """Write a log, unless the file has it already: one that is written anew is prepared anew."""
    with suppress(OSError, pa.ArrowException):  # a damaged file is written anew
        if file.exists() and pq.read_table(file).equals(table):
            return
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def plain_log_words(file: Path) -> list[str]:
    """Words that read a log that `write_plain_log` has written, whatever a config says of another."""
    return ["--data.path", str(file), *plain_format_words()]


def plain_format_words() -> list[str]:
    """Words that say how such a log is written."""
    options = {"session_column": "SessionId", "item_column": "ItemId", "time_column": "Time", "time_unit": "s"}
    options |= dict.fromkeys(_OTHER_LOGS, "null")
    return [word for name, value in options.items() for word in (f"--data.{name}", value)]
