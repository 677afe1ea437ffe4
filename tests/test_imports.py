"""Imports go one way: a module imports from floors below its own only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS = {
    "errors": 0, "writing": 0, "curves": 0.1, "progress": 0, "processes": 0, "stopping": 0.1,
    "report": 1, "files": 1, "chunks": 1, "ids": 1.1, "times": 1.1, "quotes": 1.1, "layout": 1.1, "parquet": 1.2,
    "delimited": 1.2, "log_format": 1.2, "tables": 1.3,
    "ordering": 1, "events": 1.4, "id_checks": 1.4, "reading": 1.5, "cleaning": 1.5, "split": 1.5, "statistics": 1.6,
    "vocabulary": 1.5, "sessions": 1.6, "expectations": 1.1, "lanes": 1.61, "batches": 1.7,
    "preparation": 1.8, "cache": 1.9,
    "losses": 1, "negatives": 1, "optim": 1, "steps": 1.1, "graphs": 1, "layers": 1, "memory": 1,
    "metrics": 1, "ranking": 1.1, "synthetic": 1,
    "neighbours": 1.7, "checks": 1, "data": 2, "models.base": 2,
    "models.counting": 2.1, "models.neural": 2.1, "models.item_rules": 2.2,
    "models.prefix": 2.2, "models.neighbourhood": 2.3, "models.sequence_time": 2.4,
    "models.gru4rec": 3, "models.markov": 3, "models.oracle": 3, "models.popularity": 3, "models": 3.1,
    "models.ar": 3, "models.sasrec": 3, "models.sr": 3, "models.item_knn": 3, "models.s_pop": 3, "models.random": 3,
    "models.sknn": 3, "models.vsknn": 3, "models.stan": 3, "models.vstan": 3, "models.vmis_knn": 3,
    "ranks": 1.7, "slices": 1.8, "lists": 1, "machine": 1, "text_tables": 1, "script_words": 1, "bootstrap": 1,
    "tested_runs": 1.75, "comparison": 1.8,
    "comparison_tables": 1.9, "audits": 1.9, "rank_record": 4,
    "result_figures": 4, "training_figures": 4, "board": 3.5, "reference_weights": 4,
    "audit_figures": 4,
    "drawing": 1, "diagrams": 4, "batch_diagrams": 4, "sweep_figures": 4,
    "predictions": 4, "run": 4, "checkpoints": 4, "figure_style": 1, "data_figures": 4, "data_report": 4.1,
    "options": 4.1, "cli": 5,
    "fit": 6, "validate": 6, "test": 6, "predict": 6, "prepare": 6, "experiments": 7, "audit_runs": 7.1,
}  # fmt: skip
MODULES = sorted(file for file in (ROOT / "sessrec").rglob("*.py") if file != ROOT / "sessrec" / "__init__.py")


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT / "sessrec").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(file: Path) -> set[str]:
    """Names of the package's own modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports in full"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("sessrec.") for name in names if name.startswith("sessrec.")} & set(FLOORS)


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_floors(file: Path) -> None:
    own = name_of(file)
    assert own in FLOORS, f"give {own} a floor"
    for other in imported(file):
        assert FLOORS[other] < FLOORS[own], f"{own} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})"
    if int(FLOORS[own]) == 3 and own != "models":
        assert not any(int(FLOORS[other]) == 3 for other in imported(file)), "a model is whole in its own file"


def test_a_wrong_import_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "losses.py"
    file.write_text("from sessrec.data import SessionDataModule\nimport sessrec.cli\n", encoding="utf-8")
    assert imported(file) == {"data", "cli"}
