"""Small logs and models shared by the tests."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary

torch.set_num_threads(1)  # the models of the tests are too small for two
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

ROOT = Path(__file__).resolve().parents[1]


def make_sessions(sequences: list[list[int]]) -> Sessions:
    """Sessions of item indices, named s0, s1, ..."""
    lengths = [len(sequence) for sequence in sequences]
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int32)
    session_ids = pa.array([f"s{number}" for number in range(len(sequences))])
    return Sessions(items, np.cumsum([0, *lengths]), session_ids=session_ids)


def make_vocabulary(n_items: int) -> Vocabulary:
    """Items i0, i1, ... with counts 1, 2, ..."""
    return Vocabulary([f"i{number}" for number in range(n_items)], np.arange(1, n_items + 1))


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


def random_rows(n_sessions: int = 60, n_items: int = 12, seed: int = 0) -> list[tuple[str, str, int]]:
    """Rows of a click log with a sequential structure: the next item is mostly the next number."""
    generator = np.random.default_rng(seed)
    rows, time = [], 1_600_000_000
    for session in range(n_sessions):
        item = int(generator.integers(n_items))
        time += 1000
        for position in range(int(generator.integers(2, 7))):
            rows.append((f"u{session}", f"x{item}", time + 10 * position))
            item = (item + 1) % n_items if generator.random() < 0.8 else int(generator.integers(n_items))
    return rows


def one_error(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], args: list[str]) -> str:
    """The only line on stderr of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command(args)
    assert caught.value.code not in (0, None)
    lines = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in lines)
    assert "error: " in lines[-1]  # the last thing said, in one line
    return lines[-1]
