"""`LogFormat`: how a click log is written."""

from __future__ import annotations

from dataclasses import dataclass

from sessrec.click_log.times import TimeUnit
from sessrec.errors import SessRecError


@dataclass(frozen=True)
class LogFormat:
    """How a click log is written; None means that the log has no such column, or that it is found out.

    Each field is the option of `sessrec.data.SessionDataModule` of the same name.
    """

    session_column: str | None = "SessionId"
    item_column: str = "ItemId"
    time_column: str | None = "Time"
    order_column: str | None = None
    visitor_column: str | None = None
    event_column: str | None = None
    column_names: tuple[str, ...] | None = None
    separator: str | None = None
    quoting: bool | None = None
    time_unit: TimeUnit = "auto"
    time_format: str | None = None

    def columns(self) -> dict[str, str]:
        """Name in the file of each wanted column, by its role.

        Raises:
            SessRecError: If one column is to play two roles, or there is neither a session nor a visitor.
        """
        if self.session_column is None and self.visitor_column is None:
            raise SessRecError("a log needs --data.session_column or --data.visitor_column")
        roles = {
            "session": self.session_column if self.visitor_column is None else None,
            "visitor": self.visitor_column,
            "item": self.item_column,
            "time": self.time_column,
            "order": self.order_column,
            "event": self.event_column,
        }
        if self.time_column is None and self.order_column is not None:
            raise SessRecError("--data.order_column orders events of equal time, and --data.time_column is null")
        columns = {role: name for role, name in roles.items() if name is not None}
        if len(set(columns.values())) < len(columns):
            named = ", ".join(f"--data.{role}_column {name}" for role, name in columns.items())
            raise SessRecError(f"one column is named for two things: {named}")
        return columns
