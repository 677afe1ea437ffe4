"""Print and write the report of a prepared click log."""

from __future__ import annotations

from pathlib import Path

from sessrec.data.preparation import PreparedLog
from sessrec.data_figures import data_figures
from sessrec.figure_style import save_figure
from sessrec.writing import write_json


def write_data_report(prepared: PreparedLog, folder: str | Path) -> None:
    """Print the report of a prepared log, and write it as JSON with its figures.

    Args:
        prepared: The prepared log.
        folder: Where ``data_report.json`` and the figures are written; older ones are replaced.
    """
    report, folder = prepared.report, Path(folder)
    print(f"\n{report}\n")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "data_report.json", report.as_dict())
    has_times = "first_time" in report.sections["log"]
    figures = data_figures(prepared.sessions, prepared.vocabulary.counts, report.cuts, has_times)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    files = ["data_report.json", *(f"{name}.png" for name in figures)]
    print(f"report and figures in {folder}: {', '.join(files)}")
