"""Small logs and models shared by the tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from resuming import MAIN, RUN, fit_code, in_new_folder, stop_at_step

torch.set_num_threads(1)  # the models of the tests are too small for two
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


LONGEST = ("test_runs_from_top_to_bottom", "test_every_command_and_example")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.name not in LONGEST)


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


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Goes to a folder with a log and nothing else; the run that will be in it."""
    monkeypatch.chdir(tmp_path)  # so that pytest goes back
    return in_new_folder(tmp_path / "folder")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    here = Path.cwd()
    run = in_new_folder(tmp_path_factory.mktemp("straight") / "folder")
    assert fit_code(MAIN) == 0
    os.chdir(here)
    return run


@pytest.fixture(scope="session")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run that was stopped inside its first epoch, to be copied."""
    here = Path.cwd()
    run = in_new_folder(tmp_path_factory.mktemp("stopped") / "folder")
    with stop_at_step(40):
        assert fit_code(MAIN) == 128 + signal.SIGTERM
    os.chdir(here)
    return run.parents[1]


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Goes to a folder of its own with the run that was stopped inside its first epoch."""
    shutil.copytree(stopped_once, tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    return tmp_path / "folder" / RUN
