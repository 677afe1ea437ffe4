"""The commands as a user types them, in a folder of their own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ROOT, everything_in, one_error, random_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sessrec import fit, predict, prepare, test, validate
from sessrec.data import SessionDataModule
from sessrec.models import GRU4Rec, Markov

SMALL = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.batch_size", "8"]
GRU = ["--model", "GRU4Rec", "--model.layers", "[16]", "--model.n_sample", "16", "--model.dropout_p_hidden", "0.2"]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_log(random_rows(200)).name)


def fit_run(log: str, version: str, *extra: str) -> Path:
    fit.main(
        [*GRU, *SMALL, "--data.path", log, "--trainer.logger.version", version, "--trainer.max_epochs", "2", *extra]
    )
    return Path("lightning_logs", version)


def test_fit_validate_test_predict(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "my-run")
    assert {"config.yaml", "data_report.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= everything_in(run)
    printed = capsys.readouterr().out
    assert "fit of GRU4Rec" in printed
    assert "train events at or after t" in printed
    validate.main(["--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    assert "validate of GRU4Rec" in capsys.readouterr().out
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "best"])
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
        predict.main(
            [
                "--ckpt_path",
                str(run / "checkpoints" / "best.ckpt"),
                "--data.path",
                f"{name}.csv",
                "--output",
                f"{name}.tsv",
            ]
            + ["--data.visitor_column", "who", "--data.session_gap", "1h"]
        )
        predicted.append(Path(f"{name}.tsv").read_text())
    assert predicted[0] == predicted[1]
    assert {line.split("\t")[0] for line in predicted[0].splitlines()[1:]} == {"v_1", "v_2"}


def test_predictions_hold_any_id(log: str) -> None:
    rows = random_rows(60)
    tricky = {"x1": "tab\there", "x2": '"quoted"', "x3": "comma, semi;"}
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


def test_another_log_is_read_with_the_items_of_the_model(log: str, write_log: Callable[..., Path]) -> None:
    run = fit_run(log, "first", "--data.expected", "{train_positions: 500k}")
    rows = [*random_rows(60, n_items=9, seed=5), ("new", "x1", 1_700_000_000), ("new", "zz", 1_700_000_001)]
    rows += [("new", "x2", 1_700_000_002)]
    other = write_log(rows, name="other.tsv").name
    config = str(run / "config.yaml")
    for _ in range(2):  # its own prepared log, kept by the first test, has other items and is no use
        test.main(["--config", config, "--ckpt_path", "best", "--data.path", other, "--data.test_ratio", "0.2"])
        results = json.loads((run / "metrics.json").read_text())
        assert results["protocol"]["items_ranked"] == 12
        assert results["data"]["unknown_events"] == 1
        assert results["data"]["unknown_such_as"] == "zz"
        assert results["data"]["sessions"] == 13  # 61 sessions, from floor(0.8 * 61) = 48 on


@pytest.mark.parametrize(("command", "part"), [(test.main, "test"), (validate.main, "val")])
def test_a_log_with_nothing_to_evaluate_is_refused(
    log: str, capsys: pytest.CaptureFixture[str], write_log: Callable[..., Path], command: Callable, part: str
) -> None:
    run = fit_run(log, "first")
    args = ["--config", str(run / "config.yaml"), "--ckpt_path", "best", "--data.path"]
    singles = write_log([(f"s{n}", "x1", 1_600_000_000 + n) for n in range(9)], name="singles.tsv").name
    assert "9 sessions read, 0 left" in one_error(capsys, command, [*args, singles])
    strange = write_log([(f"s{n // 2}", f"zz{n % 5}", 1_600_000_000 + n) for n in range(40)], name="strange.tsv").name
    assert f"there are no {part} targets" in one_error(capsys, command, [*args, strange])
    one = write_log([("s", "x1", 1_600_000_000), ("s", "x2", 1_600_000_001)], name="one.tsv").name
    if part == "val":  # its only session is the test part
        assert "there are no val targets" in one_error(capsys, command, [*args, one])
    else:
        command([*args, one])
        assert json.loads((run / "metrics.json").read_text())["data"]["positions"] == 1


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
        (["--data.cache_dir", "clicks.tsv/x"], "clicks.tsv is no folder; give another --data.cache_dir"),
        (["--data.visitor_column", "SessionId"], "visitor_column needs --data.session_gap"),
        (["--data.events", "[view]"], "event_column and --data.events go together"),
        (["--data.session_column", "null"], "session_column or --data.visitor_column"),
        (["--data.expected", "{train_visits: 3}", "--data.val_ratio", "0"], "no count of the report"),
        (["--report_dir", "clicks.tsv"], "report_dir clicks.tsv is a file"),
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
    assert (
        yaml.safe_load(Path("lightning_logs/popularity-2/config.yaml").read_text())["trainer"]["logger"]["init_args"][
            "version"
        ]
        == "popularity-2"
    )


def test_tensorboard_curves(log: str) -> None:
    run = fit_run(log, "curves", "--trainer.log_every_n_steps", "10")
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/learning_rate", "train/events_per_second", "val/mrr@20", "final/val/mrr@20"} <= set(
        tags
    )
    steps = [scalar.step for scalar in events.Scalars("train/loss")]
    assert steps == sorted(set(steps))
    n_steps = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert [scalar.step for scalar in events.Scalars("val/mrr@20")] == [n_steps // 2, n_steps]


def test_resume_at_the_end_of_an_epoch_is_exact(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 + 2 epochs in two processes equal 4 straight, bit for bit, with dropout, samples, momentum and shuffling."""
    options = [*GRU, *SMALL, "--data.path", log, "--data.shuffle", "true", "--model.momentum", "0.3"]

    def fit_in_new_process(*args: str, hash_seed: str = "0") -> None:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "sessrec.fit", *args]
        subprocess.run(command, check=True, env=environment, capture_output=True)

    fit_in_new_process(*options, "--trainer.logger.version", "a", "--trainer.max_epochs", "2")
    resume = ["--config", "lightning_logs/a/config.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "4"]
    fit_in_new_process(*resume, hash_seed="1")
    fit_in_new_process(*options, "--trainer.logger.version", "b", "--trainer.max_epochs", "4", hash_seed="2")
    for name in ("last", "best"):
        ours, straight = (
            torch.load(f"lightning_logs/{run}/checkpoints/{name}.ckpt", weights_only=True) for run in ("a", "b")
        )
        assert ours["epoch"] == straight["epoch"]
        assert ours["global_step"] == straight["global_step"]
        for key, value in straight["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), key
        for number, state in straight["optimizer_states"][0]["state"].items():
            for key, value in state.items():
                assert torch.equal(ours["optimizer_states"][0]["state"][number][key], value), (number, key)
    before = everything_in(Path("lightning_logs/a"))
    fit.main(resume)
    assert "nothing to do" in capsys.readouterr().out
    assert everything_in(Path("lightning_logs/a")) == before
    assert yaml.safe_load(Path("lightning_logs/a/config.yaml").read_text())["trainer"]["max_epochs"] == 4


def test_other_seeds_give_other_weights(log: str) -> None:
    runs = [fit_run(log, f"seed-{seed}", "--seed_everything", seed) for seed in ("1", "2")]
    weights = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]["output_embedding"] for run in runs
    ]
    assert not torch.equal(weights[0], weights[1])


