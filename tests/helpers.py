"""Small logs, runs and references that tests of several rooms share."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from sessrec import fit
from sessrec.click_log.events import Events
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
BASE = [
    ("1", "101", 1396867869), ("1", "102", 1396868049), ("1", "103", 1396868096),
    ("2", "102", 1396879017), ("2", "103", 1396879057),
    ("3", "101", 1396954269), ("3", "103", 1396954329), ("3", "102", 1396954389),
    ("4", "103", 1397040669), ("4", "101", 1397040729),
]  # fmt: skip
EXPECTED = {"1": ["101", "102", "103"], "2": ["102", "103"], "3": ["101", "103", "102"], "4": ["103", "101"]}
TRAINER = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
WHOLE = ["--data.test_ratio", "0", "--data.val_ratio", "0"]


def make_sessions(sequences: list[list[int]]) -> Sessions:
    """Sessions of item indices, named s0, s1, ..."""
    lengths = [len(sequence) for sequence in sequences]
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int32)
    session_ids = pa.array([f"s{number}" for number in range(len(sequences))])
    return Sessions(items, np.cumsum([0, *lengths]), session_ids=session_ids)


def make_vocabulary(n_items: int) -> Vocabulary:
    """Items i0, i1, ... with counts 1, 2, ..."""
    return Vocabulary([f"i{number}" for number in range(n_items)], np.arange(1, n_items + 1))


def random_rows(n_sessions: int = 60, n_items: int = 12, seed: int = 0) -> list[tuple[str, str, int]]:
    """Rows of a click log with a sequential structure: the next item is mostly the next number."""
    generator = np.random.default_rng(seed)
    rows, time = [], 1_600_000_000
    for session in range(n_sessions):
        item = int(generator.integers(n_items))
        time += 1000
        for position in range(int(generator.integers(2, 7))):
            rows.append((f"u{session}", f"x{item}", time + 10 * position))
            item = (item + 1) % n_items if generator.random() < 0.8 else int(generator.integers(n_items))
    return rows


def one_error(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], args: list[str]) -> str:
    """The only line on stderr of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command(args)
    assert caught.value.code not in (0, None)
    lines = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in lines)
    assert "error: " in lines[-1]  # the last thing said, in one line
    return lines[-1]


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def sequences(events: Events) -> dict[str, list[str]]:
    """Item ids of each session, by session id, in session order."""
    found: dict[str, list[str]] = {}
    session_ids, item_ids = map(str, events.session_ids.to_pylist()), events.item_ids.to_pylist()
    session_ids = list(session_ids)
    for session, item in zip(events.session.tolist(), events.item.tolist(), strict=True):
        found.setdefault(session_ids[events.numbers[session]], []).append(item_ids[item])
    return found


def fit_log(log: str, *options: str, model: str = "Popularity", run: str = "run") -> Path:
    """Fit a log by the command, and give the folder of the run."""
    place = ["--data.path", log, "--trainer.logger.version", run]
    fit.main(["--model", model, *TRAINER, *place, *options])
    return Path("lightning_logs", run)


def run_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in this process what ``python`` does with the words of a module or a script, which saves importing torch."""
    if words[0] == "-m":
        importlib.import_module(words[1]).main(words[2:])
        return
    monkeypatch.syspath_prepend(str(Path(words[0]).resolve().parent))
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(words[0], run_name="__main__")


def paint_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every picture file written blank, for painting takes long; all that comes before it is done."""
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda _, *args, **options: savefig(Figure((1, 1)), *args, **options))


def paper_loss(name: str, logits: Tensor, bpreg: float, elu_param: float, excluded: Tensor) -> Tensor:
    """The same for torch to differentiate, shape (B,); the sum in BPR-max is taken in log space for extreme logits."""
    is_negative = ~excluded & ~torch.eye(*logits.shape, dtype=torch.bool)
    lanes = []
    for lane, (row, kept) in enumerate(zip(logits, is_negative, strict=True)):
        score = F.elu(row, elu_param) if name == "bpr_max" and elu_param else row
        own, others = score[lane], score[kept]
        if not kept.any():
            lanes.append(own * 0)
        elif name == "cross_entropy":
            lanes.append(-torch.cat([own[None], others]).log_softmax(dim=0)[0])
        elif name == "bpr_max":
            log_gain = (others.log_softmax(dim=0) + F.logsigmoid(own - others)).logsumexp(dim=0)
            lanes.append(bpreg * (others.softmax(dim=0) * others**2).sum() - log_gain)
        elif name == "bpr":
            lanes.append(-F.logsigmoid(own - others).mean())
        else:
            terms = torch.sigmoid(others - own) + torch.sigmoid(others**2)
            lanes.append(terms.mean() if name == "top1" else (others.softmax(dim=0) * terms).sum())
    return torch.stack(lanes)
