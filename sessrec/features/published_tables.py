"""Item tables of public logs, made of the files that are downloaded with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sessrec.click_log.files import open_text
from sessrec.errors import SessRecError

_MOST_TOKENS = 64


def retailrocket(
    properties: Sequence[Path], tree: Path, until: float | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Category and availability of RetailRocket's items, of ``item_properties_part*.csv`` and ``category_tree.csv``.

    Properties change from week to week. An item has the category that was in force at a time, and no later one.

    Args:
        properties: Files of timestamp, itemid, property and value.
        tree: File of categoryid and parentid.
        until: Time up to which categories are taken, Unix seconds, such as the start of the test part: an item that
            had none by then has none. None takes the first category of each item, whenever that was.

    Returns:
        ItemId, category, parent (of the category) and top (of the tree); and ItemId, From and To (Unix seconds).

    Raises:
        SessRecError: If a file lacks a column.
    """
    kept = []
    for file in properties:
        table = _read(file, ",", ["timestamp", "itemid", "property", "value"])
        kept.append(table.filter(pc.is_in(table["property"], pa.array(["categoryid", "available"]))).to_pandas())
    rows = pd.concat(kept, ignore_index=True)
    rows["time"] = rows.timestamp.astype(np.int64) / 1000
    rows = rows.sort_values("time", kind="stable")
    categories = rows[rows.property == "categoryid"]
    if until is None:
        found = categories.groupby("itemid").value.first()
    else:
        found = categories[categories.time <= until].groupby("itemid").value.last()
    parents = _read(tree, ",", ["categoryid", "parentid"]).to_pandas().set_index("categoryid").parentid
    parents = parents[parents != ""]
    items = pd.DataFrame({"ItemId": found.index, "category": found.to_numpy()})
    items["parent"] = items.category.map(parents)
    items["top"] = items.category.map({category: _top(category, parents) for category in items.category.unique()})
    return items, _intervals(rows[rows.property == "available"])


def _top(category: str, parents: pd.Series) -> str:
    seen = {category}
    while category in parents.index and (above := parents[category]) not in seen:
        seen.add(category := above)
    return category


def _intervals(changes: pd.DataFrame) -> pd.DataFrame:
    """Intervals in which items are available, from their states at some times; the first state was there before."""
    is_change = changes.value != changes.groupby("itemid").value.shift()
    changes = changes[is_change]
    found = pd.DataFrame(
        {
            "ItemId": changes.itemid,
            "From": changes.time.where(changes.groupby("itemid").cumcount() > 0),
            "To": changes.groupby("itemid").time.shift(-1),
            "value": changes.value,
        }
    )
    # an item that never was is there in no interval, and has one of no length, so that it is known to be gone
    never = ~found.ItemId.isin(found[found.value == "1"].ItemId)
    found.loc[never, ["From", "To"]] = 0.0
    found = found[(found.value == "1") | never]
    return found.drop(columns="value").reset_index(drop=True)


def diginetica(products: Path, categories: Path) -> pd.DataFrame:
    """Category, price and words of the names, of Diginetica's ``products.csv`` and ``product-categories.csv``.

    Args:
        products: File of itemId, pricelog2 and product.name.tokens.
        categories: File of itemId and categoryId.

    Returns:
        ItemId, category (a list), price (its logarithm to the base 2) and words (a list of the numbers of words).

    Raises:
        SessRecError: If a file lacks a column.
    """
    table = _read(products, ";", ["itemId", "pricelog2", "product.name.tokens"]).to_pandas().set_index("itemId")
    pairs = _read(categories, ";", ["itemId", "categoryId"]).to_pandas()
    found = pairs.groupby("itemId").categoryId.agg(lambda own: list(dict.fromkeys(own)))
    words = table["product.name.tokens"].str.split(",")
    distinct = [list(dict.fromkeys(filter(None, own)))[:_MOST_TOKENS] for own in words]
    return pd.DataFrame(
        {
            "ItemId": table.index,
            "category": found.reindex(table.index).to_numpy(),
            "price": pd.to_numeric(table.pricelog2, errors="coerce").to_numpy(),
            "words": distinct,
        }
    )


_ESHOP = {
    "category": "page 1 (main category)",
    "colour": "colour",
    "location": "location",
    "photography": "model photography",
    "price": "price",
    "page": "page",
}


def eshop2008(clicks: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns of the items, and the click log, of ``e-shop clothing 2008.csv``, which holds both in its rows.

    Args:
        clicks: The file.

    Returns:
        ItemId, category, colour, location, photography, price and page, the most frequent value of each; and SessionId,
        ItemId, Time (midnight UTC of the day) and Order.

    Raises:
        SessRecError: If the file lacks a column.
    """
    of_log = ["year", "month", "day", "order", "session ID", "page 2 (clothing model)"]
    table = _read(clicks, ";", [*of_log, *_ESHOP.values()]).to_pandas()
    item = table["page 2 (clothing model)"]
    found = {name: table[column].groupby(item).agg(lambda own: own.mode()[0]) for name, column in _ESHOP.items()}
    items = pd.DataFrame(found).rename_axis("ItemId").reset_index()
    items["price"] = pd.to_numeric(items.price)
    days = pd.to_datetime(table[["year", "month", "day"]].astype(int), utc=True)
    log = {
        "SessionId": table["session ID"],
        "ItemId": item,
        "Time": days.astype("datetime64[s, UTC]").astype(np.int64),
        "Order": table.order.astype(int),
    }
    return items, pd.DataFrame(log)


def _read(file: Path, separator: str, columns: list[str]) -> pa.Table:
    """Columns of a delimited file as text.

    Raises:
        SessRecError: If it cannot be read, or lacks one.
    """
    parse = pa.csv.ParseOptions(delimiter=separator)
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), include_columns=columns)
    try:
        with open_text(file) as stream:
            return pa.csv.read_csv(stream, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise SessRecError(f"cannot read {file} as {', '.join(columns)} separated by {separator!r}: {cause}") from error
