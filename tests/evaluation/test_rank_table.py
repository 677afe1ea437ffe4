"""The ranks file of a test against plain Python, which works every row out from the click log by loops."""

from __future__ import annotations

import hashlib
import math
import os
import socket
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import make_sessions, one_error
from resuming import finish, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tested import LOGS, MARKS, fit_and_test, fit_run, report_of, rows_of, test_run, write_rows

from sessrec import models, test
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.evaluation.coverage import list_statistics
from sessrec.evaluation.rank_table import _share_above, gains, read_ranks
from sessrec.evaluation.slices import Slices, slice_metrics
from sessrec.models import SessionRecommender
from sessrec.models.inference import top_items_at_positions

pytestmark = MARKS
CUTOFFS = (1, 2, 3, 5, 7, 10, 20)
TIES = {"conservative": Fraction(1), "median": Fraction(1, 2), "standard": Fraction(0)}
RULES = ["none", "exclude_last", "exclude_seen"]
DAY = 86400
MODELS = ["Popularity", "Markov", "SKNN", "GRU4Rec"]
RANKS = LOGS / "Markov" / "ranks.parquet"


# A log, and what plain Python reads from it


class Click(NamedTuple):
    session: str
    item: str
    time: int


@cache
def clicks() -> list[Click]:
    """Sessions that overlap, with repeats, some days long; items of the last days are unknown to a model."""
    generator = np.random.default_rng(5)
    chances = 1 / np.arange(1, 15) ** 0.8
    t = 1_600_000_000
    found = [
        Click("a", "x0", t - 10),
        Click("a", "rare", t + 10**6),
        Click("b", "x1", t + 5),
        Click("b", "rare", t + 9),
    ]
    for session in range(90):
        time, item = t + 40_000 * session, int(generator.choice(14, p=chances / chances.sum()))
        for _ in range(int(generator.choice([2, 3, 4, 5, 9, 17], p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]))):
            is_new = session > 75 and generator.random() < 0.1
            found.append(Click(f"u{session}", "new" if is_new else f"x{item}", time))
            time += int(generator.integers(10, 30_000))
            item = (item + 1) % 14 if generator.random() < 0.4 else int(generator.choice(14, p=chances / chances.sum()))
    return [found[number] for number in generator.permutation(len(found))]


class Parts(NamedTuple):
    train: list[list[Click]]
    test: list[list[Click]]
    events: list[list[int]]
    """Number of each click of the test sessions among all of its session, from 1."""


def parts_of(rows: list[Click], test_ratio: float = 0.2) -> Parts:
    """Split the log at one time, cut what is under way there, and drop what training does not know."""
    sessions: dict[str, list[Click]] = {}
    for click in sorted(rows, key=lambda click: click.time):
        sessions.setdefault(click.session, []).append(click)
    ordered = sorted(sessions.values(), key=lambda session: session[0].time)
    t = ordered[int(len(ordered) * (1 - test_ratio))][0].time
    heads = [[click for click in session if click.time < t] for session in ordered if session[0].time < t]
    train = [head for head in heads if len(head) > 1]
    known = {click.item for session in train for click in session}
    later = [
        [(click, number) for number, click in enumerate(session, 1) if click.item in known]
        for session in ordered
        if session[0].time >= t
    ]
    test = [session for session in later if len(session) > 1]
    clicks, events = ([[pair[place] for pair in session] for session in test] for place in (0, 1))
    return Parts(train, clicks, events)


def counts_of(train: list[list[Click]]) -> dict[str, int]:
    return dict(Counter(click.item for session in train for click in session))


Keys = Callable[[list[str]], dict[str, Any]]
"""Gives every item what it is ranked by after some items; greater is better."""


def keys_of_popularity(train: list[list[Click]]) -> Keys:
    counts = counts_of(train)
    return lambda prefix: counts


def keys_of_markov(train: list[list[Click]]) -> Keys:
    counts = counts_of(train)
    followed: Counter[tuple[str, str]] = Counter()
    for session in train:
        for place in range(1, len(session)):
            followed[session[place - 1].item, session[place].item] += 1
    return lambda prefix: {item: (followed[prefix[-1], item], counts[item]) for item in counts}


