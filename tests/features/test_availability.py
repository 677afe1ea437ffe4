"""Availability: intervals from a table, and a test among the items that were there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from helpers import one_error, random_rows
from tested import LOGS, fit_run, report_of, rows_of, test_run, write_rows

from sessrec import test
from sessrec.callbacks.checkpoints import load_model
from sessrec.errors import SessRecError
from sessrec.evaluation import ranking
from sessrec.features.availability import read_availability


def random_intervals(seed: int, n_items: int, first: int, last: int) -> list[tuple[str, int | None, int | None]]:
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int | None, int | None]] = []
    for item in range(n_items):
        for _ in range(rng.integers(0, 4)):
            start, end = sorted(rng.integers(first, last, 2).tolist())
            rows.append((f"x{item}", None if rng.random() < 0.2 else start, None if rng.random() < 0.2 else end))
    return [rows[place] for place in rng.permutation(len(rows))]


def is_there(rows: list[tuple[str, int | None, int | None]], item: str, time: float) -> bool:
    own = [(start, end) for name, start, end in rows if name == item]
    return not own or any((start or -np.inf) <= time < (np.inf if end is None else end) for start, end in own)


@pytest.mark.parametrize("seed", range(8))
def test_intervals_against_plain_python(seed: int) -> None:
    rows = random_intervals(seed, 9, 1_600_000_000, 1_600_000_040)
    table = pa.table({"ItemId": [r[0] for r in rows], "From": [r[1] for r in rows], "To": [r[2] for r in rows]})
    ids = [f"x{item}" for item in range(10)]
    intervals = read_availability(table).of(ids)
    assert intervals.n_unlisted == len(set(ids) - {row[0] for row in rows})
    times = np.arange(1_599_999_999, 1_600_000_042)
    expected = np.array([[is_there(rows, item, time) for item in ids] for time in times.tolist()])
    assert np.array_equal([intervals.at(time) for time in times], expected)
    assert np.array_equal(intervals.counts(times), expected.sum(axis=1))
    changes = times[1:][(expected[1:] != expected[:-1]).any(axis=1)]
    time, found = float(times[0]), []
    while np.isfinite(time := intervals.next_change(time)):
        found.append(time)
    assert found == changes.tolist()


@pytest.mark.parametrize("written", ["seconds", "iso", "milliseconds", "parquet"])
def test_times_are_read_as_those_of_a_log(tmp_path: Path, written: str) -> None:
    frame = pd.DataFrame({"shop_id": [7, 7, 8], "From": ["2024-01-01", "", "2024-01-03"], "To": ["", "2023-01-01", ""]})
    if written in ("seconds", "milliseconds"):
        factor = 1000 if written == "milliseconds" else 1
        for name in ("From", "To"):
            seconds = (
                pd.to_datetime(frame[name]).astype("datetime64[s]").astype("int64").where(frame[name] != "") * factor
            )
            frame[name] = [f"{value:.0f}" if value == value else "" for value in seconds]
    file = tmp_path / "table"
    if written == "parquet":
        typed = frame.assign(**{name: pd.to_datetime(frame[name]) for name in ("From", "To")})
        typed.to_parquet(file)
    else:
        frame.to_csv(file, index=False)
    intervals = read_availability(str(file), "shop_id").of(["7", "8"])
    dates = ["2022-12-31", "2023-01-01", "2024-01-01", "2024-01-03"]
    found = [intervals.at(pd.Timestamp(date, tz="UTC").timestamp()).tolist() for date in dates]
    assert found == [[True, False], [False, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ItemId": ["a"], "From": [1]}, "has no column To; it has ItemId, From: an interval has ItemId, From and To"),
        ({"ItemId": ["a"], "From": [20], "To": [10]}, "1 interval with To before From, such as one of item a"),
        ({"ItemId": ["a"], "From": ["soon"], "To": [None]}, "column From of .*: 1 time cannot be read, first 'soon'"),
        ({"item": ["a"], "From": [1], "To": [2]}, "has no column ItemId"),
    ],
)
def test_broken_tables_are_refused(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(SessRecError, match=message):
        read_availability(pa.table(columns))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None, int | None]]:
    """A log of 12 items, and a table of when they are there."""
    monkeypatch.chdir(tmp_path)
    clicks = random_rows(60)
    write_rows(clicks)
    first, last = clicks[0][2], clicks[-1][2]
    rows = random_intervals(1, 11, first + (last - first) // 2, last)  # nothing is known of the twelfth item
    text = ["ItemId,From,To", *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]
    Path("there.csv").write_text("\n".join([*text, "stranger,1600000000,"]) + "\n")
    return rows


ALLOWED = "x0,x1,x2,x3,x11"
RULES = {
    "plain": [],
    "exclude_last": ["--model.exclude_last", "true"],
    "exclude_seen": ["--model.exclude_seen", "true", "--model.tie_mode", "median"],
    "allow": ["--allow", ALLOWED, "--model.exclude_last", "true"],
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ["Markov", "GRU4Rec"])
def test_ranks_among_what_was_there(
    rows: list[tuple[str, int | None, int | None]], model: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_run(model)
    test_run(model)
    plain = (report_of(model), rows_of(model))
    capsys.readouterr()
    test_run(model, "--data.availability", "there.csv", *RULES[rule])
    assert "among the items that were there" in capsys.readouterr().out
    report, found = report_of(model), rows_of(model)
    if rule == "plain":  # the plain figures are what they were
        assert report["metrics"] == plain[0]["metrics"]
        assert [row["rank"] for row in found] == [row["rank"] for row in plain[1]]
    scores = load_model(LOGS / model / "checkpoints" / "last.ckpt")
    ids = scores.vocabulary.item_ids
    log = pd.read_csv("log.tsv", sep="\t")
    ranks, n_candidates, n_gone = [], [], 0
    for row in found:
        session = log[log.SessionId == row["session"]]
        prefix = session.ItemId[: row["position"]].tolist()
        time = int(session.Time.iloc[row["position"] - 1])
        there = [item for item in ids if is_there(rows, item, time) or item == row["item"]]
        n_gone += not is_there(rows, row["item"], time)
        gone = {"exclude_last": prefix[-1:], "exclude_seen": prefix, "allow": prefix[-1:]}.get(rule, [])
        there = [item for item in there if item not in gone and (rule != "allow" or item in ALLOWED.split(","))]
        n_candidates.append(len(there))
        with torch.inference_mode():
            queries = scores.encode(torch.tensor([[ids.index(item) for item in prefix]]))[0, -1:]
            value = dict(zip(ids, scores.score(queries, slice(0, len(ids)))[0].tolist(), strict=True))
        others = [value[item] for item in there if item != row["item"]]
        above = sum(own > value[row["item"]] for own in others)
        tied = sum(own == value[row["item"]] for own in others)
        rank = 1 + above + (0.5 if rule == "exclude_seen" else 1) * tied
        ranks.append(rank if row["item"] in there else None)
    assert [row["rank_available"] for row in found] == ranks
    assert [row["candidates_available"] for row in found] == n_candidates
    own = report["available"]
    assert own["targets_not_there"] == n_gone > 0
    assert own["items_always_there"] == len({*ids} - {row[0] for row in rows}) > 0
    assert own["mean_candidates"] == pytest.approx(np.mean(n_candidates))
    assert own["metrics"]["mrr@20"] == pytest.approx(np.mean([1 / rank if rank else 0 for rank in ranks]))
    assert own["metrics"]["recall@5"] == pytest.approx(np.mean([bool(rank and rank <= 5) for rank in ranks]))


def test_what_cannot_be_is_refused(
    rows: list[tuple[str, int | None, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    fit_run("Popularity")
    words = ["--config", str(LOGS / "Popularity" / "config.yaml"), "--ckpt_path", "last", "--data.availability"]
    Path("others.csv").write_text("ItemId,From,To\nnobody,1,2\n")
    assert "others.csv (--data.availability) has no item that the model knows" in one_error(
        capsys, test.main, [*words, "others.csv"]
    )
    assert "no such file: none.csv (--data.availability)" in one_error(capsys, test.main, [*words, "none.csv"])
    fit_run("Popularity", "--data.time_column", "null", name="untimed")
    words[1] = str(LOGS / "untimed" / "config.yaml")
    assert "--data.availability needs a click log with times" in one_error(capsys, test.main, [*words, "there.csv"])


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_counts_in_blocks_against_plain_python(n_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of which the first is never there, and the others come and go."""
    monkeypatch.setitem(ranking._BLOCK, "cpu", -(-30 // n_blocks))
    generator = torch.Generator().manual_seed(n_blocks)
    scores = torch.randint(0, 9, (70, 30), generator=generator).float()
    targets = torch.randint(30, (70,), generator=generator)
    times = torch.rand(70, generator=generator).double() * 10
    bounds = torch.full((30, 6), torch.inf, dtype=torch.float64)
    bounds[1:20] = torch.sort(torch.rand(19, 6, generator=generator).double() * 10).values
    bounds[20:, 0] = -torch.inf  # always there
    available = ranking.AvailableAt(bounds, times, targets)
    order = torch.arange(70)

    def score(queries: torch.Tensor, items: Any) -> torch.Tensor:
        return scores[queries[:, 0].long()][:, items]

    def score_targets(queries: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return scores[queries[:, 0].long()].gather(1, own[:, None])

    queries = order[:, None].float()
    found = ranking.count_positions(score, score_targets, queries, targets, 30, available=available)
    for position in range(70):
        time, target = times[position].item(), int(targets[position])
        there = [i for i in range(30) if i == target or sum(b <= time for b in bounds[i].tolist()) % 2]
        own = scores[position].tolist()
        assert found.above[position] == sum(own[i] > own[target] for i in there)
        assert found.tied[position] == sum(own[i] == own[target] for i in there) - 1
