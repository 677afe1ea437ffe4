"""What the engines that prepare logs on disk cost: `benchmark.py engines`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from tqdm import tqdm

from benchmarks import data
from benchmarks.common import in_new_process
from sessrec.click_log.files import PREPARED
from sessrec.data import SessionDataModule

_COLUMNS = ["SessionId", "Time", "ItemId", "Category"]


def _write_interleaved(file: str, n_events: int) -> None:
    """Whole numbers, rows by time, so that thousands of sessions run side by side."""
    generator = np.random.default_rng(1)
    row = np.arange(n_events)
    columns = [row // 5_000 * 1_000 + generator.integers(0, 1_000, n_events), row // 10 + 1_396_000_000]
    columns += [generator.zipf(1.2, n_events) % 100_000, generator.integers(13, size=n_events)]
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    pa.csv.write_csv(pa.table(columns, names=_COLUMNS), file, options)


def _write_parquet(file: str, n_events: int) -> None:
    """Ids as texts, sessions whose rows stand together."""
    generator = np.random.default_rng(2)
    session = np.arange(n_events) // 4
    ids = [pa.array(numbers).cast(pa.string()) for numbers in (session, generator.zipf(1.2, n_events) % 100_000)]
    texts = [pa.compute.binary_join_element_wise(kind, own, "-") for kind, own in zip("si", ids, strict=True)]
    time = pa.array(session * 3 + np.arange(n_events) % 4 + 1_396_000_000)
    table = pa.table([texts[0], time, texts[1], pa.array(np.zeros(n_events, np.int8))], names=_COLUMNS)
    pa.parquet.write_table(table, file)


LAYOUTS: dict[str, Callable[[str, int], None]] = {
    "by_session.csv": data.write_log,
    "interleaved.csv": _write_interleaved,
    "texts.parquet": _write_parquet,
}


def prepare(folder: str, layout: str, engine: str, memory_limit: str) -> dict[str, float]:
    """Seconds and peak memory in GB of the preparation of all files of a layout in a folder."""
    names = None if layout.endswith(".parquet") else _COLUMNS
    own: dict[str, Any] = (
        {} if engine == "local" else {"engine": engine, "memory_limit": memory_limit, "scratch_dir": folder}
    )
    start = time.perf_counter()
    SessionDataModule(
        f"{folder}/*-{layout}", cache_dir=f"{folder}/{engine}", column_names=names, test_ratio=0.1, **own
    ).prepare()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": time.perf_counter() - start, "peak_gb": peak}


def measure(n_events: int, repeats: int, n_large: int | None, memory_limit: str) -> dict[str, float | bool | None]:
    """Time of an event with each engine over that with the default one, and whether they prepare the same bytes.

    Args:
        n_events: Events of a log of each layout.
        repeats: Rounds; the ratio is the median over rounds and layouts.
        n_large: Events of a log of the first layout that DuckDB alone prepares, too; None for no such log.
        memory_limit: Memory that DuckDB, or the JVM of Spark, may take.
    """
    found: dict[str, float | bool | None] = {}
    ratios: dict[str, list[float]] = {engine: [] for engine in _engines() if engine != "local"}
    are_equal = True
    for layout, write in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(f"{folder}/0-{layout}", n_events)
            for number in tqdm(range(repeats), desc=layout, disable=None):
                seconds, is_equal = _by_each(folder, layout, memory_limit, number)
                for engine, own in ratios.items():
                    own.append(seconds[engine] / seconds["local"])
                are_equal &= is_equal
                found |= {f"{engine}_seconds_{layout}": own for engine, own in seconds.items()}
    found |= {"digests_equal": are_equal, "spark_ratio": None}  # where Spark is not installed
    found |= {f"{engine}_ratio": statistics.median(own) for engine, own in ratios.items()}
    return found if n_large is None else {**found, **_large(n_large, n_events, memory_limit, found)}


def _engines() -> list[str]:
    """The engines that are installed."""
    has_spark = find_spec("pyspark") is not None and (shutil.which("java") or "JAVA_HOME" in os.environ)
    return ["local", "duckdb", *(["spark"] if has_spark else [])]


def _by_each(folder: str, layout: str, memory_limit: str, number: int) -> tuple[dict[str, float], bool]:
    """Seconds of each engine, and whether all prepare the same bytes; the prepared logs are put aside."""
    seconds, digests = {}, set()
    for engine in _engines():
        seconds[engine] = in_new_process(prepare, folder, layout, engine, memory_limit)["seconds"]
        (index,) = Path(folder, engine).glob(f"*/{PREPARED}")
        digests.add(json.loads(index.read_text())["digest"])
        index.parent.rename(f"{folder}/{engine}-{number}")
    return seconds, len(digests) == 1


def _large(n_large: int, n_events: int, memory_limit: str, found: Mapping[str, Any]) -> dict[str, float | bool | None]:
    """Time and memory of DuckDB with a larger log of the first layout, in files of ``n_events``."""
    layout = next(iter(LAYOUTS))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-(-n_large // n_events)):
            data.write_log(f"{folder}/{number:04}-{layout}", n_events, number)
        own = in_new_process(prepare, folder, layout, "duckdb", memory_limit)
    ratio = own["seconds"] / n_large / (found[f"local_seconds_{layout}"] / n_events)
    return {f"duckdb_large_{name}": value for name, value in {**own, "ratio": ratio}.items()}
