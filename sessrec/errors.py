"""The one error that a user can mend."""

from __future__ import annotations

from typing import Any, get_args


class SessRecError(ValueError):
    """A fault in the input, an option or a checkpoint; its text says where and what to do.

    The commands print it in one line and leave with exit code 1. Every other exception is a defect of sessrec itself.
    """


def check_choice(option: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of a Literal's, for those who build models and data in Python.

    Raises:
        SessRecError: If the value is none of them.
    """
    if value not in get_args(choices):
        raise SessRecError(f"{option} must be one of {', '.join(get_args(choices))}, got {value!r}")


def check_least(option: str, value: float | None, least: int) -> None:
    """Refuse a value below the least that makes sense; None is no value.

    Raises:
        SessRecError: If it is below.
    """
    if value is not None and value < least:
        raise SessRecError(f"{option} must be at least {least}, got {value}")
