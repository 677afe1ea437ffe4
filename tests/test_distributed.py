"""Two real processes train and evaluate one model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from helpers import make_sessions, make_vocabulary, one_error
from resuming import differences, finish, start

from sessrec import fit
from sessrec.data.datamodule import SessionDataModule
from sessrec.data.loaders import EvaluationLoader, SessionParallelLoader
from sessrec.data.session_parallel import Window
from sessrec.distributed import exchange_gradients
from sessrec.models import GRU4Rec

SEQUENCES = [[(7 * session + 3 * step) % 11 for step in range(2 + (session * session) % 6)] for session in range(23)]
ARGS = [
    *("--data.path", "log.tsv", "--data.cache_dir", "null", "--data.batch_size", "3", "--data.steps_per_window", "7"),
    *("--data.eval_batch_size", "4", "--data.shuffle", "true", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "7", "--trainer.max_epochs", "2"),
    *("--model", "GRU4Rec", "--model.layers", "[8,6]", "--model.n_sample", "9", "--model.dropout_p_hidden", "0.2"),
    *("--model.momentum", "0.3", "--trainer.logger.version", "run"),
]
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("cross-entropy", {}),
    ("bpr-max", {}),
    ("cross-entropy", {"constrained_embedding": False, "embedding": 4}),
]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
LAUNCH = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SESSREC_RUN_NAME")
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
LAST = ["--ckpt_path", "last"]


@pytest.mark.parametrize("n_lanes", [1, 3, 20])
def test_each_process_takes_its_own_lanes_of_the_same_steps(n_lanes: int) -> None:
    sessions = make_sessions(SEQUENCES)
    whole = list(SessionParallelLoader(sessions, 2 * n_lanes, steps_per_window=5))
    halves = [list(SessionParallelLoader(sessions, n_lanes, 5, rank=rank, n_ranks=2)) for rank in range(2)]
    assert len(whole) == len(halves[0]) == len(halves[1])
    for window, *parts in zip(whole, *halves, strict=True):
        for joined, *own in zip(window[:4], *(part[:4] for part in parts), strict=True):
            assert torch.equal(joined, torch.cat(own, dim=1))
        assert window.widths.tolist() == (parts[0].widths + parts[1].widths).tolist()
        assert {part.first_step for part in parts} == {window.first_step}


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 30])
def test_each_session_is_evaluated_by_one_process(n_ranks: int) -> None:
    sessions = make_sessions(SEQUENCES)
    seen: list[int] = []
    for rank in range(n_ranks):
        loader = EvaluationLoader(sessions, 4, rank=rank, n_ranks=n_ranks)
        assert len(loader) >= 1
        for batch in (loader[number] for number in range(len(loader))):
            seen += batch.sessions.tolist()
    assert sorted(seen) == list(range(len(SEQUENCES)))


def model_of(loss: str, table: dict[str, Any]) -> GRU4Rec:
    torch.manual_seed(1)
    model = GRU4Rec(layers=[5], loss=loss, n_sample=4, momentum=0.3, dropout_p_embed=0.0, **table)  # type: ignore[arg-type]
    model.set_vocabulary(make_vocabulary(11))
    return model.double()


def negatives_of(rank: int, number: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([rank, number]).integers(0, 11, (5, 4)))


def be_one_of_two(rank: int, port: int, folder: str) -> None:
    """What each of two processes does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    check_exchange(rank)
    for number, (loss, table) in enumerate(MODELS):
        torch.save(train_half(rank, loss, table), f"{folder}/{number}-{rank}.pt")
    dist.destroy_process_group()


def train_half(rank: int, loss: str, table: dict[str, Any]) -> dict[str, Any]:
    """An epoch on this process's own lanes, with fixed negatives."""
    model = model_of(loss, table)
    optimizer = model.configure_optimizers()
    losses = []
    for window in SessionParallelLoader(make_sessions(SEQUENCES), 3, 5, rank=rank, n_ranks=2):
        drawn = negatives_of(rank, window.number)[: window.n_steps]
        model.sampler.sample = lambda *_, drawn=drawn: drawn  # type: ignore[method-assign]
        losses.append(model.train_window(window, optimizer, torch.Generator()))
    return {"weights": model.state_dict(), "losses": torch.cat(losses)}


