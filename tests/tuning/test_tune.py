"""The command tune: what a study measures, that it never sees the test part, and the one test at its end."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from helpers import TRAINER, one_error, paint_blanks, random_rows
from tested import write_rows

from sessrec import audit, fit, tune
from sessrec import test as run_test
from sessrec.evaluation.tested_runs import read_run
from sessrec.tuning.study import JOURNAL

LOG = ["--data.path", "log.tsv", "--trainer.accelerator", "cpu"]
MARKOV = ["--model", "Markov", *LOG, "--space", "markov.yaml"]
GRU = ["--model", "GRU4Rec", *LOG, "--space", "gru.yaml", "--model.n_sample", "4", "--data.batch_size", "8"]
SPACES = {
    "markov.yaml": "model.alpha: {low: 0.0, high: 1.0, step: 0.25}\n",
    "gru.yaml": 'model.layers: {low: 4, high: 12, step: 2, text: "[{}]"}\n'
    "model.learning_rate: {low: 0.01, high: 0.5, log: true}\n"
    "data.min_item_support: [1, 2]\n"
    "model.dropout_p_hidden: {low: 0.0, high: 0.5, step: 0.1}\n",
}
pytestmark = pytest.mark.filterwarnings("ignore:at .* other items score exactly")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paint_blanks(monkeypatch)
    write_rows(random_rows(120, 14))
    for name, text in SPACES.items():
        Path(name).write_text(text)
    return tmp_path


def trials_of(study: str) -> list[dict[str, str]]:
    """The rows of a study's table, without what it took."""
    with (Path("lightning_logs") / study / "trials.csv").open() as stream:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(stream)]


def validation_of(run: str) -> dict[str, Any]:
    return json.loads(Path("lightning_logs", run, "fit.json").read_text())["validation"]["metrics"]


def test_a_study_finds_what_fits_find(capsys: pytest.CaptureFixture[str]) -> None:
    tune.main([*MARKOV, "--study", "shop", "--trials", "9", "--final"])
    printed = capsys.readouterr().out
    found = trials_of("shop")
    assert len([row for row in found if row["state"] == "complete"]) == 5  # all there are
    assert "the search space has hardly any values that were not tried" in printed
    assert (found[0]["default"], found[0]["model.alpha"]) == ("True", "")
    for row in found:
        if row["state"] == "complete":
            alpha = row["model.alpha"] or "0"
            run = ["--trainer.logger.version", f"alpha-{alpha}"]
            fit.main(["--model", "Markov", *LOG, *TRAINER, "--model.alpha", alpha, *run])
            assert float(row["value"]) == validation_of(f"alpha-{alpha}")["val/mrr@20"]
    best = max(float(row["value"]) for row in found if row["value"])
    first = next(row for row in found if row["value"] and float(row["value"]) == best)
    config = yaml.safe_load(Path("lightning_logs/shop/best.yaml").read_text())
    assert config["model"]["init_args"]["alpha"] == float(first["model.alpha"] or 0)
    fit.main(["--config", "lightning_logs/shop/best.yaml", *LOG, *TRAINER, "--trainer.logger.version", "best"])
    assert validation_of("best")["val/mrr@20"] == best


def test_the_test_part_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, options = random_rows(120, 14), ["--trials", "3", "--max_epochs", "2", "--data.min_item_support", "2"]
    starts: dict[str, int] = {}
    for session, _, time in rows:
        starts.setdefault(session, time)
    cut = sorted(starts.values())[96]  # of the latest fifth
    for number, item in enumerate(("x0", "x1", "of-no-other")):
        write_rows([(s, item if starts[s] >= cut and time != cut else i, time) for s, i, time in rows])
        tune.main([*GRU, "--study", f"study-{number}", *options])
    first, second, third = (trials_of(f"study-{number}") for number in range(3))
    assert first == second == third
    assert len(first) == 3
    logs = [Path(f"lightning_logs/study-{number}/log.parquet").read_bytes() for number in range(3)]
    assert logs[0] == logs[1] == logs[2]


