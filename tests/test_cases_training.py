"""Troubles that people had elsewhere with batches, losses, metrics, checkpoints and curves, one test for each.

The inputs are in tests/cases, by number, or made here. What to expect was worked out by hand or by the definitions.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CASES, TRAINER, WHOLE, everything_in, fit_log, lane_steps, make_sessions, make_vocabulary, one_error
from resuming import (
    COMMON,
    GRU,
    RESUME,
    RUN,
    assert_equal_runs,
    curves,
    fit_code,
    hashes,
    in_new_folder,
    records,
    stop_at_step,
)
from torch import Tensor
from torch.utils.data import DataLoader

from sessrec import fit, test
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationLoader, SessionParallelLoader
from sessrec.evaluation.metrics import MRR, Recall, TieMode, rank_from_counts, ranking_metrics, target_rank
from sessrec.models import GRU4Rec
from sessrec.models.base import SessionRecommender
from sessrec.nn import losses
from sessrec.nn.losses import Candidates

LOSSES: dict[str, Callable[[Tensor, Candidates], tuple[Tensor, Tensor]]] = {
    "cross-entropy": losses.cross_entropy,
    "bpr": losses.bpr,
    "top1": losses.top1,
    "top1-max": losses.top1_max,
    "bpr-max": lambda logits, candidates: losses.bpr_max(logits, candidates, bpreg=0.0, elu_param=0.0),
}
SMALL = ["--model.layers", "[8]", "--model.dropout_p_embed", "0", "--data.cache_dir", "null"]
THREE_LANES = [*SMALL, "--data.batch_size", "3", "--data.steps_per_window", "1"]
LETTERS = "abcdefghijklmn"
SESSIONS = ["abcd", "ef", "ghi", "jk", "lmn"]  # five.csv


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_sessions(name: str, sessions: list[str]) -> None:
    """Write a log in which every letter is an item, and the sessions follow each other."""
    rows = [f"{s},{item},{1000 * s + k}" for s, items in enumerate(sessions, 1) for k, item in enumerate(items)]
    Path(name).write_text("SessionId,ItemId,Time\n" + "\n".join(rows) + "\n")


def last_checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def each_once(scores: Tensor, excluded: Tensor | None = None) -> Candidates:
    """Every column a candidate of its own; row i's target is in column i."""
    return Candidates.each_once(len(scores), torch.ones(scores.shape[1], dtype=scores.dtype), excluded)


def mean_loss(name: str, scores: list[list[float]]) -> float:
    logits = torch.tensor(scores, dtype=torch.float64)
    return LOSSES[name](logits, each_once(logits))[0].mean().item()


def new_model(n_items: int = 14, **options: Any) -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(**{"layers": [8], "dropout_p_embed": 0.0, "n_sample": 0, **options})
    model.set_vocabulary(make_vocabulary(n_items))
    return model.eval()


def force_losses(monkeypatch: pytest.MonkeyPatch, means: list[float]) -> None:
    """Training changes nothing, and step i of the fit has the given mean loss over its rows."""

    def train_window(self: GRU4Rec, window: Any, optimizer: Any, generator: Any, start: int, stop: int) -> Tensor:
        steps = range(window.first_step + start, window.first_step + stop)
        return torch.tensor([means[step] * int(window.widths[step - window.first_step]) for step in steps])

    monkeypatch.setattr(GRU4Rec, "train_window", train_window)


# Batches and hidden states


def test_case_040_memory_is_flat_and_states_are_cut_off() -> None:
    """One session of 2000 clicks in one lane. The truncation length is one step, as GRU4Rec says."""
    assert "one-step truncation" in (GRU4Rec.__doc__ or "")
    model = new_model(50, n_sample=10)
    optimizer, generator = model.configure_optimizers(), torch.Generator()
    sessions = make_sessions([[k % 50 for k in range(2000)]])
    memory, n_steps = [], 0
    for window in SessionParallelLoader(sessions, n_lanes=1, steps_per_window=50):
        model.train_window(window, optimizer, generator)
        n_steps += window.n_steps
        assert all(not state.requires_grad and state.grad_fn is None for state in model._hidden)
        assert any(state.any() for state in model._hidden)  # it is carried on all the same
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append((n_steps, pages * resource.getpagesize()))
    assert n_steps == 1999
    early = next(size for step, size in memory if step >= 100)
    late = next(size for step, size in memory if step >= 1900)
    assert late - early < 5_000_000


