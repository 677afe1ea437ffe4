"""The synthetic process against plain-Python enumeration, and the command that writes its sessions."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from sessrec import synth
from sessrec.data.synthetic import SyntheticProcess, generate_synthetic_sessions
from sessrec.errors import SessRecError


def tiny_process(n_items=5, n_intents=2, seed=3, **options):
    # frequent switches, links and noise: every term of the mixture counts
    options = {"switch_probability": 0.2, "intent_weight": 0.6, "link_weight": 0.25, **options}
    return SyntheticProcess(n_items=n_items, n_intents=n_intents, seed=seed, **options)


def step_probability(process, intent, item, following):
    """P(following | item, intent in force) from the documented mixture, one number at a time."""
    categories, q = process.item_categories, process.item_probabilities
    by_intent = 0.0
    for k, category in enumerate(process.successor_categories[intent, categories[item]]):
        if category == categories[following]:
            by_intent += process.successor_probabilities[k] * q[following]
    by_link = 0.0
    for m, linked in enumerate(process.link_items[item]):
        if linked == following:
            by_link += process.link_probabilities[item, m]
    by_noise = process.category_probabilities[categories[following]] * q[following]
    noise_weight = 1 - process.intent_weight - process.link_weight
    return process.intent_weight * by_intent + process.link_weight * by_link + noise_weight * by_noise


def switch_probability(process, old, new):
    if process.n_intents == 1:
        return 1.0
    return 1 - process.switch_probability if old == new else process.switch_probability / (process.n_intents - 1)


def sequence_probability(process, items):
    """P(items): the sum over every path of intents."""
    total = 0.0
    for path in itertools.product(range(process.n_intents), repeat=len(items)):
        category = process.item_categories[items[0]]
        weight = process.start_probabilities[path[0], category] * process.item_probabilities[items[0]]
        weight /= process.n_intents
        for step in range(1, len(items)):
            weight *= switch_probability(process, path[step - 1], path[step])
            weight *= step_probability(process, path[step], items[step - 1], items[step])
        total += weight
    return total


def filtered(process, prefixes):
    """The belief after each of the prefixes (equally long), int64 (sessions, length)."""
    prefixes = np.asarray(prefixes, dtype=np.int64)
    belief = process.start_belief(prefixes[:, 0])
    for step in range(1, prefixes.shape[1]):
        belief = process.update(belief, prefixes[:, step - 1], prefixes[:, step])
    return belief


@pytest.mark.parametrize(
    ("n_items", "n_intents", "length"),
    [(5, 2, 1), (5, 2, 2), (5, 2, 3), (5, 3, 4), (7, 3, 2), (2, 2, 3), (9, 1, 2), (11, 2, 3)],
)
def test_next_item_probabilities_match_enumeration(n_items, n_intents, length):
    process = tiny_process(n_items, n_intents)
    prefixes = np.array(list(itertools.product(range(n_items), repeat=length)), dtype=np.int64)
    prefixes = prefixes[:: max(1, len(prefixes) // 40)]
    got = process.next_item_probabilities(filtered(process, prefixes), prefixes[:, -1])
    for prefix, row in zip(prefixes.tolist(), got, strict=True):
        whole = sequence_probability(process, prefix)
        expected = [sequence_probability(process, [*prefix, item]) / whole for item in range(n_items)]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


def test_belief_is_about_the_intent_of_the_last_item():
    process = tiny_process(n_items=6, n_intents=3)
    prefix = [0, 4, 2]
    expected = np.zeros(3)
    for path in itertools.product(range(3), repeat=3):
        weight = process.start_probabilities[path[0], process.item_categories[0]]
        for step in (1, 2):
            weight *= switch_probability(process, path[step - 1], path[step])
            weight *= step_probability(process, path[step], prefix[step - 1], prefix[step])
        expected[path[-1]] += weight
    np.testing.assert_allclose(filtered(process, [prefix])[0], expected / expected.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_items", [2, 3, 21, 300])
def test_every_table_is_a_distribution(n_items):
    process = SyntheticProcess(n_items=n_items, n_intents=4)
    totals = [
        process.popularity.sum(),
        process.category_probabilities.sum(),
        process.start_probabilities.sum(axis=1),
        process.successor_probabilities.sum(),
        process.link_probabilities.sum(axis=1),
        process.intent_transitions.sum(axis=1),
        process.intent_start.sum(),
        np.bincount(process.item_categories, weights=process.item_probabilities),
        process.intent_weight + process.link_weight + process.noise_weight,
    ]
    for total in totals:
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)
    assert (process.link_items != np.arange(n_items)[:, None]).all()
    items = np.arange(n_items)
    probabilities = process.next_item_probabilities(filtered(process, np.stack([items, items[::-1]], axis=1)), items)
    assert probabilities.shape == (n_items, n_items)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_samples_follow_the_exact_distribution():
    process = tiny_process(n_items=6, n_intents=2)
    table = process.sample(200_000, min_session_len=4, max_session_len=4, seed=1)
    items = table["ItemId"].to_numpy().reshape(-1, 4) - 1
    for length in (1, 2, 3, 4):
        cells = np.array(list(itertools.product(range(6), repeat=length)))
        expected = np.array([sequence_probability(process, cell) for cell in cells.tolist()])
        assert expected.sum() == pytest.approx(1, abs=1e-12)
        codes = items[:, :length] @ 6 ** np.arange(length)[::-1]
        observed = np.bincount(codes, minlength=len(cells)) / len(items)
        # five standard deviations of each cell, and a little for the rarest; the seed is fixed
        bound = 5 * np.sqrt(expected / len(items)) + 5 / len(items)
        assert (np.abs(observed - expected) < bound).all()


def test_memory_beyond_the_last_item_matters():
    process = SyntheticProcess()
    table = process.sample(4000, min_session_len=5, max_session_len=5, seed=0)
    items = table["ItemId"].to_numpy().reshape(-1, 5) - 1
    target = items[:, 4]

    def hits(belief):
        probabilities = process.next_item_probabilities(belief, items[:, 3])
        own = probabilities[np.arange(len(target)), target]
        return ((probabilities > own[:, None]).sum(axis=1) < 20).mean()

    whole, last = hits(filtered(process, items[:, :4])), hits(np.full((len(items), 8), 1 / 8))
    assert whole > 0.72
    assert whole > last + 0.1
    assert filtered(process, items[:, :3]).max(axis=1).mean() > 0.8  # the intent shows after two transitions


def test_seeds():
    table = generate_synthetic_sessions(n_sessions=50, n_items=30, seed=7)
    pd.testing.assert_frame_equal(table, generate_synthetic_sessions(n_sessions=50, n_items=30, seed=7))
    assert not table.equals(generate_synthetic_sessions(n_sessions=50, n_items=30, seed=8))
    one, other = SyntheticProcess(n_items=30, seed=7), SyntheticProcess(n_items=30, seed=8)
    assert (one.link_items != other.link_items).any()
    assert (one.successor_categories != other.successor_categories).any()
    assert not one.sample(50, seed=1).equals(one.sample(50, seed=2))
    pd.testing.assert_frame_equal(one.sample(50, seed=7), table)


@pytest.mark.parametrize(("shortest", "longest"), [(2, 2), (2, 20), (3, 4), (7, 7), (2, 200)])
def test_sessions_and_times(shortest, longest):
    table = generate_synthetic_sessions(400, 50, shortest, longest)
    assert list(table.columns) == ["SessionId", "ItemId", "Time"]
    assert (table.dtypes == np.int64).all()
    assert table["ItemId"].between(1, 50).all()
    lengths = table.groupby("SessionId").size()
    assert lengths.index.tolist() == list(range(1, 401))
    assert lengths.between(shortest, longest).all()
    assert lengths.min() == shortest
    assert (table["SessionId"].diff().dropna() >= 0).all()
    gaps = table.groupby("SessionId")["Time"].diff().dropna()
    assert gaps.between(1, 25 * 60).all()
    starts = table.groupby("SessionId")["Time"].first()
    assert (starts.diff().dropna() >= 0).all()
    assert starts.between(1_704_067_200, 1_704_067_200 + 30 * 86400 - 1).all()


def test_defaults_look_like_clicks():
    table = generate_synthetic_sessions()
    lengths = table.groupby("SessionId").size()
    assert len(lengths) == 20_000
    assert 4.5 < lengths.mean() < 5.5
    assert lengths.max() == 20
    gaps = table.groupby("SessionId")["Time"].diff().dropna()
    assert 35 < gaps.median() < 45
    hours = np.bincount(table["Time"] // 3600 % 24, minlength=24)
    assert hours[1:6].sum() < 0.25 * hours[17:22].sum()
    counts = np.bincount(table["ItemId"] - 1, minlength=1000)
    share = np.sort(counts)[::-1][:100].sum() / counts.sum()
    assert 0.4 < share < 0.65
    # popular items lie anywhere among the ids
    assert 0.2 < np.median(np.argsort(counts)[-100:]) / 1000 < 0.8


def test_two_items():
    table = generate_synthetic_sessions(n_sessions=200, n_items=2)
    assert set(table["ItemId"]) == {1, 2}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_sessions": 0}, "n_sessions is 0"),
        ({"n_items": 1}, "n_items is 1"),
        ({"min_session_len": 1}, "min_session_len is 1"),
        ({"min_session_len": 5, "max_session_len": 4}, "max_session_len is 4"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_invalid_arguments(options, name):
    with pytest.raises(SessRecError, match=f"{name}: give"):
        generate_synthetic_sessions(**{"n_sessions": 5, "n_items": 5, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"n_intents": 0},
        {"items_per_category": 0},
        {"n_successors": 5},
        {"n_links": 0},
        {"switch_probability": 1.1},
        {"intent_weight": -0.1},
        {"intent_weight": 0.5, "link_weight": 0.6},
        {"item_exponent": float("nan")},
    ],
)
def test_invalid_process(options):
    with pytest.raises(SessRecError, match=f"{list(options)[-1]} is "):
        SyntheticProcess(n_items=10, **options)


@pytest.fixture
def run_script(tmp_path, monkeypatch, capsys):
    """Calls the script in an empty folder, and gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*options):
        try:
            synth.main([str(option) for option in options])
        except SystemExit as end:
            return end.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", ["new/folder/out.tsv", "out.tsv.gz"])
def test_script_writes_the_table(run_script, tmp_path, name):
    code, stdout, stderr = run_script("--n_sessions", 30, "--n_items", 12, "--seed", 5, "--output", name)
    assert code == 0, stderr
    output = tmp_path / name
    assert (output.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    expected = generate_synthetic_sessions(n_sessions=30, n_items=12, seed=5)
    pd.testing.assert_frame_equal(pd.read_csv(output, sep="\t"), expected)
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    rows = dict(line.rsplit(maxsplit=1) for line in stdout.splitlines())
    assert rows["sessions"] == "30"
    assert rows["events"] == str(len(expected))
    assert rows["file"] == name


@pytest.mark.parametrize(
    "options",
    [
        ["--n_sessions", "0"],
        ["--min_session_len", "1"],
        ["--min_session_len", "5", "--max_session_len", "4"],
        ["--n_items", "1"],
        ["--n_items", "many"],
        ["--nonsense", "1"],
        ["--output", "."],
    ],
)
def test_script_refuses_bad_options(run_script, tmp_path, options):
    code, stdout, stderr = run_script("--output", "sub/out.tsv", *options)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert options[-2].lstrip("-") in stderr
    assert list(tmp_path.iterdir()) == []
