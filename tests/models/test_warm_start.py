"""A fit that begins with the weights of an earlier one, of other items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TRAINER, fit_log, one_error

from sessrec import fit, models
from sessrec import test as run_test
from sessrec.data.vocabulary import Vocabulary
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.models.warm_start import grown_vocabulary

DAY = 86_400
OPTIONS = {
    "GRU4Rec": ["--model.layers", "[8]", "--model.n_sample", "0", "--model.momentum", "0.3"],
    "GRU4Rec separate": ["--model.constrained_embedding", "false", "--model.embedding", "5", "--model.n_sample", "0"],
    "SASRec": ["--model.hidden_size", "8", "--model.n_sample", "4", "--model.temperature", "0.1"],
    "NARM": ["--model.hidden_size", "8", "--model.embedding_size", "6", "--model.n_sample", "4"],
    "SRGNN": ["--model.hidden_size", "8", "--model.n_sample", "4"],
}
WHOLE = ["--data.test_ratio", "0", "--data.val_ratio", "0", "--data.batch_size", "4"]


def write_days(**days: str) -> None:
    """Logs of a session a letter-word of items each: "ab cb" are two sessions."""
    for number, (name, sessions) in enumerate(days.items()):
        rows = [
            f"{name}{session}\t{item}\t{1_700_000_000 + number * DAY + 1000 * session + place}"
            for session, items in enumerate(sessions.split())
            for place, item in enumerate(items)
        ]
        Path(f"{name}.tsv").write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_days(monday="abc bca cab abd dcb adc", tuesday="cde ecd dec ced", empty="cdcd dcdc")


def content_of(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def rows_by_id(checkpoint: dict[str, Any], table: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(checkpoint["vocabulary"]["item_ids"], table, strict=True))


def test_items_of_both_logs() -> None:
    old = Vocabulary(["a", "b", "c"], np.array([5, 1, 2]), np.array([10.0, 20.0, 30.0]))
    new = Vocabulary(["d", "c", "a"], np.array([4, 3, 1]), np.array([100.0, 5.0, 110.0]))
    grown = grown_vocabulary(old, new)
    assert (grown.item_ids, grown.counts.tolist()) == (["a", "b", "c", "d"], [1, 0, 3, 4])
    assert grown.first_times is not None
    assert grown.first_times.tolist() == [10.0, 20.0, 5.0, 100.0]
    dropped = grown_vocabulary(old, new, drop=True)
    assert (dropped.item_ids, dropped.counts.tolist()) == (["a", "c", "d"], [1, 3, 4])
    assert grown_vocabulary(old, Vocabulary(["b"], np.array([1]))).first_times is None


@pytest.mark.parametrize("name", OPTIONS)
def test_known_items_go_on_and_new_ones_begin(name: str) -> None:
    model, words = name.split()[0], [*WHOLE, *OPTIONS[name]]
    before = content_of(fit_log("monday.tsv", *words, model=model, run="monday"))
    start = ["--init_from", "lightning_logs/monday/checkpoints/last.ckpt"]
    after = content_of(fit_log("tuesday.tsv", *words, *start, model=model, run="tuesday"))
    assert after["vocabulary"]["item_ids"] == ["a", "b", "c", "d", "e"]
    assert after["vocabulary"]["counts"].tolist() == [0, 0, 4, 4, 4]
    fitted = getattr(models, model).load_from_checkpoint("lightning_logs/tuesday/checkpoints/last.ckpt")
    for table in set(fitted.item_rows) & before["state_dict"].keys():
        old, new = (rows_by_id(one, one["state_dict"][table]) for one in (before, after))
        touched = [item for item in old if not torch.equal(old[item], new[item])]
        if model == "GRU4Rec":  # no row is touched of an item that no session of Tuesday has
            assert set(touched) <= {"c", "d"}
            assert touched
    dropped = content_of(fit_log("tuesday.tsv", *words, *start, "--init_drop", "true", model=model, run="dropped"))
    assert dropped["vocabulary"]["item_ids"] == ["c", "d", "e"]


def test_the_optimiser_goes_on_with_what_it_knows_of_each_item() -> None:
    words = [*WHOLE, *OPTIONS["GRU4Rec"]]
    before = content_of(fit_log("monday.tsv", *words, model="GRU4Rec", run="monday"))
    start = ["--init_from", "lightning_logs/monday/checkpoints/last.ckpt"]
    after = content_of(fit_log("tuesday.tsv", *words, *start, model="GRU4Rec", run="tuesday"))
    for number in (0, 1):  # the output embedding and the bias
        for kind, first in {"accumulator": 1e-6, "momentum": 0.0}.items():
            old, new = (rows_by_id(one, one["optimizer_states"][0]["state"][number][kind]) for one in (before, after))
            assert all(torch.equal(old[item], new[item]) for item in "ab")
            if kind == "accumulator":
                assert all((new[item] >= old[item]).all() and (new[item] > old[item]).any() for item in "cd")
                assert (new["e"] > first).any()  # of its own steps alone
    gates = before["optimizer_states"][0]["state"][2]["accumulator"]
    assert (after["optimizer_states"][0]["state"][2]["accumulator"] > gates).any()


@pytest.mark.parametrize("name", OPTIONS)
def test_without_new_items_and_steps_the_model_is_the_same(name: str) -> None:
    from sessrec.models.warm_start import WarmStart

    model, words = name.split()[0], [*WHOLE, *OPTIONS[name]]
    run = fit_log("monday.tsv", *words, model=model, run="monday")
    own = getattr(models, model).load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    other = getattr(models, model)(**own.hparams)
    torch.manual_seed(7)
    other.set_vocabulary(grown_vocabulary(own.vocabulary, own.vocabulary))
    warm = WarmStart(content_of(run))
    assert warm.copy_weights(other) == 4
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in own.state_dict().items())
    assert other.eval().recommend(["a", "b"], 4) == own.eval().recommend(["a", "b"], 4)
    optimizer = other.configure_optimizers()
    optimizer.load_state_dict(warm.state_for(optimizer, other))
    kept, new = content_of(run)["optimizer_states"][0], optimizer.state_dict()
    for old_part, new_part in zip(kept.get("parts", [kept]), new.get("parts", [new]), strict=True):
        for number, state in old_part["state"].items():
            assert all(
                torch.equal(torch.as_tensor(v), torch.as_tensor(new_part["state"][number][k])) for k, v in state.items()
            )


def test_a_warm_fit_is_tested_and_resumed_as_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.layers", "[8]", "--model.n_sample", "4", "--data.test_ratio", "0.3", "--data.val_ratio", "0"]
    fit_log("monday.tsv", *words, model="GRU4Rec", run="monday")
    start = ["--init_from", "lightning_logs/monday/checkpoints/last.ckpt"]
    run = fit_log("tuesday.tsv", *words, *start, model="GRU4Rec", run="tuesday")
    assert (
        "begins with lightning_logs/monday/checkpoints/last.ckpt: 4 items of it, 1 new ones" in capsys.readouterr().out
    )
    run_test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.accelerator", "cpu"])
    assert (run / "metrics.json").is_file()
    weights = content_of(run)["state_dict"]
    resumed = ["--config", str(run / "config.yaml"), "--ckpt_path", "last", *TRAINER, "--trainer.max_epochs", "2"]
    fit.main(resumed)
    assert content_of(run)["epoch"] == 1
    straight = content_of(
        fit_log("tuesday.tsv", *words, *start, "--trainer.max_epochs", "2", model="GRU4Rec", run="straight")
    )
    assert all(torch.equal(value, straight["state_dict"][key]) for key, value in content_of(run)["state_dict"].items())
    assert not torch.equal(weights["output_embedding"], straight["state_dict"]["output_embedding"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "SASRec"], "the checkpoint holds sessrec.models.gru4rec.GRU4Rec, not .*SASRec"),
        (["--model", "GRU4Rec", "--model.layers", "[9]"], "--init_from has \\[4, 8\\] for output_embedding, and"),
        (["--model", "Markov"], "the checkpoint holds sessrec.models.gru4rec.GRU4Rec, not .*Markov"),
        (["--model", "Random"], "--init_from: Random has nothing to add up"),
        (["--model", "GRU4Rec", "--init_from", "null", "--init_drop", "true"], "--init_drop leaves out items of"),
        (["--model", "GRU4Rec", "--init_from", "gone.ckpt"], "cannot read gone.ckpt"),
        (["--model", "GRU4Rec", "--init_from", "markov"], "takes a model that is trained by gradients, and Markov"),
    ],
)
def test_what_cannot_be_begun_with_is_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit_log("monday.tsv", *WHOLE, *OPTIONS["GRU4Rec"], model="GRU4Rec", run="monday")
    if "markov" in words:
        fit_log("monday.tsv", *WHOLE, model="Markov", run="counted")
        words = [*words[:-1], "lightning_logs/counted/checkpoints/last.ckpt"]
    start = [
        "--init_from",
        "lightning_logs/monday/checkpoints/last.ckpt",
        *TRAINER,
        *WHOLE,
        "--data.path",
        "tuesday.tsv",
    ]
    own = ["--model.layers", "[8]"] if "GRU4Rec" in words and "--model.layers" not in words else []
    with pytest.MonkeyPatch.context():
        assert __import__("re").search(message, one_error(capsys, fit.main, [*start, *words, *own]))
