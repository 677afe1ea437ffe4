"""Pictures of a prepared click log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sessrec.data.preparation import PreparedLog
from sessrec.data.sessions import Sessions
from sessrec.figures.style import COLOURS, STYLE, save_figure
from sessrec.writing import write_json

_DAY = 86400


@rc_context(STYLE)
def data_figures(log: PreparedLog) -> dict[str, Figure]:
    """Draw ``session_lengths``, ``item_popularity``, ``events_per_day`` and ``lengths_by_part`` of a prepared log."""
    return {
        "session_lengths": _session_lengths(log.sessions),
        "item_popularity": _item_popularity(log.vocabulary.counts),
        "events_per_day": _events_over_time(log.sessions, log.report.cuts, log.report.has_times),
        "lengths_by_part": _lengths_by_part(log.sessions),
    }


def _session_lengths(sessions: Mapping[str, Sessions]) -> Figure:
    lengths = np.concatenate([np.diff(part.offsets) for part in sessions.values()])
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    shown = max(3, int(np.quantile(lengths, 0.99)))
    width = -(-shown // 100)  # of a bar, in events
    edges = np.arange(1.5, shown + width + 0.5, width)
    axes.stairs(np.histogram(lengths[lengths <= shown], edges)[0], edges, fill=True, color=COLOURS["train"])
    axes.axvline(float(lengths.mean()), color="black", linestyle="--", label=f"mean {lengths.mean():.2f}")
    axes.axvline(float(np.median(lengths)), color="black", linestyle=":", label=f"median {np.median(lengths):.0f}")
    beyond = int((lengths > shown).sum())
    axes.set_title(f"Lengths of {len(lengths):,} sessions")
    axes.set_xlabel(f"events in the session (not shown: {beyond:,} longer sessions, up to {lengths.max():,})")
    axes.set_ylabel("sessions" if width == 1 else f"sessions in {width} lengths")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def _item_popularity(counts: np.ndarray) -> Figure:
    figure = Figure(figsize=(10, 4))
    linear, logarithmic = figure.subplots(1, 2)
    ranked = np.sort(counts)[::-1]
    places = np.arange(1, len(ranked) + 1)
    for axes in (linear, logarithmic):
        axes.plot(places, ranked, color=COLOURS["train"])
        axes.set_xlabel("items, most popular first")
        axes.set_ylabel("training events")
    logarithmic.set_xscale("log")
    logarithmic.set_yscale("log")
    tenth = ranked[: max(1, len(ranked) // 10)].sum() / ranked.sum()
    linear.xaxis.set_major_locator(MaxNLocator(5))
    linear.set_title(f"{len(ranked):,} items; the top tenth has {tenth:.0%}")
    logarithmic.set_title("the same on logarithmic axes")
    return figure


def _events_over_time(sessions: Mapping[str, Sessions], cuts: Mapping[str, float], has_times: bool) -> Figure:
    times = {name: np.asarray(part.times) for name, part in sessions.items() if part.times is not None}
    first, last = min(part.min() for part in times.values()), max(part.max() for part in times.values())
    has_times = has_times and first > -2e9 and last < 7e9  # other years are not on this calendar
    width, unit = _bin_width(float(first), float(last), has_times)
    edges = np.arange(first // width, last // width + 2) * width
    figure = Figure(figsize=(9, 4))
    axes = figure.subplots()
    if has_times:
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    unit_of_axis = _DAY if has_times else 1  # matplotlib counts days since 1970
    below = np.zeros(len(edges) - 1, dtype=np.int64)
    for name, part in times.items():
        above = below + np.histogram(part, edges)[0]
        axes.stairs(above, edges / unit_of_axis, baseline=below, fill=True, color=COLOURS[name], label=name)
        below = above
    for name, t in cuts.items():
        place = (t / unit_of_axis, 1)
        axes.axvline(place[0], color="black", linestyle="--", linewidth=1)
        axes.annotate(f" {name} begins", place, xycoords=("data", "axes fraction"), va="top", ha="right", rotation=90)
    axes.set_title(f"Events {unit}")
    axes.set_ylabel("events")
    axes.set_xlabel("time (UTC)" if has_times else "time as the log counts it")
    axes.margins(y=0.15)
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def _bin_width(first: float, last: float, has_times: bool) -> tuple[float, str]:
    if not has_times:
        return max(1.0, (last - first) // 100), "along the log"
    for width, unit in ((60, "a minute"), (3600, "an hour"), (_DAY, "a day"), (7 * _DAY, "a week")):
        if (last - first) / width <= (100 if width < _DAY else 1500):
            return width, unit
    return max(365 * _DAY, (last - first) // 1000), "over time"


def _lengths_by_part(sessions: Mapping[str, Sessions]) -> Figure:
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lengths = {name: np.diff(part.offsets) for name, part in sessions.items()}
    shown = max(3, int(max(np.quantile(part, 0.99) for part in lengths.values())))
    marker = "o" if shown < 100 else None
    for name, part in lengths.items():
        share = np.bincount(part, minlength=shown + 1)[2 : shown + 1] / len(part)
        label = f"{name} ({len(part):,})"
        axes.plot(range(2, shown + 1), share, marker=marker, markersize=4, color=COLOURS[name], label=label)
    axes.set_title("Session lengths in each part")
    axes.set_xlabel("events in the session")
    axes.set_ylabel("share of the part's sessions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def write_data_report(log: PreparedLog, folder: Path) -> None:
    """Print the report of a prepared log, and write it as ``data_report.json``, with its figures, over older ones."""
    print(f"\n{log.report}\n")
    write_json(folder / "data_report.json", log.report.as_dict())
    figures = {f"{name}.png": figure for name, figure in data_figures(log).items()}
    for file, figure in figures.items():
        save_figure(figure, folder / file)
    print(f"report and figures in {folder}: {', '.join(['data_report.json', *figures])}")
