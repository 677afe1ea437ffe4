"""Models at many times of a log: windows counted by hand, figures by brute force, ageing with a known answer."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import one_error
from tested import write_rows

from sessrec import roll
from sessrec.data.drift import DriftingProcess
from sessrec.data.synthetic import FIRST_DAY
from sessrec.errors import SessRecError
from sessrec.rolling.state import only_one
from sessrec.rolling.windows import Plan

DAY = 86_400
LOGS = Path("lightning_logs")
QUICK = ["--trainer.accelerator", "cpu", "--data.val_ratio", "0", "--data.cache_dir", "null"]
Rows = list[tuple[str, str, int]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drifting_log(sessions: int = 900, **options: Any) -> Rows:
    table = DriftingProcess(40, seed=3, **options).sample(sessions, seed=5)
    return [(f"s{s}", f"i{i}", t) for s, i, t in table.itertuples(index=False)]


def rolled(*words: str, rows: Rows | None = None) -> pd.DataFrame:
    """The cells of a roll, after its command."""
    if rows is not None:
        write_rows(rows)
    roll.main(["--data.path", "log.tsv", *QUICK, *words])
    name = words[words.index("--name") + 1] if "--name" in words else "roll"
    return pd.read_csv(LOGS / name / "cells.csv")


# 1. Windows


def test_windows_end_with_the_log_or_begin_with_it() -> None:
    windows = Plan(3, train_window=5.0, step=2.0, horizon=4.0).windows(0.0, 19.5)
    assert [tuple(window) for window in windows] == [(1, 9.0, 14.0, 18.0), (2, 11.0, 16.0, 20.0), (3, 13.0, 18.0, 20.0)]
    whole = Plan(2, train_window=None, step=2.0, horizon=2.0).windows(0.0, 9.0)
    assert [(window.start, window.cut) for window in whole] == [(-np.inf, 6.0), (-np.inf, 8.0)]
    apart = Plan(2, train_window=3.0, step=6.0, horizon=1.0, offset=2.0).windows(10.0, 30.0)
    assert [tuple(window) for window in apart] == [(1, 12.0, 15.0, 16.0), (2, 18.0, 21.0, 22.0)]


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ((4, 5.0, 2.0, 2.0), "too short for 4 windows"),
        ((9, None, 1.0, 1.0), "too short for 9 windows"),
        ((1, 5.0, 2.0, 3.0), "--horizon must be at most --step, or a whole number of steps"),
        ((1, 5.0, 0.0, 3.0), "--step must be above 0"),
        ((1, None, 1.0, 1.0, 2.0), "--offset needs --train_window"),
    ],
)
def test_windows_that_cannot_be(plan: tuple[Any, ...], error: str) -> None:
    with pytest.raises(SessRecError, match=error):
        Plan(*plan).windows(0.0, 8.0)


def test_the_published_protocol_on_a_log_counted_by_hand() -> None:
    """A session at noon of each of 170 days: training of 30 days from day 5, a test day, and so on every 31 days."""
    rows = [(f"s{day}", item, day * DAY + DAY // 2 + place) for day in range(170) for place, item in enumerate("abc")]
    rows[0] = ("s0", "a", 0)
    rolled("--models", "popularity", "--preset", "session-rec-rsc15", rows=rows)
    windows = pd.read_csv(LOGS / "roll" / "windows.csv")
    assert windows["train_sessions"].tolist() == [30] * 5
    assert windows["test_sessions"].tolist() == [1] * 5
    for number in range(1, 6):
        train, test = (
            sorted(
                set(
                    pq.read_table(LOGS / "roll" / "logs" / f"window-{number:02d}-{part}.parquet")[
                        "SessionId"
                    ].to_pylist()
                )
            )
            for part in ("train", "test")
        )
        first = 5 + 31 * (number - 1)
        assert train == sorted(f"s{day}" for day in range(first, first + 30))
        assert test == [f"s{first + 30}"]


# 2. Figures, by brute force


def by_hand(rows: Rows, cut: float, window: float, step: float, horizon: float) -> dict[int, Counter[str]]:
    """What the most popular items of a window give in each step after its cut: plain Python."""
    sessions: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for session, item, t in rows:
        sessions[session].append((item, t))
    heads = [
        [item for item, t in events if t < cut] for events in sessions.values() if cut - window <= events[0][1] < cut
    ]
    counts = Counter(item for head in heads if len(head) > 1 for item in head)
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for events in sessions.values():
        if cut <= events[0][1] < cut + horizon:
            age, known = int((events[0][1] - cut) // step), False
            found[age]["sessions"] += 1
            for place, (item, _) in enumerate(events):
                if place:
                    found[age]["positions"] += 1
                    found[age]["unknown_targets"] += item not in counts
                    is_ranked = known and item in counts
                    found[age]["unranked"] += not is_ranked
                    rank = sum(count >= counts[item] for count in counts.values())
                    found[age]["recall@5"] += is_ranked and rank <= 5
                known |= item in counts
    return found


def test_every_cell_is_that_of_plain_python() -> None:
    rows = drifting_log(drift=0.1, turnover=0.08)
    words = ["--models", "popularity", "--train_window", "6d", "--step", "2d", "--horizon", "6d", "--windows", "4"]
    cells = rolled(*words, "--metrics", "recall@5", rows=rows)
    end = max(t for _, _, t in rows) + 1
    for number in range(1, 5):
        cut = end - (5 - number) * 2 * DAY
        expected = by_hand(rows, cut, 6 * DAY, 2 * DAY, 6 * DAY)
        own = cells[cells["window"] == number].set_index("age")
        assert set(own.index) == set(expected)
        for age, figures in expected.items():
            for name, value in figures.items():
                assert own.loc[age, name] == value, (number, age, name)
            assert own.loc[age, "step"] == number - 1 + age
            n_ranked = figures["positions"] - figures["unranked"]
            assert own.loc[age, "ranked recall@5"] == pytest.approx(figures["recall@5"] / n_ranked)
    assert cells["unknown_targets"].sum() > 50
    windows = pd.read_csv(LOGS / "roll" / "windows.csv")
    assert (windows[["train_events_at_or_after_t", "shared_sessions", "test_events_before_t"]] == 0).all(axis=None)
    page = (LOGS / "roll" / "roll.md").read_text()
    fresh = cells[cells["age"] == 0]
    values = fresh["recall@5"] / fresh["positions"]
    assert f"| popularity | {values.mean():.4f} [" in page
    for age in (1, 2):  # losses, from the cells of the same steps
        aged = cells[cells["age"] == age].set_index("step")["recall@5"]
        both = fresh.set_index("step")["recall@5"].loc[[step for step in aged.index if step < 4]]
        assert f" {100 * (1 - aged.loc[both.index].sum() / both.sum()):.1f} % [" in page


# 3. Ways of retraining


def test_ways_of_retraining_share_what_is_the_same() -> None:
    words = ["--models", "gru4rec", "markov", "--retrain", "scratch", "warm", "never", "--data.replay", "0.5"]
    words += ["--train_window", "6d", "--step", "2d", "--windows", "3", "--trainer.max_epochs", "1"]
    words += ["--config=configs/markov.yaml"]  # once more
    cells = rolled(*words, rows=drifting_log(turnover=0.05))
    assert sorted(path.name for path in LOGS.iterdir()) == [
        *("roll", "roll-gru4rec-01", "roll-gru4rec-02", "roll-gru4rec-03", "roll-gru4rec-warm-02"),
        *("roll-gru4rec-warm-03", "roll-markov-01", "roll-markov-02", "roll-markov-03"),
    ]
    assert set(cells["model"]) == {
        *("gru4rec scratch", "gru4rec warm", "gru4rec never", "markov scratch", "markov never"),
    }
    configs = {run.name: yaml.safe_load((run / "config.yaml").read_text()) for run in LOGS.glob("roll-*")}
    starts = {name: Path(config["init_from"]).parts[1] for name, config in configs.items() if config["init_from"]}
    assert starts == {"roll-gru4rec-warm-02": "roll-gru4rec-01", "roll-gru4rec-warm-03": "roll-gru4rec-warm-02"}
    cuts = pd.read_csv(LOGS / "roll" / "windows.csv")["cut"].tolist()
    data = configs["roll-gru4rec-warm-03"]["data"]
    assert (float(data["train_start"]), data["replay"]) == (cuts[1], 0.5)
    assert configs["roll-gru4rec-02"]["data"]["replay"] is None
    never = cells[cells["model"] == "markov never"]
    assert never["age"].tolist() == never["step"].tolist() == [0, 1, 2]  # one model, older in each window
    fresh = cells[(cells["model"] == "markov scratch") & (cells["age"] == 0)]
    assert fresh["positions"].tolist() == never["positions"].tolist()


# 4. Ageing, where the answer is known


@pytest.mark.parametrize("change", [{"drift": 0.1, "turnover": 0.03}, {}])
def test_a_model_ages_as_the_oracle_says(change: dict[str, float]) -> None:
    """The oracle of a day, on the days after it: its loss is known from a large sample, and nothing without drift."""
    options = [f"process_{name}={value}" for name, value in change.items()]
    config = {"model": {"class_path": "Oracle", "init_args": {"process_items": 40, "process_seed": 3}}}
    config["model"]["init_args"] |= {name: float(value) for name, value in (one.split("=") for one in options)}  # type: ignore[index]
    Path("oracle.yaml").write_text(yaml.safe_dump(config))
    process = DriftingProcess(40, seed=3, **change)
    table = process.sample(7_000, seed=5)
    last = FIRST_DAY + 30 * DAY  # so that cuts lie at midnight
    table = pd.concat([table, pd.DataFrame({"SessionId": 0, "ItemId": 1, "Time": [last - 2, last - 1]})])
    write_rows(list(table.itertuples(index=False)))
    words = ["--models", "oracle.yaml", "--train_window", "5d", "--step", "1d", "--horizon", "4d", "--windows", "12"]
    cells = rolled(*words, "--metrics", "mrr@20")
    assert cells["step"].max() == 11
    large = process.sample(6_000 if change else 600, seed=99)
    assert_ages({age: expected_loss(process, large, age) for age in range(1, 4)}, change)


def expected_loss(process: DriftingProcess, large: pd.DataFrame, age: int) -> float:
    """What the process of a day loses on later days against that of the same day, from a large sample.

    Neither knows an item that appears on its day: training ends at midnight.
    """
    day = ((large.groupby("SessionId")["Time"].transform("min") - FIRST_DAY) // DAY).to_numpy()
    total = [0.0, 0.0]
    for today in range(18 + age, 30):
        sessions = large[day == today].groupby("SessionId")["ItemId"].agg(list).tolist()
        items = np.array([row + [0] * (20 - len(row)) for row in sessions]) - 1
        for place, own in enumerate((today - age, today)):
            total[place] += reciprocal_ranks(process, own, items)
    return 1 - total[0] / total[1]


def reciprocal_ranks(process: DriftingProcess, day: int, items: np.ndarray) -> float:
    """Sum of MRR@20 at all positions of sessions, -1 behind their ends, by the process of a day."""
    own, here = process.process_of(day), process.item_of_place[day]
    place_of = np.full(process.n_items_ever + 1, -1)  # the last one is that of no item
    place_of[here] = np.where(here == process.item_of_place[day - 1], np.arange(len(here)), -1)
    total, belief, last = 0.0, np.full((len(items), own.n_intents), np.nan), np.full(len(items), -1)
    for column in items.T:
        place = place_of[column]
        for session in np.flatnonzero(place >= 0).tolist():
            now = place[[session]]
            if last[session] < 0:
                belief[session] = own.start_belief(now)[0]
            else:
                scores = own.next_item_probabilities(belief[[session]], last[[session]])[0, place_of[here] >= 0]
                rank = (scores >= scores[(np.cumsum(place_of[here] >= 0) - 1)[now[0]]]).sum()
                total += 1 / rank if rank <= 20 else 0.0
                belief[session] = own.update(belief[[session]], last[[session]], now)[0]
            last[session] = now[0]
    return total


def assert_ages(expected: dict[int, float], change: dict[str, float]) -> None:
    page = (LOGS / "roll" / "roll.md").read_text()
    for age, loss in expected.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| oracle | {age:>3} |"))
        value, low, high = (float(text.strip("%[], ")) for text in row.split("|")[3].replace("%", "").split())
        assert low - 0.06 <= 100 * loss <= high + 0.06, (age, row, loss)  # as printed, to a tenth
        assert low <= value <= high
    if change:
        assert expected[1] < expected[2] < expected[3]
        assert expected[3] > 0.1
    else:
        assert all(abs(loss) < 1e-12 for loss in expected.values())


# 5. Stopped, and gone on with


def test_killed_at_any_moment_it_goes_on_and_gives_the_same_table() -> None:
    write_rows(drifting_log(turnover=0.05))
    words = ["--data.path", "log.tsv", *QUICK, "--models", "markov", "gru4rec", "--retrain", "scratch", "warm"]
    words += ["--train_window", "8d", "--step", "2d", "--horizon", "4d", "--windows", "3", "--trainer.max_epochs", "1"]
    words += ["--seed_everything", "7"]
    roll.main([*words, "--name", "whole"])
    generator = random.Random(1)
    for workers in ("2", "1"):
        n_before = len(list(LOGS.glob("killed*")))
        child = os.fork()
        if not child:
            roll.main([*words, "--name", "killed", "--workers", workers])
            os._exit(0)
        begin = time.monotonic()
        while len(list(LOGS.glob("killed*"))) <= n_before:
            assert time.monotonic() < begin + 60
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    roll.main([*words, "--name", "killed"])
    tables = [pd.read_csv(LOGS / name / "cells.csv") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*tables)
    # and where all is there, nothing is fitted
    before = {run: run.stat().st_mtime_ns for run in LOGS.glob("killed-*/metrics.json")}
    roll.main([*words, "--name", "killed"])
    assert before == {run: run.stat().st_mtime_ns for run in LOGS.glob("killed-*/metrics.json")}


# 6. What is refused


def test_what_cannot_be_rolled_is_said_before_any_fit(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(drifting_log(200))
    base = ["--data.path", "log.tsv", *QUICK, "--models", "popularity", "--windows", "2"]

    def error(*words: str) -> str:
        return one_error(capsys, roll.main, [*base, *words])

    assert "give --models" in one_error(capsys, roll.main, ["--data.path", "log.tsv"])
    assert "--data.test_ratio is not for here: --horizon gives the test part" in error("--data.test_ratio", "0.2")
    assert "--data.train_start is not for here" in error("--data.train_start=5")
    assert "map@3 is no metric" in error("--metrics", "map@3")
    assert "--step is 'x'" in error("--step", "x")
    assert "too short for 99 windows" in error("--windows", "99", "--train_window", "9d")
    assert "--name '../a' is no name of a folder" in error("--name", "../a")
    assert "roll needs times" in error("--data.time_column", "null", "--step", "5")
    assert "no such file or shipped config" in error("--models", "markof")
    Path("popularity.yaml").write_text("model: Markov\n")
    assert "two of the --models have one name" in error("--models", "configs/popularity.yaml", "popularity.yaml")
    Path("popularity.yaml").unlink()
    assert "--model is not for here: --models names configs" in error("--model", "Markov")
    assert "--data.replay goes with --retrain warm" in error("--data.replay", "0.1")
    Path("own.yaml").write_text("model: Markov\ndata: {max_session_length: 3}\n")
    assert "--data.max_session_length is 3 for own and None for popularity" in error(
        "--models", "popularity", "own.yaml"
    )
    Path("own.yaml").write_text("model: Markov\ndata: {train_duration: 1d}\n")
    assert "the config of own has --data.train_duration" in error("--models", "own.yaml")
    Path("x-warm.yaml").write_text("model: NARM\n")
    Path("x.yaml").write_text("model: NARM\n")
    assert "would have one name" in error("--models", "x.yaml", "x-warm.yaml", "--retrain", "warm", "scratch")
    assert "--retrain must be scratch, warm or never" in error("--retrain", "hot")
    assert "unknown option --data.tset_ratio" in error("--data.tset_ratio", "1")
    assert not LOGS.exists() or not any(LOGS.iterdir())


def test_other_options_or_another_log_need_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "popularity", "--windows", "2", "--step", "2d"]
    rolled(*words, rows=drifting_log(200))
    base = ["--data.path", "log.tsv", *QUICK, *words]
    assert "--name roll is there with --step 2d" in one_error(capsys, roll.main, [*base, "--step", "1d"])
    error = one_error(capsys, roll.main, [*base, "--data.min_item_support", "2"])
    assert "is there with other models or options of the fits" in error
    write_rows(drifting_log(210))
    assert "is there with another click log: give another --name" in one_error(capsys, roll.main, base)
    write_rows(drifting_log(200))
    Path("popularity.yaml").write_text("model: Markov\n")  # of the same name
    changed = [word.replace("popularity", "popularity.yaml") for word in base]
    assert "is there with other models" in one_error(capsys, roll.main, changed)
    shutil.rmtree(LOGS / "roll")
    shutil.rmtree(LOGS / "roll-popularity-02")
    assert "is there, and of no roll of that name" in one_error(capsys, roll.main, base)


def test_windows_without_sessions_are_refused_before_any_fit(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in drifting_log(900) if not 20 * DAY <= row[2] - FIRST_DAY < 21.2 * DAY]
    end = FIRST_DAY + 24 * DAY  # so that a cut lies at the begin of day 20
    write_rows([*(row for row in rows if row[2] < end), ("end", "i1", end - 2), ("end", "i2", end - 1)])
    words = ["--data.path", "log.tsv", *QUICK, "--models", "popularity", "--windows", "5", "--step", "1d"]
    error = one_error(capsys, roll.main, [*words, "--train_window", "9d", "--horizon", "3d"])
    assert "has no test session in the 1.0 days after its cut, at" in error
    rows = [(s, f"new-{i}", t) if t >= FIRST_DAY + 22 * DAY else (s, i, t) for s, i, t in drifting_log(900)]
    end = FIRST_DAY + 23 * DAY
    write_rows([*(row for row in rows if row[2] < end), ("end", "new-1", end - 2), ("end", "new-2", end - 1)])
    error = one_error(capsys, roll.main, [*words, "--windows", "1", "--train_window", "9d"])
    assert "has no test session with two items of its training part" in error
    assert not LOGS.exists() or not any(LOGS.iterdir())


def test_two_commands_at_once_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "popularity", "--windows", "2", "--step", "2d"]
    rolled(*words, rows=drifting_log(200))
    with only_one(LOGS / "roll"):
        error = one_error(capsys, roll.main, ["--data.path", "log.tsv", *QUICK, *words])
    assert "another command works on lightning_logs/roll" in error
    rolled(*words)


def test_one_window_has_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "popularity", "markov", "--train_window", "8d", "--step", "2d", "--windows", "1"]
    cells = rolled(*words, rows=drifting_log())
    assert "nan" not in capsys.readouterr().out.split("Mean over windows")[1]
    values = (cells["mrr@20"] / cells["positions"]).set_axis(cells["model"])
    page = (LOGS / "roll" / "roll.md").read_text()
    assert f" {values['popularity'] - values['markov']:+.4f} | - |" in " ".join(page.split())


def test_a_horizon_shorter_than_a_step_counts_for_all_ways_alike() -> None:
    words = ["--models", "popularity", "--train_window", "8d", "--step", "2d", "--horizon", "1d", "--windows", "4"]
    cells = rolled(*words, "--retrain", "scratch", "never", rows=drifting_log())
    fresh = cells[(cells["model"] == "popularity scratch") & (cells["age"] == 0)]
    never = cells[cells["model"] == "popularity never"]
    assert len(fresh) == 4
    assert fresh["positions"].tolist() == never["positions"].tolist()


def test_a_failing_fit_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(drifting_log(300))
    words = ["--data.path", "log.tsv", *QUICK, "--models", "gru4rec", "--windows", "2", "--train_window", "8d"]
    error = one_error(capsys, roll.main, [*words, "--model.learning_rate", "1e30", "--trainer.max_epochs", "1"])
    assert "lightning_logs/roll-gru4rec-01: " in error
    assert "the fit has diverged" in error
