"""The commands as a user types them, in a folder of their own."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, WHOLE, everything_in, fit_log, one_error, random_rows
from resuming import curves, differences
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sessrec import fit, models, predict, prepare, test, validate
from sessrec.click_log.row_index import ENGINE_OPTIONS
from sessrec.data import SessionDataModule
from sessrec.experiments.fit_and_test import parsed
from sessrec.models import GRU4Rec, Markov, SessionRecommender

SMALL = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.batch_size", "8"]
GRU = ["--model", "GRU4Rec", "--model.layers", "[16]", "--model.n_sample", "16", "--model.dropout_p_hidden", "0.2"]


RUN = Path("lightning_logs", "run")
BEST = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "best"]
LAST = [*BEST[:-1], "last"]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]) -> str:
    """Goes to an empty folder with a log."""
    monkeypatch.chdir(tmp_path)
    return str(write_log(random_rows(200)).name)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same log with a run that was fitted to it."""
    folder = tmp_path_factory.mktemp("fits")
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(200))]
    (folder / "clicks.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit_run("clicks.tsv", "run", "--trainer.log_every_n_steps", "10")
    return folder


@pytest.fixture
def fitted_log(copy_of_fits: None) -> str:
    """Goes to a copy of that folder."""
    return "clicks.tsv"


def weights_of(run: Path, name: str = "last") -> dict[str, Any]:
    return checkpoint_of(run, name)["state_dict"]


def checkpoint_of(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fit_run(log: str, version: str, *extra: str) -> Path:
    fit.main(
        [*GRU, *SMALL, "--data.path", log, "--trainer.logger.version", version, "--trainer.max_epochs", "2", *extra]
    )
    return Path("lightning_logs", version)


def test_fit_validate_test_predict(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "run")
    assert {"config.yaml", "data_report.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= everything_in(run)
    printed = capsys.readouterr().out
    assert "fit of GRU4Rec" in printed
    assert "train events at or after t" in printed
    validate.main([*BEST[2:], *BEST[:2]])  # in whichever order
    assert "validate of GRU4Rec" in capsys.readouterr().out
    test.main(BEST)
    results = json.loads((run / "metrics.json").read_text())
    assert results["protocol"]["tie_mode"] == "conservative"
    assert results["protocol"]["items_ranked"] == 12
    assert results["metrics"]["test/recall@20"] == 1.0  # a cutoff above the catalogue
    assert 0.3 < results["metrics"]["test/mrr@20"] < 1
    Path("new.tsv").write_text("SessionId\tItemId\tTime\np\tx1\t1\np\tx2\t2\nq\tx7\t3\nr\tstranger\t4\n")
    predict.main(["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--data.path", "new.tsv", "--model.k", "3"])
    rows = [line.split("\t") for line in Path("predictions.tsv").read_text().splitlines()]
    assert rows[0] == ["SessionId", "Rank", "ItemId", "Score"]
    assert [row[0] for row in rows[1:]] == ["p"] * 3 + ["q"] * 3  # in the order of the log, whatever their lengths
    assert "1 sessions have no item known to the model" in capsys.readouterr().out
    model = GRU4Rec.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    for session, history in (("p", ["x1", "x2"]), ("q", ["x7"])):
        ours = [(row[2], float(row[3])) for row in rows if row[0] == session]
        assert ours == [(item_id, pytest.approx(score, rel=1e-6)) for item_id, score in model.recommend(history, k=3)]
    assert not any(row[0] == "r" for row in rows)
    assert not list(Path().glob("*.tmp"))
    assert "predictions.tsv exists" in one_error(
        capsys, predict.main, ["--ckpt_path", str(run / "checkpoints/best.ckpt")]
    )


def test_predict_reads_as_the_fit_did(log: str) -> None:
    """Repeats go before prediction where they went before training, and visitors are cut into sessions."""
    run = fit_run(log, "no-repeats", "--data.drop_repeats", "true")
    header = "who,ItemId,Time\n"
    Path("once.csv").write_text(header + "v,x1,1600000000\nv,x2,1600000009\nv,x5,1600090000\n")
    Path("again.csv").write_text(header + "v,x1,1600000000\nv,x1,1600000005\nv,x2,1600000009\nv,x5,1600090000\n")
    predicted = []
    for name in ("once", "again"):
        where = ["--data.path", f"{name}.csv", "--output", f"{name}.tsv"]
        visits = ["--data.visitor_column", "who", "--data.session_gap", "1h"]
        predict.main(["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *where, *visits])
        predicted.append(Path(f"{name}.tsv").read_text())
    assert predicted[0] == predicted[1]
    assert {line.split("\t")[0] for line in predicted[0].splitlines()[1:]} == {"v_1", "v_2"}


def test_predictions_hold_any_id(log: str) -> None:
    rows = random_rows(60)
    tricky = {"x1": "tab\there", "x2": '"quoted"', "x3": "comma, semi;", "x4": "0012", "x5": "12", "x6": "12.0"}
    with Path("tricky.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["SessionId", "ItemId", "Time"])
        writer.writerows((f"{session}\t!", tricky.get(item, item), time) for session, item, time in rows)
    fit.main(["--model", "Popularity", *SMALL, "--data.path", "tricky.csv", "--trainer.logger.version", "tricky"])
    predict.main(
        ["--ckpt_path", "lightning_logs/tricky/checkpoints/last.ckpt", "--data.path", "tricky.csv", "--model.k", "12"]
    )
    with Path("predictions.tsv").open(newline="") as stream:
        found = list(csv.reader(stream, delimiter="\t"))
    assert {row[0] for row in found[1:]} == {f"{session}\t!" for session, _, _ in rows}
    assert set(tricky.values()) <= {row[2] for row in found[1:]}
    assert all(len(row) == 4 for row in found)


def test_another_log_is_read_with_the_items_of_the_model(fitted_log: str, write_log: Callable[..., Path]) -> None:
    rows = [*random_rows(60, n_items=9, seed=5), ("new", "x1", 1_700_000_000), ("new", "zz", 1_700_000_001)]
    rows += [("new", "x2", 1_700_000_002)]
    other = write_log(rows, name="other.tsv").name
    for _ in range(2):  # its own prepared log, kept by the first test, has other items and is no use
        options = ["--data.test_ratio", "0.2", "--data.expected", "{train_positions: 500k}"]
        test.main([*BEST, "--data.path", other, *options])
        results = json.loads((RUN / "metrics.json").read_text())
        assert results["protocol"]["items_ranked"] == 12
        assert results["data"]["unknown_events"] == 1
        assert results["data"]["unknown_such_as"] == "zz"
        assert results["data"]["sessions"] == 13  # 61 sessions, from floor(0.8 * 61) = 48 on


@pytest.mark.parametrize(("command", "part"), [(test.main, "test"), (validate.main, "val")])
def test_a_log_with_nothing_to_evaluate_is_refused(
    fitted_log: str, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path], command: Callable, part: str
) -> None:
    before, args = contents(RUN), [*BEST, "--data.path"]
    singles = write_log([(f"s{n}", "x1", 1_600_000_000 + n) for n in range(9)], name="singles.tsv").name
    assert "9 sessions read, 0 left" in one_error(capsys, command, [*args, singles])
    rows = [(f"s{n // 2}", f"zz{n % 5}" if n % 2 else "x1", 1_600_000_000 + n) for n in range(40)]
    message = one_error(capsys, command, [*args, write_log(rows, name="strange.tsv").name])
    assert f"there are no {part} targets: " in message
    assert re.search(r": (\d+) sessions and (\d+) events were read, \1 of the events are of items unknown", message)
    one = write_log([("s", "x1", 1_600_000_000), ("s", "x2", 1_600_000_001)], name="one.tsv").name
    if part == "val":  # its only session is the test part
        assert "there are no val targets" in one_error(capsys, command, [*args, one])
    assert contents(RUN) == before
    if part == "test":
        command([*args, one])
        assert json.loads((RUN / "metrics.json").read_text())["data"]["positions"] == 1


def test_baselines_and_checkpoint_without_config(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    for version, more in (
        ("pop", ["--model", "Popularity"]),
        ("markov", ["--model", "Markov", "--model.alpha", "0.3"]),
    ):
        fit.main([*more, *SMALL, "--data.path", log, "--trainer.logger.version", version, "--data.test_ratio", "0.3"])
        checkpoint = f"lightning_logs/{version}/checkpoints/last.ckpt"
        test.main(["--ckpt_path", checkpoint])  # model, data and run come from the checkpoint
        first = json.loads(Path("lightning_logs", version, "metrics.json").read_text())
        test.main(["--ckpt_path", checkpoint, "--model.tie_mode", "standard"])  # a flag beats it
        second = json.loads(Path("lightning_logs", version, "metrics.json").read_text())
        assert first["data"] == second["data"]
        assert second["protocol"]["tie_mode"] == "standard"
        assert first["metrics"]["test/mrr@5"] <= second["metrics"]["test/mrr@5"]
    assert Markov.load_from_checkpoint(checkpoint).alpha == 0.3


@pytest.mark.parametrize("model", ["Popularity", "Markov"])
def test_a_baseline_that_goes_on_keeps_its_counts(log: str, model: str) -> None:
    fit.main(["--model", model, *SMALL, "--data.path", log, "--trainer.logger.version", "counted"])
    file = Path("lightning_logs/counted/checkpoints/last.ckpt")
    before = torch.load(file, weights_only=True)
    fit.main(["--config", "lightning_logs/counted/config.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "20"])
    after = torch.load(file, weights_only=True)
    assert after["epoch"] > before["epoch"]
    for name, counts in before["state_dict"].items():
        assert counts.numel() > 0
        assert torch.equal(after["state_dict"][name], counts), name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.events", "v"], "data.events"),
        (["--data.test_ratio", "abc"], "data.test_ratio"),
        (["--data.test_ratio", ".nan"], "test_ratio must be above 0 and below 1"),
        (["--data.batchsize", "3"], "batchsize"),
        (["--data.session_gap", "soon"], "session_gap is 'soon'"),
        (["--data.time_unit", "hours"], "time_unit"),
        (["--data.cache_dir", ""], "cache_dir is empty"),
        (["--data.cache_dir", "clicks.tsv/x"], "clicks.tsv is a file; give another --data.cache_dir"),
        (["--data.visitor_column", "SessionId"], "visitor_column needs --data.session_gap"),
        (["--data.events", "[view]"], "event_column and --data.events go together"),
        (["--data.session_column", "null"], "session_column or --data.visitor_column"),
        (["--data.expected", "{train_visits: 3}", "--data.val_ratio", "0"], "no count of the report"),
        (["--report_dir", "clicks.tsv"], "--report_dir clicks.tsv cannot be written to: clicks.tsv is a file"),
    ],
)
def test_faulty_options_are_one_line(
    log: str, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert message in one_error(capsys, prepare.main, ["--data.path", log, *args])
    assert not Path("lightning_logs").exists()


def test_runs_without_a_name_are_numbered(log: str) -> None:
    for _ in range(2):
        fit.main(["--model", "Popularity", *SMALL, "--data.path", log])
    assert {path.name for path in Path("lightning_logs").iterdir()} == {"popularity-1", "popularity-2"}
    config = yaml.safe_load(Path("lightning_logs/popularity-2/config.yaml").read_text())
    assert config["trainer"]["logger"]["init_args"]["version"] == "popularity-2"


def test_tensorboard_curves(fitted_log: str) -> None:
    events = EventAccumulator(str(RUN))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/learning_rate", "train/events_per_second", "val/mrr@20", "final/val/mrr@20"} <= set(
        tags
    )
    steps = [scalar.step for scalar in events.Scalars("train/loss")]
    assert steps == sorted(set(steps))
    n_steps = checkpoint_of(RUN)["global_step"]
    assert [scalar.step for scalar in events.Scalars("val/mrr@20")] == [n_steps // 2, n_steps]


def test_resume_at_the_end_of_an_epoch_is_exact(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """2 + 2 epochs equal 4 straight, bit for bit, with dropout, samples, momentum and shuffling."""
    options = ["--data.shuffle", "true", "--model.momentum", "0.3"]
    run = fit_run(log, "run", *options)
    resume = [*LAST, "--trainer.max_epochs", "4"]
    fit.main(resume)
    straight = fit_run(log, "straight", *options, "--trainer.max_epochs", "4")
    for name in ("last", "best"):
        ours, theirs = checkpoint_of(run, name), checkpoint_of(straight, name)
        for key in ("epoch", "global_step", "state_dict", "optimizer_states"):
            assert not differences(ours[key], theirs[key], key)
    before = contents(run)
    fit.main(resume)
    assert "nothing to do" in capsys.readouterr().out
    assert contents(run) == before
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 4


def test_other_seeds_give_other_weights(fitted_log: str) -> None:
    other = fit_run(fitted_log, "other-seed", "--seed_everything", "2")
    assert not torch.equal(weights_of(RUN)["output_embedding"], weights_of(other)["output_embedding"])


def test_validation_inside_the_epoch_leaves_the_training_as_it_is(log: str) -> None:
    """Validations come when they are due, by the exact number of an epoch's windows."""
    data = SessionDataModule(log, batch_size=8, steps_per_window=5)
    data.setup("fit")
    ends = [window.first_step + window.n_steps for window in data.train_dataloader()]
    assert len(ends) == len(data.train_dataloader()) > 4
    weights = []
    for interval in ("1.0", "0.5"):
        run = fit_run(log, interval, "--trainer.val_check_interval", interval, "--data.steps_per_window", "5")
        weights.append(weights_of(run))
        every = int(len(ends) * float(interval))
        due = [epoch * ends[-1] + end for epoch in range(2) for end in ends[every - 1 :: every]]
        assert [step for step, _ in curves(run)["val/mrr@20"]] == due
    assert not differences(*weights)


def test_max_steps_counts_steps_not_windows(log: str) -> None:
    run = fit_run(log, "steps", "--trainer.max_steps", "70", "--trainer.max_epochs", "-1")
    assert checkpoint_of(run)["global_step"] == 70


@pytest.mark.parametrize("words", [["--trainer.logger.version", "fast"], ["--trainer.logger", "false"]])
def test_a_fast_dev_run_leaves_no_run(log: str, words: list[str]) -> None:
    before = everything_in(Path())
    fit.main([*GRU, *SMALL, "--data.path", log, "--data.cache_dir", "null", "--trainer.fast_dev_run", "true", *words])
    assert everything_in(Path()) == before


def test_a_new_learning_rate_wins_on_resume(fitted_log: str) -> None:
    fit.main([*LAST, "--trainer.max_epochs", "3", "--model.learning_rate", "0.5"])
    checkpoint = checkpoint_of(RUN)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
    assert checkpoint["hyper_parameters"]["learning_rate"] == 0.5
    assert yaml.safe_load((RUN / "config.yaml").read_text())["model"]["init_args"]["learning_rate"] == 0.5


def test_without_validation_the_last_checkpoint_is_kept(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number, option in enumerate(
        (["--data.val_ratio", "0"], ["--data.val_ratio", "null"], ["--data.val_duration", "0"])
    ):
        run = fit_run(log, f"all-{number}", *option, "--trainer.max_epochs", "1")
        assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt"}
        assert "val" not in json.loads((run / "data_report.json").read_text())
    where = ["--config", str(run / "config.yaml"), "--ckpt_path"]
    test.main([*where, "last"])
    assert "without validation keeps only last" in one_error(capsys, test.main, [*where, "best"])
    nothing = [*where, "last", "--data.test_ratio", "0"]
    assert "there is no validation part" in one_error(capsys, validate.main, nothing)
    assert "there is no test part" in one_error(capsys, test.main, nothing)


def test_refusals_leave_everything_as_it_was(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(Path("lightning_logs"))
    again = [*GRU, *SMALL, "--data.path", fitted_log, "--trainer.logger.version", "run"]
    second = [*again[:-1], "second"]
    assert "exists" in one_error(capsys, fit.main, again)
    assert "needs a fitted model" in one_error(capsys, test.main, BEST[:2])
    assert "no checkpoint" in one_error(capsys, test.main, [*BEST[:-1], "x.ckpt"])
    assert "is none of the metrics" in one_error(capsys, fit.main, [*second, "--monitor", "val/auc@20"])
    assert "no such file" in one_error(capsys, fit.main, [*SMALL, "--data.path", "none.tsv"])
    for option, value in (("gradient_clip_val", "1.0"), ("accumulate_grad_batches", "2"), ("precision", "bf16-true")):
        assert f"--trainer.{option}" in one_error(capsys, fit.main, [*second, f"--trainer.{option}", value])
    Path("odd.ckpt").write_bytes(b"nonsense")
    assert "damaged or no checkpoint" in one_error(capsys, test.main, ["--ckpt_path", "odd.ckpt"])
    assert contents(Path("lightning_logs")) == before


HEADER = "SessionId,ItemId,Time\n"
CUT = gzip.compress((HEADER + "".join(f"{n // 2},{n % 7},{n}\n" for n in range(2000))).encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "log.csv is empty (0 bytes)"),
        (HEADER.encode(), "no events in log.csv"),
        (
            HEADER.encode() + b"s1,a,1\ns2,b,2\ns3,a,3\n",
            "3 sessions read, 0 left to train on: no session of 2 or more events",
        ),
        (HEADER.encode() + b"s1,a,1\ns1,b,9\n", "1 sessions read, 0 left"),
        (CUT[: len(CUT) // 2], "cut short"),
    ],
    ids=["empty", "header", "sessions of one event", "one session", "half of a gzip file"],
)
def test_unusable_input_ends_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_bytes(content)
    for options in ([], WHOLE) if "1 sessions" not in message else ([],):
        assert message in one_error(capsys, fit.main, [*GRU, *SMALL, "--data.path", "log.csv", *options])
    if "train" not in message and "left" not in message:
        assert message in one_error(capsys, prepare.main, ["--data.path", "log.csv"])
    assert everything_in(tmp_path) == {"log.csv"}  # nothing is kept of the part that could be read


@pytest.mark.parametrize(
    "rows",
    [
        [("s1", "a", 1), ("s1", "b", 2)],
        [("s1", "a", 1), ("s1", "b", 2), ("s2", "b", 3), ("s2", "a", 4), ("s3", "a", 5), ("s3", "a", 6)],
    ],
    ids=["one session", "sessions of length 2, fewer than lanes"],
)
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
@pytest.mark.parametrize("n_sample", ["0", "4"])
def test_tiny_logs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_log: Callable[..., Path],
    rows: list[tuple],
    loss: str,
    n_sample: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model.loss", loss, "--model.n_sample", n_sample, "--data.path", write_log(rows).name, *WHOLE]
    fit.main(["--model", "GRU4Rec", *SMALL, *options, "--trainer.logger.version", "run", "--trainer.max_epochs", "2"])
    model = GRU4Rec.load_from_checkpoint(RUN / "checkpoints" / "last.ckpt")
    assert {item_id for item_id, _ in model.recommend(["a"], k=20)} == {"a", "b"}
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model.learnig_rate", "0.1"),
        ("--data.batchsize", "3"),
        ("--nonsense", "1"),
        ("--model.loss", "hinge"),
        ("--model", "NoModel"),
    ],
)
def test_unknown_options_are_errors(log: str, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        fit.main(["--data.path", log, option, value])
    assert caught.value.code == 2
    assert not Path("lightning_logs").exists()


def test_a_data_module_records_every_option_as_the_command_does(log: str) -> None:
    place = ["--data.path", log, "--trainer.logger.version", "tiny", "--trainer.max_epochs", "1"]
    fit.main(["--model", "Popularity", *SMALL, *place, "--data.test_ratio", "0.3"])
    run = Path("lightning_logs/tiny")
    recorded = dict(SessionDataModule(log, batch_size=8, test_ratio=0.3).hparams)
    config = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert recorded == {name: value for name, value in config.items() if name not in ENGINE_OPTIONS}
    file = run / "checkpoints" / "last.ckpt"
    assert recorded == torch.load(file, weights_only=True)["datamodule_hyper_parameters"]
    assert dict(SessionDataModule.load_from_checkpoint(file, weights_only=True).hparams) == recorded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.embedding", "8"], "--model.embedding is 8"),
        (["--model.dropout_p_embed", "1"], "--model.dropout_p_embed is 1"),
        (["--model.layers", "[]"], "--model.layers is []"),
        (["--model.logq", "2"], "--model.logq is 2"),
        (["--data.batch_size", "0"], "--data.batch_size must be at least 1"),
        (["--data.batch_size", "1000000000"], "--data.batch_size must be at most 131,072, got 1000000000"),
        (["--data.test_duration", "1d", "--data.test_start", "5"], "not both"),
        (["--model.cutoffs", "[0]"], "a cutoff must be at least 1"),
        (["--data.time_column", "when"], "no column when"),
    ],
)
def test_contradictory_options_are_one_line(
    log: str, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in one_error(capsys, fit.main, ["--data.path", log, *SMALL[:4], *options])
    assert not Path("lightning_logs").exists()


def test_shipped_configs_parse_and_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = write_log(random_rows(40)).name
    Path("items.csv").write_text(
        "\n".join(["ItemId,kind", *(f"x{item},{'ab'[item % 2]}" for item in range(12))]) + "\n"
    )
    features = ["--data.items", "items.csv", "--model.features", "{kind: 1}"]
    for config in sorted((ROOT / "configs").glob("*.yaml")):  # those of configs/data have their own logs: test_presets
        fit.main(
            ["--config", str(config), "--data.path", log, *SMALL[:4], "--trainer.max_epochs", "1"]
            + ["--trainer.logger.version", config.stem, *(features if config.stem.startswith("content_") else [])]
        )
        assert Path("lightning_logs", config.stem, "checkpoints", "last.ckpt").exists()


def test_printed_config_is_the_config(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*args: str) -> str:
        with pytest.raises(SystemExit):
            fit.main([*args, "--print_config"])
        return capsys.readouterr().out

    first = printed(*GRU, "--data.path", log)
    Path("printed.yaml").write_text(first)
    assert printed("--config", "printed.yaml") == first


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    fitted_log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(RUN / "checkpoints")
    n_steps = checkpoint_of(RUN)["global_step"]
    message = one_error(capsys, fit.main, [*LAST, "--trainer.max_epochs", "3", "--model.learning_rate", "1e38"])
    assert "the fit has diverged; try a lower --model.learning_rate than 1e+38" in message
    assert n_steps < int(message.partition("at step ")[2].partition(":")[0]) <= n_steps * 3 // 2
    assert contents(RUN / "checkpoints") == before

    again = [*GRU, *SMALL, "--data.path", fitted_log, "--trainer.logger.version", "again", "--trainer.max_epochs", "1"]
    build = GRU4Rec.build

    def spoilt(self: GRU4Rec) -> None:
        build(self)
        with torch.no_grad():
            self.output_embedding[3] = math.nan

    with monkeypatch.context() as patch:
        patch.setattr(GRU4Rec, "build", spoilt)
        assert "the training loss is nan at step " in one_error(capsys, fit.main, again)
    assert not Path("lightning_logs/again/checkpoints/last.ckpt").exists()
    fit.main(again)  # a failed fit does not block its name
    assert Path("lightning_logs/again/checkpoints/last.ckpt").exists()


def test_refused_resumes_leave_the_run_as_it_was(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RUN, RUN.with_name("two"))
    Path("few.tsv").write_text("".join(Path(fitted_log).read_text().splitlines(keepends=True)[:30]))
    before, more = contents(Path("lightning_logs")), ["--trainer.max_epochs", "5"]
    resume = [*LAST, *more]
    message = one_error(capsys, fit.main, [*resume, "--data.path", "few.tsv"])
    assert re.search(r"the checkpoint was fitted to 12 items and the data give \d+, \d only in the former, ", message)
    assert message.endswith("; it was fitted with --data.path clicks.tsv, not few.tsv")
    for command, words in ((fit.main, resume), (test.main, BEST)):
        message = one_error(capsys, command, [*words, "--model.layers", "[9]"])
        assert "is of shape" in message
        assert message.endswith("; it was fitted with --model.layers [16], not [9]")
    foreign = "lightning_logs/two/checkpoints/last.ckpt"
    assert "is not of the run" in one_error(capsys, fit.main, [*LAST[:-1], foreign, *more])
    assert "is not of the run" in one_error(capsys, fit.main, ["--ckpt_path", foreign, *more])
    assert "nothing to train" in one_error(capsys, fit.main, [*resume, "--trainer.limit_train_batches", "0"])
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"]
    assert "is not supported" in one_error(capsys, fit.main, [*resume, *two])
    assert contents(Path("lightning_logs")) == before


def test_unwritable_folders_are_one_line(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("not a folder")
    where = ["--data.path", log, *SMALL, "--model", "Popularity", "--trainer.logger.save_dir", "file"]
    assert "file" in one_error(capsys, fit.main, where)


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.logger.version", "../outside"],
        ["--trainer.logger.version", ".."],
        ["--trainer.logger.version", "/tmp/outside"],
        ["--trainer.logger.name", "../outside"],
        ["--trainer.logger.name", "/tmp/outside"],
    ],
)
def test_a_run_stays_inside_its_folder(log: str, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    where = ["--data.path", log, *SMALL, "--model", "Popularity", *words]
    assert "is no name for a run inside" in one_error(capsys, fit.main, where)
    assert not Path("lightning_logs").exists()


def test_a_checkpoint_of_elsewhere_is_tested(fitted_log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUN.resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    test.main(["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--data.path", f"../{fitted_log}"])
    assert (run / "metrics.json").exists()


def test_a_finished_run_with_other_options_is_refused(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They would come to nothing; and another log would be taken for the first one."""
    words = [*LAST[:-1], "auto"]
    fit.main([*words, "--data.eval_batch_size", "3"])
    assert "nothing to do" in capsys.readouterr().out
    assert "--model.momentum 0.0, not 0.2" in one_error(capsys, fit.main, [*words, "--model.momentum", "0.2"])
    assert "--data.min_item_support 1, not 0" in one_error(capsys, fit.main, [*words, "--data.min_item_support", "0"])
    message = one_error(capsys, fit.main, [*words, "--data.test_ratio", "0.21"])
    assert "other training sessions" in message
    assert message.endswith("; it was fitted with --data.test_ratio 0.2, not 0.21")
    two = ["--model.momentum", "0.2", "--model.learning_rate", "0.3"]
    message = one_error(capsys, fit.main, [*words, *two])
    assert "--model.learning_rate 0.1, not 0.3, --model.momentum 0.0, not 0.2" in message
    rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(20, n_items=5, seed=3))]
    Path("few.tsv").write_text("\n".join(rows) + "\n")
    assert "the checkpoint was fitted to" in one_error(capsys, fit.main, [*words, "--data.path", "few.tsv"])
    other = ["--model", "SR", "--data.path", fitted_log, "--trainer.logger.version", "run", *words[2:]]
    assert "give the --model it was fitted with" in one_error(capsys, fit.main, other)


def test_auto_goes_on_from_best_where_there_is_no_last(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    (RUN / "checkpoints" / "last.ckpt").unlink()
    assert "--ckpt_path best" in one_error(capsys, fit.main, LAST[:2])
    fit.main([*LAST[:-1], "auto", "--trainer.max_epochs", "4"])
    assert checkpoint_of(RUN)["epoch"] == 3


def test_a_run_that_was_moved_keeps_its_best_score(fitted_log: str) -> None:
    moved = RUN.rename(RUN.with_name("moved"))
    before = checkpoint_of(moved, "best")["global_step"]
    words = ["--trainer.logger.version", "moved", "--ckpt_path", "last", "--trainer.max_epochs", "3"]
    fit.main(["--config", str(moved / "config.yaml"), *words, "--model.learning_rate", "1e-9"])
    callbacks = checkpoint_of(moved)["callbacks"]
    state = next(state for name, state in callbacks.items() if name.startswith("BestCheckpoint"))
    assert Path(state["best_model_path"]) == moved / "checkpoints" / "best.ckpt"
    assert checkpoint_of(moved, "best")["global_step"] == before


def test_best_is_the_greatest(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validations have Recall 0.1, 0.3, 0.2."""
    with monkeypatch.context() as patch:

        def validation_step(self: SessionRecommender, *args: Any) -> None:
            n_hits = [1, 3, 2][self.current_epoch]
            self.val_metrics.update(torch.tensor([1] * n_hits + [99] * (10 - n_hits)))

        patch.setattr(SessionRecommender, "validation_step", validation_step)
        fit_run(log, "run", "--trainer.max_epochs", "3", "--monitor", "val/recall@20")
    assert [np.frombuffer(value, np.float32) for _, value in curves(RUN)["val/recall@20"]] == pytest.approx(
        [0.1, 0.3, 0.2]
    )
    assert checkpoint_of(RUN, "best")["epoch"] == 1
    tested = []
    for where in (BEST, LAST):
        test.main(where)
        tested.append(json.loads((RUN / "metrics.json").read_text()))
        assert tested[-1]["checkpoint"] == f"lightning_logs/run/checkpoints/{where[-1]}.ckpt"
    assert tested[0]["metrics"] != tested[1]["metrics"]  # the weights are others


def test_scores_that_are_no_numbers_are_not_predicted(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = checkpoint_of(RUN)
    content["state_dict"]["output_embedding"][3] = torch.nan
    torch.save(content, RUN / "checkpoints" / "last.ckpt")
    assert "is not finite" in one_error(capsys, predict.main, [*LAST, "--output", "out.tsv"])
    assert not Path("out.tsv").exists()


def test_checkpoints_of_other_callbacks_stay_inside_the_run(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "outside"}}
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    where = ["--config", "callbacks.yaml", "--data.path", log, *SMALL, "--model", "Popularity"]
    assert "is outside of the run" in one_error(capsys, fit.main, where)
    assert not Path("outside").exists()


def test_the_rules_are_printed_with_the_results(fitted_log: str, capsys: pytest.CaptureFixture[str]) -> None:
    test.main([*BEST, "--model.exclude_seen", "true", "--model.tie_mode", "median"])
    assert "12 items ranked, ties median, no item of the session so far a candidate" in capsys.readouterr().out


def test_a_model_that_cannot_tell_items_apart_earns_nothing_and_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{s},{item},{1000 * s + k}\n" for s in range(8) for k, item in enumerate("ab" if s % 2 else "ba")]
    Path("log.csv").write_text(HEADER + "".join(rows))
    fit_log("log.csv", "--data.val_ratio", "0", "--data.test_ratio", "0.5")  # a and b are equally popular
    with pytest.warns(UserWarning, match=r"other items score exactly as the target does; tie_mode conservative"):
        test.main(LAST)
    assert json.loads((RUN / "metrics.json").read_text())["metrics"]["test/recall@1"] == 0.0


@pytest.mark.parametrize("model", ["Popularity", "GRU4Rec"])
def test_no_look_into_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Item Z, which most test sessions have, is known neither to the model nor to its ranking."""
    monkeypatch.chdir(tmp_path)
    rows = [(s, "ABCDE"[(s + k) % 5], s * 100 + k) for s in range(20) for k in range(3)]
    for s in range(60):
        items = ("ABCDE"[s % 5], "Z" if s < 50 else "ABCDE"[(s + 2) % 5], "ABCDE"[(s + 1) % 5])
        rows += [(100 + s, item, 200_000 + s * 100 + k) for k, item in enumerate(items)]
    Path("log.csv").write_text(HEADER + "".join(f"{s},{item},{time}\n" for s, item, time in rows))
    fit_log("log.csv", "--data.test_start", "200000", "--data.val_ratio", "0", model=model)
    report = json.loads((RUN / "data_report.json").read_text())
    assert report["test cut"]["train_events_at_or_after_t"] == 0
    assert (report["test"]["unknown_events"], report["test"]["unknown_items"]) == (50, 1)
    assert (report["train"]["events"], report["train"]["sessions"]) == (60, 20)
    fitted = getattr(models, model).load_from_checkpoint(RUN / "checkpoints" / "last.ckpt")
    assert sorted(fitted.vocabulary.item_ids) == ["A", "B", "C", "D", "E"]
    assert {item for item, _ in fitted.recommend(["A", "B"], k=20)} == {"A", "B", "C", "D", "E"}
    test.main(LAST)
    results = json.loads((RUN / "metrics.json").read_text())
    assert results["data"]["positions"] == 50 * 1 + 10 * 2  # none of them has Z as its target
    assert results["protocol"]["items_ranked"] == 5
    assert results["metrics"]["test/recall@5"] == 1.0


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {"learning_rate": 0.1, "n_sample": 2048}),
        (["--model", "SASRec"], {"learning_rate": 0.002, "dropout": 0.2}),
        (["--model=SASRec", "--model.dropout", "0.3"], {"learning_rate": 0.002, "dropout": 0.3}),
        (["--config", "own.yaml"], {"learning_rate": 0.002, "dropout": 0.4}),
        (["--config", "gru4rec_bpr-max", "--model", "GRU4Rec"], {"learning_rate": 0.05, "loss": "bpr-max"}),
        (["--config", "gru4rec_bpr-max", "--config", "own.yaml"], {"learning_rate": 0.002, "dropout": 0.4}),
        (["--config", "own.yaml", "--model", "sessrec.models.GRU4Rec"], {"learning_rate": 0.1, "n_sample": 2048}),
        (["--config", "vsknn", "--model", "STAN"], {"n_neighbours": 500, "sample_size": 2500}),
    ],
)
def test_a_model_takes_no_option_from_another_one(
    words: list[str], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal names, such as the learning rate, which would be lost without a word."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("model: {class_path: SASRec, init_args: {dropout: 0.4}}\n")
    model = parsed(words).model
    assert {name: model.hparams[name] for name in options} == options
