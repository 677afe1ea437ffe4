"""Models that rank by rules from the last item to others, against plain Python."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers import Log, learn, random_log, scores_after, small_log
from plain_python import Brute, assert_as_in_plain_python, assert_commands_agree

from sessrec.errors import SessRecError
from sessrec.models import AR, SR, ItemKNN

SEEDS = [1, 2, 3]
Rules = dict[tuple[int, int], Any]
"""What each rule from an item to another is ranked by, exactly."""


def rules_of_ar(log: Log, self_rules: bool) -> Rules:
    rules: Rules = Counter()
    for session in log.training:
        for first, second in itertools.permutations(session, 2):
            rules[first, second] += self_rules or first != second
    return rules


def rules_of_sr(log: Log, n_steps: int, self_rules: bool) -> Rules:
    rules: Rules = Counter()
    for session in log.training:
        for start, item in enumerate(session):
            for distance, later in enumerate(session[start + 1 : start + 1 + n_steps], 1):
                rules[item, later] += Fraction(self_rules or later != item, distance)
    return rules


def rules_of_item_knn(log: Log, regularisation: int, balance: float) -> Rules:
    """The fourth power of each similarity is a fraction, for a balance of quarters."""
    support, power = [count + regularisation for count in log.support], int(4 * balance)
    together = Counter(pair for items in log.sets for pair in itertools.permutations(items, 2))
    return {
        (a, b): Fraction(count**4, support[a] ** power * support[b] ** (4 - power))
        for (a, b), count in together.items()
    }


def brute_rules(log: Log, rules: Rules, n_rules: int, score: Callable[[Any], float] = float) -> Brute:
    """Keep each item's best rules; of equal ones the more popular, then the first in the vocabulary."""
    kept = {}
    for item in range(log.n_items):
        to = [other for other in range(log.n_items) if rules.get((item, other))]
        kept[item] = sorted(to, key=lambda other: (-rules[item, other], -log.popularity[other], other))[:n_rules]

    def brute(prefix: list[int]) -> tuple:
        last = prefix[-1]
        keys = [(rules[last, b] if b in kept[last] else 0, log.popularity[b]) for b in range(log.n_items)]
        return [score(weight) for weight, _ in keys], keys

    return brute


def fourth_root(fourth: Fraction) -> float:
    return float(fourth) ** 0.25


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("self_rules", [True, False])
@pytest.mark.parametrize("n_rules", [1, 2, 20])
def test_ar(n_rules: int, self_rules: bool, seed: int) -> None:
    log = random_log(seed)
    brute = brute_rules(log, rules_of_ar(log, self_rules), n_rules)
    assert_as_in_plain_python(learn(AR(n_rules, self_rules), log), log, brute)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("self_rules", [True, False])
@pytest.mark.parametrize("n_steps", [1, 2, 10, 30])
@pytest.mark.parametrize("n_rules", [1, 2, 20])
def test_sr(n_rules: int, n_steps: int, self_rules: bool, seed: int) -> None:
    log = random_log(seed)
    brute = brute_rules(log, rules_of_sr(log, n_steps, self_rules), n_rules)
    assert_as_in_plain_python(learn(SR(n_rules, n_steps, self_rules), log), log, brute)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("balance", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("regularisation", [0, 20])
@pytest.mark.parametrize("n_rules", [1, 2, 100])
def test_item_knn(n_rules: int, regularisation: int, balance: float, seed: int) -> None:
    log = random_log(seed)
    brute = brute_rules(log, rules_of_item_knn(log, regularisation, balance), n_rules, fourth_root)
    assert_as_in_plain_python(learn(ItemKNN(n_rules, regularisation, balance), log), log, brute)


COMMANDS: dict[str, Callable[[Log], Brute]] = {
    "AR": lambda log: brute_rules(log, rules_of_ar(log, True), 3),
    "SR": lambda log: brute_rules(log, rules_of_sr(log, 10, True), 3),
    "ItemKNN": lambda log: brute_rules(log, rules_of_item_knn(log, 20, 0.5), 3, fourth_root),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_by_the_commands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_commands_agree(name, ["--model.n_rules", "3"], COMMANDS[name], write_log(random_log(1).rows).name)


# -- worked out by hand --------------------------------------------------------------------------------------------


def test_pairs_of_events_pairs_of_sessions_and_distances() -> None:
    """AR counts pairs of events, SR what comes later, by distance, ItemKNN sessions over both supports."""
    log = small_log([[0, 0, 1, 0], [0, 1], [1, 2]], 3)
    for model, expected in (
        (AR(), [[2 * 3, 3 + 1, 0], [4, 0, 1], [0, 1, 0]]),
        (SR(), [[1 + 1 / 3 + 1 / 2, 1 / 2 + 1 + 1, 0], [1, 0, 1], [0, 0, 0]]),
        (ItemKNN(regularisation=0), [[0, 2 / math.sqrt(6), 0], [2 / math.sqrt(6), 0, 1 / math.sqrt(3)]]),
    ):
        learn(model, log)
        for item, scores in enumerate(expected):
            assert scores_after(model, [item]) == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("model_class", [AR, SR, ItemKNN])
def test_rules_that_tie_are_pruned_by_popularity_then_vocabulary(model_class: type) -> None:
    """After 0 came 1, 2, 3 and 4, once each; 3 and 4 are the most popular, and 3 is first in the vocabulary."""
    log = small_log([[0, 4], [0, 1], [0, 3], [0, 2], [3, 5], [4, 5]], 6)
    for n_rules, kept in ((1, [3]), (2, [3, 4]), (3, [1, 3, 4]), (20, [1, 2, 3, 4])):
        model = learn(model_class(n_rules, **({"balance": 1.0} if model_class is ItemKNN else {})), log)
        scores = scores_after(model, [0])
        assert [item for item in range(6) if scores[item] > 1e-3] == kept


def test_equal_rules_of_sr_are_pruned_by_popularity() -> None:
    """From 0 to 1 it is one step once, from 0 to 2 six steps six times: both weigh 1, and 2 is the more popular."""
    log = small_log([[0, 1], *[[0, 3, 4, 5, 6, 7, 2]] * 6], 8)
    scores = scores_after(learn(SR(n_rules=6), log), [0])
    assert scores[2] == pytest.approx(1, abs=1e-6)
    assert scores[1] < 1e-6


@pytest.mark.parametrize("regularisation", [1e5, 1e7])
def test_popularity_decides_between_equal_rules_only(regularisation: float) -> None:
    """Item 1 is more similar to 0, as it stands in fewer sessions; item 2 is clicked more often."""
    log = small_log([[0, 1], [0, *[2] * 7], [2, 3]], 4)
    scores = scores_after(learn(ItemKNN(regularisation=regularisation), log), [0])
    assert scores[1] > scores[2]


@pytest.mark.parametrize("regularisation", [-1.0, float("nan"), float("inf")])
def test_a_regularisation_that_is_no_number_is_refused(regularisation: float) -> None:
    with pytest.raises(SessRecError, match="--model.regularisation must be a number of at least 0"):
        ItemKNN(regularisation=regularisation)


class Doubled(SR):
    def __init__(self, n_steps: int = 1, **options: Any) -> None:
        super().__init__(n_steps=2 * n_steps, **options)


def test_a_subclass_hands_on_options_of_its_own() -> None:
    """An item two steps behind has a rule, though the subclass's own option of that name is 1."""
    scores = dict(learn(Doubled(), small_log([[0, 1, 2], [3, 3]], 4)).recommend(["1"], k=4))
    assert scores["3"] == pytest.approx(0.5)
