"""The reference implementation beside ours: its weights imported, a checkout of it compared.

The reference is not open source, so a stand-in takes its place, made from what its README says: the words of its
command line, the files that it reads, and what it prints.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden import CUTOFFS, GOLDEN, MODES, WITH_METRICS, Case, assert_recorded_metrics
from helpers import ROOT, one_error, random_rows
from torch import Tensor, nn

from sessrec import fit, predict, test, validate
from sessrec.callbacks.checkpoints import load_model
from sessrec.errors import SessRecError
from sessrec.models import GRU4Rec
from sessrec.models.reference_weights import EXPORT, import_weights, read_weights

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.cache_dir", "null"]

STAND_IN = """
import argparse, csv, sys
parser = argparse.ArgumentParser()
parser.add_argument("path")
parser.add_argument("-ps")
parser.add_argument("-t", nargs="+")
parser.add_argument("-m", nargs="+", type=int)
parser.add_argument("-e")
parser.add_argument("-d")
words = parser.parse_args()
options = dict(pair.split("=") for pair in words.ps.split(","))
parts = []
for file in (words.path, *words.t):
    with open(file, newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\\t"))
    assert rows[0] == ["SessionId", "ItemId", "Time"], rows[0]
    parts.append([tuple(map(int, row)) for row in rows[1:]])
    sessions = [row[0] for row in parts[-1]]
    assert min(sessions.count(session) for session in sessions) > 1
    assert parts[-1] == sorted(parts[-1], key=lambda row: row[::2]) == sorted(parts[-1], key=lambda row: row[2])
train, test = parts
assert list(dict.fromkeys(row[1] for row in train)) == list(range(len({row[1] for row in train})))
assert {row[1] for row in test} <= {row[1] for row in train}
print("SET", sorted(options.items()), words.e, words.d)
for epoch in range(int(options["n_epochs"])):
    print(f"Epoch{epoch + 1} --> loss: 6.1 \\t(1.00s) \\t[{10 + epoch}.50 mb/s | 50 e/s]")
print("Total training time: 3.00s")
for cutoff in words.m:
    print(f"Recall@{cutoff}: {cutoff / 100:.6f} MRR@{cutoff}: {cutoff / 200:.6f}")
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("compare_reference")


@pytest.mark.parametrize("name", WITH_METRICS)
def test_imported_weights_give_the_recorded_metrics(name: str) -> None:
    """The model numbers the items otherwise than the reference."""
    case = Case(name)
    item_ids = case.item_ids[::-1][3:] + case.item_ids[::-1][:3]
    assert_recorded_metrics(case.model(item_ids, "final"), case)


def test_what_can_be_done_with_an_imported_run(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = (GOLDEN / "sessions.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]  # to train on, and later once more as test part
    first = min(int(row[2]) for row in rows) + 10_000_000
    again = [f"again-{session}\t{item}\t{int(time) + 10_000_000}" for session, item, time in rows]
    Path("golden.tsv").write_text("\n".join([head, *lines[::-1], *again]) + "\n")  # in no order
    case, words = Case("ce_two_layers"), ["--data.path", "golden.tsv", "--data.test_start", str(first), *QUIET]
    torch.save(case.weights("final"), "weights.pt")
    Path("items.txt").write_text("\n".join(case.item_ids))
    args = ["--weights", "weights.pt", "--items", "items.txt", "--name", "theirs", *words]
    script.main([*args, "--model.layers", "[8,8]", "--model.cutoffs", "[1,3,5,10]"])
    run = Path("lightning_logs/theirs")
    assert f"--config {run}/config.yaml --ckpt_path last" in capsys.readouterr().out
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    model = load_model(Path(checkpoint))
    expected = case.model(case.item_ids, "final")
    assert [item for item, _ in model.recommend(["500", "507"], k=12)] == [
        item for item, _ in expected.recommend(["500", "507"], k=12)
    ]
    assert GRU4Rec.load_from_checkpoint(checkpoint).n_items == 12
    for mode, config in zip(MODES, (["--config", f"{run}/config.yaml"], []), strict=True):  # without a config, too
        test.main([*config, "--ckpt_path", checkpoint, "--model.tie_mode", mode, *QUIET])
        results = json.loads((run / "metrics.json").read_text())["metrics"]
        for metric in ("recall", "mrr"):
            ours = [results[f"test/{metric}@{cutoff}"] for cutoff in CUTOFFS]
            np.testing.assert_allclose(ours, case.arrays[f"{metric}_{mode}"], atol=1e-6)
    predict.main(["--ckpt_path", checkpoint, "--output", "predictions.tsv", *QUIET])
    validate.main(["--ckpt_path", checkpoint, "--data.val_ratio", "0.2", *QUIET])
    goes_on = ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    assert "was not fitted to a click log by sessrec" in one_error(capsys, fit.main, goes_on)
    assert "theirs exists" in one_error(capsys, script.main, [*args, "--model.layers", "[8,8]"])
    other = [*args[:5], "other", *words]
    assert "the weights have no G.0.weight_ih" not in one_error(capsys, script.main, other)  # of another shape
    assert "it needs GRU4Rec" in one_error(capsys, script.main, [*other, "--model", "Markov"])
    assert "no file nowhere.pt" in one_error(capsys, script.main, ["--weights", "nowhere.pt", *other[2:]])
    assert "no file nowhere.txt" in one_error(capsys, script.main, [*other, "--items", "nowhere.txt"])
    assert not Path("lightning_logs/other").exists()


@pytest.mark.parametrize("start", [0, 1])
def test_layers_above_a_one_hot_one(start: int) -> None:
    """The reference's plain cells may be counted from either number."""
    case = Case("ce_onehot")
    size = case.options["layers"][0]
    case.options["layers"] = [size, size]
    shapes = {"weight_ih": (3 * size, size), "weight_hh": (3 * size, size), "bias_ih": (3 * size,)}
    shapes["bias_hh"] = shapes["bias_ih"]
    weights = case.weights("final") | {f"G.{start}.{part}": torch.randn(shape) for part, shape in shapes.items()}
    model = case.model(case.item_ids)
    import_weights(model, weights, case.item_ids)
    ours = model.state_dict()
    assert torch.equal(ours["cells.1.bias_hh"], weights[f"G.{start}.bias_hh"])
    assert torch.equal(ours["cells.0.weight_rz"], weights["GE.Wrz0"])


def faults() -> Iterator[tuple[str, Callable[[dict[str, Tensor], list[str]], Any], list[str]]]:
    """What is done to weights of two layers, and what the error says."""
    table = "of shape (13, 8), has to be of shape (12, 8)"
    yield "missing", lambda w, i: w.pop("G.1.bias_hh"), ["no G.1.bias_hh", "(24,)", "--model.layers"]
    yield "stranger", lambda w, i: w.update({"E.weight": w["Wy.weight"]}), ["E.weight", "(12, 8)", "no place"]
    yield "layer", lambda w, i: w.update({"G.2.bias_hh": w["G.1.bias_hh"]}), ["G.2.bias_hh, of shape (24,)"]
    yield "units", lambda w, i: w.update({"G.1.weight_hh": torch.ones(27, 9)}), ["G.1.weight_hh", "(27, 9)", "(24, 8)"]
    yield "catalogue", lambda w, i: w.update({"Wy.weight": torch.ones(13, 8)}), [table, "the click log"]
    yield "flat", lambda w, i: w.update({"By.weight": torch.ones(12)}), ["By.weight, of shape (12,)", "(12, 1)"]
    yield "nan", lambda w, i: w["Wy.weight"].fill_(torch.nan), ["Wy.weight", "finite"]
    yield "integers", lambda w, i: w.update({"By.weight": w["By.weight"].long()}), ["By.weight", "floating-point"]
    yield "unknown item", lambda w, i: i.append("999"), ["item '999', row 12", "--data options"]
    yield "few items", lambda w, i: i.pop(), ["0 times among the 11 items"]
    yield "item twice", lambda w, i: i.append(i[0]), ["2 times among the 13 items"]


@pytest.mark.parametrize(("spoil", "said"), [fault[1:] for fault in faults()], ids=[fault[0] for fault in faults()])
def test_weights_that_do_not_fit_are_refused_whole(
    spoil: Callable[[dict[str, Tensor], list[str]], Any], said: list[str]
) -> None:
    case = Case("ce_two_layers")
    model, item_ids = case.model(case.item_ids), list(case.item_ids)
    weights = {name: weight.clone() for name, weight in case.weights("final").items()}
    spoil(weights, item_ids)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(SessRecError) as caught:
        import_weights(model, weights, item_ids)
    for text in said:
        assert text in str(caught.value)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_a_model_without_items_takes_no_weights() -> None:
    with pytest.raises(SessRecError, match="knows no items yet"):
        import_weights(GRU4Rec(), Case("ce_constrained").weights("final"), Case("ce_constrained").item_ids)


class WholeModel:
    """As the reference saves: an object with the network inside, pickled as it is."""

    def __init__(self) -> None:
        self.model = nn.ModuleDict({"Wy": nn.Embedding(3, 2)})
        self.loss = "cross-entropy"


def test_only_tensors_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = WholeModel()
    torch.save(whole, "whole.pt")
    with pytest.raises(SessRecError, match="can run any code. Export the tensors") as caught:
        read_weights("whole.pt")
    export = EXPORT.format(file="whole.pt")
    assert str(caught.value).endswith(export)
    exec(export, {})  # what the message says to do does it
    assert torch.equal(read_weights("weights.pt")["Wy.weight"], whole.model.state_dict()["Wy.weight"])
    content = Path("weights.pt").read_bytes()
    Path("cut.pt").write_bytes(content[: len(content) // 2])
    torch.save([torch.ones(2)], "list.pt")
    torch.save({"Wy.weight": torch.ones(2), "epoch": 3}, "more.pt")
    for file, said in {
        "cut": "damaged",
        "list": "a list and no",
        "more": "epoch, which is a int and no tensor",
    }.items():
        with pytest.raises(SessRecError, match=said):
            read_weights(f"{file}.pt")


# -- a checkout ----------------------------------------------------------------------------------------------------


@pytest.fixture
def words(script: ModuleType) -> list[str]:
    """A stand-in checkout, a log with ids that are numbers to some, and the words of a small comparison."""
    Path("checkout").mkdir()
    Path("checkout/run.py").write_text(STAND_IN)
    names = {"x0": "0012", "x1": "12", "x2": "NA"}
    rows = [(session, names.get(item, item), time) for session, item, time in random_rows(80)]
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in rows)]
    Path("log.tsv").write_text("\n".join(lines) + "\n")
    small = ["--model.layers", "[8]", "--data.batch_size", "8", "--trainer.max_epochs", "3", "--data.path", "log.tsv"]
    return ["checkout", "--config", str(ROOT / "configs" / "gru4rec.yaml"), *small, *QUIET]


def test_both_are_trained_and_compared(
    script: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([*words, "--seeds", "1", "2", "--trainer.log_every_n_steps", "1", "--data.steps_per_window", "4"])
    folder = Path("lightning_logs/compare-reference")
    text = (folder / "comparison.md").read_text()
    assert text in capsys.readouterr().out
    table = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    rows = {row[0]: row[1:] for row in table[2:]}
    assert list(rows) == [*(f"{m}@{k}" for m in ("Recall", "MRR") for k in (1, 5, 10, 20)), "mini-batches/s"]
    found = [json.loads(Path(f"lightning_logs/compare-reference-{seed}/metrics.json").read_text()) for seed in (1, 2)]
    own = [report["metrics"]["test/recall@5"] for report in found]
    assert rows["Recall@5"][0] == "0.0500 (0.0500 - 0.0500)"
    assert rows["Recall@5"][1] == f"{sum(own) / 2:.4f} ({min(own):.4f} - {max(own):.4f})"
    assert rows["Recall@5"][2:] == [f"{sum(own) / 2 - 0.05:+.4f}", f"{sum(own) / 2 / 0.05:.3f}"]
    theirs, ours, difference, ratio = rows["mini-batches/s"]
    assert theirs.startswith("11.5 ")
    assert float(ratio) == pytest.approx(float(ours.split()[0]) / 11.5, rel=0.02)
    options = dict(eval((folder / "reference-2.log").read_text().splitlines()[0][4:].rpartition("]")[0] + "]"))
    assert options == {
        "loss": "cross-entropy", "constrained_embedding": "True", "embedding": "0", "layers": "8", "batch_size": "8",
        "n_epochs": "3", "dropout_p_embed": "0.1", "dropout_p_hidden": "0.0", "learning_rate": "0.1", "momentum": "0.0",
        "n_sample": "2048", "sample_alpha": "0.75", "bpreg": "0.0", "elu_param": "0.0", "logq": "1.0",
    }  # fmt: skip
    report = found[0]["protocol"]
    assert f"{report['positions']} test positions, {report['items_ranked']} items, ties conservative, on cpu" in text
    seen = dict.fromkeys(line.split("\t")[1] for line in Path("log.tsv").read_text().splitlines()[1:])
    assert {"0012", "12", "NA"} < seen.keys()
    assert (folder / "items.txt").read_text().split() == list(seen)  # in order of first appearance, as the reference
    assert "compare-reference-2 exists: give another --name" in one_error(capsys, script.main, [*words, "--seeds", "2"])


def test_bpr_max_has_its_own_options(script: ModuleType, words: list[str]) -> None:
    bpr_max = ["--model.loss", "bpr-max", "--model.bpreg", "1.95", "--model.tie_mode", "standard"]
    script.main([*words, *bpr_max, "--trainer.max_epochs", "1", "--model.layers", "[8,6]", "--name", "second"])
    said = Path("lightning_logs/second/reference-1.log").read_text().splitlines()[0]
    for pair in (("bpreg", "1.95"), ("elu_param", "0.5"), ("logq", "0.0"), ("layers", "8/6")):
        assert str(pair) in said
    assert said.endswith("standard cpu")
    row = Path("lightning_logs/second/comparison.md").read_text().splitlines()[10]
    assert [cell.strip() for cell in row.split("|")[3:6]] == ["-"] * 3  # too few steps to have been logged


REFUSED = {
    "model.loss": "top1", "model.embedding": "5", "model.tie_mode": "median",
    "model.exclude_last": "true", "model.exclude_seen": "true",
    "data.shuffle": "true", "trainer.max_steps": "5", "trainer.limit_train_batches": "0.5",
    "trainer.precision": "bf16-mixed", "trainer.max_epochs": "-1",
}  # fmt: skip


def test_what_the_reference_lacks_is_refused_by_name(
    script: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in REFUSED.items():
        more = ["--model.constrained_embedding", "false"] if option == "model.embedding" else []
        assert f"--{option} " in one_error(capsys, script.main, [*words, *more, f"--{option}", value])
    pairs = [pair for pair in zip(words[1::2], words[2::2], strict=True) if not pair[0].startswith("--model.")]
    others = [words[0], *(word for pair in pairs for word in pair), "--model", "Markov"]
    assert "--model Markov cannot be compared" in one_error(capsys, script.main, others)
    assert "--model.n_sample is -1" in one_error(capsys, script.main, [*words, "--model.n_sample", "-1"])
    assert "no usable session" in one_error(capsys, script.main, [*words, "--data.test_ratio", "0"])
    assert not Path("lightning_logs/compare-reference-1").exists()


def test_wrong_words_are_one_line(script: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("items.txt").touch()
    for args, said in (
        ([], "name a checkout"),
        (["checkout", "--weights", "w.pt", "--items", "items.txt"], "one of both"),
        (["--weights", "w.pt"], "go together"),
        (["nowhere", *words[1:]], "nowhere is no checkout of the reference, it has no run.py"),
        ([*words, "--python", "no-such-python"], "no-such-python is no interpreter"),
        ([*words, "--seeds", "1", "1"], "one seed twice"),
    ):
        assert said in one_error(capsys, script.main, args)


def test_a_reference_that_fails_is_explained(
    script: ModuleType, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("checkout/run.py")
    for text, said in {
        "import no_such_module": "has no no_such_module, which the reference needs: give --python",
        "print('half way')\nraise SystemExit('np.str is gone')": "half way\nnp.str is gone",
        "raise IndexError('index 12 is out of bounds')": "fewer sessions than its evaluation takes at once",
        "print('Recall@20: 0.5 MRR@20: 0.2')": "did not print its results",
        STAND_IN.replace("words.m:", "words.m[1:]:"): "did not print its results",
    }.items():
        run.write_text(text)
        with pytest.raises(SystemExit, match="^2$"):
            script.main(words)
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error or "IndexError" in text
        if "no_such" not in said:
            assert f"numpy below 2 and pandas below 3 (--python), and {sys.executable} has numpy " in error
            monkeypatch.setattr(script, "_PROBE", "print('numpy 2.0')")  # once is enough: importing pandas takes long
    assert not Path("lightning_logs/compare-reference-1").exists()  # ours has not begun
