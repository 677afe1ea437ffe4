"""Write what a roll has found: a page with tables, tables for programs, and figures."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from sessrec.evaluation.rank_table import metric_name
from sessrec.figures.rolling import against_age_figure, over_time_figure
from sessrec.figures.style import save_figures
from sessrec.rolling.results import (
    Rolled,
    ages_table,
    cells_csv,
    differences_table,
    means_table,
    order_text,
    windows_table,
)
from sessrec.text import Table
from sessrec.writing import write_text

EXPLANATION = (
    "Metrics are means over all positions of the sessions that begin in the first step after the cut; a target that "
    "the model does not know is a miss, and `as ranked` leaves these out. In brackets: 95 % intervals by Student's t "
    "over the windows, whose spread holds that of their sessions and of their days. Differences are paired by window, "
    "p values corrected for their number (Holm). Losses are shares of the metric of models of age 0 on the same "
    "sessions. The time of the fits is an average over the steps."
)


def write_rolled(rolled: Rolled, folder: Path) -> list[str]:
    """Print the tables, write them and the figures, and give the names of the files."""
    metric = rolled.metrics[-1]
    tables: list[tuple[str, Table | None]] = [
        ("Mean over windows", means_table(rolled)),
        ("Differences", differences_table(rolled) if len(rolled.cells) > 1 else None),
        (f"{metric_name(metric)} by window", windows_table(rolled)),
        (f"Age in steps of {rolled.step}", ages_table(rolled)),
    ]
    given = [(title, table) for title, table in tables if table is not None]
    for title, table in given:
        print(f"\n{title}\n\n{table.markdown()}")
    notes = "\n\n".join(filter(None, [order_text(rolled), EXPLANATION]))
    print(f"\n{notes}")
    page = "\n\n".join(f"## {title}\n\n{table.markdown()}" for title, table in given)
    texts = {
        "roll.md": f"# Rolled through time\n\n{page}\n\n{notes}\n",
        "cells.csv": cells_csv(rolled),
        "windows.csv": rolled.windows.to_csv(index=False),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [*texts, *save_figures(rolled_figures(rolled), folder)]


def rolled_figures(rolled: Rolled) -> dict[str, Figure]:
    """The figures: over time, and against age where models are tested at several."""
    metric, order = rolled.metrics[-1], rolled.order()
    name, cuts = metric_name(metric), rolled.windows["cut"].tolist()
    figures = {"over_time": over_time_figure(cuts, {row: rolled.by_window(row, metric) for row in order}, name)}
    losses = {row: [age.loss for age in rolled.ages(row, metric)] for row in order}
    if losses := {row: own for row, own in losses.items() if len(own) > 1}:
        figures["against_age"] = against_age_figure(losses, name, rolled.step)
    return figures
