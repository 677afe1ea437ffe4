"""Pictures that explain the model and the way of the data, drawn from a real model and a real report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from sessrec.data.report import DataReport
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import CUTOFFS
from sessrec.figures.drawing import GAP, GREY, LINE, MARGIN, Box, Drawing, text_width
from sessrec.figures.style import COLOURS, PALETTE, STYLE
from sessrec.models.gru4rec import GRU4Rec
from sessrec.text import counted, date_text


def architecture_figure(model: GRU4Rec) -> Figure:
    """Draw what a GRU4Rec is made of, with its sizes, options and numbers of weights.

    Args:
        model: A model that knows its items: fitted, loaded, or given a vocabulary.

    Returns:
        From the item of an event at the top down to the loss in training and the ranks in evaluation.

    Raises:
        SessRecError: If the model knows no items yet.
    """
    n_items, n_weights = len(model.vocabulary), sum(weight.numel() for weight in model.parameters())
    with rc_context(STYLE):
        layers = counted(len(model.layers), "GRU layer")
        drawing = Drawing(9.5, f"GRU4Rec with {layers} and {n_weights:,} weights scores {n_items:,} items")
        left, width = 2.6, 4.3
        drawing.lowest += 0.1
        (event,) = drawing.row([(left, width, "item of the event", [f"one of N = {n_items:,} items"], GREY)])
        (table,) = drawing.row([(left, width, *_input_table(model), PALETTE[0])])
        drawing.down(event, table)
        below = _dropout(drawing, table, "of the input", model.options.dropout_p_embed)
        for number, (cell, units) in enumerate(zip(model.cells, model.layers, strict=True), 1):
            below = _gru_layer(
                drawing, below, number, units, sum(weight.numel() for weight in cell.parameters()), model
            )
        words = [
            "state · row of the item + bias of the item",
            f"{_table_text(model.output_embedding)} and {model.output_bias.numel():,} biases",
        ]
        (scores,) = drawing.row([(left, width, "scores of the candidates", words, PALETTE[0])])
        drawing.down(below, scores)
        if model.shared_inputs:
            _tie(drawing, table, scores)
        _uses_of_scores(drawing, scores, model)
        return drawing.finished()


def _input_table(model: GRU4Rec) -> tuple[str, list[str]]:
    """Name and text of what an item becomes at the input."""
    if model.shared_inputs:
        return "constrained embedding", [f"{model.layers[-1]} numbers: the item's row of the output's own table"]
    weights = _table_text(model.input_embedding)
    if model.one_hot:
        gates = f"3 gates of {model.layers[0]} units"
        return "no embedding", [f"one-hot: the item's row of the input weights, {gates}", weights]
    return "separate embedding", [
        f"{model.options.embedding} numbers: the item's row of the input's own table",
        weights,
    ]


def _table_text(table: Tensor) -> str:
    rows, size = table.shape
    return f"{rows:,} × {size} = {rows * size:,} weights"


def _dropout(drawing: Drawing, upper: Box, where: str, probability: float) -> Box:
    """A box for dropout below another one; grey where there is none."""
    name = f"dropout {where}: p = {probability:g}" if probability else f"no dropout {where}"
    (box,) = drawing.row([(upper.left, upper.width, name, [], PALETTE[4] if probability else GREY)])
    drawing.down(upper, box)
    return box


def _gru_layer(drawing: Drawing, upper: Box, number: int, units: int, n_weights: int, model: GRU4Rec) -> Box:
    """A GRU layer and its dropout, with the state that comes from the event before and goes on to the next one."""
    if number > 1:
        inputs = f"{model.layers[number - 2]} inputs"
    else:
        inputs = f"{(model.output_embedding if model.shared_inputs else model.input_embedding).shape[1]} inputs"
    name = f"GRU layer {number}: {units} units"
    (layer,) = drawing.row(
        [(upper.left, upper.width, name, [f"{inputs}, {units} numbers of state: {n_weights:,} weights"], PALETTE[2])]
    )
    drawing.down(upper, layer)
    dropout = _dropout(drawing, layer, "of the output and state", model.options.dropout_p_hidden)
    lines = ["state after", "the event before;", "0 at a session's start"]
    drawing.text(MARGIN, layer.middle - 1.5 * 9 * LINE, lines, 9)
    drawing.arrow((MARGIN + text_width(lines[-1], 9) + 0.05, layer.middle), (layer.left, layer.middle))
    end = dropout.right + 0.9
    drawing.arrow((dropout.right, dropout.middle), (end, dropout.middle))
    drawing.text(end + 0.08, dropout.middle - 9 * LINE, ["state for", "the next event"], 9)
    return dropout


def _tie(drawing: Drawing, table: Box, scores: Box) -> None:
    """Show that input and output share one table."""
    x = drawing.width - MARGIN
    ends = [(table.right, table.middle), (x, table.middle), (x, scores.middle), (scores.right, scores.middle)]
    drawing.arrow(*ends, dashed=True, colour=PALETTE[0])
    drawing.text(table.right + 0.15, table.middle - 9 * LINE - 0.03, ["one table for both"], 9)


def _uses_of_scores(drawing: Drawing, scores: Box, model: GRU4Rec) -> None:
    """What becomes of the scores: the loss in training, the ranks in evaluation."""
    options, width = model.options, (drawing.width - 2 * MARGIN - GAP) / 2
    left, right, blue, red = MARGIN, MARGIN + width + GAP, COLOURS["train"], COLOURS["test"]
    negatives = [f"the lane's target; as negatives the targets of the other lanes{_samples(options)}"]
    out = [name for name in ("exclude_last", "exclude_seen") if options[name]]
    ranked = [f"without items that {' and '.join(out)} take out"] if out else ["nothing is sampled, nothing left out"]
    training, evaluation = drawing.row(
        [
            (left, width, "in training: some candidates", negatives, blue),
            (right, width, f"in evaluation: all {len(model.vocabulary):,} items", ranked, red),
        ]
    )
    cutoffs = ", ".join(str(cutoff) for cutoff in options.cutoffs)
    metrics = [f"Recall, MRR and NDCG at {cutoffs}; ties: {options.tie_mode}"]
    loss, ranks = drawing.row(
        [(left, width, *_loss(model), blue), (right, width, "rank of the target", metrics, red)],
    )
    for upper, lower in ((training, loss), (evaluation, ranks)):
        drawing.down(upper, lower)
        inside = min(max(upper.centre, scores.left + 0.2), scores.right - 0.2)
        drawing.down(scores, upper, inside)


def _samples(options: Any) -> str:
    if not options.n_sample:
        return ""
    return f" and {options.n_sample:,} sampled ones, drawn by count to the power {options.sample_alpha:g}"


def _loss(model: GRU4Rec) -> tuple[str, list[str]]:
    """Name and options of the loss, and of the optimiser that follows it."""
    options = model.options
    momentum = f"momentum {options.momentum:g}" if options.momentum else "no momentum"
    steps = [f"Adagrad: learning rate {options.learning_rate:g}, {momentum}", "gradients go back one event"]
    if model.loss_name == "cross-entropy":
        logq = f"logQ correction: strength {options.logq:g}" if options.logq else "no logQ"
        return "loss: cross-entropy", [logq, *steps]
    if model.loss_name == "bpr-max":
        saturation = f"ELU parameter {options.elu_param:g}" if options.elu_param else "no ELU"
        return "loss: BPR-max", [f"score regularisation {options.bpreg:g}, {saturation}", *steps]
    return f"loss: {model.loss_name.upper().replace('MAX', 'max')}", steps


def pipeline_figure(
    report: DataReport | Mapping[str, Any], n_lanes: int | None = None, cutoffs: Sequence[int] = CUTOFFS
) -> Figure:
    """Draw the way from a click log to the metrics, with the counts of one log's report.

    Args:
        report: Report of a log that was prepared for a fit, or what `DataReport.as_dict` gave: the content of a run's
            ``data_report.json``.
        n_lanes: Lanes of the session-parallel batches, where known.
        cutoffs: Lengths K of the recommendation list for the metrics.

    Returns:
        The log and its split at the top; below, one column for each part.

    Raises:
        SessRecError: If the report has no training part.
    """
    figures: Mapping[str, Any] = report.as_dict() if isinstance(report, DataReport) else report
    if not {"read", "log", "cleaned", "train"} <= figures.keys():
        raise SessRecError("the report has no training part: give the data report of a fit or of sessrec.prepare")
    parts = [part for part in ("train", "val", "test") if part in figures]
    with rc_context(STYLE):
        n_events, n_items = figures["log"]["events"], figures["train"]["items"]
        ends = " and its metrics" if len(parts) > 1 else ""
        drawing = Drawing(10, f"How {n_events:,} events become a model of {n_items:,} items{ends}")
        splits = _preparation(drawing, figures, parts)
        sessions = _parts(drawing, figures, parts, splits)
        _batches_to_metrics(drawing, figures, parts, sessions, n_lanes, cutoffs)
        return drawing.finished()


def _columns(drawing: Drawing, n_columns: int) -> list[tuple[float, float]]:
    """Left edge and width of columns beside each other."""
    width = (drawing.width - 2 * MARGIN - (n_columns - 1) * GAP) / n_columns
    return [(MARGIN + number * (width + GAP), width) for number in range(n_columns)]


def _preparation(drawing: Drawing, figures: Mapping[str, Any], parts: Sequence[str]) -> Box:
    """The log, its cleaning and its split, side by side; the box of the split."""
    log, cleaned, read = figures["log"], figures["cleaned"], figures["read"]
    n_files = read.get("files")
    source = PurePath(read["source"]).name if n_files == 1 else counted(n_files, "file") if n_files else read["source"]
    size = [
        f"{counted(log['events'], 'event')} of {counted(log['items'], 'item')}",
        f"in {counted(log['sessions'], 'session')}",
    ]
    unused = read.get("rows", log["events"]) - log["events"]
    dropped = [
        f"− {value:,} {name.removeprefix('events_dropped_').replace('_', ' ')}"
        for name, value in cleaned.items()
        if name.startswith("events_dropped_") and value
    ]
    texts = [
        ("click log", [source, *size, *([f"{counted(unused, 'row')} not used"] if unused else [])]),
        ("clean", [*(dropped or ["− 0 events"]), f"{counted(cleaned['events'], 'event')} left"]),
        ("split, at one time for all", _split(figures, parts)),
    ]
    places = _columns(drawing, 3)
    boxes = drawing.row([(*place, *text, GREY) for place, text in zip(places, texts, strict=True)])
    for before, after in zip(boxes, boxes[1:], strict=False):
        drawing.arrow((before.right, before.middle), (after.left, after.middle))
    return boxes[-1]


def _split(figures: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """When the later parts begin, and what sessions under way at that time lose."""
    if len(parts) == 1:
        return ["all of it is the training part"]
    cuts = {part: figures[f"{part} cut"] for part in parts[1:]}
    lost = sum(cut["events_of_tails"] + cut["events_of_short_heads"] for cut in cuts.values())
    as_text = date_text if figures["has_times"] else "row {:.0f}".format
    times = [f"{part} begins {as_text(figures['cuts'][part])}" for part in cuts]
    return [*times, f"− {counted(lost, 'event')} of sessions cut there"]


def _parts(drawing: Drawing, figures: Mapping[str, Any], parts: Sequence[str], split: Box) -> list[Box]:
    """Each part's events, the vocabulary and the sessions of what it knows; the boxes of the sessions."""
    places, n_items = _columns(drawing, len(parts)), figures["train"]["items"]
    events, sessions = [], []
    for part, (left, width) in zip(parts, places, strict=True):
        of_part, colour = figures[part], COLOURS[part]
        before = [f"{counted(of_part['events_before'], 'event')} in {counted(of_part['sessions_before'], 'session')}"]
        events.append((left, width, f"{part} events", before, colour))
        lost = [
            f"− {counted(of_part['unknown_events'], 'event')} of unknown items",
            f"− {counted(of_part['short_events'], 'event')} of sessions left too short",
        ]
        kept = f"{counted(of_part['sessions'], 'session')}, {counted(of_part['events'], 'event')}"
        positions = f"{counted(of_part['positions'], 'position')}: an item and its next"
        sessions.append(
            (left, width, f"{part} sessions", [*(lost if part != "train" else []), kept, positions], colour)
        )
    upper = drawing.row(events)
    others = " and ".join(parts[1:])
    words = "the items of the train events" + (f"; what {others} hold beside them is dropped" if others else "")
    name = f"vocabulary: N = {counted(n_items, 'item')}"
    (vocabulary,) = drawing.row([(MARGIN, drawing.width - 2 * MARGIN, name, [words], COLOURS["train"])])
    lower = drawing.row(sessions)
    _fan(drawing, split, upper)
    for one, other in zip(upper, lower, strict=True):
        drawing.down(one, vocabulary, one.centre)
        drawing.down(vocabulary, other)
    return lower


