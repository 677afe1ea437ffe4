"""The package as users install it: its configs by name, the command `sessrec`, a wheel with all that it needs."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from configparser import ConfigParser
from pathlib import Path

import pytest
from helpers import ROOT, random_rows

import sessrec
from sessrec import __main__ as dispatcher
from sessrec import options
from sessrec.errors import SessRecError
from sessrec.program import DESCRIPTIONS
from sessrec.shipped_configs import find_config, shipped_configs

SETUP = ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_LOG = re.findall(r"^\S+ (?:-m sessrec\.|)(?:prepare|fit|test) --.*$", README, flags=re.MULTILINE)[:3]
TINY = " --trainer.max_epochs 1 --trainer.accelerator cpu --model.layers [8] --data.batch_size 8"
MORE = [
    "sessrec predict --ckpt_path lightning_logs/my-run/checkpoints/best.ckpt --data.path new_sessions.tsv",
    "sessrec compare lightning_logs/my-run --configs markov --data.path clicks.tsv.gz --trainer.accelerator cpu",
]
RUN_COMMANDS = """
import json, runpy, shlex, sys
script, *commands = sys.argv[1:]
for command in commands:
    print("$", command, flush=True)
    name, *words = shlex.split(command)
    try:
        if name == "python":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [script, *words]
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, command
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "sessrec"]
open("files.json", "w").write(json.dumps(files))
"""


# 1. Configs by name


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gru4rec", "gru4rec.yaml"),
        ("gru4rec.yaml", "gru4rec.yaml"),
        ("configs/gru4rec.yaml", "gru4rec.yaml"),
        ("./configs/gru4rec_bpr-max.yaml", "gru4rec_bpr-max.yaml"),
        ("retailrocket", "data/retailrocket.yaml"),
        ("data/retailrocket", "data/retailrocket.yaml"),
        ("configs/data/retailrocket.yaml", "data/retailrocket.yaml"),
    ],
)
def test_a_shipped_config_is_found_from_anywhere(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / "configs" / file
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("model: Markov\n")
    assert find_config(name) == Path(name)  # the user's own file


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("grurec", "; did you mean gru4rec"),
        ("configs/vsknn.yml", "; did you mean vsknn"),
        ("elsewhere/gru4rec.yaml", "; did you mean gru4rec"),
        ("retail-rocket", "; did you mean retailrocket"),
        ("q", "; name a file, or ar, content_knn, content_mix, data/amazon_m2, "),
    ],
)
def test_an_unknown_config_is_refused_with_the_nearest(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SessRecError, match=f"^--config {name}: no such file or shipped config{hint}"):
        find_config(name)


def test_names_of_configs_are_unique() -> None:
    names = [name.rpartition("/")[2] for name in shipped_configs()]
    assert len(set(names)) == len(names) > 25


@pytest.mark.parametrize("words", [["--config", "stan"], ["--config=stan"], ["-c", "configs/stan.yaml"]])
def test_commands_take_names(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "model: {class_path: SR}"  # a config given itself
    expected = ["--config", str(ROOT / "configs" / "stan.yaml"), "--config", text]
    assert options.with_current_options("fit", [*words, "--config", text]) == expected


# 2. The command


def test_help_lists_the_commands_without_importing_them() -> None:
    code = "import sys, sessrec.__main__ as m; m.main(['--help']); print({'torch', 'lightning'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "set()"
    for name in ("fit", "validate", "test", "predict", "prepare", "compare", "audit", "figures", "synth"):
        assert f"  {name:<10}{DESCRIPTIONS[name]}\n" in out


@pytest.mark.parametrize(
    ("word", "hint"), [("fti", "did you mean fit?"), ("predictt", "did you mean predict?"), ("zz", "--help")]
)
def test_an_unknown_command_is_one_line(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        dispatcher.main([word, "--data.path", "x"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sessrec: error: there is no command {word}; ")
    assert hint in line


@pytest.mark.parametrize("command", ["prepare", "compare", "audit", "figures", "synth"])
@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("/env/bin/sessrec", "sessrec {}"),
        ("/lib/sessrec/__main__.py", "sessrec {}"),
        ("/lib/sessrec/x.py", "python -m sessrec.{}"),
    ],
)
def test_usage_says_what_was_typed(
    command: str, started: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit, match="^0$"):
        dispatcher.main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: {shown.format(command)} [")


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    dispatcher.main(["--version"])
    told = capsys.readouterr().out
    assert re.fullmatch(r"sessrec (\S+) \(torch \S+, lightning \S+, Python 3\.\d+\.\S+\)\n", told)
    assert told.split()[1] == sessrec.__version__
    assert f"\nversion: {sessrec.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert SETUP["metadata"]["version"] == "attr: sessrec.__version__"


# 3. The wheel


def test_setup_names_every_package() -> None:
    rooms = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "sessrec").rglob("__init__.py")}
    assert set(SETUP["options"]["packages"].split()) == rooms | {"sessrec.configs"}


def apart() -> dict[str, str]:
    """The environment's variables without the one that leads to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with the packages of this one that the wheel requires."""
    folder = tmp_path_factory.mktemp("fresh")
    source, dist, environment = (folder / name for name in ("source", "dist", "environment"))
    source.mkdir()
    for name in ("sessrec", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(dist), str(source)]
    subprocess.run([*pip, *build], check=True, capture_output=True, env=apart())
    (wheel,) = dist.iterdir()
    venv.create(environment)
    python = environment / "bin" / "python"
    install = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True, env=apart())
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return environment


def test_a_wheel_runs_the_own_log_commands_in_an_empty_folder(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(OWN_LOG) == 3
    monkeypatch.chdir(tmp_path)
    text = "".join("\t".join(map(str, row)) + "\n" for row in [("SessionId", "ItemId", "Time"), *random_rows(80)])
    Path("clicks.tsv.gz").write_bytes(gzip.compress(text.encode()))
    Path("new_sessions.tsv").write_text(text)
    commands = [line + TINY * (" --config configs/" in line) for line in OWN_LOG] + MORE
    sessrec_command = fresh / "bin" / "sessrec"
    words = [str(fresh / "bin" / "python"), "-I", "-c", RUN_COMMANDS, str(sessrec_command), *commands]
    done = subprocess.run(words, capture_output=True, text=True, env=apart(), timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    files = [Path(file) for file in json.loads(Path("files.json").read_text()) if file is not None]
    assert len(files) > 50
    assert all(file.is_relative_to(fresh) for file in files)
    assert Path("predictions.tsv").read_text().startswith("SessionId\tRank\tItemId\tScore\n")
    assert {"my-run", "compare-markov-1"} <= {folder.name for folder in Path("lightning_logs").iterdir()}
    version = subprocess.run([sessrec_command, "--version"], check=True, capture_output=True, text=True, env=apart())
    assert version.stdout.startswith(f"sessrec {sessrec.__version__} ")


# 4. The ranges of versions


def test_oldest_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("oldest_versions")
    text = "[options]\ninstall_requires =\n    a-b[extra]>=2.6.4,<2.7\n    numpy>=1.26\n"
    assert script.oldest_versions(text) == ["a-b==2.6.4", "numpy==1.26"]
    found = script.oldest_versions(script.SETUP.read_text(encoding="utf-8"))
    assert len(found) == len(SETUP["options"]["install_requires"].split()) > 8
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in found)
