"""Turn the texts of items into vectors, by a sentence encoder, for --model.features '{text: vector}'.

Example::

    pip install sessrec[text]
    python scripts/embed_texts.py titles.csv --columns title,brand --encoder all-MiniLM-L6-v2 --items items.parquet

The encoder is a model of sentence-transformers, by its name or its folder, or a function of one's own as module:name,
which takes a list of texts and gives an array of a row each. All columns of the table are kept. An item without any
text gets no vector.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from sessrec.arguments import ScriptParser
from sessrec.errors import SessRecError, check_least, error_text, one_line
from sessrec.features.reading import item_id_texts, read_table, typed
from sessrec.text import counted
from sessrec.writing import atomic_write

Encoder = Callable[[list[str]], Any]


def main(args: list[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Command-line arguments; those of the process if None.

    Raises:
        SystemExit: With code 2 after one line on stderr, if something cannot be read, written or encoded.
    """
    parser = _parser()
    options = parser.parse_args(args)
    try:
        check_least("--batch_size", options.batch_size, 1)
        if options.items.exists():
            raise SessRecError(f"--items {options.items} exists: remove it or give another name")
        columns = options.columns.split(",")
        table, name, is_text = read_table(str(options.table), options.item_column, "TABLE")
        if missing := [column for column in columns if column not in table.column_names]:
            raise SessRecError(f"{name} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
        if options.name in table.column_names:
            raise SessRecError(f"{name} has a column {options.name} already: give another --name")
        _, table, notes = item_id_texts(table, options.item_column, name)
        texts = texts_of(table, columns)
        table = typed(table, [options.item_column, *columns]) if is_text else table
        vectors = embed(texts, _encoder(options.encoder), options.batch_size)
        column = pa.array([None if vector is None else vector.tolist() for vector in vectors], pa.list_(pa.float32()))
        with atomic_write(options.items) as temporary:
            pq.write_table(table.append_column(options.name, column), temporary)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    size = next((len(vector) for vector in vectors if vector is not None), 0)
    without = counted(sum(vector is None for vector in vectors), "item")
    print(f"{options.items}: {len(vectors):,} items, vectors of {size} numbers, {without} without a text")
    for note in notes:
        print(f"note: {note}")


def texts_of(table: pa.Table, columns: list[str]) -> list[str]:
    """Text of each row: those of some columns, joined by spaces."""
    found = [""] * len(table)
    for column in columns:
        own = pc.fill_null(table[column].cast(pa.string()), "").to_pylist()
        found = [" ".join(filter(None, (before, text.strip()))) for before, text in zip(found, own, strict=True)]
    return found


def embed(texts: list[str], encoder: Encoder, batch_size: int) -> list[np.ndarray | None]:
    """Vector of each text, float32, shape (D,); None where it is empty.

    Args:
        texts: The texts.
        encoder: Gives the vectors of a list of texts, as an array of a row each.
        batch_size: Texts that are given to it at once.

    Raises:
        SessRecError: If it gives something else.
    """
    rows = [row for row, text in enumerate(texts) if text]
    if not rows:
        raise SessRecError("no item has a text")
    found: list[np.ndarray | None] = [None] * len(texts)
    sizes = set()
    for start in tqdm(range(0, len(rows), batch_size), desc="texts", unit="batch"):
        batch = rows[start : start + batch_size]
        try:
            vectors = np.asarray(encoder([texts[row] for row in batch]), dtype=np.float32)
        except Exception as error:  # a function of the user's
            raise SessRecError(f"the encoder failed: {type(error).__name__}: {one_line(error)}") from error
        if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
            raise SessRecError(
                f"the encoder gave an array of shape {vectors.shape} for {len(batch)} texts: it must be one finite row "
                "a text"
            )
        sizes.add(vectors.shape[1])
        for row, vector in zip(batch, vectors, strict=True):
            found[row] = vector
    if len(sizes) > 1:
        raise SessRecError(f"the encoder gave vectors of {min(sizes)} and of {max(sizes)} numbers")
    return found


def _encoder(name: str) -> Encoder:
    """A function by its name, or a model of sentence-transformers."""
    module, colon, function = name.partition(":")
    if colon and not Path(name).exists():
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise SessRecError(f"--encoder {name}: {error}") from error
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError:
        raise SessRecError(
            f"--encoder {name} needs sentence-transformers, which is not installed: pip install sessrec[text]"
        ) from None
    try:
        model = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        raise SessRecError(f"--encoder {name} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return lambda texts: model.encode(texts, show_progress_bar=False)


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("table", type=Path, help="table of the items: Parquet, CSV or TSV")
    parser.add_argument("--item_column", default="ItemId", help="its column of item ids (default: ItemId)")
    parser.add_argument("--columns", required=True, help="its columns of texts, with commas between them")
    parser.add_argument("--encoder", required=True, help="name or folder of a sentence encoder, or module:function")
    parser.add_argument("--items", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--name", default="text", help="name of the column of vectors (default: text)")
    parser.add_argument("--batch_size", type=int, default=256, help="texts that are encoded at once (default: 256)")
    return parser


if __name__ == "__main__":
    main()
