"""Runs in MLflow and W&B, read back by their own packages: `make test-engines` installs them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import one_error, random_rows
from resuming import stop_at_step

from sessrec import fit, test, validate

GRU = [
    *("--model", "GRU4Rec", "--model.layers", "[4]", "--data.batch_size", "8", "--data.path", "clicks.tsv"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"),
    *("--trainer.log_every_n_steps", "1", "--data.steps_per_window", "10", "--data.cache_dir", "null"),
    *("--checkpoint.every_n_steps", "1"),
]
RUN = Path("lightning_logs", "gru4rec-1")
AGAIN = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "last"]
WHOLE = {"config.yaml", "data_report.json", "fit.json", "metrics.json", "ranks.parquet", "checkpoints"}
PARAMETERS = {
    "model": "GRU4Rec",
    "seed": "42",
    "max_epochs": "2",
    "batch_size": "8",
    "layers": "[4]",
    "test_ratio": "0.2",
}


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]) -> None:
    """Goes to an empty folder with a log."""
    monkeypatch.chdir(tmp_path)
    write_log(random_rows(120))


def fit_stop_resume_and_test(*words: str) -> None:
    """The life of a run."""
    with stop_at_step(14), pytest.raises(SystemExit):
        fit.main([*GRU, *words])
    fit.main(AGAIN)
    test.main(AGAIN)
    validate.main(AGAIN)
    assert {file.name for file in RUN.iterdir()} >= WHOLE


def steps_of_validations() -> list[int]:
    """The ends of both epochs."""
    steps = json.loads((RUN / "fit.json").read_text())["steps"]
    return [steps // 2, steps]


# MLflow


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    package = pytest.importorskip("mlflow", reason="needs mlflow: make test-engines")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    package.set_tracking_uri(None)  # which an earlier test has set
    return package


@pytest.mark.parametrize("store", ["file:./tracks", "sqlite:///tracks.db"])
def test_mlflow_has_the_whole_run(mlflow: Any, store: str) -> None:
    fit_stop_resume_and_test("--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", store)
    client = mlflow.MlflowClient(store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "lightning_logs"]
    (found,) = client.search_runs([experiment.experiment_id])  # the resumed fit and the test are of the same run
    assert found.info.run_name == "gru4rec-1"
    assert found.info.status == "FINISHED"
    assert {name: found.data.params[name] for name in PARAMETERS} == PARAMETERS
    history = {name: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, name)]
               for name in found.data.metrics}  # fmt: skip
    results = json.loads((RUN / "fit.json").read_text())["validation"]["metrics"]
    assert [step for step, _ in history["val/mrr_at_20"]] == steps_of_validations()
    for name, value in results.items():
        assert history[name.replace("@", "_at_")][-1] == (steps_of_validations()[-1], value)
        assert found.data.metrics[f"final/{name}".replace("@", "_at_")] == value
    tested = json.loads((RUN / "metrics.json").read_text())["metrics"]
    assert {name: found.data.metrics[name.replace("@", "_at_")] for name in tested} == tested
    assert len({step for step, _ in history["train/loss"]}) == len(history["train/loss"]) > 5
    file = Path(client.download_artifacts(found.info.run_id, "config.yaml", str(Path().resolve())))
    assert file.read_text() == (RUN / "config.yaml").read_text()


def test_mlflow_without_options_and_for_the_next_fit(mlflow: Any) -> None:
    """Its own default store; a fit by the config of another run is a run of its own."""
    fit.main([*GRU, "--trainer.logger", "MLFlowLogger"])
    fit.main(["--config", str(RUN / "config.yaml"), "--trainer.default_root_dir", "lightning_logs/other"])
    runs = mlflow.search_runs(experiment_names=["lightning_logs"])
    assert len(runs) == 2
    assert not list(Path().glob("lightning_logs/**/mlruns"))


def test_what_mlflow_refuses_is_one_line(mlflow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", "nonsense://x"]
    assert "error: --trainer.logger MLFlowLogger: " in one_error(capsys, fit.main, [*GRU, *words])
    assert not Path("lightning_logs").exists()


# W&B


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = pytest.importorskip("wandb", reason="needs wandb: make test-engines")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DISABLE_CODE", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield package
    package.teardown()  # its service keeps the folder that it was started in


def records(file: Path) -> Iterator[Any]:
    """Records of an offline run: chunks of blocks of 32 KiB, as in LevelDB's log, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, record = file.read_bytes(), 7, b""
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last chunk
            yield Record.FromString(record)
            record = b""


def test_wandb_has_the_whole_run(wandb: Any) -> None:
    fit_stop_resume_and_test("--trainer.logger", "WandbLogger", "--trainer.logger.project", "sessions")
    files = sorted(Path("wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    assert len({file.name for file in files}) == 1  # the resumed fit and the test are of the same run
    found = [record for file in files for record in records(file)]
    (name,) = {record.run.display_name for record in found if record.HasField("run")}
    assert name == "gru4rec-1"
    config = {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
    config |= {item.key: json.loads(item.value_json) for record in found for item in record.run.config.update}
    assert {name: str(config[name]) for name in PARAMETERS} == PARAMETERS
    rows = [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in found if record.HasField("history")]  # fmt: skip
    curve = {row["trainer/global_step"]: row["val/mrr@20"] for row in rows if "val/mrr@20" in row}
    assert [row["trainer/global_step"] for row in rows if "val/mrr@20" in row] == steps_of_validations()
    fitted = json.loads((RUN / "fit.json").read_text())
    assert curve[fitted["steps"]] == fitted["validation"]["metrics"]["val/mrr@20"]
    (final,) = [row for row in rows if "final/val/mrr@20" in row]
    assert final["final/val/mrr@20"] == fitted["validation"]["metrics"]["val/mrr@20"]
    tested = json.loads((RUN / "metrics.json").read_text())["metrics"]
    assert any(tested.items() <= row.items() for row in rows)
    artefacts = [record.request.log_artifact.artifact for record in found] + [record.artifact for record in found]
    assert {entry.path for artefact in artefacts for entry in artefact.manifest.contents} == {"config.yaml"}
    assert yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["id"] is None


def test_each_fit_is_a_run_of_its_own_in_wandb(wandb: Any) -> None:
    """In one process, too."""
    for _ in range(2):
        fit.main([*GRU, "--trainer.logger", "WandbLogger", "--trainer.max_epochs", "1"])
    assert len(list(Path("wandb").glob("offline-run-*/*.wandb"))) == 2
    assert {folder.name for folder in Path("lightning_logs").iterdir()} == {"gru4rec-1", "gru4rec-2"}