def _fan(drawing: Drawing, source: Box, ends: Sequence[Box]) -> None:
    """Arrows from one box down to several, by one line between them."""
    between = (source.bottom + ends[0].top) / 2 - 0.03
    for end in ends:
        drawing.arrow(
            (source.centre, source.bottom), (source.centre, between), (end.centre, between), (end.centre, end.top)
        )


def _batches_to_metrics(
    drawing: Drawing,
    figures: Mapping[str, Any],
    parts: Sequence[str],
    sessions: Sequence[Box],
    n_lanes: int | None,
    cutoffs: Sequence[int],
) -> None:
    """From the sessions to the metrics of each part that has any."""
    places, n_items = _columns(drawing, len(parts)), figures["train"]["items"]
    lanes = "B lanes" if n_lanes is None else counted(n_lanes, "lane")
    texts = {
        "train": ("session-parallel batches", [f"{lanes} side by side; a free lane takes the next session"]),
        "val": ("whole sessions", ["after every epoch"]),
        "test": ("whole sessions", ["once, at the end"]),
    }
    batches = drawing.row([(*place, *texts[part], COLOURS[part]) for part, place in zip(parts, places, strict=True)])
    pairs = counted(figures["train"]["positions"], "pair")
    words = f"learns from {pairs} an epoch; gives each of the {n_items:,} items a score at every position"
    (model,) = drawing.row([(MARGIN, drawing.width - 2 * MARGIN, "model", [words], PALETTE[2])])
    for one, other in zip(sessions, batches, strict=True):
        drawing.down(one, other)
        drawing.down(other, model, other.centre)
    shown = ", ".join(map(str, cutoffs))
    ranks, metrics = [], []
    for part, place in zip(parts[1:], places[1:], strict=True):
        at = f"of {counted(figures[part]['positions'], 'target')} among all {n_items:,} items"
        ranks.append((*place, f"{part} ranks", [at], COLOURS[part]))
        means = [f"Recall, MRR, NDCG at {shown}", "means over these ranks"]
        metrics.append((*place, f"{part} metrics", means, COLOURS[part]))
    if not ranks:
        return
    leaks = [
        f"{words}: " + ", ".join(f"{figures[f'{part} cut'][name]:,} ({part})" for part in parts[1:])
        for words, name in (
            ("train events at or after the start", "train_events_at_or_after_t"),
            ("sessions also in train", "shared_sessions"),
        )
    ]
    upper = drawing.row([(*places[0], "leak check", leaks, GREY), *ranks])[1:]
    lower = drawing.row(metrics)
    for one, other in zip(upper, lower, strict=True):
        drawing.down(model, one, one.centre)
        drawing.down(one, other)
