"""Every command and every Python example in the README runs, in its order, in a folder of its own."""

from __future__ import annotations

import csv
import gzip
import importlib
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from helpers import ROOT, paint_blanks, random_rows, run_python
from tensorboard.program import TensorBoard
from test_documents import commands

from sessrec import __main__ as program

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]
ONE_EPOCH = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
QUICK = {  # the README's own take minutes
    "fit": [*ONE_EPOCH, "--trainer.limit_train_batches", "30"],
    "roll": ["--train_window", "8h", "--step", "3h", "--horizon", "6h", "--windows", "2", *ONE_EPOCH],
    "tune": ["--trials", "2", "--max_epochs", "1", "--workers", "1"],
    "compare": ONE_EPOCH,
    "compare.py": ONE_EPOCH,
    "figures.py": ["--no_alphas"],  # the demo draws them
    "sweep.py": ["--values", "0", "0.5", "--trainer.enable_progress_bar", "false"],
    "benchmark.py": ["--configs", "ce_32_100_2048", "--windows", "2", "--events", "20000", "--repeats", "1"],
}


ELSEWHERE = {
    "make ": "test_makefile.py",
    "scripts/report.py": "test_study.py",
    "compare.py --name ": "test_study.py",  # as the report writes them into docs/results.md
    "compare.py lightning_logs/": "test_study.py",
    "audit.py": "evaluation/test_audits.py",
    "figures.py": "test_study.py",
    "compare_reference.py": "models/test_reference.py",
    "benchmark.py": "scripts/test_benchmark.py",
    "--trainer.devices 2": "test_distributed.py",
    "sessrec.serve": "serving/test_serve.py",
    "sessrec serve --backend onnx": "serving/test_onnx_engine.py",
    "--url http": "serving/test_replay.py",
    "sessrec.export": "exporting/test_onnx.py",
    "scripts/item_tables.py": "scripts/test_item_tables.py",
    "scripts/embed_texts.py": "scripts/test_item_tables.py",
    "--study rsc15_100k-": "here, as those of serenade_example",
    "sessrec.roll --models markov stan vmis_knn": "rolling/test_roll.py",  # hours of real logs
}
"""Tests that run the commands of other documents, on other runs, by a part of the command."""


def commands_of_documents() -> list[str]:
    """Commands of docs/ and of the notebook that the README lacks; the mention of a command's name is none."""
    others = [line for line in commands() if line not in COMMANDS and len(line.split()) > 3]
    return [line for line in others if not any(part in line for part in ELSEWHERE)]


