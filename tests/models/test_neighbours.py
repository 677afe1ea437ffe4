"""Neighbourhood methods against plain Python."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers import NEIGHBOURHOODS, ROOT, WHOLE, Log, fit_log, learn, make_sessions, random_log, scores_after, small_log
from plain_python import Brute, assert_as_in_plain_python, assert_commands_agree, in_32_bits

from sessrec import models
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.models import SKNN, STAN, VMISKNN, VSKNN, VSTAN

DAY = 86400
COUNTS = [(1, 1), (1, 30), (4, 1), (3, 8), (8, 20), (500, 1000)]  # n_neighbours and sample_size
WEIGHTINGS = ["div", "linear", "quadratic", "log", "same"]
DECAYS = [(1.02, 5.0, 2.05), (3.0, 0.5, 20.0), (100.0, 1000.0, 0.7)]


def last_places(session: list[int]) -> dict[int, int]:
    """The last place of each item, from 1."""
    return {item: place for place, item in enumerate(session, 1)}


def candidates(log: Log, items: Iterable[int], sample_size: int) -> list[int]:
    """The most recent training sessions that share an item, the most recent first."""
    return [session for session in log.by_recency if not log.sets[session].isdisjoint(items)][:sample_size]


def most_similar(similar: list[tuple[float, int]], n_neighbours: int) -> list[tuple[float, int]]:
    """The nearest of (similarity, session), which come by recency; sorting keeps the order of equal ones."""
    rounded = [(in_32_bits(similarity), session) for similarity, session in similar]
    return sorted(rounded, key=lambda pair: -pair[0])[:n_neighbours]


def summed(log: Log, given: list[tuple[int, float]], idf_weight: float = 0.0) -> tuple[list[float], list[float]]:
    """Sum what items were given, raised by their idf; the order of the parts does not matter to fsum."""
    parts: dict[int, list[float]] = defaultdict(list)
    for item, value in given:
        parts[item].append(value)
    scores = [math.fsum(parts[item]) * (1 + idf_weight * idf_of(log, item)) for item in range(log.n_items)]
    return scores, scores


def idf_of(log: Log, item: int) -> float:
    return math.log(len(log.training) / log.support[item])


def brute_sknn(log: Log, k: int, sample: int, similarity: str) -> Brute:
    def brute(prefix: list[int]) -> tuple:
        own, similar = set(prefix), []
        for session in candidates(log, own, sample):
            other = log.sets[session]
            cosine, jaccard = len(own & other) / math.sqrt(len(own) * len(other)), len(own & other) / len(own | other)
            similar.append((cosine if similarity == "cosine" else jaccard, session))
        near = most_similar(similar, k)
        return summed(log, [(item, value) for value, session in near for item in log.sets[session]])

    return brute


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


def brute_vsknn(log: Log, k: int, sample: int, weighting: str, decay: str, idf: float) -> Brute:
    def brute(prefix: list[int]) -> tuple:
        places, similar, given = last_places(prefix), [], []
        for session in candidates(log, places, sample):
            shared = places.keys() & log.sets[session]
            weights = [weight_of(weighting, places[item], len(prefix)) for item in shared]
            similar.append((in_32_bits(sum(weights)) / len(places), session))
        for value, session in most_similar(similar, k):
            step = next(step for step, item in enumerate(reversed(prefix), 1) if item in log.sets[session])
            given += [(item, value * decay_of(decay, step)) for item in log.sets[session]]
        return summed(log, given, idf)

    return brute


def brute_stan(
    log: Log,
    k: int,
    sample: int,
    decays: tuple[float, float, float],
    shared_decay: float = math.inf,
    idf: float = 0.0,
) -> Brute:
    def brute(prefix: list[int]) -> tuple:
        places, length = last_places(prefix), len(prefix)
        weights = {item: math.exp((place - length) / decays[0]) for item, place in places.items()}
        norm = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
        chosen, similar, given = candidates(log, places, sample), [], []
        now = max((log.times[session][-1] for session in chosen), default=0)
        for session in chosen:
            items = log.sets[session]
            shared = in_32_bits(math.fsum(weight for item, weight in weights.items() if item in items))
            age = (now - log.times[session][-1]) / DAY
            similar.append((shared / (norm * math.sqrt(len(items))) * math.exp(-age / decays[1]), session))
        for value, session in most_similar(similar, k):
            there = last_places(log.training[session])
            newest = max(there.keys() & places, key=lambda item: there[item])
            value *= math.exp((places[newest] - length) / shared_decay)
            distances = {item: abs(place - there[newest]) for item, place in there.items()}
            given += [(item, value * math.exp(-distance / decays[2])) for item, distance in distances.items()]
        return summed(log, given, idf)

    return brute


def brute_vmis(log: Log, k: int, sample: int, max_items: int, idf: float, times_idf_alone: bool = False) -> Brute:
    """Walk the session from its end, as the paper does: an index of each item's most recent sessions."""

    def brute(prefix: list[int]) -> tuple:
        length, walked = len(prefix), dict[int, int]()
        for distance, item in enumerate(reversed(prefix)):
            if item not in walked and len(walked) < max_items:
                walked[item] = distance
        similarity: dict[int, float] = {}
        first: dict[int, int] = {}
        for item, distance in walked.items():
            for session in candidates(log, {item}, sample):
                similarity[session] = similarity.get(session, 0.0) + (length - distance) / len(walked)
                first.setdefault(session, distance + 1)
        recent, given = [session for session in log.by_recency if session in similarity][:sample], []
        for value, session in most_similar([(similarity[session], session) for session in recent], k):
            decay = 1 - 0.1 * first[session] if first[session] < 10 else 0.0
            given += [(item, value * decay) for item in log.sets[session]]
        scores, keys = summed(log, given, idf)
        if times_idf_alone:
            scores = keys = [score * idf_of(log, item) for item, score in enumerate(scores)]
        return scores, keys

    return brute


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("similarity", ["cosine", "jaccard"])
def test_sknn(similarity: str, seed: int) -> None:
    log = random_log(seed)
    for k, sample in COUNTS:
        model = learn(SKNN(k, sample, similarity), log)  # type: ignore[arg-type]
        assert_as_in_plain_python(model, log, brute_sknn(log, k, sample, similarity))


