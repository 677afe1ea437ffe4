"""What training in several processes costs: `benchmark.py ddp`."""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.optim import Optimizer
from tqdm import tqdm

from benchmarks import training
from benchmarks.common import vocabulary_of, zipf_sessions
from sessrec.data.loaders import SessionParallelLoader
from sessrec.data.session_parallel import Window
from sessrec.data.sessions import Sessions
from sessrec.models import GRU4Rec

N_PROCESSES = 2


class _Task(NamedTuple):
    """What processes train, and where they meet."""

    port: int
    folder: str
    n_lanes: int
    options: dict[str, Any]
    n_items: int
    n_windows: int

    def begin(self) -> None:
        """Set up one of the processes."""
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port)}
        torch.set_num_threads(1)

    def sessions(self) -> Sessions:
        """Enough sessions for the windows."""
        return zipf_sessions(self.n_items, 20_000 + 6_000 * self.n_windows)

    def model(self, sessions: Sessions) -> GRU4Rec:
        """A model of their items."""
        model = GRU4Rec(**self.options)
        model.set_vocabulary(vocabulary_of(sessions, self.n_items))
        return model

    def windows(self, sessions: Sessions, n_processes: int) -> list[Window]:
        """The windows that so many processes train on."""
        loader = SessionParallelLoader(sessions, self.n_lanes, n_ranks=n_processes)
        return list(itertools.islice(loader, self.n_windows))


def ddp(names: Sequence[str], n_windows: int, repeats: int) -> list[dict[str, Any]]:
    """Time of a step of two processes over that of one process with as many lanes in all, one thread each.

    Both train in turn, some windows each, so that what else the machine does meets both.
    """
    rows = []
    for name in tqdm(names, disable=None):
        with TemporaryDirectory() as folder:
            task = _Task(_free_port(), folder, *training.CONFIGS[name], training.N_ITEMS, n_windows)
            torch.multiprocessing.start_processes(
                _measure, (task, repeats), nprocs=N_PROCESSES, start_method="forkserver"
            )
            one, two = torch.load(Path(folder, "seconds.pt"), weights_only=True).T
        row = {"name": name, "processes": N_PROCESSES, "us_of_one": 1e6 * one.median().item()}
        row |= {"us_of_several": 1e6 * two.median().item()}
        rows.append(row | {"ratio": statistics.median((two / one).tolist())})
    return rows


def _measure(rank: int, task: _Task, repeats: int) -> None:
    """What each process does: the first one trains alone while the others wait, then all train together."""
    task.begin()
    sessions = task.sessions()
    windows = task.windows(sessions, N_PROCESSES)
    alone, together = (_with_optimizer(task.model(sessions)) for _ in range(2))
    store = dist.TCPStore("127.0.0.1", task.port, N_PROCESSES, is_master=rank == 0)
    seconds = []
    for number in range(repeats + 1):  # the first round warms up
        own = [0.0, 0.0]
        if rank == 0:
            own[0] = _seconds(*alone, windows)
            store.set(f"done-{number}", "yes")
        store.wait([f"done-{number}"])
        dist.init_process_group("gloo", store=dist.PrefixStore(str(number), store), rank=rank, world_size=N_PROCESSES)
        dist.barrier()
        own[1] = _seconds(*together, windows)
        dist.destroy_process_group()
        seconds.append(own)
    if rank == 0:
        torch.save(torch.tensor(seconds[1:], dtype=torch.float64), Path(task.folder, "seconds.pt"))


def _with_optimizer(model: GRU4Rec) -> tuple[GRU4Rec, Optimizer]:
    return model, model.configure_optimizers()


def _seconds(model: GRU4Rec, optimizer: Optimizer, windows: Sequence[Window]) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    for number, window in enumerate(windows):
        model.train_window(window, optimizer, torch.Generator().manual_seed(number))
    model._hidden = []  # the next round has as many lanes, or half of them
    return (time.perf_counter() - start) / sum(window.n_steps for window in windows)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def sharded(n_items: int, n_windows: int, most: int = 3) -> list[dict[str, Any]]:
    """Memory of tables and optimiser in each process, and time of a step, where the tables are shared out."""
    rows = []
    for n_processes in range(1, most + 1):
        with TemporaryDirectory() as folder:
            task = _Task(_free_port(), folder, *training.CONFIGS["ce_32_100_2048"], n_items, n_windows)
            words = (n_processes, task)
            torch.multiprocessing.start_processes(_measure_shards, words, nprocs=n_processes, start_method="forkserver")
            found = [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(n_processes)]
        row = {name: max(own[name] for own in found) for name in found[0]}
        rows.append({"processes": n_processes, "items": n_items, **row})
    return rows


def _measure_shards(rank: int, n_processes: int, task: _Task) -> None:
    task.begin()
    dist.init_process_group("gloo", rank=rank, world_size=n_processes)
    sessions = task.sessions()
    model = task.model(sessions)
    model.shard_tables()
    optimizer, windows = model.configure_optimizers(), task.windows(sessions, n_processes)
    _seconds(model, optimizer, windows[:1])
    own = {"us_of_step": 1e6 * _seconds(model, optimizer, windows[1:])}
    tables = model.tables().values()
    tensors = [*tables, *(value for table in tables for value in optimizer.state[table].values())]
    own["mb_of_tables"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
    torch.save(own, Path(task.folder, f"{rank}.pt"))
    dist.destroy_process_group()
