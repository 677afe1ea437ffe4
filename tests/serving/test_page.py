"""What the page of the server asks: items, lists, ranks and sessions of a log."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from helpers import fit_log, random_rows

from sessrec import models
from sessrec import test as run_test
from sessrec.errors import SessRecError
from sessrec.serving.api import create_app
from sessrec.serving.engine import TorchEngine
from sessrec.serving.item_table import ItemTable, read_item_table
from sessrec.serving.log_sessions import LogSessions, read_log_sessions
from sessrec.serving.page import Page
from sessrec.serving.schemas import Limits
from sessrec.serving.service import Service

pytestmark = pytest.mark.filterwarnings("ignore:at .* other items score exactly")
RUNS = ("recurrent", "neighbours")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with other names of columns, and two tested runs on it."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = ["visit\titem\tTime", *("\t".join(map(str, row)) for row in random_rows(150, 14))]
        late = [f"late\t{item}\t{1_700_000_000 + number}" for number, item in enumerate(("x1", "new", "x3", "x4"))]
        Path("clicks.tsv").write_text("\n".join([*rows, *late, "alone\tx1\t1700000000"]) + "\n")
        words = ["--data.session_column", "visit", "--data.item_column", "item"]
        words += ["--data.test_ratio", "0.1", "--data.val_ratio", "0"]
        options = {"recurrent": ("GRU4Rec", ["--model.n_sample", "8"]), "neighbours": ("VSKNN", [])}
        for run, (model, own) in options.items():
            fit_log("clicks.tsv", *words, *own, model=model, run=run)
            config = ["--config", f"lightning_logs/{run}/config.yaml", "--ckpt_path", "last"]
            run_test.main([*config, "--trainer.accelerator", "cpu"])
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    checkpoints = [folder / "lightning_logs" / run / "checkpoints" / "last.ckpt" for run in RUNS]
    table = folder / "items.csv"
    table.write_text('item_id,name,image\nx1,"Red, soft <b>shoe</b>",https://shop/1.png\nx2,Hat,javascript:alert(1)\n')
    sessions = read_log_sessions(str(folder / "clicks.tsv"), checkpoints[0])
    services = [Service(file, TorchEngine.of_checkpoint, None) for file in checkpoints]
    return Page(services, read_item_table(table), sessions, Limits(most_k=1000, most_items=50))


@pytest.fixture(scope="module")
def client(page: Page) -> Iterator[TestClient]:
    with TestClient(create_app(page.services[0], "secret", page.limits, page)) as client:
        yield client


def test_ranks_are_those_of_the_test(client: TestClient, folder: Path) -> None:
    for number, run in enumerate(RUNS):
        table = pq.read_table(folder / "lightning_logs" / run / "ranks.parquet")
        for session_id in ("u149", "u143", "late"):
            rows = table.filter(pa.compute.equal(table["session"].cast(pa.string()), session_id))
            loaded = client.get("/page/session", params={"id": session_id}).json()
            items = [item["id"] for item in loaded["items"]]
            ranks = client.post("/page/ranks", json={"items": items}).json()[number]
            assert len(ranks) == len(items) - 1
            assert [rank for rank in ranks if isinstance(rank, int)] == rows["rank"].to_pylist()
            assert loaded["is_after_training"] == [True, True]
    assert ranks == ["unknown item", *ranks[1:]]  # what the test leaves out


def test_positions_without_a_rank_say_why(page: Page) -> None:
    service = Service(page.services[0].checkpoint, TorchEngine.of_checkpoint, None)
    short = Page([service], limits=Limits(most_k=2))
    with TestClient(create_app(service, page=short)) as client:
        (ranks,) = client.post("/page/ranks", json={"items": ["new", "x3", *["x5", "x0"] * 9]}).json()
        assert ranks[0] == "nothing known before"
        assert client.get("/page/about").json()["cutoff"] == 2
        assert client.post("/page/lists", json={"items": ["x1"], "k": 3}).status_code == 422
        assert set(ranks[1:]) & {"2+"}
        assert set(ranks[1:]) <= {1, 2, "2+"}
        service.set_available(["x3"])
        assert client.post("/page/ranks", json={"items": ["x2", "x3", "x5"]}).json() == [[1, "no candidate"]]
        service.set_available(None)
        assert client.get("/page/session").status_code == 404
        assert client.post("/page/ranks", json={"items": ["x1"] * 501}).status_code == 422
        long = client.post("/page/ranks", json={"items": ["x1"] * 500}).json()[0]
        assert long[:299] == [None] * 299
        assert None not in long[299:]


def test_lists_of_all_models_have_titles(client: TestClient, folder: Path) -> None:
    lists = client.post("/page/lists", json={"items": ["x0"], "k": 14}).json()
    for run, model, found in zip(RUNS, (models.GRU4Rec, models.VSKNN), lists, strict=True):
        checkpoint = folder / "lightning_logs" / run / "checkpoints" / "last.ckpt"
        expected = [item for item, _ in model.load_from_checkpoint(checkpoint).recommend(["x0"], 14)]
        assert [item["id"] for item in found["items"]] == expected
        first = next(item for item in found["items"] if item["id"] == "x1")
        assert (first["title"], first["picture"]) == ("Red, soft <b>shoe</b>", "https://shop/1.png")
    about = client.get("/page/about").json()
    assert [(model["run"], model["n_items"]) for model in about["models"]] == [(run, 14) for run in RUNS]


def test_items_are_found_by_id_and_title_the_frequent_first(client: TestClient, folder: Path) -> None:
    def found(text: str) -> list[str]:
        return [item["id"] for item in client.get("/page/items", params={"text": text}).json()]

    tested = set(pq.read_table(folder / "lightning_logs" / RUNS[0] / "ranks.parquet")["session"].to_pylist())
    counts = Counter(item for session, item, _ in random_rows(150, 14) if session not in tested)
    everything = found("")
    assert sorted(everything) == sorted(counts)
    assert [counts[item] for item in everything] == sorted(counts.values(), reverse=True)
    assert found("SHOE") == ["x1"]
    assert found("x1")[0] == "x1"
    assert set(found("x1")) == {"x1", "x10", "x11", "x12", "x13"}
    assert found("nothing") == []


def test_a_session_is_drawn_after_the_training(client: TestClient, page: Page) -> None:
    trained = page.services[0].engine.origin.trained_at
    assert trained is not None
    drawn = {client.get("/page/session").json()["id"] for _ in range(30)}
    assert drawn <= {f"u{number}" for number in range(135, 150)} | {"late"}
    assert len(drawn) > 3
    assert client.get("/page/session", params={"id": "u0"}).json()["is_after_training"] == [False, False]
    assert client.get("/page/session", params={"id": "nobody"}).status_code == 404
    assert client.get("/page/session", params={"id": "alone"}).status_code == 404  # of one event
    assert isinstance(page.sessions, LogSessions)
    assert len(page.sessions) == 151
    assert page.sessions.one_after(4e9) is not None  # the newest ones where none is after the training


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", answer.text)
    assert "innerHTML" not in answer.text  # titles are text


@pytest.mark.parametrize("kind", ["parquet", "tsv", "csv.gz"])
def test_tables_of_items(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"items.{kind}"
    columns = {"ItemId": [7, 8, 8], "title": ["a", None, "c"], "price": [1, 2, 3]}
    rows = [
        ",".join("" if value is None else str(value) for value in row) for row in zip(*columns.values(), strict=True)
    ]
    text = "\n".join([",".join(columns), *rows]) + "\n"
    if kind == "parquet":
        pq.write_table(pa.table(columns), file)
    elif kind == "tsv":
        file.write_text(text.replace(",", "\t"))
    else:
        file.write_bytes(gzip.compress(text.encode()))
    table = read_item_table(file)
    assert (table["7"].title, table["8"].title, table["9"].title) == ("a", "c", None)
    assert len(table) == 2
    assert table.notes == ["1 row left out: without an item id, or of one that comes again"]
    assert len(ItemTable()) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has columns a, b: it needs ItemId"),
        ("ItemId,price\n1,2\n", "has columns ItemId, price: it needs"),
        ("id,title,name\n1,2,3\n", "columns title and name could both be the title"),
        ("", "cannot read --items"),
        ("id,title\n1,2,3\n", "cannot read --items"),
        ("PAR1", "cannot read --items"),
    ],
)
def test_what_is_no_table_of_items_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_text(content)
    with pytest.raises(SessRecError, match=re.escape(message)):
        read_item_table(file)


def test_sessions_are_cleaned_as_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {drop_repeats: true, max_session_length: 3, time_column: at}\n")
    events = [("a", item, number) for number, item in enumerate(("x", "x", "y", "y", "z", "x"))]
    rows = ["SessionId\tItemId\tat", *(f"{s}\t{i}\t{t}" for s, i, t in [*events, ("b", "x", 9), ("b", "x", 10)])]
    (tmp_path / "log.tsv").write_text("\n".join(rows) + "\n")
    sessions = read_log_sessions(str(tmp_path / "log.tsv"), tmp_path / "checkpoints" / "last.ckpt")
    found = sessions.of_id("a")
    assert found is not None
    assert (found.items, sessions.of_id("b"), len(sessions)) == (["x", "y", "z"], None, 1)


def test_a_damaged_config_of_the_run_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"model": {}}))
    with pytest.raises(SessRecError, match="cannot read .*config.yaml: 'data'"):
        read_log_sessions(str(folder / "clicks.tsv"), tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(SessRecError, match="SessionId"):  # the names of columns where there is no config
        read_log_sessions(str(folder / "clicks.tsv"), tmp_path / "other" / "checkpoints" / "last.ckpt")
