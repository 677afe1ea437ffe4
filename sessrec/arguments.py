"""What the command lines of all commands share, and of the scripts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

DESCRIPTIONS = {
    "fit": "Fit a session recommender to a click log.",
    "validate": "Evaluate a checkpoint on the validation part of a click log, ranking all items.",
    "test": "Evaluate a checkpoint on the test part of a click log, ranking all items.",
    "predict": "Write the best next items of every session of a click log.",
    "prepare": "Read, clean and split a click log, and report what is in it; only the --data options matter.",
    "compare": "Compare tested models: metrics with intervals, paired differences, and figures.",
    "audit": "Measure how much the metrics of tested runs depend on choices of the evaluation.",
    "figures": "Draw all figures of a study from its tested runs and its click log.",
    "synth": "Write synthetic click sessions to a TSV file.",
}
"""The commands, with a line each."""


def program(command: str) -> str:
    """How the user has started a command: as ``sessrec fit``, ``python -m sessrec.fit`` or a script."""
    started = Path(sys.argv[0])
    if started.name in ("sessrec", "sessrec.exe") or started.parts[-2:] == ("sessrec", "__main__.py"):
        return f"sessrec {command}"
    return f"python {started}" if started.parent.name == "scripts" else f"python -m sessrec.{command}"


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
