"""Search spaces: which options a study tries, with which values."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sessrec.errors import SessRecError
from sessrec.suggestions import did_you_mean

_KEYS = ("low", "high", "step", "log", "choices", "text", "when")
_TUNABLE_DATA = (
    *("batch_size", "steps_per_window", "shuffle"),
    *("drop_repeats", "min_session_length", "min_item_support", "max_session_length", "filter_passes"),
)


@dataclass(frozen=True)
class Dimension:
    """One option of a search space.

    Args:
        option: The option, such as ``model.learning_rate``.
        distribution: Its values, for Optuna; those of a list of choices are text as on the command line.
        text: What stands on the command line, where ``{}`` is the number.
        when: Values of other options with which this one is tried, as text, by option; else it keeps its default.
    """

    option: str
    distribution: BaseDistribution
    text: str
    when: Mapping[str, tuple[str, ...]]

    def word(self, value: Any) -> str:
        """A value as it stands on the command line."""
        return value if isinstance(value, str) else self.text.replace("{}", text_of(value))

    def nearest(self, word: str) -> Any:
        """The value of the space that is nearest to one on the command line; None where none is near."""
        known = self.distribution
        if isinstance(known, CategoricalDistribution):
            return word if word in known.choices else None
        assert isinstance(known, (IntDistribution, FloatDistribution))
        found = re.fullmatch(re.escape(self.text).replace(r"\{\}", "(.*)"), word)
        try:
            number = float(found[1]) if found else float("nan")
        except ValueError:
            return None
        if not known.low <= number <= known.high:
            return None
        if known.step:
            number = known.low + round((number - known.low) / known.step) * known.step
        return int(number) if isinstance(known, IntDistribution) else min(number, known.high)


@dataclass(frozen=True)
class SearchSpace:
    """The options that a study tries, in the order of their file.

    Args:
        dimensions: The options.
        starts: Values, as on the command line, by option, of the trials after the first one: such as were published.
    """

    dimensions: tuple[Dimension, ...]
    starts: tuple[Mapping[str, str], ...] = ()

    def suggest(self, trial: Trial, defaults: Mapping[str, str], only: Container[str] | None = None) -> dict[str, str]:
        """Values of a trial, as on the command line, by option.

        Args:
            trial: Optuna's trial.
            defaults: Values, as on the command line, of options that a condition names and no value is suggested for.
            only: Options that a value is suggested for; None for all.
        """
        chosen: dict[str, str] = {}
        for dimension in self.dimensions:
            if only is not None and dimension.option not in only:
                continue
            if all(chosen.get(option, defaults.get(option)) in values for option, values in dimension.when.items()):
                chosen[dimension.option] = dimension.word(_suggest(trial, dimension))
        return chosen

    def nearest(self, defaults: Mapping[str, str]) -> dict[str, Any]:
        """Optuna's values nearest to the defaults, by option; without those that are far from all values."""
        values = {one.option: one.nearest(defaults[one.option]) for one in self.dimensions if one.option in defaults}
        return {option: value for option, value in values.items() if value is not None}

    def ends(self) -> list[dict[str, str]]:
        """Two trials, of all first and of all last values, by which a study checks that its options exist."""
        ends: list[dict[str, str]] = [{}, {}]
        for one in self.dimensions:
            known = one.distribution
            if isinstance(known, CategoricalDistribution):
                values = (known.choices[0], known.choices[-1])
            else:
                assert isinstance(known, (IntDistribution, FloatDistribution))
                values = (known.low, known.high)
            for end, value in zip(ends, values, strict=True):
                end[one.option] = one.word(value)
        return ends

    def as_dict(self) -> dict[str, str]:
        """The space as text by option, equal for equal spaces."""
        space = {
            one.option: f"{one.distribution} as {one.text}" + (f" when {dict(one.when)}" if one.when else "")
            for one in self.dimensions
        }
        return space | ({"starts": "; ".join(str(dict(start)) for start in self.starts)} if self.starts else {})


def read_space(file: Path) -> SearchSpace:
    """Read a search space from a YAML file.

    Each option has a list of choices, or ``low`` and ``high`` with ``step`` or ``log``; ``text`` says what stands on
    the command line (``"[{}]"`` for an option that takes a list), and ``when`` with which values of other options it
    is tried. ``starts`` is a list of options with values that are tried first.

    Raises:
        SessRecError: If the file is no search space.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SessRecError(f"--space {file} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise SessRecError(f"--space {file} is no search space: give options with their values, one a line")
    try:
        space = {str(name).removeprefix("--"): value for name, value in content.items()}
        starts = space.pop("starts", None) or []
        dimensions = tuple(_dimension(option, value) for option, value in space.items())
        return SearchSpace(dimensions, _starts(starts, {one.option: one for one in dimensions}))
    except SessRecError as error:
        raise SessRecError(f"--space {file}: {error}") from None


def text_of(value: Any) -> str:
    """A value of a config as it stands on the command line; numbers with six digits.

    Example:
        >>> text_of("bpr-max"), text_of(True), text_of(None), text_of([100, 50]), text_of(0.1), text_of(1.0)
        ('bpr-max', 'true', 'null', '[100, 50]', '0.1', '1')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if value % 1 == 0 and abs(value) < 1e6 else f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)