def test_case_042_one_pass_an_epoch_without_workers(here: Path) -> None:
    shutil.copy(CASES / "042" / "five.csv", here)
    run = fit_log("five.csv", *WHOLE, *THREE_LANES, model="GRU4Rec")
    assert last_checkpoint(run)["global_step"] == 4
    data = SessionDataModule("five.csv", test_ratio=0, val_ratio=0, cache_dir=None, batch_size=3)
    data.setup("fit")
    assert not isinstance(data.train_dataloader(), DataLoader)  # which is what has workers
    assert ["".join(step["inp"]) for step in lane_steps("042/five.csv", 3)] == ["aeg", "bjh", "cl", "m"]


def test_case_044_clicks_of_one_session_are_one_session(here: Path) -> None:
    shutil.copy(CASES / "044" / "five.csv", here)
    run = fit_log("five.csv", *WHOLE, *THREE_LANES, model="GRU4Rec")
    model = GRU4Rec.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    in_one_call = dict(model.recommend(["a", "b", "c"], k=14))
    hidden = [torch.zeros(1, 8)]
    with torch.no_grad():
        for item in model.known_items.index_of(["a", "b", "c"]).tolist():  # step by step, as the training goes
            hidden, _ = model.cells.step(model.output_embedding[[item]], hidden, [None, None])
        scores = model.score(hidden[-1], slice(0, 14))[0].tolist()
    step_by_step = dict(zip(model.known_items.item_ids, scores, strict=True))
    assert in_one_call == pytest.approx(step_by_step, abs=1e-5)
    alone = dict(model.recommend(["c"], k=14))
    assert max(abs(alone[item] - score) for item, score in in_one_call.items()) > 1e-4
    with pytest.warns(UserWarning, match="1 of 3 items of the session are unknown"):
        skipped = model.recommend(["a", "?", "c"], k=14)
    assert skipped == model.recommend(["a", "c"], k=14)
    assert {score for _, score in model.recommend([], k=14)} == {1.0}  # the documented fallback: counts in training


# Losses


@pytest.mark.parametrize(
    ("name", "key", "of_zeros"),
    [
        ("cross-entropy", "ce", math.log(4)),
        ("bpr", "bpr", math.log(2)),
        ("top1", "top1", 1.0),
        ("bpr-max", "bpr_max", math.log(2)),
        ("top1-max", "top1_max", 1.0),
    ],
)
def test_case_045_losses_on_a_fixed_matrix(name: str, key: str, of_zeros: float) -> None:
    expected = json.loads((CASES / "045" / "expected.json").read_text())
    assert mean_loss(name, expected["scores"]) == pytest.approx(expected[key], abs=1e-5)
    assert mean_loss(name, [[0.0] * 4] * 4) == pytest.approx(of_zeros, abs=1e-5)


