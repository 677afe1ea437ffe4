"""Which items may be recommended: lists of a caller and of the command line, against plain Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import fit_log, make_sessions, make_vocabulary, one_error, random_rows

from sessrec import fit, models, predict, test, validate
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.models.candidates import ItemList, candidates_of_options

N_ITEMS = 40
SESSIONS = make_sessions([[(7 * s + 3 * p * p) % N_ITEMS for p in range(2 + s % 6)] for s in range(60)])
NAMES = ["GRU4Rec", "SASRec", "VSKNN", "Markov", "Popularity"]
each_model = pytest.mark.parametrize("name", NAMES)


def model_of(name: str) -> Any:
    torch.manual_seed(1)
    model = getattr(models, name)()
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    if name not in ("GRU4Rec", "SASRec"):
        model.learn_sessions(SESSIONS)
    return model


@each_model
def test_lists_are_those_of_all_items_without_the_others(name: str) -> None:
    """k items come back while as many are allowed, in the order and with the scores that they have among all."""
    model, rng = model_of(name), np.random.default_rng(0)
    ids = model.vocabulary.item_ids
    for _ in range(20):
        session = [ids[item] for item in rng.integers(N_ITEMS, size=rng.integers(1, 6))]
        whole = model.recommend(session, k=N_ITEMS)
        allow = [ids[item] for item in rng.permutation(N_ITEMS)[: rng.integers(1, N_ITEMS)]]
        exclude = [ids[item] for item in rng.permutation(N_ITEMS)[: rng.integers(0, 9)]]
        k, last, seen = int(rng.integers(1, 30)), bool(rng.integers(2)), bool(rng.integers(2))
        gone = {*exclude, *(session if seen else session[-1:] if last else [])}
        expected = [(item, score) for item, score in whole if item in set(allow) - gone][:k]
        found = model.recommend(session, k, allow, exclude, exclude_last=last, exclude_seen=seen)
        assert [item for item, _ in found] == [item for item, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-6)
        some = model.recommend(session, k, exclude=[*exclude, "of-no-catalogue"])
        assert [item for item, _ in some] == [item for item, _ in whole if item not in exclude][:k]


@each_model
def test_a_session_of_unknown_items_gets_popular_ones_that_are_allowed(name: str) -> None:
    model = model_of(name)
    ids, counts = model.vocabulary.item_ids, model.vocabulary.counts
    with pytest.warns(UserWarning, match="1 of 1 items"):
        found = model.recommend(["x"], 3, allow=ids[5:9], exclude=[ids[6]])
    order = sorted((5, 7, 8), key=lambda item: (-counts[item], item))
    assert found == [(ids[item], float(counts[item])) for item in order]
    assert model.recommend(ids[:1], 3, allow=["x"]) == []


def test_what_a_model_rules_out_no_call_brings_back() -> None:
    model = model_of("Markov")
    ids = model.vocabulary.item_ids
    model.exclude_seen, model.allowed = True, torch.arange(N_ITEMS) < 10
    found = [item for item, _ in model.recommend(ids[:3], N_ITEMS, allow=ids[2:20])]
    assert sorted(found) == sorted(ids[3:10])
    assert sorted(item for item, _ in model.recommend(ids[:3], N_ITEMS, exclude_seen=False)) == sorted(ids[:10])
    with pytest.raises(SessRecError, match="takes a list of item ids as text"):
        model.recommend(ids[:3], allow="10")


def test_item_lists_of_options(tmp_path: Path) -> None:
    file = tmp_path / "stock.txt"
    file.write_bytes("\ufeff10\r\na,b\n\n10\n".encode())
    assert ItemList.of_option("--allow", str(file)) == ("--allow", ["10", "a,b"])
    assert ItemList.of_option("--allow", "10,25,10") == ("--allow", ["10", "25"])
    assert ItemList.of_option("--allow", None) is None
    vocabulary = Vocabulary(["10", "25"], np.array([1, 1]))
    allowed, notes = candidates_of_options(vocabulary, ItemList("--allow", ["x", "10", "y"]), None)
    assert allowed is not None
    assert (allowed.tolist(), notes) == (
        [True, False],
        ["--allow: 2 of 3 item ids are unknown to the model, such as 'x'"],
    )
    for allow, exclude, message in (
        (["missing.txt"], None, "--allow: none of 1 item id, such as 'missing.txt', is known to the model"),
        (["10"], ["10"], "--allow and --exclude leave no item"),
        (None, ["10", "25"], "leave no item"),
    ):
        lists = [
            None if own is None else ItemList(f"--{n}", own) for n, own in (("allow", allow), ("exclude", exclude))
        ]
        with pytest.raises(SessRecError, match=message):
            candidates_of_options(vocabulary, *lists)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in {"empty.txt": "has no item id", "other.txt": "cannot be read as a text of item ids"}.items():
        with pytest.raises(SessRecError, match=message):
            ItemList.of_option("--exclude", str(tmp_path / name))


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fits")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(120, 14))]
        Path("clicks.tsv").write_text("\n".join(rows) + "\n")
        fit_log("clicks.tsv", model="Markov", run="all")
    return folder


RUN = Path("lightning_logs/all")
BEST = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "best", "--trainer.accelerator", "cpu"]


@pytest.mark.parametrize("rule", ["none", "exclude_last", "exclude_seen"])
def test_a_test_ranks_what_is_allowed(
    rule: str, fits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An excluded target is a miss; ranks are those of a model that scores the allowed items only."""
    monkeypatch.chdir(fits)
    rules, run = [] if rule == "none" else [f"--model.{rule}", "true"], RUN
    stock = [f"x{number}" for number in (1, 2, 3, 5, 8, 13)]
    Path("stock.txt").write_text("\n".join([*stock, "not-there"]))
    test.main([*BEST, *rules, "--allow", "stock.txt", "--exclude", "x5"])
    printed = capsys.readouterr().out
    assert "5 of them allowed" in printed
    assert "--allow: 1 of 7 item ids are unknown to the model, such as 'not-there'" in printed
    report = json.loads((run / "metrics.json").read_text())
    model = models.Markov.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    known = set(model.vocabulary.item_ids)
    assert report["protocol"]["allowed_items"].startswith(f"5 of {len(known)} (sha256 ")
    table = pq.read_table(run / "ranks.parquet").to_pydict()
    allowed, so_far, hits = set(stock) - {"x5"}, {}, []
    sessions: dict[str, list[str]] = {}
    for session, item, _ in random_rows(120, 14):
        sessions.setdefault(str(session), []).append(str(item))
    for session, place, target, rank, n in zip(
        *(table[name] for name in ("session", "position", "item", "rank", "candidates")), strict=True
    ):
        before = [item for item in sessions[session] if item in known][:place]
        so_far[session] = before
        gone = {"none": [], "exclude_last": before[-1:], "exclude_seen": before}[rule]
        candidates = allowed - set(gone)
        assert n == len(candidates)
        if target not in candidates:
            assert rank is None
            hits.append(0)
            continue
        scores = dict(model.recommend(before, k=len(known)))
        worse = sum(scores[item] >= scores[target] for item in candidates)
        assert rank == worse
        hits.append(int(rank <= 1))
    assert report["metrics"]["test/recall@1"] == pytest.approx(np.mean(hits), abs=1e-12)


def test_the_other_commands_take_what_is_allowed(
    fits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fits)
    validate.main([*BEST, "--allow", "x1,x2,x3"])
    assert "3 of them allowed, all of these candidates" in capsys.readouterr().out
    log = ["--data.path", "clicks.tsv"]
    predict.main([*BEST, "--allow", "x1,x2", *log, "--output", "out.tsv", "--model.k", "5"])
    lines = [line.split("\t") for line in Path("out.tsv").read_text().splitlines()[1:]]
    assert {line[2] for line in lines} == {"x1", "x2"}
    assert "--allow is for validate, test and predict" in one_error(capsys, fit.main, [*log, "--allow", "x1"])
