"""Audits of tested runs: how much of a figure hangs on a choice that papers seldom tell.

References:
    Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020; Hidasi and Czapp, "Widespread Flaws in
    Offline Evaluation of Recommender Systems", RecSys 2023 (ties, leakage); Klenitskiy et al., "Does It Look
    Sequential?", RecSys 2024 (shuffled sessions).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import Interval, interval
from sessrec.evaluation.comparison import pooled_means
from sessrec.evaluation.rank_table import Ranks, gains, metric_name
from sessrec.evaluation.tested_runs import Run
from sessrec.text import Table


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

    def tables(self) -> list[Table]:
        """One table a metric, the best model by the first condition on top."""
        found = []
        for metric, models in self.values.items():
            rows = [
                [name, *(f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in intervals)]
                for name, intervals in sorted(models.items(), key=lambda item: -item[1][0].value)
            ]
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
        odds = np.nan_to_num(ranks.column("popular_odds"), nan=0.0)
        above = rng.binomial(n_negatives, odds)
    else:
        at_least = np.where(is_candidate, ranks.rank_by("conservative") - 1, 0).astype(np.int64)
        others = ranks.column("candidates").astype(np.int64) - is_candidate
        above = rng.hypergeometric(at_least, others - at_least, np.minimum(n_negatives, others))
    return np.where(is_candidate, 1.0 + above, np.inf)


def sampled_audit(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], n_negatives: int = 100, seed: int = 0
) -> Audit:
    """Full ranking against ranks among sampled negatives: how far figures rise, and which models change places.

    Args:
        models: Runs of each model.
        metrics: The metrics.
        n_negatives: Negatives a position.
        seed: Seed of the draws.
    """
    conditions = ["all items", f"{n_negatives} uniform", f"{n_negatives} by popularity"]

    def ranks_of(run: Run) -> list[np.ndarray]:
        ranks = run.ranks
        own_seed = int(run.report["protocol"]["data_digest"][:8], 16) + seed
        return [
            ranks.rank_by("conservative"),
            sampled_rank(ranks, n_negatives, False, own_seed),
            sampled_rank(ranks, n_negatives, True, own_seed),
        ]

    values = _intervals(models, metrics, ranks_of)
    remarks = []
    for metric, by_model in values.items():
        for place, condition in enumerate(conditions[1:], 1):
            ratios = [own[place].value / own[0].value for own in by_model.values() if own[0].value > 0]
            if ratios:
                remarks.append(
                    f"{metric_name(metric)} among {condition}: {min(ratios):.1f} to {max(ratios):.1f} times that among "
                    f"all items; {_reversals(by_model, place)}."
                )
    return Audit("sampled", "Ranks among sampled negatives against all items", conditions, values, remarks)


def _reversals(by_model: Mapping[str, Sequence[Interval]], place: int) -> str:
    """Pairs of models that stand the other way round in another condition than in the first."""
    found = []
    for one, other in itertools.combinations(sorted(by_model, key=lambda name: -by_model[name][0].value), 2):
        if (
            by_model[one][place].value < by_model[other][place].value
            and by_model[one][0].value > by_model[other][0].value
        ):
            found.append(f"{other} above {one}")
    n_pairs = len(by_model) * (len(by_model) - 1) // 2
    return f"{len(found)} of {n_pairs} pairs change places" + (f": {', '.join(found)}" if found else "")


def ties_audit(models: Mapping[str, Sequence[Run]], metrics: Sequence[str]) -> Audit:
    """The three rules for ties side by side.

    Args:
        models: Runs of each model.
        metrics: The metrics.
    """
    conditions = ["conservative", "median", "standard"]
    values = _intervals(
        models,
        metrics,
        lambda run: [run.ranks.rank_by(mode) for mode in conditions],  # type: ignore[arg-type]
    )
    remarks = []
    for name, runs in models.items():
        shares = [float((run.ranks.column("ties") > 0).mean()) for run in runs]
        remarks.append(f"{name}: other items tie with the target at {np.mean(shares):.2%} of the positions.")
    return Audit("ties", "The three rules for ties", conditions, values, remarks)


def changed_data_audit(
    name: str,
    title: str,
    conditions: Sequence[str],
    models_by_condition: Sequence[Mapping[str, Sequence[Run]]],
    metrics: Sequence[str],
) -> Audit:
    """The same models on other data, such as shuffled sessions or a leaking split.

    Args:
        name: Name of the audit.
        title: What is shown.
        conditions: What differs; the first one is what the others are held against.
        models_by_condition: Runs of each model, in each condition.
        metrics: The metrics.
    """
    parts = [_intervals(models, metrics, lambda run: [run.ranks.rank]) for models in models_by_condition]
    values = {
        metric: {model: [part[metric][model][0] for part in parts] for model in models_by_condition[0]}
        for metric in metrics
    }
    remarks = []
    for metric, by_model in values.items():
        for place, condition in enumerate(conditions[1:], 1):
            told = ", ".join(
                f"{model} {own[place].value / own[0].value:.2f}" for model, own in by_model.items() if own[0].value > 0
            )
            remarks.append(
                f"{metric_name(metric)}, {condition} over {conditions[0]}: {told}; {_reversals(by_model, place)}."
            )
    return Audit(name, title, list(conditions), values, remarks)


def chance_audit(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], chance: str, ceiling: str | None
) -> Audit:
    """Where models stand between chance and, where it is known, the best that is possible.

    Args:
        models: Runs of each model, chance and ceiling among them.
        metrics: The metrics.
        chance: Name of the model that guesses.
        ceiling: Name of the one that knows the process behind the data; None where it is not known.

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
        if ceiling is None:
            told = [
                f"{name} {own[0].value / low:.0f}" if low else f"{name} -"
                for name, own in by_model.items()
                if name != chance
            ]
            remarks.append(f"{metric_name(metric)} over that of chance ({low:.4f}): {', '.join(told)}.")
        else:
            way = by_model[ceiling][0].value - low
            told = [
                f"{name} {(own[0].value - low) / way:.0%}" if way else f"{name} -"
                for name, own in by_model.items()
                if name not in (chance, ceiling)
            ]
            remarks.append(f"{metric_name(metric)}, share of the way from chance to the ceiling: {', '.join(told)}.")
    return Audit("chance", "Between chance and ceiling", ["all items"], values, remarks)


def _intervals(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], ranks_of: Callable[[Run], Sequence[np.ndarray]]
) -> dict[str, dict[str, list[Interval]]]:
    """Intervals by metric and model, one for each array of ranks that a run has."""
    found = pooled_means(models, lambda run: [gains(rank, metric) for rank in ranks_of(run) for metric in metrics])
    return {
        metric: {name: [interval(mean) for mean in means[place :: len(metrics)]] for name, means in found.items()}
        for place, metric in enumerate(metrics)
    }