def keys_of_model(name: str) -> Keys:
    """Scores of the fitted model, one session at a time."""
    model = fitted(name)
    ids = model.vocabulary.item_ids

    def keys(prefix: list[str]) -> dict[str, float]:
        items = torch.tensor([[ids.index(item) for item in prefix]])
        with torch.inference_mode():
            scores = model.score(model.encode(items)[0, -1:], slice(0, len(ids)))[0]
        return dict(zip(ids, scores.tolist(), strict=True))

    return keys


def fitted(name: str) -> SessionRecommender:
    return getattr(models, name).load_from_checkpoint(LOGS / name / "checkpoints" / "last.ckpt").eval()


def keys_of(name: str) -> Keys:
    train = parts_of(clicks()).train
    plain = {"Popularity": keys_of_popularity, "Markov": keys_of_markov}
    return plain[name](train) if name in plain else keys_of_model(name)


def expected_rows(parts: Parts, keys: Keys, tie_mode: str, rule: str) -> list[dict[str, Any]]:
    counts = counts_of(parts.train)
    n_events = sum(counts.values())
    first = {}
    for click in sorted((click for session in parts.train for click in session), key=lambda click: -click.time):
        first[click.item] = click.time
    rows = []
    for session, events in zip(parts.test, parts.events, strict=True):
        items = [click.item for click in session]
        for place in range(1, len(session)):
            prefix, target = items[:place], items[place]
            gone = {"none": [], "exclude_last": prefix[-1:], "exclude_seen": prefix}[rule]
            others = [item for item in counts if item != target and item not in gone]
            row = {
                "session": session[0].session,
                "position": place,
                "item": target,
                "candidates": len(counts) - len(set(gone)),
                "length": len(session),
                "repeat": target in prefix,
                "popularity": sum(count for count in counts.values() if count > counts[target]) / n_events,
                "age": session[place].time - first[target],
                "event": events[place],
                "clicks": counts[target],
            }
            rows.append(row | standing(keys(prefix), target, others, counts, tie_mode, target in gone))
    return rows


def standing(
    keys: dict[str, Any], target: str, others: list[str], counts: dict[str, int], tie_mode: str, is_gone: bool
) -> dict[str, Any]:
    """Rank, ties and the odds of a candidate drawn by popularity."""
    if is_gone:
        return {"rank": None, "ties": 0, "popular_odds": None}
    above = [item for item in others if keys[item] > keys[target]]
    tied = [item for item in others if keys[item] == keys[target]]
    odds = sum(counts[item] for item in above + tied) / sum(counts[item] for item in others)
    return {"rank": 1 + len(above) + TIES[tie_mode] * len(tied), "ties": len(tied), "popular_odds": odds}


