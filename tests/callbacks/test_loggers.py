"""The folder and the curves of a run with any logger; the trackers of other packages are in test_trackers.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers import everything_in, one_error, random_rows
from resuming import curves, stop_at_step
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sessrec import compare, fit, predict, test, validate

GRU = [
    *("--model", "GRU4Rec", "--model.layers", "[4]", "--data.batch_size", "8", "--data.path", "clicks.tsv"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"),
    *("--trainer.log_every_n_steps", "1", "--data.steps_per_window", "10", "--data.cache_dir", "null"),
]
ONE = Path("lightning_logs", "gru4rec-1")
CSV_IN_LOGS = "{class_path: CSVLogger, init_args: {save_dir: logs}}"
FILES = {"hparams.yaml", "metrics.csv"}
CSV = ["--trainer.logger", "CSVLogger"]


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]) -> None:
    """Goes to an empty folder with a log."""
    monkeypatch.chdir(tmp_path)
    write_log(random_rows(120))


def again(run: Path, checkpoint: str = "last") -> list[str]:
    return ["--config", str(run / "config.yaml"), "--ckpt_path", checkpoint]


def test_compare_finds_its_runs_where_the_loggers_of_its_configs_keep_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where none has a folder, or several have one; the runs have the names that compare gives."""
    elsewhere = {"class_path": "CSVLogger", "init_args": {"save_dir": "here"}}
    both = [elsewhere, {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "."}}]
    loggers = {"csv": ("Popularity", elsewhere), "none": ("Markov", False), "both": ("AR", both), "usual": ("SR", True)}
    for name, (model, logger) in loggers.items():
        config = {"model": {"class_path": model}, "trainer": {"logger": logger, "accelerator": "cpu"}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    words = ["--name", "c", "--data.path", "clicks.tsv", "--data.cache_dir", "null"]
    compare.main(["--configs", "csv.yaml", "none.yaml", "both.yaml", "usual.yaml", *words])
    assert {file.parent.as_posix() for file in Path().rglob("metrics.json")} == {
        *("here/lightning_logs/c-csv-1", "lightning_logs/c-none-1", "here/lightning_logs/c-both-1"),
        "lightning_logs/c-usual-1",
    }
    table = capsys.readouterr().out
    assert all(f"\n| {name} " in table for name in loggers)


def rows_of(run: Path) -> list[tuple[str, int, str]]:
    """Name, step and value of all that a CSV logger has."""
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(name, int(row["step"]), value) for row in rows for name, value in row.items() if value and name != "step"]


@pytest.mark.parametrize(
    ("words", "folder", "files"),
    [
        (["--trainer.logger", "false"], ONE, set()),
        (["--trainer.logger", "false", "--trainer.default_root_dir", "my/run"], "my/run", set()),
        (["--trainer.logger", "true"], ONE, {"hparams.yaml"}),
        (CSV, ONE, FILES),
        ([*CSV, "--trainer.logger.name", "a", "--trainer.logger.version", "3"], "a/version_3", FILES),
        (
            ["--trainer.logger", f"[{CSV_IN_LOGS}, {CSV_IN_LOGS.replace('CSV', 'TensorBoard')}]"],
            "logs/lightning_logs/gru4rec-1",
            FILES,
        ),
    ],
    ids=["none", "none, in a folder", "default", "csv", "csv in a folder", "two"],
)  # fmt: skip
def test_the_run_is_whole_with_any_logger(words: list[str], folder: str | Path, files: set[str]) -> None:
    fit.main([*GRU, *words])
    run = Path(folder)
    last = (run / "checkpoints" / "last.ckpt").read_bytes()
    test.main(again(run, "best"))
    validate.main(["--ckpt_path", str(run / "checkpoints" / "best.ckpt")])  # finds its run without the config
    fit.main(again(run))  # which has nothing to do
    whole = {"config.yaml", "data_report.json", "fit.json", "metrics.json", "ranks.parquet"}
    assert whole | files <= everything_in(run)
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == last
    runs = {file.parent for file in Path().rglob("config.yaml")} | {file.parents[1] for file in Path().rglob("*.ckpt")}
    assert runs == {run}
    has_tensorboard = any(word == "true" or "TensorBoard" in word for word in words)
    assert any(Path().rglob("events.out.*")) == has_tensorboard