def test_case_045_score_regulariser_and_rows() -> None:
    expected = json.loads((CASES / "045" / "expected.json").read_text())
    scores = torch.tensor(expected["scores"], dtype=torch.float64)
    regularised = losses.bpr_max(scores, each_once(scores), bpreg=1.0, elu_param=0.0)[0].mean().item()
    assert regularised == pytest.approx(0.713422, abs=1e-5)
    assert regularised == pytest.approx(expected["bpr_max_reg1"], abs=1e-5)
    assert mean_loss("cross-entropy", [[2, 0], [5, 1]]) == pytest.approx(2.072539, abs=1e-5)  # by columns 1.680925


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cross-entropy", 200.0), ("bpr", 200.0), ("bpr-max", 200.0), ("top1", 2.0), ("top1-max", 2.0)],
)
def test_case_047_extreme_scores(name: str, expected: float) -> None:
    scores = torch.tensor([[-100.0, 100.0], [100.0, -100.0]])
    loss, gradient = LOSSES[name](scores.clone(), each_once(scores))
    assert loss.mean().item() == pytest.approx(expected, rel=1e-6)
    assert gradient.isfinite().all()
    if name in ("cross-entropy", "bpr", "bpr-max"):
        assert (gradient.diagonal() / 2).tolist() == pytest.approx([-0.5, -0.5])  # after the mean over the rows
    huge = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    loss, gradient = LOSSES[name](huge.clone(), each_once(huge))
    # the target leads by 10,000: all that is left is sigmoid(0 ** 2) of TOP1
    assert loss.tolist() == pytest.approx([0.5, 0.5] if "top1" in name else [0.0, 0.0])
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"])
def test_case_050_a_row_without_negatives(loss: str, here: Path) -> None:
    """Step 3 of five.csv has one row; README: a step without any negative changes nothing."""
    write_sessions("five.csv", SESSIONS)
    options = [*WHOLE, *THREE_LANES, "--model.n_sample", "0", "--model.loss", loss, "--model.logq", "0"]
    three = last_checkpoint(fit_log("five.csv", *options, "--trainer.max_steps", "3", model="GRU4Rec", run="three"))
    four = last_checkpoint(fit_log("five.csv", *options, model="GRU4Rec", run="four"))
    assert (three["global_step"], four["global_step"]) == (3, 4)  # it is counted
    for name, weight in four["state_dict"].items():
        assert weight.isfinite().all()
        assert torch.equal(weight, three["state_dict"][name]), name
    assert all(math.isfinite(value) for _, _, value in figures(Path("lightning_logs/four"), "train/"))


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"])
def test_case_050_a_single_lane_learns_nothing_without_samples(loss: str) -> None:
    model = new_model(14, loss=loss, logq=0.0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    (window,) = SessionParallelLoader(make_sessions([[0, 1, 2, 3], [4, 5]]), n_lanes=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.train_window(window, model.configure_optimizers(), torch.Generator())
    assert found.tolist() == [0.0] * 4
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert any("without --model.n_sample they have no negatives" in str(warning.message) for warning in caught) == (
        loss != "cross-entropy"
    )


def figures(run: Path, prefix: str) -> list[tuple[str, int, float]]:
    """(tag, step, value) of the curves whose names begin so."""
    return [
        (tag, step, float(np.frombuffer(value, dtype=np.float32)[0]))
        for tag, step, value in records(run)
        if tag.startswith(prefix)
    ]


def test_case_051_divergence_keeps_the_last_good_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_new_folder(here / "folder")
    assert fit_code([*COMMON, *GRU, "--trainer.max_epochs", "1"]) == 0
    before = (RUN / "checkpoints" / "last.ckpt").read_bytes()
    message = one_error(capsys, fit.main, [*RESUME, "--trainer.max_epochs", "2", "--model.learning_rate", "1e38"])
    assert "the fit has diverged; try a lower --model.learning_rate than 1e+38" in message
    assert "at step 7" in message  # within some steps of the second epoch
    assert (RUN / "checkpoints" / "last.ckpt").read_bytes() == before


def test_case_051_a_weight_that_is_not_a_number(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_new_folder(here / "folder")
    build = GRU4Rec.build

    def spoilt(self: GRU4Rec) -> None:
        build(self)
        with torch.no_grad():
            self.output_embedding[3] = math.nan

    monkeypatch.setattr(GRU4Rec, "build", spoilt)
    message = one_error(capsys, fit.main, [*COMMON, *GRU])
    assert "the training loss is nan at step " in message
    assert int(message.partition("at step ")[2].partition(":")[0]) <= 73  # within the first epoch
    assert not (RUN / "checkpoints" / "last.ckpt").exists()


def test_case_053_copies_of_the_target_among_the_negatives() -> None:
    """Targets 5, 5, 7; masked by --model.exclude_target_copies, off by default as in the reference."""
    scores = torch.tensor([[2.0, 2.0, 0.0]] * 3)
    target_items = torch.tensor([5, 5, 7])
    copies = (target_items[:, None] == target_items) & ~torch.eye(3, dtype=torch.bool)
    masked, gradient = losses.cross_entropy(scores.clone(), each_once(scores, copies))
    assert masked[0].item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-5) == pytest.approx(0.126928, abs=1e-5)
    assert not gradient[copies].any()
    unmasked = losses.cross_entropy(scores.clone(), each_once(scores))[0]
    assert unmasked[0].item() == pytest.approx(0.758624, abs=1e-5)
    twins = torch.tensor([[2.0, 2.0], [2.0, 2.0]])
    for loss_of in LOSSES.values():  # every negative is masked
        loss, gradient = loss_of(twins.clone(), each_once(twins, ~torch.eye(2, dtype=torch.bool)))
        assert loss.tolist() == pytest.approx([0.0, 0.0])
        assert gradient.isfinite().all()
    assert not new_model().options.exclude_target_copies


# Metrics

MODES: tuple[TieMode, ...] = ("standard", "conservative", "median")


@pytest.mark.parametrize("index", [0, 2, 4])
def test_case_058_ties_in_three_modes(index: int) -> None:
    expected = json.loads((CASES / "058" / "expected.json").read_text())
    scores = torch.tensor([expected["scores"]])
    hits = {"standard": [0, 1, 1, 1], "conservative": [0, 0, 0, 1], "median": [0, 0, 1, 1]}
    reciprocal = {"standard": (3, 0.5), "conservative": (5, 0.25), "median": (3, 1 / 3)}
    for mode in MODES:
        rank = target_rank(scores, torch.tensor([index]), mode)
        assert rank.item() == expected["rank"][mode]
        assert [metric_of(Recall(cutoff), rank) for cutoff in (1, 2, 3, 5)] == hits[mode]
        cutoff, value = reciprocal[mode]
        assert metric_of(MRR(cutoff), rank) == pytest.approx(value)


def metric_of(metric: Recall | MRR, rank: Tensor) -> float:
    metric.update(rank)
    return metric.compute().item()


def test_case_059_a_constant_model_earns_nothing_and_is_warned_of(here: Path) -> None:
    scores = torch.zeros(5, 5)
    ranks = {mode: target_rank(scores, torch.arange(5), mode).tolist() for mode in MODES}
    assert ranks == {"standard": [1] * 5, "conservative": [5] * 5, "median": [3.0] * 5}
    assert Recall(1).cutoff == 1
    assert target_rank(scores, torch.arange(5)).tolist() == ranks["conservative"]  # the default
    write_sessions("log.csv", ["ab", "ba", "ab", "ba", "ab", "ba", "ab", "ba"])
    run = fit_log("log.csv", "--data.val_ratio", "0", "--data.test_ratio", "0.5")  # Popularity: a and b are tied
    with pytest.warns(UserWarning, match=r"other items score exactly as the target does; tie_mode conservative"):
        test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    assert json.loads((run / "metrics.json").read_text())["metrics"]["test/recall@1"] == 0.0


def test_case_061_cutoffs_do_not_share_their_state() -> None:
    metrics = ranking_metrics([1, 3])
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    metrics.update(target_rank(scores, torch.tensor([0])))
    metrics(target_rank(scores, torch.tensor([2])))  # forward between updates
    for _ in range(2):
        found = metrics.compute()
        assert (found["recall@1"].item(), found["recall@3"].item()) == (0.5, 1.0)
    metrics.update(target_rank(scores, torch.tensor([2])))
    assert metrics.compute()["recall@1"].item() == pytest.approx(1 / 3)
    assert metrics.compute()["recall@3"].item() == 1.0


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_case_062_negative_scores(shift: float) -> None:
    rank = target_rank(torch.tensor([[-1.0, -2.0, -3.0, -4.0, -5.0]]) + shift, torch.tensor([0]))
    assert (metric_of(Recall(1), rank), metric_of(MRR(1), rank)) == (1.0, 1.0)


def test_case_063_recall_grows_with_the_cutoff() -> None:
    ranks = torch.tensor([1, 3, 21])
    assert [metric_of(Recall(k), ranks) for k in (1, 5, 20)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert [metric_of(MRR(k), ranks) for k in (1, 5, 20)] == pytest.approx([1 / 3, 4 / 9, 4 / 9])
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(generator.integers(0, 9, (200, 50))).double()  # with many ties
    target = torch.from_numpy(generator.integers(0, 50, 200))
    for mode in ("standard", "conservative"):
        rank = target_rank(scores, target, mode)  # type: ignore[arg-type]
        recall = [metric_of(Recall(k), rank) for k in range(1, 51)]
        mrr = [metric_of(MRR(k), rank) for k in range(1, 51)]
        assert recall == sorted(recall)
        assert mrr == sorted(mrr)
        assert all(m <= r for m, r in zip(mrr, recall, strict=True))
        assert recall[0] == mrr[0]
        assert recall[-1] == 1.0


def test_case_065_every_position_weighs_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recall = Recall(20)
    recall.update(torch.tensor([1, 2, 3]))
    recall.update(torch.tensor([21]))
    assert recall.compute().item() == 0.75
    force_losses(monkeypatch, [1.0, 5.0])
    write_sessions("log.csv", ["ab", "cd", "efg"])  # steps of three rows and of one
    run = fit_log("log.csv", *WHOLE, *THREE_LANES, model="GRU4Rec")
    assert figures(run, "train/loss_epoch") == [("train/loss_epoch", 2, 2.0)]


def test_case_065_the_batch_size_of_the_evaluation_changes_nothing() -> None:
    model = new_model()
    sessions = make_sessions([[LETTERS.index(item) for item in session] for session in SESSIONS])
    found = []
    for batch_size in (1, 2, 3, 8):
        ranks = [
            rank_from_counts(*model.count_positions(batch), "conservative")
            for batch in EvaluationLoader(sessions, batch_size)
        ]
        metrics = ranking_metrics([1, 5])
        for rank in ranks:
            metrics.update(rank)
        found.append((sorted(torch.cat(ranks).tolist()), {name: m.item() for name, m in metrics.compute().items()}))
    assert len(found[0][0]) == 9
    assert all(other == found[0] for other in found)


def test_case_067_no_index_is_padding(here: Path) -> None:
    rank = target_rank(torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([0]))
    assert (rank.item(), metric_of(Recall(1), rank)) == (1, 1.0)
    write_sessions("log.csv", ["ab", "ba", "ba", "ba", "bac", "cba"])
    run = fit_log("log.csv", *WHOLE, *SMALL, "--data.batch_size", "2", "--trainer.max_epochs", "20", model="GRU4Rec")
    model = GRU4Rec.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model.known_items.item_ids[0] == "a"  # the first item of the file
    assert model.n_items == 3
    assert model.recommend(["b"], k=1)[0][0] == "a"
    assert sorted(item for item, _ in model.recommend(["b"], k=20)) == ["a", "b", "c"]
    assert len(model.recommend(["c", "b"], k=20)) == 3


def test_case_070_a_list_longer_than_the_catalogue() -> None:
    rank = target_rank(torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]), torch.tensor([3]))
    assert (metric_of(Recall(20), rank), metric_of(MRR(20), rank)) == (1.0, 0.25)
    assert len(new_model(5).recommend(["i1"], k=20)) == 5


# Checkpoints, resuming and reproducibility


def test_case_071_checkpoints_hold_plain_values(here: Path) -> None:
    in_new_folder(here / "folder")
    assert fit_code([*COMMON, *GRU, "--trainer.max_epochs", "1"]) == 0
    assert fit_code([*RESUME, "--trainer.max_epochs", "2"]) == 0
    checkpoint = last_checkpoint(RUN)  # with weights_only
    assert checkpoint["epoch"] == 1
    kinds: Counter[type] = Counter()

    def walk(value: Any) -> None:
        kinds[type(value)] += 1
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
            value = list(value.values())
        for part in value if isinstance(value, (list, tuple)) else ():
            walk(part)

    walk(checkpoint["vocabulary"])
    assert set(kinds) <= {dict, list, str, int, Tensor}
    assert kinds[str] >= 12  # the items


def test_case_072_resuming_inside_an_epoch_repeats_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    original = GRU4Rec.train_window

    def train_window(self: GRU4Rec, window: Any, optimizer: Any, generator: Any, start: int, stop: int) -> Tensor:
        ids = self.known_items.item_ids
        for step in range(start, stop):
            live = window.live[step]
            pairs = zip(window.inputs[step][live].tolist(), window.targets[step][live].tolist(), strict=True)
            seen.extend((window.first_step + step + 1, ids[i] + ids[t]) for i, t in pairs)
        return original(self, window, optimizer, generator, start, stop)

    monkeypatch.setattr(GRU4Rec, "train_window", train_window)
    write_sessions("log.csv", [*SESSIONS * 3, "abcde"])
    options = ["--model", "GRU4Rec", *TRAINER, *WHOLE, *THREE_LANES, "--data.path", "log.csv"]
    options += ["--data.steps_per_window", "4", "--checkpoint.every_n_steps", "5", "--trainer.logger.version", "r"]
    with stop_at_step(5):
        assert fit_code(options) == 143
    assert last_checkpoint(RUN)["global_step"] == 5
    n_before = len(seen)
    assert fit_code(RESUME) == 0
    assert last_checkpoint(RUN)["global_step"] == 12
    assert {step for step, _ in seen[n_before:]} == set(range(6, 13))
    sessions = [*SESSIONS * 3, "abcde"]
    pairs = [a + b for items in sessions for a, b in zip(items, items[1:], strict=False)]
    assert sorted(pair for _, pair in seen) == sorted(pairs)
    resumed = last_checkpoint(RUN)["state_dict"]
    assert fit_code([*options[:-1], "one-go"]) == 0
    straight = last_checkpoint(Path("lightning_logs/one-go"))["state_dict"]
    assert all(torch.equal(weight, straight[name]) for name, weight in resumed.items())


def test_case_073_two_and_two_epochs_equal_four(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: dict[int, list[int]] = {}
    original = GRU4Rec.train_window

    def train_window(self: GRU4Rec, window: Any, *args: Any) -> Tensor:
        order.setdefault(self.current_epoch, []).extend(window.inputs[window.starts].tolist())
        return original(self, window, *args)

    monkeypatch.setattr(GRU4Rec, "train_window", train_window)
    command = [*COMMON, *GRU, "--seed_everything", "7"]
    ours = in_new_folder(here / "ours")
    assert fit_code([*command, "--trainer.max_epochs", "2"]) == 0
    assert fit_code([*RESUME, "--trainer.max_epochs", "4"]) == 0
    parts = dict(order)
    order.clear()
    theirs = in_new_folder(here / "theirs")
    assert fit_code([*command, "--trainer.max_epochs", "4"]) == 0
    assert parts == order
    assert len({tuple(items) for items in order.values()}) == 4
    assert_equal_runs(ours, theirs)


def test_case_074_one_seed_one_result(here: Path) -> None:
    """This process and a fresh one whose hashes of texts differ."""
    in_new_folder(here / "ours")
    command = [*COMMON, *GRU, "--trainer.max_epochs", "1"]
    assert fit_code(command) == 0
    test.main(["--config", str(RUN / "config.yaml"), "--ckpt_path", "last"])
    ours = hashes(RUN)
    in_new_folder(here / "theirs")
    code = "import sys; from sessrec import fit, test; fit.main(sys.argv[2:]); test.main(sys.argv[1].split())"
    arguments = [f"--config {RUN}/config.yaml --ckpt_path last", *command]
    environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True)
    theirs = hashes(RUN)
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "ranks.parquet"):
        assert ours[name] == theirs[name], name
    weights = last_checkpoint(RUN)["state_dict"]["output_embedding"]
    in_new_folder(here / "other-seed")
    assert fit_code([*command, "--seed_everything", "43"]) == 0
    assert not torch.equal(last_checkpoint(RUN)["state_dict"]["output_embedding"], weights)


