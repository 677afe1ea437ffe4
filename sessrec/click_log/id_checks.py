"""Look for ids that cannot be what they seem: missing values, rounded numbers, parts of other files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.ordering import count_codes
from sessrec.errors import SessRecError
from sessrec.text import counted

_MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "NONE", "undefined", "-", "?", r"\N")
_ROUNDED = r"^[+-]?\d+(\.\d+)?[eE]\+\d+$"


@dataclass
class IdColumn:
    """The ids of a log's sessions, visitors or items."""

    kind: str
    """What they are ids of."""
    name: str
    """Name of the column."""
    codes: np.ndarray
    """Place in ``ids`` of each row's id."""
    ids: pa.Array
    """Distinct ids, text or int64."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of rows of each id, int64."""
        return count_codes(self.codes, len(self.ids))

    def first_of(self, of_ids: pa.Array) -> tuple[str, int]:
        """The id that comes first of those where ``of_ids``, bool, is true, and its first row."""
        row = int(of_ids.to_numpy(zero_copy_only=False)[self.codes].argmax())
        return str(self.ids[int(self.codes[row])]), row


FirstRow: TypeAlias = Callable[[int, int], "int | None"]
"""Gives the first row that has both of two ids, of session and item, by their places; None where there is none."""


def check_ids(session: IdColumn, item: IdColumn, first_row_of: FirstRow, place_of: Callable[[int], str]) -> list[str]:
    """Refuse files that were joined, and say what looks wrong in the ids; plain numbers never do.

    Args:
        session: Ids of the sessions, or the visitors.
        item: Ids of the items.
        first_row_of: Gives the first row that has both of two ids.
        place_of: Gives file and line of a row.

    Raises:
        SessRecError: If the header or the byte-order mark of a second file stands among the rows.
    """
    texts = [column for column in (session, item) if column.ids.type != pa.int64()]
    _check_joined_files(texts, first_row_of, place_of)
    found = []
    for column in texts:
        found += _warn_of_spreadsheets(column, place_of) + _warn_of_ids(column)
    return found


def _check_joined_files(texts: list[IdColumn], first_row_of: FirstRow, place_of: Callable[[int], str]) -> None:
    for column in texts:
        marked = pc.starts_with(column.ids, "\ufeff")
        if pc.any(marked).as_py():
            fault = "an id begins with a byte-order mark: files were joined; remove it"
            raise SessRecError(f"{place_of(column.first_of(marked)[1])}: {fault}")
    header = [pc.index(column.ids, column.name).as_py() for column in texts]
    if len(texts) == 2 and min(header) >= 0 and (row := first_row_of(header[0], header[1])) is not None:
        raise SessRecError(f"{place_of(row)}: a header stands among the rows; remove it")


def _warn_of_spreadsheets(column: IdColumn, place_of: Callable[[int], str]) -> list[str]:
    """Name the first id in scientific notation: what a spreadsheet leaves of a long number."""
    may_be = pc.match_substring(column.ids, "E+", ignore_case=True)
    suspects = pc.and_(may_be, pc.match_substring_regex(column.ids, _ROUNDED)) if pc.any(may_be).as_py() else may_be
    if not (n_suspects := pc.sum(suspects).as_py()):
        return []
    kind, (text, row) = column.kind, column.first_of(suspects)
    first = f"{text!r} ({place_of(row)})"
    return [
        f"{counted(n_suspects, f'{kind} id')} such as {first}, numbers that a spreadsheet rounded? different "
        f"{kind}s may have become one before sessrec saw them"
    ]


def _warn_of_ids(column: IdColumn) -> list[str]:
    """Missing values, blanks and quotes."""
    kind, ids, counts, found = column.kind, column.ids, column.counts, []
    missing = pc.is_in(ids, pa.array(_MISSING))
    for code in np.flatnonzero(missing.to_numpy(zero_copy_only=False)).tolist():
        text = ids[code].as_py()
        found.append(
            f"{counted(counts[code], 'event')} with the {kind} id {text!r}: a missing value? --data.missing_values "
            f"'{json.dumps([text])}' drops such rows"
        )
    if n_blank := pc.sum(pc.not_equal(pc.utf8_trim_whitespace(ids), ids)).as_py():
        found.append(f"{counted(n_blank, f'{kind} id')} with blanks around, which are kept")
    if n_quoted := pc.sum(pc.and_(pc.starts_with(ids, '"'), pc.ends_with(ids, '"'))).as_py():
        found.append(f"{counted(n_quoted, f'{kind} id')} in quotes, which are kept; --data.quoting true removes them")
    return found
