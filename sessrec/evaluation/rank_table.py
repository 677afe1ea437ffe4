"""The ranks file of a test: one row a position, from which every metric, interval and slice can be worked out again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import TieMode
from sessrec.evaluation.ranking import MISSED
from sessrec.program import program
from sessrec.writing import atomic_write

RANKS_FILE = "ranks.parquet"
_METRICS = {"recall": "Recall", "mrr": "MRR", "ndcg": "NDCG"}
_COLUMNS = {
    "session": "session id, as in the click log",
    "position": "events of the session before the target, from 1",
    "item": "item id of the target",
    "rank": "rank of the target by the rule of the test; none where the target is no candidate, which is a miss",
    "ties": "other candidates that score exactly as the target does",
    "candidates": "items that were ranked, the target among them",
    "length": "events of the whole session",
    "repeat": "whether the target is among the events before it",
    "popularity": "share of the training events that belong to items more popular than the target",
    "age": "seconds since the target's first training event; none where it has none, or the log has no times",
    "popular_odds": "probability that a candidate other than the target, drawn by popularity, scores at least as high",
    "event": "number of the target among the events of the session, from 1, those of unknown items included",
    "clicks": "training events of the target",
}
"""Columns of the file and what they hold; kept in the file, too."""
_ADDED_COLUMNS = {"event", "clicks"}
"""Those that files of earlier releases lack."""
_TEXTS = pa.dictionary(pa.int32(), pa.string())
_SHARE_OF_TIES = {"standard": 0.0, "median": 0.5, "conservative": 1.0}


@dataclass(frozen=True)
class Ranks:
    """What a ranks file holds, as arrays of shape (P,); positions session by session.

    Args:
        table: Columns of the file.
        tie_mode: Rule by which the ranks were taken.
    """

    table: pa.Table
    tie_mode: TieMode

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.table)

    def column(self, name: str) -> np.ndarray:
        """A column of numbers; NaN where there is none."""
        return self.table[name].to_numpy()

    @cached_property
    def session(self) -> np.ndarray:
        """Number of each position's session, from 0 in the order of the file, int64."""
        codes = self.table["session"].combine_chunks().indices.to_numpy()
        return np.cumsum(np.diff(codes, prepend=codes[:1]) != 0)

    @cached_property
    def rank(self) -> np.ndarray:
        """Rank of each target, float64; infinite where it is no candidate."""
        rank = self.column("rank").astype(np.float64)
        return np.nan_to_num(rank, nan=np.inf, posinf=np.inf)

    @cached_property
    def above(self) -> np.ndarray:
        """Candidates that score higher than the target, float64; infinite where it is no candidate."""
        return self.rank - 1 - _SHARE_OF_TIES[self.tie_mode] * self.column("ties")

    def rank_by(self, tie_mode: TieMode) -> np.ndarray:
        """Rank of each target by any rule for ties, float64; infinite where it is no candidate."""
        return 1 + self.above + _SHARE_OF_TIES[tie_mode] * self.column("ties")


