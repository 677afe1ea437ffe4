"""The one error that a user can mend, and how a command ends at it."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Any, NoReturn, get_args

from sessrec.suggestions import alternatives, did_you_mean

USER_ERROR = 2
"""Exit code of a user error, as of usage errors elsewhere; 1 is Python's own, of a defect with its traceback."""


class SessRecError(ValueError):
    """A fault in the input, an option or a checkpoint; its text says where and what to do.

    The commands print it in one line and leave with exit code 2. Every other exception is a defect of sessrec itself.
    """


def exit_with_error(command: str, message: object) -> NoReturn:
    """Print a user error in one line and leave with its exit code.

    Args:
        command: Name of the command: ``fit``, or the program's name as a parser has it.
        message: What is wrong and what to do.

    Raises:
        SystemExit: Always.
    """
    print(f"{message_prefix(command)}: error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


def error_text(error: BaseException) -> str:
    """An error in words; those of the file system name the file and the reason, without their number.

    Example:
        >>> error_text(PermissionError(13, "Permission denied", "clicks.tsv"))
        'clicks.tsv: Permission denied'
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def one_line(message: object) -> str:
    """A message without its ends of line."""
    return " ".join(map(str.strip, str(message).splitlines()))


def message_prefix(command: str) -> str:
    """What the messages of a command begin with.

    Example:
        >>> message_prefix("fit"), message_prefix("python -m sessrec.fit"), message_prefix("compare.py")
        ('sessrec.fit', 'sessrec.fit', 'sessrec.compare')
    """
    return f"sessrec.{PurePath(command.split()[-1]).name.removesuffix('.py').removeprefix('sessrec.')}"


def check_choice(option: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of a Literal's, for those who build models and data in Python.

    Raises:
        SessRecError: If the value is none of them.
    """
    if value not in (known := get_args(choices)):
        hint = did_you_mean(str(value), known)
        raise SessRecError(f"{option} must be {alternatives(known)}, got {value!r}{hint}")


def check_least(option: str, value: float | None, least: int) -> None:
    """Refuse a value below the least that makes sense; None is no value.

    Raises:
        SessRecError: If it is below.
    """
    if value is not None and value < least:
        raise SessRecError(f"{option} must be at least {least}, got {value}")
