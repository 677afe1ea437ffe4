"""Random logs with random options, and what an engine makes of a log, to compare engines with the default one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sessrec.click_log.files import PREPARED
from sessrec.data.cache import save_prepared
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.errors import SessRecError

PLAIN_RUN = Preparation.run


def saved(prepared: PreparedLog, preparation: Preparation, folder: Path) -> dict[str, Any]:
    """The index of a prepared log: digests of all its files, and its report."""
    save_prepared(prepared, preparation, folder)
    return json.loads((folder / PREPARED).read_text(encoding="utf-8"))


def outcome(preparation: Preparation, folder: Path) -> Any:
    try:
        return saved(PLAIN_RUN(preparation), preparation, folder)
    except SessRecError as error:
        return str(error)


def check_random_logs(engine: Any, n_logs: int, folder: Path) -> None:
    """Compare an engine with the default one on random logs with random options."""
    n_prepared = 0
    for seed in range(n_logs):
        generator = np.random.default_rng(seed)
        files, options = random_log(generator)
        options |= random_options(generator)
        expected, found = (
            outcome(Preparation(files, engine=own, **options), folder / f"{own}-{seed}") for own in ("local", engine)
        )
        assert found == expected, (seed, options)
        n_prepared += isinstance(found, dict)
        for file in files:
            Path(file).unlink()
    assert n_prepared > n_logs / 2


def write_rows(rows: list[tuple[str, str, int]], file: str = "clicks.tsv") -> None:
    text = "".join(f"{session}\t{item}\t{time}\n" for session, item, time in rows)
    Path(file).write_text("SessionId\tItemId\tTime\n" + text)


ID_KINDS: dict[str, Any] = {
    "dense": lambda number: str(number),
    "sparse": lambda number: str(10**9 + 7919 * number * number),
    "padded": lambda number: f"{number:04}",
    "words": lambda number: f"{'aé日 b'[number % 5]}{number}",
    "mixed": lambda number: str(number) if number % 3 else f"x{number}",
    "bytes": lambda number: "NA" if number == 3 else f"\u00fc{number}.0",
}
CLOCKS: dict[str, Any] = {
    "s": int,
    "ms": lambda t: int(t * 1000),
    "float": lambda t: f"{t:.3f}",
    "iso": lambda t: str(np.datetime64(int(t * 1000), "ms")) + "Z",
}


def random_log(generator: np.random.Generator) -> tuple[list[str], dict[str, Any]]:
    """Files of a random log, and the options that read them."""
    n = int(generator.integers(20, 300))
    session_id, item_id = (ID_KINDS[str(generator.choice(list(ID_KINDS)))] for _ in range(2))
    clock = CLOCKS[str(generator.choice(list(CLOCKS)))]
    sessions = np.minimum(generator.geometric(0.03, n), 60)
    if generator.random() < 0.3:
        sessions = np.sort(sessions)
    times = 1_600_000_000 + generator.integers(0, 40_000, n) // (grain := int(generator.choice([1, 60, 4000]))) * grain
    times = times + (generator.integers(0, 2, n) / 2 if clock is not CLOCKS["s"] else 0)
    if generator.random() < 0.5:
        times = np.sort(times)
    table = pd.DataFrame(
        {
            "SessionId": [session_id(int(number)) for number in sessions],
            "ItemId": [item_id(int(number)) for number in generator.zipf(1.3, n) % 30],
            "Time": [clock(t) for t in times],
            "Order": generator.integers(0, 5, n),
            "Kind": generator.choice(["view", "cart", "buy"], n),
        }
    )
    if generator.random() < 0.2:
        table.loc[generator.integers(0, n, 3), "ItemId"] = ""
    return write_files(table, generator), options_of_columns(generator)


def write_files(table: pd.DataFrame, generator: np.random.Generator) -> list[str]:
    """Write a table into some files, each in a layout of its own."""
    files = []
    for number, rows in enumerate(np.array_split(np.arange(len(table)), int(generator.integers(1, 4)))):
        part, suffix = table.iloc[rows], str(generator.choice(["tsv", "csv", "parquet"]))
        files.append(f"part{number}.{suffix}")
        if suffix == "parquet":
            part.astype(dict.fromkeys(("SessionId", "ItemId", "Time"), str)).to_parquet(files[-1])
        else:
            part.to_csv(files[-1], sep="\t" if suffix == "tsv" else ",", index=False)
    return files


def options_of_columns(generator: np.random.Generator) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if generator.random() < 0.3:
        options["order_column"] = "Order"
    if generator.random() < 0.3:
        options |= {"event_column": "Kind", "events": ["view", "cart"][: int(generator.integers(1, 3))]}
    if generator.random() < 0.3:
        options |= {"session_gap": int(generator.choice([600, 5000, 20_000]))}
        options |= {"gap_events": str(generator.choice(["all", "kept"]))}
        if generator.random() < 0.5:
            options["visitor_column"] = "SessionId"
    elif generator.random() < 0.1 and "order_column" not in options:
        options["time_column"] = None
    return options


def random_options(generator: np.random.Generator) -> dict[str, Any]:
    """Options of the cleaning and the split."""

    def one(*values: Any) -> Any:
        return values[int(generator.integers(len(values)))]

    options = {
        "drop_repeats": one(False, True),
        "min_session_length": one(2, 2, 3),
        "min_item_support": one(1, 1, 2, 5),
        "max_session_length": one(None, None, 4, 9),
        "filter_passes": one(None, None, 0, 1, 2),
        "straddling": one("cut", "test"),
        "val_ratio": one(0, 0.1, 0.2),
    }
    options |= one({"test_ratio": 0.2}, {"test_ratio": 0.0}, {"test_duration": "1h"}, {"test_duration": 3000})
    window = one(
        {}, {}, {"train_ratio": 0.5}, {"train_ratio": 0.3, "train_ratio_of": "positions"}, {"train_duration": "2h"}
    )
    return options | window | ({"replay": 0.3} if window and generator.random() < 0.3 else {})
