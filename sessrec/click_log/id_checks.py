"""Look for ids that cannot be what they seem: missing values, rounded numbers, parts of other files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.log_table import LogTable
from sessrec.click_log.ordering import count_codes
from sessrec.errors import SessRecError
from sessrec.text import counted

_MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "NONE", "undefined", "-", "?")
_ROUNDED = r"^[+-]?\d+(\.\d+)?[eE]\+\d+$"


@dataclass(frozen=True)
class Rows:
    """The complete rows of all files, to name one of them."""

    tables: list[LogTable]
    """One table a file."""
    sizes: list[int]
    """Number of rows of each."""

    def place_of(self, row: int) -> str:
        """File and line of a row."""
        for table, size in zip(self.tables, self.sizes, strict=True):
            if row < size:
                return table.place_of_row(row)
            row -= size
        raise IndexError(row)


def warn_of_spreadsheets(rows: Rows, kind: str, codes: np.ndarray, ids: pa.Array) -> list[str]:
    """Name the first id in scientific notation: what a spreadsheet leaves of a long number.

    Args:
        rows: The rows that have the ids.
        kind: What they are ids of.
        codes: Place in ``ids`` of each row's id.
        ids: Distinct ids, text.
    """
    may_be = pc.match_substring(ids, "E+", ignore_case=True)
    if not pc.any(may_be).as_py():
        return []
    suspects = np.flatnonzero(pc.and_(may_be, pc.match_substring_regex(ids, _ROUNDED)).to_numpy(zero_copy_only=False))
    if not len(suspects):
        return []
    row = int(np.flatnonzero(np.isin(codes, suspects))[0])
    first = f"{ids[int(codes[row])].as_py()!r} ({rows.place_of(row)})"
    return [
        f"{counted(len(suspects), f'{kind} id')} such as {first}, numbers that a spreadsheet rounded? different "
        f"{kind}s may have become one before sessrec saw them"
    ]


def refuse_joined_files(rows: Rows, columns: Sequence[tuple[str, np.ndarray, pa.Array]]) -> None:
    """Refuse the header or the byte-order mark of a second file that was appended to the first.

    Args:
        rows: The rows that have the ids.
        columns: Of the session (or visitor) and the item: name of the column, place in the ids of each row's id, and
            the distinct ids, text or int64.

    Raises:
        SessRecError: With the file and the line.
    """
    texts = [column for column in columns if column[2].type != pa.int64()]  # a number is neither a name nor a mark
    for _, codes, ids in texts:
        marked = pc.starts_with(ids, "\ufeff")
        if pc.any(marked).as_py():
            row = int(np.flatnonzero(np.isin(codes, np.flatnonzero(marked.to_numpy(zero_copy_only=False))))[0])
            raise SessRecError(
                f"{rows.place_of(row)}: an id begins with a byte-order mark: files were joined; remove it"
            )
    header = [pc.index(ids, name).as_py() for name, _, ids in texts]
    if len(texts) == len(columns) and min(header) >= 0:
        is_header = np.all([codes == code for code, (_, codes, _) in zip(header, texts, strict=True)], axis=0)
        if is_header.any():
            place = rows.place_of(int(np.flatnonzero(is_header)[0]))
            raise SessRecError(f"{place}: a header stands among the rows; remove it")


def warn_of_columns(rows: Rows, columns: Sequence[tuple[str, np.ndarray, pa.Array]]) -> list[str]:
    """What looks wrong in the ids of a log.

    Args:
        rows: The rows that have the ids.
        columns: What they are ids of, the place in the ids of each row's id, and the distinct ids, text or int64.
    """
    found = []
    for kind, codes, ids in columns:
        if ids.type != pa.int64():  # plain numbers are never wrong in these ways
            found += warn_of_spreadsheets(rows, kind, codes, ids)
            found += warn_of_ids(kind, ids, count_codes(codes, len(ids)))
    kind, _, ids = columns[-1]
    return found if ids.type == pa.int64() else found + warn_of_twins(ids)


def warn_of_ids(kind: str, ids: pa.Array, counts: np.ndarray) -> list[str]:
    """What looks wrong in the ids of items, sessions or visitors.

    Args:
        kind: What they are ids of.
        ids: Distinct ids, text.
        counts: Number of events of each.
    """
    found = []
    missing = pc.is_in(ids, pa.array(_MISSING))
    for code in np.flatnonzero(missing.to_numpy(zero_copy_only=False)).tolist():
        found.append(f"{counted(counts[code], 'event')} with the {kind} id {ids[code].as_py()!r}: a missing value?")
    if n_blank := pc.sum(pc.not_equal(pc.utf8_trim_whitespace(ids), ids)).as_py():
        found.append(f"{counted(n_blank, f'{kind} id')} with blanks around, which are kept")
    if n_quoted := pc.sum(pc.and_(pc.starts_with(ids, '"'), pc.ends_with(ids, '"'))).as_py():
        found.append(f"{counted(n_quoted, f'{kind} id')} in quotes, which are kept; --data.quoting true removes them")
    return found


def warn_of_twins(ids: pa.Array) -> list[str]:
    """Items whose ids differ only by what some program added.

    Args:
        ids: Distinct item ids, text.
    """
    plain = pc.replace_substring_regex(pc.utf8_trim_whitespace(ids), r"^0+(\d)|\.0+$", r"\1")
    distinct = pc.value_counts(plain)
    twins = distinct.filter(pc.greater(distinct.field("counts"), 1))
    if not len(twins):
        return []
    alike = ids.filter(pc.equal(plain, twins[0]["values"])).to_pylist()
    return [
        f"{counted(len(ids) - len(distinct), 'item id')} like another but for leading zeros, a final .0 or blanks, "
        f"such as {' and '.join(map(repr, alike[:2]))}: they are kept apart"
    ]
