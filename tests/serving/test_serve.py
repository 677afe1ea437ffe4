"""The command serve as a process of its own, asked over the network."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import fit_log, one_error, random_rows

from sessrec import models, serve

CHECKPOINT = Path("model.ckpt")


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(120, 14))]
        Path("clicks.tsv").write_text("\n".join(rows) + "\n")
        Path("items.csv").write_text("id,title,image\nx1,One,/1.png\nold,Gone,\n")
        Path("there.csv").write_text("ItemId,From,To\nold,2020-01-01,2021-01-01\n")
        for name, rate in {"first": "0.1", "second": "0.05"}.items():
            fit_log("clicks.tsv", "--model.learning_rate", rate, "--model.n_sample", "8", model="GRU4Rec", run=name)
    replace_model(folder, "first")
    return folder


def replace_model(folder: Path, run: str) -> None:
    """As a release does it: whole or not at all."""
    temporary = folder / "new"
    temporary.write_bytes((folder / "lightning_logs" / run / "checkpoints" / "last.ckpt").read_bytes())
    temporary.rename(folder / CHECKPOINT)


@pytest.fixture
def server(fits: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its address."""
    replace_model(fits, "first")
    words = [sys.executable, "-m", "sessrec.serve", "--ckpt_path", str(CHECKPOINT), "--port", "0", "--threads", "1"]
    words += [
        "--beside",
        "lightning_logs/second/checkpoints/last.ckpt",
        "--items",
        "items.csv",
        "--sessions",
        "clicks.tsv",
        "--availability",
        "there.csv",
    ]
    process = subprocess.Popen(words, cwd=fits, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(5)]
    assert lines[:4] == [
        "there.csv says when 1 item can be had",
        "items.csv has 1 of 14 items of the model",
        "items.csv: 1 picture left out: no address that begins with http://, https:// or data:image/",
        "clicks.tsv has 120 sessions of two events or more",
    ]
    line = lines[-1]
    assert re.match(r"GRU4Rec of model, 14 items: http://127\.0\.0\.1:\d+$", line.strip())
    yield process, line.split()[-1]
    process.kill()
    process.wait()


def test_reloads_under_load_and_an_end_that_drains(server: tuple[subprocess.Popen[str], str], fits: Path) -> None:
    process, address = server
    expected: dict[str, Any] = {}
    answers: list[dict[str, Any]] = []
    faults: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=20) as client:
            while not is_over.is_set():
                answer = client.post("/v1/recommend", json={"items": ["x1", "x2"], "k": 5})
                (answers.append(answer.json()) if answer.status_code == 200 else faults.append(answer.text))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=address, timeout=20) as client:
        for number in range(20):
            run = ("second", "first")[number % 2]
            replace_model(fits, run)
            digest = client.post("/v1/reload").json()["digest"]
            file = fits / "lightning_logs" / run / "checkpoints" / "last.ckpt"
            if digest not in expected:
                expected[digest] = models.GRU4Rec.load_from_checkpoint(file).recommend(["x1", "x2"], 5)
        replace_model(fits, "second")  # the first one serves
        os.kill(process.pid, signal.SIGHUP)
        assert process.stdout is not None
        serves = process.stdout.readline().split()[-1]
        assert client.get("/v1/model").json()["digest"].startswith(serves)
        assert serves != digest[:12]
        about = client.get("/page/about").json()
        assert [model["run"] for model in about["models"]] == ["model", "second"]
    is_over.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len({answer["model"]["digest"] for answer in answers}) == len(expected) == 2
    for answer in answers:
        scores = [(item["id"], pytest.approx(item["score"], rel=1e-6)) for item in answer["items"]]
        assert scores == expected[answer["model"]["digest"]]

    late, body = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20), b'{"items": ["x1"], "k": 5}'
    late.putrequest("POST", "/v1/recommend")
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": len(body),
        "Expect": "100-continue",
    }.items():
        late.putheader(name, str(value))
    late.endheaders()
    assert late.sock.recv(99).startswith(b"HTTP/1.1 100")  # the server has begun on it, and waits for the rest
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    late.send(body)
    assert late.getresponse().status == 200
    late.close()
    assert process.wait(20) in (0, -signal.SIGTERM)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt_path", "missing.ckpt"], "cannot read missing.ckpt: No such file"),
        (["--ckpt_path", "clicks.tsv"], "cannot read clicks.tsv: it is damaged or no checkpoint"),
        (["--ckpt_path", "model.ckpt", "--port", "70000"], "--port must be at most 65535, got 70000"),
        (["--ckpt_path", "model.ckpt", "--host", "256.1.1.1"], "cannot listen on --host 256.1.1.1 --port 8000"),
        (["--ckpt_path", "model.ckpt", "--store", "disk"], "--store must be memory, none or an address"),
        (["--ckpt_path", "model.ckpt", "--session_minutes", "0"], "above 0 and at most 525600, got 0.0"),
        (["--ckpt_path", "model.ckpt", "--session_minutes", "inf"], "above 0 and at most 525600, got inf"),
        (["--ckpt_path", "model.ckpt", "--most_waiting", "100"], "--most_waiting must be at least 256, got 100"),
        (["--ckpt_path", "model.ckpt", "--token_file", "binary"], "--token_file binary must be a token of plain ASCII"),
        (["--ckpt_path", "model.ckpt", "--beside", "missing.ckpt"], "cannot read missing.ckpt: No such file"),
        (["--ckpt_path", "model.ckpt", "--items", "missing.csv"], "cannot read --items missing.csv: [Errno 2]"),
        (["--ckpt_path", "model.ckpt", "--sessions", "missing.tsv"], "missing.tsv"),
        (["--ckpt_path", "model.ckpt", "--prot", "1"], "unknown option --prot; did you mean --port?"),
        ([], "the following arguments are required: --ckpt_path"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    words: list[str], message: str, fits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fits)
    Path("binary").write_bytes(b"secr\xe9")
    assert message in one_error(capsys, serve.main, words)
