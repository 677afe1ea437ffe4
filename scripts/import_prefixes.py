"""Convert a split that a session paper publishes as a pickle of prefixes and targets into a click log.

The pickle is read as plain lists; one that asks for anything else is refused, and nothing of it is run. Such a split
has no times: its sessions keep the order that they have in the file.

Example::

    python scripts/import_prefixes.py train.txt --output clicks.tsv
"""

from __future__ import annotations

from pathlib import Path

from sessrec.arguments import ScriptParser
from sessrec.click_log.prefixes import read_prefixes, sessions_of_prefixes, write_click_log
from sessrec.errors import SessRecError


def main(args: list[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Command-line arguments; those of the process if None.

    Raises:
        SystemExit: With code 2 after one line on stderr, if a file cannot be read or written.
    """
    parser = ScriptParser(__doc__)
    parser.add_argument("pickle", type=Path, help="file of prefixes and targets, such as train.txt")
    text = "click log to write (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("clicks.tsv"), help=text)
    options = parser.parse_args(args)
    if options.output.exists():
        parser.error(f"--output {options.output} exists: remove it or give another name")
    try:
        prefixes, targets = read_prefixes(options.pickle)
        sessions = sessions_of_prefixes(prefixes, targets)
        write_click_log(sessions, options.output)
    except SessRecError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--output {options.output} cannot be written: {error.strerror or error}")
    print(
        f"{len(prefixes):,} prefixes make {len(sessions):,} sessions of {sum(map(len, sessions)):,} events: "
        f"{options.output}\nit has no times: read it with --data.time_column null; parts of a split are given as "
        "--data.train_path and --data.test_path"
    )


if __name__ == "__main__":
    main()
