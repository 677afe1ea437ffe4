"""`scripts/sweep.py`: fits while an option changes and their table."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from helpers import ROOT, one_error, paint_blanks, random_rows

from sessrec import fit, test

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
    paint_blanks(monkeypatch)
    return importlib.import_module("sweep")


def rows_of(name: str) -> list[dict[str, str]]:
    with Path(f"lightning_logs/{name}/sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def metrics_of(run: str) -> dict[str, float]:
    return json.loads(Path("lightning_logs", run, "metrics.json").read_text())["metrics"]


def fitted_apart(words: list[str]) -> dict[str, float]:
    """Metrics of a fit and a test by the commands."""
    fit.main([*words, *SMALL, "--trainer.logger.version", "apart"])
    test.main(["--config", "lightning_logs/apart/config.yaml", "--ckpt_path", "best"])
    return metrics_of("apart")


def test_alpha(sweep: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["alpha", "--values", "0", "0.5", *SMALL]
    sweep.main(args)
    folder = Path("lightning_logs/sweep-alpha")
    text = (folder / "sweep.md").read_text()
    assert text in capsys.readouterr().out
    assert "All rows are measured on the same positions and against the same items." in text
    runs = ["sweep-alpha-Markov-0-1", "sweep-alpha-Markov-0.5-1"]
    rows = rows_of("sweep-alpha")
    assert [row["run"] for row in rows] == runs
    for row, line in zip(rows, text.splitlines()[2:], strict=False):
        own = [metrics_of(row["run"])[f"test/{name}"] for name in ("recall@20", "mrr@20")]
        assert [float(row["recall@20"]), float(row["mrr@20"])] == pytest.approx(own, abs=1e-12)
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        expected = [row["value"], "Markov", "1", *(f"{value:.4f}" for value in (float(row["validation"]), *own))]
        assert cells[:6] == expected
    assert metrics_of(runs[1]) == fitted_apart(["--model", "Markov", "--model.alpha", "0.5"])
    assert metrics_of(runs[0]) != metrics_of(runs[1])
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (folder / f"sweep.{kind}").read_bytes().startswith(start)
    kept = [Path("lightning_logs", run, "checkpoints", "last.ckpt") for run in runs]
    times = [file.stat().st_mtime_ns for file in kept]
    sweep.main(args)  # what is fitted is not fitted again
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert rows_of("sweep-alpha") == rows
    assert "error: the run lightning_logs/sweep-alpha-Markov-0-1 was fitted with" in one_error(
        capsys, sweep.main, [*args, "--data.min_item_support", "2"]
    )


def test_sessions_are_the_most_recent_and_the_test_stays(sweep: ModuleType) -> None:
    sweep.main(["sessions", "--values", "0.5", "1", "--models", "Markov", *SMALL])
    half, whole = rows_of("sweep-sessions")
    assert metrics_of("sweep-sessions-Markov-1-1") == fitted_apart(["--model", "Markov"])
    cut = pq.read_table("lightning_logs/sweep-sessions/recent-0.5-Markov.parquet")
    wanted = [row for row in random_rows(N_SESSIONS) if int(row[0][1:]) >= 32]  # 64 train, 16 test
    columns = [cut[name].to_pylist() for name in ("SessionId", "ItemId", "Time")]
    assert list(zip(*columns, strict=True)) == wanted
    assert half["test_sessions"] == whole["test_sessions"] == "16"
    assert int(half["train_sessions"]) < int(whole["train_sessions"])


def test_train_ratio_wins_over_another_split_and_draws_are_repeated(sweep: ModuleType) -> None:
    model = "model:\n  class_path: GRU4Rec\n  init_args:\n    layers: [4]\n    n_sample: 4\n"
    Path("tiny.yaml").write_text("data:\n  test_duration: 3h\n" + model)
    sweep.main(["train_ratio", "--values", "0.25", "--models", "tiny.yaml", "Markov", *SMALL])
    rows = rows_of("sweep-train_ratio")
    assert [row["run"].removeprefix("sweep-train_ratio-") for row in rows] == [
        "tiny-0.25-1",
        "tiny-0.25-2",
        "Markov-0.25-1",
    ]
    assert {row["test_sessions"] for row in rows} == {str(N_SESSIONS // 4)}
    found = [float(row["mrr@20"]) for row in rows[:2]]
    assert found[0] != found[1]
    text = Path("lightning_logs/sweep-train_ratio/sweep.md").read_text()
    assert f" {sum(found) / 2:.4f} ({min(found):.4f} - {max(found):.4f}) " in text


def test_several_options_change_together(sweep: ModuleType) -> None:
    sweep.main(
        [
            "filtering",
            "--values",
            "1+false",
            "1+true",
            "28+false",
            "--models",
            "Popularity",
            *SMALL,
            "--data.val_ratio",
            "0",
        ]
    )
    sequence = [row[:2] for row in random_rows(N_SESSIONS)]
    items = [item for _, item in sequence]
    repeats = sum(a == b for a, b in zip(sequence, sequence[1:], strict=False))
    rare = sum(items.count(item) < 28 for item in items)
    found = rows_of("sweep-filtering")
    assert [row["events_dropped_repeats"] for row in found] == ["0", str(repeats), "0"]
    assert int(found[2]["events_dropped_of_rare_items"]) >= rare > 0 < repeats
    assert int(found[2]["items_ranked"]) < int(found[0]["items_ranked"])
    text = Path("lightning_logs/sweep-filtering/sweep.md").read_text()
    assert "not measured on the same positions" in text
    assert text.count(" - |") == 3  # no validation part


def test_generated_sessions_have_the_oracle_as_their_ceiling(sweep: ModuleType) -> None:
    quick = ["--synth.n_sessions", "300", *SMALL[2:]]
    sweep.main(["catalogue", "--values", "20", "--models", "Oracle", "Popularity", *quick])
    oracle, popularity = rows_of("sweep-catalogue")
    assert oracle["items_ranked"] == popularity["items_ranked"] == "20"
    assert float(oracle["mrr@20"]) > float(popularity["mrr@20"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("alpha --values 0 2", "--model.alpha must be in [0, 1], got 2"),
        ("alpha --values 0.5 0.5", "one is given twice"),
        ("alpha --models Popularity", "unknown option --model.alpha of Popularity; it is one of Markov"),
        ("sessions --values 0 --models Markov", "--train_share must be above 0"),
        ("filtering --values 5", "the value 5 is of 1 options, and there are 2"),
        ("session_length --values 5+3", "--data.max_session_length 3 is below the minimum 5"),
        ("alpha --models nowhere.yaml", "--models nowhere.yaml: no such file or shipped config"),
        ("alpha --models Nothing", "Nothing"),
        ("alpha --output log.tsv", "is a file"),
        ("alpha --data.nothing 1", "--data.nothing"),
        ("alpha --seeds one", "--seeds must be a whole number, got 'one'"),
        ("everything", "name an experiment first, one of alpha"),
        ("--option model.alpha --models Markov", "no value is given"),
    ],
)
def test_wrong_words_are_one_line_before_any_fit(
    sweep: ModuleType, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert said in one_error(capsys, sweep.main, [*words.split(), *SMALL])
    assert not Path("lightning_logs").exists()