@pytest.mark.parametrize("decay", WEIGHTINGS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_vsknn(weighting: str, decay: str) -> None:
    for (k, sample), idf, seed in (((8, 20), 0.0, 4), ((500, 1000), 2.5, 2)):
        log = random_log(seed)
        model = learn(VSKNN(k, sample, weighting, decay, idf), log)  # type: ignore[arg-type]
        assert_as_in_plain_python(model, log, brute_vsknn(log, k, sample, weighting, decay, idf))


@pytest.mark.parametrize("idf", [0.0, 1.0])
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_vsknn_cuts(k: int, sample: int, idf: float) -> None:
    log = random_log(3)
    model = learn(VSKNN(k, sample, "quadratic", "quadratic", idf), log)
    assert_as_in_plain_python(model, log, brute_vsknn(log, k, sample, "quadratic", "quadratic", idf))


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_stan(k: int, sample: int, decays: tuple[float, float, float]) -> None:
    log = random_log(DECAYS.index(decays) + 1)
    assert_as_in_plain_python(learn(STAN(k, sample, *decays), log), log, brute_stan(log, k, sample, decays))


@pytest.mark.parametrize(("decays", "shared_decay", "idf"), [(DECAYS[0], 1.02, 5.0), (DECAYS[1], 3.0, 0.0)])
@pytest.mark.parametrize(("k", "sample"), COUNTS)
def test_vstan(k: int, sample: int, decays: tuple[float, float, float], shared_decay: float, idf: float) -> None:
    log = random_log(2)
    model = learn(VSTAN(k, sample, *decays, shared_decay, idf), log)
    assert_as_in_plain_python(model, log, brute_stan(log, k, sample, decays, shared_decay, idf))


@pytest.mark.parametrize(("idf", "alone"), [(0.0, False), (1.5, False), (0.0, True)])
@pytest.mark.parametrize("max_items", [1, 3, 9, 100])
def test_vmis_knn(max_items: int, idf: float, alone: bool) -> None:
    for number, (k, sample) in enumerate(COUNTS):
        log = random_log(1 + number % 3)
        model = learn(VMISKNN(k, sample, max_items, idf, alone), log)
        assert_as_in_plain_python(model, log, brute_vmis(log, k, sample, max_items, idf, alone))


COMMANDS: dict[str, tuple[str, Callable[[Log], Brute]]] = {
    "SKNN": ("--model.sample_size 20", lambda log: brute_sknn(log, 8, 20, "cosine")),
    "VSKNN": ("--model.weighting linear --model.decay log", lambda log: brute_vsknn(log, 8, 1000, "linear", "log", 0)),
    "STAN": ("", lambda log: brute_stan(log, 8, 2500, DECAYS[0])),
    "VSTAN": ("", lambda log: brute_stan(log, 8, 2500, DECAYS[0], 1.02, 5.0)),
    "VMISKNN": ("", lambda log: brute_vmis(log, 8, 500, 9, 0.0)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_by_the_commands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    options, make_brute = COMMANDS[name]
    words = ["--model.n_neighbours", "8", *options.split()]
    assert_commands_agree(name, words, make_brute, write_log(random_log(1).rows).name)


# -- worked out by hand --------------------------------------------------------------------------------------------


def test_the_cosine_divides_by_both_sizes() -> None:
    """A long neighbour that shares as much is less similar; without its own size in the divisor it would be as near."""
    log = small_log([[0, 1, 0, 1, 1], [0, 2, 3, 4, 5]], 6)  # sets: repeats change nothing
    scores = scores_after(learn(SKNN(), log), [0])
    assert scores[1:3] == pytest.approx([1 / math.sqrt(2), 1 / math.sqrt(5)], abs=1e-6)
    assert scores_after(learn(SKNN(n_neighbours=1), log), [0])[2:] == [0, 0, 0, 0]
    jaccard = scores_after(learn(SKNN(similarity="jaccard"), log), [0])
    assert jaccard[1:3] == pytest.approx([1 / 2, 1 / 5], abs=1e-6)
    assert scores_after(learn(SKNN(), log), [0, 0, 1, 0])[1] == pytest.approx(1, abs=1e-6)


def test_sessions_without_times_are_recent_by_their_order() -> None:
    model = SKNN(1).learn(make_sessions([[0, 1], [0, 2]]))
    assert scores_after(model, [0])[1:] == pytest.approx([0, 0.7071068], abs=1e-6)


def test_numbers_of_neighbours_may_be_larger_than_the_log() -> None:
    log = random_log(1)
    for kind in (getattr(models, name) for name in NEIGHBOURHOODS):
        huge, all_of_them = (learn(kind(n_neighbours=n, sample_size=n), log) for n in (1 << 40, len(log.training)))
        assert scores_after(huge, [0, 1]) == scores_after(all_of_them, [0, 1])


@pytest.mark.parametrize("n_sessions", [3, 4, 5, 6])
def test_items_with_equal_parts_tie(n_sessions: int) -> None:
    """Items 3 and 4 get 1/3 and n times 1/9 each, but from neighbours in another order."""
    log = small_log([[0, 1, 3], [2, 4], *[[0, 3, 4]] * n_sessions], 5)
    scores = scores_after(learn(VSKNN(weighting="same", decay="div"), log), [0, 1, 2])
    assert scores[3] == scores[4]


def test_an_old_neighbour_still_counts() -> None:
    """Session 0, 1 is 60 days old, the weight of which is exp(-120): little, but more than nothing."""
    log = Log([[0, 1], [2, 3], [0, 4]], [[0, 1], [10, 11], [60 * DAY, 60 * DAY + 1]], [], 5)
    scores = scores_after(learn(STAN(recency_decay=0.5), log), [0])
    assert scores[1] > scores[2] == scores[3]


def test_case_099_sknn_knows_items_seen_only_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests" / "cases" / "099" / "train.csv", "log.csv")
    model = SKNN.load_from_checkpoint(fit_log("log.csv", *WHOLE, model="SKNN") / "checkpoints" / "last.ckpt")
    a, z, b = model.recommend(["z"])
    assert (a, z, b) == (("a", pytest.approx(0.7071, abs=5e-5)), ("z", a[1]), ("b", 0.0))
    with pytest.warns(UserWarning, match="1 of 1 items of the session are unknown"):
        assert model.recommend(["unknown"], k=1) == [("a", 2.0)]


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
