"""Small logs, runs and references that tests of several rooms share."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from sessrec import fit, models
from sessrec.click_log.events import Events
from sessrec.data.loaders import EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.features.reading import read_item_table
from sessrec.models import SessionRecommender
from sessrec.models.knows_features import KnowsFeatures
from sessrec.models.neural import NeuralRecommender

ROOT = Path(__file__).resolve().parents[1]
BASE = [
    ("1", "101", 1396867869),
    ("1", "102", 1396868049),
    ("1", "103", 1396868096),
    ("2", "102", 1396879017),
    ("2", "103", 1396879057),
    ("3", "101", 1396954269),
    ("3", "103", 1396954329),
    ("3", "102", 1396954389),
    ("4", "103", 1397040669),
    ("4", "101", 1397040729),
]
EXPECTED = {"1": ["101", "102", "103"], "2": ["102", "103"], "3": ["101", "103", "102"], "4": ["103", "101"]}
TRAINER = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
WHOLE = ["--data.test_ratio", "0", "--data.val_ratio", "0"]
NEIGHBOURHOODS = ("SKNN", "VSKNN", "STAN", "VSTAN", "VMISKNN")
MODELS: dict[str, dict[str, Any]] = {name: {} for name in models.__all__ if name != "SessionRecommender"}
MODELS |= {name: {"n_neighbours": 8, "sample_size": 20} for name in NEIGHBOURHOODS} | {
    "AR": {"n_rules": 3},
    "SR": {"n_rules": 3},
    "ItemKNN": {"n_rules": 4},
    "ContentKNN": {"features": {"kind": 3, "price": "soft"}},
    "ContentMix": {
        "features": {"kind": 3},
        "model": "STAN",
        "model_options": {"n_neighbours": 8, "sample_size": 20},
    },
    "Oracle": {"process_items": 16, "process_seed": 1},
    "SASRec": {"hidden_size": 8, "dropout": 0.5},
    "NARM": {"hidden_size": 8, "embedding_size": 6, "n_sample": 8},
    "SRGNN": {"hidden_size": 8, "n_steps": 2, "max_length": 9},
    "GRU4Rec": {"layers": [16], "n_sample": 8, "dropout_p_hidden": 0.5},
    "GRU4Rec features": {"layers": [16], "n_sample": 8, "features": {"kind": 3, "price": "soft"}, "id_dropout": 0.3},
    "GRU4Rec two layers": {"layers": [12, 8], "n_sample": 8, "loss": "bpr-max", "momentum": 0.3},
    "GRU4Rec separate": {
        "layers": [16],
        "n_sample": 8,
        "constrained_embedding": False,
        "embedding": 6,
        "loss": "top1-max",
    },
    "GRU4Rec one-hot": {"layers": [16], "n_sample": 8, "constrained_embedding": False, "loss": "bpr"},
}
"""Options of all models, also of new ones, for small logs; the first word of a key is the name of the class."""
ITEMS = pd.DataFrame([(item, f"k{item % 4}", 1.5 * item) for item in range(1, 31)], columns=["ItemId", "kind", "price"])
"""Features of the items of small logs."""
Rows = list[list[int]]


def make_sessions(sequences: Rows, times: Rows | None = None) -> Sessions:
    """Sessions of item indices, named s0, s1, ..."""
    lengths = [len(sequence) for sequence in sequences]
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int32)
    flat = None if times is None else np.array([time for row in times for time in row])
    session_ids = pa.array([f"s{number}" for number in range(len(sequences))])
    return Sessions(items, np.cumsum([0, *lengths]), flat, session_ids)


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


def make_trainer(folder: Path, **options: Any) -> Trainer:
    """A trainer on the CPU that neither writes nor prints."""
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return Trainer(accelerator="cpu", default_root_dir=folder, **(off | options))


def module_run_as(name: str) -> ModuleType:
    """What ``python -m`` runs: a module, or the ``__main__`` of a package."""
    spec = find_spec(name)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return importlib.import_module(f"{name}.__main__" if is_package else name)


def run_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in this process what ``python`` does with the words of a module or a script, which saves importing torch."""
    if words[0] == "-m":
        module_run_as(words[1]).main(words[2:])
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