def words_of(options: Mapping[str, str]) -> list[str]:
    """Options, by name, as words of the command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    known = dimension.distribution
    if isinstance(known, CategoricalDistribution):
        return trial.suggest_categorical(dimension.option, known.choices)
    if isinstance(known, IntDistribution):
        return trial.suggest_int(dimension.option, known.low, known.high, step=known.step, log=known.log)
    assert isinstance(known, FloatDistribution)
    return trial.suggest_float(dimension.option, known.low, known.high, step=known.step, log=known.log)


def _dimension(option: str, value: Any) -> Dimension:
    """One option of the file."""
    _check_tunable(option)
    given = {"choices": value} if isinstance(value, list) else value
    if not isinstance(given, dict):
        raise SessRecError(f"{option} has {value!r}: give a list of choices, or low and high")
    for key in given.keys() - set(_KEYS):
        raise SessRecError(f"{option} has {key!r}, which is none of {', '.join(_KEYS)}{did_you_mean(str(key), _KEYS)}")
    when = given.get("when") or {}
    if not isinstance(when, dict):
        raise SessRecError(f"{option}: when needs an option and its values, such as {{model.loss: bpr-max}}")
    conditions = {
        str(name).removeprefix("--"): tuple(map(text_of, one if isinstance(one, list) else [one]))
        for name, one in when.items()
    }
    text = str(given.get("text", "{}"))
    if "{}" not in text:
        raise SessRecError(f"{option}: text {text!r} has no {{}} for the number")
    return Dimension(option, _distribution(option, given), text, conditions)


def _starts(starts: Any, dimensions: Mapping[str, Dimension]) -> tuple[dict[str, str], ...]:
    """The values that are tried first."""
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise SessRecError("starts is a list of options with their values")
    found = tuple({str(name).removeprefix("--"): text_of(value) for name, value in start.items()} for start in starts)
    for option, word in (pair for start in found for pair in start.items()):
        if option not in dimensions:
            raise SessRecError(f"starts has {option}, which is not in the space{did_you_mean(option, dimensions)}")
        near = dimensions[option].nearest(word)
        if near is None or not _is_same(dimensions[option].word(near), word):
            raise SessRecError(f"starts has {option} {word}, which is none of its values in the space")
    return found


def _is_same(word: str, other: str) -> bool:
    """Whether two words of the command line are one value."""
    try:
        return word == other or abs(float(word) - float(other)) < 1e-9
    except ValueError:
        return False


def _distribution(option: str, given: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in given:
        if set(given) - {"choices", "when"} or not isinstance(given["choices"], list) or not given["choices"]:
            raise SessRecError(f"{option}: choices are a list of values, and go with nothing else but when")
        choices = [text_of(choice) for choice in given["choices"]]
        if len(set(choices)) < len(choices):
            raise SessRecError(f"{option} has a choice twice: {', '.join(choices)}")
        return CategoricalDistribution(choices)
    low, high, step, log = given.get("low"), given.get("high"), given.get("step"), bool(given.get("log", False))
    for name, number in (("low", low), ("high", high), *((("step", step),) if step is not None else ())):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise SessRecError(f"{option}: {name} must be a number, got {number!r}")
    assert low is not None
    assert high is not None
    if low > high or (step is not None and step <= 0) or (log and (low <= 0 or step is not None)):
        raise SessRecError(
            f"{option}: low {low} must not be above high {high}, step {step} must be above 0, and log takes numbers "
            "above 0 without a step"
        )
    if all(isinstance(number, int) for number in (low, high, step) if number is not None):
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step))


def _check_tunable(option: str) -> None:
    """Refuse an option that a trial must not change.

    Raises:
        SessRecError: If the option is none of the model's, the trainer's, or those of the data behind the split.
    """
    group, _, name = option.partition(".")
    if group == "model" and name:
        return
    if group == "trainer" and name and name not in ("max_epochs", "max_steps"):
        return
    if option in ("trainer.max_epochs", "trainer.max_steps"):
        raise SessRecError(f"{option} is not for a search space: a trial ends by --patience and --max_epochs")
    if group == "data" and name in _TUNABLE_DATA:
        return
    if group == "data":
        known = ", ".join(_TUNABLE_DATA)
        hint = did_you_mean(name, _TUNABLE_DATA)
        raise SessRecError(f"{option} is not for a search space, only these options of the data are: {known}{hint}")
    raise SessRecError(f"{option} is no option of the model, the data or the trainer, such as model.learning_rate")
