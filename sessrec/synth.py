"""Write synthetic click sessions to a TSV file.

Example::

    sessrec synth --n_sessions 20000 --n_items 1000 --output data/synth_sessions.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from sessrec.arguments import ScriptParser
from sessrec.data.drift import DriftingProcess
from sessrec.errors import SessRecError, check_least
from sessrec.writing import atomic_write


def _parser() -> ScriptParser:
    text = "Write synthetic click sessions as a TSV file with the columns SessionId, ItemId and Time."
    parser = ScriptParser(text, command="synth", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n_sessions", type=int, default=20000, help="number of sessions, at least 1")
    parser.add_argument("--n_items", type=int, default=1000, help="number of items to draw from, at least 2")
    parser.add_argument("--min_session_len", type=int, default=2, help="fewest events of a session, at least 2")
    parser.add_argument("--max_session_len", type=int, default=20, help="most events of a session")
    parser.add_argument("--drift", type=float, default=0.0, help="share of the transitions that change a day, 0 to 1")
    parser.add_argument("--turnover", type=float, default=0.0, help="share of the items replaced a day, 0 to 1")
    parser.add_argument("--seed", type=int, default=42, help="seed of the tables and the draws, at least 0")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("data/synth_sessions.tsv"),
        help="file to write, gzip-compressed if the name ends in .gz; its folder is created",
    )
    text = "table of the items to write beside it, as CSV: ItemId and the category, on which transitions hang"
    parser.add_argument("--items", type=Path, help=text)
    return parser


def _write(table: pd.DataFrame, output: Path, separator: str = "\t") -> None:
    """Write the table, whole or not at all."""
    with atomic_write(output) as temporary:
        # mtime 0: the same options give the same bytes
        compression = {"method": "gzip", "mtime": 0} if output.name.endswith(".gz") else None
        table.to_csv(temporary, sep=separator, index=False, lineterminator="\n", compression=compression)


def main(args: list[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Command-line arguments; those of the process if None.

    Raises:
        SystemExit: With code 2 after one line on stderr, if an option is bad or the file cannot be written.
    """
    parser = _parser()
    options = vars(parser.parse_args(args))
    output, items = options.pop("output"), options.pop("items")
    try:
        for name, least in {"n_sessions": 1, "n_items": 2, "min_session_len": 2, "seed": 0}.items():
            check_least(f"--{name}", options[name], least)
        check_least("--max_session_len", options["max_session_len"], options["min_session_len"])
    except SessRecError as error:
        parser.error(str(error))
    for option, file in (("output", output), ("items", items)):
        if file is not None and file.is_dir():
            parser.error(f"--{option} {file} is a folder: name a file in it")
    try:
        n_items, drift, turnover = (options.pop(name) for name in ("n_items", "drift", "turnover"))
        process = DriftingProcess(n_items, options["seed"], drift, turnover)
        table = process.sample(**options)
        if items is not None:
            _write(pd.DataFrame({"ItemId": process.item_ids, "category": process.categories}), items, ",")
        _write(table, output)
    except SessRecError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename or output} cannot be written: {error.strerror or error}")
    days = table["Time"] // 86400
    rows = {
        "sessions": table["SessionId"].nunique(),
        "events": len(table),
        "items that occur": table["ItemId"].nunique(),
        "days covered": days.max() - days.min() + 1,
        "file": output,
    } | ({"table of items": items} if items is not None else {})
    for label, value in rows.items():
        print(f"{label:<18}{value}")


if __name__ == "__main__":
    main()