def test_trials_see_the_newest_share_and_the_final_fits_all() -> None:
    tune.main([*MARKOV, "--study", "shop", "--trials", "2", "--train_share", "0.25", "--final"])
    starts: dict[str, int] = {}
    for session, _, time in random_rows(120, 14):
        starts[session] = min(time, starts.get(session, time))
    before_test = sorted(starts, key=lambda session: starts[session])[:96]
    kept = pq.read_table("lightning_logs/shop/log.parquet")["SessionId"].to_pylist()
    assert set(kept) == set(before_test[-24:])
    report = json.loads(Path("lightning_logs/shop-default-1/data_report.json").read_text())
    assert report["train"]["sessions_before"] == 96


def test_one_test_of_the_best_and_the_default_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*GRU, "--study", "shop", "--trials", "5", "--max_epochs", "3", "--final", "--seeds", "1", "2"]
    words += ["--model.learning_rate", "0.001"]  # which the search soon beats
    tune.main(words)
    printed = capsys.readouterr().out
    best = max((row for row in trials_of("shop") if row["state"] == "complete"), key=lambda row: float(row["value"]))
    assert best["default"] == "False", "choose another log for this test"
    for name, trial in {"tuned": best["trial"], "default": "0"}.items():
        for seed in (1, 2):
            run = read_run(f"lightning_logs/shop-{name}-{seed}")
            origin = run.report["tuning"]
            assert (origin["trials"], str(origin["trial"]), origin["tests_of_this_study"]) == (5, trial, 1)
            config = yaml.safe_load((run.folder / "config.yaml").read_text())
            assert config["trainer"]["max_epochs"] == origin["epochs"]
            report = json.loads((run.folder / "data_report.json").read_text())
            assert "val" not in report
            assert report["train"]["sessions_before"] == 96  # training and validation part
    assert re.search(r"\| tuned +\| +2 \|", printed)
    assert re.search(r"\| default +\| +2 \|", printed)
    check_the_audit_of_tuning(capsys)
    text = one_error(capsys, tune.main, words)
    assert "was tested on" in text
    assert "--again" in text
    tune.main([*words, "--again", "--trials", "6", "--seeds", "1"])
    assert read_run("lightning_logs/shop-tuned-2-1").report["tuning"]["tests_of_this_study"] == 2


def check_the_audit_of_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [f"lightning_logs/shop-{name}-{seed}" for name in ("default", "tuned") for seed in (1, 2)]
    audit.main(["tuning", *runs, "--trials", "3", "--metrics", "mrr@20"])
    found = json.loads(Path("lightning_logs/audit-tuning/tuning.json").read_text())
    test = {run: read_run(run).report["metrics"]["test/mrr@20"] for run in runs}
    values = [value for value, _, _ in found["values"]["mrr@20"]["shop"]]
    assert values == pytest.approx([(test[runs[0]] + test[runs[1]]) / 2, (test[runs[2]] + test[runs[3]]) / 2])
    (number, validation, best), *others = found["trials"]["shop"]
    origin = read_run(runs[2]).report["tuning"]
    assert (number, validation) == (origin["trial"], origin["validation"])
    assert best == test[runs[2]]  # of the same options, epochs and seed
    complete = sorted(float(row["value"]) for row in trials_of("shop") if row["state"] == "complete")
    assert others[-1][1] == complete[0]  # the worst one
    assert f"shop: validation {validation:.4f}, test {best:.4f}; best test of" in found["remarks"][-1]
    assert Path("lightning_logs/audit-tuning/trials.png").is_file()
    fit.main(["--model", "Markov", *LOG, *TRAINER, "--trainer.logger.version", "other"])
    run_test.main(["--config", "lightning_logs/other/config.yaml", "--ckpt_path", "best"])
    text = one_error(capsys, audit.main, ["tuning", "lightning_logs/other"])
    assert "lightning_logs/other is of no study: `python -m sessrec.tune --final` makes runs" in text
    assert "give shop-default-*, too" in one_error(capsys, audit.main, ["tuning", *runs[2:]])
    assert "give shop-tuned-*, too" in one_error(capsys, audit.main, ["tuning", *runs[:2]])


