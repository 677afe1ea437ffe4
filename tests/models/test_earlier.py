"""A fit that adds what an earlier one has counted, against a fit to both logs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import NEIGHBOURHOODS, TRAINER, fit_log, one_error, random_rows
from tested import write_rows

from sessrec import fit, models
from sessrec.models import SessionRecommender

WHOLE = ["--data.test_ratio", "0", "--data.val_ratio", "0", "--data.cache_dir", "null"]
LAST = "lightning_logs/{}/checkpoints/last.ckpt"
OPTIONS: dict[str, dict[str, Any]] = {
    "Popularity": {},
    "SPop": {},
    "Markov": {"alpha": 0.2},
    "AR": {"n_rules": 50},
    "SR": {"n_rules": 50, "n_steps": 4},
    "ItemKNN": {"n_rules": 50, "regularisation": 2.5, "balance": 0.3},
    **{name: {"n_neighbours": 9, "sample_size": 30} for name in NEIGHBOURHOODS},
}


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days: the second has items that the first lacks, and the other way round."""
    monkeypatch.chdir(tmp_path)
    rows = random_rows(90, 14)
    first = [(s, i, t) for s, i, t in rows[:200] if i != "x13"]
    second = [(s, i, t) for s, i, t in rows[200:] if i not in ("x0", "x1")]
    borders = {s for s, _, _ in first} & {s for s, _, _ in second}
    first = [row for row in first if row[0] not in borders]
    write_rows(first, "first.tsv")
    write_rows(second, "second.tsv")
    write_rows(first + second, "both.tsv")


def words(name: str) -> list[str]:
    return [word for option, value in OPTIONS[name].items() for word in (f"--model.{option}", str(value))]


def loaded(name: str, run: str) -> SessionRecommender:
    return getattr(models, name).load_from_checkpoint(LAST.format(run)).eval()


def scores(model: SessionRecommender, sessions: list[list[str]]) -> np.ndarray:
    """Scores after sessions, by item id in alphabetical order."""
    ids = model.vocabulary.item_ids
    order = np.argsort(ids)
    with torch.inference_mode():
        rows = [
            model.score(model.encode(torch.tensor([[ids.index(item) for item in session]]))[0, -1:], slice(0, len(ids)))
            for session in sessions
        ]
    return torch.cat(rows).double().numpy()[:, order]


def test_the_newer_of_two_logs_may_come_first() -> None:
    for file, start, run in (("second", [], "b"), ("first", ["b"], "ba"), ("third", ["ba"], "bac"), ("all", [], "all")):
        if file == "third":
            write_rows([("w1", "x4", 1_700_000_000), ("w1", "x5", 1_700_000_050)], "third.tsv")
            head, *rows = Path("both.tsv").read_text().splitlines()
            Path("all.tsv").write_text("\n".join([head, *rows, *Path("third.tsv").read_text().splitlines()[1:]]) + "\n")
        begin = [word for name in start for word in ("--init_from", LAST.format(name))]
        fit_log(f"{file}.tsv", *WHOLE, *words("STAN"), *begin, model="STAN", run=run)
    one, other = loaded("STAN", "bac"), loaded("STAN", "all")
    np.testing.assert_allclose(scores(one, SESSIONS), scores(other, SESSIONS), rtol=1e-12)
    assert np.array_equal(one.ages, other.ages)  # type: ignore[arg-type]


