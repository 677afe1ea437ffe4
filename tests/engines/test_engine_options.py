"""What the options of the engines refuse, in one line, whether or not an engine is installed."""

from __future__ import annotations

import sys

import pytest
from helpers import one_error, random_rows
from random_logs import PLAIN_RUN, write_rows

from sessrec import fit, prepare
from sessrec.data.preparation import Preparation


def test_without_spark_its_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(20))
    monkeypatch.setitem(sys.modules, "pyspark", None)
    for path in ("clicks.tsv", "s3a://clicks/2024"):
        message = one_error(capsys, prepare.main, ["--data.path", path, "--data.engine", "spark"])
        assert "--data.engine spark needs PySpark, and Java 17 or later: pip install 'sessrec[spark]'" in message


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_a_url_needs_spark(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_error(capsys, prepare.main, ["--data.path", "s3a://clicks/2024", "--data.engine", engine])
    assert "s3a://clicks/2024 (--data.path): of URLs, only click logs are read, by --data.engine spark" in message


def test_no_other_table_is_read_from_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(random_rows(20))
    words = ["--model", "Popularity", "--data.path", "clicks.tsv", "--data.items", "hdfs://host/items.csv"]
    assert "hdfs://host/items.csv (--data.items): of URLs" in one_error(capsys, fit.main, words)