def make_files() -> None:
    """The files that the README names, as small logs in their layouts."""
    rows = random_rows(80)
    text = "".join(f"{session}\t{item}\t{time}\n" for session, item, time in rows)
    Path("clicks.tsv.gz").write_bytes(gzip.compress(b"SessionId\tItemId\tTime\n" + text.encode()))
    for name, part in {"train.tsv": rows[:200], "test.tsv": rows[200:]}.items():
        Path(name).write_text("SessionId\tItemId\tTime\n" + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in part))
    Path("new_items.csv").write_text("ItemId,category\nnew-1,c0\nnew-2,c1\n")
    items = "".join(f"x{item},{'abc'[item % 3]},{item}.5\n" for item in range(14))
    Path("items.csv").write_text(f"ItemId,category,price\n{items}")
    Path("there.csv").write_text("ItemId,From,To\n1,2024-01-05,2024-01-20\n2,,2024-01-25\n")
    Path("train.txt").write_bytes(pickle.dumps(([[1], [1, 2], [4], [5, 6]], [2, 3, 1, 7])))
    Path("in_stock.txt").write_text("\n".join(sorted({item for _, item, _ in rows})[:5]), encoding="utf-8")
    Path("new_sessions.tsv").write_text("SessionId\tItemId\tTime\n" + text, encoding="utf-8")
    Path("other.csv").write_text(
        "visit,product,at\n" + "".join(f"{s},{i},{1_600_000_000 + n * 1000}\n" for n, (s, i, _) in enumerate(rows)),
        encoding="utf-8",
    )
    Path("data").mkdir()
    shutil.copy("clicks.tsv.gz", "data/serenade_example.tsv.gz")
    orders = "".join(f"{s}\t{i}\t{t}\t{n}\n" for n, (s, i, t) in enumerate(rows))
    Path("data/eshop2008.tsv.gz").write_bytes(gzip.compress(b"SessionId\tItemId\tTime\tOrder\n" + orders.encode()))
    n_rows = {"yoochoose1_64": 486026, "retailrocket": 685984}
    for name, start in n_rows.items():  # a row number for a time, the last 50 rows in the test part
        order = "".join(f"{s}\t{i}\t{start - len(rows) + 50 + n}\n" for n, (s, i, _) in enumerate(rows))
        Path(f"data/{name}.tsv.gz").write_bytes(gzip.compress(b"SessionId\tItemId\tOrder\n" + order.encode()))
    seconds = [1_600_000_000 + n * 100 + n // 40 * 4000 for n in range(len(rows))]
    Path("visits.csv").write_text(
        "visitor,kind,ItemId,Time\n"
        + "".join(f"{n % 7},{'view' if n % 3 else 'cart'},{i},{seconds[n]}\n" for n, (_, i, _) in enumerate(rows))
    )
    Path("data/events.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        + "".join(f"{time * 1000},{s},view,{i},\n" for s, i, time in rows_over_a_month(rows))
    )
    Path("no_header.csv").write_text("".join(f"{s},{t},{i},0\n" for s, i, t in rows))
    Path("day_first.csv").write_text(
        "SessionId,ItemId,Time\n"
        + "".join(f"{s},{i},13/04/2014 10:{n % 60:02}:{n // 60:02}\n" for n, (s, i, _) in enumerate(rows))
    )
    for folder in ("configs", "scripts"):
        Path(folder).symlink_to(ROOT / folder)


def rows_over_a_month(rows: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """The same sessions, half of a day apart."""
    sessions = {session: number for number, session in enumerate(dict.fromkeys(row[0] for row in rows))}
    first = {session: min(row[2] for row in rows if row[0] == session) for session in sessions}
    return [(s, i, 1_430_000_000 + 43_200 * sessions[s] + t - first[s]) for s, i, t in rows]


def run(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for here in ("accelerator gpu", "accelerator cpu"), ("warmup 200", "warmup 0"):  # no GPU, and no log of 200 steps
        command = command.replace(*here)
    command = command.replace("--seeds 1 2 3", "--seeds 1")  # others are fitted alike
    words = shlex.split(command)
    if words[0] == "make":
        subprocess.run(["make", "-n", "-C", str(ROOT), *words[1:]], check=True, capture_output=True)
    elif words[0] == "tensorboard":
        board = TensorBoard()
        board.configure(argv=[*words, "--port", "0"])
        assert urllib.request.urlopen(board.launch(), timeout=60).status == 200
    elif words[:3] == ["python", "-m", "sessrec.serve"]:
        with subprocess.Popen([sys.executable, *words[1:], "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            assert urllib.request.urlopen(f"{address}/readyz", timeout=60).status == 200
            server.terminate()
    elif words[0] == "sessrec":
        is_fitting = words[1] == "fit" or "--configs" in words
        program.main([*words[1:], *(QUICK.get(words[1], []) if is_fitting else [])])
    elif words[:2] == ["python", "-m"]:
        name = words[2].removeprefix("sessrec.")
        if any("help" in word for word in words):
            with pytest.raises(SystemExit, match="^0$"):
                run_python(words[1:], monkeypatch)
            assert "learning_rate" in capsys.readouterr().out or words[-1] == "--help"
        else:
            run_python([*words[1:], *QUICK.get(name, [])], monkeypatch)
    else:
        assert words[0] == "python"
        is_fitting = words[1] != "scripts/compare.py" or "--configs" in words
        run_python([*words[1:], *(QUICK.get(Path(words[1]).name, []) if is_fitting else [])], monkeypatch)


def measure_in_this_process(data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the benchmark of the preparation measures in processes of its own, but for its first measurement."""
    in_new_process = data.in_new_process

    def measured(function: Callable[..., dict[str, float]], *args: str) -> dict[str, float]:
        return in_new_process(function, *args) if function is data.read_alone else function(*args)

    monkeypatch.setattr(data, "in_new_process", measured)


def test_every_command_and_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(COMMANDS) > 20
    assert not re.search(r"^[A-Z]+$", README, flags=re.MULTILINE)  # no placeholder is left
    monkeypatch.chdir(tmp_path)
    make_files()
    monkeypatch.syspath_prepend(str(tmp_path))  # as python -m does
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    measure_in_this_process(importlib.import_module("benchmarks.data"), monkeypatch)
    paint_blanks(monkeypatch)
    for example in blocks("python"):
        if name := re.match(r"# file: (\S+)\n", example):
            Path(name[1]).write_text(example, encoding="utf-8")
    for command in COMMANDS:
        print(f"$ {command}")
        run(command, capsys, monkeypatch)
    for example in blocks("python"):
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    for command in commands_of_documents():
        print(f"$ {command}")
        run(command, capsys, monkeypatch)
    assert {"my-run", "serenade-ce-1", "gru4rec-1", "markov-1", "popularity-1", "oracle-1"} <= {
        path.name for path in Path("lightning_logs").iterdir()
    }


def test_demo_prints_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo in small: the order of the models holds by a margin even on fewer sessions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    paint_blanks(monkeypatch)
    monkeypatch.setattr(importlib.import_module("sessrec.study_figures"), "ALPHAS", (0.0, 0.5))
    demo = importlib.import_module("demo")
    earlier = Path("lightning_logs/demo-gru4rec/checkpoints/best.ckpt")
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier demo, which this one replaces")
    demo.main(["--n_sessions", "8000", "--max_epochs", "8"])
    assert "| gru4rec" in capsys.readouterr().out
    text = Path("lightning_logs/demo-comparison/comparison.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    mrr = {row["model"]: float(row["value"]) for row in rows if row["metric"] == "mrr@20"}
    assert mrr["popularity"] * 1.5 < mrr["markov"]
    assert mrr["markov"] * 1.02 < mrr["gru4rec"]
    assert mrr["gru4rec"] * 1.05 < mrr["oracle"]
    pictures = {file.stem for file in Path("lightning_logs/demo-figures").glob("*.png")}
    assert pictures == {file.stem for file in Path("lightning_logs/demo-figures").glob("*.svg")}
    assert len(pictures) == 16
