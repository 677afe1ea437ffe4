"""A test by the lists of a server gives the files of a test of the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from helpers import fit_log, one_error, random_rows
from live_server import served

from sessrec import test as run_test
from sessrec.serving.api import create_app
from sessrec.serving.engine import TorchEngine
from sessrec.serving.schemas import Limits
from sessrec.serving.service import Service

pytestmark = pytest.mark.filterwarnings("ignore:at .* other items score exactly")


def app_of(checkpoint: Path, limits: Limits) -> FastAPI:
    return create_app(Service(checkpoint, TorchEngine.of_checkpoint, None), limits=limits)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "clicks.tsv"
    rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(150, 14))]
    file.write_text("\n".join(rows) + "\n")
    return file


def files_of(run: Path) -> tuple[dict[str, Any], bytes]:
    report = json.loads((run / "metrics.json").read_text())
    report.pop("seconds")
    return report, (run / "ranks.parquet").read_bytes()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("GRU4Rec", []),
        ("SASRec", ["--model.exclude_seen", "true"]),
        ("VSTAN", ["--allow", "x1,x2,x3,x5,x8,x13"]),
        ("Markov", ["--model.exclude_last", "true", "--exclude", "x4", "--model.tie_mode", "median"]),
        ("SPop", []),
    ],
)
def test_the_files_are_the_same(
    model: str, words: list[str], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit_log(str(log), model=model, run="run")
    checkpoint = run / "checkpoints" / "best.ckpt"
    test = ["--config", str(run / "config.yaml"), "--ckpt_path", "best", "--trainer.accelerator", "cpu", *words]
    run_test.main(test)
    own = files_of(run)
    for name in ("metrics.json", "ranks.parquet"):
        (run / name).unlink()
    with served(app_of(checkpoint, Limits())) as url:
        run_test.main([*test, "--url", url])
    assert files_of(run) == own


def test_what_is_no_such_server(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run, other = (fit_log(str(log), "--model.alpha", alpha, model="Markov", run=alpha) for alpha in ("0.1", "0.2"))
    test = ["--config", str(run / "config.yaml"), "--ckpt_path", "best", "--trainer.accelerator", "cpu", "--url"]
    for url, message in {
        "localhost": "is no address",
        "http://127.0.0.1:9": "does not answer as sessrec serve",
    }.items():
        assert message in one_error(capsys, run_test.main, [*test, url])
    with served(app_of(other / "checkpoints" / "best.ckpt", Limits())) as url:
        assert f"{url} serves another checkpoint" in one_error(capsys, run_test.main, [*test, url])
    with served(app_of(run / "checkpoints" / "best.ckpt", Limits(most_k=5))) as url:
        assert "with 422: k: at most 5 items are listed" in one_error(capsys, run_test.main, [*test, url])
    assert not (run / "metrics.json").exists()
