"""`scripts/sweep.py`: fits while one thing changes, their table and their figure."""

from __future__ import annotations

import csv
import importlib
import json
from itertools import groupby
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import ROOT, one_error, random_rows

from sessrec import fit, test
from sessrec.figures.sweeps import sweep_figure

pytestmark = pytest.mark.filterwarnings("ignore:at .* other items score exactly")
SMALL = ["--data.path", "log.tsv", "--data.cache_dir", "null", "--trainer.max_epochs", "1"]
SMALL += ["--trainer.accelerator", "cpu"]
N_SESSIONS = 80


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(N_SESSIONS))]
    Path("log.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("sweep")


def sessions() -> list[list[str]]:
    """The items of each session of the log."""
    return [[row[1] for row in rows] for _, rows in groupby(random_rows(N_SESSIONS), lambda row: row[0])]


def results(experiment: str) -> list[dict[str, str]]:
    with Path(f"lightning_logs/sweep-{experiment}/{experiment}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def table(experiment: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the Markdown table."""
    text = Path(f"lightning_logs/sweep-{experiment}/{experiment}.md").read_text()
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]
    return lines[0], lines[1:]


def metrics_of(run: str) -> dict[str, float]:
    return json.loads(Path("lightning_logs", run, "metrics.json").read_text())["metrics"]


def fitted_apart(words: list[str]) -> dict[str, float]:
    """Metrics of a fit and a test by the commands."""
    fit.main([*words, *SMALL, "--trainer.logger.version", "apart"])
    test.main(["--config", "lightning_logs/apart/config.yaml", "--ckpt_path", "best"])
    return metrics_of("apart")


def test_alpha(sweep: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["alpha", "--values", "0", "0.50", "--models", "Popularity", "chain=Markov", *SMALL]
    sweep.main(args)
    printed = capsys.readouterr().out
    assert Path("lightning_logs/sweep-alpha/alpha.md").read_text() in printed
    assert "[3/3] sweep-alpha-chain-0.5 Recall@20 " in printed
    assert "sessions read" not in printed
    assert "test cut" not in printed  # what a fit prints
    runs = ["sweep-alpha-Popularity-any", "sweep-alpha-chain-0", "sweep-alpha-chain-0.5"]
    rows = results("alpha")
    assert [row["run"] for row in rows] == runs
    for row, cells in zip(rows, table("alpha")[1], strict=True):
        own = metrics_of(row["run"])
        assert {name: float(row[name.removeprefix("test/")]) for name in own} == own
        assert cells[:3] == [row["value"], row["model"], "1"]
        assert cells[3:5] == [f"{own['test/recall@20']:.4f}", f"{own['test/mrr@20']:.4f}"]
    assert metrics_of(runs[2]) == fitted_apart(["--model", "Markov", "--model.alpha", "0.5"])
    assert metrics_of(runs[1]) != metrics_of(runs[2])
    assert "All rows are measured on the same positions and against the same items." in printed
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert Path(f"lightning_logs/sweep-alpha/alpha.{kind}").read_bytes().startswith(start)
    kept = [Path("lightning_logs", run, "checkpoints", "last.ckpt") for run in runs]
    times = [file.stat().st_mtime_ns for file in kept]
    sweep.main(args)  # what is fitted is not fitted again
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert results("alpha") == rows
    error = one_error(capsys, sweep.main, [*args, "--data.test_ratio", "0.5"])
    assert "the run sweep-alpha-Popularity-any ended with code 1: " in error
    assert "--data.test_ratio 0.5" in error


def test_sessions_are_the_most_recent_and_the_test_stays(sweep: ModuleType) -> None:
    sweep.main(["sessions", "--values", "0.5", "1", "--models", "Markov", *SMALL])
    half, whole = results("sessions")
    assert metrics_of("sweep-sessions-Markov-1") == fitted_apart(["--model", "Markov"])
    cut = pq.read_table("lightning_logs/sweep-sessions/recent-0.5.parquet")
    wanted = [row for row in random_rows(N_SESSIONS) if int(row[0][1:]) >= 32]  # 64 train, 16 test
    columns = [cut[name].to_pylist() for name in ("SessionId", "ItemId", "Time")]
    assert list(zip(*columns, strict=True)) == wanted
    for row, n_train in ((half, 32), (whole, 64)):
        assert int(row["train_sessions"]) + int(row["val_sessions"]) == n_train
        assert row["test_sessions"] == "16"


def test_train_ratio_wins_over_another_split(sweep: ModuleType) -> None:
    Path("split.yaml").write_text("data:\n  test_duration: 3h\n")
    sweep.main(["train_ratio", "--values", "0.75", "--models", "Markov", "--config", "split.yaml", *SMALL])
    assert results("train_ratio")[0]["test_sessions"] == str(N_SESSIONS // 4)
    own = fitted_apart(["--model", "Markov", "--data.test_ratio", "0.25"])
    assert metrics_of("sweep-train_ratio-Markov-0.75") == own


def test_filtering_says_what_was_dropped(sweep: ModuleType) -> None:
    sweep.main(["filtering", "--values", "none", "no-repeats", "support-28", "--models", "Popularity", *SMALL])
    items = [item for session in sessions() for item in session]
    repeats = sum(a == b for session in sessions() for a, b in zip(session, session[1:], strict=False))
    rare = sum(items.count(item) < 28 for item in items)
    assert repeats
    assert rare
    found = results("filtering")
    assert [row["dropped_repeats"] for row in found] == ["0", str(repeats), "0"]
    assert int(found[2]["dropped_of_rare_items"]) >= rare
    assert int(found[2]["items_ranked"]) < int(found[0]["items_ranked"])
    head, rows = table("filtering")
    assert [row[head.index("repeats dropped")] for row in rows] == ["0", str(repeats), "0"]
    assert [row[head.index("test positions")] for row in rows] == [row["test_positions"] for row in found]
    assert len({row["test_positions"] for row in found}) == 3
    assert "not measured on the same positions" in Path("lightning_logs/sweep-filtering/filtering.md").read_text()


def test_session_length(sweep: ModuleType) -> None:
    sweep.main(["session_length", "--values", "max-3", "min-4", "--models", "Popularity", *SMALL])
    lengths = [len(session) for session in sessions()]
    longest, least = results("session_length")
    assert int(longest["dropped_beyond_max_session_length"]) == sum(max(length - 3, 0) for length in lengths)
    assert int(least["dropped_in_short_sessions"]) == sum(length for length in lengths if length < 4)


def test_catalogue(sweep: ModuleType) -> None:
    quick = [word for word in SMALL if word not in ("--data.path", "log.tsv")]
    own = ["--n_sessions", "300", "--models", "Oracle", "Popularity"]
    sweep.main(["catalogue", "--values", "20", *own, *quick])
    rows = results("catalogue")
    assert [(row["value"], row["model"]) for row in rows] == [("20", "Oracle"), ("20", "Popularity")]
    assert {row["items_ranked"] for row in rows} == {"20"}
    assert Path("data/sweep-300-20.tsv").exists()
    assert "The Oracle knows the process" in Path("lightning_logs/sweep-catalogue/catalogue.md").read_text()
    sweep.main(["catalogue", "--values", "5", "--models", "Popularity", "--name", "own", *SMALL])
    config = yaml.safe_load(Path("lightning_logs/own-catalogue-Popularity-5/config.yaml").read_text())
    assert config["data"]["min_item_support"] == 5


def test_seeds_of_a_random_model(sweep: ModuleType) -> None:
    Path("tiny.yaml").write_text("model:\n  class_path: GRU4Rec\n  init_args:\n    layers: [4]\n    n_sample: 4\n")
    sweep.main(["train_ratio", "--values", "0.8", "--models", "tiny.yaml", "Popularity", "--seeds", "1", "2", *SMALL])
    names = [f"sweep-train_ratio-{name}" for name in ("tiny-0.8-1", "tiny-0.8-2", "Popularity-0.8")]
    assert [row["run"] for row in results("train_ratio")] == names
    found = [metrics_of(name)["test/mrr@20"] for name in names[:2]]
    assert found[0] != found[1]
    row = table("train_ratio")[1][0]
    assert row[2] == "2"
    assert row[4] == f"{sum(found) / 2:.4f} ({min(found):.4f} - {max(found):.4f})"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("alpha --values 0 2", "the value 2 is out of range"),
        ("alpha --values much", "the value 'much' is no number"),
        ("alpha --values 0.5 0.50", "a value is given twice"),
        ("alpha --models Popularity", "needs Markov among the models"),
        ("train_ratio --values 1.5", "the value 1.5 is out of range"),
        ("sessions --values 0", "the value 0 is out of range"),
        ("catalogue --values 0.5", "the value 0.5 is out of range"),
        ("filtering --values support", "the value 'support' is no rule"),
        ("session_length --values max-3+min-5", "--data.max_session_length 3 is below the minimum 5"),
        ("alpha --models nowhere.yaml", "there is no config nowhere.yaml"),
        ("alpha --models Nothing", "there is no model Nothing"),
        ("alpha --model Markov", "--model is the sweep's own"),
        ("alpha --n_items 5", "--data.path names a log"),
        ("alpha --output log.tsv", "is a file"),
        ("alpha --data.nothing 1", "--data.nothing"),
        ("alpha --data.test_ratio 0", "there is no test part"),
        ("alpha --model.cutoffs [5]", "--model.cutoffs"),
        ("alpha --seeds one", "argument --seeds"),
        ("everything", "invalid choice"),
    ],
)
def test_wrong_words_are_one_line_before_any_fit(
    sweep: ModuleType, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    args = words.split()
    assert said in one_error(capsys, sweep.main, [*args, *SMALL])
    assert not Path("lightning_logs").exists()


def test_a_failed_fit_is_named(sweep: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    error = one_error(capsys, sweep.main, ["alpha", "--models", "Popularity", "Markov", "--data.path", "nowhere.tsv"])
    assert "the run sweep-alpha-Popularity-any ended with code 1: no such file: nowhere.tsv" in error
    assert "--model Popularity" in error


def test_lines_of_the_figure() -> None:
    recall = {"Markov": [[0.2], [0.3], [0.4]], "GRU4Rec": [[0.3, 0.5], [], [0.5, 0.5]], "Oracle": [[0.6]] * 3}
    figure = sweep_figure("title", "alpha", [0.5, 0.0, 1.0], {"Recall@20": recall, "MRR@20": recall}, "Oracle")
    assert [axes.get_title() for axes in figure.axes] == ["Recall@20", "MRR@20"]
    axes = figure.axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert list(lines) == ["Markov", "GRU4Rec", "Oracle"]
    assert np.array_equal(lines["Markov"].get_xydata(), [[0, 0.3], [0.5, 0.2], [1, 0.4]])  # from left to right
    assert np.array_equal(lines["GRU4Rec"].get_xydata(), [[0.5, 0.4], [1, 0.5]])
    assert lines["Oracle"].get_linestyle() == "--"
    assert len({line.get_color() for line in lines.values()}) == 3
    assert len(axes.collections) == 1  # the band of the one with several fits
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "0.5", "0"]
    assert axes.get_xscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Markov", "GRU4Rec", "Oracle"]


def test_axes_of_the_figure() -> None:
    metrics = {"Recall@20": {"GRU4Rec": [[0.3, 0.5], [0.2, 0.3]]}}
    figure = sweep_figure("title", "filtering", ["none", "support-5+no-repeats"], metrics)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "support-5\n+ no-repeats"]
    assert len(axes.containers) == 1  # bars of the fits with several seeds
    assert sweep_figure("title", "sessions", [100.0, 2000.0], metrics).axes[0].get_xscale() == "log"
    assert axes.get_ylim()[0] == 0
