"""Spark prepares the very bytes that the default engine prepares, and says the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, one_error, random_rows
from random_logs import PLAIN_RUN, check_random_logs, outcome, write_rows
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

from sessrec import prepare
from sessrec.click_log.files import PREPARED
from sessrec.data.cache import open_or_prepare
from sessrec.data.preparation import Preparation
from sessrec.engines import session_kept
from sessrec.engines.spark_session import _bytes_of, _told, spark_session

pytest.importorskip("pyspark", reason="needs Spark: make test-engines")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("needs Java 17", allow_module_level=True)
ENGINE = "spark"


@pytest.fixture(scope="module", autouse=True)
def _one_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Spark is started once for all tests here."""
    with pytest.MonkeyPatch.context() as patch, session_kept():
        patch.setenv("MASTER", "local[2]")
        spark_session(scratch_dir=str(tmp_path_factory.mktemp("spark")))
        yield


def compared(folder: Path, *sources: Any, **options: Any) -> Any:
    """What both engines make of a log, which is the same."""
    expected, found = (
        outcome(Preparation(*sources, engine=engine, **options), folder / engine)  # type: ignore[arg-type]
        for engine in ("local", "spark")
    )
    assert found == expected
    return found


# 1. The same bytes


def test_random_logs_with_random_options(tmp_path: Path) -> None:
    check_random_logs(ENGINE, int(os.environ.get("RANDOM_LOGS", "20")), tmp_path)


def test_lists(tmp_path: Path) -> None:
    generator, rows = np.random.default_rng(0), []
    for session in range(60):
        items = generator.integers(0, 9, int(generator.integers(2, 9))).astype(str)
        if session % 7 == 0:  # a list that the longest one does not continue
            rows.append((f"s{session}", "99,98", session * 1000))
        rows += [(f"s{session}", ",".join(items[:n]), session * 1000 + n) for n in range(1, len(items) + 1)]
    pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"]).to_csv("lists.tsv", sep="\t", index=False)
    compared(tmp_path / "longest", "lists.tsv", item_lists="longest")
    compared(tmp_path / "all", "lists.tsv", item_lists="all", drop_repeats=True)
    compared(tmp_path / "rows", "lists.tsv", item_lists="all", session_column=None)


def test_a_table_in_memory(tmp_path: Path) -> None:
    table = pd.DataFrame(random_rows(60), columns=["SessionId", "ItemId", "Time"])
    local, spark = (PLAIN_RUN(Preparation(table, engine=engine)) for engine in ("local", "spark"))
    assert spark.report.as_dict() == local.report.as_dict()
    assert {part: own.digest for part, own in spark.sessions.items()} == {
        part: own.digest for part, own in local.sessions.items()
    }


def test_a_given_test_part_and_its_leaks(tmp_path: Path) -> None:
    rows = random_rows(80)
    write_rows(rows[:200], "train.tsv")
    write_rows(rows[190:], "test.tsv")
    compared(tmp_path, train_path="train.tsv", test_path="test.tsv")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (["s,i,1\ns,j\n", "s,i\n"], "a.csv, line 3: 2 fields"),  # of two faults, that of the first file
        (["s,i,1\nSessionId,ItemId,Time\n"], "line 3"),
        (["s,i,1\nSessionId,ItemId,1\n"] * 2, "a.csv, line 3: a header stands among the rows"),
        (["", ""], "no events in "),
        (["s,i,1\n", None], "where it is no part of the log, leave it out"),
    ],
)
def test_faults_of_files_are_told_alike(contents: list[str | None], message: str, tmp_path: Path) -> None:
    for name, content in zip("ab", contents, strict=False):
        Path(f"{name}.csv").write_text("some,thing\n1,2\n" if content is None else f"SessionId,ItemId,Time\n{content}")
    assert message in compared(tmp_path / "relative", [f"{name}.csv" for name in "ab"[: len(contents)]])
    assert message in compared(tmp_path / "absolute", str(Path("*.csv").absolute()))