def test_validation_inside_the_epoch_leaves_the_training_as_it_is(log: str) -> None:
    runs = [
        fit_run(log, f"interval-{interval}", "--trainer.val_check_interval", interval, "--data.steps_per_window", "5")
        for interval in ("1.0", "0.5")
    ]
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def test_max_steps_counts_steps_not_windows(log: str) -> None:
    run = fit_run(log, "steps", "--trainer.max_steps", "70", "--trainer.max_epochs", "-1")
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 70


def test_fast_dev_run_and_other_loggers(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit_run(log, "fast", "--trainer.fast_dev_run", "true")
    assert not Path("lightning_logs").exists()
    csv = ["CSVLogger", "--trainer.logger.save_dir", "."]  # it would remove the curves of a fit that goes on
    for words in (csv, ["false"]):
        assert "must be a TensorBoardLogger" in one_error(
            capsys, fit.main, ["--data.path", log, "--trainer.logger", *words]
        )


def test_a_new_learning_rate_wins_on_resume(log: str) -> None:
    run = fit_run(log, "lr")
    fit.main(
        [
            "--config",
            str(run / "config.yaml"),
            "--ckpt_path",
            "last",
            "--trainer.max_epochs",
            "3",
            "--model.learning_rate",
            "0.5",
        ]
    )
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5
    assert checkpoint["hyper_parameters"]["learning_rate"] == 0.5


def test_without_validation_the_last_checkpoint_is_kept(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number, option in enumerate(
        (["--data.val_ratio", "0"], ["--data.val_ratio", "null"], ["--data.val_duration", "0"])
    ):
        run = fit_run(log, f"all-{number}", *option)
        assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt"}
        assert "val" not in json.loads((run / "data_report.json").read_text())
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    message = one_error(capsys, test.main, ["--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    assert "without validation keeps only last" in message


def test_refusals_leave_everything_as_it_was(log: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = fit_run(log, "first")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = [*GRU, *SMALL, "--data.path", log, "--trainer.logger.version", "first"]
    assert "exists" in one_error(capsys, fit.main, again)
    assert "needs a fitted model" in one_error(capsys, test.main, ["--config", str(run / "config.yaml")])
    assert "no checkpoint" in one_error(
        capsys, test.main, ["--config", str(run / "config.yaml"), "--ckpt_path", "x.ckpt"]
    )
    assert "is none of the metrics" in one_error(capsys, fit.main, [*again[:-1], "second", "--monitor", "val/auc@20"])
    assert "no such file" in one_error(capsys, fit.main, [*SMALL, "--data.path", "none.tsv"])
    for option, value in (("gradient_clip_val", "1.0"), ("accumulate_grad_batches", "2"), ("precision", "bf16-true")):
        words = [*again[:-1], "second", f"--trainer.{option}", value]
        assert f"--trainer.{option}" in one_error(capsys, fit.main, words)
    Path("odd.ckpt").write_bytes(b"nonsense")
    assert "damaged or no checkpoint" in one_error(capsys, test.main, ["--ckpt_path", "odd.ckpt"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert {path.name for path in Path("lightning_logs").iterdir()} == {"first"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no events"),
        ([("s1", "a", 1), ("s2", "b", 2), ("s3", "a", 3)], "3 sessions read, 0 left"),
        ([("s1", "a", 1), ("s1", "b", 9)], "1 sessions read, 0 left"),
    ],
)
def test_unusable_input_ends_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_log: Callable[..., Path],
    rows: list[tuple],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_log(rows)
    error = one_error(capsys, fit.main, [*GRU, *SMALL, "--data.path", file.name])
    assert message in error
    assert everything_in(tmp_path) == {file.name}


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
    whole = ["--data.test_ratio", "0", "--data.val_ratio", "0", "--trainer.logger.version", "tiny"]
    options = ["--model.loss", loss, "--model.n_sample", n_sample, "--data.path", write_log(rows).name]
    fit.main(["--model", "GRU4Rec", *SMALL, *options, *whole, "--trainer.max_epochs", "2"])
    model = GRU4Rec.load_from_checkpoint("lightning_logs/tiny/checkpoints/last.ckpt")
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
    assert recorded == yaml.safe_load((run / "config.yaml").read_text())["data"]
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


def test_shipped_configs_parse_and_fit(log: str) -> None:
    for config in sorted((ROOT / "configs").glob("*.yaml")):  # those of configs/data have their own logs: test_presets
        fit.main(
            ["--config", str(config), "--data.path", log, *SMALL[:4], "--trainer.max_epochs", "1"]
            + ["--trainer.logger.version", config.stem]
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


def test_divergence_stops_the_fit_and_names_the_step(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_error(
        capsys,
        fit.main,
        [*GRU, *SMALL, "--data.path", log, "--model.learning_rate", "1e38", "--trainer.logger.version", "d"],
    )
    assert "diverged" in message
    assert "learning_rate" in message


def test_refused_resumes_leave_the_run_as_it_was(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = fit_run(log, "one"), fit_run(log, "two")
    Path("few.tsv").write_text("".join(Path(log).read_text().splitlines(keepends=True)[:30]))
    before = {path: path.read_bytes() for path in Path("lightning_logs").rglob("*") if path.is_file()}
    config, more = str(run / "config.yaml"), ["--trainer.max_epochs", "5"]
    resume = ["--config", config, "--ckpt_path", "last", *more]
    assert "the checkpoint was fitted to" in one_error(capsys, fit.main, [*resume, "--data.path", "few.tsv"])
    assert "is of shape" in one_error(capsys, fit.main, [*resume, "--model.layers", "[9]"])
    assert "is of shape" in one_error(
        capsys, test.main, ["--config", config, "--ckpt_path", "best", "--model.layers", "[9]"]
    )
    foreign = str(other / "checkpoints" / "last.ckpt")
    assert "is not of the run" in one_error(capsys, fit.main, ["--config", config, "--ckpt_path", foreign, *more])
    assert "is not of the run" in one_error(capsys, fit.main, ["--ckpt_path", foreign, *more])
    assert "nothing to train" in one_error(capsys, fit.main, [*resume, "--trainer.limit_train_batches", "0"])
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"]
    assert "is not supported" in one_error(capsys, fit.main, [*resume, *two])
    assert {path: path.read_bytes() for path in Path("lightning_logs").rglob("*") if path.is_file()} == before


def test_order_of_config_and_checkpoint_does_not_matter(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "order")
    validate.main(["--ckpt_path", "last", "--config", str(run / "config.yaml")])
    assert "validate of GRU4Rec" in capsys.readouterr().out


def test_a_failed_fit_does_not_block_its_name(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    again = [*GRU, *SMALL, "--data.path", log, "--trainer.logger.version", "again", "--trainer.max_epochs", "1"]
    assert "diverged" in one_error(capsys, fit.main, [*again, "--model.learning_rate", "1e38"])
    fit.main(again)
    assert Path("lightning_logs/again/checkpoints/last.ckpt").exists()


def test_nothing_to_validate_or_test_is_an_error(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "all", "--data.val_ratio", "0", "--data.test_ratio", "0")
    where = ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    assert "there is no validation part" in one_error(capsys, validate.main, where)
    assert "there is no test part" in one_error(capsys, test.main, where)


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


def test_a_checkpoint_of_elsewhere_is_tested(
    log: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit_run(log, "there").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    test.main(["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--data.path", f"../{log}"])
    assert (run / "metrics.json").exists()


def test_a_finished_run_with_other_options_is_refused(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They would come to nothing; and another log would be taken for the first one."""
    run = fit_run(log, "done")
    words = ["--config", str(run / "config.yaml"), "--ckpt_path", "auto"]
    fit.main([*words, "--data.eval_batch_size", "3"])
    assert "nothing to do" in capsys.readouterr().out
    assert "--model.momentum 0.0, not 0.2" in one_error(capsys, fit.main, [*words, "--model.momentum", "0.2"])
    assert "--data.min_item_support 1, not 0" in one_error(capsys, fit.main, [*words, "--data.min_item_support", "0"])
    assert "other training sessions" in one_error(capsys, fit.main, [*words, "--data.test_ratio", "0.21"])
    rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(20, n_items=5, seed=3))]
    Path("few.tsv").write_text("\n".join(rows) + "\n")
    assert "the checkpoint was fitted to" in one_error(capsys, fit.main, [*words, "--data.path", "few.tsv"])
    assert "give the --model it was fitted with" in one_error(
        capsys, fit.main, ["--model", "SR", "--data.path", log, "--trainer.logger.version", "done", *words[2:]]
    )


def test_auto_goes_on_from_best_where_there_is_no_last(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "early")
    (run / "checkpoints" / "last.ckpt").unlink()
    again = ["--config", str(run / "config.yaml")]
    assert "--ckpt_path best" in one_error(capsys, fit.main, again)
    fit.main([*again, "--ckpt_path", "auto", "--trainer.max_epochs", "4"])
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3


def test_a_run_that_was_moved_keeps_its_best_score(log: str) -> None:
    run = fit_run(log, "here")
    moved = run.rename(run.with_name("moved"))
    before = torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    words = ["--trainer.logger.version", "moved", "--ckpt_path", "last", "--trainer.max_epochs", "3"]
    fit.main(["--config", str(moved / "config.yaml"), *words, "--model.learning_rate", "1e-9"])
    last = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(state for name, state in last["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert Path(state["best_model_path"]) == moved / "checkpoints" / "best.ckpt"
    assert torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == before


def test_scores_that_are_no_numbers_are_not_predicted(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "broken")
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"]["output_embedding"][3] = torch.nan
    torch.save(content, file)
    where = ["--config", str(run / "config.yaml"), "--ckpt_path", "last", "--output", "out.tsv"]
    assert "is not finite" in one_error(capsys, predict.main, where)
    assert not Path("out.tsv").exists()


def test_checkpoints_of_other_callbacks_stay_inside_the_run(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "outside"}}
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    where = ["--config", "callbacks.yaml", "--data.path", log, *SMALL, "--model", "Popularity"]
    assert "is outside of the run" in one_error(capsys, fit.main, where)
    assert not Path("outside").exists()


def test_the_rules_are_printed_with_the_results(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_run(log, "rules", "--model.exclude_seen", "true", "--model.tie_mode", "median")
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    assert "12 items ranked, ties median, no item of the session so far a candidate" in capsys.readouterr().out
