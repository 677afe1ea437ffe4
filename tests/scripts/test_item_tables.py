"""Item tables of public logs, of small files written exactly as they are downloaded, and vectors of texts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, one_error

from sessrec import fit
from sessrec.features.availability import read_availability
from sessrec.features.reading import read_item_table

sys.path.insert(0, str(ROOT / "scripts"))
item_tables: Any = importlib.import_module("item_tables")
embed_texts: Any = importlib.import_module("embed_texts")
WEEK = 7 * 86_400
FIRST = 1_431_226_800  # 2015-05-10 03:00 UTC, the first snapshot of RetailRocket


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_retailrocket() -> None:
    """In milliseconds, in two parts, with properties that nobody wants, and items in no order."""
    parts = [["timestamp,itemid,property,value"], ["timestamp,itemid,property,value"]]
    rows = [
        (0, "460429", "categoryid", "1338"),
        (2, "460429", "categoryid", "200"),
        (5, "460429", "categoryid", "1114"),
        (0, "206783", "888", "1116713 960601 n277.200"),
        (1, "206783", "categoryid", "5"),
        (0, "206783", "available", "0"),
        (1, "206783", "available", "1"),
        (2, "206783", "available", "1"),
        (3, "206783", "available", "0"),
        (4, "206783", "available", "1"),
        (0, "460429", "available", "1"),
        (0, "59481", "790", "n60000.000"),
        (2, "59481", "available", "0"),
        (3, "99", "categoryid", "7"),
    ]
    for number, (week, item, name, value) in enumerate(rows[::-1]):
        parts[number % 2].append(f"{1000 * (FIRST + week * WEEK)},{item},{name},{value}")
    for number, lines in enumerate(parts, 1):
        Path(f"item_properties_part{number}.csv").write_text("\n".join(lines) + "\n")
    tree = ["categoryid,parentid", "1338,200", "200,5", "5,", "1114,9", "9,8", "8,"]
    Path("category_tree.csv").write_text("\n".join(tree) + "\n")


RETAILROCKET = ["retailrocket", "item_properties_part1.csv", "item_properties_part2.csv", "category_tree.csv"]


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ([], ["1338", "200", "5"]),
        (["--until", str(FIRST + 2 * WEEK)], ["200", "5", "5"]),
        (["--until", "2015-09-11T03:00:00Z"], ["1114", "9", "8"]),
    ],
)
def test_retailrocket(until: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_retailrocket()
    item_tables.main([*RETAILROCKET, *until, "--items", "items.csv", "--availability", "there.parquet"])
    n_rows = 2 if expected[0] == "200" else 3
    assert f"items.csv: {n_rows} rows of ItemId, category, parent, top" in capsys.readouterr().out
    items = pd.read_csv("items.csv", dtype=str, keep_default_na=False).set_index("ItemId")
    assert items.loc["460429"].tolist() == expected
    assert items.loc["206783"].tolist() == ["5", "", "5"]
    if n_rows == 3:  # by then it had none
        assert items.loc["99"].tolist() == ["7", "", "7"]  # a category that the tree lacks
    assert read_item_table("items.csv").columns.keys() == {"category", "parent", "top"}
    there = read_availability("there.parquet").of(["206783", "460429", "59481", "99"])
    found = [there.at(FIRST + week * WEEK).tolist() for week in (-1, 0, 1, 2, 3, 4, 50)]
    assert [row[0] for row in found] == [False, False, True, True, False, True, True]
    assert all(row[1] for row in found)
    assert not any(row[2] for row in found)  # never available
    assert all(row[3] for row in found)  # nothing is known of it


def test_diginetica() -> None:
    Path("products.csv").write_text("itemId;pricelog2;product.name.tokens\n1;10;4875,776,56689,776\n12;0;\n7;9;5\n")
    Path("product-categories.csv").write_text("itemId;categoryId\n139578;1096\n1;435\n12;1096\n12;7\n")
    words = ["diginetica", "products.csv", "product-categories.csv", "--items"]
    for file in ("items.parquet", "items.csv"):
        item_tables.main([*words, file])
        table = read_item_table(file)
        assert table.item_ids == ["1", "12", "7"]
        columns: dict[str, Any] = table.columns
        assert columns["price"].values.tolist() == [10, 0, 9]
        assert np.diff(columns["words"].offsets).tolist() == [3, 0, 1]
    assert [list(own) for own in pd.read_parquet("items.parquet").category.fillna("")] == [["435"], ["1096", "7"], []]


ESHOP = """year;month;day;order;country;session ID;page 1 (main category);page 2 (clothing model);colour;location;\
model photography;price;price 2;page
2008;4;1;1;29;1;1;A13;1;5;1;28;2;1
2008;4;1;2;29;1;1;A16;1;6;1;33;2;1
2008;4;1;3;29;1;2;B4;10;2;1;52;1;1
2008;8;13;1;29;2;4;A13;1;5;1;28;2;1
2008;8;13;2;29;2;1;A13;1;5;1;28;2;1
"""


def test_eshop2008_is_fitted_with_its_own_columns() -> None:
    Path("e-shop clothing 2008.csv").write_text(ESHOP)
    item_tables.main(["eshop2008", "e-shop clothing 2008.csv", "--items", "items.csv", "--log", "clicks.tsv"])
    items = pd.read_csv("items.csv").set_index("ItemId")
    assert items.loc["A13"].tolist() == [1, 1, 5, 1, 28, 1]  # the most frequent category
    assert items.loc["B4"].tolist() == [2, 10, 2, 1, 52, 1]
    log = pd.read_csv("clicks.tsv", sep="\t")
    assert log.columns.tolist() == ["SessionId", "ItemId", "Time", "Order"]
    days = [pd.Timestamp(day, tz="UTC").timestamp() for day in ("2008-04-01", "2008-08-13")]
    assert log.Time.unique().tolist() == days
    words = ["--data.path", "clicks.tsv", "--data.order_column", "Order", "--data.val_ratio", "0", "--data.items"]
    words += ["items.csv", "--data.test_ratio", "0", "--model", "GRU4Rec", "--trainer.accelerator", "cpu"]
    words += ["--model.features", "{category: 4, colour: 4, price: soft}", "--trainer.max_epochs", "1"]
    fit.main([*words, "--trainer.logger.version", "run"])
    assert Path("lightning_logs/run/checkpoints/last.ckpt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["diginetica", "none.csv", "none.csv", "--items", "x.csv"], "cannot read none.csv"),
        (["diginetica", "wrong.csv", "wrong.csv", "--items", "x.csv"], "cannot read wrong.csv as itemId, pricelog2"),
        (["diginetica", "wrong.csv", "--items", "x.csv"], "diginetica is made of 2 files"),
        (["eshop2008", "wrong.csv", "--until", "1", "--log", "x.csv"], "--until is for retailrocket"),
        (["eshop2008", "wrong.csv", "--items", "wrong.csv"], "--items wrong.csv exists"),
        (["eshop2008", "wrong.csv"], "nothing to write: give --items, --availability or --log"),
        (["eshop2008", "wrong.csv", "--log", "x.tsv.gz"], "the name of a table ends in .parquet, .csv or .tsv"),
        (["retailrocket", "wrong.csv", "--items", "x.csv"], "retailrocket is made of 2 files at least"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.csv").write_text("a;b\n1;2\n")
    assert message in one_error(capsys, item_tables.main, words)
    assert not Path("x.csv").exists()


def letters(texts: list[str]) -> np.ndarray:
    """An encoder: how often each letter comes in a text."""
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], dtype=float)


def test_texts_become_vectors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "encoders", sys.modules[__name__])
    Path("titles.csv").write_text("ItemId,title,brand,price\n01,abba,c,1\n02,,,2\n03,bad ,hgf,3\n04,12,,4\n")
    words = ["titles.csv", "--columns", "title,brand", "--encoder", "encoders:letters", "--items", "items.parquet"]
    embed_texts.main([*words, "--batch_size", "2"])
    assert "items.parquet: 4 items, vectors of 8 numbers, 1 item without a text" in capsys.readouterr().out
    table = read_item_table("items.parquet")
    assert table.item_ids == ["01", "02", "03", "04"]
    columns: dict[str, Any] = table.columns
    expected = letters(["abba c", "", "bad hgf", "12"])
    assert np.array_equal(columns["text"].values, expected)
    assert columns["text"].has_value.tolist() == [True, False, True, True]
    assert columns["price"].values.tolist() == [1, 2, 3, 4]
    assert "--items items.parquet exists" in one_error(capsys, embed_texts.main, words)
    words[-1] = "others.parquet"
    for changed, message in {
        "encoders:none": "--encoder encoders:none: module",
        "no_module:letters": "--encoder no_module:letters: No module named",
        "encoders:fails": "the encoder failed: ZeroDivisionError: division by zero",
        "encoders:one_row": "the encoder gave an array of shape (1, 2) for 3 texts",
    }.items():
        words[4] = changed
        assert message in one_error(capsys, embed_texts.main, words)
    words[2:5] = ["name", "--encoder", "encoders:letters"]
    assert "titles.csv has no column name; it has ItemId, title, brand, price" in one_error(
        capsys, embed_texts.main, words
    )
    assert not Path("others.parquet").exists()


def fails(texts: list[str]) -> float:
    return 1 / 0


def one_row(texts: list[str]) -> np.ndarray:
    return np.ones((1, 2))
