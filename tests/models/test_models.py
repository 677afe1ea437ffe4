"""One contract for all models, and what each of them must know."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_sessions, make_vocabulary, random_rows
from lightning.pytorch import LightningModule, Trainer

from sessrec import models
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.synthetic import SyntheticProcess, generate_synthetic_sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.evaluation.metrics import target_rank
from sessrec.evaluation.ranking import count_positions, item_blocks
from sessrec.models import GRU4Rec, Markov, Oracle, Popularity, SASRec, SessionRecommender
from sessrec.models.checkpoint_format import current_options
from sessrec.models.inference import top_items
from sessrec.models.neural import NeuralRecommender
from sessrec.options import with_current_options

MODELS = {
    "gru4rec": lambda: GRU4Rec(layers=[16], n_sample=8, dropout_p_hidden=0.1),
    "gru4rec two layers": lambda: GRU4Rec(layers=[12, 8], n_sample=8, loss="bpr-max", momentum=0.3),
    "gru4rec separate": lambda: GRU4Rec(
        layers=[16], n_sample=8, constrained_embedding=False, embedding=6, loss="top1-max"
    ),
    "gru4rec one-hot": lambda: GRU4Rec(layers=[16], n_sample=8, constrained_embedding=False, loss="bpr"),
    "popularity": Popularity,
    "markov": lambda: Markov(alpha=0.3),
    "oracle": lambda: Oracle(process_items=30, process_seed=1),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "clicks.tsv"
    generate_synthetic_sessions(150, 30, seed=1).to_csv(file, sep="\t", index=False)
    return file


def trainer(folder: Path, **options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(accelerator="cpu", default_root_dir=folder, **(quiet | {"max_epochs": 2} | options))


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest, log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fitted")
    model, data = MODELS[request.param](), SessionDataModule(str(log), batch_size=8, steps_per_window=5, cache_dir=None)
    fit = trainer(folder)
    fit.fit(model, data)
    fit.save_checkpoint(folder / "model.ckpt")
    return model, data, folder / "model.ckpt", fit


def test_checkpoint_alone_recommends_the_same(fitted: tuple) -> None:
    model, _, checkpoint, _ = fitted
    loaded = type(model).load_from_checkpoint(checkpoint)
    history = model.vocabulary.item_ids[3:6]
    recommended = loaded.recommend(history, k=5)
    assert recommended == model.recommend(history, k=5)
    assert len({item_id for item_id, _ in recommended}) == 5
    scores = [score for _, score in recommended]
    assert scores == sorted(scores, reverse=True)
    torch.load(checkpoint, weights_only=True)  # nothing but tensors and plain Python


def test_recommendations_lead_the_ranking_that_is_evaluated(fitted: tuple) -> None:
    """Item by item, the recommended list is the full ranking's head."""
    model, data, _, _ = fitted
    session = data.sessions["test"][0][:3]
    vocabulary = model.vocabulary
    everything = model.recommend([vocabulary.item_ids[item] for item in session.tolist()], k=10**6)
    assert sorted(item_id for item_id, _ in everything) == sorted(vocabulary.item_ids)
    scores = torch.zeros(1, model.n_items, dtype=torch.float64)
    for item_id, score in everything:
        scores[0, vocabulary.item_ids.index(item_id)] = score
    target = int(data.sessions["test"][0][3]) if len(data.sessions["test"][0]) > 3 else 0
    batch = next(iter(EvaluationLoader(make_sessions([[*session.tolist(), target]]), 1)))
    model.eval()
    with torch.no_grad():
        above, tied = model.count_positions(batch)
    assert 1 + above[-1] == target_rank(scores, torch.tensor([target]), "standard")
    assert 1 + above[-1] + tied[-1] == target_rank(scores, torch.tensor([target]), "conservative")


def test_metrics_do_not_depend_on_batches_or_order(fitted: tuple, log: Path, tmp_path: Path) -> None:
    model, _, checkpoint, _ = fitted
    results = []
    for batch_size, seed in ((1, None), (7, None), (512, None), (16, 3)):
        data = SessionDataModule(str(log), eval_batch_size=batch_size, cache_dir=None)
        loaded = type(model).load_from_checkpoint(checkpoint)
        tester = trainer(tmp_path)
        data.vocabulary = loaded.vocabulary
        data.setup("test")
        if seed is not None:
            sessions = data.sessions["test"]
            order = np.random.default_rng(seed).permutation(len(sessions))
            data.sessions["test"] = make_sessions([sessions[number].tolist() for number in order])
        tester.test(loaded, data, verbose=False)
        results.append(loaded.results)
    for other in results[1:]:
        for name, value in results[0].items():
            assert other[name] == pytest.approx(value, abs=1e-7)


