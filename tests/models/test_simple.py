"""Models that learn counts or nothing at all, against plain Python."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, all_scores, fit_log, learn, make_trainer, make_vocabulary, random_log, scores_after
from plain_python import assert_as_in_plain_python

from sessrec import models, test, validate
from sessrec.data import SessionDataModule
from sessrec.data.synthetic import SyntheticProcess
from sessrec.errors import SessRecError
from sessrec.models import Markov, Oracle, Popularity, Random, SessionRecommender, SPop

LOG = random_log(1)
LOG = replace(LOG, n_items=LOG.n_items + 1, queries=[*LOG.queries, [LOG.n_items, 0, LOG.n_items]])  # never trained on
EVENTS = LOG.popularity
PAIRS = Counter(pair for session in LOG.training for pair in itertools.pairwise(session))
GREATEST = [max(PAIRS[a, b] for b in range(LOG.n_items)) for a in range(LOG.n_items)]


def markov(alpha: Fraction, prefix: list[int], item: int) -> Fraction:
    last, popular = prefix[-1], Fraction(EVENTS[item], max(EVENTS))
    return (1 - alpha) * Fraction(PAIRS[last, item], GREATEST[last]) + alpha * popular if GREATEST[last] else popular


COUNTING: dict[str, tuple[SessionRecommender, Callable[[list[int], int], Any], Callable[[list[int], int], Any]]] = {
    "popularity": (Popularity(), lambda _, item: EVENTS[item], lambda _, item: EVENTS[item]),
    "s-pop": (
        SPop(),
        lambda prefix, item: prefix.count(item) + EVENTS[item] / (max(EVENTS) + 1),
        lambda prefix, item: (prefix.count(item), EVENTS[item]),
    ),
    **{
        f"markov {alpha}": (
            Markov(float(alpha)),
            lambda prefix, item, alpha=alpha: float(markov(alpha, prefix, item)),
            lambda prefix, item, alpha=alpha: (markov(alpha, prefix, item), EVENTS[item]),
        )
        for alpha in (Fraction(0), Fraction(1, 4), Fraction(1))
    },
}
"""A model, its score of an item after a session so far, and what the score is ranked by, exactly."""


@pytest.mark.parametrize("name", COUNTING)
def test_counting(name: str) -> None:
    model, score, key = COUNTING[name]

    def brute(prefix: list[int]) -> tuple:
        items = range(LOG.n_items)
        return [score(prefix, item) for item in items], [key(prefix, item) for item in items]

    assert_as_in_plain_python(learn(model, LOG), LOG, brute)


def mixed(state: int) -> int:
    """The finaliser of SplitMix64, as it is published."""
    state &= 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random(seed: int) -> None:
    def brute(prefix: list[int]) -> tuple:
        state = seed
        for item in prefix:
            state = mixed(state * 31 + item + 1)
        scores = [mixed(state ^ mixed(item + 1)) % 2**53 / 2**53 for item in range(LOG.n_items)]
        return scores, scores

    assert_as_in_plain_python(learn(Random(seed), LOG), LOG, brute)


def test_random_is_even_and_takes_seed_prefix_and_item() -> None:
    queries = [[a, b, c, 0] for a, b, c in itertools.product(range(12), repeat=3)]
    scores, again, other = (all_scores(learn(Random(seed), replace(LOG, n_items=40)), queries) for seed in (5, 5, 6))
    assert 0 <= scores.min() <= scores.max() < 1
    assert np.abs(np.histogram(scores[2::3], bins=10, range=(0, 1))[0] / scores[2::3].size - 0.1).max() < 0.005
    assert len(np.unique(scores[2::3])) == scores[2::3].size  # every session so far has numbers of its own
    assert abs(np.corrcoef(scores[2::3].T)[~np.eye(40, dtype=bool)]).max() < 0.15
    assert np.array_equal(scores, again)
    assert not np.isclose(scores, other).any(axis=1).all()


def test_oracle_scores_are_the_process_probabilities() -> None:
    process = SyntheticProcess(n_items=12, seed=3)
    model = Oracle(process_items=12, process_seed=3)
    vocabulary = make_vocabulary(12)
    vocabulary.item_ids = [str(number) for number in range(12, 0, -1)]  # the vocabulary's order is not the process's
    model.set_vocabulary(vocabulary)
    session = [4, 7, 1]
    numbers = np.array([[11 - item for item in session]])
    belief = process.start_belief(numbers[:, 0])
    for previous, current in zip(numbers.T, numbers.T[1:], strict=False):
        belief = process.update(belief, previous, current)
    expected = process.next_item_probabilities(belief, numbers[:, -1])[0, ::-1]
    np.testing.assert_allclose(scores_after(model, session), expected, rtol=1e-12)


def test_oracle_refuses_items_that_are_not_of_its_process() -> None:
    with pytest.raises(SessRecError, match="none of the synthetic process's"):
        Oracle(process_items=5).set_vocabulary(make_vocabulary(3))


@pytest.mark.parametrize("name", ["Popularity", "Markov", "SKNN", "SPop", "Random", "GRU4Rec"])
def test_cases_098_and_102_models_agree_on_data_and_rules_whatever_the_epochs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head, *rows = (ROOT / "tests" / "cases" / "098" / "train.csv").read_text().split()
    events = [row.split(",") for row in rows]  # for training, and once more for validation and for the test
    parts = [f"{part}{s},{i},{int(t) + 100 * n}" for n, part in enumerate(("", "v", "t")) for s, i, t in events]
    Path("log.csv").write_text("\n".join([head, *parts]) + "\n")
    cuts = {"test_start": 201, "val_duration": 50}
    options = [word for option, value in cuts.items() for word in (f"--data.{option}", str(value))]
    small = ["--model.layers", "[8]", "--model.n_sample", "4"] if name == "GRU4Rec" else []
    run = fit_log("log.csv", *options, "--trainer.max_epochs", "10", *small, model=name)
    for command in (validate, test):
        command.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    kept = json.loads((run / "metrics.json").read_text())
    protocol = {"items_ranked": 3, "tie_mode": "conservative", "exclude_last": False, "exclude_seen": False}
    assert protocol.items() <= kept["protocol"].items()
    assert kept["data"]["positions"] == 4
    model = getattr(models, name).load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.vocabulary.item_ids == ["a", "b", "c"]
    assert model.vocabulary.counts.tolist() == [3, 2, 2]
    if isinstance(model, Popularity | Markov):
        assert model.counts.tolist() == [3, 2, 2]
    data = SessionDataModule("log.csv", cache_dir=None, **cuts)  # type: ignore[arg-type]
    make_trainer(tmp_path).test(model, data, verbose=False)
    assert model.results == kept["metrics"]