def check_exchange(rank: int) -> None:
    """Rows travel as rows, also from a process that has none to give, and equal rows of two processes stay two."""
    table, other = (torch.nn.Parameter(torch.zeros(9, 2)) for _ in range(2))
    assert not exchange_gradients([table], [other], takes_part=False)
    if rank == 0:
        table.grad = torch.sparse_coo_tensor(torch.tensor([[7, 1, 4]]), torch.ones(3, 2), (9, 2))
        other.grad = torch.full((9, 2), 2.0)
    assert exchange_gradients([table], [other], takes_part=rank == 0)
    assert table.grad is not None
    assert other.grad is not None
    assert table.grad._indices().tolist() == [[7, 1, 4]]
    assert other.grad.eq(2).all()
    table.grad = torch.sparse_coo_tensor(torch.full((1, rank + 1), 4), torch.ones(rank + 1, 2), (9, 2))
    assert exchange_gradients([table], [other], takes_part=True)
    assert table.grad._indices().tolist() == [[4, 4, 4]]
    assert other.grad.eq(4).all()


def plain_loss(logits: torch.Tensor, name: str) -> torch.Tensor:
    """Cross-entropy or BPR-max of each lane, from a score for every draw; the formulas, for autograd."""
    lanes = torch.arange(len(logits))
    own = logits[lanes, lanes][:, None]
    if name == "cross-entropy":
        return logits.logsumexp(dim=1) - own[:, 0]
    is_negative = torch.ones_like(logits, dtype=torch.bool)
    is_negative[lanes, lanes] = False
    scores = torch.nn.functional.elu(logits, 0.5)
    share = torch.where(is_negative, scores, -torch.inf).softmax(dim=1)
    gain = (share * torch.sigmoid(scores[lanes, lanes][:, None] - scores)).sum(dim=1)
    return -(gain + 1e-24).log() + (share * scores.square()).sum(dim=1)


