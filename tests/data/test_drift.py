"""The synthetic process that changes from day to day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import one_error

from sessrec import synth
from sessrec.data.drift import DriftingProcess
from sessrec.data.synthetic import FIRST_DAY, SyntheticProcess
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.models import Oracle

DAY = 86_400


def test_without_drift_each_day_is_the_process_of_the_seed() -> None:
    still, plain = DriftingProcess(60, seed=5), SyntheticProcess(60, seed=5)
    for day in (0, 29):
        assert np.array_equal(still.process_of(day).successor_categories, plain.successor_categories)
        assert np.array_equal(still.process_of(day).link_items, plain.link_items)
    assert (still.item_of_place == np.arange(60)).all()
    assert still.n_items_ever == 60


def test_transitions_drift_at_the_rate_asked_for() -> None:
    """A row that is drawn anew is another one, but where the same few categories come out again."""
    process = DriftingProcess(2000, seed=5, drift=0.1)
    for day in (1, 17):
        before, after = process.process_of(day - 1), process.process_of(day)
        links = (before.link_items != after.link_items).any(axis=1).mean()
        rows = (before.successor_categories != after.successor_categories).any(axis=2).mean()
        assert links == pytest.approx(0.1, abs=0.03)
        assert rows == pytest.approx(0.1, abs=0.04)
        assert (after.link_items != np.arange(2000)[:, None]).all()  # no item is its own link
        assert np.array_equal(before.start_probabilities, after.start_probabilities)
    whole = DriftingProcess(2000, seed=5, drift=1.0)
    assert (whole.process_of(0).link_items != whole.process_of(1).link_items).mean() > 0.99


def test_items_vanish_for_new_ones_and_never_come_back() -> None:
    process = DriftingProcess(500, seed=1, turnover=0.05)
    seen: set[int] = set(range(500))
    for before, after in zip(process.item_of_place, process.item_of_place[1:], strict=False):
        changed = before != after
        assert changed.mean() == pytest.approx(0.05, abs=0.035)
        new = set(after[changed].tolist())
        assert len(new) == changed.sum()
        assert not new & seen
        seen |= new
    assert process.n_items_ever == len(seen)


def test_sessions_follow_the_process_of_their_day() -> None:
    process = DriftingProcess(80, seed=2, drift=0.2, turnover=0.1, link_weight=1.0, intent_weight=0.0)
    table = process.sample(3000, seed=3)
    assert table.equals(process.sample(3000, seed=3))
    starts = table.groupby("SessionId")["Time"].transform("min")
    day = ((starts - FIRST_DAY) // DAY).to_numpy()
    assert set(np.unique(day)) == set(range(30))
    for today in (0, 14, 29):
        links, place_of = process.process_of(today).link_items, process.item_of_place[today].tolist()
        rows = table[day == today]
        for items in rows.groupby("SessionId")["ItemId"].agg(list):
            places = [place_of.index(item - 1) for item in items]  # each is there on that day
            assert all(after in links[before] for before, after in zip(places, places[1:], strict=False))


def score_after(oracle: Oracle, session: list[int]) -> np.ndarray:
    queries = oracle.encode(torch.tensor([session]))[0, -1:]
    return oracle.score(queries, slice(0, oracle.n_items)).numpy()[0]


def test_the_oracle_of_a_day_knows_that_day_alone() -> None:
    process = DriftingProcess(12, seed=3, drift=0.3, turnover=0.1)
    oracle = Oracle(process_items=12, process_seed=3, process_drift=0.3, process_turnover=0.1, process_day=20)
    n_ever = process.n_items_ever
    oracle.set_vocabulary(Vocabulary([str(number + 1) for number in range(n_ever)], np.ones(n_ever, dtype=np.int64)))
    today, items = process.process_of(20), process.item_of_place[20]
    gone = next(item for item in range(12) if item not in items)
    first, second = items[4], items[9]
    belief = today.start_belief(np.array([4]))
    belief = today.update(belief, np.array([4]), np.array([9]))
    expected = np.zeros(n_ever)
    expected[items] = today.next_item_probabilities(belief, np.array([9]))[0]
    found = score_after(oracle, [first, gone, second])  # an item that is gone tells nothing
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[gone] == 0
    np.testing.assert_allclose(score_after(oracle, [gone])[items], today.popularity)


def test_the_oracle_takes_the_day_on_which_training_ends() -> None:
    oracle = Oracle(process_items=12, process_drift=0.1)
    for time, day in ((FIRST_DAY + 7 * DAY - 60, 7), (FIRST_DAY + 7 * DAY + 60, 7), (FIRST_DAY - 10**6, 0)):
        oracle.trained_until = time
        assert oracle.day == day


def test_the_command_writes_what_the_process_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--n_sessions", "50", "--n_items", "30", "--seed", "4", "--output", str(tmp_path / "log.tsv")]
    synth.main([*words, "--drift", "0.1", "--turnover", "0.2"])
    expected = DriftingProcess(30, 4, 0.1, 0.2).sample(50, seed=4)
    assert (tmp_path / "log.tsv").read_text() == expected.to_csv(sep="\t", index=False)
    for option in ("drift", "turnover"):
        assert f"{option} is 1.5: give a value from 0 to 1" in one_error(
            capsys, synth.main, [*words, f"--{option}", "1.5"]
        )
    for day, limit in ((-1, "at least 0"), (30, "at most 29")):
        with pytest.raises(SessRecError, match=f"process_day must be {limit}"):
            Oracle(process_day=day)
