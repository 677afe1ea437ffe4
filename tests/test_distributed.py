"""Several real processes train and evaluate one model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from helpers import make_sessions, make_vocabulary, one_error
from resuming import differences, finish, start

from sessrec import fit, predict, test
from sessrec.data.datamodule import SessionDataModule
from sessrec.data.loaders import EvaluationLoader, SessionLoader, SessionParallelLoader
from sessrec.data.session_parallel import Window
from sessrec.distributed import exchange_gradients, part_of
from sessrec.models import NARM, SRGNN, GRU4Rec, SASRec
from sessrec.models.neural import NeuralRecommender

SEQUENCES = [[(7 * session + 3 * step) % 11 for step in range(2 + (session * session) % 6)] for session in range(23)]
ARGS = [
    *("--data.path", "log.tsv", "--data.cache_dir", "null", "--data.batch_size", "3", "--data.steps_per_window", "7"),
    *("--data.eval_batch_size", "4", "--data.shuffle", "true", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "7", "--trainer.max_epochs", "2"),
    *("--model", "GRU4Rec", "--model.layers", "[8,6]", "--model.n_sample", "9", "--model.dropout_p_hidden", "0.2"),
    *("--model.momentum", "0.3", "--trainer.logger.version", "run"),
]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
LAUNCH = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SESSREC_RUN_NAME")
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
LAST = ["--ckpt_path", "last"]


def test_each_part_is_of_one_process_and_as_large_as_the_others() -> None:
    for n, n_ranks in [(0, 2), (1, 3), (6, 3), (7, 3), (100, 7)]:
        parts = [range(n)[part_of(n, rank, n_ranks)] for rank in range(n_ranks)]
        assert [one for part in parts for one in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 30])
def test_each_session_is_evaluated_by_one_process_in_as_many_batches(n_ranks: int) -> None:
    sessions = make_sessions(SEQUENCES)
    seen: list[int] = []
    loaders = [EvaluationLoader(sessions, 4, rank=rank, n_ranks=n_ranks) for rank in range(n_ranks)]
    assert len({len(loader) for loader in loaders}) == 1
    for loader in loaders:
        for batch in (loader[number] for number in range(len(loader))):
            seen += batch.sessions.tolist()
    assert sorted(seen) == list(range(len(SEQUENCES)))


# 1. Processes of which each trains on its part of every step


def gru_of(loss: str, **options: Any) -> NeuralRecommender:
    return GRU4Rec(**{"layers": [5], "loss": loss, "n_sample": 4, "momentum": 0.3, "dropout_p_embed": 0.0} | options)


SEPARATE = {"constrained_embedding": False, "embedding": 4}
BY_AUTOGRAD: list[tuple[str, dict[str, Any]]] = [("cross-entropy", {}), ("bpr-max", {}), ("cross-entropy", SEPARATE)]
DEEP = {"layers": [6, 5], "dropout_p_embed": 0.2, "dropout_p_hidden": 0.3}
MODELS: dict[str, Callable[[], NeuralRecommender]] = {
    **{f"autograd-{number}": partial(gru_of, loss, **table) for number, (loss, table) in enumerate(BY_AUTOGRAD)},
    "deep": partial(gru_of, "cross-entropy", **DEEP),
    "deep-bpr-max": partial(gru_of, "bpr-max", **DEEP),
    "one-hot": partial(gru_of, "cross-entropy", constrained_embedding=False),
    "top1-max-without-samples": partial(gru_of, "top1-max", n_sample=0),
    "deep-sharded": partial(gru_of, "cross-entropy", **DEEP),
    "bpr-max-sharded": partial(gru_of, "bpr-max"),
    "separate-sharded": partial(gru_of, "cross-entropy", **SEPARATE),
    "sasrec-sampled": partial(SASRec, hidden_size=6, max_length=4, n_sample=5, dropout=0.0),
    "sasrec-full": partial(SASRec, hidden_size=6, max_length=4, n_sample=0, dropout=0.0),
    "narm": partial(NARM, hidden_size=5, embedding_size=4, dropout_p_embed=0.0, dropout_p_session=0.0),
    "sr-gnn": partial(SRGNN, hidden_size=6),
}
SESSIONS_IN_BATCH = {2: 11, 3: 7}  # the last batch has fewer sessions than there are processes


def negatives_of(number: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(number).integers(0, 11, (5, 4)))


def train(name: str, n_ranks: int, n_in_all: int) -> dict[str, Any]:
    """An epoch of one model as one of ``n_ranks`` processes, of steps that ``n_in_all`` take together."""
    torch.manual_seed(1)
    model: Any = MODELS[name]()
    model.set_vocabulary(make_vocabulary(11))
    model.double()
    if name.endswith("sharded") and n_ranks > 1:
        model.shard_tables()
        assert {len(table) for table in model.tables().values()} == {len(range(dist.get_rank(), 11, n_ranks))}
    optimizer = model.configure_optimizers()
    sessions, losses = make_sessions(SEQUENCES), []
    more = n_in_all // n_ranks
    loader: Any = SessionParallelLoader(sessions, 3 * more, 5, n_ranks=n_ranks)
    if model.batches == "sessions":
        loader = SessionLoader(sessions, SESSIONS_IN_BATCH[n_in_all] * more, n_ranks=n_ranks)
    for number, window in enumerate(loader):
        if name.startswith("autograd"):
            drawn = negatives_of(number)[: window.n_steps]
            model.sampler.sample = lambda *_, drawn=drawn: drawn
        losses.append(model.train_window(window, optimizer, torch.Generator().manual_seed(number)))
    if name.endswith("sharded"):
        model.on_fit_end()
    return {"weights": model.state_dict(), "losses": torch.cat(losses)}


def be_one_of_several(rank: int, n_ranks: int, port: int, folder: str) -> None:
    """What each of several processes does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=n_ranks)
    check_exchange(rank, n_ranks)
    for name in MODELS:
        torch.save(train(name, n_ranks, n_ranks), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


def check_exchange(rank: int, n_ranks: int) -> None:
    """Rows travel as rows, also from a process that has none to give, and equal rows of two processes stay two."""
    table, other, unused = (torch.nn.Parameter(torch.zeros(9, 2)) for _ in range(3))
    if rank == 0:
        table.grad = torch.sparse_coo_tensor(torch.tensor([[7, 1, 4]]), torch.ones(3, 2), (9, 2))
        other.grad = torch.full((9, 2), 2.0)
    exchange_gradients([table, other, unused])
    assert table.grad is not None
    assert other.grad is not None
    assert unused.grad is None
    assert table.grad._indices().tolist() == [[7, 1, 4]]
    assert other.grad.eq(2).all()
    table.grad = torch.sparse_coo_tensor(torch.full((1, rank + 1), 4), torch.ones(rank + 1, 2), (9, 2))
    exchange_gradients([table, other])
    n_rows = n_ranks * (n_ranks + 1) // 2
    assert table.grad._indices().tolist() == [[4] * n_rows]
    assert other.grad.eq(2 * n_ranks).all()
    if rank == 0:
        table.grad = torch.ones(9, 2)  # whole in one, rows in the others
    exchange_gradients([table])
    assert table.grad[0].tolist() == [1, 1]
    assert table.grad[4].tolist() == [1 + (n_ranks - 1) * n_rows] * 2


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


def train_by_autograd(loss: str, table: dict[str, Any], n_lanes: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same in one process, by the formulas: a step's loss is the mean over all lanes."""
    torch.manual_seed(1)
    model: Any = gru_of(loss, **table)
    model.set_vocabulary(make_vocabulary(11))
    model.double()
    optimizer = model.configure_optimizers()
    hidden, losses = torch.zeros(n_lanes, 5, dtype=torch.float64), []
    for window in SessionParallelLoader(make_sessions(SEQUENCES), n_lanes, 5):
        for step in range(window.n_steps):
            optimizer.zero_grad()
            total = step_loss(model, window, step, hidden, loss)
            (total / n_lanes).backward()
            as_rows(model)
            optimizer.step()
            losses.append(total.detach())
    return model.state_dict(), torch.stack(losses)


def step_loss(model: Any, window: Window, step: int, hidden: torch.Tensor, loss: str) -> torch.Tensor:
    live = window.live[step].nonzero()[:, 0]
    inputs, targets = window.inputs[step, live], window.targets[step, live]
    drawn = torch.cat([targets, negatives_of(window.number)[step]])
    state = hidden[live] * ~window.starts[step, live, None]
    table = model.output_embedding if model.shared_inputs else model.input_embedding
    new = plain_gru(model.cells[0], table[inputs], state)
    hidden[live] = new.detach()
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


def as_rows(model: torch.nn.Module) -> None:
    """Turn the tables' gradients into rows: all that were drawn, as the optimiser moves those alone."""
    for name, parameter in model.named_parameters():
        if name.startswith(("output", "input")) and parameter.grad is not None:
            rows = parameter.grad.abs().sum(dim=1).nonzero()[:, 0]
            parameter.grad = torch.sparse_coo_tensor(
                rows[None], parameter.grad[rows], parameter.shape, check_invariants=False
            )


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_several_processes_train_as_one_does_on_all_lanes(n_ranks: int, tmp_path: Path) -> None:
    args = (n_ranks, free_port(), str(tmp_path))
    torch.multiprocessing.start_processes(be_one_of_several, args, nprocs=n_ranks, start_method="forkserver")
    for name in MODELS:
        found = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(n_ranks)]
        for other in found[1:]:
            assert not differences(found[0]["weights"], other["weights"], name)
        alone = train(name, 1, n_ranks)
        weights, losses = alone["weights"], alone["losses"]
        if name.startswith("autograd"):
            loss, table = BY_AUTOGRAD[int(name[-1])]
            weights, losses = train_by_autograd(loss, table, 3 * n_ranks)
        # counts are in 32 bits
        torch.testing.assert_close(sum(own["losses"] for own in found), losses, rtol=1e-6, atol=1e-9)
        for key, weight in found[0]["weights"].items():
            torch.testing.assert_close(weight, weights[key], rtol=1e-5, atol=1e-7)


# 2. Commands of several processes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    generator, lines, now = np.random.default_rng(0), ["SessionId\tItemId\tTime"], 0
    for session in range(151):
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


def join_slurm(rank: int, port: int) -> None:
    """In a child: be one of two tasks of a Slurm job."""
    join(rank, port)
    os.environ.pop("LOCAL_RANK")
    os.environ |= {"SLURM_NTASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
    os.environ |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "night", "SLURM_NTASKS_PER_NODE": "2"}


def by_two(
    folder: Path, *args: str, main: Callable[[list[str]], Any] = fit.main, join: Callable[[int, int], None] = join
) -> str:
    """What both processes of a command print."""
    port = free_port()
    both = [start(folder, args, join, rank, port, main=main) for rank in range(2)]
    codes = [finish(process, timeout=120) for process in both]
    assert codes == [0, 0], (folder / "stderr-0").read_text()[-3000:]
    return "".join((folder / f"stdout-{rank}").read_text() for rank in range(2))


def checkpoint_of(run: str) -> dict[str, Any]:
    return torch.load(f"lightning_logs/{run}/checkpoints/last.ckpt", weights_only=True)


def assert_close(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same steps, whose products were summed in another order."""
    assert one["global_step"] == other["global_step"]
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(weight, other["state_dict"][name], rtol=1e-4, atol=1e-5)


def by_torchrun(*args: str) -> None:
    words = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port()), "-m", "sessrec.fit", *args]
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCH}
    folder = str(Path(sys.executable).parent)
    environment |= {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join([folder, os.environ["PATH"]])}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_fit_of_two_processes_stops_and_goes_on_in_two_or_in_one(folder: Path) -> None:
    assert by_two(folder, *ARGS, *TWO).count("fit of GRU4Rec") == 1
    whole = checkpoint_of("run")
    sharded = [*TWO, "--trainer.strategy", "sharded"]
    by_torchrun(*ARGS, *sharded, "--trainer.logger.version", "halfway", "--trainer.max_steps", "27")
    shutil.copytree("lightning_logs/halfway", "lightning_logs/other")
    halfway, other = (["--config", f"lightning_logs/{run}/config.yaml"] for run in ("halfway", "other"))
    go_on = ["--trainer.max_steps", "-1", *LAST]
    by_two(folder, *halfway, *go_on)
    again = checkpoint_of("halfway")
    for key in ("global_step", "state_dict", "optimizer_states"):
        assert not differences(whole[key], again[key], key)
    fit.main([*other, *go_on, *ONE, "--data.batch_size", "6", "--trainer.logger.version", "other"])
    assert_close(checkpoint_of("other"), whole)


def test_two_processes_fit_test_and_predict_as_one(folder: Path) -> None:
    options = ["--model", "SASRec", "--model.dropout", "0", "--model.n_sample", "9", "--data.batch_size"]
    args = [*(word for word in ARGS if word in ("--data.path", "log.tsv")), "--data.cache_dir", "null"]
    args += [*("--data.test_ratio", "0.2", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"), *options]
    args = ["--trainer.precision", "64-true", *args]  # Adam would blow up what is 0 but for rounding
    fit.main([*args, "6", "--trainer.logger.version", "one"])
    by_two(folder, *args, "3", *TWO, "--trainer.logger.version", "two", join=join_slurm)
    assert_close(checkpoint_of("two"), checkpoint_of("one"))
    for command in (test.main, predict.main):
        words = ["--ckpt_path", "last", "--config", "lightning_logs/one/config.yaml"]
        kinds = {"one": ONE, "two": TWO}
        for name, processes in kinds.items():
            own = [*words, *processes, "--data.eval_batch_size", "75"]  # of which the second process has an empty batch
            if command is predict.main:
                own += ["--output", f"{name}.tsv", "--data.path", "log.tsv"]
            else:
                own += ["--trainer.logger.version", name]
            by_two(folder, *own, main=command) if name == "two" else command(own)
    metrics = [json.loads(Path("lightning_logs", name, "metrics.json").read_text())["metrics"] for name in kinds]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-12)
    assert len(metrics[0]) > 5
    assert Path("one.tsv").read_text() == Path("two.tsv").read_text()
    assert Path("one.tsv").read_text().count("\n") > 150 * 12 / 2


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
        ([*TWO, "--trainer.strategy", "sharded", "--model", "SASRec"], "sharded is for GRU4Rec, not for SASRec"),
        # of twice the batch, whose fit has half the steps
        ([*TWO, "--model.schedule", "linear", "--model.warmup", "99"], "less than the {half} steps of the fit"),
        (["--workers", "2"], "--workers 2 goes with --launcher ray; without it, give --trainer.devices"),
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
