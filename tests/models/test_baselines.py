"""Rule and neighbour baselines against plain Python, written from their formulas and not from their code.

The formulas are compared in two ways. Scores are close to those of plain Python. Ranks are equal, in every tie mode:
plain Python compares rules exactly, as fractions, and the scores of neighbourhood methods up to the twelfth digit. As
the methods document it, sums of weights and similarities are rounded to 32 bits before they are compared, and so they
are here. The logs are chosen such that ties are clear: no two scores are nearly but not quite equal, which
`rank_counts` checks, nor equal but for the order in which their parts are added up.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import ROOT
from lightning.pytorch import Trainer

from sessrec import fit, models, predict, test, validate
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationBatch, EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.ranking import MISSED
from sessrec.models import (
    AR,
    SKNN,
    SR,
    STAN,
    VMISKNN,
    VSKNN,
    VSTAN,
    GRU4Rec,
    ItemKNN,
    Markov,
    Oracle,
    Popularity,
    Random,
    SessionRecommender,
    SPop,
)
from sessrec.models.inference import top_items
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neural import NeuralRecommender

CASES = ROOT / "tests" / "cases"
DAY = 86400
NEIGHBOURHOODS = (SKNN, VSKNN, STAN, VSTAN, VMISKNN)
COUNTS = [(1, 1), (1, 30), (4, 1), (3, 8), (8, 20), (500, 1000)]  # n_neighbours and sample_size
WEIGHTINGS = ["div", "linear", "quadratic", "log", "same"]
Rows = list[list[int]]


# Logs


class Log(NamedTuple):
    """Training sessions, and sessions to rank."""

    training: Rows
    times: Rows
    """Time of each training event."""
    queries: Rows
    n_items: int

    @property
    def popularity(self) -> list[int]:
        """Training events of each item."""
        return [sum(session.count(item) for session in self.training) for item in range(self.n_items)]

    @property
    def by_recency(self) -> list[int]:
        """Training sessions, the last to end first; of those that end together the later one first."""
        return sorted(range(len(self.training)), key=lambda session: (-self.times[session][-1], -session))

    @property
    def prefixes(self) -> Iterator[list[int]]:
        """Every session so far that has a next item, in the order of the positions."""
        return (query[:length] for query in self.queries for length in range(1, len(query)))

    @property
    def targets(self) -> list[int]:
        """The next items of `prefixes`."""
        return [item for query in self.queries for item in query[1:]]


@cache
def random_log(seed: int, n_items: int = 16, n_sessions: int = 60) -> Log:
    """A log with repeats, equal times, long and short sessions, and two items that only end sessions."""
    generator = np.random.default_rng(seed)
    inner = n_items - 2
    chances = 1 / np.arange(1, inner + 1)
    chances = generator.permutation(chances / chances.sum())

    def session(length: int) -> list[int]:
        items = generator.choice(inner, size=length, p=chances).tolist()
        if generator.random() < 0.2:
            items[-1] = int(generator.integers(inner, n_items))
        return items

    lengths = [int(generator.integers(12, 17)) if number % 8 == 0 else int(generator.integers(2, 7)) for number in
               range(n_sessions)]  # fmt: skip
    training = [session(length) for length in lengths]
    training += [[0, item] for item in range(1, n_items)]  # every item occurs
    ends = 1_600_000_000 + 20_000 * generator.integers(0, 30, size=len(training))
    times = [
        [int(end) - 60 * (len(items) - 1 - place) for place in range(len(items))]
        for end, items in zip(ends, training, strict=True)
    ]
    queries = [session(int(generator.integers(2, 8))) for _ in range(10)] + [session(14), session(16)]
    queries.append([inner, 0, inner + 1, inner, 1])  # the items that only end sessions
    queries.append([*range(inner), 0])  # all different: the first are far from the end
    return Log(training, times, queries, n_items)


SEEDS = [1, 2, 3]


def sessions_of(rows: Rows, times: Rows | None = None) -> Sessions:
    offsets = np.cumsum([0, *map(len, rows)])
    flat = None if times is None else np.array([t for row in times for t in row])
    return Sessions(np.array([item for row in rows for item in row], dtype=np.int32), offsets, flat)


def vocabulary_of(log: Log) -> Vocabulary:
    return Vocabulary([str(item + 1) for item in range(log.n_items)], np.array(log.popularity))  # ids for Oracle, too


def learn(model: SessionRecommender, log: Log) -> Any:
    """Have a model learn a log, as a fit does, but for the trainer."""
    if isinstance(model, NeuralRecommender):
        model.set_vocabulary(vocabulary_of(log))
    else:
        model.learn(sessions_of(log.training, log.times), vocabulary_of(log))
    return model.eval()


def small_log(training: Rows, n_items: int) -> Log:
    times = [list(range(100 * number, 100 * number + len(row))) for number, row in enumerate(training)]
    return Log(training, times, [], n_items)


def test_random_logs_have_what_can_go_wrong() -> None:
    for seed in SEEDS:
        log = random_log(seed)
        ends = [times[-1] for times in log.times]
        assert len(set(ends)) < len(ends)
        assert ends != sorted(ends)
        assert any(len(set(row)) < len(row) for row in log.training)
        assert {len(row) for row in log.training} >= {2, 12}
        assert min(log.popularity) >= 1
        last_only = {log.n_items - 2, log.n_items - 1}
        assert not last_only & {item for row in log.training for item in row[:-1]}
        assert last_only & {item for query in log.queries for item in query}
        assert max(sum(item in row for row in log.training) for item in range(log.n_items)) > 20  # above a sample size
        assert max(map(len, map(set, log.queries))) > 11


# What the package says


def all_scores(model: SessionRecommender, log: Log) -> np.ndarray:
    """Scores of all items at every position, in one go."""
    lengths = [len(query) for query in log.queries]
    items = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, query in enumerate(log.queries):
        items[row, : len(query)] = torch.tensor(query)
    row = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length - 1)])
    place = torch.tensor([place for length in lengths for place in range(length - 1)])
    with torch.inference_mode():
        return model.score(model.encode(items)[row, place], slice(0, log.n_items)).numpy()


def all_counts(model: SessionRecommender, queries: Rows, batch_size: int = 512) -> dict[tuple[int, int], tuple]:
    """Items above and tied at every (session, place)."""
    found = {}
    for batch in EvaluationLoader(sessions_of(queries), batch_size):
        with torch.inference_mode():
            above, tied = model.count_positions(batch)
        positions = [
            (session, place)
            for session, length in zip(batch.sessions.tolist(), batch.lengths.tolist(), strict=True)
            for place in range(length - 1)
        ]
        found |= dict(zip(positions, zip(above.tolist(), tied.tolist(), strict=True), strict=True))
    return dict(sorted(found.items()))


# What plain Python says


def rank_counts(keys: Sequence[Any], target: int) -> tuple[int, int]:
    """Items above the target and tied with it; floats are equal that differ by rounding alone."""
    own, above, tied = keys[target], 0, 0
    for item, key in enumerate(keys):
        if item == target:
            continue
        if isinstance(key, float):
            apart = abs(key - own) / max(abs(key), abs(own), 1e-300)
            assert apart < 1e-13 or apart > 1e-11, "an unlucky log: two scores are nearly equal"
            tied, above = tied + (apart < 1e-13), above + (apart > 1e-11 and key > own)
        else:
            tied, above = tied + (key == own), above + (key > own)
    return above, tied


def rank_of(above: int, tied: int, tie_mode: str) -> float:
    return 1 + above + {"conservative": tied, "standard": 0, "median": tied / 2}[tie_mode]


def assert_as_in_plain_python(model: SessionRecommender, log: Log, brute: Callable[[list[int]], tuple]) -> None:
    """Compare scores and ranks; plain Python gives each session so far the scores and what to rank by."""
    expected = [brute(prefix) for prefix in log.prefixes]
    scores = all_scores(model, log)
    wanted = np.array([scores for scores, _ in expected], dtype=np.float64)
    assert scores.shape == wanted.shape
    np.testing.assert_array_less(np.abs(scores - wanted), 1e-6 * np.maximum(1, np.abs(wanted)) + 1e-15)
    counts = list(all_counts(model, log.queries).values())
    if isinstance(model, NeighbourhoodRecommender):  # whose scores are equal where they are equal in 32 bits
        expected = [(scores, [in_32_bits(key) for key in keys]) for scores, keys in expected]
    own = [rank_counts(keys, target) for (_, keys), target in zip(expected, log.targets, strict=True)]
    assert counts == own
    above, tied = torch.tensor(counts).T
    for tie_mode in ("conservative", "standard", "median"):
        ranks = rank_from_counts(above, tied, tie_mode).tolist()  # type: ignore[arg-type]
        assert ranks == [rank_of(*pair, tie_mode) for pair in own]


def in_32_bits(number: float) -> float:
    return float(np.float32(number))


def last_places(session: list[int]) -> dict[int, int]:
    """The last place of each item, from 1."""
    return {item: place for place, item in enumerate(session, 1)}


def candidates(log: Log, items: set[int], sample_size: int) -> list[int]:
    """The most recent training sessions that share an item, the most recent first."""
    return [session for session in log.by_recency if items & set(log.training[session])][:sample_size]


def most_similar(similar: list[tuple[float, int]], n_neighbours: int) -> list[tuple[float, int]]:
    """The nearest of (similarity, session), which come by recency; sorting keeps the order of equal ones."""
    rounded = [(in_32_bits(similarity), session) for similarity, session in similar]
    return sorted(rounded, key=lambda pair: -pair[0])[:n_neighbours]


def summed(log: Log, given: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """Sum what items were given; the order of the parts does not matter to fsum."""
    scores = [math.fsum(value for item, value in given if item == wanted) for wanted in range(log.n_items)]
    return scores, scores


def times_idf(log: Log, scores: list[float], weight: float) -> tuple[list[float], list[float]]:
    for item in range(log.n_items):
        holding = sum(item in row for row in log.training)
        scores[item] *= 1 + weight * math.log(len(log.training) / holding)
    return scores, scores


def brute_sknn(log: Log, prefix: list[int], k: int, sample: int, similarity: str) -> tuple:
    own = set(prefix)
    similar = []
    for session in candidates(log, own, sample):
        other = set(log.training[session])
        cosine, jaccard = len(own & other) / math.sqrt(len(own) * len(other)), len(own & other) / len(own | other)
        similar.append((cosine if similarity == "cosine" else jaccard, session))
    near = most_similar(similar, k)
    return summed(log, [(item, value) for value, session in near for item in set(log.training[session])])


def weight_of(weighting: str, place: int, length: int) -> float:
    return {
        "div": place / length,
        "linear": max(0.0, 1 - 0.1 * (length - place)),
        "quadratic": (place / length) ** 2,
        "log": 1 / math.log10(length - place + 1.7),
        "same": 1.0,
    }[weighting]


def decay_of(decay: str, step: int) -> float:
    return {
        "div": 1 / step,
        "linear": max(0.0, 1 - 0.1 * step),
        "quadratic": 1 / step**2,
        "log": 1 / math.log10(step + 1.7),
        "same": 1.0,
    }[decay]


def brute_vsknn(log: Log, prefix: list[int], k: int, sample: int, weighting: str, decay: str, idf: float) -> tuple:
    places, length = last_places(prefix), len(prefix)
    similar = []
    for session in candidates(log, set(places), sample):
        weights = [weight_of(weighting, places[item], length) for item in places if item in log.training[session]]
        similar.append((in_32_bits(sum(weights)) / len(places), session))
    given = []
    for value, session in most_similar(similar, k):
        step = next(step for step, item in enumerate(reversed(prefix), 1) if item in log.training[session])
        given += [(item, value * decay_of(decay, step)) for item in set(log.training[session])]
    scores, _ = summed(log, given)
    return times_idf(log, scores, idf) if idf else (scores, scores)


def brute_stan(
    log: Log,
    prefix: list[int],
    k: int,
    sample: int,
    decays: tuple[float, float, float],
    shared_decay: float | None = None,
    idf: float = 0.0,
) -> tuple:
    places, length = last_places(prefix), len(prefix)
    weights = {item: math.exp((place - length) / decays[0]) for item, place in places.items()}
    norm = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
    chosen = candidates(log, set(places), sample)
    now = max((log.times[session][-1] for session in chosen), default=0)
    similar = []
    for session in chosen:
        shared = in_32_bits(math.fsum(weight for item, weight in weights.items() if item in log.training[session]))
        age = (now - log.times[session][-1]) / DAY
        size = len(set(log.training[session]))
        similar.append((shared / (norm * math.sqrt(size)) * math.exp(-age / decays[1]), session))
    given = []
    for value, session in most_similar(similar, k):
        there = last_places(log.training[session])
        newest = max((item for item in there if item in places), key=lambda item: there[item])
        if shared_decay is not None:
            value *= math.exp((places[newest] - length) / shared_decay)
        given += [(item, value * math.exp(-abs(place - there[newest]) / decays[2])) for item, place in there.items()]
    scores, _ = summed(log, given)
    return times_idf(log, scores, idf) if idf else (scores, scores)


def brute_vmis(
    log: Log, prefix: list[int], k: int, sample: int, max_items: int, idf: float, times_idf_alone: bool = False
) -> tuple:
    """Walk the session from its end, as the paper does: an index of each item's most recent sessions."""
    length, walked = len(prefix), []
    for distance, item in enumerate(reversed(prefix)):
        if item not in [seen for _, seen in walked] and len(walked) < max_items:
            walked.append((distance, item))
    similarity: dict[int, float] = {}
    first: dict[int, int] = {}
    for distance, item in walked:
        for session in [session for session in log.by_recency if item in log.training[session]][:sample]:
            similarity[session] = similarity.get(session, 0.0) + (length - distance) / len(walked)
            first.setdefault(session, distance + 1)
    recent = [session for session in log.by_recency if session in similarity][:sample]
    given = []
    for value, session in most_similar([(similarity[session], session) for session in recent], k):
        decay = 1 - 0.1 * first[session] if first[session] < 10 else 0.0
        given += [(item, value * decay) for item in set(log.training[session])]
    scores, _ = summed(log, given)
    if times_idf_alone:
        scores = [score * (times_idf(log, [1.0] * log.n_items, 1.0)[0][item] - 1) for item, score in enumerate(scores)]
    return times_idf(log, scores, idf) if idf else (scores, scores)