def test_csv_has_each_value_once_after_stops_and_tests() -> None:
    fit.main([*GRU, *CSV, "--trainer.logger.version", "straight"])
    with stop_at_step(14), pytest.raises(SystemExit):
        fit.main([*GRU, *CSV, "--trainer.logger.version", "stopped", "--checkpoint.every_n_steps", "1"])
    run = ONE.with_name("stopped")
    before = [row for row in rows_of(run) if "per_second" not in row[0]]
    assert before
    with (run / "metrics.csv").open("a") as stream:  # as if a killed process had logged more than it has saved
        names = (run / "metrics.csv").read_text().splitlines()[0].split(",")
        stream.write(",".join("999" if name == "step" else "7" for name in names) + "\n")
    fit.main(again(run))
    test.main(again(run))
    test.main(again(run))
    found = [row for row in rows_of(run) if "per_second" not in row[0]]
    straight = [row for row in rows_of(ONE.with_name("straight")) if "per_second" not in row[0]]
    assert found[: len(before)] == before
    assert sorted(row for row in found if not row[0].startswith("test/")) == sorted(straight)
    assert len([row for row in found if row[0] == "test/mrr@20"]) == 2
    fit.main([*again(run), "--trainer.max_epochs", "3"])
    steps = [step for name, step, _ in rows_of(run) if name == "final/step"]
    assert steps == [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]]


def test_only_a_validation_of_the_fit_is_a_curve() -> None:
    """One value a step: neither a sanity check nor `validate` nor the one after a stop adds any."""
    words = [*GRU, "--trainer.num_sanity_val_steps", "1", "--trainer.val_check_interval", "1.0"]
    fit.main([*words, *CSV, "--trainer.max_epochs", "1", "--trainer.logger.version", "sane"])
    fit.main([*words, "--trainer.logger.version", "boarded"])
    sane, boarded = ONE.with_name("sane"), ONE.with_name("boarded")
    steps = [step for name, step, _ in rows_of(sane) if name == "val/mrr@20"]
    assert len(steps) == 1
    assert steps[0] > 0
    before, files = curves(boarded), everything_in(boarded)
    assert len(before["val/mrr@20"]) == 2
    validate.main(again(boarded))
    predict.main(["--ckpt_path", str(boarded / "checkpoints" / "last.ckpt")])
    assert curves(boarded) == before
    assert everything_in(boarded) == files
    text = (sane / "metrics.csv").read_text()
    validate.main(again(sane))
    assert (sane / "metrics.csv").read_text() == text


def test_results_name_their_step(capsys: pytest.CaptureFixture[str]) -> None:
    fit.main([*GRU, "--trainer.max_epochs", "1"])
    epoch = json.loads((ONE / "fit.json").read_text())["steps"]
    assert f"\nvalidation of step {epoch}\nval " in capsys.readouterr().out
    end = epoch + 4
    fit.main([*again(ONE), "--trainer.max_epochs", "2", "--trainer.max_steps", str(end)])
    assert f"\nvalidation of step {epoch}; the fit went on to step {end}\nval " in capsys.readouterr().out
    kept = json.loads((ONE / "fit.json").read_text())
    assert (kept["steps"], kept["validation"]["step"]) == (end, epoch)
    assert kept["validation"]["metrics"]["val/mrr@20"] == checkpoint_results(ONE)["val/mrr@20"]
    for checkpoint, step in (("best", epoch), ("last", end)):
        test.main(again(ONE, checkpoint))
        assert f"\nweights of step {step} ({ONE}/checkpoints/{checkpoint}.ckpt)\ntest " in capsys.readouterr().out
        assert json.loads((ONE / "metrics.json").read_text())["step"] == step
    validate.main(again(ONE))
    assert f"\nweights of step {end} (" in capsys.readouterr().out


def checkpoint_results(run: Path) -> dict[str, float]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["results"]


