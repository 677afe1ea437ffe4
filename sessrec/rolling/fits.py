"""The fits of all windows: which there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import USUAL_FOLDER
from sessrec.experiments.side_by_side import Fit
from sessrec.rolling.models import NO_REPLAY, Model
from sessrec.rolling.windows import Window

Retrain = Literal["scratch", "warm", "never"]


class Row(NamedTuple):
    """A model under one way of retraining, and the run that it uses in each window."""

    name: str
    model: Model
    way: Retrain
    runs: list[str]


def rows_of(models: Sequence[Model], ways: Sequence[Retrain], n_windows: int, name: str) -> list[Row]:
    """What is compared: each model under each way of retraining.

    Ways share the run of the first window. A model that cannot start warm is fitted anew in place of that.

    Args:
        models: The models.
        ways: The ways of retraining.
        n_windows: Number of windows.
        name: First part of the runs' names.

    Raises:
        SessRecError: If runs of two models would have one name.
    """
    rows: list[Row] = []
    for model in models:
        own = dict.fromkeys("scratch" if way == "warm" and not model.starts_warm else way for way in ways)
        for way in own:
            stem = f"{name}-{model.name}"
            later = {"scratch": stem, "warm": f"{stem}-warm"}.get(way)
            first = f"{stem}-01"
            runs = [first if later is None else f"{later}-{number:02d}" for number in range(2, n_windows + 1)]
            rows.append(Row(model.name if len(ways) == 1 else f"{model.name} {way}", model, way, [first, *runs]))
    for row, other in itertools.combinations(rows, 2):
        if (shared := set(row.runs) & set(other.runs)) and row.model.name != other.model.name:
            raise SessRecError(
                f"runs of {row.name} and {other.name} would have one name ({min(shared)}): rename a config"
            )
    return rows


def fits_of(
    rows: Sequence[Row],
    windows: Sequence[Window],
    data_words: Callable[[Window], list[str]],
    words: Sequence[str],
) -> list[Fit]:
    """The fits that the rows need, each once.

    A warm fit trains on the sessions that are new since the window before, and those that ``--data.replay`` adds.

    Args:
        rows: The rows.
        windows: The windows.
        data_words: Gives words of fit that read the parts of a window.
        words: More words of every fit.
    """
    fits: dict[str, Fit] = {}
    for row in rows:
        for window, run in zip(windows, row.runs, strict=True):
            if run in fits:
                continue
            own = [*row.model.words, *words, *data_words(window), *USUAL_FOLDER]
            if row.way == "warm" and window.number > 1:
                before = window.number - 2
                since = ["--data.train_start", f"{windows[before].cut:.17g}"]
                fits[run] = Fit(run, [*own, *since], row.runs[before], is_kept=True)
            else:
                fits[run] = Fit(run, [*own, *NO_REPLAY], is_kept=True)
    return list(fits.values())
