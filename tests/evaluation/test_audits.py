"""Audits of tested runs: each does what it says, against plain Python, and leaves the runs as they are."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import re
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from helpers import make_sessions, one_error, paint_blanks, random_rows
from tested import LOGS, MARKS, METRICS, change_ranks, fit_and_test, fit_run, rows_of, run_of, test_run, write_rows

from sessrec import models
from sessrec.click_log.events import Events, events_from_frame
from sessrec.data.synthetic import SyntheticProcess
from sessrec.errors import SessRecError
from sessrec.evaluation.audits import Audit, chance_audit, changed_data_audit, sampled_audit, sampled_rank, ties_audit
from sessrec.evaluation.bootstrap import Interval
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.tested_runs import Run, read_run
from sessrec.experiments.audit_runs import (
    fit_leaking,
    fit_other_model,
    randomize_split,
    rank_shuffled,
    shuffle_sessions,
)
from sessrec.figures.audits import audit_figure

pytestmark = MARKS
MODELS = ["Popularity", "Markov", "SKNN", "GRU4Rec"]
RUNS = [str(LOGS / name) for name in MODELS]
N_ITEMS = 25


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = random_rows(100, N_ITEMS)
    return fit_and_test(tmp_path_factory.mktemp("fits"), rows, {name: [name] for name in MODELS})


@pytest.fixture
def audit() -> ModuleType:
    return importlib.import_module("sessrec.audit")


def new_test_of(name: str, *words: str) -> Run:
    test_run(name, *words)
    return run_of(name)


def files_of(folder: Path) -> dict[str, str]:
    """Hashes of a run's own files."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "audits" not in file.relative_to(folder).parts:
            found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def sessions_of_test_part() -> dict[str, list[str]]:
    """Items of every session of the test part: the last fifth of the log, without items unknown before it."""
    sessions = {name: [row[1] for row in rows] for name, rows in itertools.groupby(random_rows(100, N_ITEMS), key_of)}
    names = list(sessions)
    known = {item for name in names[:80] for item in sessions[name]}
    found = {name: [item for item in sessions[name] if item in known] for name in names[80:]}
    return {name: items for name, items in found.items() if len(items) > 1}


def key_of(row: tuple) -> str:
    return row[0]


def scores_after(model: Any, items: list[str]) -> dict[str, float]:
    ids = model.vocabulary.item_ids
    with torch.inference_mode():
        queries = model.encode(torch.tensor([[ids.index(item) for item in items]]))
        return dict(zip(ids, model.score(queries[0, -1:], slice(0, len(ids)))[0].tolist(), strict=True))


def load(name: str) -> Any:
    return getattr(models, name).load_from_checkpoint(LOGS / name / "checkpoints" / "last.ckpt").eval()


# 1. Sampled negatives


def candidates_of(run: Run, rule: str) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """For every position: whether each other candidate is at or above the target, and its training events.

    None where the target is no candidate.
    """
    model = load(run.folder.name)
    counts = dict(zip(model.vocabulary.item_ids, model.vocabulary.counts.tolist(), strict=True))
    found: list[tuple[np.ndarray, np.ndarray] | None] = []
    for items in sessions_of_test_part().values():
        for place in range(1, len(items)):
            target = items[place]
            gone = {"none": [], "exclude_last": items[place - 1 : place], "exclude_seen": items[:place]}[rule]
            scores = scores_after(model, items[:place])
            others = [item for item in counts if item != target and item not in gone]
            at_least = np.array([scores[item] >= scores[target] for item in others])
            weights = np.array([counts[item] for item in others])
            found.append(None if target in gone else (at_least, weights))
    return found


N_DRAWS = 1500


