"""`LogFormat`: how a click log is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sessrec.click_log.times import TimeUnit
from sessrec.errors import SessRecError

BadLines = Literal["error", "drop"]
ItemLists = Literal["all", "longest"]


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """How a click log is written.

    Args:
        session_column: Column of the session id. A field of JSON lines may stand inside another, or in each object of a
            list: events.aid; so may one of Parquet.
        item_column: Column of the item id, or of a list of ids.
        time_column: Column of the time: Unix time or ISO 8601 text. null where the log has none: then the order of rows
            is the order of events.
        order_column: Column of numbers that order events of equal time, such as a click's number.
        visitor_column: Column of the visitor's id, in place of session_column where the log has no sessions; needs
            session_gap.
        event_column: Column of the kind of event.
        item_lists: How texts that hold several items (N1 N2 or N1,N2 or N1|N2, or printed as ['N1' 'N2']) are read:
            all, or longest where rows of one session repeat its list as it grows, and only the longest counts. null
            takes a text for one item; lists of Parquet and JSON are always read. Times and order may be lists, too, one
            an item. With all, neither session_column nor visitor_column is needed: then each row is a session.
        next_item_column: Column of the item that comes after the items of a list.
        missing_values: Texts that stand for an empty field, such as [unknown].
        column_names: Names of the columns, in order, of a text file without a header line; null reads them from it.
        separator: Characters between the fields of a text file, such as "," or "::"; null finds them.
        quoting: Whether quotes enclose fields of a text file; null: yes, but in tab-separated files whose first line
            has none.
        bad_lines: What becomes of the lines of a text file that have too many or too few fields: an error that names
            them, or they are dropped, counted and named in the report (drop).
        time_unit: Unit of numeric times: s, ms, us, ns, min, h or d; auto tells the first four from their size and
            reports it.
        time_format: Format of times that are neither numbers nor ISO 8601, such as "%d/%m/%Y %H:%M:%S".
    """

    session_column: str | None = "SessionId"
    item_column: str = "ItemId"
    time_column: str | None = "Time"
    order_column: str | None = None
    visitor_column: str | None = None
    event_column: str | None = None
    item_lists: ItemLists | None = None
    next_item_column: str | None = None
    missing_values: list[str] | None = None
    column_names: list[str] | None = None
    separator: str | None = None
    quoting: bool | None = None
    bad_lines: BadLines = "error"
    time_unit: TimeUnit = "auto"
    time_format: str | None = None

    def columns(self) -> dict[str, str]:
        """Name in the file of each wanted column, by its role.

        Raises:
            SessRecError: If one column is to play two roles, or there is neither a session nor a visitor.
        """
        if self.rows_are_sessions and self.item_lists != "all":
            raise SessRecError(
                "a log needs --data.session_column or --data.visitor_column; or --data.item_lists all, where each row "
                "holds a session"
            )
        if self.next_item_column is not None and self.item_lists is None:
            raise SessRecError("--data.next_item_column follows a list: give --data.item_lists all")
        roles = {
            "session": self.session_column if self.visitor_column is None else None,
            "visitor": self.visitor_column,
            "item": self.item_column,
            "time": self.time_column,
            "order": self.order_column,
            "event": self.event_column,
            "next_item": self.next_item_column,
        }
        if self.time_column is None and self.order_column is not None:
            raise SessRecError("--data.order_column orders events of equal time, and --data.time_column is null")
        columns = {role: name for role, name in roles.items() if name is not None}
        if len(set(columns.values())) < len(columns):
            named = ", ".join(f"--data.{role}_column {name}" for role, name in columns.items())
            raise SessRecError(f"one column is named for two things: {named}")
        return columns

    @property
    def rows_are_sessions(self) -> bool:
        """Whether each row of the log holds a session."""
        return self.session_column is None and self.visitor_column is None