def test_every_position_counts_whatever_the_model(fitted: tuple) -> None:
    model, data, _, _ = fitted
    n_positions = 0
    for batch in data.test_dataloader():
        with torch.no_grad():
            above, tied = model.count_positions(batch)
        n_positions += len(above)
        assert (above + tied < model.n_items).all()
    test = data.sessions["test"]
    assert n_positions == sum(len(test[number]) - 1 for number in range(len(test))) == test.n_positions


def test_items_scored_in_blocks_give_the_same_ranks(fitted: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, _, _ = fitted
    batch = next(iter(data.test_dataloader()))
    queries = model.encode_sessions(batch.items, batch.lengths)[:, -1]
    with torch.no_grad():
        whole = (model.count_positions(batch), top_items(model, batch.items, batch.lengths, 7))
        monkeypatch.setattr("sessrec.evaluation.ranking.MIN_ROWS", 8)
        monkeypatch.setattr("sessrec.evaluation.ranking._BLOCK", {"cpu": 3})
        monkeypatch.setattr("sessrec.evaluation.ranking._ITEMS_A_PLACE", 0)
        monkeypatch.setattr("sessrec.evaluation.ranking._SESSIONS", 5)
        assert len(item_blocks(model.n_items, queries.device)) > 3
        blocks = (model.count_positions(batch), top_items(model, batch.items, batch.lengths, 7))
    for ours, expected in zip((*blocks[0], *blocks[1]), (*whole[0], *whole[1]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # counts and items: equal


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


def test_unknown_items_are_left_out_with_a_warning(fitted: tuple) -> None:
    model = fitted[0]
    known = model.vocabulary.item_ids[:2]
    with pytest.warns(UserWarning, match="1 of 3 items of the session are unknown"):
        assert model.recommend([known[0], "stranger", known[1]], k=3) == model.recommend(known, k=3)
    with pytest.warns(UserWarning, match="unknown"):
        fallback = model.recommend(["stranger"], k=2)
    most = sorted(model.vocabulary.counts.tolist(), reverse=True)[:2]
    assert [count for _, count in fallback] == most


def test_a_checkpoint_of_another_model_is_refused(fitted: tuple) -> None:
    model, _, checkpoint, _ = fitted
    other = Popularity if not isinstance(model, Popularity) else Markov
    with pytest.raises(SessRecError, match="the checkpoint holds sessrec.models"):
        other.load_from_checkpoint(checkpoint)


def test_data_prepared_for_another_model_are_refused(fitted: tuple, tmp_path: Path, write_log) -> None:
    model, _, checkpoint, _ = fitted
    loaded = type(model).load_from_checkpoint(checkpoint)
    data = SessionDataModule(str(write_log(random_rows())), cache_dir=None)
    trainer(tmp_path).fit(Popularity(), data)
    with pytest.raises(SessRecError, match="the data were prepared for"):
        trainer(tmp_path).test(loaded, data)


def test_shorter_lists_are_heads_of_longer_ones_also_where_scores_tie(fitted: tuple) -> None:
    model = fitted[0]
    history = model.vocabulary.item_ids[:2]
    longest = model.recommend(history, k=model.n_items)
    for k in range(1, model.n_items):
        assert model.recommend(history, k=k) == longest[:k]


@pytest.mark.parametrize("history", ["10", [10, 25]])
def test_item_ids_must_be_a_list_of_text(fitted: tuple, history: object) -> None:
    with pytest.raises(SessRecError, match="as text"):
        fitted[0].recommend(history)
    with pytest.raises(SessRecError, match="at least 1"):
        fitted[0].recommend(["1"], k=0)


def test_choices_are_checked_in_python_too() -> None:
    for wrong in ({"loss": "hinge"}, {"tie_mode": "best"}):
        with pytest.raises(SessRecError, match="must be one of"):
            GRU4Rec(**wrong)
    with pytest.raises(SessRecError, match="must be one of"):
        SessionDataModule(straddling="drop")
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'test_ration'"):
        SessionDataModule(test_ration=0.1)


def test_unfitted_models_say_so() -> None:
    with pytest.raises(SessRecError, match="knows no items yet"):
        GRU4Rec().recommend(["1"])


def test_popularity_counts_every_event() -> None:
    """Sessions aba, bc, ac: a 3, b 2, c 2; b and c tie."""
    model = Popularity().learn(make_sessions([[0, 1, 0], [1, 2], [0, 2]]))
    assert model.counts.tolist() == [3, 2, 2]
    scores = model.score(torch.zeros(1, 1, dtype=torch.float64), slice(0, 3))
    ranks = [target_rank(scores, torch.tensor([1]), mode).item() for mode in ("standard", "conservative", "median")]  # type: ignore[arg-type]
    assert ranks == [2, 3, 2.5]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_markov_against_plain_python(alpha: float) -> None:
    generator = np.random.default_rng(4)
    sequences = [generator.integers(0, 9, size=generator.integers(2, 7)).tolist() for _ in range(40)]
    sequences = [[item for item in sequence if item != 8] or [0, 1] for sequence in sequences]
    sequences = [sequence if len(sequence) > 1 else [*sequence, 0] for sequence in sequences] + [[1, 8]]
    model = Markov(alpha).learn(
        make_sessions(sequences), make_vocabulary(10)
    )  # item 9 occurs nowhere, item 8 only at the end of a session
    pairs: dict[tuple[int, int], int] = {}
    popularity = [sum(sequence.count(item) for sequence in sequences) for item in range(10)]
    for sequence in sequences:
        for pair in zip(sequence, sequence[1:], strict=False):
            pairs[pair] = pairs.get(pair, 0) + 1
    queries = model.encode(torch.arange(10)[None])[0]
    for items in (slice(0, 10), slice(3, 7)):
        scores = model.score(queries, items)
        for a in range(10):
            greatest = max((count for (first, _), count in pairs.items() if first == a), default=0)
            for b in range(items.start, items.stop):
                popular = popularity[b] / max(popularity)
                blended = (1 - alpha) * pairs.get((a, b), 0) / greatest + alpha * popular if greatest else popular
                assert scores[a, b - items.start].item() == pytest.approx(blended, abs=1e-8)


def test_markov_without_alpha_breaks_ties_by_popularity() -> None:
    model = Markov(alpha=0.0)
    model.learn(make_sessions([[0, 1], [0, 2], [2, 3], [2, 3], [4, 5], [4, 5], [5, 4]]), make_vocabulary(6))
    order = [item_id for item_id, _ in model.recommend(["i0"], k=6)]
    assert order[:2] == ["i2", "i1"]  # both followed once; 2 is the more popular
    assert set(order[2:4]) == {"i4", "i5"}  # then what never followed, the popular first


def test_asking_for_ten_epochs_does_not_count_ten_times(log: Path, tmp_path: Path) -> None:
    once, often = Popularity(), Popularity()
    trainer(tmp_path, max_epochs=1).fit(once, SessionDataModule(str(log), cache_dir=None))
    trainer(tmp_path, max_epochs=10).fit(often, SessionDataModule(str(log), cache_dir=None))
    assert once.counts.sum() > 0
    assert torch.equal(once.counts, often.counts)
    trainer(tmp_path, max_epochs=1).fit(often, SessionDataModule(str(log), cache_dir=None))  # nor does a second fit
    assert torch.equal(once.counts, often.counts)


def test_oracle_scores_are_the_process_probabilities() -> None:
    process = SyntheticProcess(n_items=12, seed=3)
    model = Oracle(process_items=12, process_seed=3)
    vocabulary = make_vocabulary(12)
    vocabulary.item_ids = [str(number) for number in range(12, 0, -1)]  # the vocabulary's order is not the process's
    model.set_vocabulary(vocabulary)
    session = [4, 7, 1]
    numbers = np.array([[11 - item for item in session]])
    belief = process.start_belief(numbers[:, 0])
    for previous, current in zip(numbers.T, numbers.T[1:], strict=False):
        belief = process.update(belief, previous, current)
    expected = process.next_item_probabilities(belief, numbers[:, -1])[0, ::-1]
    queries = model.encode(torch.tensor([session]))[:, -1]
    np.testing.assert_allclose(model.score(queries, slice(0, 12))[0].numpy(), expected, rtol=1e-12)


def test_oracle_refuses_items_that_are_not_of_its_process() -> None:
    with pytest.raises(SessRecError, match="none of the synthetic process's"):
        Oracle(process_items=5).set_vocabulary(make_vocabulary(3))


EVERY_MODEL: dict[str, Callable[[], SessionRecommender]] = {
    name: getattr(models, name) for name in models.__all__ if name != "SessionRecommender"
} | {
    "GRU4Rec": lambda: GRU4Rec(layers=[16], n_sample=8, dropout_p_hidden=0.5),
    "Oracle": lambda: Oracle(30, 1),
    "SASRec": lambda: SASRec(hidden_size=8, dropout=0.5),
}


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_threads_may_share_a_model(name: str) -> None:
    """Eight at a time, with sessions of different lengths; in training mode, too, which a model is in after a fit."""
    generator = np.random.default_rng(0)
    training = [generator.integers(0, 30, size=generator.integers(2, 9)).tolist() for _ in range(200)]
    vocabulary = Vocabulary(map(str, range(1, 31)), np.bincount(sum(training, []), minlength=30))
    torch.manual_seed(0)
    model = EVERY_MODEL[name]()
    if isinstance(model, NeuralRecommender):
        model.set_vocabulary(vocabulary)
    else:
        model.learn(make_sessions(training), vocabulary)
    model.train()
    histories = [[str(item + 1) for item in row] for row in training]
    alone = [model.recommend(history, k=10) for history in histories]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda history: model.recommend(history, k=10), histories)) == alone


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_model_is_three_classes_below_lightning_at_most(name: str) -> None:
    def depth(kind: type) -> int:
        above = [base for base in kind.__bases__ if issubclass(base, LightningModule)]
        return 0 if kind is LightningModule else 1 + max(map(depth, above))

    assert depth(getattr(models, name)) <= 3


def test_a_model_with_gradients_says_that_it_needs_a_trainer() -> None:
    with pytest.raises(SessRecError, match="GRU4Rec is trained by gradients: fit it with a Trainer"):
        GRU4Rec().learn(make_sessions([[0, 1]]))


class OwnModel(Popularity):
    """A model of a user's own, some of whose options have names that are gone in SASRec and GRU4Rec."""

    def __init__(self, hidden: int = 3, logq_mode: str = "published", **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()


def test_options_of_0_2_are_renamed_in_the_models_that_had_them_alone(log: Path, tmp_path: Path) -> None:
    old = {"hidden": 8, "logq_mode": "published", "k": 5}
    for path in ("SASRec", "sessrec.models.SASRec", "sessrec.models.sasrec.SASRec"):
        assert current_options(path, old) == {"hidden_size": 8, "k": 5}
    assert current_options("sessrec.models.gru4rec.GRU4Rec", {"k": 5, "exclude_target_copies": False}) == {"k": 5}
    with pytest.raises(SessRecError, match="--model.logq_mode other of sessrec 0.2 is gone"):
        current_options("GRU4Rec", {"logq_mode": "other"})
    for path in ("mine.SASRec", "sessrec.models.Popularity", "OwnModel"):
        assert current_options(path, old) == old
    fit = trainer(tmp_path)
    fit.fit(OwnModel(hidden=8, logq_mode="own"), SessionDataModule(str(log), cache_dir=None))
    fit.save_checkpoint(tmp_path / "own.ckpt")
    options = OwnModel.load_from_checkpoint(tmp_path / "own.ckpt").hparams
    assert (options["hidden"], options["logq_mode"]) == (8, "own")
    config = tmp_path / "config.yaml"
    config.write_text("model: {class_path: mine.OwnModel, init_args: {hidden: 8}}")
    assert with_current_options("fit", ["--config", str(config)]) == ["--config", str(config)]
    config.write_text("model: {class_path: SASRec, init_args: {hidden: 8}}")
    assert "hidden_size: 8" in with_current_options("fit", ["--config", str(config)])[1]