def test_the_same_seed_is_the_same_study_also_in_parts() -> None:
    options = ["--trials", "5", "--max_epochs", "2", "--patience", "1"]
    tune.main([*GRU, "--study", "whole", *options])
    tune.main([*GRU, "--study", "parts", *options, "--trials", "2"])
    tune.main([*GRU, "--study", "parts", *options])
    tune.main([*GRU, "--study", "other", *options, "--seed", "1", "--trials", "3"])
    assert trials_of("whole") == trials_of("parts")
    assert trials_of("whole")[1:3] != trials_of("other")[1:]
    assert trials_of("whole")[0] == trials_of("other")[0]
    for row in trials_of("whole"):
        assert row["state"] in ("complete", "pruned")
        assert 1 <= int(row["epochs"]) <= 2


def test_a_trial_ends_in_time_and_a_fault_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("far.yaml").write_text("model.learning_rate: [1.0e+38]\n")
    tune.main([*GRU[:-6], "--space", "far.yaml", *GRU[-4:], "--study", "far", "--trials", "2", "--max_epochs", "1"])
    first, second = trials_of("far")
    assert (first["state"], second["state"]) == ("complete", "pruned")
    assert "the fit has diverged" in second["reason"]
    capsys.readouterr()
    options = ["--study", "brief", "--max_epochs", "10000", "--patience", "10000", "--minutes", "0.05"]
    tune.main([*GRU, *options])
    (only,) = trials_of("brief")
    assert (only["state"], only["reason"]) == ("complete", "its time was over")


def test_two_workers(capfd: pytest.CaptureFixture[str]) -> None:
    words = [*GRU, "--study", "two", "--trials", "4", "--max_epochs", "50", "--patience", "50", "--workers", "2"]
    words.append("--no_pruning")  # trials that are longer than the second worker takes to start
    subprocess.run([sys.executable, "-m", "sessrec.tune", *words], check=True)
    found = trials_of("two")
    assert [row["state"] for row in found].count("complete") + [row["state"] for row in found].count("pruned") == 4
    options = [tuple(row.items())[6:] for row in found if row["state"] != "known"]
    assert len(set(options)) == len(options)
    workers = re.findall(r'"worker":\["[^"]*",(\d+)\]', Path("lightning_logs/two", JOURNAL).read_text())
    assert len(set(workers)) == 2
    assert "(4 of 4 done)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--train_share", "0"], "--train_share must be above 0 and at most 1, got 0.0"),
        (["--train_share", "0.5", "--data.train_path", "log.tsv", "--data.path", "null"], "cuts one log"),
        (["--minutes", "0"], "--minutes must be above 0, got 0.0"),
        (["--study", "a/b"], "--study 'a/b' is no name of a folder"),
        (["--seeds", "1", "1"], "--seeds has one seed twice"),
        (["--again"], "--again goes with --final"),
        (["--monitor", "val/mmr@20"], "--monitor val/mmr@20 is none of the metrics .* did you mean val/mrr@20"),
        (["--trainer.max_epochs", "3"], "--trainer.max_epochs is not for here: --max_epochs and --patience"),
        (["--data.val_ratio", "0"], "give --data.val_ratio or --data.val_duration"),
        (["--space", "markow.yaml"], "--space markow.yaml: no such file or shipped search space; did you mean"),
        (["--model", "Popularity", "--space", "markov.yaml"], "alpha"),
        (["--data.path", "missing.tsv"], "missing.tsv"),
        (["--trails", "3"], "sessrec.tune: error: unknown option --trails; did you mean --trials?"),
        (["--max_epoch", "3"], r"unknown option --max_epoch; did you mean --max_epochs\?"),
    ],
)
def test_a_fault_is_told_before_any_trial(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, one_error(capsys, tune.main, [*MARKOV, *words]))
    assert not list(Path().rglob("trials.csv"))


def test_a_study_keeps_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    tune.main([*MARKOV, "--study", "shop", "--trials", "1"])
    log, before = Path("lightning_logs/shop/log.parquet"), Path("lightning_logs/shop/log.parquet").read_bytes()
    write_rows(random_rows(130, 14))
    text = one_error(capsys, tune.main, [*MARKOV, "--study", "shop", "--trials", "2"])
    assert "--study shop is there with another click log" in text
    assert log.read_bytes() == before


def test_a_model_without_a_space(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "Popularity", *LOG]
    assert "Popularity comes without a search space: give --space" in one_error(capsys, tune.main, words)
