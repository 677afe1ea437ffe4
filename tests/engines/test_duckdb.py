"""DuckDB prepares the very bytes that the default engine prepares, and says the same."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import one_error, random_rows
from test_downloaded_logs import test_preset_reads_the_raw_form  # noqa: F401
from test_presets import (  # noqa: F401
    test_coveo,
    test_diginetica,
    test_rees46,
    test_rees46_cuts_at_gaps_between_views,
    test_retailrocket,
    test_rsc15,
    test_yoochoose,
    test_yoochoose1_64,
)

from sessrec import fit, predict, prepare
from sessrec.click_log import arrays
from sessrec.click_log.files import PREPARED
from sessrec.data.cache import save_prepared
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.errors import SessRecError

pytest.importorskip("duckdb", reason="needs DuckDB: make test-engines")
N_LOGS = int(os.environ.get("RANDOM_LOGS", "40"))
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


@pytest.fixture(autouse=True)
def _small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in blocks and on disk also where the logs are small, and leave nothing there."""
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(arrays, "_SMALL", 1)
    monkeypatch.setattr(arrays, "_ROWS", 7)
    for name in ("engines.duckdb_index._ROWS", "click_log.gaps._ROWS", "data.log_statistics._BLOCK"):
        monkeypatch.setattr(f"sessrec.{name}", 5)
    for name in ("data.vocabulary._EVENTS", "click_log.ordering._RUNS", "data.split._SESSIONS"):
        monkeypatch.setattr(f"sessrec.{name}", 3)
    yield
    assert not list(scratch.iterdir())


@pytest.fixture(autouse=True)
def _by_both_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every log is prepared by both engines, and the results are compared."""
    count = iter(range(1_000))

    def run(self: Preparation, *args: Any, **options: Any) -> PreparedLog:
        found = []
        for engine in ("local", "duckdb"):
            own = self if engine == self.engine else replace(self, engine=engine, memory_limit=None, scratch_dir=None)
            prepared = PLAIN_RUN(own, *args, **options)
            found.append(saved(prepared, own, tmp_path / f"{engine}-{next(count)}"))
        assert found[0] == found[1]
        return prepared

    monkeypatch.setattr(Preparation, "run", run)


# 1. Random logs with random options

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


def test_random_logs_with_random_options(tmp_path: Path) -> None:
    n_prepared = 0
    for seed in range(N_LOGS):
        generator = np.random.default_rng(seed)
        files, options = random_log(generator)
        options |= random_options(generator)
        local, duckdb = (
            outcome(Preparation(files, engine=engine, **options), tmp_path / f"{engine}-{seed}")
            for engine in ("local", "duckdb")
        )
        assert local == duckdb, (seed, options)
        n_prepared += isinstance(local, dict)
        for file in files:
            Path(file).unlink()
    assert n_prepared > N_LOGS / 2


# 2. The command, its options and its errors


def test_either_engine_opens_what_the_other_has_prepared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(60))
    words = ["--data.path", "clicks.tsv", "--data.cache_dir", "prepared"]
    prepare.main([*words, "--data.engine", "duckdb", "--data.memory_limit", "100MB"])
    first = capsys.readouterr().out
    prepare.main(words)
    second = capsys.readouterr().out
    assert "opened from" in second
    assert [line for line in second.splitlines() if "opened from" not in line] == first.splitlines()
    assert len(list(Path("prepared").iterdir())) == 1


def write_rows(rows: list[tuple[str, str, int]]) -> None:
    text = "".join(f"{session}\t{item}\t{time}\n" for session, item, time in rows)
    Path("clicks.tsv").write_text("SessionId\tItemId\tTime\n" + text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.engine", "spork"], "engine"),
        (["--data.engine", "duckdb", "--data.scratch_dir", "nowhere"], "--data.scratch_dir nowhere: No such file"),
        (["--data.engine", "duckdb", "--data.memory_limit", "much"], "--data.memory_limit is 'much'; write a number"),
        (["--data.engine", "duckdb", "--data.memory_limit", "0GB"], "--data.memory_limit is '0GB'; write a number"),
        (["--data.engine", "duckdb", "--data.memory_limit", "20KB"], "--data.engine duckdb --data.memory_limit 20KB"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(20))
    assert message in one_error(capsys, prepare.main, ["--data.path", "clicks.tsv", *words])
    assert not list(Path().rglob(PREPARED))


def test_without_duckdb_its_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(random_rows(20))
    monkeypatch.setitem(sys.modules, "duckdb", None)
    message = one_error(capsys, prepare.main, ["--data.path", "clicks.tsv", "--data.engine", "duckdb"])
    assert "--data.engine duckdb needs DuckDB: pip install 'sessrec[duckdb]'" in message


def test_a_checkpoint_asks_for_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(60))
    Path("it's here").mkdir()
    words = ["--data.path", "clicks.tsv", "--data.engine", "duckdb", "--data.scratch_dir", "it's here"]
    fit.main(["--model", "Markov", *words, "--trainer.logger.version", "run", "--trainer.accelerator", "cpu"])
    assert not list(Path("it's here").iterdir())
    Path("it's here").rmdir()
    checkpoint = "lightning_logs/run/checkpoints/best.ckpt"
    predict.main(["--ckpt_path", checkpoint, "--data.path", "clicks.tsv", "--output", "lists.csv"])
    assert Path("lists.csv").exists()


def test_a_full_disk_is_told_by_its_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(60))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("os.posix_fallocate", "pyarrow.OSFile"):
        with monkeypatch.context() as patch:
            patch.setattr(f"sessrec.click_log.arrays.{name.replace('pyarrow', 'pa')}", full)
            message = one_error(capsys, prepare.main, ["--data.path", "clicks.tsv", "--data.engine", "duckdb"])
        assert re.search(r"cannot write to \S+ \(--data.scratch_dir\): No space left on device", message), message


def test_texts_beyond_32_bits_of_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a very large log are, here from the first byte on."""
    monkeypatch.setattr(arrays, "_MOST_BYTES", 1)
    rows = [(session, item.replace("x", "0"), time) for session, item, time in random_rows(40)]
    write_rows([*rows, ("s0 ", "1.0", 5), ("s0 ", "01", 6)])
    local, duckdb = (PLAIN_RUN(Preparation("clicks.tsv", engine=engine)) for engine in ("local", "duckdb"))
    assert local.report.as_dict() == duckdb.report.as_dict()
    assert "several spellings" in str(local.report.as_dict())
    for part, sessions in local.sessions.items():
        assert duckdb.sessions[part].digest == sessions.digest
        assert duckdb.sessions[part].session_ids.to_pylist() == sessions.session_ids.to_pylist()
