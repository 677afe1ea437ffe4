"""The walkthrough: it runs from top to bottom in an empty folder, and is committed with the outputs of such a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

NOTEBOOK = ROOT / "notebooks" / "01_end_to_end_walkthrough.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SECTIONS = (
    "Problem and idea",
    "Project map",
    "Configuration and why these defaults",
    "The click log",
    "Temporal split with its leakage check",
    "Unseen items",
    "Models",
    "Predictions step by step",
    "Metrics on tiny examples",
    "Why full ranking",
    "Results with intervals",
    "Artefacts on disk",
    "Changing things",
    "Exercises",
    "Limits and next steps",
)
SUBSECTIONS = (
    *("Generation and schema", "Statistics", "Sanity checks", "Session lengths and popularity"),
    *("Popularity", "Markov, and its alpha", "GRU4Rec, trained here", "Oracle, the ceiling"),
)
EXERCISES = ("data", "test part", "unseen", "catalogue", "alpha", "sessions")


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def texts_of(cell: dict[str, Any]) -> list[str]:
    """All that a cell's outputs say; of pictures nothing."""
    found = []
    for output in cell["outputs"]:
        data = output.get("data", {"text": output.get("text", "")})
        found += ["".join(text) for kind, text in data.items() if not kind.startswith("image/")]
    return found


def order_of_models(cells: list[dict[str, Any]]) -> list[str]:
    """Models in the results table, in its order."""
    tables = [text for cell in cells for text in texts_of(cell) if text.startswith("| model ") and "[" in text]
    assert len(tables) == 1
    return [line.split("|")[1].strip() for line in tables[0].splitlines()[2:]]


def headings(level: int) -> list[str]:
    lines = "\n".join(source_of(cell) for cell in CELLS if cell["cell_type"] == "markdown").splitlines()
    return [line.removeprefix("#" * level + " ") for line in lines if line.startswith("#" * level + " ")]


def test_sections() -> None:
    assert headings(2) == [f"{number}. {title}" for number, title in enumerate(SECTIONS, 1)]
    assert set(SUBSECTIONS) <= {re.sub(r"^[\d.]+ ", "", heading) for heading in headings(3)}


def test_six_exercises_with_answers() -> None:
    starts = [n for n, cell in enumerate(CELLS) if source_of(cell).startswith("### Exercise ")]
    assert len(starts) == len(EXERCISES)
    for number, (start, topic) in enumerate(zip(starts, EXERCISES, strict=True), 1):
        task, begin, text, check = CELLS[start : start + 4]
        assert source_of(task).startswith(f"### Exercise {number}: ")
        assert topic in source_of(task).splitlines()[0].lower()
        assert begin["cell_type"] == "code"
        assert not begin["metadata"].get("jupyter")
        assert source_of(text).startswith("<details><summary>Answer</summary>")
        assert source_of(text).endswith("</details>")
        assert check["metadata"] == {
            "jupyter": {"outputs_hidden": True, "source_hidden": True},
            "tags": ["answer", "hide-input", "hide-output"],
        }
        assert source_of(check).count("assert ") >= 3


def test_committed_with_the_outputs_of_one_run() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert NOTEBOOK.stat().st_size < 1_500_000
    for cell in CODE:
        assert "execution" not in cell["metadata"]
        assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in cell["outputs"])
        for text in texts_of(cell):
            assert not re.search(r"(?<![\w.])/(home|tmp|work|root|Users)\b|[A-Z]:\\", text), text
            assert not re.search(r"warning|traceback|events\.out\.tfevents\.\d|it/s", text, flags=re.IGNORECASE), text
    pictures = [
        output["metadata"] for cell in CODE for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 10
    assert all(metadata["image/png"]["alt"] for metadata in pictures)


def test_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, where all that it writes goes; all claims with figures are asserts in its cells."""
    nbformat = pytest.importorskip("nbformat", reason="running the notebook needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="running the notebook needs nbclient")
    pytest.importorskip("ipykernel", reason="running the notebook needs ipykernel")
    place = tmp_path / "place"
    place.mkdir()
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):  # nothing of the user's own
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    ).execute()
    fresh = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell["execution_count"] for cell in fresh] == list(range(1, len(CODE) + 1))
    assert not [output for cell in fresh for output in cell["outputs"] if output.get("name") == "stderr"]
    assert order_of_models(fresh) == order_of_models(CODE) == ["oracle", "gru4rec", "markov", "popularity"]
    assert {path.name for path in place.iterdir()} == {"data", "lightning_logs"}