# 2. Files of a lake


def test_urls(tmp_path: Path) -> None:
    lake = tmp_path / "a lake"
    (lake / "day [2]").mkdir(parents=True)
    rows = [(session, item.replace("x1", "x01"), time) for session, item, time in random_rows(80)]
    write_rows([*rows[100:200], ("s0", "x 1", 7), ("", "x1", 7), ("s1", "1E+7", 8)], str(lake / "part-10.tsv"))
    write_rows(rows[:100], str(lake / "part-2.tsv"))
    write_rows(rows[200:], str(lake / "day [2]" / "part-1.tsv"))
    for name in ("_SUCCESS", ".hidden", "day [2]/.part.crc"):
        (lake / name).write_text("no log")
    (lake / "old").mkdir()
    write_rows(rows[:9], str(lake / "old" / "items.tsv"))
    (lake / "old" / PREPARED).write_text("{}")
    expected = outcome(Preparation(str(lake)), tmp_path / "local")["report"]
    assert expected["read"]["files"] == 3
    assert "part-10.tsv, line" in str(expected)
    for number, path in enumerate((f"file://{lake}", f"file://{lake}/")):
        found = outcome(Preparation(path, engine="spark"), tmp_path / f"spark-{number}")["report"]
        told = str(found).replace(path, str(lake)).replace(f"file:{lake}", str(lake))
        assert told == str(expected)
    found = outcome(Preparation(f"file://{lake}/part-*.tsv", engine="spark"), tmp_path / "pattern")["report"]
    assert found["read"]["files"] == 2


def test_what_a_url_lacks_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    for url, message in {
        f"file://{tmp_path}/nothing.csv": "no such file: file:///",
        f"file://{tmp_path}/none": "/none holds no click log (--data.path)",
        "nosuch://bucket/log": "--data.engine spark: ",
        f"[file://{tmp_path}/scratch, clicks.tsv]": "holds no click log",
    }.items():
        assert message in one_error(capsys, prepare.main, ["--data.path", url, "--data.engine", "spark"])


def test_a_prepared_log_of_a_lake_is_opened_until_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(60))
    preparation = Preparation(f"file://{tmp_path}/clicks.tsv", engine="spark")
    first, second = (open_or_prepare(preparation, "prepared") for _ in range(2))
    assert "prepared_before" in second.report.sections["read"]
    assert "prepared_before" not in first.report.sections["read"]
    write_rows(random_rows(70))
    third = open_or_prepare(preparation, "prepared")
    assert "have changed since" in third.report.sections["read"]["prepared_anew"]


# 3. Start, end, errors


def test_what_it_cannot_do_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preparation, "run", PLAIN_RUN)
    write_rows(random_rows(20))
    words = ["--data.path", "clicks.tsv", "--data.engine", "spark"]
    message = one_error(capsys, prepare.main, [*words, "--data.scratch_dir", "nowhere"])
    assert "--data.scratch_dir nowhere: No such file" in message
    assert not list(Path().rglob(PREPARED))


def test_amounts_of_memory() -> None:
    assert [_bytes_of(text) for text in ("2GB", "1.5 MiB", "64KB")] == [2 * 2**30, 3 * 2**19, 2**16]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Traceback\nsessrec.errors.SessRecError: cannot write to x: full\n", "cannot write to x: full"),
        ("ModuleNotFoundError: No module named 'sessrec'", "the Python of Spark's machines lacks sessrec"),
        (
            "An error occurred while calling o1.collect.\n: org.apache.spark.SparkException: Job aborted due to stage "
            "failure: Task 0 failed 1 times, most recent failure: Lost task 0.0 (TID 0) (host executor driver): "
            "java.io.IOException: No space left on device\n\tat java.base",
            "--data.engine spark: java.io.IOException: No space left on device",
        ),
        ("An error occurred while calling o1.x.\n: java.net.UnknownHostException: bucket: none\n\tat", "bucket: none"),
        ("", "--data.engine spark: it has ended"),
        ("PythonException: Traceback (most recent call last):\nKeyError: 'a defect'", None),
    ],
)
def test_errors_of_spark_are_one_line(text: str, told: str | None) -> None:
    message = _told(text, "--data.engine spark")
    assert (message is None) == (told is None)
    assert message is None or ((told or "") in message and "\n" not in message)


