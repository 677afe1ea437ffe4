"""Whether a new run may replace an old one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import one_error, random_rows
from tested import LOGS, MARKS, fit_and_test, report_of, run_of, test_run, write_rows

from sessrec import compare
from sessrec.errors import SessRecError
from sessrec.evaluation.gate import GateRule, decide, read_rule
from sessrec.evaluation.tested_runs import Run

pytestmark = MARKS
DAY = 86_400
START = 1_600_000_000
ROWS = random_rows(120, 30) + [
    ("late", "x99", START + 99_500),
    ("late", "x1", START + 99_510),
]  # only late ones know x99
TEST = [
    ("v1", "x99"),
    ("v1", "x1"),
    ("v1", "x99"),
    ("v2", "x3"),
    ("v2", "x99"),
    ("v2", "x4"),
    ("v3", "x99"),
    ("v3", "x5"),
]
ROWS += [(session, item, START + 200_000 + 10 * place) for place, (session, item) in enumerate(TEST)]
SPLIT = ["--data.test_start", str(START + 150_000)]


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    early = ["--data.path", "early.tsv"]
    folder = tmp_path_factory.mktemp("fits")
    rows = [row for row in ROWS if row[0] != "late"]
    write_rows(rows, str(folder / "early.tsv"))
    runs = {"new": ["Popularity", *SPLIT], "old": ["Popularity", *SPLIT, *early], "markov": ["Markov", *SPLIT]}
    return fit_and_test(folder, ROWS, runs)


def gains_by_hand(is_new: bool) -> dict[str, list[float]]:
    """MRR@40 of popularity at every position of each test session whose target the new run knows."""
    train = [row for row in ROWS if row[2] < START + 150_000 and (is_new or row[0] != "late")]
    counts = Counter(item for _, item, _ in train)
    found: dict[str, list[float]] = {}
    for session in ("v1", "v2", "v3"):
        items = [item for own, item in TEST if own == session]
        for place, target in enumerate(items[1:], 1):
            rank = sum(count >= counts[target] for count in counts.values())  # ties against us
            is_hit = target in counts and any(item in counts for item in items[:place]) and rank <= 40
            found.setdefault(session, []).append(1 / rank if is_hit else 0.0)
    return found


def test_a_target_that_a_model_does_not_know_is_a_miss() -> None:
    new, old = gains_by_hand(True), gains_by_hand(False)
    assert old["v1"] == [0.0, 0.0]  # nothing that it knows comes before, or is next
    verdict = decide(run_of("new"), run_of("old"), read_rule("mrr@40 >= -1%"), 200)
    n_positions = sum(map(len, new.values()))
    assert (verdict.positions, verdict.sessions) == (n_positions, 3)
    assert verdict.new == pytest.approx(sum(map(sum, new.values())) / n_positions)
    assert verdict.old == pytest.approx(sum(map(sum, old.values())) / n_positions)
    assert verdict.change == pytest.approx(verdict.new / verdict.old - 1)
    with pytest.raises(SessRecError, match="cannot be compared: items ranked"):
        compare.compare_runs([run_of("new"), run_of("old")])


@pytest.fixture
def by_hand() -> tuple[Run, Run]:
    """Two runs of 200 sessions of one position: the new one is right at half of them, the old one at others."""
    new, ranks = run_of("new"), []
    names = pa.array([f"s{number:03d}" for number in range(200)]).dictionary_encode()
    items = pa.array(["x"] * 200).dictionary_encode()
    for hits in (range(100), range(40, 150)):
        column = pa.array([1 if number in hits else 50 for number in range(200)])
        table = pa.table({"session": names, "position": pa.array([1] * 200), "item": items, "rank": column})
        ranks.append(replace(new.ranks, table=table))
    return replace(new, ranks=ranks[0]), replace(new, ranks=ranks[1])


@pytest.mark.parametrize(
    ("rule", "decision"),
    [
        ("recall@20 >= -30%", "pass"),
        ("recall@20 >= -9%", "unclear"),
        ("recall@20 >= +15%", "fail"),
        ("recall@20 >= -0.2", "pass"),
        ("recall@20 >= -0.05", "unclear"),
        ("recall@20 >= 0.1", "fail"),
    ],
)
def test_decisions(by_hand: tuple[Run, Run], rule: str, decision: str) -> None:
    """The difference is -0.05; 90 sessions differ, so that its standard error is 0.0473, and 9 % of the old metric."""
    verdict = decide(*by_hand, read_rule(rule), 2000)
    assert verdict.decision == decision
    assert (verdict.new, verdict.old) == (0.5, 0.55)
    error = 0.0473 / (0.55 if "%" in rule else 1)
    assert verdict.high - verdict.low == pytest.approx(2 * 1.97 * error, rel=0.1)
    assert verdict.change == pytest.approx(-0.05 / (0.55 if "%" in rule else 1))
    assert verdict.reason.startswith(f"{decision}: Recall@20 0.5000 against 0.5500")


def test_a_model_at_the_margin_is_seldom_called_good_or_bad(by_hand: tuple[Run, Run]) -> None:
    """Each with 95 % confidence: of 400 tests at the margin, about 10 pass and 10 fail."""
    generator, found = np.random.default_rng(5), Counter()
    new, old = by_hand
    for number in range(400):
        runs = []
        for run, chance in ((new, 0.45), (old, 0.5)):
            rank = pa.array(np.where(generator.random(200) < chance, 1, 50))
            table = run.ranks.table.set_column(3, "rank", rank)
            runs.append(replace(run, ranks=replace(run.ranks, table=table)))
        found[decide(*runs, GateRule("recall@20", -0.05, False), 200, number).decision] += 1
    assert 3 <= found["pass"] <= 20
    assert 3 <= found["fail"] <= 20


def test_an_old_run_that_is_hardly_ever_right_tells_nothing_but_that(by_hand: tuple[Run, Run]) -> None:
    """Right in one session of 200, or in none: a share of it has no interval, and no decision hangs on that."""
    new, old = by_hand
    for hits, decision in (([0], "unclear"), ([], "pass")):
        rank = pa.array([1 if number in hits else 50 for number in range(200)])
        rare = replace(old, ranks=replace(old.ranks, table=old.ranks.table.set_column(3, "rank", rank)))
        none = replace(new, ranks=replace(new.ranks, table=old.ranks.table.set_column(3, "rank", pa.array([50] * 200))))
        verdict = decide(none, rare, read_rule("recall@20 >= -1%"))
        assert (verdict.decision, verdict.as_dict()["low"]) == (decision, None)
        assert decide(new, rare, read_rule("recall@20 >= -1%")).decision == "pass"


def exit_code(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        compare.main([*words])
    return caught.value.code  # type: ignore[return-value]


def test_the_command_prints_one_line_and_leaves_with_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    new, old, markov = (str(LOGS / name) for name in ("new", "old", "markov"))
    assert exit_code(new, new, "--gate", "mrr@40>=0%") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert exit_code(new, markov, "--gate", "mrr@20 >= -1%") in (3, 4)
    assert capsys.readouterr().out.startswith(("fail: MRR@20", "unclear: MRR@20"))
    assert exit_code(new, markov, "--gate", "recall@20 >= +99") == 3
    capsys.readouterr()
    assert exit_code(new, old, "--gate", "mrr@40 >= -99", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["decision"], found["exit_code"], found["sessions"]) == ("pass", 0, 3)


def test_what_cannot_be_decided_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    new, old, markov = (str(LOGS / name) for name in ("new", "old", "markov"))
    assert "--gate takes two runs" in one_error(capsys, compare.main, [new, "--gate", "mrr@20 >= 0%"])
    error = one_error(capsys, compare.main, [new, old, "--gate", "mrr@20 >= 0%", "--output", "tables"])
    assert "--gate writes no tables" in error
    assert "--json goes with --gate" in one_error(capsys, compare.main, [new, old, "--json"])
    for rule in ("mrr >= 1%", "mrr@20 > 1%", "mrr@20 >= one"):
        assert f"--gate {rule!r} is no rule" in one_error(capsys, compare.main, [new, old, "--gate", rule])
    assert "map@20 is no metric" in one_error(capsys, compare.main, [new, old, "--gate", "map@20 >= 0%"])
    test_run("markov", "--model.exclude_last", "true")
    error = one_error(capsys, compare.main, [new, markov, "--gate", "mrr@20 >= 0%"])
    assert "cannot be compared: exclude last False against True" in error
    shutil.copytree(LOGS / "old", LOGS / "other")
    test_run("other", "--data.test_start", str(START + 100_000))
    assert "cannot be compared: sessions before" in one_error(
        capsys, compare.main, [new, str(LOGS / "other"), "--gate", "mrr@20 >= 0%"]
    )
    assert report_of("new")["data"]["events_before"] == len(TEST)
