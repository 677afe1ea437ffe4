"""Runs that the tests begin with: none yet, one that nothing happened to, and one that was stopped."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from resuming import MAIN, RUN, fit_code, in_new_folder, stop_at_step


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
