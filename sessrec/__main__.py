"""The command ``sessrec``: runs the command that its first word names, and imports no other one."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

from sessrec import __version__
from sessrec.errors import USER_ERROR
from sessrec.program import DESCRIPTIONS
from sessrec.suggestions import did_you_mean


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: Its name and its command-line arguments; default: `sys.argv[1:]`.

    Raises:
        SystemExit: With code 2 after one line on stderr, if there is no such command.
    """
    name, *words = [*(sys.argv[1:] if args is None else args)] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "lightning"))
        print(f"sessrec {__version__} ({packages}, Python {platform.python_version()})")
    elif name in DESCRIPTIONS:
        module = "study_figures" if name == "figures" else name  # sessrec.figures is the package of the figures
        importlib.import_module(f"sessrec.{module}").main(words)
    else:
        hint = did_you_mean(name, DESCRIPTIONS) or "; sessrec --help lists the commands"
        print(f"sessrec: error: there is no command {name}{hint}", file=sys.stderr)
        raise SystemExit(USER_ERROR)


def _help() -> str:
    lines = [f"  {name:<10}{text}" for name, text in DESCRIPTIONS.items()]
    end = "sessrec COMMAND --help shows the options of a command, sessrec --version the versions in use."
    return "\n".join(["usage: sessrec COMMAND [OPTION ...]", "", "commands:", *lines, "", end])


if __name__ == "__main__":
    main()