def test_a_test_shows_its_results_before_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    fit.main([*GRU])
    capsys.readouterr()
    test.main([*again(ONE), "--list_length", "5"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    places = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in
              ("test of GRU4Rec", "recall", "| slice", "lists of 5", "read ", "warning: ")]  # fmt: skip
    assert places[0] == 0
    assert places == sorted(places)
    assert sum(line.startswith("recall") for line in lines) == 1


def test_the_page_of_parameters_has_all_that_a_fit_was_asked_for() -> None:
    fit.main([*GRU, "--seed_everything", "7"])
    expected = {
        **{"model": "GRU4Rec", "seed": 7, "max_epochs": 2, "batch_size": 8, "learning_rate": 0.1, "layers": [4]},
        **{"path": "clicks.tsv", "test_ratio": 0.2, "steps_per_window": 10, "min_session_length": 2},
    }
    kept = yaml.safe_load((ONE / "hparams.yaml").read_text())
    assert {name: kept[name] for name in expected} == expected
    assert not [name for name, value in kept.items() if name.startswith("_") or isinstance(value, dict)]
    page = EventAccumulator(str(ONE)).Reload()
    summary = page.summary_metadata["_hparams_/session_start_info"].plugin_data.content.decode("utf-8", "replace")
    assert all(name in summary for name in [*expected, "clicks.tsv"])
    assert {"final/val/mrr@20", "final/step"} <= set(page.Tags()["scalars"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.barebones", "true"], "--trainer.barebones true keeps no checkpoint and no result: give --"),
        (["--trainer.logger", "false", "--trainer.default_root_dir", "old"], "exists: give another --trainer.default_"),
        ([*CSV, "--trainer.logger.version", ".."], "is no name for a run inside"),
    ],
)  # fmt: skip
def test_what_keeps_no_run_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    Path("old/checkpoints").mkdir(parents=True)
    Path("old/checkpoints/last.ckpt").touch()
    before = everything_in(Path())
    assert said in one_error(capsys, fit.main, [*GRU, *words])
    assert everything_in(Path()) == before


@pytest.mark.parametrize(("logger", "extra"), [("MLFlowLogger", "mlflow"), ("WandbLogger", "wandb")])
def test_a_tracker_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, logger: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = one_error(capsys, fit.main, [*GRU, "--trainer.logger", logger])
    assert message.endswith(
        f"--trainer.logger {logger} needs {extra}, which is not installed: pip install sessrec[{extra}]"
    )


def test_a_csv_whose_last_row_was_cut_off_is_resumed() -> None:
    fit.main([*GRU, *CSV, "--trainer.max_epochs", "1"])
    before = rows_of(ONE)
    with (ONE / "metrics.csv").open("a") as stream:
        stream.write("0.1")
    fit.main([*again(ONE), "--trainer.max_epochs", "2"])
    after = rows_of(ONE)
    assert {row for row in before if not row[0].startswith("final")} < set(after)
    assert max(step for _, step, _ in after) > max(step for _, step, _ in before)


def test_a_checkpoint_finds_the_run_of_a_list_of_loggers_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    both = f"[{CSV_IN_LOGS}, {CSV_IN_LOGS.replace('CSV', 'TensorBoard')}]"
    fit.main([*GRU, "--trainer.logger", both, "--data.path", str(Path("clicks.tsv").resolve())])
    run = Path("logs", "lightning_logs", "gru4rec-1").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    test.main(["--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    assert (run / "metrics.json").exists()
    assert everything_in(Path()) == set()


@pytest.mark.parametrize("config", ["name: x", "", "trainer: [", "trainer: {logger: {class_path: no.such.Logger}}"])
def test_a_config_beside_a_checkpoint_that_is_none_of_a_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit.main(["--model", "Popularity", "--data.path", "clicks.tsv", "--trainer.accelerator", "cpu"])
    Path("mine", "models").mkdir(parents=True)
    checkpoint = Path("lightning_logs", "popularity-1", "checkpoints", "best.ckpt").rename("mine/models/my.ckpt")
    Path("mine", "config.yaml").write_text(config)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        predict.main(["--ckpt_path", str(checkpoint), "--data.path", "clicks.tsv"])
    assert end.value.code == 2
    assert "config.yaml, beside the checkpoint's folder, is no config of a run" in capsys.readouterr().err
