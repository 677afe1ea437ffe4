"""Every target of the Makefile, in a copy of the tree and with the environment that runs the tests.

The demo, its figures and the tests themselves run with a stand-in here, for the README's tests run the scripts; lint is
looked at only, for its tools need not be installed, and so is ci.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, paint_blanks, run_python

LEFT_OUT = {".git", ".venv", ".venv-oldest", ".hypothesis", "data", "lightning_logs", "vendor", "build", "dist"}
SMALL = ["SYNTH_WORDS=--n_sessions 800 --n_items 60", "BASELINES=popularity markov", "FIGURES_WORDS=--no_alphas"]
STAND_IN = """#!/bin/sh
echo "$@" >> calls.txt
case "$*" in
    *make_synth_data.py*) mkdir -p data && touch data/synth_sessions.tsv ;;
    *sessrec.fit*) mkdir -p lightning_logs/tiny ;;
    *sessrec.test*) touch lightning_logs/tiny/metrics.json ;;
    *compare.py*) folder=lightning_logs/baselines-comparison; mkdir -p $folder && touch $folder/comparison.md ;;
    *demo.py*) mkdir -p lightning_logs/demo-comparison ;;
esac
"""
Make = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Runs make in a copy of the tree, where all that is to be installed counts as installed."""
    scratch = tmp_path / "sessrec"
    scratch.mkdir()
    for path in ROOT.iterdir():
        if path.name in LEFT_OUT or path.name.endswith(("_cache", ".egg-info")) or path.name.startswith(".venv"):
            continue  # environments are of gigabytes
        if path.is_dir():
            shutil.copytree(path, scratch / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, scratch)
    (scratch / ".venv").mkdir()
    for name in (".ready", ".lint-ready"):
        (scratch / ".venv" / name).touch()
    monkeypatch.chdir(scratch)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(scratch)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["make", f"BIN={Path(sys.executable).parent}", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    return run


def succeed(make: Make, *words: str) -> str:
    """What a target prints that must not fail."""
    done = make(*words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def stand_in(make: Make) -> Make:
    """Runs make with an interpreter that leaves the files of each command, and its words in calls.txt."""
    Path("bin").mkdir()
    Path("bin/python").write_text(STAND_IN)
    Path("bin/python").chmod(0o755)
    return lambda *words: make("BIN=bin", *words)


def calls() -> list[str]:
    """Words of the commands since the last time."""
    file = Path("calls.txt")
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def test_the_study(make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From the sessions to the pictures, the Python commands of each target in this process."""

    def study(target: str) -> str:
        capsys.readouterr()
        for line in succeed(make, "-n", target, *SMALL).replace("\\\n", "").splitlines():
            if line.startswith(sys.executable):
                run_python(shlex.split(line)[1:], monkeypatch)
            else:
                subprocess.run(line, shell=True, check=True)
        return capsys.readouterr().out

    paint_blanks(monkeypatch)
    study("synth_data")
    assert len({line.split("\t")[0] for line in Path("data/synth_sessions.tsv").read_text().splitlines()}) == 801
    assert re.search(r"test +sessions", study("preprocess"))
    assert "fit of GRU4Rec" in study("train_tiny")
    assert "test of GRU4Rec" in study("eval_tiny")
    study("baselines")
    table = Path("lightning_logs/baselines-comparison/comparison.md").read_text()
    assert re.search(r"^\| markov +\|", table, re.MULTILINE)
    assert len(list(Path("data/.prepared").iterdir())) == 1  # all of them read the log once
    assert "pictures in lightning_logs/figures" in study("visualize")
    assert Path("lightning_logs/figures/architecture.svg").is_file()
    for target in ("synth_data", "train_tiny"):
        assert f"Nothing to be done for '{target}'" in succeed(make, target, *SMALL)
    assert succeed(make, "baselines", *SMALL) == table
    before = Path("docs/results.md").read_text()
    assert "results of no new runs" in study("report")
    assert Path("docs/results.md").read_text() == before


def test_what_is_there_is_not_made_again_and_what_is_stale_is(stand_in: Make) -> None:
    succeed(stand_in, "visualize")
    (data, fit, test, compare, figures), tiny = calls(), Path("lightning_logs/tiny")
    assert data == "scripts/make_synth_data.py --n_sessions 20000 --n_items 1000 --output data/synth_sessions.tsv"
    assert "--trainer.logger.version tiny --ckpt_path auto" in fit
    assert test == "-m sessrec.test --config lightning_logs/tiny/config.yaml --ckpt_path best"
    assert compare.count("configs/") == figures.count("lightning_logs/baselines-") == 12
    configs = re.findall(r"configs/(\w+)\.yaml", compare)
    assert all((ROOT / "configs" / f"{config}.yaml").is_file() for config in configs)
    assert f"--runs lightning_logs/tiny lightning_logs/baselines-{configs[0]}-1 " in figures
    succeed(stand_in, "visualize")
    assert calls() == [figures]
    succeed(stand_in, "synth_data", "train_tiny", "baselines")
    assert calls() == []
    succeed(stand_in, "eval_tiny")
    assert calls() == [test]
    (tiny / ".fitted").unlink()  # as of a fit that was stopped
    succeed(stand_in, "train_tiny")
    assert calls() == [fit]
    assert (tiny / "metrics.json").exists()
    Path("sessrec/data/synthetic.py").touch()  # other sessions
    succeed(stand_in, "train_tiny", "baselines")
    assert calls() == [data, fit, compare]
    assert not (tiny / "metrics.json").exists()


def test_the_demo_and_its_figures(stand_in: Make) -> None:
    """What they do is tested with the README's commands."""
    succeed(stand_in, "figures", "DEMO_WORDS=--max_epochs 1", "FIGURES_WORDS=--no_alphas")
    demo, figures = calls()
    assert demo == "scripts/demo.py --max_epochs 1"
    assert figures.startswith("scripts/figures.py --runs lightning_logs/demo-gru4rec lightning_logs/demo-markov ")
    assert figures.endswith("--output lightning_logs/demo-figures --no_alphas")
    succeed(stand_in, "figures")
    assert calls() == [figures.removesuffix(" --no_alphas")]  # the demo's runs are there
    succeed(stand_in, "demo")
    succeed(stand_in, "report")
    assert calls() == ["scripts/demo.py", "scripts/report.py"]


def test_fetch(make: Make, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.py").write_text("print('a stand-in')\n")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "run.py"], [*who, "commit", "--quiet", "-m", "stand-in"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    failed = make("fetch", f"REFERENCE_URL={(tmp_path / 'nowhere').as_uri()}")
    assert failed.returncode != 0
    line, of_make = failed.stderr.splitlines()
    assert re.fullmatch(r"fetch: no clone of file://\S+; offline\? REFERENCE_URL=\.\.\. names a copy\. fatal: .*", line)
    assert of_make.endswith("Error 1")
    assert not Path("vendor/GRU4Rec_PyTorch_Official").exists()
    for said in ("cloned into vendor/GRU4Rec_PyTorch_Official", "vendor/GRU4Rec_PyTorch_Official is there already"):
        assert said in succeed(make, "fetch", f"REFERENCE_URL={copy.as_uri()}")
    assert Path("vendor/GRU4Rec_PyTorch_Official/run.py").is_file()
    assert "/vendor/" in Path(".gitignore").read_text().splitlines()
    assert "https://github.com/hidasib/GRU4Rec_PyTorch_Official.git" in make("-n", "fetch").stdout


def test_targets_that_would_run_the_tests_or_install(stand_in: Make) -> None:
    for words in ("", " tests/data -n 0"):
        succeed(stand_in, "test", f"TEST_WORDS={words.strip()}")
        assert calls() == [f"-m pytest -q -n auto --maxprocesses 4 --dist worksteal{words}"]
    assert succeed(stand_in, "-n", "ci").strip() == ".ci/run"
    assert Path(".ci/run").read_text().splitlines()[-3:] == ["make lint", "make test", "make test-engines"]
    assert len(re.findall("ruff|mypy", succeed(stand_in, "-n", "lint"))) == 3
    Path("setup.cfg").touch()
    os.utime(".venv/.ready", (0, 0))
    assert "pip install" in succeed(stand_in, "-n", "test")


def test_help_lists_every_target(make: Make) -> None:
    text = Path("Makefile").read_text()
    targets = {name for line in re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE) for name in line.split()}
    assert {"fetch", "synth_data", "preprocess", "train_tiny", "eval_tiny", "baselines", "visualize", "report", "demo",
            "test", "ci", "clean", "help"} <= targets  # fmt: skip
    lines = succeed(make, "help").splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(targets)
    assert all(len(line.split()) > 2 and len(line) < 120 for line in lines)
    assert succeed(make) == succeed(make, "help")


def test_clean_removes_caches_only(make: Make) -> None:
    gone = [
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        "build",
        "dist",
        "sessrec.egg-info",
        "sessrec/__pycache__",
        ".venv-oldest",
    ]
    kept = ["data", "data/.prepared", "lightning_logs/tiny", "vendor/GRU4Rec_PyTorch_Official", "configs/data"]
    for folder in [*gone, *kept]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        succeed(make, "clean")
    assert not any(Path(folder).exists() for folder in [*gone, ".venv"])
    assert all(Path(folder).is_dir() for folder in kept)
    assert (Path(sys.executable).parent / "python").exists()
