"""Audits of tested runs: how much of a figure hangs on a choice that papers seldom tell.

References:
    Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020; Hidasi and Czapp, "Widespread Flaws in
    Offline Evaluation of Recommender Systems", RecSys 2023 (ties, leakage); Klenitskiy et al., "Does It Look
    Sequential?", RecSys 2024 (shuffled sessions).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import Interval, interval
from sessrec.evaluation.comparison import pooled_means
from sessrec.evaluation.metrics import TieMode
from sessrec.evaluation.rank_table import Ranks, gains, metric_name
from sessrec.evaluation.tested_runs import Run
from sessrec.program import program
from sessrec.text import Table


class TrialScores(NamedTuple):
    """A trial of a study: its validation, and the same metric on the test part."""

    number: int
    validation: float
    test: float


class Audit(NamedTuple):
    """The same models under several conditions."""

    name: str
    title: str
    conditions: list[str]
    """What differs; the first one is what the others are held against."""
    values: dict[str, dict[str, list[Interval]]]
    """By metric, then by model, one interval a condition."""
    remarks: list[str]
    """What to make of it, in sentences."""
    trials: Mapping[str, Sequence[TrialScores]] = {}
    """By model, trials of its study, the best by validation first."""

    def tables(self) -> list[Table]:
        """One table a metric, the best model by the first condition on top."""
        found = []
        for metric, models in self.values.items():
            ordered = sorted(models.items(), key=lambda item: -item[1][0].value)
            rows = [[name, *map(str, intervals)] for name, intervals in ordered]
            found.append(Table([metric_name(metric), *self.conditions], rows))
        return found


def sampled_rank(ranks: Ranks, n_negatives: int, by_popularity: bool, seed: int = 0) -> np.ndarray:
    """Rank of each target among a few sampled negatives, ties against the model.

    The number of negatives at or above the target is drawn from its exact distribution, given the full ranking:
    different candidates drawn uniformly (hypergeometric), or candidates drawn one by one by popularity (binomial).

    Args:
        ranks: Full ranking.
        n_negatives: Negatives a position; fewer where there are not so many candidates.
        by_popularity: Whether candidates are drawn by their training events, in place of uniformly.
        seed: Seed of the draws.

    Returns:
        Ranks from 1, float64, infinite where the target is no candidate, shape (P,).
    """
    rng = np.random.default_rng(seed)
    is_candidate = np.isfinite(ranks.rank)
    if by_popularity:
        above = rng.binomial(n_negatives, np.nan_to_num(ranks.column("popular_odds"), nan=0.0))
    else:
        at_least = np.where(is_candidate, ranks.rank_by("conservative") - 1, 0).astype(np.int64)
        others = ranks.column("candidates").astype(np.int64) - is_candidate
        above = rng.hypergeometric(at_least, others - at_least, np.minimum(n_negatives, others))
    return np.where(is_candidate, 1.0 + above, np.inf)


def sampled_audit(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], n_negatives: int = 100, seed: int = 0
) -> Audit:
    """Full ranking against ranks among sampled negatives: how far metrics rise, and which models change places."""
    conditions = ["all items", f"{n_negatives} uniform", f"{n_negatives} by popularity"]

    def ranks_of(run: Run) -> list[np.ndarray]:
        own_seed = int(run.report["protocol"]["data_digest"][:8], 16) + seed
        sampled = [sampled_rank(run.ranks, n_negatives, by_popularity, own_seed) for by_popularity in (False, True)]
        return [run.ranks.rank_by("conservative"), *sampled]

    values, remarks = _intervals(models, metrics, ranks_of), []
    for metric, condition, ratios, reversals in _against_first(values, conditions):
        if ratios:
            least, greatest = min(ratios.values()), max(ratios.values())
            remarks.append(
                f"{metric} among {condition}: {least:.1f} to {greatest:.1f} times that among all items; {reversals}."
            )
    return Audit("sampled", "Ranks among sampled negatives against all items", conditions, values, remarks)


def _against_first(
    values: Mapping[str, Mapping[str, Sequence[Interval]]], conditions: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, float], str]]:
    """Metric, condition, each model's value over that in the first condition, and the pairs that change places."""
    for metric, by_model in values.items():
        for place, condition in enumerate(conditions[1:], 1):
            ratios = {name: own[place].value / own[0].value for name, own in by_model.items() if own[0].value > 0}
            yield metric_name(metric), condition, ratios, _reversals(by_model, place)


def _reversals(by_model: Mapping[str, Sequence[Interval]], place: int) -> str:
    """Pairs of models that stand the other way round in another condition than in the first."""
    first, other = ({name: own[at].value for name, own in by_model.items()} for at in (0, place))
    pairs = list(itertools.combinations(sorted(first, key=lambda name: -first[name]), 2))
    found = [f"{b} above {a}" for a, b in pairs if first[a] > first[b] and other[a] < other[b]]
    return f"{len(found)} of {len(pairs)} pairs change places" + (f": {', '.join(found)}" if found else "")