@dataclass(frozen=True, eq=False)
class Log:
    """Training sessions, and sessions to rank."""

    training: Rows
    times: Rows
    """Time of each training event."""
    queries: Rows
    n_items: int

    @cached_property
    def sets(self) -> list[set[int]]:
        """Items of each training session."""
        return [set(session) for session in self.training]

    @cached_property
    def popularity(self) -> list[int]:
        """Training events of each item."""
        return [sum(session.count(item) for session in self.training) for item in range(self.n_items)]

    @cached_property
    def support(self) -> list[int]:
        """Training sessions that hold each item."""
        return [sum(item in session for session in self.sets) for item in range(self.n_items)]

    @cached_property
    def by_recency(self) -> list[int]:
        """Training sessions, the last to end first; of those that end together the later one first."""
        return sorted(range(len(self.training)), key=lambda session: (-self.times[session][-1], -session))

    @property
    def rows(self) -> list[tuple[str, str, int]]:
        """Rows of a click log for training, where item 0 has the id 1 and so on, which Oracle needs."""
        return [
            (f"u{number}", str(item + 1), time)
            for number, session in enumerate(zip(self.training, self.times, strict=True))
            for item, time in zip(*session, strict=True)
        ]

    @property
    def prefixes(self) -> Iterator[list[int]]:
        """Every session so far that has a next item, in the order of the positions."""
        return (query[:length] for query in self.queries for length in range(1, len(query)))

    @property
    def targets(self) -> list[int]:
        """The next items of `prefixes`."""
        return [item for query in self.queries for item in query[1:]]


def small_log(training: Rows, n_items: int) -> Log:
    times = [list(range(100 * number, 100 * number + len(row))) for number, row in enumerate(training)]
    return Log(training, times, [], n_items)


@cache
def random_log(seed: int, n_items: int = 16, n_sessions: int = 60) -> Log:
    """A log with repeats, equal times, long and short sessions, and two items that only end sessions."""
    generator = np.random.default_rng(seed)
    inner = n_items - 2
    chances = 1 / np.arange(1, inner + 1)
    chances = generator.permutation(chances / chances.sum())

    def session(length: int) -> list[int]:
        items = generator.choice(inner, size=length, p=chances).tolist()
        if generator.random() < 0.2:
            items[-1] = int(generator.integers(inner, n_items))
        return items

    lengths = [int(generator.integers(*((12, 17) if number % 8 == 0 else (2, 7)))) for number in range(n_sessions)]
    training = [session(length) for length in lengths]
    training += [[0, item] for item in range(1, n_items)]  # every item occurs
    ends = 1_600_000_000 + 20_000 * generator.integers(0, 30, size=len(training))
    times = [
        [int(end) - 60 * place for place in reversed(range(len(items)))]
        for end, items in zip(ends, training, strict=True)
    ]
    queries = [session(int(generator.integers(2, 8))) for _ in range(10)] + [session(14), session(16)]
    queries.append([inner, 0, inner + 1, inner, 1])  # the items that only end sessions
    queries.append([*range(inner), 0])  # all different: the first are far from the end
    return Log(training, times, queries, n_items)


def make_model(name: str, **options: Any) -> SessionRecommender:
    return getattr(models, name.split()[0])(**MODELS[name], **options)


def learn(model: SessionRecommender, log: Log) -> Any:
    """Have a model learn a log as a fit does, but for the trainer; one with gradients takes the items alone."""
    vocabulary = Vocabulary([str(item + 1) for item in range(log.n_items)], np.array(log.popularity))
    if isinstance(model, KnowsFeatures) and model.uses_features and model.encoded is None:
        model.encode_items(read_item_table(ITEMS), vocabulary)
    if isinstance(model, NeuralRecommender):
        model.set_vocabulary(vocabulary)
    else:
        model.learn(make_sessions(log.training, log.times), vocabulary)
    return model.eval()


def all_scores(model: SessionRecommender, queries: Rows) -> np.ndarray:
    """Scores of all items at every position, in one go."""
    row = torch.tensor([number for number, query in enumerate(queries) for _ in query[1:]])
    place = torch.tensor([place for query in queries for place in range(len(query) - 1)])
    items = EvaluationLoader(make_sessions(queries), len(queries), by_length=False)[0].items
    with torch.inference_mode():
        return model.score(model.encode(items)[row, place], slice(0, model.n_items)).numpy()


def scores_after(model: SessionRecommender, prefix: list[int]) -> list[float]:
    """Scores of all items after a session so far."""
    return all_scores(model, [[*prefix, 0]])[-1].tolist()


def all_counts(model: SessionRecommender, queries: Rows, batch_size: int = 512) -> list[list[tuple[int, int]]]:
    """Items above and tied at every position of each session."""
    found: list[list[tuple[int, int]]] = [[] for _ in queries]
    for batch in EvaluationLoader(make_sessions(queries), batch_size):
        with torch.inference_mode():
            above, tied = model.count_positions(batch)
        row, _ = batch.positions()
        for session, *pair in zip(batch.sessions[row].tolist(), above.tolist(), tied.tolist(), strict=True):
            found[session].append((pair[0], pair[1]))
    return found
