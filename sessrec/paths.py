"""``~`` in options that name files or folders."""

from __future__ import annotations

import os
import re
from typing import Any

from jsonargparse import Namespace

_NAMES_PATH = re.compile(r"(^|[._])(config|path|dir|dirpath|output)$")


def expanded(name: str, value: Any) -> Any:
    """The value of an option with ``~`` as the home folder, in all of its parts, where the option names paths.

    Args:
        name: Name of the option, such as ``data.path``.
        value: Its value: text, or a list or namespace of values.
    """
    if isinstance(value, Namespace):
        for key, part in vars(value).items():
            setattr(value, key, expanded(f"{name}.{key}", part))
        return value
    if isinstance(value, list):
        return [expanded(name, part) for part in value]
    return os.path.expanduser(value) if isinstance(value, str) and _NAMES_PATH.search(name) else value


def with_home_folder(args: list[str]) -> list[str]:
    """Arguments of a command line with ``~`` expanded.

    Example:
        >>> with_home_folder(["--output=~/a.tsv", "--data.separator", "~"])[1:]
        ['--data.separator', '~']
    """
    words, name = [], ""
    for word in args:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(f"{name}={expanded(name, value)}" if equals else word)
        else:
            words.append(expanded(name, word))
    return words
