"""The nearest right spellings of a name that a user has given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from statistics import fmean

_LEAST_SIMILARITY = 0.6  # difflib's own
_SPREAD = 0.1  # a choice that is nearer than the others by more stands alone


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Choices that a name may stand for, the most similar first.

    Case, hyphens and underscores make no difference. Of dotted names the parts that follow a common beginning are
    compared, or the last ones alone.

    Args:
        name: The name as given.
        choices: The names that there are.
        n: Most choices to give.

    Example:
        >>> nearest("model.layer", ["model.layers", "model.loss", "monitor"])
        ['model.layers']
        >>> nearest("max-epochs", ["trainer.max_epochs", "trainer.min_epochs", "output"])
        ['trainer.max_epochs']
    """
    similarities = {choice: _similarity(_plain(name), _plain(choice)) for choice in choices}
    found = sorted((-value, choice) for choice, value in similarities.items() if value >= _LEAST_SIMILARITY)
    return [choice for value, choice in found if value <= found[0][0] + _SPREAD][:n]


def question(names: Sequence[str]) -> str:
    """The question to add to an error; empty where there is no name to ask about.

    Example:
        >>> question(["a", "b", "c"])
        '; did you mean a, b or c?'
    """
    return f"; did you mean {alternatives(names)}?" if names else ""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The question whether one of the up to three nearest choices is meant; empty where none is similar.

    Example:
        >>> did_you_mean("GRU4REC", ["GRU4Rec", "SASRec", "STAN"])
        '; did you mean GRU4Rec?'
    """
    return question(nearest(name, choices))


def alternatives(names: Sequence[str]) -> str:
    """Names as alternatives, in words.

    Example:
        >>> alternatives(["a"]), alternatives(["a", "b", "c"])
        ('a', 'a, b or c')
    """
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _plain(name: str) -> list[str]:
    return name.lower().replace("-", "").replace("_", "").split(".")


def _similarity(name: list[str], choice: list[str]) -> float:
    while len(name) > 1 and len(choice) > 1 and name[0] == choice[0]:
        name, choice = name[1:], choice[1:]
    last = 0.95 * _ratio(name[-1], choice[-1])
    return max(last, fmean(map(_ratio, name, choice)) if len(name) == len(choice) else 0)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