def drawn_ranks(at_least: np.ndarray, weights: np.ndarray, n_negatives: int, by_popularity: bool) -> np.ndarray:
    """Ranks among negatives that are really drawn, shape (N_DRAWS,)."""
    generator = np.random.default_rng(len(at_least) * 1000 + int(at_least.sum()))
    if by_popularity:
        drawn = generator.choice(len(weights), size=(N_DRAWS, n_negatives), p=weights / weights.sum())
    else:
        drawn = generator.random((N_DRAWS, len(weights))).argsort(axis=1)[:, :n_negatives]  # no item twice
    return 1 + at_least[drawn].sum(axis=1)


@pytest.mark.parametrize("by_popularity", [False, True], ids=["uniform", "popular"])
@pytest.mark.parametrize(
    ("name", "rule"), [("SKNN", "none"), ("Popularity", "exclude_last"), ("Markov", "exclude_seen")]
)
def test_sampled_ranks_are_distributed_as_drawn_ones(name: str, rule: str, by_popularity: bool) -> None:
    run = new_test_of(name, *([] if rule == "none" else [f"--model.{rule}", "true"]))
    positions = candidates_of(run, rule)
    assert len(positions) == len(run.ranks) > 40
    n_negatives = 6
    found = np.stack([sampled_rank(run.ranks, n_negatives, by_popularity, seed) for seed in range(N_DRAWS)])
    histograms = np.zeros((2, n_negatives + 2))
    for place, position in enumerate(positions):
        if position is None:
            assert np.isinf(found[:, place]).all()
            continue
        drawn = drawn_ranks(*position, n_negatives, by_popularity)
        error = np.sqrt((drawn.var() + found[:, place].var()) / N_DRAWS)
        assert abs(drawn.mean() - found[:, place].mean()) <= 4.5 * error + 1e-12
        for histogram, ranks in zip(histograms, (drawn, found[:, place]), strict=True):
            histogram += np.bincount(ranks.astype(np.int64), minlength=n_negatives + 2)
    assert np.count_nonzero(histograms[0]) > 4
    errors = 4.5 * np.sqrt(histograms.sum(axis=0)) + 3
    assert (np.abs(histograms[0] - histograms[1]) <= errors).all()
    assert any(position is None for position in positions) == (rule == "exclude_seen")


def test_ties_are_against_the_model() -> None:
    """Whatever rule the test took, a sampled item that ties is above the target."""
    ranks = {mode: new_test_of("Popularity", "--model.tie_mode", mode).ranks for mode in ("standard", "conservative")}
    sampled = [sampled_rank(one, 10, False, 3).tolist() for one in ranks.values()]
    assert sampled[0] == sampled[1]
    assert (ranks["standard"].rank != ranks["conservative"].rank).any()


@pytest.mark.parametrize("name", ["SKNN", "GRU4Rec"])
def test_more_negatives_than_candidates_are_all_of_them(name: str) -> None:
    ranks = new_test_of(name, "--model.exclude_seen", "true").ranks
    assert sampled_rank(ranks, 10_000, by_popularity=False).tolist() == ranks.rank_by("conservative").tolist()
    assert np.isinf(ranks.rank).any()


def test_sampled_ranks_follow_from_the_seed_and_are_below_full_ones() -> None:
    ranks = run_of("SKNN").ranks
    for by_popularity in (False, True):
        one, again, other = (sampled_rank(ranks, 5, by_popularity, seed).tolist() for seed in (1, 1, 2))
        assert one == again
        assert one != other
        assert 1 <= min(one) <= max(one) <= 6
    uniform = sampled_rank(ranks, 5, by_popularity=False)
    assert (uniform <= ranks.rank_by("conservative")).all()


