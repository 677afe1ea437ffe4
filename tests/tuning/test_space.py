"""Search spaces: what their files may say, and what a trial gets of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import MODELS
from optuna.trial import FixedTrial

from sessrec import models
from sessrec.errors import SessRecError
from sessrec.experiments.fit_and_test import parsed
from sessrec.shipped_configs import SPACES, find_space, shipped_configs
from sessrec.tuning.space import SearchSpace, read_space, words_of

SPACE = """
model.loss: [cross-entropy, bpr-max]
--model.layers: {low: 64, high: 512, step: 32, text: "[{}]"}
model.learning_rate: {low: 0.01, high: 0.25, step: 0.005}
model.bpreg: {low: 0, high: 2.0, step: 0.05, when: {model.loss: bpr-max}}
model.momentum: {low: 0.001, high: 0.9, log: true, when: {model.loss: [bpr-max, cross-entropy], model.logq: 1.0}}
data.shuffle: [true, false]
"""
DEFAULTS = {
    "model.loss": "cross-entropy",
    "model.layers": "[100]",
    "model.learning_rate": "0.1",
    "model.bpreg": "1.0",
    "model.momentum": "0.0",
    "model.logq": "1",
    "data.shuffle": "false",
}


def space_of(text: str, folder: Path) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return read_space(file)


def suggested(space: SearchSpace, values: dict[str, Any], defaults: dict[str, str] = DEFAULTS) -> dict[str, str]:
    return space.suggest(FixedTrial(values), defaults)  # type: ignore[arg-type]


def test_values_as_on_the_command_line(tmp_path: Path) -> None:
    space = space_of(SPACE, tmp_path)
    values = {"model.loss": "cross-entropy", "model.layers": 96, "model.learning_rate": 0.01 + 0.005 * 7}
    values |= {"model.momentum": 0.0123456789, "data.shuffle": "true", "model.bpreg": 0.1}
    assert suggested(space, values) == {
        "model.loss": "cross-entropy",
        "model.layers": "[96]",
        "model.learning_rate": "0.045",
        "model.momentum": "0.0123457",
        "data.shuffle": "true",
    }
    assert suggested(space, values | {"model.loss": "bpr-max"})["model.bpreg"] == "0.1"
    assert "model.momentum" not in suggested(space, values, DEFAULTS | {"model.logq": "0.5"})


def test_the_nearest_values_to_the_defaults(tmp_path: Path) -> None:
    space = space_of(SPACE, tmp_path)
    near = space.nearest(DEFAULTS)
    assert near == pytest.approx(
        {"model.layers": 96, "model.learning_rate": 0.1, "model.bpreg": 1.0}
        | {"model.loss": "cross-entropy", "data.shuffle": "false"}
    )  # momentum 0 is below the range
    assert space.nearest({"model.layers": "[100, 50]"}) == {}
    for dimension in space.dimensions:  # Optuna takes them as they are
        if dimension.option in near:
            value = dimension.distribution.to_internal_repr(near[dimension.option])
            assert dimension.distribution._contains(value)


def test_every_value_that_is_drawn_is_in_its_range(tmp_path: Path) -> None:
    space, study = space_of(SPACE, tmp_path), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask(), DEFAULTS) for _ in range(200)]
    assert all(("model.bpreg" in one) == (one["model.loss"] == "bpr-max") for one in drawn)
    layers = {int(one["model.layers"].strip("[]")) for one in drawn}
    assert layers <= set(range(64, 513, 32))
    assert {min(layers), max(layers)} == {64, 512}
    rates = {one["model.learning_rate"] for one in drawn}
    assert rates <= {f"{0.01 + 0.005 * number:.3f}".rstrip("0") for number in range(49)}
    assert all(re.fullmatch(r"[0-9.]+", one["model.momentum"]) for one in drawn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "is no search space"),
        ("a: [", "cannot be read"),
        ("model.k: 3", "model.k has 3: give a list of choices, or low and high"),
        ("model.k: []", "model.k: choices are a list of values"),
        ("model.k: [1, '1']", "model.k has a choice twice: 1, 1"),
        ("model.k: {low: 1, hgih: 2}", "'hgih', which is none of low, high, .*; did you mean high"),
        ("model.k: {low: 3, high: 2}", "low 3 must not be above high 2"),
        ("model.k: {low: 1}", "high must be a number, got None"),
        ("model.k: {low: true, high: 2}", "low must be a number, got True"),
        ("model.k: {low: 0, high: 2, log: true}", "log takes numbers above 0"),
        ("model.k: {low: 1, high: 2, step: 0}", "step 0 must be above 0"),
        ("model.k: {low: 1, high: 2, text: '[]'}", "has no {} for the number"),
        ("model.k: {low: 1, high: 2, when: model.a}", "when needs an option and its values"),
        ("data.test_ratio: [0.1, 0.2]", "data.test_ratio is not for a search space"),
        ("data.session_gap: [10m, 30m]", "data.session_gap is not for a search space"),
        ("data.batch_sise: [10, 30]", "did you mean batch_size"),
        ("trainer.max_epochs: [1, 2]", "a trial ends by --patience and --max_epochs"),
        ("model.k: [1, 2]\nstarts: 3", "starts is a list of options with their values"),
        ("model.k: [1, 2]\nstarts: [{model.k: 3}]", "starts has model.k 3, which is none of its values"),
        ("model.k: {low: 0, high: 1, step: 0.25}\nstarts: [{model.k: 0.4}]", "starts has model.k 0.4, which is none"),
        ("model.k: {low: 1, high: 2}\nstarts: [{model.k: 1}, {model.kk: 3}]", "starts has model.kk.*mean model.k"),
        ("seed_everything: [1, 2]", "is no option of the model, the data or the trainer"),
    ],
)
def test_a_fault_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SessRecError, match=message) as caught:
        space_of(text, tmp_path)
    assert f"--space {tmp_path / 'space.yaml'}" in str(caught.value)


def test_a_space_by_name() -> None:
    assert find_space("gru4rec") == find_space("spaces/gru4rec.yaml") == SPACES / "gru4rec.yaml"
    with pytest.raises(SessRecError, match="--space gru4rek: no such file or shipped search space; did you mean"):
        find_space("gru4rek")
    assert not any("spaces" in name for name in shipped_configs())  # which are no configs of a fit


WITHOUT_OPTIONS = {"Popularity", "Random", "SPop", "Oracle", "SessionRecommender"}


@pytest.mark.parametrize("name", sorted(set(models.__all__) - WITHOUT_OPTIONS))
def test_every_model_has_a_space_whose_options_it_takes(name: str) -> None:
    space = read_space(find_space(getattr(models, name).__module__.rpartition(".")[2]))
    assert len(space.dimensions) == len({one.option for one in space.dimensions}) > 0
    for end in space.ends():
        parsed(["--model", name, *words_of(end)])
    assert name in MODELS
