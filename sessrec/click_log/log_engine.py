"""`LogEngine`: who finds, reads and sorts the rows of a click log."""

from __future__ import annotations

from typing import Any

from sessrec.click_log.files import file_identity, log_files
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.log_table import LogTable, read_table_of
from sessrec.click_log.row_index import MemoryIndex, RowIndex, Rows


class LogEngine:
    """Works in the memory of this process; other engines do some of it elsewhere, and give the same."""

    def find_files(self, paths: Any, option: str) -> list[Any]:
        """The files that a path stands for; see `log_files`."""
        return log_files(paths, option)

    def identity_of(self, file: Any) -> dict[str, Any]:
        """What changes whenever the content of a file does, its ``path`` among it."""
        return file_identity(file)

    def read_tables(self, files: list[Any], log_format: LogFormat) -> list[LogTable]:
        """Read the files of a log, or a table in memory.

        Args:
            files: As `find_files` gives them, or one table.
            log_format: How they are written.

        Raises:
            SessRecError: If one cannot be read.
        """
        return [read_table_of(file, log_format, len(files)) for file in files]

    def index_rows(self, rows: Rows) -> RowIndex:
        """Find the distinct ids of rows, and put them into session order.

        Args:
            rows: The rows of the tables that `read_tables` gave, but for those without a row.
        """
        return MemoryIndex(rows)
