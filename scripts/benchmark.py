"""Measure speed on this machine: ``python scripts/benchmark.py train`` or ``data``.

``train`` runs the bare step function and the whole Lightning loop (progress bar, logging) in turn, several times in one
process, and prints the steps a second of both and their ratio: the ratio is the result, for machines are noisy.

``data`` generates a click log of 20 million events in the layout of the RSC15 clicks, and one of a tenth of that, and
prepares both (read, clean, split, map, write, check for leaks), each time in a new process, in turn with
``pyarrow.csv.read_csv`` alone on the larger file. It prints the ratio of the times, the peak memory of the preparation
(the libraries' share included), the growth of the time for an event from the small log to the large one, the time to
open the prepared log again, the memory that a loader of training windows takes beyond the libraries, for both logs, and
the time to lay 5 million sessions into lanes.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tqdm import tqdm

from sessrec.batches import lane_schedule
from sessrec.data import SessionDataModule
from sessrec.models import GRU4Rec

CONFIGS: dict[str, tuple[int, dict[str, Any]]] = {
    "ce_32_100_2048": (32, {"layers": [100], "loss": "cross-entropy", "n_sample": 2048}),
    "bpr-max_80_224_2048": (
        80,
        {
            "layers": [224],
            "loss": "bpr-max",
            "n_sample": 2048,
            "dropout_p_embed": 0.5,
            "dropout_p_hidden": 0.05,
            "momentum": 0.4,
            "learning_rate": 0.05,
        },
    ),
}


def bare(data: SessionDataModule, options: dict[str, Any], n_windows: int) -> float:
    """Steps a second of the step function alone, without a trainer."""
    assert data.vocabulary is not None
    model = GRU4Rec(**options)
    model.set_vocabulary(data.vocabulary)
    optimizer, generator = model.configure_optimizers(), torch.Generator()
    steps, start = 0, time.perf_counter()
    for number, window in enumerate(data.train_dataloader()):
        if number == n_windows:
            break
        model.train_window(window, optimizer, generator)
        steps += len(window.widths)
    return steps / (time.perf_counter() - start)


class Stopwatch(GRU4Rec):
    """GRU4Rec that notes when the first window begins and the last one has ended."""

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        super().on_train_epoch_start()
        self.start = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Stop the clock."""
        self.steps_per_second = self.global_step / (time.perf_counter() - self.start)


def in_lightning(data: SessionDataModule, options: dict[str, Any], n_windows: int) -> float:
    """Steps a second in the trainer's loop, with progress bar and TensorBoard."""
    model = Stopwatch(**options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=n_windows,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
    return model.steps_per_second


def train(n_windows: int, repeats: int) -> list[dict[str, Any]]:
    """Both speeds of every configuration: medians over the repeats, taken in turn."""
    rows = []
    for name, (batch_size, options) in CONFIGS.items():
        data = SessionDataModule(batch_size=batch_size, val_ratio=0)
        data.setup("fit")
        pairs = []
        for repeat in range(repeats + 1):
            pair = bare(data, options, n_windows), in_lightning(data, options, n_windows)
            if repeat:  # the first round warms up
                pairs.append(pair)
        rows.append(
            {
                "name": name,
                "bare_steps_per_second": statistics.median(pair[0] for pair in pairs),
                "steps_per_second": statistics.median(pair[1] for pair in pairs),
                "overhead": statistics.median(pair[0] / pair[1] - 1 for pair in pairs),
            }
        )
    return rows


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


def prepare(file: str, cache_dir: str) -> dict[str, float]:
    """Seconds to prepare a log and to open it again, and the peak memory of the preparation in GB."""
    options: dict[str, Any] = {"column_names": ["SessionId", "Time", "ItemId", "Category"], "test_duration": "1d"}
    shutil.rmtree(cache_dir, ignore_errors=True)
    start = time.perf_counter()
    SessionDataModule(file, cache_dir=cache_dir, **options).prepare()
    seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    SessionDataModule(file, cache_dir=cache_dir, **options).prepare()
    return {"seconds": seconds, "peak_gb": peak_gb, "open_seconds": time.perf_counter() - start}


def open_for_training(file: str, cache_dir: str) -> dict[str, float]:
    """Memory in GB, beyond that of the libraries, of a training loader over a prepared log, after 200 windows."""
    options: dict[str, Any] = {"column_names": ["SessionId", "Time", "ItemId", "Category"], "test_duration": "1d"}
    before = _own_memory_gb()
    data = SessionDataModule(file, cache_dir=cache_dir, **options)
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
    n_pairs = np.random.default_rng(0).geometric(1 / 3, int(n_sessions))
    start = time.perf_counter()
    lane_schedule(n_pairs, 32)
    return {"seconds": time.perf_counter() - start}


def in_new_process(function: Callable[..., dict[str, float]], *args: str) -> dict[str, float]:
    """Call a function in a process of its own, whose memory is its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "call", function.__name__, *args]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def data(n_events: int, repeats: int) -> dict[str, float]:
    """Time and memory of the preparation; medians over the repeats, the peak memory the largest."""
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


def main(args: list[str] | None = None) -> None:
    """Run a benchmark.

    Args:
        args: Words of the command line; those of the process where None.
    """
    words = sys.argv[1:] if args is None else args
    if words[:1] == ["call"]:  # a measurement in a process of its own
        functions = {
            function.__name__: function for function in (read_alone, prepare, open_for_training, lay_into_lanes)
        }
        print(json.dumps(functions[words[1]](*words[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "data"], help="what to measure")
    parser.add_argument("--windows", type=int, default=8, help="train: windows of 64 steps a measurement (default: 8)")
    parser.add_argument("--events", type=int, default=20_000_000, help="data: events of the log (default: 20,000,000)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, in turn (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    options = parser.parse_args(args)
    if options.what == "data":
        figures = data(options.events, options.repeats)
        print(json.dumps(figures) if options.json else _figures_text(figures))
        return
    rows = train(options.windows, options.repeats)
    if options.json:
        print(json.dumps({"configs": rows}))
        return
    print(f"\n{'training':<22}{'bare step':>14}{'in the loop':>14}{'overhead':>11}")
    for row in rows:
        speeds = f"{row['bare_steps_per_second']:12.0f}/s{row['steps_per_second']:12.0f}/s"
        print(f"{row['name']:<22}{speeds}{row['overhead']:11.1%}")


def _figures_text(figures: dict[str, float]) -> str:
    return "\n".join(f"{name.replace('_', ' '):<34}{value:>14,.6g}" for name, value in figures.items())


if __name__ == "__main__":
    main()
