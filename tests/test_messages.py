"""What the commands say: of options that are wrong, in their help, and of what they do."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, everything_in, random_rows

from sessrec import fit, predict, prepare, test, validate
from sessrec.data import SessionDataModule
from sessrec.errors import SessRecError
from sessrec.evaluation.rank_table import read_ranks
from sessrec.evaluation.tested_runs import read_run
from sessrec.models import SessionRecommender
from sessrec.option_types import known_classes
from sessrec.program import program

COMMANDS = {"fit": fit, "validate": validate, "test": test, "predict": predict, "prepare": prepare}
MODELS = (
    "AR, GRU4Rec, ItemKNN, Markov, NARM, Oracle, Popularity, Random, SASRec, SKNN, SPop, SR, SRGNN, STAN, VMISKNN, "
    "VSKNN, VSTAN"
)
LOSSES = "cross-entropy, bpr-max, bpr, top1 or top1-max"
METRICS = ", ".join(f"val/{name}@{k}" for name in ("mrr", "ndcg", "recall") for k in ("1", "10", "20", "5"))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_log: Callable[..., Path]) -> str:
    """Goes to an empty folder with a log."""
    monkeypatch.chdir(tmp_path)
    return write_log(random_rows(60)).name


def said(command: Callable[[list[str]], object], args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that ends with a user error says: one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command(args)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


# 1. Options that are wrong

FLAGS = [
    ("fit --model.layer 100", "unknown option --model.layer of GRU4Rec; did you mean --model.layers?"),
    ("fit --model.layer=100", "unknown option --model.layer of GRU4Rec; did you mean --model.layers?"),
    ("fit --data.pth x", "unknown option --data.pth; did you mean --data.path?"),
    ("fit --data.batch-size 3", "unknown option --data.batch-size; did you mean --data.batch_size?"),
    ("fit --trainer.max_epoch 3", "unknown option --trainer.max_epoch; did you mean --trainer.max_epochs?"),
    (
        "fit --chekpoint.every_minutes 3",
        "unknown option --chekpoint.every_minutes; did you mean --checkpoint.every_minutes?",
    ),
    ("predict --outputt x", "unknown option --outputt; did you mean --output?"),
    ("fit --max_epochs 3", "unknown option --max_epochs; did you mean --trainer.max_epochs?"),
    ("fit --layers 3", "unknown option --layers; did you mean --model.layers?"),
    ("fit --nothing_like_it 3", "unknown option --nothing_like_it"),
    (
        "fit --trainer.logger.versio x",
        "unknown option --trainer.logger.versio of TensorBoardLogger; did you mean --trainer.logger.version?",
    ),
    (
        "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr=x",
        "unknown option --trainer.callbacks.monitr of EarlyStopping; did you mean --trainer.callbacks.monitor?",
    ),
    ("fit --model.n_heads 2", "unknown option --model.n_heads of GRU4Rec; it is one of SASRec"),
    ("fit --model SASRec --model.layers [2]", "unknown option --model.layers of SASRec; it is one of GRU4Rec"),
    ("fit --model GRU4REC", "--model GRU4REC: no such class; did you mean GRU4Rec?"),
    ("fit --model SasRec", "--model SasRec: no such class; did you mean SASRec?"),
    (
        "fit --model sessrec.models.gru4rec.GRU4REC",
        "--model sessrec.models.gru4rec.GRU4REC: no such class in the module; did you mean GRU4Rec?",
    ),
    ("fit --model no.such.Thing", f"--model no.such.Thing: No module named 'no'; there are {MODELS}"),
    (
        "fit --model sessrec.nn.losses.bpr_max",
        f"--model sessrec.nn.losses.bpr_max: no SessionRecommender; there are {MODELS}",
    ),
    (
        "fit --trainer.logger MLFlowLoger",
        "--trainer.logger MLFlowLoger: no such class; did you mean MLFlowLogger?",
    ),
    (
        "fit --model.loss cross_entropy",
        f"--model.loss must be {LOSSES}, got 'cross_entropy'; did you mean cross-entropy?",
    ),
    ("fit --model.layers a", "--model.layers must be a list such as [100, 50] or null, got 'a'"),
    ("fit --trainer.max_epochs ten", "--trainer.max_epochs must be a whole number or null, got 'ten'"),
    ("fit --data.batch_size 1.5", "--data.batch_size must be a whole number, got '1.5'"),
    ("fit --data.shuffle maybe", "--data.shuffle must be true or false, got 'maybe'"),
    ("fit --data.test_ratio ten", "--data.test_ratio must be a number or null, got 'ten'"),
    ("fit --model", "--model needs a value"),
    ("fit --model.help GRU4REC", "--model.help GRU4REC: no such class; did you mean GRU4Rec?"),
    ("fit --data log.tsv", "--data is a group of options: give data.OPTION a value"),
    (
        "fit --trainer.devices two",
        "--trainer.devices two: `devices` selected with `CPUAccelerator` should be an int > 0.",
    ),
    ("prepare --data.path", "--data.path needs a value"),
    (
        "fit clicks.tsv",
        "'clicks.tsv' belongs to no option: write --GROUP.OPTION VALUE, such as --data.path clicks.tsv",
    ),
    (
        "fit --monitor val/mrr20",
        f"--monitor val/mrr20 is none of the metrics {METRICS}; did you mean val/mrr@20?",
    ),
    ("fit --trainer.accelerator gpuu", "--trainer.accelerator gpuu: no such kind; did you mean gpu?"),
    (
        "fit --trainer.precision 16-mixed",
        "--trainer.precision 16-mixed is not supported: give bf16-mixed for 16 bits",
    ),
    (
        "fit --trainer.logger false --trainer.logger.version x",
        "--trainer.logger.version belongs to no class: --trainer.logger is false",
    ),
    (
        "fit --model GRU4Rec --model.schedule linear --trainer.max_epochs -1",
        "--model.schedule linear falls to the end of the fit, which has none: give --trainer.max_epochs or "
        "--trainer.max_steps",
    ),
    (
        "fit --model GRU4Rec --model.schedule cosine --model.warmup 9999 --trainer.max_epochs 2",
        "--model.warmup 9999 must be less than the 16 steps of the fit (--model.schedule_unit step)",
    ),
    (
        "fit --model SASRec --model.schedule linear --model.schedule_unit epoch --model.warmup 2 "
        "--trainer.max_epochs 2",
        "--model.warmup 2 must be less than the 2 epochs of the fit (--model.schedule_unit epoch)",
    ),
    (
        "fit --trainer.val_check_interval 9",
        "--trainer.val_check_interval 9 must be from 1 to the 1 batches of an epoch, or a share of them such as 0.5; "
        "--trainer.check_val_every_n_epoch null counts on from epoch to epoch",
    ),
    (
        "fit --data.steps_per_window 2 --trainer.limit_train_batches 0.2",
        "--trainer.limit_train_batches 0.2 is less than one of the 4 train batches: give at least 0.25, or a number of "
        "batches such as 1",
    ),
    (
        "fit --trainer.limit_val_batches 0.2",
        "--trainer.limit_val_batches 0.2 is less than one of the 1 val batches: give at least 1, or a number of "
        "batches such as 1",
    ),
    ("fit --trainer.check_val_every_n_epoch 0", "--trainer.check_val_every_n_epoch must be at least 1, got 0"),
    (
        "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/mrrr@20",
        "--trainer.callbacks: EarlyStopping monitors val/mrrr@20, which is no metric here; did you mean "
        "val/mrr@20 or val/mrr@10?",
    ),
    (
        "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/mrr@20",
        "--trainer.callbacks: EarlyStopping would stop while val/mrr@20 rises: give --trainer.callbacks.mode max",
    ),
    (
        "fit --trainer.callbacks EarlyStopping",
        "--trainer.callbacks EarlyStopping needs --trainer.callbacks.monitor: --trainer.callbacks+=EarlyStopping "
        "--trainer.callbacks.monitor VALUE",
    ),
    ("fit --seed_everything -1", "--seed_everything must be from 0 to 4294967295, got -1"),
    ("fit --trainer.logger.version=", "--trainer.logger: 'lightning_logs' is no name for a run inside ."),
    (
        "fit --ckpt_path last",
        "--ckpt_path last is of a run, and none is named: give --config RUN/config.yaml or --trainer.logger.version, "
        "or name a file",
    ),
    ("test --ckpt_path x --trainer.limit_test_batches 0", "--trainer.limit_test_batches 0 leaves nothing to test"),
    ("fit --data.path none.tsv", "no such file: none.tsv (--data.path)"),
    ("fit --config none.yaml", "--config none.yaml: no such file or shipped config; did you mean one.yaml?"),
    ("predict --ckpt_path none.ckpt", "no checkpoint none.ckpt (--ckpt_path none.ckpt)"),
]


@pytest.mark.parametrize(("line", "message"), FLAGS, ids=[line for line, _ in FLAGS])
def test_a_wrong_flag(log: str, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    Path("one.yaml").write_text("")
    command, *words = line.split()
    before = everything_in(Path())
    path = (
        []
        if "path" in line or command == "predict"
        else ["--data.path", log, "--trainer.accelerator", "cpu", "--data.cache_dir", "null"]
    )
    known = [cls.__name__ for cls in known_classes(SessionRecommender)]  # those of other tests, too
    assert set(MODELS.split(", ")) <= set(known)
    message = message.replace(MODELS, ", ".join(known))
    assert said(COMMANDS[command].main, [*path, *words], capsys) == f"sessrec.{command}: error: {message}"
    assert everything_in(Path()) <= before | {"data", "data/.prepared"}


CONFIGS = [
    (
        "model: {class_path: GRU4Rec, init_args: {layer: [100]}}",
        "c.yaml: unknown option model.init_args.layer of GRU4Rec; did you mean model.init_args.layers?",
    ),
    (
        "model: {class_path: GRU4Rec, init_args: {loss: hinge}}",
        f"c.yaml: model.init_args.loss must be {LOSSES}, got 'hinge'",
    ),
    (
        "model: {class_path: GRU4Rec, layers: [100]}",
        "c.yaml: model.layers belongs under model.init_args, beside model.class_path",
    ),
    ("model: {class_path: GRU4REC}", "c.yaml: model.class_path GRU4REC: no such class; did you mean GRU4Rec?"),
    ("data: {pth: x}", "c.yaml: unknown option data.pth; did you mean data.path?"),
    ("dta: {path: x}", "c.yaml: unknown option dta.path; did you mean data.path?"),
    ("trainer: {max_epoch: 3}", "c.yaml: unknown option trainer.max_epoch; did you mean trainer.max_epochs?"),
    ("trainer: {max_epochs: ten}", "c.yaml: trainer.max_epochs must be a whole number or null, got 'ten'"),
    (
        "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitr: x}}]}",
        "c.yaml: unknown option trainer.callbacks[0].init_args.monitr of EarlyStopping; "
        "did you mean trainer.callbacks[0].init_args.monitor?",
    ),
    ("model: [GRU4Rec]", "c.yaml: model must be a SessionRecommender or null, got ['GRU4Rec']"),
    ("data: 3", "c.yaml: data is a group of options: give data.OPTION a value"),
    ("trainer: null", "c.yaml: trainer is a group of options: give trainer.OPTION a value"),
    ("\xff", "c.yaml is no YAML: it is not in UTF-8"),
    ("trainer: [1\n", "c.yaml, line 2, column 1 is no YAML: expected ',' or ']', but got '<stream end>'"),
    ("hello", "c.yaml holds no options: a config is like the files in configs/, such as data: {path: clicks.tsv}"),
]


@pytest.mark.parametrize(("text", "message"), CONFIGS, ids=[text for text, _ in CONFIGS])
def test_a_wrong_config(log: str, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    Path("c.yaml").write_text(text, encoding="latin-1")
    for words in (["--config", "c.yaml"], ["--config=c.yaml"]):
        line = said(fit.main, ["--data.path", log, *words], capsys)
        assert line == f"sessrec.fit: error: {message}"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "audit",
            "tie run",
            "audit must be sampled, ties, order, leakage, chance or tuning, got 'tie'; did you mean ties?",
        ),
        ("audit", "ties run --sed 1", "unknown option --sed; did you mean --seed?"),
        ("audit", "ties run --seed one", "--seed must be a whole number, got 'one'"),
        ("audit", "ties run --seed", "--seed needs a value"),
        ("audit", "ties run --metrics mrr20", "--metrics mrr20 is no metric"),
        ("audit", "ties run --output /proc/x", "--output /proc/x cannot be written to: "),
        ("audit", "chance run --process_items 1", "--process_items must be at least 2, got 1"),
        ("compare", "--configs markov --name a/b", "--name 'a/b' is no name that a folder can begin with"),
        ("compare", "--configs markov --ckpt_path=last", "--ckpt_path is not for here: each fit begins anew, or goes"),
        ("compare", "--configs markov --config=stan", "--config stan chooses a model for every fit: name it among"),
        ("compare", "--configs markov --model STAN", "--model STAN chooses a model for every fit: name it among"),
        ("compare", "--configs markov --sedes 1 2", "unknown option --sedes; did you mean --seeds?"),
        ("figures", "--run x", "unknown option --run; did you mean --runs?"),
        ("make_synth_data", "--n_items 1", "--n_items must be at least 2, got 1"),
        ("make_synth_data", "--max_session_len 1", "--max_session_len must be at least 2, got 1"),
        ("compare", "run --metric recall@20", "unknown option --metric; did you mean --metrics?"),
        ("make_synth_data", "--n_session 3", "unknown option --n_session; did you mean --n_sessions?"),
    ],
)
def test_a_wrong_word_of_a_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, words: str, message: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py"])
    line = said(importlib.import_module(name).main, words.split(), capsys)
    assert line.startswith(f"sessrec.{name}: error: {message}")


@pytest.mark.parametrize(
    ("started", "command", "expected"),
    [
        ("/usr/bin/sessrec", "test", "sessrec test"),
        ("site-packages/sessrec/__main__.py", "fit", "sessrec fit"),
        ("sessrec/compare.py", "test", "python -m sessrec.test"),
        ("scripts/compare.py", "compare", "python scripts/compare.py"),
        ("scripts/make_synth_data.py", "synth", "python scripts/make_synth_data.py"),
        ("scripts/compare.py", "fit", "python -m sessrec.fit"),
    ],
)
def test_commands_are_named_as_the_user_starts_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: str, command: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert program(command) == expected
    if command == "test":
        with pytest.raises(SessRecError, match=f"it has no metrics.json: `{expected}` writes it"):
            read_run(tmp_path)
        with pytest.raises(SessRecError, match=f": `{expected}` on that run writes it"):
            read_ranks(tmp_path / "ranks.parquet")


# 2. Files and folders


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("fit", "--trainer.logger.save_dir log", "--trainer.logger.save_dir log/lightning_logs/popularity-1/"),
        ("fit", "--trainer.logger.save_dir /proc/x", "--trainer.logger.save_dir /proc/x/lightning_logs/"),
        ("prepare", "--report_dir log", "--report_dir log cannot be written to: log is a file; name another folder"),
        ("prepare", "--report_dir /proc/x", "--report_dir /proc/x cannot be written to: "),
        ("prepare", "--data.cache_dir /proc/x", "cannot keep the prepared log in /proc/x: "),
        ("predict", "--output log/x.tsv", "--output log cannot be written to: log is a file; name another folder"),
        ("predict", "--output /proc/x/y.tsv", "--output /proc/x cannot be written to: "),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_log: Callable[..., Path],
    command: str,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--data.path", write_log(random_rows(60), name="log").name, "--trainer.accelerator", "cpu"]
    if command == "predict":
        fit.main([*args, "--model", "Popularity", "--trainer.logger.version", "run", "--data.cache_dir", "null"])
        args += ["--ckpt_path", "lightning_logs/run/checkpoints/last.ckpt"]
    elif command == "fit":
        args += ["--model", "Popularity"]
    before = everything_in(tmp_path)

    def work(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("sessrec.data.preparation.Preparation.run", work)
    monkeypatch.setattr("sessrec.data.preparation.Preparation.read", work)
    assert said(COMMANDS[command].main, [*args, *words.split()], capsys).startswith(
        f"sessrec.{command}: error: {message}"
    )
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("as_flags", [True, False])
def test_a_tilde_is_the_home_folder(log: str, monkeypatch: pytest.MonkeyPatch, as_flags: bool) -> None:
    """In every option that takes a path, in a config and as a flag; nothing is named ``~``."""
    home = Path("home").resolve()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    Path(log).rename(home / log)
    options = {
        "data.path": f"~/{log}",
        "data.cache_dir": "~/cache",
        "report_dir": "~/report",
        "output": "~/predicted.tsv",
        "trainer.default_root_dir": "~/root",
        "trainer.logger.save_dir": "~/runs",
    }
    if as_flags:
        own = [f"--{name}={value}" for name, value in options.items()]
    else:
        logger = {"init_args": {"save_dir": options["trainer.logger.save_dir"]}}
        config = {
            "data": {"path": [options["data.path"]], "cache_dir": options["data.cache_dir"]},
            "trainer": {"logger": logger, "default_root_dir": options["trainer.default_root_dir"]},
            "report_dir": options["report_dir"],
            "output": options["output"],
        }
        (home / "c.yaml").write_text(yaml.safe_dump(config))
        own = ["--config=~/c.yaml"]
    own += ["--model", "Popularity", "--trainer.logger.version", "run", "--trainer.accelerator", "cpu"]
    prepare.main(own)
    fit.main(own)
    test.main([*own, "--ckpt_path", "~/runs/lightning_logs/run/checkpoints/last.ckpt"])
    predict.main([*own, "--ckpt_path=~/runs/lightning_logs/run/checkpoints/last.ckpt"])
    assert {file.name for file in home.iterdir()} >= {"cache", "report", "predicted.tsv", "runs"}
    assert (home / "runs/lightning_logs/run/metrics.json").exists()
    data = SessionDataModule(f"~/{log}", cache_dir="~/own_cache")
    assert len(data.prepare().sessions["train"])
    assert (home / "own_cache").is_dir()
    assert not [name for name in everything_in(Path()) if "~" in name]


# 3. Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_a_command_uses(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")

    def helped(*words: str) -> str:
        with pytest.raises(SystemExit, match="^0$"):
            COMMANDS[command].main(list(words))
        return capsys.readouterr().out

    text = helped("--help")
    assert len(text.splitlines()) < 120
    assert max(map(len, text.splitlines())) < 130
    own = {"--monitor": "fit", "--list_length": "test", "--output": "predict", "--report_dir": "prepare"}
    assert {option for option in own if option in text} == {option for option, one in own.items() if one == command}
    assert "--data.path" in text
    assert ("--data.session_gap" in text) == (command in ("fit", "prepare"))
    assert ("GRU4Rec     " in text) == (command == "fit")
    assert "--trainer.gradient_clip_algorithm" not in text
    if command == "fit":
        assert "--trainer.gradient_clip_algorithm" in helped("--trainer.help")
        assert "--data.time_format" in helped("--data.help")
        assert "--model.bpreg" in helped("--model.help", "GRU4Rec")


# 4. What is printed beside the results


def test_every_line_of_warning_begins_with_the_command(log: str) -> None:
    """All items are equally popular, so that ties are warned of; Lightning's own lines are left out."""
    rows = [f"{s}\t{'abcd'[(s + k) % 4]}\t{100 * s + k}" for s in range(40) for k in range(2)]
    Path(log).write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    words = ["--model", "Popularity", "--data.path", log, "--trainer.accelerator", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "sessrec.fit", *words], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("sessrec.fit: warning: ")] == []
    assert "score exactly as the target does" in lines[0]
