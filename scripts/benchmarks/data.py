"""How fast and in how much memory a click log is prepared; the work of ``benchmark.py data``.

A click log of 20 million events in the layout of the RSC15 clicks, and one of a tenth of that, are generated and
prepared (read, clean, split, map, write, check for leaks), each time in a new process, in turn with
``pyarrow.csv.read_csv`` alone on the larger file.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from tqdm import tqdm

from benchmarks.common import in_new_process
from sessrec.data import SessionDataModule
from sessrec.data.session_parallel import LaneGrid
from sessrec.data.sessions import Sessions


def write_log(file: str, n_events: int, seed: int = 0) -> None:
    """Write a click log without a header: session, ISO time with milliseconds, item, category, by session.

    Sessions begin over half a year, about in the order of their ids, and have four events on average; the items are
    100,000, of Zipf popularity.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.geometric(1 / 3, n_events // 4) + 1
    n_sessions, n_rows = len(lengths), int(lengths.sum())
    start = np.sort(generator.integers(180 * 86400, size=n_sessions)) + generator.integers(86400, size=n_sessions)
    position = np.arange(n_rows) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    time_ms = (np.repeat(start, lengths) + 1_396_000_000 + 60 * position) * 1000 + generator.integers(
        59_000, size=n_rows
    )
    stamps = pa.array(time_ms).cast(pa.timestamp("ms", tz="UTC"))
    columns = [
        np.repeat(2 * np.arange(n_sessions) + 1, lengths),
        pc.strftime(stamps, format="%Y-%m-%dT%H:%M:%SZ"),
        generator.zipf(1.2, n_rows) % 100_000 + 214_500_000,
        generator.integers(13, size=n_rows),
    ]
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    pa.csv.write_csv(pa.table(columns, names=list("abcd")), file, options)


def read_alone(file: str) -> dict[str, float]:
    """Seconds that pyarrow takes to read a file."""
    start = time.perf_counter()
    pa.csv.read_csv(file, pa.csv.ReadOptions(autogenerate_column_names=True))
    return {"seconds": time.perf_counter() - start}


def _data_module(file: str, cache_dir: str) -> SessionDataModule:
    columns = ["SessionId", "Time", "ItemId", "Category"]
    return SessionDataModule(file, cache_dir=cache_dir, column_names=columns, test_duration="1d")


def prepare(file: str, cache_dir: str) -> dict[str, float]:
    """Seconds to prepare a log and to open it again, and the peak memory of the preparation in GB."""
    shutil.rmtree(cache_dir, ignore_errors=True)
    start = time.perf_counter()
    _data_module(file, cache_dir).prepare()
    seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    _data_module(file, cache_dir).prepare()
    return {"seconds": seconds, "peak_gb": peak_gb, "open_seconds": time.perf_counter() - start}


def open_for_training(file: str, cache_dir: str) -> dict[str, float]:
    """Memory in GB, beyond that of the libraries, of a training loader over a prepared log, after 200 windows."""
    before = _own_memory_gb()
    data = _data_module(file, cache_dir)
    data.setup("fit")
    loader = data.train_dataloader()
    for number, _ in enumerate(loader):
        if number == 200:
            break
    return {"memory_gb": _own_memory_gb() - before}


def _own_memory_gb() -> float:
    """Memory of this process that is not a mapped file."""
    pages = [int(number) for number in Path("/proc/self/statm").read_text().split()]
    return (pages[1] - pages[2]) * resource.getpagesize() / 1e9


def lay_into_lanes(n_sessions: str) -> dict[str, float]:
    """Seconds to lay sessions into 32 lanes."""
    lengths = np.random.default_rng(0).geometric(1 / 3, int(n_sessions)) + 1
    sessions = Sessions(np.zeros(lengths.sum(), dtype=np.int32), np.append(0, np.cumsum(lengths)))
    start = time.perf_counter()
    LaneGrid(sessions, 32)
    return {"seconds": time.perf_counter() - start}


def measure(n_events: int, repeats: int) -> dict[str, float]:
    """Time and memory of the preparation: medians over the repeats, the peak memory the largest."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = f"{folder}/large.csv", f"{folder}/small.csv"
        write_log(large, n_events)
        write_log(small, n_events // 10)
        rounds = []
        for _ in tqdm(range(repeats), desc="rounds", disable=None):
            alone = in_new_process(read_alone, large)["seconds"]
            of_small = in_new_process(prepare, small, f"{folder}/small")
            of_large = in_new_process(prepare, large, f"{folder}/large")
            rounds.append((alone, of_small, of_large))
        return {
            "events": n_events,
            "ratio_to_read": statistics.median(of_large["seconds"] / alone for alone, _, of_large in rounds),
            "peak_gb": max(of_large["peak_gb"] for _, _, of_large in rounds),
            "growth": statistics.median(b["seconds"] / a["seconds"] / 10 for _, a, b in rounds),
            "open_seconds": statistics.median(of_large["open_seconds"] for _, _, of_large in rounds),
            "training_memory_gb": in_new_process(open_for_training, large, f"{folder}/large")["memory_gb"],
            "training_memory_gb_of_a_tenth": in_new_process(open_for_training, small, f"{folder}/small")["memory_gb"],
            "lanes_seconds": in_new_process(lay_into_lanes, "5000000")["seconds"],
        }