PREPARE = [sys.executable, "-m", "sessrec.prepare", "--data.path", "clicks.tsv", "--data.cache_dir", "prepared"]


def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {key: value for key, value in os.environ.items() if key != "JAVA_TOOL_OPTIONS"}
    environment |= {"PYTHONPATH": paths, "TMPDIR": str(Path("scratch").absolute()), **variables}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


def test_the_command_prints_its_report_alone_and_leaves_nothing() -> None:
    write_rows(random_rows(60))
    spark = run([*PREPARE, "--data.engine", "spark", "--data.memory_limit", "700MB"], MASTER="local[2]")
    assert (spark.returncode, spark.stderr) == (0, ""), spark.stderr
    assert not list(Path("scratch").iterdir())
    assert {path.name for path in Path().iterdir()} == {"clicks.tsv", "lightning_logs", "prepared", "scratch"}
    local = run(PREPARE)
    assert "opened from" in local.stdout
    assert [line for line in local.stdout.splitlines() if "opened from" not in line] == spark.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["--data.memory_limit", "100MB"], {}, r"--data.engine spark --data.memory_limit 100MB: .*memory"),
        ([], {"JAVA_HOME": "/nowhere"}, r"cannot start Java \(.*\): install Java 17"),
    ],
)
def test_spark_that_does_not_start_is_one_line(words: list[str], variables: dict[str, str], message: str) -> None:
    write_rows(random_rows(20))
    found = run([*PREPARE, "--data.engine", "spark", *words], **variables)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert re.search(message, line), line
    assert not list(Path("scratch").iterdir())


CLUSTER = """
import signal
from pyspark.sql import SparkSession
from sessrec.data.preparation import Preparation
from sessrec.errors import SessRecError

if __name__ == "__main__":
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
    builder.config("spark.network.timeout", "1200s").config("spark.executor.heartbeatInterval", "60s")  # if all is slow
    spark = builder.getOrCreate()
    for number in range(2):  # a session of one's own stays
        for path in ("clicks.tsv", "parts"):
            local, found = (Preparation(path, engine=engine).run() for engine in ("local", "spark"))
            assert found.report.as_dict() == local.report.as_dict()
            for part, sessions in local.sessions.items():
                assert found.sessions[part].digest == sessions.digest
                assert found.sessions[part].session_ids.to_pylist() == sessions.session_ids.to_pylist()
    try:
        Preparation("clicks.tsv", engine="spark", memory_limit="1GB").run()
    except SessRecError as error:
        print(error)
    print(spark.range(3).count(), spark.sparkContext.master)
    spark.stop()
"""


def test_a_cluster_of_processes() -> None:
    """Whose executors are Java processes of their own, with Python workers of their own."""
    write_rows(random_rows(60))
    Path("parts").mkdir()
    for number in range(3):
        write_rows(random_rows(120)[number * 150 : (number + 1) * 150], f"parts/{number}.tsv")
    Path("cluster.py").write_text(CLUSTER)
    found = run([sys.executable, "cluster.py"], PYSPARK_PYTHON=sys.executable)
    assert found.returncode == 0, found.stderr[-3000:]
    assert "--data.memory_limit 1GB: Spark runs already" in found.stdout
    assert "3 local-cluster[2,1,1024]" in found.stdout
    assert not list(Path("scratch").glob("sessrec-*"))
    shutil.rmtree("scratch")  # what the session of one's own has left there is not ours
    Path("scratch").mkdir()
