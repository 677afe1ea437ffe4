"""Turn the prefixes and targets that session papers publish as pickles back into sessions, without running a pickle."""

from __future__ import annotations

import csv
import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sessrec.errors import SessRecError
from sessrec.writing import atomic_write

_EXPECTED = "expected a pair of lists: prefixes (lists of item ids) and their targets (item ids)"


class _NoGlobals(pickle.Unpickler):
    """Knows no class and no function, so that a pickle can do nothing but make lists, numbers and texts."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def read_prefixes(file: Path) -> tuple[list[list[Any]], list[Any]]:
    """Read prefixes and targets from a pickle of plain lists.

    Args:
        file: The pickle.

    Returns:
        Items of each prefix, and the item that follows it.

    Raises:
        SessRecError: If the pickle holds anything but lists, numbers and texts, which nothing of it then runs, or no
            prefixes and targets.
    """
    try:
        with file.open("rb") as stream:
            content = _NoGlobals(stream, encoding="utf-8").load()
    except OSError as error:
        raise SessRecError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises whatever it comes across
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise SessRecError(f"{file} is no pickle of plain lists ({cause}): nothing of it was run") from error
    is_pair = isinstance(content, (tuple, list)) and len(content) == 2
    if not is_pair or not all(isinstance(part, (tuple, list)) for part in content):
        raise SessRecError(f"{file} holds a {type(content).__name__}: {_EXPECTED}")
    prefixes, targets = content
    if len(prefixes) != len(targets):
        raise SessRecError(f"{file} holds {len(prefixes):,} prefixes and {len(targets):,} targets: {_EXPECTED}")
    for row, (prefix, target) in enumerate(zip(prefixes, targets, strict=True), 1):
        is_list = isinstance(prefix, (tuple, list)) and len(prefix) > 0
        if not is_list or not all(type(item) in (int, str) and item != "" for item in (*prefix, target)):
            raise SessRecError(f"{file}, row {row}: {str((prefix, target))[:80]}: {_EXPECTED}")
    return [list(prefix) for prefix in prefixes], list(targets)


def sessions_of_prefixes(prefixes: Sequence[Sequence[Any]], targets: Sequence[Any]) -> list[list[Any]]:
    """Join the rows of one session.

    A row belongs to the session of the row before it where it is that row with one event less, or one more, whichever
    of the two the file has more often; each other row begins a session.

    Args:
        prefixes: Items of each prefix.
        targets: The item that follows each.

    Example:
        >>> sessions_of_prefixes([[1, 2], [1], [2]], [3, 2, 3])
        [[1, 2, 3], [2, 3]]
    """
    rows = [[*prefix, target] for prefix, target in zip(prefixes, targets, strict=True)]
    shrinks = [later == row[:-1] for row, later in itertools.pairwise(rows)]
    grows = [row == later[:-1] for row, later in itertools.pairwise(rows)]
    if sum(grows) > sum(shrinks):
        return [row for row, goes_on in zip(rows, [*grows, False], strict=True) if not goes_on]
    return [row for row, goes_on in zip(rows, [False, *shrinks], strict=False) if not goes_on]


def write_click_log(sessions: Sequence[Sequence[Any]], output: Path) -> None:
    """Write sessions as tab-separated text with the columns SessionId and ItemId, for such a split has no times.

    Args:
        sessions: Items of each session, which gets the name of the file and its number, from 1, as its id: parts of a
            split have different ids.
        output: File to write, whole or not at all.
    """
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(("SessionId", "ItemId"))
        name = output.name.partition(".")[0]
        rows.writerows((f"{name}-{number}", item) for number, session in enumerate(sessions, 1) for item in session)
