"""Small tested runs that the tests of their evaluation begin with, and what lies in their folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessrec import fit, test
from sessrec.cli import SessRecCLI
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.tested_runs import Run, read_run

MARKS = [
    pytest.mark.usefixtures("copy_of_fits"),
    pytest.mark.filterwarnings("ignore:at .* other items score exactly"),
]
LOGS = Path("lightning_logs")
METRICS = ("recall@5", "mrr@20")
OPTIONS = [
    *("--data.path", "log.tsv", "--data.cache_dir", "null", "--data.val_ratio", "0", "--trainer.accelerator", "cpu"),
    *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"),
]
SMALL = {"GRU4Rec": ["--model.layers", "[6]", "--model.n_sample", "4"], "SKNN": ["--model.n_neighbours", "4"]}


def fit_and_test(folder: Path, rows: Sequence[tuple], fits: dict[str, list[str]]) -> Path:
    """Write a log in a folder, and make runs there: for each name, a model and more words of the command."""
    before = Path.cwd()
    os.chdir(folder)
    write_rows(rows)
    for name, words in fits.items():
        fit_run(*words, name=name)
        test_run(name)
    os.chdir(before)
    return folder


def write_rows(rows: Sequence[tuple], file: str = "log.tsv") -> None:
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in rows)]
    Path(file).write_text("\n".join(lines) + "\n")


def fit_run(model: str, *words: str, name: str | None = None) -> None:
    fit.main(["--model", model, *OPTIONS, *SMALL.get(model, []), "--trainer.logger.version", name or model, *words])


def test_run(name: str, *words: str) -> SessRecCLI:
    place = ["--trainer.logger.version", name]  # a copy's config names the run that it is a copy of
    return test.main(["--config", str(LOGS / name / "config.yaml"), "--ckpt_path", "last", *place, *words])


test_run.__test__ = False  # type: ignore[attr-defined]


def run_of(name: str) -> Run:
    return read_run(LOGS / name)


def report_of(name: str) -> dict[str, Any]:
    return json.loads((LOGS / name / "metrics.json").read_text())


def rows_of(name: str) -> list[dict[str, Any]]:
    return pq.read_table(LOGS / name / "ranks.parquet").to_pylist()


def change_ranks(name: str, rank: int, seed: int = 42) -> Run:
    """A run in which every target has one rank, without ties."""
    file = LOGS / name / "ranks.parquet"
    table = pq.read_table(file)
    for column, value in (("rank", rank), ("ties", 0)):
        new = pa.array([value] * len(table), table.schema.field(column).type)
        table = table.set_column(table.column_names.index(column), column, new)
    pq.write_table(table, file)
    report = report_of(name) | {"seed": seed, "ranks_digest": hashlib.sha256(file.read_bytes()).hexdigest()}
    ranks = np.full(len(table), float(rank))
    report["metrics"] = {name: float(gains(ranks, name.removeprefix("test/")).mean()) for name in report["metrics"]}
    (LOGS / name / "metrics.json").write_text(json.dumps(report))
    return run_of(name)
