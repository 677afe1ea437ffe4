"""Small logs and models shared by the tests."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the models of the tests are too small for two
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


@pytest.fixture
def copy_of_fits(fits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy to work in of the runs that a module's own fixture ``fits`` has made."""
    shutil.copytree(fits, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Writes a click log from (session, item, time) rows and gives its path."""

    def write(rows: list[tuple], name: str = "clicks.tsv", header: str = "SessionId\tItemId\tTime") -> Path:
        file = tmp_path / name
        lines = [header, *("\t".join(map(str, row)) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    return write
