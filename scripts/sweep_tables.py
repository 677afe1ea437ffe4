"""The results of `scripts/sweep.py`: one row a fit, the table of their means, and the lines of the figure."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sessrec.text import Table
from sessrec.writing import replacing

METRICS = {"Recall@20": "recall@20", "MRR@20": "mrr@20"}
EVERY_VALUE = "any"
"""Value of a fit that does not depend on what is swept."""

Row = dict[str, Any]

_RULES = ("tie_mode", "exclude_last", "exclude_seen")
_COUNTS = {
    "train_sessions": "training sessions",
    "test_sessions": "test sessions",
    "test_positions": "test positions",
    "items_ranked": "items ranked",
}
_DROPPED = {
    "repeats": "repeats dropped",
    "of_rare_items": "events of rare items dropped",
    "in_short_sessions": "events in short sessions dropped",
    "beyond_max_session_length": "events beyond the greatest length dropped",
}


def read_run(run: Path) -> Row:
    """Read what a run was tested with, on and by.

    Args:
        run: Folder of a run that was fitted and tested.

    Returns:
        Metrics, rules of the ranking and counts of the data, by column.
    """
    tested = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    log = json.loads((run / "data_report.json").read_text(encoding="utf-8"))
    cleaned, train, test = log["cleaned"], log["train"], tested["data"]
    n_val = log.get("val", {}).get("sessions", 0)
    return (
        {name.removeprefix("test/"): value for name, value in tested["metrics"].items()}
        | {name: tested["protocol"][name] for name in (*_RULES, "items_ranked", "data_digest")}
        | {"train_sessions": train["sessions"], "train_events": train["events"], "train_positions": train["positions"]}
        | {
            "val_sessions": n_val,
            "test_sessions": test["sessions"],
            "test_events": test["events"],
            "test_positions": test["positions"],
        }
        | {
            "events_read": log["log"]["events"],
            "items_read": log["log"]["items"],
        }
        | {"events_cleaned": cleaned["events"], "items_cleaned": cleaned["items"]}
        | {f"dropped_{rule}": cleaned[f"events_dropped_{rule}"] for rule in _DROPPED}
        | {"test_events_of_unknown_items": test["unknown_events"]}
    )


def markdown(rows: Sequence[Row], head: str) -> str:
    """One row a value and model: mean and, with several seeds, (least - greatest); then the counts of the data.

    Args:
        rows: One row a fit.
        head: Name of the first column.

    Returns:
        The table, in Markdown.
    """
    dropped = {
        f"dropped_{rule}": name for rule, name in _DROPPED.items() if any(row[f"dropped_{rule}"] for row in rows)
    }
    counts = _COUNTS | dropped
    names = [head, "model", "fits", *METRICS, *counts.values()]
    lines = []
    for fits in _together(rows).values():
        cells = [fits[0]["value"], fits[0]["model"], str(len(fits))]
        cells += [_spread([fit[metric] for fit in fits]) for metric in METRICS.values()]
        cells += [f"{fits[0][count]:,}" for count in counts]
        lines.append(cells)
    return Table(names, lines).markdown()


def rules(rows: Sequence[Row]) -> str:
    """How the items were ranked, in one sentence; a warning where the models of a value were not tested alike."""
    texts = [", ".join(f"{rule.replace('_', ' ')} {row[rule]}" for rule in _RULES) for row in rows]
    by_value: dict[str, set[tuple[str, str, int]]] = {}
    for row, text in zip(rows, texts, strict=True):
        by_value.setdefault(row["value"], set()).add((text, row["data_digest"], row["items_ranked"]))
    if all(len(tests) == 1 for tests in by_value.values()) and len(set(texts)) == 1:
        return f"All items known from training are ranked at every position of the test part: {texts[0]}."
    by_model = {row["model"]: text for row, text in zip(rows, texts, strict=True)}
    each = "; ".join(f"{model}: {text}" for model, text in by_model.items())
    return f"WARNING: the models were tested under different rules, or on different positions or items: {each}."


def is_one_test(rows: Sequence[Row]) -> bool:
    """Whether all fits were tested on the same positions, against the same items."""
    return len({(row["data_digest"], row["items_ranked"]) for row in rows}) == 1


def lines_of(rows: Sequence[Row], values: Sequence[str]) -> dict[str, dict[str, list[list[float]]]]:
    """The results of each metric and model at each value, as `sessrec.figures.sweeps.sweep_figure` takes them."""
    together = _together(rows)
    models = dict.fromkeys(row["model"] for row in rows)
    return {
        title: {
            model: [
                [fit[metric] for fit in together.get((value, model), together.get((EVERY_VALUE, model), []))]
                for value in values
            ]
            for model in models
        }
        for title, metric in METRICS.items()
    }


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write one row a fit, with the run that it is in."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _together(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The fits of each value and model, which differ in their seeds only."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["value"], row["model"]), []).append(row)
    return found


def _spread(results: list[float]) -> str:
    mean = f"{statistics.mean(results):.4f}"
    return mean if len(results) == 1 else f"{mean} ({min(results):.4f} - {max(results):.4f})"