def test_case_077_best_is_the_greatest(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation has Recall 0.1, 0.3, 0.2."""
    in_new_folder(here / "folder")
    with monkeypatch.context() as patch:

        def validation_step(self: SessionRecommender, *args: Any) -> None:
            n_hits = [1, 3, 2][self.current_epoch]
            self.val_metrics.update(torch.tensor([1] * n_hits + [99] * (10 - n_hits)))

        patch.setattr(SessionRecommender, "validation_step", validation_step)
        assert fit_code([*COMMON, *GRU, "--trainer.max_epochs", "3", "--monitor", "val/recall@20"]) == 0
    assert [round(value, 4) for _, _, value in figures(RUN, "val/recall@20")] == [0.1, 0.3, 0.2]
    best = torch.load(RUN / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 1
    tested = []
    for name in ("best", "last"):
        test.main(["--config", str(RUN / "config.yaml"), "--ckpt_path", name])
        tested.append(json.loads((RUN / "metrics.json").read_text()))
        assert tested[-1]["checkpoint"] == f"lightning_logs/r/checkpoints/{name}.ckpt"
    assert tested[0]["metrics"] != tested[1]["metrics"]  # the weights are others


def test_case_079_a_finished_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_new_folder(here / "folder")
    assert fit_code([*COMMON, *GRU, "--trainer.max_epochs", "2"]) == 0
    before = hashes(RUN)
    capsys.readouterr()
    assert fit_code([*RESUME, "--trainer.max_epochs", "2"]) == 0
    assert "nothing to do: the checkpoint lightning_logs/r/checkpoints/last.ckpt has 2 of 2 epochs" in (
        capsys.readouterr().out
    )
    assert hashes(RUN) == before
    assert everything_in(Path("lightning_logs")) == {"r"} | {f"r/{name}" for name in everything_in(RUN)}


def test_case_081_the_command_line_wins_over_the_checkpoint(here: Path) -> None:
    in_new_folder(here / "folder")
    assert fit_code([*COMMON, *GRU, "--trainer.max_epochs", "1", "--model.learning_rate", "0.001"]) == 0
    assert fit_code([*RESUME, "--trainer.max_epochs", "2", "--model.learning_rate", "0.5"]) == 0
    assert yaml.safe_load((RUN / "config.yaml").read_text())["model"]["init_args"]["learning_rate"] == 0.5
    rates = [round(value, 6) for _, _, value in figures(RUN, "train/learning_rate")]
    assert set(rates[: len(rates) // 2 - 1]) == {0.001}
    assert set(rates[len(rates) // 2 + 1 :]) == {0.5}


# Curves


def test_case_093_curves_do_not_zigzag_after_a_resume(here: Path) -> None:
    """The fit logs every step, saves at step 6, ends after step 9, and goes on to step 12."""
    in_new_folder(here / "folder")
    every_step = ["--data.steps_per_window", "1", "--trainer.log_every_n_steps", "1"]
    command = [*COMMON, *GRU, *every_step, "--checkpoint.every_n_steps", "6"]
    assert fit_code([*command, "--trainer.max_steps", "6"]) == 0
    at_six = (RUN / "checkpoints" / "last.ckpt").read_bytes()
    assert fit_code([*RESUME, "--trainer.max_steps", "9"]) == 0
    (RUN / "checkpoints" / "last.ckpt").write_bytes(at_six)  # as a killed process would leave it
    assert [step for step, _ in curves(RUN)["train/loss"]] == list(range(1, 10))
    assert fit_code([*RESUME, "--trainer.max_steps", "12"]) == 0
    assert [step for step, _ in curves(RUN)["train/loss"]] == list(range(1, 13))  # each once


def test_case_095_the_epochs_loss_is_weighed_by_rows(
    here: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Losses 1, 2, 3, 4 for steps of 3, 3, 2, 1 rows."""
    write_sessions("five.csv", SESSIONS)
    force_losses(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    for number, steps_per_window in enumerate(("1", "3", "64")):
        options = [*THREE_LANES, "--data.steps_per_window", steps_per_window]
        run = fit_log("five.csv", *WHOLE, *options, model="GRU4Rec", run=f"r{number}")
        ((_, step, loss),) = figures(run, "train/loss_epoch")
        assert (step, loss) == (4, pytest.approx(19 / 9))  # 2.1111 and not 2.5
    assert not [warning for warning in recwarn if "batch size" in str(warning.message).lower()]


@pytest.mark.parametrize(("interval", "steps"), [("1.0", [4, 8]), ("0.5", [2, 4, 6, 8])])
def test_case_096_the_loaders_length_is_exact(here: Path, interval: str, steps: list[int]) -> None:
    """Nine pairs in three lanes are four steps, and validations come when they are due."""
    write_sessions("log.csv", [*SESSIONS, "abc", "efg"])
    options = ["--data.test_ratio", "0", "--data.val_duration", "1500", "--trainer.val_check_interval", interval]
    run = fit_log("log.csv", *THREE_LANES, *options, "--trainer.max_epochs", "2", model="GRU4Rec")
    assert [step for _, step, _ in figures(run, "train/loss_epoch")] == [4, 8]
    assert [step for _, step, _ in figures(run, "val/mrr@20")] == steps
    assert last_checkpoint(run)["global_step"] == 8
    data = SessionDataModule("log.csv", test_ratio=0, val_duration=1500, batch_size=3, steps_per_window=1)
    data.setup("fit")
    assert len(data.train_dataloader()) == len(list(data.train_dataloader())) == 4
