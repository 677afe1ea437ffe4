"""Pictures that explain the model, the way of the data, batches and evaluation, drawn from a real model and log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sessrec.data.report import DataReport
from sessrec.data.session_parallel import LaneGrid
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import CUTOFFS
from sessrec.figures.drawing import CELL, GAP, MARGIN, Box, Cell, Drawing, short_id
from sessrec.figures.style import COLOURS, PALETTE
from sessrec.models.gru4rec import GRU4Rec
from sessrec.text import counted, date_text

GREY = "#777777"


def architecture_figure(model: GRU4Rec) -> Figure:
    """Draw what a GRU4Rec that knows its items is made of, with its sizes, options and numbers of weights."""
    n_items, n_weights = len(model.vocabulary), sum(weight.numel() for weight in model.parameters())
    layers, options = counted(len(model.layers), "GRU layer"), model.options
    drawing = Drawing(10, f"GRU4Rec with {layers} and {n_weights:,} weights scores {n_items:,} items")
    inset, above, edge = 2.2, [drawing.width / 2], drawing.width - MARGIN
    left, right = MARGIN + inset, edge - inset
    drawing.row([("item of the event", [f"one of N = {n_items:,} items"], GREY)], inset=inset)
    kind = "constrained" if model.shared_inputs else "no" if model.one_hot else "separate"
    lines = [] if model.shared_inputs else [_size(model.input_embedding)]
    lines.append(f"dropout of the input: p = {options.dropout_p_embed:g}")
    table = drawing.row([(f"{kind} embedding", lines, PALETTE[0])], above, inset)
    for number, (cell, units) in enumerate(zip(model.cells, model.layers, strict=True), 1):
        weights = sum(weight.numel() for weight in cell.parameters())
        lines = [f"{units} numbers of state: {weights:,} weights"]
        lines.append(f"dropout of output and state: p = {options.dropout_p_hidden:g}")
        y = drawing.row([(f"GRU layer {number}: {units} units", lines, PALETTE[2])], above, inset)
        drawing.arrow((left - 0.5, y), (left, y))
        drawing.text(left - 0.6, y, "state after\nthe event before;\n0 at a session's start", ha="right")
        drawing.arrow((right, y), (right + 0.5, y))
        drawing.text(right + 0.6, y, "state for\nthe next event", ha="left")
    lines = ["state · row of the item + bias of the item", f"{_size(model.output_embedding)} and {n_items:,} biases"]
    scores = drawing.row([("scores of the candidates", lines, PALETTE[0])], above, inset)
    if model.shared_inputs:
        drawing.axes.plot([right, edge, edge], [table, table, scores], "--", linewidth=1, color=PALETTE[0])
        drawing.arrow((edge, scores), (right, scores), linestyle="--", color=PALETTE[0])
        drawing.text(right + 0.15, table - 0.12, "one table for both", ha="left")
    own = {"cross-entropy": ("logq",), "bpr-max": ("bpreg", "elu_param")}.get(model.loss_name, ())
    training = [
        "scores of the target, the targets of the other lanes",
        f"and {options.n_sample:,} items, sampled by count to the power {options.sample_alpha:g}",
        f"loss: {', '.join([model.loss_name, *(f'{name} {options[name]:g}' for name in own)])}",
        f"Adagrad: learning rate {options.learning_rate:g}, momentum {options.momentum:g}",
    ]
    out = [name for name in ("exclude_last", "exclude_seen") if options[name]]
    evaluation = [
        f"rank of the target among all {n_items:,} items; {' and '.join(out) or 'none left out'}",
        f"Recall, MRR and NDCG at {', '.join(map(str, options.cutoffs))}; ties: {options.tie_mode}",
    ]
    boxes: list[Box] = [("in training", training, COLOURS["train"]), ("in evaluation", evaluation, COLOURS["test"])]
    drawing.row(boxes, drawing.columns(2)[0])
    return drawing.finished()


def _size(table: Tensor) -> str:
    return f"{table.shape[0]:,} × {table.shape[1]} = {table.numel():,} weights"


def pipeline_figure(
    report: DataReport | Mapping[str, Any], n_lanes: int | None = None, cutoffs: Sequence[int] = CUTOFFS
) -> Figure:
    """Draw the way from a click log to the metrics, with the counts of one log's report.

    Args:
        report: Report of a log that was prepared for a fit, or the content of a run's ``data_report.json``.
        n_lanes: Lanes of the session-parallel batches, where known.
        cutoffs: Lengths K of the recommendation list for the metrics.
    """
    figures: Mapping[str, Any] = report.as_dict() if isinstance(report, DataReport) else report
    if not {"read", "log", "cleaned", "train"} <= figures.keys():
        raise SessRecError("the report has no training part: give the data report of a fit or of sessrec.prepare")
    parts = {part: figures[part] for part in COLOURS if part in figures}
    later, n_items = list(parts)[1:], figures["train"]["items"]
    drawing = Drawing(10, f"How {figures['log']['events']:,} events become a model of {n_items:,} items")
    places, (thirds, width) = drawing.columns(len(parts))[0], drawing.columns(3)
    y = drawing.row(_preparation(figures, later))
    for x, following in zip(thirds, thirds[1:], strict=False):
        drawing.arrow((x + width / 2, y), (following - width / 2, y))
    for x in places:
        drawing.arrow((thirds[2], drawing.bottom), (x, drawing.bottom + GAP))
    drawing.row([(f"{name} events", [_size_of(part, "_before")], COLOURS[name]) for name, part in parts.items()])
    words = "the items of the train events; what the other parts hold beside them is dropped"
    drawing.row([(f"vocabulary: N = {n_items:,} items", [words], COLOURS["train"])], places)
    lanes = f"in session-parallel batches of {n_lanes or 'B'} lanes"
    uses = {"train": lanes, "val": "after every epoch", "test": "once, at the end"}
    drawing.row([(f"{name} sessions", [*_kept(parts[name]), uses[name]], COLOURS[name]) for name in parts], places)
    words = f"learns from {figures['train']['positions']:,} pairs an epoch; scores {n_items:,} items at every position"
    drawing.row([("model", [words], PALETTE[2])], places)
    if later:
        words = f"Recall, MRR, NDCG at {', '.join(map(str, cutoffs))} of the ranks among all {n_items:,} items"
        boxes = [(f"{name} metrics", [words], COLOURS[name]) for name in later]
        drawing.row([None, *boxes], places[1:])
    return drawing.finished()


def _size_of(counts: Mapping[str, Any], when: str = "") -> str:
    return f"{counted(counts[f'sessions{when}'], 'session')}, {counted(counts[f'events{when}'], 'event')}"


def _kept(part: Mapping[str, Any]) -> list[str]:
    """What a part loses to the vocabulary of the training part, and what is left."""
    unknown = f"− {counted(part['unknown_events'], 'event')} of unknown items"
    short_ones = f"− {counted(part['short_events'], 'event')} of sessions left too short"
    return [unknown, short_ones, _size_of(part), f"{counted(part['positions'], 'position')}: an item and its next"]


def _preparation(figures: Mapping[str, Any], later: Sequence[str]) -> list[Box]:
    """The log, its cleaning and its split."""
    log, cleaned, read = figures["log"], figures["cleaned"], figures["read"]
    source = PurePath(read["source"]).name if read.get("files") == 1 else read["source"]
    unused = counted(read.get("rows", log["events"]) - log["events"], "row")
    dropped = {name[15:].replace("_", " "): value for name, value in cleaned.items() if name[:15] == "events_dropped_"}
    cut = [name for name in later if f"{name} cut" in figures]  # the others are given
    lost = sum(figures[f"{name} cut"][f"events_of_{kind}"] for name in cut for kind in ("tails", "short_heads"))
    as_text = date_text if figures["has_times"] else "row {:.0f}".format
    times = [f"{name} begins {as_text(figures['cuts'][name])}" if name in cut else f"{name} given" for name in later]
    losses = [f"− {value:,} {name}" for name, value in dropped.items() if value]
    return [
        ("click log", [source, _size_of(log), counted(log["items"], "item"), f"{unused} not used"], GREY),
        ("clean", [*losses, f"{counted(cleaned['events'], 'event')} left"], GREY),
        ("split, at one time for all", [*times, f"− {counted(lost, 'event')} of sessions cut there"], GREY),
    ]


def protocol_figure(
    item_ids: Sequence[str], top: Sequence[Sequence[str]], ranks: Sequence[float | None], n_items: int, cutoff: int = 20
) -> Figure:
    """Draw how one session is evaluated: a rank at every position, and what Recall and MRR make of the ranks.

    Args:
        item_ids: Item id of each event of the session, in order, at least two.
        top: The model's best items at each position that has a next item, best first; one list fewer than events.
        ranks: Rank of the next item at each of these positions, from 1; None where it was no candidate.
        n_items: Number N of items that are ranked.
        cutoff: Length K of the recommendation list.
    """
    n_positions = len(ranks)
    if n_positions < 1 or not len(top) == n_positions == len(item_ids) - 1:
        raise SessRecError(f"{len(item_ids)} events, {len(top)} lists and {n_positions} ranks are no session")
    gains = [1 / rank if rank is not None and rank <= cutoff else 0.0 for rank in ranks]
    n_hits, place = sum(gain > 0 for gain in gains), f"{counted(n_positions, 'position')} of this session"
    left, right = [0.7, 0.45], [0.15, CELL, 1.2, 0.75, 0.85]
    widths = [*left, *[CELL] * 3, 0.15, *[CELL] * 5, *right]
    drawing = Drawing(2 * MARGIN + sum(widths), f"The next item is among the top {cutoff} at {n_hits} of {place}")
    head = ["position", "", "history so far", "", "the model's best items", "", "target"]
    head += [f"rank among\n{n_items:,} items", f"in top\n{cutoff}?", "reciprocal\nrank"]
    drawing.bottom += 0.15
    drawing.cells(MARGIN, [*left, 3 * CELL, 0.15, 5 * CELL, *right], head, 0.4, weight="bold")
    for position, (rank, gain, target) in enumerate(zip(ranks, gains, item_ids[1:], strict=True)):
        history, best = item_ids[max(0, position - 2) : position + 1], top[position][:5]
        cells: list[Cell] = [str(position + 1), f"+{position - 2}" if position > 2 else ""]
        cells += [*((short_id(item), GREY) for item in history), *[""] * (4 - len(history))]
        cells += [(short_id(item), PALETTE[2] if item == target else "#CCCCCC") for item in best]
        cells += [*[""] * (6 - len(best)), (short_id(target), PALETTE[2] if gain else PALETTE[1])]
        cells += ["no candidate" if rank is None else f"{rank:,.10g}", "hit" if gain else "miss"]
        drawing.cells(MARGIN, widths, [*cells, f"{gain:.3f}" if gain else "0"], 0.36)
    recall, mrr = n_hits / n_positions, sum(gains) / n_positions
    drawing.note(f"Recall@{cutoff} = {recall:.4f}: hits at {n_hits} of {counted(n_positions, 'position')}")
    drawing.note(f"MRR@{cutoff} = {mrr:.4f}: {sum(gains):.3f} / {n_positions}, the mean of the last column")
    return drawing.finished()


def session_parallel_figure(sessions: Sessions, item_ids: Sequence[str], n_lanes: int = 4, n_steps: int = 8) -> Figure:
    """Draw the first session-parallel mini-batches of an epoch, as training takes them.

    Args:
        sessions: Training sessions, in their order.
        item_ids: Item id of each item index.
        n_lanes: Lanes B, at most 24.
        n_steps: Steps to show, at most 12; fewer where the epoch has fewer.
    """
    if not len(sessions) or not 1 <= n_lanes <= 24 or not 1 <= n_steps <= 12:
        raise SessRecError(f"{n_lanes} lanes and {n_steps} steps of {len(sessions)} sessions cannot be drawn")
    grid = LaneGrid(sessions, n_lanes)
    window = grid.window(0, min(n_steps, grid.n_steps))
    starts, live = window.starts.numpy(), window.live.numpy()
    numbers, of_lane = np.cumsum(starts.ravel()).reshape(starts.shape), np.cumsum(starts, axis=0)
    title = f"A lane whose session ends takes the next one: {counted(int(starts.sum()), 'session')}"
    head, width, height = 0.7, 0.95, 0.66
    widths = [head, *[width] * window.n_steps]
    drawing = Drawing(max(7.0, 2 * MARGIN + sum(widths)), title)
    drawing.cells(MARGIN, widths, ["", *(f"step {step + 1}" for step in range(window.n_steps))], 0.4)
    for lane in range(n_lanes):
        cells: list[Cell] = [f"lane {lane + 1}"]
        for step in range(window.n_steps):
            name, target = (short_id(item_ids[int(part[step, lane])]) for part in (window.inputs, window.targets))
            if starts[step, lane]:
                x, y = MARGIN + head + step * width + 0.03, drawing.bottom
                drawing.axes.plot([x, x], [y + 0.03, y + height - 0.03], "k", linewidth=3.5)
            first = f"session {numbers[step, lane]}" if starts[step, lane] else " "
            colour = PALETTE[(lane + of_lane[step, lane]) % 6]  # neighbours in a lane differ
            cells.append((f"{first}\n{name}\n→ {target}", colour) if live[step, lane] else "empty")
        drawing.cells(MARGIN, widths, cells, height)
    drawing.cells(MARGIN, widths, ["resets", *map(str, starts.sum(axis=1))], 0.35)
    drawing.note(
        "In each cell the input and, behind the arrow, the target: the next item of the same session. The hidden state "
        "of a session goes on from step to step. A black bar marks a reset: a new session begins with a state of 0. "
        "All lanes of a step are one mini-batch; each lane's negatives include the targets of the other lanes."
    )
    return drawing.finished()


def traditional_figure(sessions: Sessions, item_ids: Sequence[str], n_shown: int = 6) -> Figure:
    """Draw the same sessions as a user-item matrix and as sequences.

    Args:
        sessions: Sessions of a log.
        item_ids: Item id of each item index.
        n_shown: Sessions to show, at most 20, of popular items; one more gives the first click of a newcomer.
    """
    first = (sessions[number] for number in range(min(len(sessions), 2000)))
    rows = dict.fromkeys(tuple(item_ids[item] for item in session) for session in first)
    if not 1 <= n_shown <= 20 or len(rows) < n_shown + 1:
        raise SessRecError(f"{n_shown} of {len(rows)} sessions cannot be shown: 1 to 20, and one more in the log")
    popularity = Counter(item for row in rows for item in {*row})
    order = sorted(rows, key=lambda row: (not 3 <= len(row) <= 4, -sum(popularity[item] for item in {*row}) / len(row)))
    shown, newcomer = order[:n_shown], order[n_shown][:1]
    items = sorted(item for item, _ in Counter(item for row in shown for item in dict.fromkeys(row)).most_common(12))
    drawing = Drawing(11, "A user-item matrix keeps what was clicked; a session keeps the order as well")
    name, square = 0.85, 0.35
    left, middle = MARGIN + name, 6.3
    drawing.bottom += 0.35
    for x, words in ((left, "Traditional: users and items"), (middle, "Session-based: what comes next?")):
        drawing.text(x, drawing.bottom - 0.1, words, 11, weight="bold", ha="left")
    drawing.bottom += 0.85
    for number, item in enumerate(items):
        x = left + (number + 0.5) * square
        drawing.text(x, drawing.bottom - 0.05, short_id(item), family="monospace", rotation=90, va="bottom")
    for number, row in enumerate([*shown, newcomer]):
        colour, top, is_new = PALETTE[number % 6], drawing.bottom, number == n_shown
        squares = [("", colour if item in row and not is_new else "#DDDDDD") for item in items]
        user, session = ("new user", "new session") if is_new else (f"user {number + 1}", f"session {number + 1}")
        drawing.cells(MARGIN, [name, *[square] * len(items)], [user, *squares], square)
        drawing.bottom = top
        clicks = [(short_id(item), colour) for item in row[-4:]]
        widths = [name, *[CELL] * len(clicks), 0.3, 0.3]
        drawing.cells(middle - name, widths, [session, *clicks, "→", ("?", GREY)], square)
    drawing.note(
        "Left, a filled square: the user clicked the item. The order is lost, and a new user's row is empty. "
        f"Right: the last clicks in order. The model ranks all {len(item_ids):,} items, from the first click on."
    )
    return drawing.finished()
