"""Synthetic click sessions from a process whose exact next-item distribution is known.

The current item alone tells little of the next one, and the items before it tell more. The exact filter over the hidden
intents gives the best next-item ranking that any model can reach, a yardstick that real data lack.

The letters in shapes: **S** sessions, **N** items, **Z** intents, **C** categories, **K** successor categories, **M**
links of an item. Items are indices 0 to N - 1 here; ``sample`` writes them as ids 1 to N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessrec.errors import SessRecError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FIRST_DAY = 1_704_067_200  # Monday 2024-01-01 00:00 UTC, in Unix seconds
N_DAYS = 30
_DAY_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.1, 1.3, 1.4)  # Monday to Sunday
_HOUR_WEIGHTS = (3, 2, 1, 1, 1, 1, 2, 4, 6, 8, 9, 9, 10, 10, 9, 9, 9, 10, 12, 14, 15, 14, 10, 6)  # 0 to 23 h UTC
_LENGTH_RATIO = 0.77  # P(length + 1) / P(length): lengths 2 to 20 have a mean of about 5
_MEDIAN_GAP, _SIGMA_GAP, _MAX_GAP = 40.0, 1.0, 25 * 60  # seconds between events: log-normal, capped


def require(name: str, value: float, minimum: float, maximum: float = np.inf) -> None:
    """Refuse an argument outside its range.

    Raises:
        SessRecError: If it is.
    """
    if not minimum <= value <= maximum:
        limits = f"at least {minimum}" if maximum == np.inf else f"from {minimum} to {maximum}"
        raise SessRecError(f"{name} is {value}: give a value {limits}")


def _zipf(n_ranks: int, exponent: float) -> FloatArray:
    weights = np.arange(1, n_ranks + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def _draw(rng: np.random.Generator, cumulative: FloatArray, rows: IntArray) -> IntArray:
    """Draw one column of a table of distributions for each of ``rows``; the table is summed up along its rows."""
    width = cumulative.shape[1]
    # row r of the flat table lies in (r, r + 1]: one binary search serves all rows
    flat = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
    columns = np.searchsorted(flat, rows + rng.random(len(rows)), side="right") - rows * width
    return np.clip(columns, 0, width - 1)  # rounding may leave the last sum just under 1


def draw_distinct(rng: np.random.Generator, probabilities: FloatArray, taken: IntArray, n_draws: int) -> IntArray:
    """Draw rows of ``n_draws`` values that differ from each other and from ``taken`` (rows, any), redrawing repeats."""
    drawn = np.empty((len(taken), n_draws), dtype=np.int64)
    todo = np.arange(len(taken))
    while len(todo):
        drawn[todo] = rng.choice(len(probabilities), size=(len(todo), n_draws), p=probabilities)
        ordered = np.sort(np.concatenate([taken[todo], drawn[todo]], axis=1), axis=1)
        todo = todo[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
    return drawn


@dataclass(eq=False)
class SyntheticProcess:
    """Random process of sessions with a hidden intent, and its exact filter.

    A session draws its intent z uniformly and its first item j from ``start_probabilities[z, c(j)] * q[j]``. Before
    each further item the intent switches with ``switch_probability`` to one of the other intents, uniformly. The next
    item j after item i is then drawn from::

        intent_weight * T[z, c(i), c(j)] * q[j]  +  link_weight * L[i, j]  +  noise_weight * popularity[j]

    The length of a session is independent of everything else. The tables take memory in proportion to the number of
    items; ``T`` and ``L`` are stored by their few entries.

    A *belief*, float64 (S, Z), holds for each session the probabilities of the intent that was in force **when the last
    seen item was drawn**, given all items up to it; the possible switch ahead of the next item is not in it.

    Args:
        n_items: Number of items, at least 2.
        n_intents: Number of hidden intents, at least 1.
        seed: Seed of the tables, at least 0.
        items_per_category: Mean number of items in a category; few items still get up to four categories.
        n_successors: Successor categories of each category under an intent, 1 to 4, fewer where there are fewer.
        n_links: Item-specific successors of each item, 1 to 4, fewer where there are fewer items.
        switch_probability: Probability that the intent switches before an item.
        intent_weight: Weight of the intent's category transitions.
        link_weight: Weight of the links; what the two weights leave to 1 is ``noise_weight``.
        item_exponent: Zipf exponent of the items within a category, 0 to 2.
        category_exponent: Zipf exponent of the categories, 0 to 2.
        taste: How much the intents differ in the categories that they visit: 0 not at all, 4 widely.

    Attributes:
        item_categories: int64 (N,), the category c(j) of each item.
        item_probabilities: float64 (N,), q[j], the probability of item j within its category.
        category_probabilities: float64 (C,), the Zipf weights of the categories.
        popularity: float64 (N,), ``category_probabilities[c(j)] * q[j]``.
        tastes: float64 (Z, C), how likely each category is to be a successor under each intent.
        start_probabilities: float64 (Z, C), the category of the first item under each intent.
        successor_categories: int64 (Z, C, K), the categories that may follow a category, all different.
        successor_probabilities: float64 (K,), their probabilities, the same for every intent and category.
        link_items: int64 (N, M), the linked successors of each item, all different and never the item itself.
        link_probabilities: float64 (N, M), their probabilities.
        intent_start: float64 (Z,), the intent at the start of a session.
        intent_transitions: float64 (Z, Z), from the intent of an item (row) to that of the next one (column).

    Raises:
        SessRecError: An argument is out of its range.
    """

    n_items: int = 1000
    n_intents: int = 8
    seed: int = 42
    items_per_category: int = 20
    n_successors: int = 3
    n_links: int = 2
    switch_probability: float = 0.05
    intent_weight: float = 0.8
    link_weight: float = 0.14
    item_exponent: float = 1.5
    category_exponent: float = 0.5
    taste: float = 1.5

    def __post_init__(self) -> None:
        """Check the arguments and draw the tables."""
        for least, most, names in (
            (2, np.inf, ["n_items"]),
            (0, np.inf, ["seed"]),
            (1, np.inf, ["n_intents", "items_per_category"]),
            (1, 4, ["n_successors", "n_links"]),  # the upper bounds keep draws without repeats from taking long
            (0, 2, ["item_exponent", "category_exponent"]),
            (0, 4, ["taste"]),
            (0, 1, ["switch_probability", "intent_weight"]),
        ):
            for name in names:
                require(name, getattr(self, name), least, most)
        require("link_weight", self.link_weight, 0, round(1 - self.intent_weight, 12))
        self.noise_weight = max(0.0, 1 - self.intent_weight - self.link_weight)
        rng = np.random.default_rng([self.seed, 0])
        self._draw_items(rng)
        self._draw_transitions(rng)

    def _draw_items(self, rng: np.random.Generator) -> None:
        self.n_categories = min(self.n_items, max(4, round(self.n_items / self.items_per_category)))
        members = np.array_split(rng.permutation(self.n_items), self.n_categories)
        self.item_categories = np.empty(self.n_items, dtype=np.int64)
        self.item_probabilities = np.empty(self.n_items)
        for category, items in enumerate(members):
            self.item_categories[items] = category
            self.item_probabilities[items] = _zipf(len(items), self.item_exponent)
        self.category_probabilities = rng.permutation(_zipf(self.n_categories, self.category_exponent))
        self.popularity = self.category_probabilities[self.item_categories] * self.item_probabilities
        # the members category by category, for draws: each category takes 1 of the running sum of q
        self._members = np.concatenate(members)
        self._member_ends = np.cumsum([len(items) for items in members])
        self._member_sums = np.cumsum(self.item_probabilities[self._members])

    def _draw_transitions(self, rng: np.random.Generator) -> None:
        n_successors = min(self.n_successors, self.n_categories)
        # an intent has a taste for some categories, so that every item tells a little about the intent
        tastes = self.category_probabilities * rng.exponential(size=(self.n_intents, self.n_categories)) ** self.taste
        tastes /= tastes.sum(axis=1, keepdims=True)
        nothing = np.empty((self.n_categories, 0), dtype=np.int64)
        self.successor_categories = np.stack([draw_distinct(rng, taste, nothing, n_successors) for taste in tastes])
        weights = 0.3 ** np.arange(n_successors)
        self.successor_probabilities = weights / weights.sum()
        self.tastes, self.start_probabilities = tastes, 0.2 * self.category_probabilities + 0.8 * tastes
        n_links = min(self.n_links, self.n_items - 1)
        own = np.arange(self.n_items, dtype=np.int64)[:, None]
        uniform = np.full(self.n_items, 1 / self.n_items)
        self.link_items = draw_distinct(rng, uniform, own, n_links)
        self.link_probabilities = np.tile(_zipf(n_links, 1.0), (self.n_items, 1))
        self.intent_start = np.full(self.n_intents, 1 / self.n_intents)
        n_others = self.n_intents - 1
        switch = self.switch_probability / n_others if n_others else 0.0  # one intent alone has nowhere to switch to
        stay = 1 - switch * n_others
        self.intent_transitions = np.where(np.eye(self.n_intents, dtype=bool), stay, switch)

    def start_belief(self, item: IntArray) -> FloatArray:
        """Give the belief, float64 (S, Z), after the first items of sessions, int64 (S,)."""
        # q of the item is the same under every intent and cancels
        belief = self.intent_start * self.start_probabilities[:, self.item_categories[item]].T
        return belief / belief.sum(axis=1, keepdims=True)

    def update(self, belief: FloatArray, previous_item: IntArray, next_item: IntArray) -> FloatArray:
        """Give the belief after one more item: first the switch of intents, then the evidence of the item.

        Args:
            belief: float64 (S, Z), the belief after ``previous_item``.
            previous_item: int64 (S,), the last items that ``belief`` knows.
            next_item: int64 (S,), the items that came after them.

        Returns:
            The new belief, float64 (S, Z); NaN where the process cannot take this step.
        """
        successors = self.successor_categories[:, self.item_categories[previous_item]]  # (Z, S, K)
        hits = successors == self.item_categories[next_item][:, None]
        by_intent = (hits @ self.successor_probabilities).T * self.item_probabilities[next_item][:, None]  # (S, Z)
        linked = self.link_items[previous_item] == next_item[:, None]  # (S, M)
        by_link = (linked * self.link_probabilities[previous_item]).sum(axis=1)
        others = self.link_weight * by_link + self.noise_weight * self.popularity[next_item]
        updated = (belief @ self.intent_transitions) * (self.intent_weight * by_intent + others[:, None])
        return updated / updated.sum(axis=1, keepdims=True)

    def next_item_probabilities(self, belief: FloatArray, item: IntArray) -> FloatArray:
        """Give the exact distribution of the next item, float64 (S, N).

        Args:
            belief: float64 (S, Z), the belief after ``item``.
            item: int64 (S,), the last items seen.
        """
        intents = belief @ self.intent_transitions  # in force when the next item is drawn
        rows = np.arange(len(item))
        successors = self.successor_categories[:, self.item_categories[item]].swapaxes(0, 1)  # (S, Z, K)
        categories = np.zeros((len(item), self.n_categories))
        # add.at: intents may share a successor category
        np.add.at(categories, (rows[:, None, None], successors), intents[:, :, None] * self.successor_probabilities)
        result = self.intent_weight * categories[:, self.item_categories] * self.item_probabilities
        result += self.noise_weight * self.popularity
        result[rows[:, None], self.link_items[item]] += self.link_weight * self.link_probabilities[item]
        return result

    def sample(
        self, n_sessions: int, min_session_len: int = 2, max_session_len: int = 20, seed: int = 42
    ) -> pd.DataFrame:
        """Draw sessions with times.

        Lengths follow a geometric distribution cut to the two bounds. Starts spread over 30 days with more traffic in
        the evening and at the weekend; gaps between events are log-normal.

        Args:
            n_sessions: Number of sessions, at least 1.
            min_session_len: Fewest events of a session, at least 2.
            max_session_len: Most events of a session, at least ``min_session_len``.
            seed: Seed of the draws, at least 0; the tables have their own.

        Returns:
            One row per event, session by session: SessionId (int64, 1 to ``n_sessions`` by start time), ItemId (int64,
            item index + 1), Time (int64, Unix seconds, strictly increasing in a session).

        Raises:
            SessRecError: An argument is out of its range.
        """
        require("seed", seed, 0)
        rng = np.random.default_rng([seed, 1])
        lengths = sample_lengths(rng, n_sessions, min_session_len, max_session_len)
        items = self.sample_items(rng, lengths)
        return sessions_frame(items, sample_times(rng, *items.shape), lengths)

    def _draw_members(self, rng: np.random.Generator, categories: IntArray) -> IntArray:
        """Draw an item of each category by q."""
        places = np.searchsorted(self._member_sums, categories + rng.random(len(categories)), side="right")
        ends = self._member_ends[categories]
        sizes = np.diff(self._member_ends, prepend=0)[categories]
        return self._members[np.clip(places, ends - sizes, ends - 1)]  # rounding may lead one place astray

    def sample_items(self, rng: np.random.Generator, lengths: IntArray) -> IntArray:
        """Draw item indices, int64 (S, longest); cells past the end of a session hold 0."""
        items = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
        intents = rng.choice(self.n_intents, size=len(lengths), p=self.intent_start)
        items[:, 0] = self._draw_members(rng, _draw(rng, self.start_probabilities.cumsum(axis=1), intents))
        switches = self.intent_transitions.cumsum(axis=1)
        popular = self.category_probabilities.cumsum()[None, :]
        successor = self.successor_probabilities.cumsum()[None, :]
        links = self.link_probabilities.cumsum(axis=1)
        parts = np.array([self.intent_weight, self.link_weight, self.noise_weight]).cumsum()[None, :]
        for step in range(1, items.shape[1]):
            alive = np.flatnonzero(lengths > step)
            last, top = items[alive, step - 1], np.zeros(len(alive), dtype=np.int64)
            intents[alive] = _draw(rng, switches, intents[alive])
            part = _draw(rng, parts, top)
            column = _draw(rng, successor, top)
            followed = self.successor_categories[intents[alive], self.item_categories[last], column]
            category = np.where(part == 0, followed, _draw(rng, popular, top))
            linked = self.link_items[last, _draw(rng, links, last)]
            items[alive, step] = np.where(part == 1, linked, self._draw_members(rng, category))
        return items


def sample_lengths(rng: np.random.Generator, n_sessions: int, min_session_len: int, max_session_len: int) -> IntArray:
    """Draw the lengths of sessions, int64 (S,).

    Raises:
        SessRecError: An argument is out of its range.
    """
    require("n_sessions", n_sessions, 1)
    require("min_session_len", min_session_len, 2)
    if max_session_len < min_session_len:
        raise SessRecError(
            f"max_session_len is {max_session_len}: give at least min_session_len, which is {min_session_len}"
        )
    weights = _LENGTH_RATIO ** np.arange(max_session_len - min_session_len + 1)
    return min_session_len + rng.choice(len(weights), size=n_sessions, p=weights / weights.sum())


def sessions_frame(items: IntArray, times: IntArray, lengths: IntArray) -> pd.DataFrame:
    """Lay sessions out as ``SyntheticProcess.sample`` gives them, from items and times of shape (S, longest)."""
    held = np.arange(items.shape[1]) < lengths[:, None]  # (S, longest): the cells that are events
    sessions = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int64), lengths)
    return pd.DataFrame({"SessionId": sessions, "ItemId": items[held] + 1, "Time": times[held]})


def sample_times(rng: np.random.Generator, n_sessions: int, n_events: int) -> IntArray:
    """Draw the Unix seconds of ``n_events`` events per session, int64 (S, events), sessions by start time."""
    days = np.array([_DAY_WEIGHTS[day % 7] for day in range(N_DAYS)])
    hours = np.outer(days, _HOUR_WEIGHTS).ravel()
    start_hours = rng.choice(len(hours), size=n_sessions, p=hours / hours.sum())
    gaps = _MEDIAN_GAP * np.exp(_SIGMA_GAP * rng.standard_normal((n_sessions, n_events)))
    gaps = np.clip(np.rint(gaps), 1, _MAX_GAP)
    gaps[:, 0] = np.sort(start_hours * 3600 + rng.integers(3600, size=n_sessions))
    return FIRST_DAY + gaps.cumsum(axis=1).astype(np.int64)  # below 2 ** 53: floats are exact


def generate_synthetic_sessions(
    n_sessions: int = 20000,
    n_items: int = 1000,
    min_session_len: int = 2,
    max_session_len: int = 20,
    seed: int = 42,
) -> pd.DataFrame:
    """Generate sessions by ``sample`` of a ``SyntheticProcess`` with default parameters.

    Args:
        n_sessions: Number of sessions.
        n_items: Number of items to draw from; rare ones may not occur.
        min_session_len: Fewest events of a session.
        max_session_len: Most events of a session.
        seed: Seed of the process and of the draws.

    Raises:
        SessRecError: An argument is out of its range.

    Examples:
        >>> table = generate_synthetic_sessions(n_sessions=3, n_items=10)
        >>> list(table.columns), table["SessionId"].nunique()
        (['SessionId', 'ItemId', 'Time'], 3)
    """
    return SyntheticProcess(n_items, seed=seed).sample(n_sessions, min_session_len, max_session_len, seed)