SESSIONS = [["x2"], ["x0", "x5"], ["x13", "x12"], ["x3", "x3", "x4", "x1"], ["x7", "x8", "x9"]]


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_the_model_of_both_logs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit_log("first.tsv", *WHOLE, *words(name), model=name, run="first")
    fit_log("both.tsv", *WHOLE, *words(name), model=name, run="both")
    start = ["--init_from", LAST.format("first")]
    capsys.readouterr()
    fit_log("second.tsv", *WHOLE, *words(name), *start, model=name, run="second")
    printed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("adds to the counts of"))
    assert ("known to 32 bits" in printed) == (name == "SR")
    added, both = loaded(name, "second"), loaded(name, "both")
    ids = added.vocabulary.item_ids
    assert sorted(ids) == sorted(both.vocabulary.item_ids)
    by_id = dict(zip(both.vocabulary.item_ids, both.vocabulary.counts.tolist(), strict=True))
    assert added.vocabulary.counts.tolist() == [by_id[item] for item in ids]
    assert added.trained_until == both.trained_until
    found, expected = scores(added, SESSIONS), scores(both, SESSIONS)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if name == "SR" else 1e-12)
    assert np.abs(scores(loaded(name, "first"), [["x2"]])).sum() != pytest.approx(np.abs(found[0]).sum(), rel=1e-6)
    # and once more from there, with items left out
    fit_log("second.tsv", *WHOLE, *words(name), *start, "--init_drop", "true", model=name, run="dropped")
    dropped = loaded(name, "dropped")
    assert set(ids) - set(dropped.vocabulary.item_ids) == {"x0", "x1"}
    assert np.isfinite(scores(dropped, [["x2"], ["x5", "x13"]])).all()


@pytest.mark.parametrize("name", ["AR", "ItemKNN"])
def test_rules_that_were_cut_are_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit_log("first.tsv", *WHOLE, "--model.n_rules", "2", model=name, run="first")
    start = ["--init_from", LAST.format("first")]
    fit_log("second.tsv", *WHOLE, "--model.n_rules", "2", *start, model=name, run="second")
    n_cut = int((loaded(name, "first").offsets.diff() == 2).sum())  # type: ignore[union-attr, operator]
    assert f"of {n_cut} items only the best 2 rules are known" in capsys.readouterr().out


def without(checkpoint: str, buffer: str) -> str:
    """A checkpoint as an earlier release wrote it, without a checksum."""
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"][buffer]
    torch.save(content, "old.ckpt")
    assert zipfile.is_zipfile("old.ckpt")
    return "old.ckpt"


@pytest.mark.parametrize(("name", "buffer"), [("Markov", "greatest"), ("ItemKNN", "supports")])
def test_checkpoints_of_earlier_releases_serve_and_are_not_added_to(
    name: str, buffer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_log("first.tsv", *WHOLE, *words(name), model=name, run="first")
    old = without(LAST.format("first"), buffer)
    model = getattr(models, name).load_from_checkpoint(old).eval()
    assert model.recommend(["x2"]) == loaded(name, "first").recommend(["x2"])
    start = ["--model", name, *words(name), *TRAINER, *WHOLE, "--data.path", "second.tsv", "--init_from", old]
    assert "--init_from: an earlier release has not kept the" in one_error(capsys, fit.main, start)


def test_what_cannot_be_added_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    fit_log("first.tsv", *WHOLE, "--model.n_steps", "3", model="SR", run="first")
    fit_log("first.tsv", *WHOLE, "--data.time_column", "null", model="SKNN", run="rows")
    base = [*TRAINER, *WHOLE, "--data.path", "second.tsv", "--init_from"]
    error = one_error(capsys, fit.main, [*base, LAST.format("first"), "--model", "SR"])
    assert "--init_from was fitted with --model.n_steps 3, not 10: give the same" in error
    error = one_error(capsys, fit.main, [*base, LAST.format("rows"), "--model", "SKNN"])
    assert "the times of its sessions are not known" in error
    replay = ["--model", "SR", "--model.n_steps", "3", "--data.train_ratio", "0.5", "--data.replay", "0.5"]
    error = one_error(capsys, fit.main, [*base, LAST.format("first"), *replay])
    assert "--data.replay gives sessions again" in error
    assert not Path("lightning_logs/second").exists()
    report = json.loads(Path("lightning_logs/first/fit.json").read_text())
    assert report["seconds"] >= 0
