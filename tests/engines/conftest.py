"""Every test of an engine works in small blocks and leaves nothing behind; every log is prepared twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_logs import PLAIN_RUN, saved

from sessrec.click_log import arrays
from sessrec.data.preparation import Preparation, PreparedLog


@pytest.fixture(autouse=True)
def _small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in blocks and on disk also where the logs are small, and leave nothing there."""
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(arrays, "_SMALL", 1)
    monkeypatch.setattr(arrays, "_ROWS", 7)
    for name in ("engines.duckdb_index._ROWS", "click_log.gaps._ROWS", "data.log_statistics._BLOCK"):
        monkeypatch.setattr(f"sessrec.{name}", 5)
    for name in ("data.vocabulary._EVENTS", "click_log.ordering._RUNS", "data.split._SESSIONS"):
        monkeypatch.setattr(f"sessrec.{name}", 3)
    monkeypatch.setattr("sessrec.engines.spark_index._ROWS", 97)  # each block is a task
    for name in ("_SESSIONS", "_SAMPLES"):
        monkeypatch.setattr(f"sessrec.engines.spark_runs.{name}", 3)
    yield
    assert not list(scratch.iterdir())


@pytest.fixture(autouse=True)
def _by_both_engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every log is prepared by the engine of the module and the default one, and the results are compared."""
    count = iter(range(1_000))

    def run(self: Preparation, *args: Any, **options: Any) -> PreparedLog:
        found = []
        for engine in ("local", getattr(request.module, "ENGINE", "local")):
            own = self if engine == self.engine else replace(self, engine=engine, memory_limit=None, scratch_dir=None)
            prepared = PLAIN_RUN(own, *args, **options)
            found.append(saved(prepared, own, tmp_path / f"{engine}-{next(count)}"))
        assert found[1] == found[0]
        return prepared

    monkeypatch.setattr(Preparation, "run", run)
