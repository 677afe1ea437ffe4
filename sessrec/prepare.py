"""Read, clean and split a click log, and report what is in it: ``python -m sessrec.prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sessrec.cli import SessRecCLI, run_command
from sessrec.errors import SessRecError
from sessrec.figures.data import write_data_report


def prepare(cli: SessRecCLI) -> None:
    """Prepare the log, and print and write its report."""
    folder = Path(cli.config.report_dir)
    if folder.is_file():
        raise SessRecError(f"--report_dir {folder} is a file; name a folder")
    _, data = cli.build_model_and_data()
    write_data_report(data.prepare(), folder)


main = partial(run_command, "prepare", prepare)

if __name__ == "__main__":
    main()