def gains(rank: np.ndarray, metric: str) -> np.ndarray:
    """What each position gains by a metric, whose value is the mean of all.

    Args:
        rank: Rank of each target, float64, infinite for a miss, shape (P,).
        metric: ``recall@K``, ``mrr@K`` or ``ndcg@K`` with any K from 1 up.

    Returns:
        Gains in [0, 1], float64, shape (P,).

    Raises:
        SessRecError: If there is no such metric.

    Example:
        >>> gains(np.array([1.0, 2.0, 4.0, np.inf]), "mrr@3").tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    name, _, cutoff = metric.partition("@")
    if name not in _METRICS or not (cutoff.isascii() and cutoff.isdecimal()) or int(cutoff) < 1:
        raise SessRecError(f"{metric} is no metric: recall@K, mrr@K or ndcg@K with K from 1 up, such as recall@20")
    gain = {"recall": rank**0, "mrr": 1 / rank, "ndcg": 1 / np.log2(rank + 1)}[name]
    return np.where(rank <= int(cutoff), gain, 0.0)


def check_metrics(metrics: Iterable[str]) -> None:
    """Refuse values of ``--metrics`` that are no metrics, before the work; see `gains`.

    Raises:
        SessRecError: If there is one such.
    """
    for metric in metrics:
        try:
            gains(np.ones(1), metric)
        except SessRecError as error:
            raise SessRecError(f"--metrics {error}") from error


def metric_name(metric: str) -> str:
    """A metric as it is printed, with or without its cutoff.

    Example:
        >>> metric_name("mrr@20")
        'MRR@20'
    """
    name, at, cutoff = metric.partition("@")
    return _METRICS[name] + at + cutoff


def ranks_table(
    sessions: Sessions,
    vocabulary: Vocabulary,
    above: np.ndarray,
    tied: np.ndarray,
    weight: np.ndarray,
    tie_mode: TieMode,
    excluded: tuple[bool, bool],
    has_times: bool,
    allowed: np.ndarray | None = None,
) -> pa.Table:
    """Lay the counts of a test out as the table that the ranks file holds.

    Args:
        sessions: The test part.
        vocabulary: Items of the model.
        above: Items above each target, int64, shape (P,), positions session by session.
        tied: Other items tied with it, int64, shape (P,).
        weight: Training events that all these have, float64, shape (P,).
        tie_mode: Rule for ties.
        excluded: Whether the last item, and whether all items of the session so far, are no candidates.
        has_times: Whether the times of the sessions are times, and no numbers of rows.
        allowed: Which items may be candidates, bool, shape (N,); all where None.
    """
    assert sessions.session_ids is not None
    lengths, items = np.diff(sessions.offsets), np.asarray(sessions.items)
    session = np.repeat(np.arange(len(sessions)), lengths - 1)
    target = np.delete(np.arange(len(items)), sessions.offsets[:-1])  # events but the first of each session
    allowed = np.ones(len(vocabulary), dtype=bool) if allowed is None else allowed
    popularity = np.where(allowed, vocabulary.popularity, 0.0)  # of candidates
    is_first, n_seen, share_seen = _so_far(items, sessions.offsets, popularity, allowed)
    n_excluded, share_excluded = np.zeros(len(target), dtype=np.int64), np.zeros(len(target))
    exclude_last, exclude_seen = excluded
    if exclude_seen:
        n_excluded, share_excluded = n_seen[target - 1], share_seen[target - 1]
    elif exclude_last:
        last = items[target - 1]
        n_excluded, share_excluded = allowed[last].astype(np.int64), popularity[last]
    position = target - sessions.offsets[session]
    event = position + 1 if sessions.event_numbers is None else np.asarray(sessions.event_numbers)[target]
    is_candidate = above < MISSED
    # share of the candidates but the target
    others = (1.0 if allowed.all() else popularity.sum()) - share_excluded - popularity[items[target]]
    rank = 1 + above + _SHARE_OF_TIES[tie_mode] * tied
    kept, codes = np.unique(items[target], return_inverse=True)
    age = np.full(len(target), np.nan)
    if has_times and sessions.times is not None and vocabulary.first_times is not None:
        age = np.asarray(sessions.times)[target] - vocabulary.first_times[items[target]]
    columns = {
        "session": pa.DictionaryArray.from_arrays(
            pa.array(session.astype(np.int32)), sessions.session_ids.cast(pa.string())
        ),
        "position": pa.array(position.astype(np.int32)),
        "item": pa.DictionaryArray.from_arrays(
            pa.array(codes.reshape(-1).astype(np.int32)), pa.array([vocabulary.item_ids[item] for item in kept])
        ),
        "rank": pa.array(rank if tie_mode == "median" else rank.astype(np.int64), mask=~is_candidate),
        "ties": pa.array(tied.astype(np.int32)),
        "candidates": pa.array((int(allowed.sum()) - n_excluded).astype(np.int32)),
        "length": pa.array(lengths[session].astype(np.int32)),
        "repeat": pa.array(~is_first[target]),
        "popularity": pa.array(_share_above(vocabulary.counts)[items[target]]),
        "age": pa.array(age, mask=np.isnan(age)),
        "popular_odds": pa.array(
            np.clip(weight / vocabulary.counts.sum() / np.where(others > 0, others, 1.0), 0.0, 1.0),
            mask=~is_candidate | (others <= 0),
        ),
        "event": pa.array(event.astype(np.int32)),
        "clicks": pa.array(vocabulary.counts[items[target]]),
    }
    return pa.table(columns)


def _so_far(
    items: np.ndarray, offsets: np.ndarray, popularity: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each event's item is new in the session, and number and popularity of allowed ones up to it."""
    lengths = np.diff(offsets)
    pair = np.repeat(np.arange(len(lengths)), lengths) * len(popularity) + items
    is_first = np.zeros(len(items), dtype=bool)
    is_first[np.unique(pair, return_index=True)[1]] = True
    sums = []
    for value in ((is_first & allowed[items]).astype(np.int64), np.where(is_first, popularity[items], 0.0)):
        total = np.concatenate([[0], np.cumsum(value)])
        sums.append(total[1:] - np.repeat(total[offsets[:-1]], lengths))
    return is_first, sums[0], sums[1]


def _share_above(counts: np.ndarray) -> np.ndarray:
    """Share of all events that belong to items with more events than each, float64, shape (N,)."""
    ordered = np.sort(counts)
    total = np.concatenate([[0], np.cumsum(ordered)])
    return (total[-1] - total[np.searchsorted(ordered, counts, side="right")]) / total[-1]


def write_ranks(table: pa.Table, file: Path, tie_mode: TieMode) -> None:
    """Write a table of `ranks_table` as a ranks file, whole or not at all."""
    described = table.replace_schema_metadata({"sessrec.tie_mode": tie_mode, **_COLUMNS})
    with atomic_write(file) as temporary:
        pq.write_table(described, temporary, compression="zstd", write_page_checksum=True)


def read_ranks(file: Path) -> Ranks:
    """Read a ranks file.

    Raises:
        SessRecError: If it is missing, damaged or of another kind.
    """
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        missing = _COLUMNS.keys() - _ADDED_COLUMNS - set(table.column_names)  # damaged names fail when they are read
        table.validate(full=True)
    except FileNotFoundError:
        raise SessRecError(f"there is no {file}: `{program('test')}` on that run writes it") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SessRecError(
            f"{file} cannot be read ({' '.join(str(error).split())[:120]}): test the run again"
        ) from None
    if missing:
        raise SessRecError(f"{file} has no column {min(missing)}: test the run again")
    for name in ("session", "item"):
        if table[name].type != _TEXTS:
            raise SessRecError(f"{file} has a column {name} of {table[name].type}, not of texts: test the run again")
    if metadata.get("sessrec.tie_mode") not in _SHARE_OF_TIES:
        raise SessRecError(f"{file} does not say by which rule its ranks were taken: test the run again")
    return Ranks(table, metadata["sessrec.tie_mode"])