def test_the_audit_of_sampled_ranks() -> None:
    runs = {name: [run_of(name)] for name in MODELS}
    found = sampled_audit(runs, METRICS, n_negatives=5, seed=2)
    assert found.conditions == ["all items", "5 uniform", "5 by popularity"]
    for (name, (run,)), metric in itertools.product(runs.items(), METRICS):
        intervals = found.values[metric][name]
        own = run.report["metrics"][f"test/{metric}"]
        assert intervals[0].value == pytest.approx(own, abs=1e-9)
        assert intervals[1].value > own  # fewer rivals
        assert all(one.low <= one.value <= one.high for one in intervals)
        seed = int(run.report["protocol"]["data_digest"][:8], 16) + 2
        for one, by_popularity in zip(intervals[1:], (False, True), strict=True):
            rank = sampled_rank(run.ranks, 5, by_popularity, seed)
            assert one.value == pytest.approx(gains(rank, metric).mean(), abs=1e-12)
    assert sampled_audit(runs, METRICS, n_negatives=5, seed=2) == found
    assert sampled_audit(runs, METRICS, n_negatives=5, seed=3) != found
    assert len(found.remarks) == 4
    values = found.values["mrr@20"]
    ratios = [one[1].value / one[0].value for one in values.values()]
    assert f"MRR@20 among 5 uniform: {min(ratios):.1f} to {max(ratios):.1f} times" in "".join(found.remarks)