Rules = dict[tuple[int, int], Any]
"""What each rule from an item to another is ranked by, exactly."""


def rules_of_ar(log: Log, self_rules: bool) -> Rules:
    rules: Rules = {}
    for session in log.training:
        for first, second in itertools.combinations(session, 2):
            for pair in ((first, second), (second, first)) if self_rules or first != second else ():
                rules[pair] = rules.get(pair, 0) + 1
    return rules


def rules_of_sr(log: Log, n_steps: int, self_rules: bool) -> Rules:
    rules: Rules = {}
    for session in log.training:
        for start, item in enumerate(session):
            for distance, later in enumerate(session[start + 1 : start + 1 + n_steps], 1):
                if self_rules or later != item:
                    rules[item, later] = rules.get((item, later), 0) + Fraction(1, distance)
    return rules


def supports(log: Log) -> list[int]:
    return [sum(item in session for session in log.training) for item in range(log.n_items)]


def shared_sessions(log: Log) -> dict[tuple[int, int], int]:
    together: dict[tuple[int, int], int] = {}
    for session in log.training:
        for pair in itertools.permutations(set(session), 2):
            together[pair] = together.get(pair, 0) + 1
    return together


def rules_of_item_knn(log: Log, regularisation: int, balance: float) -> Rules:
    """The fourth power of each similarity is a fraction, for a balance of quarters."""
    support, power = [count + regularisation for count in supports(log)], int(4 * balance)
    return {
        (a, b): Fraction(count**4, support[a] ** power * support[b] ** (4 - power))
        for (a, b), count in shared_sessions(log).items()
    }