def ties_audit(models: Mapping[str, Sequence[Run]], metrics: Sequence[str]) -> Audit:
    """The three rules for ties side by side."""
    conditions: list[TieMode] = ["conservative", "median", "standard"]
    values = _intervals(models, metrics, lambda run: [run.ranks.rank_by(mode) for mode in conditions])
    remarks = []
    for name, runs in models.items():
        share = np.mean([(run.ranks.column("ties") > 0).mean() for run in runs])
        remarks.append(f"{name}: other items tie with the target at {share:.2%} of the positions.")
    return Audit("ties", "The three rules for ties", [*conditions], values, remarks)


def changed_data_audit(
    name: str,
    title: str,
    conditions: Sequence[str],
    models_by_condition: Sequence[Mapping[str, Sequence[Run]]],
    metrics: Sequence[str],
) -> Audit:
    """The same models on other data, such as shuffled sessions or a leaking split, by condition."""
    parts = [_intervals(models, metrics, lambda run: [run.ranks.rank]) for models in models_by_condition]
    values = {
        metric: {model: [part[metric][model][0] for part in parts] for model in models_by_condition[0]}
        for metric in metrics
    }
    remarks = []
    for metric, condition, ratios, reversals in _against_first(values, conditions):
        told = ", ".join(f"{model} {ratio:.2f}" for model, ratio in ratios.items())
        remarks.append(f"{metric}, {condition} over {conditions[0]}: {told}; {reversals}.")
    return Audit(name, title, list(conditions), values, remarks)


def chance_audit(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], chance: str, ceiling: str | None
) -> Audit:
    """Where models stand between the one that guesses and, if given, the one that knows the process behind the data.

    Raises:
        SessRecError: If one of the two is missing.
    """
    for name in (chance, ceiling):
        if name is not None and name not in models:
            raise SessRecError(f"there is no model {name} among {', '.join(models)}")
    values = _intervals(models, metrics, lambda run: [run.ranks.rank])
    remarks = []
    for metric, by_model in values.items():
        low = by_model[chance][0].value
        others = {name: own[0].value for name, own in by_model.items() if name not in (chance, ceiling)}
        if ceiling is None:
            what = f" over that of chance ({low:.4f})"
            told = [f"{name} {value / low:.0f}" if low else f"{name} -" for name, value in others.items()]
        else:
            what, way = ", share of the way from chance to the ceiling", by_model[ceiling][0].value - low
            told = [f"{name} {(value - low) / way:.0%}" if way else f"{name} -" for name, value in others.items()]
        remarks.append(f"{metric_name(metric)}{what}: {', '.join(told)}.")
    return Audit("chance", "Between chance and ceiling", ["all items"], values, remarks)


def tuning_audit(runs: Sequence[Run], metrics: Sequence[str]) -> tuple[Audit, dict[str, Run]]:
    """The final tests of studies: default against tuned options; a model that nothing was better for has one of both.

    Returns:
        The audit, and a run of the default options of each study.

    Raises:
        SessRecError: If a run is none of a final test, or the runs of a study's default options are missing.
    """
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        origin = run.report.get("tuning")
        if origin is None:
            raise SessRecError(f"{run.folder} is of no study: `{program('tune')} --final` makes runs for this audit")
        found.setdefault(origin["study"], {}).setdefault(origin["options"], []).append(run)
    if lacking := [study for study, groups in found.items() if "default" not in groups]:
        raise SessRecError(f"the runs of the default options are missing: give {lacking[0]}-default-*, too")
    for study, groups in found.items():
        if "tuned" not in groups and not groups["default"][0].report["tuning"]["is_best"]:
            raise SessRecError(f"the runs of the tuned options are missing: give {study}-tuned-*, too")
    common = os.path.commonprefix([*found]) if len(found) > 1 else ""
    by_name = {study[common.rfind("-") + 1 :]: groups for study, groups in found.items()}
    default = {name: groups["default"] for name, groups in by_name.items()}
    tuned = {name: groups.get("tuned", groups["default"]) for name, groups in by_name.items()}
    conditions = ["default options", "tuned"]
    audit = changed_data_audit(
        "tuning", "How much hangs on tuning: default against tuned options", conditions, [default, tuned], metrics
    )
    return audit, {name: own[0] for name, own in default.items()}


def trials_remark(name: str, trials: Sequence[TrialScores]) -> str:
    """What the tests of a study's trials say, the best by validation first: see `Audit`."""
    _, validation, test = np.array(trials, dtype=np.float64).T
    told = (
        f"{name}: validation {validation[0]:.4f}, test {test[0]:.4f}; best test of {len(test)} trials {test.max():.4f}"
    )
    if min(np.ptp(validation), np.ptp(test)) > 0:
        ranks = [pd.Series(values).rank() for values in (validation, test)]
        told += f", rank correlation {ranks[0].corr(ranks[1]):.2f}"
    return f"{told}."


def _intervals(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], ranks_of: Callable[[Run], Sequence[np.ndarray]]
) -> dict[str, dict[str, list[Interval]]]:
    """Intervals by metric and model, one for each array of ranks that a run has."""
    found = pooled_means(models, lambda run: [gains(rank, metric) for rank in ranks_of(run) for metric in metrics])
    return {
        metric: {name: [interval(mean) for mean in means[place :: len(metrics)]] for name, means in found.items()}
        for place, metric in enumerate(metrics)
    }