def test_a_metric_that_is_zero_among_all_items(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    change_ranks("Markov", 9)
    audit.main(["sampled", RUNS[1], "--metrics", "recall@1", "--output", "out"])
    assert "Recall@1 among" not in capsys.readouterr().out  # there is nothing to hold the others against


# 2. Ties


def test_the_audit_of_ties_gives_what_three_tests_give() -> None:
    found = ties_audit({name: [run_of(name)] for name in MODELS}, METRICS)
    for place, mode in enumerate(found.conditions):
        for name in ("Popularity", "SKNN"):  # which have many ties
            report = new_test_of(name, "--model.tie_mode", mode).report
            for metric in METRICS:
                assert found.values[metric][name][place].value == pytest.approx(
                    report["metrics"][f"test/{metric}"], abs=1e-9
                )
    assert set(found.conditions) == {"conservative", "median", "standard"}
    for remark, name in zip(found.remarks, MODELS, strict=True):
        share = sum(row["ties"] > 0 for row in rows_of(name)) / len(rows_of(name))
        assert remark == f"{name}: other items tie with the target at {share:.2%} of the positions."


def test_figures_of_values_without_spread() -> None:
    """The mean of equal gains and its resamples may differ in the last bit."""
    for rank in (3, 7, 11, 19):
        audit_figure(ties_audit({"m": [change_ranks("Markov", rank)]}, ["mrr@20", "ndcg@20"]))


# 3. What is told of models that change places


def by_model(**values: list[float]) -> dict[str, list[Interval]]:
    return {name: [Interval(value, value, value) for value in row] for name, row in values.items()}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"a": [0.5, 0.3], "b": [0.4, 0.2], "c": [0.1, 0.1]}, "0 of 3 pairs change places"),
        ({"a": [0.5, 0.2], "b": [0.4, 0.3], "c": [0.1, 0.1]}, "1 of 3 pairs change places: b above a"),
        ({"c": [0.1, 0.9], "a": [0.5, 0.2], "b": [0.4, 0.3]}, "3 of 3 pairs change places: b above a, c above a, "),
        ({"a": [0.5, 0.2], "b": [0.4, 0.2]}, "0 of 1 pairs"),  # equal is not above
        ({"a": [0.5, 0.2], "b": [0.5, 0.3]}, "0 of 1 pairs"),
        ({"a": [0.5, 0.2]}, "0 of 0 pairs"),
    ],
)
def test_pairs_that_change_places(
    audit: ModuleType, values: dict[str, list[float]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([by_model(**{name: row[:1] for name, row in values.items()}),
                  by_model(**{name: row[1:] for name, row in values.items()})])  # fmt: skip
    monkeypatch.setattr("sessrec.evaluation.audits._intervals", lambda *_: {"mrr@20": next(found)})
    made = changed_data_audit("x", "X", ["before", "after"], [values, values], ["mrr@20"])  # type: ignore[list-item]
    assert made.values == {"mrr@20": by_model(**values)}
    assert told in made.remarks[0]
    assert made.remarks[0].startswith("MRR@20, after over before: ")
    for name, (before, after) in values.items():
        assert f"{name} {after / before:.2f}" in made.remarks[0]


def test_tables_have_the_best_by_the_first_condition_on_top() -> None:
    made = Audit("x", "X", ["before", "after"], {"mrr@20": by_model(low=[0.1, 0.9], high=[0.3, 0.2])}, [])
    (table,) = made.tables()
    assert table.head == ["MRR@20", "before", "after"]
    assert [row[0] for row in table.rows] == ["high", "low"]
    assert table.rows[1][2] == "0.9000 [0.9000, 0.9000]"


# 4. Order


def test_shuffled_sessions_keep_their_items() -> None:
    sequences = [[int(item) for item in np.random.default_rng(n).integers(0, 9, 2 + n % 7)] for n in range(60)]
    sessions = make_sessions(sequences)
    before = sessions.items.copy()
    one, again, other = (shuffle_sessions(sessions, seed) for seed in (1, 1, 2))
    assert sessions.items.tolist() == before.tolist()
    assert one.items.tolist() == again.items.tolist() != other.items.tolist()
    assert one.items.tolist() != before.tolist()
    assert one.items.dtype == sessions.items.dtype
    for number, sequence in enumerate(sequences):
        assert Counter(one[number].tolist()) == Counter(sequence)
    assert one.offsets.tolist() == sessions.offsets.tolist()
    assert one.session_ids.equals(sessions.session_ids)  # type: ignore[union-attr]


def test_every_order_is_as_likely() -> None:
    orders = Counter(tuple(shuffle_sessions(make_sessions([[0, 1, 2]]), seed).items.tolist()) for seed in range(1200))
    assert len(orders) == 6
    assert all(140 < count < 260 for count in orders.values())


@pytest.mark.parametrize("name", MODELS)
def test_shuffled_sessions_are_ranked_as_any_others(name: str) -> None:
    before = files_of(LOGS / name)
    run = rank_shuffled(run_of(name), seed=4)
    assert files_of(LOGS / name) == before
    assert run.folder == LOGS / name / "audits" / "order"
    assert run.report["protocol"].pop("data_digest") != run_of(name).report["protocol"]["data_digest"]
    model, n_moved = load(name), 0
    for session, rows in itertools.groupby(rows_of(run.folder.relative_to(LOGS)), lambda row: row["session"]):
        rows_of_session, items = list(rows), sessions_of_test_part()[session]
        targets = [row["item"] for row in rows_of_session]
        (first,) = (Counter(items) - Counter(targets)).elements()  # what the file does not show
        n_moved += [first, *targets] != items
        for row in rows_of_session:
            scores = scores_after(model, [first, *targets][: row["position"]])
            own = scores.pop(row["item"])
            assert row["rank"] == 1 + sum(score >= own for score in scores.values())
    assert n_moved > 8
    assert rank_shuffled(run_of(name), seed=4).ranks.table.equals(run.ranks.table)


def test_popularity_gives_an_item_the_same_rank_wherever_it_stands() -> None:
    rank_of = {row["item"]: row["rank"] for row in rows_of("Popularity")}
    shuffled = rows_of(rank_shuffled(run_of("Popularity"), 1).folder.relative_to(LOGS))
    assert all(row["rank"] == rank_of.get(row["item"], row["rank"]) for row in shuffled)
    own, other = run_of("Markov").report["metrics"], rank_shuffled(run_of("Markov"), 1).report["metrics"]
    assert other["test/mrr@20"] < 0.8 * own["test/mrr@20"]  # the log is a walk from item to item


def test_order_of_a_run_that_was_tested_on_another_log(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(random_rows(90, N_ITEMS, seed=9), "other.tsv")
    new_test_of("Markov", "--data.path", "other.tsv")
    message = one_error(capsys, audit.main, ["order", RUNS[1], "--output", "out"])
    assert "was tested on another log than the one in its config.yaml" in message


# 5. Leakage


def some_events() -> Events:
    frame = SyntheticProcess(n_items=20, seed=1).sample(200, seed=5)
    return events_from_frame(frame)


def sequences_of(session: list, item: list, time: list) -> dict[str, list[tuple[str, float]]]:
    """Items of every session with the seconds since its start."""
    found: dict[str, list[tuple[float, str]]] = {}
    for name, one, t in zip(session, item, time, strict=True):
        found.setdefault(str(name), []).append((t, one))
    return {name: [(one, t - rows[0][0]) for t, one in rows] for name, rows in found.items()}


Columns = tuple[list[str], list[str], list[float]]


def columns_of(events: Events) -> Columns:
    """Session id, item id and time of every event."""
    names, items = events.session_ids.to_pylist(), events.item_ids.to_pylist()
    session = [str(names[events.numbers[number]]) for number in events.session]
    return session, [items[code] for code in events.item], events.time.tolist()


def starts_of(columns: Columns) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, _, t in zip(*columns, strict=True):
        found[name] = min(t, found.get(name, t))
    return found


def test_a_dealt_log_has_the_same_sessions_at_other_times() -> None:
    events = some_events()
    own = columns_of(events)
    dealt: Any = tuple(column.to_pylist() for column in randomize_split(events, 3).columns)
    assert sequences_of(*dealt) == sequences_of(*own)
    before, after = starts_of(own), starts_of(dealt)
    assert sorted(after.values()) == sorted(before.values())
    assert sum(after[name] != before[name] for name in before) > 0.9 * len(before)
    places = [np.argsort(np.argsort([starts[name] for name in before])) for starts in (before, after)]
    assert abs(np.corrcoef(*places)[0, 1]) < 0.25  # at random
    assert randomize_split(events, 3).equals(randomize_split(events, 3))
    assert not randomize_split(events, 3).equals(randomize_split(events, 4))


def test_the_audit_of_leakage(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_blanks(monkeypatch)
    before = {run: files_of(Path(run)) for run in RUNS}
    audit.main(["leakage", RUNS[1], RUNS[3], "--metrics", *METRICS, "--seed", "6", "--output", "out"])
    assert {run: files_of(Path(run)) for run in RUNS} == before
    assert_written("leakage", capsys)
    dealt = pq.read_table(LOGS / "Markov" / "audits" / "leakage" / "dealt-6.parquet")
    starts = starts_of(tuple(column.to_pylist() for column in dealt.columns))  # type: ignore[arg-type]
    later = set(sorted(starts, key=lambda name: starts[name])[80:])
    leaking = read_run(LOGS / "Markov-leaking-6")
    tested = {row["session"] for row in rows_of(leaking.folder.name)}
    assert len(later) == 20
    assert tested <= later
    assert len(tested & set(sessions_of_test_part())) < len(tested) / 2  # most of them are of before the split
    config = yaml.safe_load((leaking.folder / "config.yaml").read_text())
    own = yaml.safe_load((LOGS / "Markov" / "config.yaml").read_text())
    assert config["model"] == own["model"]
    assert config["seed_everything"] == own["seed_everything"]
    text = Path("out/leakage.md").read_text()
    for metric in METRICS:
        assert f"{leaking.report['metrics'][f'test/{metric}']:.4f}" in text


def test_the_rules_of_the_test_are_those_of_what_is_done_again() -> None:
    run = new_test_of("Markov", "--model.tie_mode", "median", "--model.exclude_last", "true")
    own, shuffled = run.report["protocol"], rank_shuffled(run, 1).report["protocol"]
    assert own["tie_mode"] == "median"
    assert own | {"data_digest": ""} == shuffled | {"data_digest": ""}
    leaking = fit_leaking(run, 0)
    assert leaking.folder == LOGS / "Markov-leaking-0"
    names = ("tie_mode", "exclude_last", "exclude_seen")
    assert [leaking.report["protocol"][name] for name in names] == [own[name] for name in names]


# 6. Chance


def test_the_audit_of_chance(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_blanks(monkeypatch)
    SyntheticProcess(n_items=30, seed=3).sample(400, seed=9).to_csv("generated.tsv", sep="\t", index=False)
    for name in ("Markov", "Popularity"):
        fit_run(name, "--data.path", "generated.tsv", name=f"{name}-made")
        new_test_of(f"{name}-made", "--model.exclude_last", "true")  # rules of the test alone
    runs = [str(LOGS / f"{name}-made") for name in ("Markov", "Popularity")]
    before = {run: files_of(Path(run)) for run in runs}
    words = ["--metrics", *METRICS, "--output", "out"]
    audit.main(["chance", *runs, *words, "--process_items", "30", "--process_seed", "3"])
    assert {run: files_of(Path(run)) for run in runs} == before
    assert_written("chance", capsys)
    chance, ceiling = (read_run(LOGS / f"Markov-made-{name}").report for name in ("random", "oracle"))
    text = Path("out/chance.md").read_text()
    for metric, title in zip(METRICS, ("Recall@5", "MRR@20"), strict=True):
        low, high = (report["metrics"][f"test/{metric}"] for report in (chance, ceiling))
        own = {name: read_run(LOGS / f"{name}-made").report["metrics"][f"test/{metric}"]
               for name in ("Markov", "Popularity")}  # fmt: skip
        assert low < own["Popularity"] < own["Markov"] < high
        shares = {name: (value - low) / (high - low) for name, value in own.items()}
        told = ", ".join(f"{name}-made {share:.0%}" for name, share in shares.items())
        assert f"{title}, share of the way from chance to the ceiling: {told}." in text
    assert chance["protocol"] == ceiling["protocol"]
    assert chance["protocol"]["exclude_last"]
    expected = np.mean([1 / row["candidates"] for row in rows_of("Markov-made")])
    assert chance["metrics"]["test/recall@5"] == pytest.approx(5 * expected, abs=0.05)
    audit.main(["chance", *runs, *words])  # without a ceiling
    text = capsys.readouterr().out
    low, own = (report["metrics"]["test/mrr@20"] for report in (chance, read_run(Path(runs[0])).report))
    assert re.search(rf"MRR@20 over that of chance \({low:.4f}\): Markov-made {own / low:.0f}, ", text)


def test_chance_needs_its_models() -> None:
    runs = {"markov": [run_of("Markov")], "chance": [run_of("Popularity")]}
    with pytest.raises(SessRecError, match="there is no model guess among markov, chance"):
        chance_audit(runs, METRICS, "guess", None)
    with pytest.raises(SessRecError, match="there is no model ceiling"):
        chance_audit(runs, METRICS, "chance", "ceiling")


def test_chance_and_ceiling_may_be_equal() -> None:
    run = [run_of("Markov")]
    found = chance_audit({"a": run, "chance": run, "ceiling": run}, ["recall@5"], "chance", "ceiling")
    assert found.remarks == ["Recall@5, share of the way from chance to the ceiling: a -."]


def test_chance_beside_a_run_of_two_processes() -> None:
    """A model that is fitted in one process only is, whatever the run was."""
    file = LOGS / "GRU4Rec" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["trainer"].update(devices=2, strategy="ddp")
    file.write_text(yaml.safe_dump(config))
    assert fit_other_model(run_of("GRU4Rec"), "Random").report["protocol"] == run_of("GRU4Rec").report["protocol"]


def test_a_log_that_was_not_generated_has_no_ceiling(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle refuses its items."""
    with pytest.raises(SystemExit):
        audit.main(["chance", RUNS[1], "--process_items", "30", "--output", "out"])
    assert "is none of the synthetic process's 30 items" in capsys.readouterr().err.splitlines()[-1]


# 7. The command


def assert_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(f"out/{name}.md").read_text()
    out = capsys.readouterr().out
    assert text.removeprefix("# ").strip() in out
    assert out.rstrip().endswith("table and picture in out")
    assert {file.name for file in Path("out").iterdir()} >= {f"{name}.{kind}" for kind in ("md", "png", "svg")}
    assert Path(f"out/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path(f"out/{name}.svg").read_text(encoding="utf-8")
    assert text.count("| Recall@5") == text.count("| MRR@20") == 1


@pytest.mark.parametrize("name", ["sampled", "ties", "order"])
def test_audits_write_their_tables_and_leave_the_runs(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name != "ties":  # one picture is painted
        paint_blanks(monkeypatch)
    before = {run: files_of(Path(run)) for run in RUNS}
    audit.main([name, *RUNS, "--metrics", *METRICS, "--negatives", "5", "--output", "out"])
    assert {run: files_of(Path(run)) for run in RUNS} == before
    assert_written(name, capsys)
    text = Path(f"out/{name}.md").read_text()
    for run in RUNS:
        assert f"\n| {Path(run).name} " in text
        for metric in METRICS:
            assert f" {run_of(Path(run).name).report['metrics'][f'test/{metric}']:.4f} [" in text


def test_fits_of_one_model_are_pooled(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, rank in ((1, 3), (2, 9)):
        shutil.copytree(LOGS / "GRU4Rec", LOGS / f"net-{seed}")
        change_ranks(f"net-{seed}", rank, seed)
    audit.main(["ties", RUNS[1], str(LOGS / "net-1"), str(LOGS / "net-2"), "--metrics", *METRICS, "--output", "out"])
    assert f"| net    | {(1 / 3 + 1 / 9) / 2:.4f} [" in capsys.readouterr().out


def test_usual_place(audit: ModuleType) -> None:
    audit.main(["ties", RUNS[1]])
    assert (LOGS / "audit-ties" / "ties.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampled", RUNS[0], "--negatives", "0"], "--negatives must be at least 1, got 0"),
        (["sampled", RUNS[0], "--output", "log.tsv"], "--output log.tsv cannot be written to: log.tsv is a file"),
        (["sampled", "nowhere"], "nowhere is no tested run"),
        (["sampled", RUNS[0], "--metrics", "hit@1"], "hit@1 is no metric"),
        (["sampled", RUNS[0], RUNS[0]], "is given twice"),
        (["everything", RUNS[0]], "audit must be sampled, ties, order, leakage, chance or tuning, got 'everything'"),
        (["ties"], "the following arguments are required: runs"),
        (["sampled", RUNS[0], "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["leakage", RUNS[0], "--metrics", "recall@²"], "recall@² is no metric"),
    ],
)
def test_words_that_cannot_be_are_one_line(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in one_error(capsys, audit.main, words)


def test_runs_under_other_rules_are_refused(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    new_test_of("Markov", "--model.exclude_last", "true")
    for name in ("sampled", "ties", "order", "leakage", "chance"):
        assert "exclude last False against True" in one_error(capsys, audit.main, [name, *RUNS])
    assert not list(LOGS.glob("*/audits"))


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("order", "config.yaml", "has no config.yaml"),
        ("leakage", "config.yaml", "has no config.yaml"),
        ("chance", "config.yaml", "has no config.yaml"),
        ("order", "checkpoints/last.ckpt", "that was tested is gone"),
    ],
)
def test_what_is_done_again_needs_its_files(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], name: str, file: str, message: str
) -> None:
    (LOGS / "Markov" / file).unlink()
    assert message in one_error(capsys, audit.main, [name, RUNS[1]])
    audit.main(["ties", RUNS[1], "--output", "out"])  # which reads the ranks only


def test_a_run_that_was_moved_is_audited_where_it_lies(audit: ModuleType) -> None:
    (LOGS / "Markov").rename(LOGS / "elsewhere")
    audit.main(["order", str(LOGS / "elsewhere"), "--output", "out"])
    assert not (LOGS / "Markov").exists()
    assert (LOGS / "elsewhere" / "audits" / "order" / "ranks.parquet").exists()