def brute_rules(log: Log, rules: Rules, n_rules: int, score: Callable[[Any], float] = float) -> Callable:
    """Keep each item's best rules; of equal ones the more popular, then the first in the vocabulary."""
    popular = log.popularity
    kept = {}
    for item in range(log.n_items):
        to = [other for other in range(log.n_items) if (item, other) in rules]
        kept[item] = sorted(to, key=lambda other: (-rules[item, other], -popular[other], other))[:n_rules]

    def brute(prefix: list[int]) -> tuple:
        last = prefix[-1]
        keys = [(rules[last, b] if b in kept[last] else 0, popular[b]) for b in range(log.n_items)]
        return [score(weight) for weight, _ in keys], keys

    return brute


# 1. Every method against plain Python


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("similarity", ["cosine", "jaccard"])
def test_sknn(similarity: str, seed: int) -> None:
    log = random_log(seed)
    for k, sample in COUNTS:
        model = learn(SKNN(k, sample, similarity), log)  # type: ignore[arg-type]
        assert_as_in_plain_python(model, log, lambda prefix: brute_sknn(log, prefix, k, sample, similarity))  # noqa: B023


@pytest.mark.parametrize("decay", WEIGHTINGS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_vsknn(weighting: str, decay: str) -> None:
    for (k, sample), idf, seed in (((8, 20), 0.0, 4), ((500, 1000), 2.5, 2)):
        log = random_log(seed)
        model = learn(VSKNN(k, sample, weighting, decay, idf), log)  # type: ignore[arg-type]
        assert_as_in_plain_python(
            model,
            log,
            lambda prefix: brute_vsknn(log, prefix, k, sample, weighting, decay, idf),  # noqa: B023
        )


@pytest.mark.parametrize("idf", [0.0, 1.0])
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_vsknn_cuts(k: int, sample: int, idf: float) -> None:
    log = random_log(3)
    model = learn(VSKNN(k, sample, "quadratic", "quadratic", idf), log)
    assert_as_in_plain_python(
        model, log, lambda prefix: brute_vsknn(log, prefix, k, sample, "quadratic", "quadratic", idf)
    )


DECAYS = [(1.02, 5.0, 2.05), (3.0, 0.5, 20.0), (100.0, 1000.0, 0.7)]


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_stan(k: int, sample: int, decays: tuple[float, float, float]) -> None:
    log = random_log(DECAYS.index(decays) + 1)
    model = learn(STAN(k, sample, *decays), log)
    assert_as_in_plain_python(model, log, lambda prefix: brute_stan(log, prefix, k, sample, decays))


@pytest.mark.parametrize(("decays", "shared_decay", "idf"), [(DECAYS[0], 1.02, 5.0), (DECAYS[1], 3.0, 0.0)])
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_vstan(k: int, sample: int, decays: tuple[float, float, float], shared_decay: float, idf: float) -> None:
    log = random_log(2)
    model = learn(VSTAN(k, sample, *decays, shared_decay, idf), log)
    assert_as_in_plain_python(model, log, lambda prefix: brute_stan(log, prefix, k, sample, decays, shared_decay, idf))


@pytest.mark.parametrize(("idf", "alone"), [(0.0, False), (1.5, False), (0.0, True)])
@pytest.mark.parametrize("max_items", [1, 3, 9, 100])
def test_vmis_knn(max_items: int, idf: float, alone: bool) -> None:
    for number, (k, sample) in enumerate(COUNTS):
        log = random_log(SEEDS[number % 3])
        model = learn(VMISKNN(k, sample, max_items, idf, alone), log)
        assert_as_in_plain_python(model, log, lambda prefix: brute_vmis(log, prefix, k, sample, max_items, idf, alone))  # noqa: B023


def test_vmis_multiplies_by_the_idf_by_hand() -> None:
    """Four sessions: item 1 stands in two, 2 in one, 0 in three."""
    log = small_log([[0, 1], [0, 1], [0, 2], [3]], 4)
    plain, times = scores_after(learn(VMISKNN(), log), [0]), scores_after(learn(VMISKNN(idf=True), log), [0])
    assert times == pytest.approx(
        [score * math.log(4 / n) for score, n in zip(plain, (3, 2, 1, 1), strict=True)], abs=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("self_rules", [True, False])
@pytest.mark.parametrize("n_rules", [1, 2, 20])
def test_ar(n_rules: int, self_rules: bool, seed: int) -> None:
    log = random_log(seed)
    rules = rules_of_ar(log, self_rules)
    assert any(a == b for a, b in rules) == self_rules
    assert_as_in_plain_python(learn(AR(n_rules, self_rules), log), log, brute_rules(log, rules, n_rules))


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
    rules = rules_of_item_knn(log, regularisation, balance)
    brute = brute_rules(log, rules, n_rules, lambda fourth: float(fourth) ** 0.25)
    assert_as_in_plain_python(learn(ItemKNN(n_rules, regularisation, balance), log), log, brute)


def test_s_pop() -> None:
    log = random_log(1)
    popular = log.popularity

    def brute(prefix: list[int]) -> tuple:
        keys = [(prefix.count(item), popular[item]) for item in range(log.n_items)]
        return [count + events / (max(popular) + 1) for count, events in keys], keys

    assert_as_in_plain_python(learn(SPop(), log), log, brute)


def mixed(state: int) -> int:
    """The finaliser of SplitMix64, as it is published."""
    state &= 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random(seed: int) -> None:
    log = random_log(2)

    def brute(prefix: list[int]) -> tuple:
        state = seed
        for item in prefix:
            state = mixed(state * 31 + item + 1)
        scores = [mixed(state ^ mixed(item + 1)) % 2**53 / 2**53 for item in range(log.n_items)]
        return scores, scores

    assert_as_in_plain_python(learn(Random(seed), log), log, brute)


def test_random_is_even_and_takes_seed_prefix_and_item() -> None:
    log = Log([[0, 1]], [[0, 1]], [[a, b, c, 0] for a, b, c in itertools.product(range(12), repeat=3)], 40)
    scores = all_scores(learn(Random(5), log), log)
    assert 0 <= scores.min() <= scores.max() < 1
    assert np.abs(np.histogram(scores[2::3], bins=10, range=(0, 1))[0] / scores[2::3].size - 0.1).max() < 0.005
    assert len(np.unique(scores[2::3])) == scores[2::3].size  # every session so far has numbers of its own
    assert abs(np.corrcoef(scores[2::3].T)[~np.eye(40, dtype=bool)]).max() < 0.15
    assert np.array_equal(scores, all_scores(learn(Random(5), log), log))
    assert not np.isclose(scores, all_scores(learn(Random(6), log), log)).any(axis=1).all()


# Through the commands


NEW: dict[str, tuple[list[str], Callable[[Log], Callable[[list[int]], tuple]]]] = {
    "AR": (["--model.n_rules", "3"], lambda log: brute_rules(log, rules_of_ar(log, True), 3)),
    "SR": (["--model.n_rules", "3"], lambda log: brute_rules(log, rules_of_sr(log, 10, True), 3)),
    "ItemKNN": (
        ["--model.n_rules", "5"],
        lambda log: brute_rules(log, rules_of_item_knn(log, 20, 0.5), 5, lambda fourth: float(fourth) ** 0.25),
    ),
    "SKNN": (
        ["--model.n_neighbours", "8", "--model.sample_size", "20"],
        lambda log: lambda prefix: brute_sknn(log, prefix, 8, 20, "cosine"),
    ),
    "VSKNN": (
        ["--model.n_neighbours", "8", "--model.weighting", "linear", "--model.decay", "log"],
        lambda log: lambda prefix: brute_vsknn(log, prefix, 8, 1000, "linear", "log", 0.0),
    ),
    "STAN": (
        ["--model.n_neighbours", "8"],
        lambda log: lambda prefix: brute_stan(log, prefix, 8, 2500, (1.02, 5.0, 2.05)),
    ),
    "VSTAN": (
        ["--model.n_neighbours", "8"],
        lambda log: lambda prefix: brute_stan(log, prefix, 8, 2500, (1.02, 5.0, 2.05), 1.02, 5.0),
    ),
    "VMISKNN": (
        ["--model.n_neighbours", "8"],
        lambda log: lambda prefix: brute_vmis(log, prefix, 8, 500, 9, 0.0),
    ),
}
TRAINER = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
RUN = Path("lightning_logs", "r")
LAST = RUN / "checkpoints" / "last.ckpt"
RESUME = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "last"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a log."""
    monkeypatch.chdir(tmp_path)
    rows = ["SessionId\tItemId\tTime"]
    log = random_log(1)
    for number, (items, times) in enumerate(zip(log.training, log.times, strict=True)):
        rows += [f"u{number}\tx{item}\t{t}" for item, t in zip(items, times, strict=True)]
    Path("log.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def command(model: str, *options: str, log: str = "log.tsv") -> list[str]:
    place = ["--data.path", log, "--data.cache_dir", "null", "--trainer.logger.version", "r"]
    return ["--model", model, *TRAINER, *place, "--data.batch_size", "4", "--data.steps_per_window", "5", *options]


def log_of_parts() -> tuple[Log, list[str]]:
    """What the commands train on and test on, and the item ids."""
    data = SessionDataModule("log.tsv", val_ratio=0, cache_dir=None)
    data.setup("fit")
    train, later = data.sessions["train"], data.sessions["test"]
    assert data.vocabulary is not None
    assert train.times is not None
    bounds = list(itertools.pairwise(train.offsets.tolist()))
    rows = [train.items[start:stop].tolist() for start, stop in bounds]
    times = [train.times[start:stop].tolist() for start, stop in bounds]
    queries = [later[number].tolist() for number in range(len(later))]
    return Log(rows, times, queries, len(data.vocabulary)), data.vocabulary.item_ids


@pytest.mark.parametrize("name", NEW)
def test_fit_test_and_recommend_by_the_commands(here: Path, name: str) -> None:
    options, make_brute = NEW[name]
    fit.main(command(name, "--data.val_ratio", "0", "--model.cutoffs", "[1,4]", *options))
    log, item_ids = log_of_parts()
    brute = make_brute(log)
    expected = [brute(prefix) for prefix in log.prefixes]
    torch.load(LAST, weights_only=True)
    model_class: type[SessionRecommender] = globals()[name]
    model = model_class.load_from_checkpoint(LAST)
    assert model.vocabulary.item_ids == item_ids
    assert_as_in_plain_python(model, log, brute)

    test.main([*RESUME, "--model.tie_mode", "median"])
    kept = json.loads((RUN / "metrics.json").read_text())
    pairs = [rank_counts(keys, target) for (_, keys), target in zip(expected, log.targets, strict=True)]
    ranks = [rank_of(*pair, "median") for pair in pairs]
    assert kept["protocol"]["tie_mode"] == "median"
    assert kept["data"]["positions"] == len(ranks)
    for cutoff in (1, 4):
        recall = sum(rank <= cutoff for rank in ranks) / len(ranks)
        mrr = sum(1 / rank for rank in ranks if rank <= cutoff) / len(ranks)
        assert kept["metrics"][f"test/recall@{cutoff}"] == pytest.approx(recall, abs=1e-12)
        assert kept["metrics"][f"test/mrr@{cutoff}"] == pytest.approx(mrr, abs=1e-12)

    for prefix, (scores, _) in list(zip(log.prefixes, expected, strict=True))[:10]:
        recommended = model.recommend([item_ids[item] for item in prefix], k=5)
        best = sorted(scores, reverse=True)[:5]
        assert [score for _, score in recommended] == pytest.approx(best, rel=1e-6, abs=1e-6)
        for item_id, score in recommended:
            assert scores[item_ids.index(item_id)] == pytest.approx(score, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["SPop", "Random"])
def test_fit_test_and_recommend_without_anything_learnt(here: Path, name: str) -> None:
    fit.main(command(name))
    torch.load(LAST, weights_only=True)
    test.main(RESUME)
    positions = json.loads((RUN / "metrics.json").read_text())["data"]["positions"]
    assert positions == len(log_of_parts()[0].targets)
    model = {"SPop": SPop, "Random": Random}[name].load_from_checkpoint(LAST)
    twice = [model.recommend(["x1", "x2", "x1"], k=4) for _ in range(2)]
    assert twice[0] == twice[1]
    if name == "SPop":
        assert [item_id for item_id, _ in twice[0][:2]] == ["x1", "x2"]


def learned() -> dict[str, torch.Tensor]:
    return torch.load(LAST, weights_only=True)["state_dict"]


def assert_equal_states(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name])


@pytest.mark.parametrize("name", [*NEW, "Markov", "Popularity"])
def test_a_fit_is_one_step_of_one_epoch(here: Path, name: str) -> None:
    fit.main(command(name))
    straight = learned()
    assert sum(tensor.numel() for tensor in straight.values()) > 10
    assert torch.load(LAST, weights_only=True)["global_step"] == 1
    shutil.rmtree("lightning_logs")
    fit.main(command(name, "--trainer.max_epochs", "10"))
    assert torch.load(LAST, weights_only=True)["global_step"] == 1
    assert_equal_states(learned(), straight)


# 2. Items that are no candidates


ALL: dict[str, Callable[..., SessionRecommender]] = {
    "AR": lambda **o: AR(3, **o),
    "GRU4Rec": lambda **o: GRU4Rec(layers=[8], n_sample=4, **o),
    "ItemKNN": lambda **o: ItemKNN(4, **o),
    "Markov": lambda **o: Markov(**o),
    "Oracle": lambda **o: Oracle(16, 1, **o),
    "Popularity": lambda **o: Popularity(**o),
    "Random": lambda **o: Random(**o),
    "SKNN": lambda **o: SKNN(8, 20, **o),
    "SPop": lambda **o: SPop(**o),
    "SR": lambda **o: SR(3, **o),
    "STAN": lambda **o: STAN(8, 20, **o),
    "VMISKNN": lambda **o: VMISKNN(8, 20, **o),
    "VSKNN": lambda **o: VSKNN(8, 20, **o),
    "VSTAN": lambda **o: VSTAN(8, 20, **o),
}
ALL |= {name: getattr(models, name) for name in models.__all__ if name not in {*ALL, "SessionRecommender"}}  # new ones
RULES = [{"exclude_last": True}, {"exclude_seen": True}, {"exclude_last": True, "exclude_seen": True}]


@cache
def learnt_model(name: str, exclude_last: bool = False, exclude_seen: bool = False) -> SessionRecommender:
    torch.manual_seed(3)
    return learn(ALL[name](exclude_last=exclude_last, exclude_seen=exclude_seen), random_log(1))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_excluded_items_are_no_candidates(name: str, rule: dict[str, bool]) -> None:
    log = random_log(1)
    scores = all_scores(learnt_model(name), log).tolist()
    expected = []
    for prefix, target, own in zip(log.prefixes, log.targets, scores, strict=True):
        gone = set(prefix) if "exclude_seen" in rule else {prefix[-1]}
        left = [item for item in range(log.n_items) if item not in gone]
        if target in gone:
            expected.append((MISSED, 0))
        else:
            above = sum(own[item] > own[target] for item in left)
            expected.append((above, sum(own[item] == own[target] for item in left) - 1))
            assert above + expected[-1][1] < len(left)
    assert list(all_counts(learnt_model(name, **rule), log.queries).values()) == expected
    assert (MISSED, 0) in expected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_block_is_scored_once_more_for_an_excluded_target(
    rule: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model whose scores are the same in whatever way they are asked for."""
    monkeypatch.setattr("sessrec.evaluation.ranking._BLOCK", {"cpu": 4})
    log, score, blocks, numbers = random_log(1), Popularity.score, [], []
    monkeypatch.setattr(Popularity, "score", lambda self, *given: blocks.append(given[1]) or score(self, *given))
    for own_rule in ({}, rule):
        blocks.clear()
        counts = all_counts(learnt_model("Popularity", **own_rule), log.queries)
        assert ((MISSED, 0) in counts.values()) == bool(own_rule)
        numbers.append(len(blocks))
    assert numbers[0] == numbers[1] > 2


def test_numbers_of_neighbours_may_be_larger_than_the_log() -> None:
    log = random_log(1)
    for kind in NEIGHBOURHOODS:
        huge, all_of_them = (learn(kind(n_neighbours=n, sample_size=n), log) for n in (1 << 40, len(log.training)))
        assert scores_after(huge, [0, 1]) == scores_after(all_of_them, [0, 1])


@pytest.mark.parametrize("regularisation", [-1.0, float("nan"), float("inf")])
def test_a_regularisation_that_is_no_number_is_refused(regularisation: float) -> None:
    with pytest.raises(SessRecError, match="--model.regularisation must be a number of at least 0"):
        ItemKNN(regularisation=regularisation)


def test_an_excluded_target_is_no_hit_in_a_small_catalogue() -> None:
    """With fewer items than the list is long, every candidate is a hit, and what is none is not."""
    log = small_log([[0, 1], [1, 2]], 3)
    model = learn(Popularity(exclude_seen=True, tie_mode="standard"), log)
    batch = EvaluationBatch(torch.tensor([[0, 0, 1]]), torch.tensor([3]), torch.tensor([0]))
    above, tied = model.count_positions(batch)
    ranks = rank_from_counts(above, tied, "standard")
    assert ranks.tolist() == [MISSED + 1, 1]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_excluded_by_default(name: str) -> None:
    model = ALL[name]()
    assert (model.exclude_last, model.exclude_seen) == (False, False)
    assert (model.hparams["exclude_last"], model.hparams["exclude_seen"]) == (False, False)
    log = random_log(1)
    learnt_by_default, scores = learnt_model(name), all_scores(learnt_model(name), log).tolist()
    expected = [
        (sum(score > own[target] for score in own), sum(score == own[target] for score in own) - 1)
        for own, target in zip(scores, log.targets, strict=True)
    ]
    assert list(all_counts(learnt_by_default, log.queries).values()) == expected


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_excluded_items_are_never_recommended(name: str, rule: dict[str, bool]) -> None:
    log = random_log(1)
    plain, model = learnt_model(name), learnt_model(name, **rule)
    for query in log.queries:
        history = [str(item + 1) for item in query]
        gone = set(history) if "exclude_seen" in rule else {history[-1]}
        left = [(item_id, score) for item_id, score in plain.recommend(history, k=log.n_items) if item_id not in gone]
        for k in (1, 3, log.n_items - len(gone), log.n_items, 10 * log.n_items):
            assert model.recommend(history, k=k) == left[:k]
    everything = [str(item + 1) for item in range(log.n_items)]
    assert len(model.recommend(everything)) == (0 if "exclude_seen" in rule else log.n_items - 1)


@pytest.mark.parametrize("name", ["GRU4Rec", "SKNN", "AR", "SPop", "Popularity"])
@pytest.mark.parametrize("option", ["exclude_last", "exclude_seen"])
def test_excluded_items_by_the_commands(here: Path, name: str, option: str) -> None:
    small = ["--model.layers", "[8]", "--model.n_sample", "4"] if name == "GRU4Rec" else []
    fit.main(command(name, f"--model.{option}", "true", *small))
    test.main(RESUME)
    kept = json.loads((RUN / "metrics.json").read_text())
    rules = kept["protocol"]
    assert (rules["exclude_last"], rules["exclude_seen"]) == (option == "exclude_last", option == "exclude_seen")
    Path("new.tsv").write_text("SessionId\tItemId\tTime\np\tx1\t1\np\tx2\t2\np\tx2\t3\nq\tx3\t4\nr\tnobody\t5\n")
    predict.main(["--ckpt_path", str(LAST), "--data.path", "new.tsv", "--model.k", "50"])
    rows = [line.split("\t") for line in Path("predictions.tsv").read_text().splitlines()[1:]]
    n_items = kept["protocol"]["items_ranked"]
    for session, gone in (("p", {"x2"} if option == "exclude_last" else {"x1", "x2"}), ("q", {"x3"})):
        found = [item_id for name, _, item_id, _ in rows if name == session]
        assert len(set(found)) == len(found) == n_items - len(gone)
        assert not gone & set(found)
        assert [int(rank) for name, rank, _, _ in rows if name == session] == list(range(1, len(found) + 1))
    assert {name for name, *_ in rows} == {"p", "q"}
    # the rule can be changed for a test alone
    test.main([*RESUME, f"--model.{option}", "false"])
    kept = json.loads((RUN / "metrics.json").read_text())
    assert not kept["protocol"]["exclude_last"]
    assert not kept["protocol"]["exclude_seen"]


# 3. The same results whatever the batches, the order and the blocks


@pytest.mark.parametrize("rule", [{}, {"exclude_seen": True}], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_ranks_do_not_depend_on_batches_or_order(name: str, rule: dict[str, bool]) -> None:
    log, model = random_log(1), learnt_model(name, **rule)
    whole = all_counts(model, log.queries)
    for batch_size in (1, 7):
        assert all_counts(model, log.queries, batch_size) == whole
    order = np.random.default_rng(5).permutation(len(log.queries)).tolist()
    moved = all_counts(model, [log.queries[number] for number in order], 4)
    assert {(order[number], place): pair for (number, place), pair in moved.items()} == whole


@pytest.mark.parametrize("name", ["AR", "STAN"])  # the ranks of all models are compared above
def test_metrics_do_not_depend_on_batches(here: Path, name: str) -> None:
    fit.main(command(name, *(NEW[name][0] if name in NEW else [])))
    metrics = []
    for batch_size in ("1", "7", "512"):
        test.main([*RESUME, "--data.eval_batch_size", batch_size])
        metrics.append(json.loads((RUN / "metrics.json").read_text())["metrics"])
    for other in metrics[1:]:
        assert other == pytest.approx(metrics[0], abs=1e-12)


@pytest.mark.parametrize("rule", [{}, {"exclude_last": True}, {"exclude_seen": True}], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_blocks_give_what_the_whole_catalogue_gives(
    name: str, rule: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, model = random_log(1), learnt_model(name, **rule)
    batch = EvaluationLoader(sessions_of(log.queries), 512)[0]
    counts, (best, scores) = all_counts(model, log.queries), top_items(model, batch.items, batch.lengths, 7)
    for names in (["_SCORES"], ["_POSITIONS"], ["_BLOCK"], ["_SCORES", "_POSITIONS", "_BLOCK", "_SESSIONS"]):
        with monkeypatch.context() as small:
            small.setattr("sessrec.evaluation.ranking._ITEMS_A_PLACE", 0)
            for changed in names:
                value = {"_SCORES": 40, "_POSITIONS": 5, "_BLOCK": {"cpu": 3}, "_SESSIONS": 3}[changed]
                small.setattr(f"sessrec.evaluation.ranking.{changed}", value)
            assert all_counts(model, log.queries) == counts
            ours = top_items(model, batch.items, batch.lengths, 7)
        assert torch.equal(ours[0], best)
        torch.testing.assert_close(ours[1], scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_some_items_score_as_they_do_among_all(name: str) -> None:
    log, model = random_log(1), learnt_model(name)
    queries = model.encode(torch.tensor([log.queries[0]]))[0]
    with torch.inference_mode():
        whole = model.score(queries, slice(0, log.n_items))
        for part in (slice(0, 3), slice(5, 6), slice(7, 16)):
            torch.testing.assert_close(model.score(queries, part), whole[:, part], rtol=1e-6, atol=1e-6)


# 4. Traps


def scores_after(model: SessionRecommender, prefix: list[int]) -> list[float]:
    queries = model.encode(torch.tensor([prefix]))[:, -1]
    with torch.inference_mode():
        return model.score(queries, slice(0, model.n_items))[0].tolist()


def test_the_cosine_divides_by_both_sizes() -> None:
    """A long neighbour that shares as much is less similar; without its own size in the divisor it would be as near."""
    log = small_log([[0, 1], [0, 2, 3, 4, 5]], 6)
    scores = scores_after(learn(SKNN(), log), [0])
    assert scores[1] == pytest.approx(1 / math.sqrt(2), abs=1e-6)
    assert scores[2] == pytest.approx(1 / math.sqrt(5), abs=1e-6)
    assert scores_after(learn(SKNN(n_neighbours=1), log), [0])[2:] == [0, 0, 0, 0]
    jaccard = scores_after(learn(SKNN(similarity="jaccard"), log), [0])
    assert jaccard[1:3] == pytest.approx([1 / 2, 1 / 5], abs=1e-6)
    assert scores_after(learn(SKNN(), log), [0, 0, 1, 0])[1] == pytest.approx(
        1, abs=1e-6
    )  # sets: repeats change nothing


def test_repeats_in_training_change_no_set() -> None:
    once, again = small_log([[0, 1], [0, 2]], 3), small_log([[0, 1, 0, 1, 1], [0, 2]], 3)
    assert scores_after(learn(SKNN(), once), [0]) == scores_after(learn(SKNN(), again), [0])


@pytest.mark.parametrize("decay", WEIGHTINGS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_linear_weights_are_never_negative(weighting: str, decay: str) -> None:
    """The shared item is 13 events from the end: 1 - 0.1 * 13 would be below 0."""
    log = small_log([[0, 1], [0, 15], *([item, 16] for item in range(2, 14))], 17)
    model = learn(VSKNN(weighting=weighting, decay=decay), log)  # type: ignore[arg-type]
    scores = scores_after(model, [0, *[14] * 13])
    assert min(scores) >= 0
    if "linear" in (weighting, decay):
        assert scores[0] == scores[15] == 0
    else:
        assert scores[0] > scores[15] > 0
    assert min(scores_after(learn(VMISKNN(), log), [0, *[14] * 13])) >= 0


@pytest.mark.parametrize("distance", [8, 9, 10, 11])
def test_vmis_gives_nothing_from_the_tenth_step_on(distance: int) -> None:
    log = small_log([[0, 1], [2, 3]], 4)
    score = scores_after(learn(VMISKNN(), log), [0, *[2] * distance])[1]
    assert score == pytest.approx(1 / 2 * max(0, 1 - 0.1 * (distance + 1)), abs=1e-6)


@pytest.mark.parametrize("model_class", NEIGHBOURHOODS)
def test_the_last_item_takes_the_first_place_unless_it_is_excluded(
    model_class: type[NeighbourhoodRecommender],
) -> None:
    log = small_log([[0, 1], [2, 0, 3], [1, 4], [5, 4, 0]], 6)
    options = {"idf_weight": 0.0} if model_class is VSTAN else {}
    model = learn(model_class(**options), log)
    assert model.recommend(["1"], k=1)[0][0] == "1"
    assert "1" in dict(model.recommend(["1", "2"]))
    for rule in ("exclude_last", "exclude_seen"):
        without = learn(model_class(**options, **{rule: True}), log)
        assert "1" not in dict(without.recommend(["1"]))
        assert without.recommend(["1"]) == model.recommend(["1"])[1:]
    assert "1" in dict(learn(model_class(**options, exclude_last=True), log).recommend(["1", "2"]))


def test_an_item_that_is_repeated_has_a_rule_to_itself() -> None:
    log = small_log([[0, 0, 1, 0], [1, 2], [2, 1]], 4)
    assert scores_after(learn(AR(), log), [0])[:2] == pytest.approx([2 * 3, 3], abs=1e-6)  # 3 pairs, both ways
    assert scores_after(learn(SR(), log), [0])[:2] == pytest.approx([1 + 1 / 3 + 1 / 2, 1 / 2 + 1], abs=1e-6)
    for model in (AR(), SR()):
        learn(model, log)
        assert model.recommend(["1"], k=1)[0][0] == "1"
        assert scores_after(model, [2])[2] < 1e-6  # never twice in a session: one event makes no pair
        start, stop = model.offsets[2:4].tolist()
        assert model.successors[start:stop].tolist() == [1]


@pytest.mark.parametrize(
    "model",
    [AR(self_rules=False), SR(self_rules=False), ItemKNN(), AR(1, False), SR(1, self_rules=False), ItemKNN(1)],
    ids=lambda m: type(m).__name__,
)
def test_no_item_has_a_rule_to_itself_where_none_is_wanted(model: SessionRecommender) -> None:
    log = small_log([[0, 0, 0, 1], [0, 0, 2], [1, 1]], 4)
    learn(model, log)
    offsets, successors = model.offsets.tolist(), model.successors.tolist()
    for item, (start, stop) in enumerate(itertools.pairwise(offsets)):
        assert item not in successors[start:stop]
    assert scores_after(model, [0])[0] < 1e-6
    nearest = "3" if isinstance(model, ItemKNN) else "2"  # both share one session, and item 2 stands in fewer
    assert model.recommend(["1"], k=1)[0][0] == nearest
    assert (len(successors) == 3) == (model.n_rules == 1 and not isinstance(model, SR))  # it takes no place either


def test_ar_counts_pairs_of_events_and_item_knn_sessions() -> None:
    log = small_log([[0, 0, 1, 0], [0, 1], [1, 2]], 3)
    assert scores_after(learn(AR(), log), [0])[1] == pytest.approx(4, abs=1e-6)
    assert scores_after(learn(AR(), log), [1])[0] == pytest.approx(4, abs=1e-6)
    assert scores_after(learn(ItemKNN(regularisation=0), log), [0])[1] == pytest.approx(2 / math.sqrt(2 * 3), abs=1e-6)
    assert scores_after(learn(SR(), log), [0])[1] == pytest.approx(1 / 2 + 1 + 1, abs=1e-6)
    assert scores_after(learn(SR(), log), [1])[0] == pytest.approx(1, abs=1e-6)  # what comes later alone


def test_item_knn_balances_between_both_supports() -> None:
    log = small_log([[0, 1], [0, 2], [0, 3], [1, 3]], 4)
    for balance, expected in ((1.0, 1 / 5), (0.0, 1 / 4), (0.5, 1 / math.sqrt(20))):
        model = learn(ItemKNN(regularisation=2, balance=balance), log)
        assert scores_after(model, [0])[1] == pytest.approx(expected, abs=1e-6)  # supports 3 and 2


@pytest.mark.parametrize("n_steps", [1, 2, 10])
def test_sr_looks_no_farther_than_its_steps(n_steps: int) -> None:
    log = small_log([list(range(12))], 12)
    scores = scores_after(learn(SR(n_rules=50, n_steps=n_steps), log), [0])
    assert scores[1:] == pytest.approx([1 / d if d <= n_steps else 0 for d in range(1, 12)], abs=1e-6)


@pytest.mark.parametrize("model_class", [AR, SR, ItemKNN])
def test_rules_that_tie_are_pruned_by_popularity_then_vocabulary(model_class: type) -> None:
    """After 0 came 1, 2, 3 and 4, once each; 3 and 4 are the most popular, and 3 is first in the vocabulary."""
    log = small_log([[0, 4], [0, 1], [0, 3], [0, 2], [3, 5], [4, 5]], 6)
    for n_rules, kept in ((1, [3]), (2, [3, 4]), (3, [1, 3, 4]), (20, [1, 2, 3, 4])):
        model = learn(model_class(n_rules, **({"balance": 1.0} if model_class is ItemKNN else {})), log)
        scores = scores_after(model, [0])
        assert [item for item in range(6) if scores[item] > 1e-3] == kept


def test_items_without_a_rule_follow_in_the_order_of_popularity() -> None:
    log = small_log([[0, 1], [2, 3], [2, 4], [4, 2], [3, 2]], 5)
    for model in (AR(), SR(), ItemKNN()):
        order = [item_id for item_id, _ in learn(model, log).recommend(["1"], k=4)]
        assert order[:2] == ["2", "3"]  # item 1 by its rule, then item 2, four times in the log


def test_nothing_is_counted_across_the_borders_of_sessions() -> None:
    log = small_log([[0, 1], [2, 3], [4, 5], [2, 5]], 6)
    model = learn(Markov(), log)
    assert [item for item, score in enumerate(scores_after(model, [0])) if score > 0.5] == [1]
    assert [item for item, score in enumerate(scores_after(model, [2])) if score > 0.5] == [3, 5]
    for rules in (AR(), SR(), ItemKNN()):
        scores = scores_after(learn(rules, log), [1] if not isinstance(rules, SR) else [0])
        assert [item for item, score in enumerate(scores) if score > 1e-6] == ([1] if isinstance(rules, SR) else [0])


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("GRU4Rec", "SASRec")])
def test_what_a_model_learns_from_is_not_changed(name: str, tmp_path: Path) -> None:
    model = ALL[name]()
    log = random_log(1)
    sessions = sessions_of(log.training, log.times)
    before = [np.array(array) for array in (sessions.items, sessions.offsets, sessions.times)]
    model.learn(sessions, vocabulary_of(log))
    for array, copy in zip((sessions.items, sessions.offsets, sessions.times), before, strict=True):
        assert np.array_equal(array, copy)  # type: ignore[arg-type]
    mapped = []
    for number, array in enumerate(before):
        np.save(tmp_path / f"{number}.npy", array)
        mapped.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    other = ALL[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it is given read-only memory
        other.learn(Sessions(*mapped), vocabulary_of(log))
    assert_equal_states(other.state_dict(), model.state_dict())
    for tensor in other.state_dict().values():  # nor shares it memory
        if tensor.dtype != torch.bool:
            tensor.add_(1)
    for array, copy in zip((sessions.items, sessions.offsets, sessions.times), before, strict=True):
        assert np.array_equal(array, copy)  # type: ignore[arg-type]


def test_sessions_that_end_together_are_recent_by_their_order() -> None:
    training = [[0, 1], [0, 2], [0, 3]]
    for times, kept in (([[1, 9], [1, 9], [1, 9]], 3), ([[1, 9], [1, 9], [1, 8]], 2), ([[5, 9], [1, 8], [1, 8]], 1)):
        log = Log(training, times, [], 4)
        for model in (SKNN(1), SKNN(5, sample_size=1), VSKNN(1), VMISKNN(1), VMISKNN(5, sample_size=1), STAN(1)):
            scores = scores_after(learn(model, log), [0])
            assert [item for item in range(1, 4) if scores[item] > 0] == [kept]


def test_sessions_without_times_are_recent_by_their_order() -> None:
    model = SKNN(1)
    log = small_log([[0, 1], [0, 2]], 3)
    model.learn(sessions_of(log.training), vocabulary_of(log))
    assert scores_after(model, [0])[1:] == pytest.approx([0, 0.7071068], abs=1e-6)


# Known defects: remove the mark with the defect


@pytest.mark.parametrize("n_sessions", [3, 4, 5, 6])
def test_items_with_equal_parts_tie(n_sessions: int) -> None:
    """Items 3 and 4 get 1/3 and n times 1/9 each, but from neighbours in another order."""
    log = small_log([[0, 1, 3], [2, 4], *[[0, 3, 4]] * n_sessions], 5)
    scores = scores_after(learn(VSKNN(weighting="same", decay="div"), log), [0, 1, 2])
    assert scores[3] == scores[4]


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


def test_an_old_neighbour_still_counts() -> None:
    """Session 0, 1 is 60 days old, the weight of which is exp(-120): little, but more than nothing."""
    log = Log([[0, 1], [2, 3], [0, 4]], [[0, 1], [10, 11], [60 * DAY, 60 * DAY + 1]], [], 5)
    scores = scores_after(learn(STAN(recency_decay=0.5), log), [0])
    assert scores[1] > scores[2] == scores[3]


# Cases of a collection


def write_parts(case: str) -> None:
    """The log of a case for training, and once more for validation and for the test."""
    head, *rows = (CASES / case / "train.csv").read_text().split()
    lines = [head]
    for number, part in enumerate(("", "v", "t")):
        for session, item, t in (row.split(",") for row in rows):
            lines.append(f"{part}{session},{item},{int(t) + 100 * number}")
    Path("log.tsv").write_text("\n".join(lines) + "\n")


PARTS = ["--data.test_start", "201", "--data.val_duration", "50"]


@pytest.mark.parametrize("epochs", ["1", "10"])
@pytest.mark.parametrize("model_class", [Popularity, Markov, SKNN])
def test_case_098_models_without_parameters(here: Path, model_class: type[SessionRecommender], epochs: str) -> None:
    write_parts("098")
    fit.main(command(model_class.__name__, *PARTS, "--trainer.max_epochs", epochs))
    validate.main(RESUME)
    test.main(RESUME)
    kept = json.loads((RUN / "metrics.json").read_text())
    model = model_class.load_from_checkpoint(LAST)
    assert model.vocabulary.item_ids == ["a", "b", "c"]
    assert model.vocabulary.counts.tolist() == [3, 2, 2]
    if isinstance(model, Popularity | Markov):
        assert model.counts.tolist() == [3, 2, 2]  # whatever the number of epochs
    data = SessionDataModule("log.tsv", cache_dir=None, test_start=201, val_duration=50)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    Trainer(accelerator="cpu", **quiet).test(model, data, verbose=False)  # type: ignore[arg-type]
    assert model.results == kept["metrics"]


def test_case_099_sknn_knows_items_seen_only_last(here: Path) -> None:
    shutil.copy(CASES / "099" / "train.csv", "log.tsv")
    fit.main(command("SKNN", "--data.test_ratio", "0", "--data.val_ratio", "0"))
    model = SKNN.load_from_checkpoint(LAST)
    assert model.recommend(["z"]) == [
        ("a", pytest.approx(0.7071, abs=5e-5)),
        ("z", pytest.approx(0.7071, abs=5e-5)),
        ("b", 0.0),
    ]
    with pytest.warns(UserWarning, match="1 of 1 items of the session are unknown"):
        assert model.recommend(["unknown"], k=1) == [("a", 2.0)]


@pytest.mark.parametrize("model_class", [*NEIGHBOURHOODS, AR, SR, ItemKNN, SPop, Random])
def test_case_099_every_model_scores_after_an_item_seen_only_last(model_class: type[SessionRecommender]) -> None:
    scores = scores_after(learn(model_class(), small_log([[0, 1], [2, 0]], 3)), [1])
    assert np.isfinite(scores).all()
    if model_class is not Random:
        assert max(scores) > 0


def test_case_102_models_are_compared_under_the_same_rules(here: Path) -> None:
    write_parts("102")
    kept = []
    for name in ("Popularity", "Markov", "SKNN", "GRU4Rec"):
        shutil.rmtree("lightning_logs", ignore_errors=True)
        small = ["--model.layers", "[8]", "--model.n_sample", "4"] if name == "GRU4Rec" else []
        fit.main(command(name, *PARTS, *small))
        test.main(RESUME)
        kept.append(json.loads((RUN / "metrics.json").read_text()))
    for result in kept:
        assert (result["protocol"]["items_ranked"], result["data"]["positions"]) == (3, 4)
        assert result["protocol"]["tie_mode"] == "conservative"
        assert (result["protocol"]["exclude_last"], result["protocol"]["exclude_seen"]) == (False, False)


# 5. Sessions of which nothing is known


@pytest.mark.parametrize("rule", [{}, {"exclude_last": True}, {"exclude_seen": True}], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_unknown_items_and_empty_sessions(name: str, rule: dict[str, bool]) -> None:
    log, model = random_log(1), learnt_model(name, **rule)
    popular = sorted(range(log.n_items), key=lambda item: (-log.popularity[item], item))[:4]
    fallback = [(str(item + 1), float(log.popularity[item])) for item in popular]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.recommend([], k=4) == fallback
    with pytest.warns(UserWarning, match="2 of 2 items of the session are unknown"):
        assert model.recommend(["nobody", "nothing"], k=4) == fallback
    known = model.recommend(["1", "2"], k=4)
    for history in (["nobody", "1", "2"], ["1", "nobody", "2"], ["1", "2", "nobody"]):
        with pytest.warns(UserWarning, match="1 of 3 items"):
            assert model.recommend(history, k=4) == known


# 6. Memory


def test_an_index_takes_a_few_times_the_bytes_of_the_clicks() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 7, size=10_000)
    lengths = lengths[: np.searchsorted(lengths.cumsum(), 20_000) + 1]
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = generator.integers(0, 2000, size=offsets[-1]).astype(np.int32)
    vocabulary = Vocabulary([f"i{item}" for item in range(2000)], np.bincount(items, minlength=2000))
    model = VSKNN()
    model.learn(Sessions(items, offsets, np.sort(generator.integers(0, 10**6, size=len(items)))), vocabulary)
    buffers = {name: buffer.numel() * buffer.element_size() for name, buffer in model.named_buffers()}
    assert 3 * items.nbytes < sum(buffers.values()) < 10 * (items.nbytes + offsets.astype(np.int64).nbytes)
