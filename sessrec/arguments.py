"""What the scripts' command lines share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from sessrec.program import program


class ScriptParser(argparse.ArgumentParser):
    """Parser that keeps the lines of its description, and says what is wrong with an option in one line.

    Args:
        description: What the command does.
        command: Name of the command; None for a script that is none.
        options: More options of argparse's parser.
    """

    def __init__(self, description: str | None, command: str | None = None, **options: object) -> None:
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False} | options
        options |= {} if command is None else {"prog": program(command)}
        super().__init__(description=description, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the fault and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def check_output(self, output: Path) -> None:
        """Leave with an error where --output, there or not yet, is a file or the folder of a run."""
        existing = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
        if not existing.is_dir():
            self.error(f"--output {output}: {existing} is a file; name a folder")
        if (output / "checkpoints").exists():
            self.error(f"--output {output} is the folder of a run; name another one")
