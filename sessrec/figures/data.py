"""Pictures of a prepared click log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sessrec.data.preparation import PreparedLog
from sessrec.data.sessions import Sessions
from sessrec.figures.style import COLOURS, STYLE, save_figure
from sessrec.writing import write_json

_DAY = 86400


def data_figures(
    sessions: Mapping[str, Sessions], item_counts: np.ndarray, cuts: Mapping[str, float], has_times: bool
) -> dict[str, Figure]:
    """Draw what a prepared log looks like.

    Args:
        sessions: Sessions of the parts ``train``, ``val`` and ``test``.
        item_counts: Training events of each item, int64, shape (N,).
        cuts: Time at which each later part begins, by its name.
        has_times: False where times are numbers of rows.

    Returns:
        The figures ``session_lengths``, ``item_popularity``, ``events_per_day`` and ``lengths_by_part``.
    """
    with rc_context(STYLE):
        return {
            "session_lengths": _session_lengths(sessions),
            "item_popularity": _item_popularity(item_counts),
            "events_per_day": _events_over_time(sessions, cuts, has_times),
            "lengths_by_part": _lengths_by_part(sessions),
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
    counts = [np.histogram(part, edges)[0] for part in times.values()]
    places = _as_dates(edges, axes) if has_times else edges
    for name, below, count in zip(
        times, np.cumsum([np.zeros_like(counts[0]), *counts[:-1]], axis=0), counts, strict=True
    ):
        axes.stairs(below + count, places, baseline=below, fill=True, color=COLOURS[name], label=name)
    for name, t in cuts.items():
        place = _as_dates(np.array([t]), None)[0] if has_times else t
        axes.axvline(place, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f" {name} begins", (place, 1), xycoords=("data", "axes fraction"), va="top", ha="right", rotation=90
        )
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


def _as_dates(times: np.ndarray, axes: Axes | None) -> np.ndarray:
    """Times as places on an axis of dates; on plain numbers where a time is no date of the calendar."""
    if axes is not None:
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    epoch = date2num(datetime(1970, 1, 1, tzinfo=timezone.utc))
    return epoch + times / _DAY


def _lengths_by_part(sessions: Mapping[str, Sessions]) -> Figure:
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lengths = {name: np.diff(part.offsets) for name, part in sessions.items()}
    shown = max(3, int(max(np.quantile(part, 0.99) for part in lengths.values())))
    for name, part in lengths.items():
        share = np.bincount(part, minlength=shown + 1)[: shown + 1] / len(part)
        places = np.arange(2, shown + 1)
        axes.plot(
            places,
            share[2:],
            marker="o" if shown < 100 else None,
            markersize=4,
            color=COLOURS[name],
            label=f"{name} ({len(part):,})",
        )
    axes.set_title("Session lengths in each part")
    axes.set_xlabel("events in the session")
    axes.set_ylabel("share of the part's sessions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


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
    figures = data_figures(prepared.sessions, prepared.vocabulary.counts, report.cuts, report.has_times)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    files = ["data_report.json", *(f"{name}.png" for name in figures)]
    print(f"report and figures in {folder}: {', '.join(files)}")
