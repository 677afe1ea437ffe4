"""One contract for all models; what each of them computes is in the files of its family."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import (
    ITEMS,
    MODELS,
    all_counts,
    all_scores,
    fit_log,
    learn,
    make_model,
    make_sessions,
    make_trainer,
    make_vocabulary,
    random_log,
    random_rows,
    scores_after,
    small_log,
)
from lightning.pytorch import LightningModule

from sessrec import models, predict, test
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationBatch, EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.ranking import MISSED, count_positions, item_blocks
from sessrec.models import GRU4Rec, Markov, Popularity, SessionRecommender
from sessrec.models.checkpoint_format import current_options
from sessrec.models.inference import top_items
from sessrec.models.neural import NeuralRecommender
from sessrec.options import with_current_options

LOG = random_log(1)
RULES = [{}, {"exclude_last": True}, {"exclude_seen": True}, {"exclude_last": True, "exclude_seen": True}]
WITHOUT_GRADIENTS = [name for name in MODELS if not issubclass(getattr(models, name.split()[0]), NeuralRecommender)]
each_model = pytest.mark.parametrize("name", MODELS)
each_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@cache
def learnt_model(name: str, **rule: bool) -> SessionRecommender:
    torch.manual_seed(3)
    return learn(make_model(name, **rule), LOG)


def excluded(rule: dict[str, bool], session: list[int]) -> set[int]:
    return set(session) if "exclude_seen" in rule else {session[-1]} if rule else set()


def assert_equal_states(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name])


def test_random_logs_have_what_can_go_wrong() -> None:
    for log in map(random_log, (1, 2, 3)):
        ends = [times[-1] for times in log.times]
        assert len(set(ends)) < len(ends)
        assert ends != sorted(ends)
        assert any(len(set(row)) < len(row) for row in log.training)
        assert {len(row) for row in log.training} >= {2, 12}
        assert min(log.popularity) >= 1
        last_only = {log.n_items - 2, log.n_items - 1}
        assert not last_only & {item for row in log.training for item in row[:-1]}
        assert last_only & {item for query in log.queries for item in query}
        assert max(log.support) > 20  # above a sample size
        assert max(map(len, map(set, log.queries))) > 11


# -- ranks and lists -----------------------------------------------------------------------------------------------


@each_rule
@each_model
def test_ranks_are_those_of_the_candidates_scores(name: str, rule: dict[str, bool]) -> None:
    """By default, every item is a candidate."""
    model, scores, expected = learnt_model(name, **rule), all_scores(learnt_model(name), LOG.queries), []
    for prefix, target, own in zip(LOG.prefixes, LOG.targets, scores, strict=True):
        left = [score for item, score in enumerate(own) if item not in excluded(rule, prefix)]
        above, tied = sum(score > own[target] for score in left), sum(score == own[target] for score in left) - 1
        expected.append((MISSED, 0) if target in excluded(rule, prefix) else (above, tied))
    assert sum(all_counts(model, LOG.queries), []) == expected
    assert ((MISSED, 0) in expected) == bool(rule)
    for option in ("exclude_last", "exclude_seen"):
        assert getattr(model, option) == model.hparams[option] == rule.get(option, False)


@each_rule
@each_model
def test_recommended_are_the_best_candidates(name: str, rule: dict[str, bool]) -> None:
    """Lists of any length are heads of one ranking, in which equal scores are ordered by item."""
    plain, model = learnt_model(name), learnt_model(name, **rule)
    for number, query in enumerate([*LOG.queries, list(range(LOG.n_items))]):
        history, scores = [str(item + 1) for item in query], scores_after(plain, query)
        left = set(range(LOG.n_items)) - excluded(rule, query)
        best = [str(item + 1) for item in sorted(left, key=lambda item: (-scores[item], item))]
        found = model.recommend(history, k=10 * LOG.n_items)
        assert [item_id for item_id, _ in found] == best
        assert found == [pair for pair in plain.recommend(history, k=LOG.n_items) if pair[0] in best]
        wanted = [scores[int(item_id) - 1] for item_id in best]
        assert [score for _, score in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        for k in range(1, LOG.n_items) if number == 0 else (3,):
            assert model.recommend(history, k=k) == found[:k]


@pytest.mark.parametrize("rule", RULES[:3], ids=str)
@each_model
def test_nothing_depends_on_batches_order_or_blocks(
    name: str, rule: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = learnt_model(name, **rule), EvaluationLoader(make_sessions(LOG.queries), 512)[0]
    counts, (best, scores) = all_counts(model, LOG.queries), top_items(model, batch.items, batch.lengths, 7)
    for batch_size in (1, 7):
        assert all_counts(model, LOG.queries, batch_size) == counts
    assert all_counts(model, LOG.queries[::-1], 4)[::-1] == counts
    small = {"_SCORES": 40, "_POSITIONS": 5, "_BLOCK": {"cpu": 3}, "_SESSIONS": 3, "MIN_ROWS": 8}
    for names in (["_SCORES"], ["_POSITIONS"], ["_BLOCK"], list(small)):
        with monkeypatch.context() as patch:
            patch.setattr("sessrec.evaluation.ranking._ITEMS_A_PLACE", 0)
            for changed in names:
                patch.setattr(f"sessrec.evaluation.ranking.{changed}", small[changed])
            assert len(item_blocks(LOG.n_items, torch.device("cpu"))) == (6 if "_BLOCK" in names else 1)
            assert all_counts(model, LOG.queries) == counts
            ours = top_items(model, batch.items, batch.lengths, 7)
        assert torch.equal(ours[0], best)
        torch.testing.assert_close(ours[1], scores, rtol=1e-6, atol=1e-6)


@each_model
def test_some_items_score_as_they_do_among_all(name: str) -> None:
    model = learnt_model(name)
    queries = model.encode(torch.tensor([LOG.queries[0]]))[0]
    with torch.inference_mode():
        whole = model.score(queries, slice(0, LOG.n_items))
        for part in (slice(0, 3), slice(5, 6), slice(7, 16)):
            torch.testing.assert_close(model.score(queries, part), whole[:, part], rtol=1e-6, atol=1e-6)


@each_rule
@each_model
def test_unknown_items_and_empty_sessions(name: str, rule: dict[str, bool]) -> None:
    model = learnt_model(name, **rule)
    popular = sorted(range(LOG.n_items), key=lambda item: (-LOG.popularity[item], item))[:4]
    fallback = [(str(item + 1), float(LOG.popularity[item])) for item in popular]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.recommend([], k=4) == fallback
    with pytest.warns(UserWarning, match="2 of 2 items of the session are unknown"):
        assert model.recommend(["nobody", "nothing"], k=4) == fallback
    known = model.recommend(["1", "2"], k=4)
    for history in (["nobody", "1", "2"], ["1", "nobody", "2"], ["1", "2", "nobody"]):
        with pytest.warns(UserWarning, match="1 of 3 items of the session are unknown"):
            assert model.recommend(history, k=4) == known


@each_model
def test_wrong_requests_are_refused(name: str) -> None:
    for history in ("10", [10, 25]):
        with pytest.raises(SessRecError, match="as text"):
            learnt_model(name).recommend(history)  # type: ignore[arg-type]
    with pytest.raises(SessRecError, match="at least 1"):
        learnt_model(name).recommend(["1"], k=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twins_tie_in_any_block_and_batch(dtype: torch.dtype) -> None:
    """Every item has a twin of the same weights: one tie a position, also where products round by their shape."""
    model = GRU4Rec(layers=[48])
    model.set_vocabulary(make_vocabulary(1400))
    model.to(dtype)
    with torch.no_grad():
        model.output_embedding[700:] = model.output_embedding[:700]
    queries = model.encode(torch.arange(600)[:, None])[:, 0]
    targets = torch.randint(1400, (600,), generator=torch.Generator().manual_seed(0))
    counts = [count_positions(model.score, model.score_targets, queries[:n], targets[:n], 1400) for n in (33, 64, 600)]
    for above, tied, _ in counts:
        assert (tied == 1).all()
        assert torch.equal(above, counts[-1][0][: len(above)])


def test_no_block_is_scored_once_more_for_an_excluded_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose scores are the same in whatever way they are asked for."""
    monkeypatch.setattr("sessrec.evaluation.ranking._BLOCK", {"cpu": 4})
    score, blocks, numbers = Popularity.score, [], set()
    monkeypatch.setattr(Popularity, "score", lambda self, *given: blocks.append(given[1]) or score(self, *given))
    for rule in RULES:
        blocks.clear()
        all_counts(learnt_model("Popularity", **rule), LOG.queries)
        numbers.add(len(blocks))
    assert len(numbers) == 1
    assert numbers.pop() > 2


