"""What each fit gives in each step of time after its cut, over all positions of the sessions that begin in it.

A target that the model does not know is a miss here, and not left out as it is in a test: models of different ages are
measured at the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from sessrec.click_log.events import Events
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.tested_runs import Run, read_run
from sessrec.experiments.fit_and_test import checkpoint_to_test
from sessrec.experiments.side_by_side import RUNS
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.rolling.fits import Row


class Steps(NamedTuple):
    """The steps of time that sessions are dealt to by their starts."""

    first_cut: float
    """Begin of step 0, in Unix seconds."""
    length: float
    """Seconds from one cut to the next."""
    tested: float
    """Seconds after its cut in which a step's sessions begin: those after that count for no model."""

    def of(self, starts: np.ndarray) -> np.ndarray:
        """Number of the step in which each session begins, -1 for one that counts for no model, int64."""
        step = np.floor((starts - self.first_cut) / self.length + 1e-9)
        is_tested = starts - (self.first_cut + step * self.length) < self.tested
        return np.where(is_tested, step, -1).astype(np.int64)


def cells_of_run(
    run: Run, vocabulary: Vocabulary, test: Events, steps: Steps, metrics: Sequence[str], window: int
) -> pd.DataFrame:
    """Sum up what a tested run gives in each step.

    Args:
        run: The run.
        vocabulary: Items that its model knows.
        test: Its test part, cleaned.
        steps: The steps.
        metrics: Metrics such as ``mrr@20``.
        window: Number of its window, from 1: its model has age 0 in step ``window - 1``.

    Returns:
        One row a step: ``window``, ``step``, ``age``, ``sessions``, ``positions``, ``unknown_targets`` and
        ``unranked`` (unknown targets, and known ones before which no known item stands), the sum of each metric, and
        under ``ranked mrr@20`` the mean over the positions that a test ranks.

    Raises:
        SessRecError: If the run was not tested on that part.
    """
    is_target = np.ones(len(test), dtype=bool)
    is_target[test.offsets[:-1]] = False
    is_known = vocabulary.index_of(test.item_ids.to_pylist())[test.item] >= 0
    session = _sessions_of(run, test)
    n_known = np.bincount(test.session, is_known, test.n_sessions).astype(np.int64)
    if (np.bincount(session, minlength=test.n_sessions) != np.maximum(n_known - 1, 0)).any():
        raise SessRecError(f"{run.folder} was tested on other events than those of its window")
    step = steps.of(test.starts)
    n_steps = int(step.max(initial=-1)) + 1

    def sums(which: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Sum over the sessions in each step."""
        counts = step[which] >= 0
        return np.bincount(step[which][counts], None if values is None else values[counts], n_steps)

    of_target, every = test.session[is_target], np.arange(test.n_sessions)
    n_positions, n_ranked = sums(of_target), sums(session)
    columns = {
        "window": window,
        "step": np.arange(n_steps),
        "age": np.arange(n_steps) - (window - 1),
        "sessions": sums(every),
        "positions": n_positions,
        "unknown_targets": sums(of_target, ~is_known[is_target]).astype(np.int64),
        "unranked": n_positions - n_ranked,
    }
    for metric in metrics:
        columns[metric] = sums(session, gains(run.ranks.rank, metric))
        columns[f"ranked {metric}"] = columns[metric] / np.maximum(n_ranked, 1)
    cells = pd.DataFrame(columns)
    return cells[cells["sessions"] > 0].reset_index(drop=True)


def cells_of_rows(
    rows: Sequence[Row], tests: Sequence[Events], steps: Steps, metrics: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, list[float]]]:
    """Sum up the runs of all rows.

    Args:
        rows: The rows; their runs are tested.
        tests: Test part of each window.
        steps: The steps.
        metrics: Metrics such as ``mrr@20``.

    Returns:
        By row, the cells of its runs, see `cells_of_run`, and the seconds of its fits.
    """
    cells: dict[str, pd.DataFrame] = {}
    seconds: dict[str, float] = {}
    for row in rows:
        for window, (name, test) in enumerate(zip(row.runs, tests, strict=True), 1):
            if name in cells:
                continue
            run = read_run(RUNS / name)
            vocabulary = Vocabulary.from_state_dict(read_checkpoint(checkpoint_to_test(run.folder))["vocabulary"])
            cells[name] = cells_of_run(run, vocabulary, test, steps, metrics, window)
            seconds[name] = run.fit_seconds or 0.0
    own = {row.name: list(dict.fromkeys(row.runs)) for row in rows}
    return (
        {name: pd.concat([cells[run] for run in runs], ignore_index=True) for name, runs in own.items()},
        {name: [seconds[run] for run in runs] for name, runs in own.items()},
    )


def _sessions_of(run: Run, test: Events) -> np.ndarray:
    """Session of the test part that each ranked position is of, int64, shape (P,)."""
    ids = test.session_ids.take(pa.array(test.numbers)).cast(pa.string())
    session = run.ranks.table["session"].combine_chunks()
    place = pa.compute.index_in(session.dictionary, ids).take(session.indices).to_numpy(zero_copy_only=False)
    event = run.ranks.column("event")
    if np.isnan(place).any() or (event > test.lengths[place.astype(np.int64)]).any():
        raise SessRecError(f"{run.folder} was tested on other sessions than those of its window")
    return place.astype(np.int64)
