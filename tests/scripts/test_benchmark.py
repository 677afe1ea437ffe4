"""The benchmarks' figures, on sizes that take no time."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import ROOT

REFERENCE = """
import sys
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
options = dict(pair.split("=") for pair in words["-ps"].split(","))
lines = open(sys.argv[1]).read().splitlines()
assert lines[0] == "SessionId\\tItemId\\tTime" and len({line.split("\\t")[0] for line in lines[1:]}) == 8000
assert options["batch_size"] == "4" and options["layers"] == "6" and options["n_epochs"] == "1"
assert words["-d"] == "cpu"
print("Epoch1 --> loss: 6.1 \\t(1.00s) \\t[12.50 mb/s | 50 e/s]")
"""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("benchmark")
    small = {
        "ce_32_100_2048": (4, {"layers": [6], "loss": "cross-entropy", "n_sample": 8}),
        "bpr-max_80_224_2048": (5, {"layers": [7], "loss": "bpr-max", "n_sample": 8, "momentum": 0.1}),
        "ce_240_512_2048": (6, {"layers": [8], "loss": "cross-entropy", "n_sample": 8}),
    }
    monkeypatch.setattr(module.training, "CONFIGS", small)
    monkeypatch.setattr(module.training, "N_ITEMS", 50)
    return module


def json_of(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    benchmark.main([*words, "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(REFERENCE)
    words = ["train", "--windows", "2", "--repeats", "1"]
    rows = json_of(benchmark, capsys, *words)["configs"]
    assert [row["name"] for row in rows] == ["ce_32_100_2048", "bpr-max_80_224_2048", "ce_240_512_2048"]
    for row, n_lanes in zip(rows, (4, 5, 6), strict=True):
        assert row["events_per_second"] == pytest.approx(n_lanes * row["steps_per_second"])
        assert 0 < row["share_of_limit"] < 1
    rows = json_of(benchmark, capsys, *words, "--reference", str(tmp_path), "--configs", "ce_32_100_2048")["configs"]
    assert rows[0]["times_reference"] > 1
    (tmp_path / "run.py").write_text("raise SystemExit('joblib is missing')")
    with pytest.raises(SystemExit, match="does not run:\njoblib is missing"):
        benchmark.main([*words, "--reference", str(tmp_path), "--configs", "ce_32_100_2048"])


def test_the_limit_has_the_products_and_rows_of_a_step(benchmark: ModuleType) -> None:
    training = benchmark.training
    sessions = training.zipf_sessions(50, 300)
    model = training.GRU4Rec(**training.CONFIGS["bpr-max_80_224_2048"][1])
    model.set_vocabulary(training.vocabulary_of(sessions, 50))
    limit = training.Limit(model, n_lanes=5)
    assert len(limit.tables) == 3  # weights, accumulator, momentum
    assert [tuple(rows.shape) for rows in limit.rows] == [(18, 7)] * 3  # 5 targets, 8 samples, 5 inputs
    flops = sorted(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right, _ in limit.products)
    assert flops == sorted([2 * 5 * 7 * 13] * 3 + [2 * 5 * 7 * 21] * 5)
    before = [table.clone() for table in limit.tables]
    window = next(iter(training.SessionParallelLoader(sessions, 5)))
    assert limit.seconds(window) > 0
    for table, old in zip(limit.tables, before, strict=True):
        assert torch.equal(table, old)  # rows are put back where they were taken


def test_eval_and_scale(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark.evaluation.evaluate(1, "cpu", catalogues=(20_000,), n_scores=2_000_000)
    assert rows[0]["name"] == "items_20000_hidden_100"
    assert 0 < rows[0]["share_of_limit"] < 1.2
    rows = benchmark.training.scale(["ce_32_100_2048"], 2, "cpu", catalogues=(50, 500))
    assert set(rows[0]) == {"name", "us_50_items", "us_500_items", "growth", "growth_of_limit"}


def test_features(benchmark: ModuleType) -> None:
    rows = benchmark.features.features(["ce_32_100_2048"], 1, 1, n_items=60, n_sessions=1_000)
    assert [row["name"] for row in rows] == ["ce_32_100_2048", "sasrec"]
    for row in rows:
        assert row["step_ratio"] == pytest.approx(row["us_with_features"] / row["us_a_step"])
        assert row["evaluation_ratio"] > 0


def test_engines(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.engines, "in_new_process", lambda function, *words: function(*words))
    found = benchmark.engines.measure(30_000, 1, 60_000, "200MB")
    assert found["digests_equal"] is True
    assert found["duckdb_ratio"] > 0
    assert found["duckdb_large_seconds"] > 0


def test_baselines(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.baselines, "N_BATCHES", 2)
    monkeypatch.setattr(benchmark.baselines, "N_RECOMMENDATIONS", 20)
    rows = benchmark.baselines.baselines(1, None, None, None, n_events=2_000)
    assert [row["name"] for row in rows] == list(benchmark.baselines.MODELS)
    assert all(row["recommend_ms_p50"] <= row["recommend_ms_p90"] for row in rows)
    log = tmp_path / "log.tsv"
    lines = [f"{number // 4}\ti{number % 7}\t{1_600_000_000 + number}" for number in range(400)]
    log.write_text("SessionId\tItemId\tTime\n" + "\n".join(lines) + "\n")
    rows = benchmark.baselines.baselines(1, log, "Time", None)
    # VSKNN: 400 - 40 events, 90 sessions; four int32 an event (item, place, session, and the two offsets), one age
    n_events, n_sessions, n_items = 360, 90, 7
    size = 4 * (3 * n_events + n_sessions + 1 + n_items + 1) + 8 * n_sessions
    assert rows[0]["times_size_of_clicks"] == pytest.approx(size / (4 * n_events + 8 * (n_sessions + 1)))


def test_sessions_are_as_popular_as_said(benchmark: ModuleType) -> None:
    counts = np.bincount(benchmark.training.zipf_sessions(100, 200_000).items, minlength=100)
    expected = 1 / np.arange(1, 101)
    np.testing.assert_allclose(counts / counts.sum(), expected / expected.sum(), atol=1e-3)


def test_wrong_options_are_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    for words in (["train", "--reference", str(tmp_path)], ["train", "--windows", "1"], ["eval", "--repeats", "0"]):
        with pytest.raises(SystemExit, match="^2$"):
            benchmark.main(words)


def test_serve(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.serving, "CASES", {"items_50": ("VMISKNN", 50, 100.0)})
    monkeypatch.setattr(benchmark.serving, "N_SESSIONS", 300)
    (row,) = json_of(benchmark, capsys, "serve", "--seconds", "0.5")["cases"]
    assert (row["name"], row["rate"]) == ("items_50", 100)
    assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert row["saturated"] > 100
    assert 0 < row["share_of_empty"] < 1


def test_load_counts_the_time_that_a_request_waits(benchmark: ModuleType) -> None:
    """Answers take 20 ms, one after the other: at 100 requests a second each waits longer than the one before."""
    load_of = importlib.import_module("benchmarks.http_load").Load
    line: asyncio.Lock

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            async with line:
                await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def ask() -> list[float]:
        nonlocal line
        line = asyncio.Lock()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        load = load_of(server.sockets[0].getsockname()[1], [b"{}"], n_connections=2)
        await load.at_rate(100, 0.2)
        server.close()
        return load.seconds

    seconds = asyncio.run(ask())
    assert len(seconds) == 20
    expected = [0.02 + 0.01 * number for number in range(20)]
    assert seconds == pytest.approx(expected, abs=0.09)
    assert seconds[-1] > 0.15


def test_processes(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ddp", "--windows", "2", "--repeats", "1", "--configs", "ce_32_100_2048"]
    (row,) = json_of(benchmark, capsys, *words)["configs"]
    assert row["name"] == "ce_32_100_2048"
    assert row["ratio"] == pytest.approx(row["us_of_several"] / row["us_of_one"])
    one, two = benchmark.processes.sharded(1001, 2, most=2)
    assert one["mb_of_tables"] == 2 * 1001 * 7 * 4 / 1e6  # weights and accumulator, six of a vector and a bias
    assert two["mb_of_tables"] == 2 * 501 * 7 * 4 / 1e6