def assert_rows(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    close = ("popularity", "popular_odds", "age")
    for own, row in zip(found, wanted, strict=True):
        assert own.keys() == row.keys()
        assert {k: v for k, v in own.items() if k not in close} == {k: v for k, v in row.items() if k not in close}
        for name in close:
            assert own[name] == (None if row[name] is None else pytest.approx(row[name], abs=1e-6)), (name, row)


def naive_metric(ranks: list[Any], metric: str) -> float:
    name, cutoff = metric.split("@")
    gain = {"recall": lambda rank: 1.0, "mrr": lambda rank: 1 / rank, "ndcg": lambda rank: 1 / math.log2(rank + 1)}
    return math.fsum(gain[name](rank) for rank in ranks if rank is not None and rank <= int(cutoff)) / len(ranks)


# Runs


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["--model.cutoffs", str(list(CUTOFFS))]
    return fit_and_test(tmp_path_factory.mktemp("fits"), clicks(), {name: [name, *words] for name in MODELS})


def rule_words(rule: str) -> list[str]:
    return [] if rule == "none" else [f"--model.{rule}", "true"]


def test_the_log_has_what_can_go_wrong() -> None:
    parts = parts_of(clicks())
    assert len(parts.test) > 12
    assert any(click.item == "new" for click in clicks())
    starts = [session[0].time for session in parts.train]
    ends = [session[-1].time for session in parts.train]
    assert any(end > start for end, start in zip(ends, starts[1:], strict=False))  # sessions overlap
    # in the order of sessions, the first event of an item is not its earliest
    in_order = {click.item: click.time for session in reversed(parts.train) for click in reversed(session)}
    earliest = {item: min(c.time for s in parts.train for c in s if c.item == item) for item in in_order}
    assert in_order != earliest
    rows = expected_rows(parts, keys_of("Popularity"), "median", "exclude_last")
    assert {row["rank"] for row in rows} > {None}
    assert any(row["ties"] for row in rows)
    assert {row["repeat"] for row in rows} == {True, False}
    assert any(row["event"] > row["position"] + 1 for row in rows)  # unknown items before the target
    assert max(row["age"] for row in rows) > 30 * DAY


# 1. Rows


@pytest.mark.parametrize(("tie_mode", "batch_size"), [("conservative", "512"), ("median", "3"), ("standard", "1")])
@pytest.mark.parametrize("name", MODELS)
def test_every_row_is_that_of_plain_python(name: str, tie_mode: str, batch_size: str) -> None:
    """Of all rules, over the models."""
    rule = RULES[(MODELS.index(name) + list(TIES).index(tie_mode)) % 3]
    cli = test_run(name, "--model.tie_mode", tie_mode, *rule_words(rule), "--data.eval_batch_size", batch_size)
    rows, report = rows_of(name), report_of(name)
    assert_rows(rows, expected_rows(parts_of(clicks()), keys_of(name), tie_mode, rule))
    ranks = [row["rank"] for row in rows]
    file = read_ranks(LOGS / name / "ranks.parquet")
    assert file.tie_mode == tie_mode
    for mode, share in TIES.items():  # any rule for ties follows from the file of any other
        moved = [(share - TIES[tie_mode]) * row["ties"] for row in rows]
        expected = [math.inf if rank is None else rank + by for rank, by in zip(ranks, moved, strict=True)]
        assert file.rank_by(mode).tolist() == expected  # type: ignore[arg-type]
    assert (file.above + 1).tolist() == file.rank_by("standard").tolist()
    sessions = list(dict.fromkeys(row["session"] for row in rows))
    assert file.session.tolist() == [sessions.index(row["session"]) for row in rows]
    for cutoff in CUTOFFS:
        for metric in (f"recall@{cutoff}", f"mrr@{cutoff}", f"ndcg@{cutoff}"):
            value = report["metrics"][f"test/{metric}"]
            assert value == pytest.approx(naive_metric(ranks, metric), abs=1e-12)
            assert gains(file.rank, metric).mean() == pytest.approx(value, abs=1e-9)
            assert cli.model.results[f"test/{metric}"] == value
            assert float(cli.trainer.callback_metrics[f"test/{metric}"]) == pytest.approx(value, abs=1e-9)
    assert report["tied_positions"] == sum(row["ties"] > 0 for row in rows)


def test_the_file_does_not_depend_on_the_batch_size() -> None:
    digests = set()
    for batch_size in ("1", "3", "64"):
        test_run("GRU4Rec", "--data.eval_batch_size", batch_size)
        digests.add(report_of("GRU4Rec")["ranks_digest"])
    assert len(digests) == 1


def test_the_file_says_what_its_columns_are() -> None:
    schema = pq.read_schema(RANKS)
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert metadata["sessrec.tie_mode"] == "conservative"
    assert set(schema.names) <= metadata.keys()
    assert all(len(metadata[name]) > 10 for name in schema.names)


def test_curves_have_the_metrics_of_the_file() -> None:
    newest = max((LOGS / "Markov").glob("events*"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    events = EventAccumulator(str(newest))
    events.Reload()
    for name, value in report_of("Markov")["metrics"].items():
        assert events.Scalars(name)[-1].value == pytest.approx(value, rel=1e-6)  # TensorBoard keeps 32 bits


def test_gains_by_hand() -> None:
    rank = np.array([1.0, 2.5, 20.0, 21.0, np.inf])
    assert gains(rank, "recall@20").tolist() == [1, 1, 1, 0, 0]
    assert gains(rank, "mrr@20").tolist() == [1, 0.4, 0.05, 0, 0]
    assert gains(rank, "ndcg@20") == pytest.approx([1, 1 / math.log2(3.5), 1 / math.log2(21), 0, 0])


@pytest.mark.parametrize(
    "metric", ["recall", "recall@", "recall@0", "recall@-1", "recall@2.5", "hit@20", "@20", "", "mrr@²"]
)
def test_what_is_no_metric(metric: str) -> None:
    with pytest.raises(SessRecError, match="is no metric"):
        gains(np.ones(3), metric)


def test_a_log_without_times_has_no_ages() -> None:
    rows = [click for session in parts_of(clicks()).train for click in session]
    Path("plain.tsv").write_text("\n".join(["SessionId\tItemId", *(f"{c.session}\t{c.item}" for c in rows)]) + "\n")
    fit_run("Markov", "--data.time_column", "null", "--data.path", "plain.tsv", name="plain")
    test_run("plain")
    assert {row["age"] for row in rows_of("plain")} == {None}
    assert not any("age" in name for name in report_of("plain")["slices"])
    assert fitted_vocabulary("plain")["first_times"] is None


def fitted_vocabulary(run: str) -> dict[str, Any]:
    return torch.load(LOGS / run / "checkpoints" / "last.ckpt", weights_only=True)["vocabulary"]


def test_a_checkpoint_of_before_has_no_first_times() -> None:
    before = rows_of("Markov")
    content = torch.load(LOGS / "Markov" / "checkpoints" / "last.ckpt", weights_only=True)
    del content["vocabulary"]["first_times"]
    torch.save(content, "old.ckpt")
    assert models.Markov.load_from_checkpoint("old.ckpt").vocabulary.first_times is None
    test_run("Markov", "--ckpt_path", "old.ckpt")
    assert rows_of("Markov") == [row | {"age": None} for row in before]


def test_prepared_logs_keep_the_first_times() -> None:
    """Fit and test open the prepared log the second time."""
    for run in ("one", "two"):
        fit_run("Markov", "--data.cache_dir", "kept", name=run)
        test_run(run)
        assert rows_of(run) == rows_of("Markov")


@pytest.mark.parametrize(("n", "k"), [(10, 2), (10, 4), (5, 2), (100, 58), (1000, 3), (10, 7)])
def test_popularity_is_rounded_once(n: int, k: int) -> None:
    """k of n events belong to the more popular item: the share is k / n, as 0.2 of the options is 1 / 5."""
    assert _share_above(np.array([k, *[1] * (n - k)]))[-1] == k / n


# 2. What stands beside the metrics


def test_the_protocol_is_kept() -> None:
    test_run("GRU4Rec", "--model.tie_mode", "median", "--model.exclude_last", "true")
    report, parts = report_of("GRU4Rec"), parts_of(clicks())
    protocol = report["protocol"]
    digest = protocol.pop("data_digest")
    assert len(digest) == 64
    assert protocol.pop("items_digest") == digest_of_names(sorted(counts_of(parts.train)))
    assert protocol == {
        "tie_mode": "median",
        "items_ranked": len(counts_of(parts.train)),
        "cold_items_ranked": 0,
        "exclude_last": True,
        "exclude_seen": False,
        "allowed_items": "all",
        "positions": sum(len(session) - 1 for session in parts.test),
        "sessions": len(parts.test),
    }
    assert "lists" not in report  # which nobody asked for
    assert report["model"] == "GRU4Rec"
    assert report["model_options"]["layers"] == [6]
    assert report["seed"] == 42
    assert report["data"]["positions"] == protocol["positions"]
    assert report["checkpoint"] == "lightning_logs/GRU4Rec/checkpoints/last.ckpt"
    assert report["seconds"] > 0
    assert report["versions"].keys() >= {"sessrec", "python", "torch", "lightning", "numpy"}
    assert report["versions"]["torch"] == torch.__version__
    assert report["hardware"].keys() >= {"device", "cores", "threads"}


def digest_of_names(names: list[str]) -> str:
    """Lengths, such that no two lists of names are one text, then the names."""
    texts = [name.encode() for name in names]
    lengths = np.array([len(text) for text in texts], dtype="<i8")
    return hashlib.sha256(lengths.tobytes() + b"".join(texts)).hexdigest()


def reordered(rows: list[Click]) -> list[Click]:
    """The same log, but that the training sessions have changed their times, the first with the last and so on."""
    train, later, _ = parts_of(rows)
    t = later[0][0].time
    new = []
    for session, first in zip(train, reversed([session[0].time for session in train]), strict=True):
        step = min(1000, (t - 1 - first) // len(session))
        new += [click._replace(time=first + step * place) for place, click in enumerate(session)]
    return new + [click for session in later for click in session]


def test_the_digest_is_that_of_the_test_part_however_items_are_numbered() -> None:
    write_rows(reordered(clicks()), "other.tsv")
    t = str(parts_of(clicks()).test[0][0].time)
    fit_run("Popularity", "--data.test_start", t, "--data.path", "other.tsv", name="other")
    test_run("other")
    ours, theirs = (fitted_vocabulary(run)["item_ids"] for run in ("Popularity", "other"))
    assert sorted(ours) == sorted(theirs)
    assert ours != theirs
    one, other = (report_of(run)["protocol"] for run in ("Popularity", "other"))
    assert one == other
    differs = ("age", "event")  # the other log lacks the events of unknown items
    found = [[{k: v for k, v in row.items() if k not in differs} for row in rows_of(run)] for run in
             ("Popularity", "other")]  # fmt: skip
    assert found[0] == found[1]


def digest(rows: list[list[str]], order: list[str], names: list[str] | None = None) -> str:
    sessions = make_sessions([[order.index(item) for item in row] for row in rows])
    names = [f"s{number}" for number in range(len(rows))] if names is None else names
    return Sessions(sessions.items, sessions.offsets, session_ids=pa.array(names)).digest_of_ids(order)


def test_digests_by_hand() -> None:
    rows, order = [["a", "b", "a"], ["c", "ab"]], ["a", "b", "c", "ab", "abc"]
    whole = digest(rows, order)
    for other in (order[::-1], sorted(order), [*order, "unused"]):
        assert digest(rows, other) == whole
    different = [
        digest([["a", "b", "b"], ["c", "ab"]], order),
        digest([["a", "b"], ["a", "c", "ab"]], order),
        digest([["a", "b", "a"], ["abc", "b"]], order),  # the same letters
        digest([["c", "ab"], ["a", "b", "a"]], order),
        digest(rows, order, ["s0", "s2"]),
        digest(rows, order, ["s1", "s0"]),
        digest(rows, order, ["s", "0s1"]),
        digest(rows[:1], order),
    ]
    assert len({whole, *different}) == 1 + len(different)


def test_the_digest_of_long_parts_is_taken_in_pieces_of_the_same_text() -> None:
    items = (np.arange((1 << 20) + 5) * 7 % 11).astype(np.int32)
    sessions = Sessions(items, np.array([0, len(items)]))
    order = [f"i{number}" for number in range(11)]
    changed = items.copy()
    changed[-1] = (changed[-1] + 1) % 11
    assert sessions.digest_of_ids(order) != Sessions(changed, sessions.offsets).digest_of_ids(order)
    turned = Sessions(10 - items, sessions.offsets)
    assert sessions.digest_of_ids(order) == turned.digest_of_ids(order[::-1])


# 3. Parts of a test


def test_limited_batches_give_the_positions_that_were_ranked() -> None:
    whole = rows_of("Markov")
    test_run("Markov", "--trainer.limit_test_batches", "2", "--data.eval_batch_size", "4")
    parts, rows, report = parts_of(clicks()), rows_of("Markov"), report_of("Markov")
    shortest = sorted(parts.test, key=len)[:8]
    chosen = {session[0].session for session in shortest}
    assert rows == [row for row in whole if row["session"] in chosen]
    assert report["protocol"]["positions"] == len(rows) < len(whole)
    assert report["protocol"]["sessions"] == 8
    ranks = [row["rank"] for row in rows]
    assert report["metrics"]["test/mrr@20"] == pytest.approx(naive_metric(ranks, "mrr@20"), abs=1e-12)


def test_two_processes_write_the_file_of_one() -> None:
    words = ["--list_length", "4", "--model.exclude_last", "true"]
    test_run("GRU4Rec", *words)
    file = LOGS / "GRU4Rec" / "ranks.parquet"
    table, report = pq.read_table(file), report_of("GRU4Rec")
    file.unlink()
    words = ["--config", "lightning_logs/GRU4Rec/config.yaml", "--ckpt_path", "last", *words]
    words += ["--data.eval_batch_size", "3", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    both = [start(Path.cwd(), words, be_one_of_two, rank, port, main=test.main) for rank in range(2)]
    assert [finish(process, timeout=120) for process in both] == [0, 0]
    other = pq.read_table(file)
    assert other.drop_columns("popular_odds").equals(table.drop_columns("popular_odds"))
    odds = [one["popular_odds"].to_numpy() for one in (table, other)]
    np.testing.assert_allclose(odds[0], odds[1], atol=1e-6)
    of_two = report_of("GRU4Rec")
    assert of_two["metrics"] == pytest.approx(report["metrics"], abs=1e-12)
    for name in ("protocol", "lists", "slices", "tied_positions"):
        assert of_two[name] == report[name]


def be_one_of_two(rank: int, port: int) -> None:
    """In a child: what a launcher tells each of two processes."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


# 4. Files that are no ranks files


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    file, bad = RANKS, tmp_path / "bad.parquet"
    table = pq.read_table(file)
    with pytest.raises(SessRecError, match="there is no .*bad.parquet"):
        read_ranks(bad)
    bad.write_bytes(b"")
    refused(bad, "cannot be read")
    bad.write_text("session,rank\n1,1\n")
    refused(bad, "cannot be read")
    for share in (0.2, 0.5, 0.99):
        bad.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
        refused(bad, "cannot be read")
    bad.unlink()
    bad.mkdir()
    refused(bad, "cannot be read|has no column")
    bad.rmdir()
    pq.write_table(pa.table({"a": [1]}), bad)
    refused(bad, "has no column|does not exist in schema")
    for name in set(table.column_names) - {"event", "clicks"}:
        pq.write_table(table.drop_columns(name), bad)
        refused(bad, f'has no column {name}|Field "{name}" does not exist')
    pq.write_table(table.drop_columns(["event", "clicks"]), bad)  # as earlier releases wrote it
    assert len(read_ranks(bad)) == len(table)
    assert "target's clicks" not in slice_metrics(read_ranks(bad), Slices())
    pq.write_table(table.replace_schema_metadata({}), bad)
    refused(bad, "by which rule")
    pq.write_table(table.replace_schema_metadata({"sessrec.tie_mode": "best"}), bad)
    refused(bad, "by which rule")
    as_bytes = table["session"].cast(pa.string()).cast(pa.binary())
    pq.write_table(table.set_column(table.column_names.index("session"), "session", as_bytes), bad)
    refused(bad, "column session of binary, not of texts")
    assert len(read_ranks(file)) == len(table)


def test_damaged_bytes_are_noticed() -> None:
    file, whole, good = RANKS, RANKS.read_bytes(), read_ranks(RANKS)
    unnoticed = []
    for place in range(4, len(whole) - 8, 7):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        file.write_bytes(broken)
        try:
            found = read_ranks(file)
        except SessRecError:
            continue
        if not found.table.equals(good.table) or found.tie_mode != good.tie_mode:
            unnoticed.append(place)
    assert not unnoticed


def refused(file: Path, message: str) -> None:
    with pytest.raises(SessRecError, match=message) as caught:
        read_ranks(file)
    assert "\n" not in str(caught.value)


def test_a_file_of_several_row_groups_is_read_as_one(tmp_path: Path) -> None:
    """Each group has a dictionary of its own."""
    pq.write_table(pq.read_table(RANKS), tmp_path / "pieces.parquet", row_group_size=5)
    one, other = read_ranks(RANKS), read_ranks(tmp_path / "pieces.parquet")
    assert pq.ParquetFile(tmp_path / "pieces.parquet").num_row_groups > 3
    assert one.session.tolist() == other.session.tolist()
    assert one.rank.tolist() == other.rank.tolist()


# 5. Recommended lists


def naive_lists(parts: Parts, keys: Keys, order: list[str], rule: str, k: int) -> list[list[str]]:
    """The best items at every position; equal ones in the order of the vocabulary."""
    found = []
    for session in parts.test:
        items = [click.item for click in session]
        for place in range(1, len(items)):
            gone = {"none": [], "exclude_last": items[place - 1 : place], "exclude_seen": items[:place]}[rule]
            scores = keys(items[:place])
            left = [item for item in order if item not in gone]
            found.append(sorted(left, key=lambda item: -Fraction(scores[item]))[:k])
    return found


@pytest.mark.parametrize(("k", "rule"), [(1, "none"), (3, "exclude_last"), (20, "exclude_seen")])
@pytest.mark.parametrize("name", ["Popularity", "SKNN", "GRU4Rec"])
def test_lists_are_those_of_all_scores_sorted(name: str, k: int, rule: str) -> None:
    cli = test_run(name, "--list_length", str(k), *rule_words(rule), "--data.eval_batch_size", "5")
    parts, vocabulary = parts_of(clicks()), cli.model.vocabulary
    lists = naive_lists(parts, keys_of(name), vocabulary.item_ids, rule, k)
    sessions, found = cli.datamodule.sessions["test"], {}
    for batch in EvaluationLoader(sessions, 6):
        with torch.inference_mode():
            best = iter(top_items_at_positions(cli.model, batch, k).tolist())
        for session, length in zip(batch.sessions.tolist(), batch.lengths.tolist(), strict=True):
            found[session] = [next(best) for _ in range(length - 1)]
    own = [
        [vocabulary.item_ids[item] for item in row if item >= 0] for _, rows in sorted(found.items()) for row in rows
    ]
    assert own == lists

    times = Counter(item for row in lists for item in row)
    counts = counts_of(parts.train)
    shares = [times[item] for item in counts]
    n_items, total = len(shares), sum(shares)
    apart = sum(abs(one - other) for one in shares for other in shares)
    assert report_of(name)["lists"] == {
        "length": min(k, n_items),
        "coverage": pytest.approx(sum(share > 0 for share in shares) / n_items),
        "gini": pytest.approx(apart / (2 * n_items * total)),
        "mean_popularity": pytest.approx(sum(counts[item] for row in lists for item in row) / total),
        "mean_popularity_of_catalogue": pytest.approx(sum(counts.values()) / n_items),
    }


def test_spread_by_hand() -> None:
    alike = list_statistics(np.array([2, 2, 2, 2]), np.array([1, 2, 3, 4]))
    assert alike == {"coverage": 1.0, "gini": 0.0, "mean_popularity": 2.5, "mean_popularity_of_catalogue": 2.5}
    single = list_statistics(np.array([0, 8, 0, 0]), np.array([1, 2, 3, 4]))
    assert single == {"coverage": 0.25, "gini": 0.75, "mean_popularity": 2.0, "mean_popularity_of_catalogue": 2.5}


# 6. Slices


def naive_slices(rows: list[dict[str, Any]], slices: dict[str, list[float]]) -> dict[str, dict[str, list[Any]]]:
    """Ranks by kind of slice and slice, told apart by comparing with one bound after the other."""
    found: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        labels = {
            "session length": whole_label(row["length"], slices["lengths"], 2),
            "position": whole_label(row["position"], slices["positions"], 1),
            "target's popularity": popularity_label(row["popularity"], *slices["popularity"]),
            "target's clicks": clicks_label(row["clicks"], slices["clicks"]),
            "target in the session": "repeat" if row["repeat"] else "new",
            "target's age in days": age_label(row["age"] / DAY, slices["ages"]),
        }
        for kind, label in labels.items():
            found.setdefault(kind, {}).setdefault(label, []).append(row["rank"])
    return found


def whole_label(value: int, bounds: list[float], low: int) -> str:
    for bound in bounds:
        if value <= bound:
            return str(low) if low == bound else f"{low}-{bound}"
        low = int(bound) + 1
    return f"{low}+"


def clicks_label(clicks: int, bounds: list[float]) -> str:
    return "0" if clicks == 0 else whole_label(clicks, bounds, 1)


def popularity_label(share: float, middle: float, tail: float) -> str:
    if share < middle:
        return "head"
    return "middle" if share < tail else "tail"


def age_label(days: float, bounds: list[float]) -> str:
    if days <= bounds[0]:
        return f"up to {bounds[0]:g}"
    for low, high in zip(bounds, bounds[1:], strict=False):
        if days <= high:
            return f"{low:g} to {high:g}"
    return f"over {bounds[-1]:g}"


USUAL = {"lengths": [4, 8, 15], "positions": [1, 2, 4, 8], "popularity": [1 / 3, 2 / 3], "ages": [1.0, 7.0, 30.0]}
USUAL |= {"clicks": [5, 20]}
OTHERS = {"lengths": [2, 3, 10], "positions": [3], "popularity": [0.1, 0.85], "ages": [0.5, 20.0], "clicks": [7]}


@pytest.mark.parametrize("bounds", [USUAL, OTHERS], ids=["usual", "others"])
@pytest.mark.parametrize("name", ["Markov", "SKNN"])
def test_slices_are_those_of_plain_python(name: str, bounds: dict[str, list[float]]) -> None:
    words = (
        [] if bounds is USUAL else [word for key, value in bounds.items() for word in (f"--slices.{key}", f"{value}")]
    )
    test_run(name, "--model.exclude_last", "true", *words)
    wanted = naive_slices(rows_of(name), bounds)
    found = report_of(name)["slices"]
    assert {kind: set(parts) for kind, parts in found.items()} == {kind: set(parts) for kind, parts in wanted.items()}
    for kind, parts in wanted.items():
        for label, ranks in parts.items():
            metrics = {metric: pytest.approx(naive_metric(ranks, metric)) for metric in ("recall@20", "mrr@20")}
            assert found[kind][label] == {"positions": len(ranks), **metrics}
        assert sum(part["positions"] for part in found[kind].values()) == len(rows_of(name))


def test_slices_come_in_the_order_of_their_bounds() -> None:
    ranks = read_ranks(RANKS)
    names = {slicing.name: slicing.labels for slicing in Slices().of(ranks)}
    assert names == {
        "session length": ["2-4", "5-8", "9-15", "16+"],
        "position": ["1", "2", "3-4", "5-8", "9+"],
        "target's popularity": ["head", "middle", "tail"],
        "target's clicks": ["0", "1-5", "6-20", "21+"],
        "target in the session": ["new", "repeat"],
        "target's age in days": ["up to 1", "1 to 7", "7 to 30", "over 30"],
    }
    assert {kind: list(parts) for kind, parts in slice_metrics(ranks, Slices()).items()}["position"] == names[
        "position"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--slices.lengths", "[8,4]"], "--slices.lengths [8, 4] must ascend from above 0"),
        (["--slices.lengths", "[4,4]"], "must ascend"),
        (["--slices.positions", "[0,1]"], "--slices.positions [0, 1] must ascend from above 0"),
        (["--slices.popularity", "[0.5]"], "two shares below 1"),
        (["--slices.popularity", "[0.5,1.0]"], "two shares below 1"),
        (["--slices.popularity", "[0.5,0.2]"], "must ascend"),
        (["--slices.ages", "[-1,3]"], "must ascend"),
        (["--slices.ages", "[]"], "--slices.ages [] must ascend"),
        (["--slices.lengths", "[]"], "--slices.lengths [] must ascend"),
        (["--slices.ages", "[week]"], "slices.ages"),
        (["--list_length", "-1"], "--list_length must be at least 0, got -1"),
    ],
)
def test_words_that_cannot_be_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--config", "lightning_logs/Markov/config.yaml", "--ckpt_path", "last", *words]
    RANKS.unlink()
    assert message in one_error(capsys, test.main, args)
    assert not RANKS.exists()
