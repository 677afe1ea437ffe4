"""Write a comparison as a table for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from sessrec.evaluation.bootstrap import Difference
from sessrec.evaluation.comparison import Comparison
from sessrec.evaluation.rank_table import metric_name
from sessrec.evaluation.slices import Slices, slice_metrics
from sessrec.evaluation.tested_runs import Run
from sessrec.text import Table, seconds_text


def metrics_table(comparison: Comparison) -> Table:
    """Metrics of all models with their intervals, the best model first."""
    metrics = list(comparison.models[0].metrics)
    has_seeds = any(len(model.runs) > 1 for model in comparison.models)
    last = metric_name(metrics[-1])
    head = ["model", "fits", *map(metric_name, metrics), *([f"{last} of the fits"] if has_seeds else []), "fit", "test"]
    rows = []
    for model in comparison.models:
        own = model.by_run[metrics[-1]]
        spread = [f"{min(own):.4f} - {max(own):.4f}" if len(own) > 1 else ""] if has_seeds else []
        times = [seconds_text(model.fit_seconds), seconds_text(model.test_seconds)]
        rows.append([model.name, str(len(model.runs)), *map(str, model.metrics.values()), *spread, *times])
    return Table(head, rows)


def difference_cells(d: Difference) -> list[str]:
    """A difference with its interval, and its p value; a star where that is below 0.05."""
    p = ("<0.001" if d.p < 0.001 else f"{d.p:.3f}") + (" *" if d.p < 0.05 else "  ")
    return [f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]", p]


def differences_table(comparison: Comparison) -> Table:
    """Paired differences to the chosen model; a star where the corrected p value is below 0.05."""
    head = [f"minus {comparison.against}"]
    for metric in comparison.models[0].metrics:
        head += [metric_name(metric), "p"]
    rows = []
    for model in comparison.models:
        if model.differences:
            rows.append([model.name, *(cell for d in model.differences.values() for cell in difference_cells(d))])
    return Table(head, rows)


def slices_table(models: Mapping[str, Sequence[Run]], metric: str, slices: Slices) -> Table:
    """A metric of all models in every slice; means over the fits of a model."""
    by_model = {name: [slice_metrics(run.ranks, slices, [metric]) for run in runs] for name, runs in models.items()}
    kinds = max((of_runs[0] for of_runs in by_model.values()), key=len)  # older checkpoints do not know ages
    rows = []
    for kind, parts in kinds.items():
        for label, row in parts.items():
            cells = []
            for of_runs in by_model.values():
                own = [found[kind][label][metric] for found in of_runs if kind in found]
                cells.append(f"{sum(own) / len(own):.4f}" if own else "-")
            rows.append([f"{kind} {label}", f"{row['positions']:,}", *cells])
    return Table([metric_name(metric), "positions", *by_model], rows)


def protocol_text(comparison: Comparison) -> str:
    """What the figures are: data, rules, intervals and tests, in a few sentences."""
    p = comparison.protocol
    rule = "the last item no candidate" if p["exclude_last"] else "all items candidates"
    rule = "no item of the session so far a candidate" if p["exclude_seen"] else rule
    rule += "" if p["allowed_items"] == "all" else f", allowed items {p['allowed_items']}"
    text = (
        f"{p['items_ranked']:,} items ranked at each of {p['positions']:,} positions of {p['sessions']:,} test "
        f"sessions, ties {p['tie_mode']}, {rule}. In brackets: {comparison.level:.0%} intervals by bootstrap over "
        f"sessions ({comparison.n_resamples:,} resamples), and over seeds where a model was fitted several times. "
        "Differences are paired; p values are corrected for their number (Holm), a star is below 0.05."
    )
    if single := [model.name for model in comparison.models if len(model.runs) == 1]:
        text += (
            f" One fit only: {', '.join(single)}; where that fit drew random numbers, figures and p values are of it, "
            "and another seed's may differ by more."
        )
    return text


def comparison_csv(comparison: Comparison) -> str:
    """One row a model and metric, for programs."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(
        ["model", "metric", "fits", "value", "low", "high", "against", "difference", "difference_low"]
        + ["difference_high", "p_corrected", "by_fit", "fit_seconds", "test_seconds", "runs"]
    )
    for model in comparison.models:
        for metric, found in model.metrics.items():
            d = model.differences.get(metric)
            difference = [None] * 5 if d is None else [comparison.against, *d]  # None makes an empty cell
            folders = json.dumps([str(run.folder) for run in model.runs])
            fits = [json.dumps(model.by_run[metric]), model.fit_seconds, model.test_seconds, folders]
            rows.writerow([model.name, metric, len(model.runs), *found, *difference, *fits])
    return stream.getvalue()
