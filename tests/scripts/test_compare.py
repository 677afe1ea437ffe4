"""`sessrec compare`: several models on one log, one table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from helpers import random_rows

from sessrec.experiments.fit_and_test import is_random


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(80))]
    Path("log.tsv").write_text("\n".join(lines) + "\n")
    return importlib.import_module("sessrec.compare")


def words(*names: str) -> list[str]:
    small = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    return ["--configs", *names, "--data.path", "log.tsv", "--data.cache_dir", "null", *small]


def tables_of(text: str) -> list[list[list[str]]]:
    """Rows of every Markdown table, the head first."""
    tables = []
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        if lines:
            tables.append([[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines])
    return tables


def rows_of(text: str) -> list[list[str]]:
    """Rows of the table of metrics."""
    return tables_of(text)[0][1:]


def test_one_table_of_several_models(
    compare: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "save_figures", lambda *_: [])  # takes seconds
    args = [*words("random", "markov", "gru4rec"), "--seeds", "1", "2", "--output", "tables"]
    compare.main(args)
    file = Path("tables/comparison.md")
    text, out = file.read_text(), capsys.readouterr().out
    metrics, differences, *_ = tables_of(text)
    assert tables_of(out)[-2:] == [metrics, differences]
    assert metrics[0] == ["model", "fits", "Recall@20", "MRR@20", "MRR@20 of the fits", "fit", "test"]
    rows = metrics[1:]
    assert [row[:2] for row in sorted(rows)] == [["gru4rec", "2"], ["markov", "1"], ["random", "1"]]  # who draws: two
    values = [float(row[3].split()[0]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[-1][0] == "random"
    assert differences[0][0] == f"minus {rows[0][0]}"
    assert [row[0] for row in differences[1:]] == [row[0] for row in rows[1:]]
    assert differences[-1][-1].endswith("*")  # chance is worse, and not by chance

    found = [json.loads(Path(f"lightning_logs/compare-gru4rec-{seed}/metrics.json").read_text()) for seed in (1, 2)]
    own = next(row for row in rows if row[0] == "gru4rec")
    for place, metric in ((2, "test/recall@20"), (3, "test/mrr@20")):
        seeds = [report["metrics"][metric] for report in found]
        assert own[place].split()[0] == f"{sum(seeds) / 2:.4f}"
    assert own[4] == f"{min(seeds):.4f} - {max(seeds):.4f}"
    for row in rows:
        for cell in row[2:4]:
            value, low, high = (float(number.strip("[],")) for number in cell.split())
            assert low <= value <= high
    assert f"{found[0]['data']['positions']} positions" in text
    assert "all items candidates" in text
    assert "One fit only: " in text

    compare.main(args)  # what is fitted is not fitted again
    assert "nothing to do: the checkpoint lightning_logs/compare-gru4rec-2" in capsys.readouterr().out
    assert [row[:6] for row in rows_of(file.read_text())] == [row[:6] for row in rows]
    for seed in (1, 2):
        Path(f"lightning_logs/compare-gru4rec-{seed}/fit.json").unlink()
    compare.main(args[:-2])  # how long a fit took that was not begun here, is not known
    last = tables_of(capsys.readouterr().out)[-2]
    assert next(row[5] for row in last if row[0] == "gru4rec") == "-"


def test_runs_of_another_log_or_other_rules_are_refused(
    compare: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that are there already are not taken for what was asked for."""
    compare.main(words("markov"))
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(40, seed=4))]
    Path("other.tsv").write_text("\n".join(lines) + "\n")
    for more in (["--model.exclude_seen", "true"], ["--data.path", "other.tsv"]):
        with pytest.raises(SystemExit, match="^2$"):
            compare.main([*words("random", "markov"), "--name", "compare", *more])
        assert "error: the " in capsys.readouterr().err.splitlines()[-1]


def test_a_config_without_a_model_is_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws random numbers, as that of somebody else may."""
    monkeypatch.chdir(tmp_path)
    for text, has_seeds in (
        ("", True),
        ("data:\n  path: log.tsv\n", True),
        ("model:\n", True),
        ("model:\n  class_path: elsewhere.Model\n", True),
        ("model:\n  class_path: GRU4Rec\n", True),
        ("model:\n  class_path: Markov\n", False),
        ("model:\n  class_path: sessrec.models.VSKNN\n", False),
        ("model:\n  class_path: sessrec.models.SASRec\n", True),
        ("model:\n  class_path: elsewhere.VSKNN\n", True),
        ("model: SKNN\n", False),
        ("model: GRU4Rec\n", True),
    ):
        Path("c.yaml").write_text(text)
        assert is_random("c.yaml") is has_seeds


def test_wrong_words_are_one_line(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        compare.main(["--configs", "grurec"])
    assert "--configs grurec: no such file or shipped config; did you mean gru4rec?" in capsys.readouterr().err
