"""What the scripts' command lines share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sessrec.errors import SessRecError, exit_with_error
from sessrec.option_types import described
from sessrec.program import program
from sessrec.suggestions import alternatives, did_you_mean
from sessrec.text import escape_on_console
from sessrec.writing import check_writable

_OPTIONS_OF_FIT = (
    "--config",
    "--model",
    "--seed_everything",
    "--ckpt_path",
    "--init_from",
    "--init_drop",
    "--monitor",
    "--list_length",
    "--projector",
    "--allow",
    "--exclude",
    "--url",
)
"""Those that belong to no group."""


class ScriptParser(argparse.ArgumentParser):
    """Parser that keeps the lines of its description, and says what is wrong with an option in one line.

    Args:
        description: What the command does.
        command: Name of the command; None for a script that is none.
        options: More options of argparse's parser.
    """

    def __init__(self, description: str | None, command: str | None = None, **options: object) -> None:
        escape_on_console()
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False} | options
        options |= {} if command is None else {"prog": program(command)}
        self._given: list[str] = []
        super().__init__(description=description, exit_on_error=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the fault and leave with the exit code of user errors; what is required may be misspelt."""
        if message.startswith("the following arguments are required") and (unknown := self._unknown_options()):
            self.refuse_unknown(unknown)
        exit_with_error(self.prog, message)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments, all of which have to be known."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse_unknown(unknown)
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments and give them with those that are not known; ``~`` in a path is the home folder."""
        self._given = sys.argv[1:] if args is None else list(args)
        try:
            options, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            self.error(self._explained(error))
        for name, value in vars(options).items():
            if isinstance(value, list):
                setattr(options, name, [_expanded(part) for part in value])
            else:
                setattr(options, name, _expanded(value))
        return options, unknown

    def refuse_unknown(self, unknown: Sequence[str]) -> NoReturn:
        """Leave with an error that names the first unknown option, and how it may have been meant."""
        first = unknown[0].partition("=")[0]
        if not first.startswith("-"):
            self.error(f"{first!r} belongs to no option")
        self.error(f"unknown option {first}{did_you_mean(first, self._flags())}")

    def _unknown_options(self) -> list[str]:
        """Options among the arguments that there are not."""
        return [word for word in self._given if word.startswith("--") and word.partition("=")[0] not in self._flags()]

    def _flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def refuse_misspelt(self, words: Sequence[str]) -> None:
        """Leave with an error at an option that is left over and of no group, unless fit, to which it goes, has it."""
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and "." not in name and name not in _OPTIONS_OF_FIT:
                self.refuse_unknown([name])

    def check_output(self, output: Path) -> None:
        """Leave with an error where --output, there or not yet, cannot be written to or is the folder of a run."""
        try:
            check_writable(output, "--output")
        except SessRecError as error:
            self.error(str(error))
        if (output / "checkpoints").exists():
            self.error(f"--output {output} is the folder of a run; name another one")

    def _explained(self, error: argparse.ArgumentError) -> str:
        """An error about a value in the words of the commands; others as they are."""
        name, message = error.argument_name, str(error.message)
        action = next((one for one in self._actions if name in ("/".join(one.option_strings), one.dest)), None)
        what, _, value = message.partition(": ")
        if action is None or not what.startswith("invalid"):
            return f"{name} needs a value" if message.startswith("expected") else str(error)
        if action.choices is None:
            return f"{name} must be {described(action.type)}, got {value}"
        choices, value = list(map(str, action.choices)), value.partition(" (")[0]
        return f"{name} must be {alternatives(choices)}, got {value}{did_you_mean(value.strip(chr(39)), choices)}"


def _expanded(value: Any) -> Any:
    return value.expanduser() if isinstance(value, Path) else value
