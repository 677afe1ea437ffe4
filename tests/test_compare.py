"""`scripts/compare.py`: several models on one log, one table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, random_rows


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(80))]
    Path("log.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("compare")


def words(*names: str) -> list[str]:
    configs = [str(ROOT / "configs" / f"{name}.yaml") for name in names]
    small = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    return ["--configs", *configs, "--data.path", "log.tsv", "--data.cache_dir", "null", *small]


def rows_of(text: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows][1:]


def test_one_table_of_several_models(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*words("random", "markov", "gru4rec"), "--seeds", "1", "2", "--output", "table.md"]
    compare.main(args)
    text = Path("table.md").read_text()
    assert text in capsys.readouterr().out
    rows = rows_of(text)
    assert [row[1] for row in sorted(rows)] == ["2", "1", "1"]  # gru4rec, markov, random: who draws has two seeds
    assert [float(row[3].split()[0]) for row in rows] == sorted(
        (float(row[3].split()[0]) for row in rows), reverse=True
    )
    assert rows[-1][0] == "random"
    found = [
        json.loads(Path(f"lightning_logs/compare-gru4rec-{seed}/metrics.json").read_text()) for seed in (1, 2)
    ]
    values = [report["metrics"]["test/recall@20"] for report in found]
    cell = next(row[2] for row in rows if row[0] == "gru4rec")
    assert cell == f"{sum(values) / 2:.4f} ({min(values):.4f} - {max(values):.4f})"
    assert f"positions {found[0]['data']['positions']}" in text
    assert "exclude seen False" in text
    compare.main(args)  # what is fitted is not fitted again
    assert "nothing to do: the checkpoint lightning_logs/compare-gru4rec-2" in capsys.readouterr().out
    assert rows_of(Path("table.md").read_text())[0][:5] == rows[0][:5]
    for seed in (1, 2):
        Path(f"lightning_logs/compare-gru4rec-{seed}/fit_seconds.json").unlink()
    compare.main(args)  # how long a fit took that was not begun here, is not known
    assert next(row[4] for row in rows_of(Path("table.md").read_text()) if row[0] == "gru4rec") == "-"


def test_runs_of_another_log_or_other_rules_are_refused(
    compare: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that are there already are not taken for what was asked for."""
    compare.main(words("markov"))
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(40, seed=4))]
    Path("other.tsv").write_text("\n".join(lines) + "\n")
    for more in (["--model.exclude_seen", "true"], ["--data.path", "other.tsv"]):
        with pytest.raises(SystemExit, match="^1$"):
            compare.main([*words("random", "markov"), "--name", "compare", *more])
        assert "error: the " in capsys.readouterr().err.splitlines()[-1]


def test_wrong_words_are_one_line(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        compare.main(["--configs", "nowhere.yaml"])
    assert "there is no config nowhere.yaml" in capsys.readouterr().err