def train_together(loss: str, table: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same in one process, by autograd: a step's loss is the mean over all six lanes, each half with its own
    negatives, and one optimiser takes the sum of both halves' gradients."""
    model = model_of(loss, table)
    optimizer = model.configure_optimizers()
    halves = [list(SessionParallelLoader(make_sessions(SEQUENCES), 3, 5, rank=rank, n_ranks=2)) for rank in range(2)]
    hidden = [torch.zeros(3, 5, dtype=torch.float64) for _ in range(2)]
    losses = []
    for windows in zip(*halves, strict=True):
        for step in range(windows[0].n_steps):
            optimizer.zero_grad()
            total = torch.zeros((), dtype=torch.float64)
            for rank, window in enumerate(windows):
                total = total + half_step(model, window, step, hidden, rank, loss)
            (total / 6).backward()
            as_rows(model)
            optimizer.step()
            losses.append(total.detach())
    return model.state_dict(), torch.stack(losses)


def half_step(
    model: GRU4Rec, window: Window, step: int, hidden: list[torch.Tensor], rank: int, loss: str
) -> torch.Tensor:
    live = window.live[step].nonzero()[:, 0]
    if not len(live):
        return torch.zeros((), dtype=torch.float64)
    inputs, targets = window.inputs[step, live], window.targets[step, live]
    drawn = torch.cat([targets, negatives_of(rank, window.number)[step]])
    state = hidden[rank][live] * ~window.starts[step, live, None]
    cell = model.cells[0]
    table = model.output_embedding if model.shared_inputs else model.input_embedding
    new = plain_gru(cell, table[inputs], state)
    hidden[rank][live] = new.detach()
    logits = new @ model.output_embedding[drawn].T + model.output_bias[drawn, 0]
    if loss == "cross-entropy":
        counts = torch.from_numpy(model.vocabulary.counts).double()
        power = torch.cat([torch.ones(len(targets)), torch.full((4,), 0.75)])
        logits = logits - power * counts[drawn].log()
    return plain_loss(logits, loss).sum()


def plain_gru(cell: Any, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    twin = torch.nn.GRUCell(cell.weight_ih.shape[1], 5).double()
    names = {name: getattr(cell, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    return torch.func.functional_call(twin, names, (inputs, state))


def as_rows(model: GRU4Rec) -> None:
    """Turn the tables' gradients into rows: all that were drawn, as the optimiser moves those alone."""
    for name, parameter in model.named_parameters():
        if name.startswith(("output", "input")) and parameter.grad is not None:
            rows = parameter.grad.abs().sum(dim=1).nonzero()[:, 0]
            parameter.grad = torch.sparse_coo_tensor(
                rows[None], parameter.grad[rows], parameter.shape, check_invariants=False
            )


def test_two_processes_train_as_one_does_on_all_lanes(tmp_path: Path) -> None:
    args = (free_port(), str(tmp_path))
    torch.multiprocessing.start_processes(be_one_of_two, args, nprocs=2, start_method="forkserver")
    for number, (loss, table) in enumerate(MODELS):
        halves = [torch.load(tmp_path / f"{number}-{rank}.pt", weights_only=True) for rank in range(2)]
        check_halves(*halves, *train_together(loss, table))


def check_halves(
    first: dict[str, Any], second: dict[str, Any], weights: dict[str, torch.Tensor], losses: torch.Tensor
) -> None:
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    torch.testing.assert_close(
        first["losses"] + second["losses"], losses, rtol=1e-7, atol=1e-10
    )  # counts are in 32 bits
    for name, weight in first["weights"].items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-6, atol=1e-8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    generator, lines, now = np.random.default_rng(0), ["SessionId\tItemId\tTime"], 0
    for session in range(150):
        first = generator.integers(12)
        for step in range(2 + generator.integers(5)):
            now += 1
            lines.append(f"s{session}\ti{(first + step * step) % 12}\t{1_600_000_000 + 10 * now}")
    (tmp_path / "log.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def join(rank: int, port: int) -> None:
    """In a child: be one of two processes that somebody else has started."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, name in ((1, f"stdout-{rank}"), (2, f"stderr-{rank}")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)


def fit_by_two(folder: Path, *args: str) -> str:
    """What both processes of a fit print."""
    port = free_port()
    both = [start(folder, args, join, rank, port) for rank in range(2)]
    codes = [finish(process, timeout=120) for process in both]
    assert codes == [0, 0], (folder / "stderr-0").read_text()[-3000:]
    return "".join((folder / f"stdout-{rank}").read_text() for rank in range(2))


def test_a_fit_of_two_processes_stops_and_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_by_two(folder, *ARGS, *TWO).count("fit of GRU4Rec") == 1
    whole = torch.load("lightning_logs/run/checkpoints/last.ckpt", weights_only=True)
    fit_by_two(folder, *ARGS, *TWO, "--trainer.logger.version", "halfway", "--trainer.max_steps", "27")
    config = ["--config", "lightning_logs/halfway/config.yaml", "--trainer.max_steps", "-1"]
    assert "taken inside an epoch" in one_error(capsys, fit.main, [*config, *LAST, *ONE])
    fit_by_two(folder, *config, *LAST)
    again = torch.load("lightning_logs/halfway/checkpoints/last.ckpt", weights_only=True)
    for key in ("global_step", "state_dict", "optimizer_states"):
        assert not differences(whole[key], again[key], key)


def test_a_signal_to_the_first_process_stops_both(folder: Path) -> None:
    """The processes are started by Lightning, with a port that it finds, as a user's are."""
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCH}
    args = [*ARGS, *TWO, "--trainer.max_epochs", "100000", "--data.val_ratio", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sessrec.fit", *args],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 60
    while not Path("lightning_logs/run/checkpoints/last.ckpt").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, out[-3000:]
    assert out.count("stopped by SIGTERM at step") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*TWO, "--model", "Markov"], "Markov is fitted in one process"),
        # of twice the batch, whose fit has half the steps
        ([*TWO, "--model.schedule", "linear", "--model.warmup", "99"], "less than the {half} steps of the fit"),
        (["--trainer.devices", "2"], "several processes need --trainer.strategy ddp"),
        (["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"], "ddp_spawn is not supported"),
    ],
)
def test_what_cannot_work_is_one_line(
    folder: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data.path", "log.tsv", "--data.cache_dir", "null", "--trainer.accelerator", "cpu"]
    data = SessionDataModule("log.tsv", cache_dir=None)
    data.setup("fit")
    base += ["--data.batch_size", "3", "--trainer.max_epochs", "1"]
    message = message.format(half=SessionParallelLoader(data.sessions["train"], 6).n_steps)
    assert message in one_error(capsys, fit.main, [*base, *args])
    assert not Path("lightning_logs").exists()