def test_an_excluded_target_is_no_hit_in_a_small_catalogue() -> None:
    """With fewer items than the list is long, every candidate is a hit, and what is none is not."""
    model = learn(Popularity(exclude_seen=True), small_log([[0, 1], [1, 2]], 3))
    batch = EvaluationBatch(torch.tensor([[0, 0, 1]]), torch.tensor([3]), torch.tensor([0]))
    assert rank_from_counts(*model.count_positions(batch), "standard").tolist() == [MISSED + 1, 1]


@pytest.mark.parametrize(("name", "option"), [("GRU4Rec", "exclude_last"), ("SKNN", "exclude_seen")])
def test_excluded_items_by_the_commands(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit_log(write_log(LOG.rows).name, f"--model.{option}", "true", model=name)

    def rules_of_a_test(*options: str) -> dict[str, Any]:
        test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last", *options])
        return json.loads((run / "metrics.json").read_text())["protocol"]

    kept = rules_of_a_test()
    assert (kept["exclude_last"], kept["exclude_seen"]) == (option == "exclude_last", option == "exclude_seen")
    new = [("p", "1", 1), ("p", "2", 2), ("p", "2", 3), ("q", "3", 4), ("r", "nobody", 5)]
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    predict.main([*checkpoint, "--data.path", write_log(new, name="new.tsv").name, "--model.k", "50"])
    rows = [line.split("\t") for line in Path("predictions.tsv").read_text().splitlines()[1:]]
    for session, gone in (("p", {"2"} if option == "exclude_last" else {"1", "2"}), ("q", {"3"})):
        found = [item_id for name, _, item_id, _ in rows if name == session]
        assert len(set(found)) == len(found) == kept["items_ranked"] - len(gone)
        assert not gone & set(found)
        assert [int(rank) for name, rank, _, _ in rows if name == session] == list(range(1, len(found) + 1))
    assert {name for name, *_ in rows} == {"p", "q"}
    kept = rules_of_a_test(f"--model.{option}", "false")  # the rule can be changed for a test alone
    assert not kept["exclude_last"]
    assert not kept["exclude_seen"]


# -- fits and checkpoints ------------------------------------------------------------------------------------------


class Fitted(NamedTuple):
    """A fit of a model by a trainer."""

    name: str
    model: SessionRecommender
    data: SessionDataModule
    checkpoint: Path


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("fitted"), make_model(request.param)
    (folder / "log.tsv").write_text(
        "SessionId\tItemId\tTime\n" + "".join(f"{session}\t{item}\t{time}\n" for session, item, time in LOG.rows)
    )
    data = SessionDataModule(str(folder / "log.tsv"), batch_size=8, steps_per_window=5, items=ITEMS, cache_dir=None)
    trainer = make_trainer(folder, max_epochs=2 if isinstance(model, NeuralRecommender) else 10)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return Fitted(request.param, model, data, folder / "model.ckpt")


def test_a_checkpoint_alone_recommends_the_same(fitted: Fitted) -> None:
    loaded = type(fitted.model).load_from_checkpoint(fitted.checkpoint)
    torch.load(fitted.checkpoint, weights_only=True)  # nothing but tensors and plain Python
    assert_equal_states(loaded.state_dict(), fitted.model.state_dict())
    history = fitted.model.vocabulary.item_ids[3:6]
    assert loaded.recommend(history, k=5) == fitted.model.recommend(history, k=5)
    other = Popularity if fitted.name != "Popularity" else Markov
    with pytest.raises(SessRecError, match="the checkpoint holds sessrec.models"):
        other.load_from_checkpoint(fitted.checkpoint)


def test_a_fit_without_gradients_is_one_step_whatever_the_epochs(fitted: Fitted) -> None:
    n_steps = torch.load(fitted.checkpoint, weights_only=True)["global_step"]
    if fitted.name not in WITHOUT_GRADIENTS:
        assert n_steps > 10
        return
    assert n_steps == 1
    learnt = make_model(fitted.name).learn(fitted.data.sessions["train"], fitted.data.vocabulary)
    assert_equal_states(fitted.model.state_dict(), learnt.state_dict())


def test_data_prepared_for_another_model_are_refused(fitted: Fitted, tmp_path: Path, write_log: Callable) -> None:
    data = SessionDataModule(str(write_log(random_rows())), cache_dir=None)
    data.setup("fit")
    loaded = type(fitted.model).load_from_checkpoint(fitted.checkpoint)
    with pytest.raises(SessRecError, match="the data were prepared for"):
        make_trainer(tmp_path).test(loaded, data)


@pytest.mark.parametrize("name", WITHOUT_GRADIENTS)
def test_learning_changes_no_data_and_begins_anew(name: str, tmp_path: Path) -> None:
    def arrays(sessions: Sessions) -> list[np.ndarray]:
        return [np.array(array) for array in (sessions.items, sessions.offsets, sessions.times)]

    sessions, vocabulary = make_sessions(LOG.training, LOG.times), learnt_model(name).vocabulary
    before, mapped = arrays(sessions), []
    for number, array in enumerate(before):
        np.save(tmp_path / f"{number}.npy", array)
        mapped.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    model = make_model(name)
    for _ in range(2):
        model.learn(sessions, vocabulary)
        assert_equal_states(model.state_dict(), learnt_model(name).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it is given read-only memory
        other = make_model(name).learn(Sessions(*mapped), vocabulary)
    assert_equal_states(other.state_dict(), model.state_dict())
    for tensor in model.state_dict().values():  # nor shares it memory
        if tensor.dtype != torch.bool:
            tensor.add_(1)
    for array, copy in zip(arrays(sessions), before, strict=True):
        assert np.array_equal(array, copy)


# -- what a model is -----------------------------------------------------------------------------------------------


@each_model
def test_threads_may_share_a_model(name: str) -> None:
    """Eight at a time, with sessions of different lengths; in training mode, too, which a model is in after a fit."""
    torch.manual_seed(0)
    model = learn(make_model(name), LOG).train()
    histories = [[str(item + 1) for item in row] for row in LOG.training[:40]]
    alone = [model.recommend(history, k=10) for history in histories]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            assert list(pool.map(lambda history: model.recommend(history, k=10), histories)) == alone


def test_a_model_is_three_classes_below_lightning_at_most() -> None:
    for name in models.__all__:
        classes = [base for base in getattr(models, name).__mro__ if issubclass(base, LightningModule)]
        assert len(classes) - 1 <= 3, name


def test_choices_are_checked_in_python_too() -> None:
    for wrong in ({"loss": "hinge"}, {"tie_mode": "best"}):
        with pytest.raises(SessRecError, match="must be "):
            GRU4Rec(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SessRecError, match="must be "):
        SessionDataModule(straddling="drop")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'test_ration'"):
        SessionDataModule(test_ration=0.1)  # type: ignore[call-arg]


def test_models_that_are_not_fitted_say_so() -> None:
    with pytest.raises(SessRecError, match="knows no items yet"):
        GRU4Rec().recommend(["1"])
    with pytest.raises(SessRecError, match="GRU4Rec is trained by gradients: fit it with a Trainer"):
        GRU4Rec().learn(make_sessions([[0, 1]]))


class OwnModel(Popularity):
    """A model of a user's own, some of whose options have names that are gone in SASRec and GRU4Rec."""

    def __init__(self, hidden: int = 3, logq_mode: str = "published", **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()


def test_options_of_0_2_are_renamed_in_the_models_that_had_them_alone(
    write_log: Callable[..., Path], tmp_path: Path
) -> None:
    old = {"hidden": 8, "logq_mode": "published", "k": 5}
    for path in ("SASRec", "sessrec.models.SASRec", "sessrec.models.sasrec.SASRec"):
        assert current_options(path, old) == {"hidden_size": 8, "k": 5}
    assert current_options("sessrec.models.gru4rec.GRU4Rec", {"k": 5, "exclude_target_copies": False}) == {"k": 5}
    with pytest.raises(SessRecError, match="--model.logq_mode other of sessrec 0.2 is gone"):
        current_options("GRU4Rec", {"logq_mode": "other"})
    for path in ("mine.SASRec", "sessrec.models.Popularity", "OwnModel"):
        assert current_options(path, old) == old
    log = str(write_log(random_rows(40)))
    fit = make_trainer(tmp_path, max_epochs=1)
    fit.fit(OwnModel(hidden=8, logq_mode="own"), SessionDataModule(log, cache_dir=None))
    fit.save_checkpoint(tmp_path / "own.ckpt")
    options = OwnModel.load_from_checkpoint(tmp_path / "own.ckpt").hparams
    assert (options["hidden"], options["logq_mode"]) == (8, "own")
    config = tmp_path / "config.yaml"
    config.write_text("model: {class_path: mine.OwnModel, init_args: {hidden: 8}}")
    assert with_current_options("fit", ["--config", str(config)]) == ["--config", str(config)]
    config.write_text("model: {class_path: SASRec, init_args: {hidden: 8}}")
    assert "hidden_size: 8" in with_current_options("fit", ["--config", str(config)])[1]


@each_model
@each_rule
def test_a_batch_of_no_session_gives_no_item(name: str, rule: dict[str, bool]) -> None:
    """One of several processes may have no session left."""
    model = learnt_model(name, **rule)
    best, scores = top_items(model, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 7)
    assert best.shape == scores.shape == (0, 7)
    assert best.dtype == torch.int64
