"""Item tables: kinds of columns, text files against Parquet and memory, and what is refused or counted."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessrec.errors import SessRecError
from sessrec.features.encoder import FeatureEncoder
from sessrec.features.item_table import Categories, ItemTable, Numbers, Vectors
from sessrec.features.reading import read_item_table

ROWS: list[dict[str, Any]] = [
    {"ItemId": "007", "brand": "acme", "tags": ["red", "new"], "price": 9.5, "size": 40, "text": [1.0, 2.0, 4.0]},
    {"ItemId": "7", "brand": "", "tags": [], "price": None, "size": 41, "text": [0.0, 1.0, 0.5]},
    {"ItemId": "x y", "brand": "b, co", "tags": ["red"], "price": -1.25, "size": None, "text": None},
]


def as_lists(table: ItemTable) -> dict[str, list[Any]]:
    """What each item has, as plain Python."""
    found: dict[str, list[Any]] = {"ItemId": table.item_ids}
    for name, column in table.columns.items():
        if isinstance(column, Categories):
            ends = zip(column.offsets, column.offsets[1:], strict=False)
            found[name] = [sorted(column.names[code] for code in column.codes[start:end]) for start, end in ends]
        elif isinstance(column, Numbers):
            found[name] = [None if np.isnan(value) else value for value in column.values.tolist()]
        else:
            pairs = zip(column.values.tolist(), column.has_value, strict=True)
            found[name] = [vector if there else None for vector, there in pairs]
    return found


EXPECTED = {
    "ItemId": ["007", "7", "x y"],
    "brand": [["acme"], [], ["b, co"]],
    "tags": [["new", "red"], [], ["red"]],
    "price": [9.5, None, -1.25],
    "size": [40, 41, None],
    "text": [[1.0, 2.0, 4.0], [0.0, 1.0, 0.5], None],
}
SEPARATORS = {"items.csv": ",", "items.tsv": "\t", "items.csv.gz": ";"}


def as_text(separator: str) -> bytes:
    lines = [separator.join(EXPECTED)]
    for row in ROWS:
        cells = [row["ItemId"], row["brand"], "|".join(row["tags"]), row["price"], row["size"], row["text"]]
        lines.append(separator.join("" if cell in (None, "") else f'"{cell}"' for cell in cells))
    return "\n".join([*lines, ""]).encode()


@pytest.mark.parametrize("kind", ["items.parquet", *SEPARATORS, "pandas", "arrow"])
def test_every_kind_of_table_says_the_same(tmp_path: Path, kind: str) -> None:
    table, file = pa.Table.from_pylist(ROWS), tmp_path / kind
    source: Any = {"pandas": pd.DataFrame(ROWS), "arrow": table}.get(kind, str(file))
    if kind == "items.parquet":
        pq.write_table(table, file)
    elif kind in SEPARATORS:
        text = as_text(SEPARATORS[kind])
        if kind == "items.tsv":  # without quotes, as tab-separated files are
            text = text.replace(b'"', b"")
        file.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    assert as_lists(read_item_table(source)) == EXPECTED


def test_a_name_with_a_bar_is_one_category_where_lists_can_be_written() -> None:
    table = read_item_table(pd.DataFrame({"ItemId": [1, 2], "path": ["a|b", "c"]}))
    assert as_lists(table) == {"ItemId": ["1", "2"], "path": [["a|b"], ["c"]]}


def test_types_of_columns() -> None:
    frame = pd.DataFrame(
        {
            "ItemId": [3, 4],
            "yes": [True, None],
            "kind": pd.Categorical(["a", "b"]),
            "when": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "codes": [[1, 2], [2]],
            "nothing": [None, None],
        }
    )
    table = read_item_table(frame)
    assert as_lists(table) == {
        "ItemId": ["3", "4"],
        "yes": [["true"], []],
        "kind": [["a"], ["b"]],
        "codes": [["1", "2"], ["2"]],
        "nothing": [[], []],
    }
    assert table.faults == {"when": "column when is of type timestamp[us], which is no feature"}


def test_the_report_counts_what_does_not_meet() -> None:
    table = read_item_table(pd.DataFrame(ROWS))
    report = table.describe(["7", "8", "9", "007"])
    assert report == {
        "source": "<table in memory>",
        "items": 3,
        "items_of_the_log_with_a_row": 2,
        "items_of_the_log_without_a_row": 2,
        "items_without_a_click_in_training": 1,
        "column_brand": "2 categories, 1 missing",
        "column_tags": "2 categories, up to 2 an item, 1 missing",
        "column_price": "numbers from -1.25 to 9.5, 2 distinct, 1 missing",
        "column_size": "whole numbers from 40 to 41, 2 distinct, 1 missing",
        "column_text": "vectors of 3 numbers, 1 missing",
    }


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "more than one row for 1 item, such as a: keep one each"),
        ([None, "", None], "has no row with an item id"),
        ([1.5, 2.5, 3.5], "column ItemId is of type double; ids must be text or whole numbers"),
    ],
)
def test_tables_whose_ids_are_none_are_refused(ids: list[Any], message: str) -> None:
    with pytest.raises(SessRecError, match=message):
        read_item_table(pd.DataFrame(ROWS).assign(ItemId=ids))


@pytest.mark.parametrize(
    ("column", "values", "wanted", "message"),
    [
        ("text", [[1.0, 2.0], [1.0], None], "vector", "text has vectors of two lengths: 2 numbers, and 1 for item 7"),
        ("text", [[1.0, float("nan")], [1.0, 2.0], None], 2, "the vector of item 007 has a number that is missing"),
        ("text", [[1.0, None], [1.0, 2.0], None], 2, "the vector of item 007 has a number that is missing or infinite"),
        ("price", [1.0, float("inf"), 2.0], "soft", "column price is infinite for 1 item, such as 7"),
        ("tags", [["a"] * 65, [], []], 4, "tags has 65 values for item 007, and at most 64 can be taken"),
        ("when", pd.to_datetime(["2024-01-01"] * 3), 4, r"column when is of type timestamp\[us\], which is no feature"),
        ("nested", [[["a"]], None, None], 4, "column nested is of type list<.*>, which is no feature"),
    ],
)
def test_broken_columns_are_refused_where_they_are_used(column: str, values: Any, wanted: Any, message: str) -> None:
    table = read_item_table(pd.DataFrame(ROWS).assign(**{column: values}))
    assert column not in table.columns
    assert any(column in str(text) for name, text in table.describe(["7"]).items() if name.startswith("note"))
    with pytest.raises(SessRecError, match=message) as error:
        FeatureEncoder.of({"brand": 3, column: wanted}, table, ["7"])
    assert "\n" not in str(error.value)
    FeatureEncoder.of({"brand": 3, column: 0}, table, ["7"])


def test_names_are_kept_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("ItemId ,zip,code\n1,01,9007199254740993\n2,1,9007199254740992\n3,001,NA\n4,,7\n")
    table = read_item_table(str(file))
    encoder = FeatureEncoder.of({"zip": 2, "code": 2}, table, "1234")
    own: Any = encoder.encoders
    assert sorted(own["zip"].names) == ["001", "01", "1"]
    assert sorted(own["code"].names) == ["7", "9007199254740992", "9007199254740993"]
    whole = pd.DataFrame({"ItemId": [1, 2], "code": np.array([2**60, 2**60 + 1])})
    own = FeatureEncoder.of({"code": 2}, read_item_table(whole), "12").encoders
    assert sorted(own["code"].names) == [str(2**60), str(2**60 + 1)]


def test_columns_without_a_value_and_odd_types() -> None:
    frame = pa.table(
        {
            "ItemId": pa.array(["a", "b"], pa.string_view()),
            "none": pa.array([[], None], pa.list_(pa.float32())),
            "pairs": pa.array([["x", "y"], None], pa.list_(pa.string(), 2)),
            "flags": pa.array([[True], [False]]),
            "view": pa.array(["u", "v"], pa.string_view()),
            "coded": pa.array([["p"], ["q", "p"]], pa.list_(pa.string())),
        }
    )
    assert as_lists(read_item_table(frame)) == {
        "ItemId": ["a", "b"],
        "none": [[], []],
        "pairs": [["x", "y"], []],
        "flags": [["true"], ["false"]],
        "view": [["u"], ["v"]],
        "coded": [["p"], ["p", "q"]],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,price\n1,2\n", "has no column ItemId"),
        ("ItemId\n1\n", "has no column beside ItemId that can be a feature"),
        ("ItemId,v\n1,[1 2]\n", "column v: '[1 2]' of item 1 is no list of numbers"),
        ("ItemId,v\n1,[1]\n2,[2]\n3,x\n", "column v: 'x' of item 3 is no list of numbers"),
        ('ItemId,v\n1,"a\n2,b\n', "has a quote that is not closed"),
        ("ItemId,v\n1,a\n2\n", "cannot read"),
        ("ItemId,v,v\n1,a,b\n", "more than one column v"),
        ("", "is empty"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "items.csv"
    file.write_text(text)
    with pytest.raises(SessRecError) as error:
        read_item_table(str(file))
    assert message in str(error.value)
    assert "items.csv" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(SessRecError, match=r"no such file: .*none.csv \(--data.items\)"):
        read_item_table(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"brnad": 8}, "--model.features names brnad, which is no column of <table in memory>: it has brand, .*brand"),
        ({"price": 8}, "--model.features price is 8, and the column holds numbers: give soft"),
        ({"brand": "soft"}, "--model.features brand is 'soft', and the column holds categories: give the size"),
        ({"brand": -1}, "--model.features brand is -1"),
        ({"brand": True}, "--model.features brand is True"),
        ({"text": "soft"}, "--model.features text is 'soft', and the column holds vectors: give vector, or a number"),
        ({"size": "vector"}, "--model.features size is 'vector', and the column holds"),
    ],
)
def test_features_that_a_column_cannot_be(features: dict[str, Any], message: str) -> None:
    with pytest.raises(SessRecError, match=message):
        FeatureEncoder.of(features, read_item_table(pd.DataFrame(ROWS)), ["7"])


def test_a_table_without_an_item_of_the_log() -> None:
    with pytest.raises(SessRecError, match=r"no row for any item of the log: item ids there are such as 007, 7, x y"):
        FeatureEncoder.of({"price": "soft"}, read_item_table(pd.DataFrame(ROWS)), ["8", "9"])


def test_what_only_untrained_items_have_is_not_learnt() -> None:
    table = read_item_table(pd.DataFrame({"ItemId": ["a", "b", "c"], "kind": ["x", "y", "z"], "p": [0.0, 10.0, 99.0]}))
    encoder = FeatureEncoder.of({"kind": 4, "p": "soft"}, table, ["a", "b"])
    items, unknown = encoder.encode(table.select(["a", "b", "c", "d"]), 4)
    assert unknown == {"kind": 1}
    assert items.codes.tolist() == [[0], [1], [2], [2]]  # 2 stands for nothing
    assert items.weights.tolist() == [[1.0], [1.0], [0.0], [0.0]]
    assert items.has_any.tolist() == [True, True, True, False]
    np.testing.assert_allclose(items.numbers[[0, 1, 3]].sum(axis=1), [1.0, 1.0, 0.0])
    assert items.numbers[2].tolist() == items.numbers[1].tolist()  # beyond the last knot


def test_components_are_those_of_the_greatest_variance() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 20)) * 5 + rng.normal(size=(300, 20)) * 0.01).astype("f")
    column = Vectors(vectors, np.ones(300, dtype=bool))
    table = ItemTable(map(str, range(300)), {"v": column}, "x")
    encoder = FeatureEncoder.of({"v": 3}, table, map(str, range(300)))
    found = encoder.encode(table.columns, 300)[0].numbers
    assert found.shape == (300, 3)
    normal = (vectors - vectors.mean(axis=1, keepdims=True)) / vectors.std(axis=1, keepdims=True)
    left, scales, _ = np.linalg.svd(normal - normal.mean(axis=0), full_matrices=False)
    expected = left[:, :3] * scales[:3]
    expected /= np.sqrt((expected**2).mean())
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=5e-3)
    again = FeatureEncoder.from_state_dict(encoder.state_dict()).encode(table.columns, 300)[0].numbers
    assert np.array_equal(found, again)
    with pytest.raises(SessRecError, match="vectors of 4 numbers, where those of the fit have 20"):
        encoder.encode({"v": Vectors(np.ones((1, 4), dtype=np.float32), np.ones(1, dtype=bool))}, 1)
