"""Read, clean and split a click log, and report what is in it: ``python -m sessrec.prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sessrec.cli import SessRecCLI, run_command
from sessrec.figures.data import write_data_report
from sessrec.writing import check_writable


def prepare(cli: SessRecCLI) -> None:
    """Prepare the log, and print and write its report."""
    folder = Path(cli.config.report_dir)
    check_writable(folder, "--report_dir")
    _, data = cli.build_model_and_data()
    write_data_report(data.prepare(), folder)


main = partial(run_command, "prepare", prepare)

if __name__ == "__main__":
    main()
