"""Measure speed and memory on this machine.

train   Steps a second of GRU4Rec in the trainer's loop (progress bar, logging), in turn with the limit for the same
        sizes: the matrix products of the step, and its rows read and written, nothing else. Their ratio, window by
        window, is the result, for machines are noisy. With --reference PATH a checkout of
        hidasib/GRU4Rec_PyTorch_Official runs in turn.
eval    Positions a second of a full ranking with all metrics, in turn with its limit: the product that scores all
        items, and one comparison of every score.
features  Time of a training step and of a ranking with two categories and a vector of 384 numbers an item, over that of
        the same model without.
baselines  Positions a second of a full ranking, milliseconds of a recommendation, and size beside the training clicks'
        own, of the neighbourhood methods and rules, on generated sessions or a --log.
ddp     Time of a training step of two processes, in turn with that of one process with as many lanes in all; one thread
        each, on this machine.
sharded  Memory of tables and optimiser in each of one to three processes that share two million items out, and the time
        of a step.
memory  Peak memory of evaluation and training with a million items, and the time of a fit of a single step.
scale   How much longer a step takes with a million items than with 10,000.
data    The preparation of a log of 20 million events against pyarrow.csv.read_csv alone on the same file: ratio of the
        times, peak memory, growth of the time for an event from a log of a tenth of that, time to open the prepared log
        again, memory of a training loader, and the time to lay 5 million sessions into lanes.
engines  The preparation of logs of three layouts by DuckDB on disk, and by Spark where it is installed, in turn with
        that in memory: ratios of the times, and whether the prepared logs are the same to the byte. With --large, also
        a log of so many events by DuckDB.
serve   Milliseconds of an answer over HTTP at a fixed rate, and answers a second of a server that is never idle, beside
        those of a server that does nothing. The server has one core, the client another. mb is the server's memory,
        mb_more how much it grew while it answered.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks import baselines, data, engines, evaluation, features, processes, serving, training

from sessrec.arguments import ScriptParser
from sessrec.environment import tune_memory
from sessrec.text import Table

_SMALL = ["ce_32_100_2048", "bpr-max_80_224_2048"]  # a million items of 512 units would take gigabytes
MEASURES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "train": lambda o: training.train(
        o.configs or list(training.CONFIGS), o.windows, o.repeats, o.accelerator, o.reference
    ),
    "eval": lambda o: evaluation.evaluate(o.repeats, o.accelerator),
    "features": lambda o: features.features(o.configs or _SMALL, o.windows, o.repeats),
    "baselines": lambda o: baselines.baselines(o.repeats, o.log, o.time_column, o.test_start),
    "ddp": lambda o: processes.ddp(o.configs or _SMALL, o.windows, o.repeats),
    "sharded": lambda o: processes.sharded(2_000_000, o.windows),
    "memory": lambda o: evaluation.memory(o.repeats),
    "scale": lambda o: training.scale(o.configs or _SMALL, o.windows, o.accelerator),
    "data": lambda o: data.measure(o.events, o.repeats),
    "engines": lambda o: engines.measure(o.events, o.repeats, o.large, o.memory_limit),
    "serve": lambda o: serving.serve(o.seconds),
}


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("what", choices=MEASURES, help="what to measure")
    parser.add_argument(
        "--configs", nargs="+", choices=list(training.CONFIGS), help="train, ddp, scale, features: some of the sizes"
    )
    parser.add_argument(
        "--windows", type=int, default=8, help="train, ddp, scale, features: windows of 64 steps a round (default: 8)"
    )
    parser.add_argument(
        "--events", type=int, default=20_000_000, help="data, engines: events of a log (default: 20,000,000)"
    )
    parser.add_argument("--large", type=int, help="engines: events of a larger log, prepared by DuckDB alone")
    parser.add_argument(
        "--memory_limit", default="1GB", help="engines: memory of DuckDB, and of the JVM (default: 1GB)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="where to run (default: cpu)")
    parser.add_argument("--reference", type=Path, help="train: checkout of the reference implementation")
    parser.add_argument("--log", type=Path, help="baselines: a click log; generated sessions without one")
    parser.add_argument("--time_column", default="Time", help="baselines: the log's column of times (default: Time)")
    parser.add_argument("--test_start", type=float, help="baselines: where the log's test part begins")
    parser.add_argument("--seconds", type=float, default=10.0, help="serve: time of each measurement (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run a benchmark."""
    parser = _parser()
    options = parser.parse_args(args)
    if options.accelerator == "gpu" and not torch.cuda.is_available():
        parser.error("--accelerator gpu: there is no CUDA device here")
    if options.windows < 2 or options.repeats < 1:
        parser.error("--windows must be at least 2 and --repeats at least 1")
    if options.reference is not None and not (options.reference / "run.py").is_file():
        parser.error(f"--reference {options.reference} holds no run.py: give a checkout of the reference")
    tune_memory()  # as the commands do
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    figures = MEASURES[options.what](options)
    if options.json:
        name = "cases" if options.what == "serve" else "configs"
        print(json.dumps({name: figures} if isinstance(figures, list) else figures))
        return
    if isinstance(figures, list):
        head, rows = [*figures[0]], [[_text(value) for value in row.values()] for row in figures]
    else:
        head, rows = (
            ["figure", "value"],
            [[name.replace("_", " "), "-" if value is None else f"{value:,.6g}"] for name, value in figures.items()],
        )
    print(f"\n{Table([name.replace('_', ' ') for name in head], rows).markdown()}")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
