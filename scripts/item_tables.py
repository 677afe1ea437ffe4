r"""Make the item table of a public log, and its table of availability, of the files that are downloaded with it.

Example::

    python scripts/item_tables.py retailrocket data/item_properties_part1.csv data/item_properties_part2.csv \
        data/category_tree.csv --until 2015-09-11T03:00:00Z --items data/items.parquet --availability data/there.parquet
    python scripts/item_tables.py diginetica data/products.csv data/product-categories.csv --items data/items.parquet
    python scripts/item_tables.py eshop2008 "data/e-shop clothing 2008.csv" --items data/items.csv --log data/clicks.tsv

The tables are for --data.items, --data.availability and --data.path of fit and test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sessrec.arguments import ScriptParser
from sessrec.data.split import parse_time
from sessrec.errors import SessRecError, error_text
from sessrec.features import published_tables
from sessrec.writing import atomic_write


def main(args: list[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Command-line arguments; those of the process if None.

    Raises:
        SystemExit: With code 2 after one line on stderr, if a file cannot be read or written.
    """
    parser = _parser()
    options = parser.parse_args(args)
    outputs = {name: getattr(options, name) for name in ("items", "availability", "log")}
    try:
        if not any(outputs.values()):
            raise SessRecError("nothing to write: give --items, --availability or --log")
        for name, file in outputs.items():
            if file is not None and file.suffix not in (".parquet", ".csv", ".tsv"):
                raise SessRecError(f"--{name} {file}: the name of a table ends in .parquet, .csv or .tsv")
            if file is not None and file.exists():
                raise SessRecError(f"--{name} {file} exists: remove it or give another name")
        tables = _tables(options.source, options.files, options.until)
        for name, file in outputs.items():
            if file is not None and name not in tables:
                raise SessRecError(f"--{name}: {options.source} has no such table")
        for name, table in tables.items():
            if outputs[name] is not None:
                _write(table, outputs[name])
                print(f"{outputs[name]}: {len(table):,} rows of {', '.join(table.columns)}")
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))


def _tables(source: str, files: list[Path], until: str | None) -> dict[str, pd.DataFrame]:
    if source != "retailrocket" and until is not None:
        raise SessRecError(f"--until is for retailrocket: nothing of {source} changes in time")
    n_files = {"retailrocket": 2, "diginetica": 2, "eshop2008": 1}[source]
    if len(files) < n_files or (len(files) > n_files and source != "retailrocket"):
        raise SessRecError(f"{source} is made of {n_files} files{' at least' * (source == 'retailrocket')}: see --help")
    if source == "retailrocket":
        time = None if until is None else parse_time(until, "--until")
        items, availability = published_tables.retailrocket(files[:-1], files[-1], time)
        return {"items": items, "availability": availability}
    if source == "diginetica":
        return {"items": published_tables.diginetica(*files)}
    items, log = published_tables.eshop2008(files[0])
    return {"items": items, "log": log}


def _write(table: pd.DataFrame, file: Path) -> None:
    """Write a table as the name of the file says, whole or not at all."""
    with atomic_write(file) as temporary:
        if file.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            separator = "," if file.suffix == ".csv" else "\t"
            texts: dict[str, Any] = {
                str(name): ["|".join(cell) if isinstance(cell, list) else cell for cell in column]
                for name, column in table.items()
                if any(isinstance(cell, list) for cell in column)
            }
            table.assign(**texts).to_csv(temporary, sep=separator, index=False, lineterminator="\n")


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", choices=["retailrocket", "diginetica", "eshop2008"], help="the public log")
    parser.add_argument("files", type=Path, nargs="+", help="its files, in the order of the examples")
    parser.add_argument("--items", type=Path, help="item table to write, .parquet, .csv or .tsv")
    parser.add_argument("--availability", type=Path, help="table of when items are there, of retailrocket")
    parser.add_argument("--log", type=Path, help="click log to write, of eshop2008")
    text = "time up to which categories of retailrocket are taken, ISO 8601 or Unix seconds, such as the start of the "
    parser.add_argument("--until", help=text + "test part (default: the first category of each item)")
    return parser


if __name__ == "__main__":
    main()
