"""DuckDB prepares the very bytes that the default engine prepares, and says the same."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import one_error, random_rows
from random_logs import PLAIN_RUN, check_random_logs, write_rows
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
from sessrec.data.preparation import Preparation

pytest.importorskip("duckdb", reason="needs DuckDB: make test-engines")
ENGINE = "duckdb"


def test_random_logs_with_random_options(tmp_path: Path) -> None:
    check_random_logs(ENGINE, int(os.environ.get("RANDOM_LOGS", "40")), tmp_path)


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
