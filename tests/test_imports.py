"""Imports go one way: a room imports from the rooms that it names here, and no module from itself by a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from helpers import ROOT

GROUND = {
    "program",
    "errors",
    "suggestions",
    "shipped_configs",
    "writing",
    "text",
    "distributed",
    "environment",
}
COMMANDS = {
    "arguments",
    "options",
    "option_errors",
    "option_types",
    "trainer_options",
    "help_texts",
    "paths",
    "model_choice",
    "ray_launcher",
    "ray_pool",
    "cli",
    "fit",
    "validate",
    "test",
    "predict",
    "prepare",
}
STUDIES = {"compare", "audit", "study_figures", "synth", "tune", "roll", "serve", "export", "items"}
MAY_IMPORT = {
    "ground": set(),
    "nn": {"ground"},
    "click_log": {"ground"},
    "features": {"ground", "click_log"},
    "engines": {"ground", "click_log"},
    "data": {"ground", "click_log", "engines", "features"},
    "evaluation": {"ground", "click_log", "data"},
    "models": {"ground", "nn", "features", "data", "evaluation"},
    "callbacks": {"ground", "features", "data", "evaluation", "models"},
    "figures": {"ground", "click_log", "data", "evaluation", "models", "callbacks"},
    "exporting": {"ground", "nn", "data", "models"},
    "serving": {"ground", "click_log", "features", "data", "evaluation", "models", "callbacks", "exporting"},
    "commands": {"ground", "click_log", "features", "data", "evaluation", "models", "callbacks", "figures", "serving"},
    "experiments": {
        "ground",
        "click_log",
        "features",
        "data",
        "evaluation",
        "models",
        "callbacks",
        "figures",
        "commands",
    },
}
MAY_IMPORT["tuning"] = MAY_IMPORT["rolling"] = set(MAY_IMPORT)
MAY_IMPORT["studies"] = set(MAY_IMPORT)

MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in (ROOT / "sessrec").rglob("*.py")
}
ALONE = ["nn", "click_log", "features", "data", "evaluation", *sorted(GROUND)]


def room_of(module: str) -> str:
    name = module.split(".")[1]
    if name in STUDIES or module.endswith(".__main__"):
        return "studies"
    return "ground" if name in GROUND else "commands" if name in COMMANDS else name


def imported(file: Path) -> set[str]:
    """The package's own modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports in full"
            of = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= of & MODULES.keys() or {node.module or ""}
    return (names & MODULES.keys()) - {"sessrec"}


def test_a_room_imports_from_those_below_it() -> None:
    for module, file in MODULES.items():
        for other in imported(file) if module != "sessrec" else ():
            own, its = room_of(module), room_of(other)
            assert its == own or its in MAY_IMPORT[own], f"{module} (room {own}) imports {other} (room {its})"


def test_no_circle() -> None:
    TopologicalSorter({module: imported(file) for module, file in MODULES.items()}).prepare()


def test_the_rooms_below_the_models_stand_alone() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'sessrec.{name}')\n"
        "    print(name, *sorted({key.split('.')[1] for key in sys.modules if key.startswith('sessrec.')}))\n"
        "    for key in [key for key in sys.modules if key.startswith('sessrec')]:\n"
        "        del sys.modules[key]\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, *ALONE], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == ALONE
    for room, *found in lines:
        own = room_of(f"sessrec.{room}")
        assert {room_of(f"sessrec.{name}") for name in found} <= {own} | MAY_IMPORT[own]


def test_a_wrong_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "losses.py"
    file.write_text("from sessrec.data import SessionDataModule\nimport sessrec.cli\n", encoding="utf-8")
    assert imported(file) == {"sessrec.data", "sessrec.cli"}
