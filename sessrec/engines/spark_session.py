"""Start Spark, or join the one that runs, end what was started, and tell its errors in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sessrec.errors import SessRecError, one_line

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_QUIET = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.app.name": "sessrec"}
_depth = 0
_own: list[tuple[Any, Any]] = []  # of the session started here: gateway, if the JVM was, too; handler of Ctrl+C before


def spark_session(memory_limit: str | None = None, scratch_dir: str | None = None) -> Any:
    """The Spark session that runs; else a new one, as spark-submit, spark-defaults.conf and MASTER say, or local.

    Args:
        memory_limit: Memory of the driver's JVM, such as 2GB, which without a cluster is all of Spark's; None for
            Spark's own setting.
        scratch_dir: Folder for Spark's files where there is no cluster; None for that of temporary files.

    Raises:
        SessRecError: If PySpark or Java is missing, or Spark does not start.
    """
    try:
        from pyspark import SparkContext
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SessRecError(
            "--data.engine spark needs PySpark, and Java 17 or later: pip install 'sessrec[spark]'"
        ) from error
    with explained(memory_limit):
        if not _own:
            if memory_limit is not None and (SparkContext._gateway or "PYSPARK_GATEWAY_PORT" in os.environ):
                raise SessRecError(
                    f"--data.memory_limit {memory_limit}: Spark runs already, with the memory that it was given: leave "
                    "the option out"
                )
            if SparkContext._active_spark_context is None:
                _start(memory_limit, scratch_dir)
        return SparkSession.builder.getOrCreate()


def _start(memory_limit: str | None, scratch_dir: str | None) -> None:
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    handler, gateway = signal.getsignal(signal.SIGINT), SparkContext._gateway
    joined = gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ  # a JVM that others have started
    if gateway is None:
        first = SparkConf(loadDefaults=False)
        if not {"SPARK_HOME", "SPARK_CONF_DIR"} & os.environ.keys():  # Java only hands over what Python works on
            first.set("spark.driver.defaultJavaOptions", "-XX:TieredStopAtLevel=1")
        if memory_limit is not None:
            first.set("spark.driver.memory", f"{max(1, _bytes_of(memory_limit) >> 20)}m")
        with tempfile.TemporaryFile() as log:  # what the JVM writes on the screen
            try:
                gateway = launch_gateway(first, {"stderr": log})
            except Exception as error:
                log.seek(0)
                said = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
                cause = f" ({one_line(said[-1])[:200]})" if said else ""
                raise SessRecError(
                    f"--data.engine spark cannot start Java{cause}: install Java 17 or later, or set JAVA_HOME"
                ) from error
    _own.append((None if joined else gateway, handler))
    try:
        conf = SparkConf(_jvm=gateway.jvm)
        is_local = conf.get("spark.master", "local[*]").startswith("local")
        settings = dict(_QUIET)
        if is_local:
            settings |= dict.fromkeys(("spark.driver.host", "spark.driver.bindAddress"), "127.0.0.1")
            settings |= {"spark.local.dir": tempfile.gettempdir(), "spark.shuffle.compress": "false"}
            if scratch_dir is not None:
                conf.set("spark.local.dir", str(Path(scratch_dir).expanduser().absolute()))
        for name, value in {"spark.master": "local[*]", **settings}.items():
            conf.setIfMissing(name, value)
        context = SparkContext(conf=conf, gateway=gateway)
        if is_local:  # whose workers take the Python and the package of this process
            context.pythonExec = os.environ.get("PYSPARK_PYTHON", sys.executable)
            context.environment.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    except BaseException:
        _stop()
        raise


def _bytes_of(amount: str) -> int:
    """Bytes of an amount of memory, such as 1.5GB."""
    number = float(re.match(r"[\d.]+", amount)[0])  # type: ignore[index]
    return int(number * _UNITS[amount.upper().removesuffix("B").removesuffix("I")[-1]])


@contextmanager
def session_kept() -> Iterator[None]:
    """Stop the session that `spark_session` has started at the end, once for all that nest."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _own:
            _stop()


def _stop() -> None:
    """Stop Spark, and the JVM, whose memory is free for training then."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    gateway, handler = _own.pop()
    with suppress(Exception):  # where it has ended already
        SparkSession.builder.getOrCreate().stop() if SparkContext._active_spark_context else None
    if gateway is not None:
        with suppress(Exception):
            gateway.shutdown()
        gateway.proc.stdin.close()  # at which it ends
        try:
            gateway.proc.wait(60)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
        SparkContext._gateway = SparkContext._jvm = None
    with suppress(ValueError):  # in another thread, where Spark has set none
        signal.signal(signal.SIGINT, handler)


@contextmanager
def explained(memory_limit: str | None = None) -> Iterator[None]:
    """Turn an error of Spark into one line that names the options."""
    try:
        with warnings.catch_warnings():  # of what PySpark does with pandas, which nothing here does
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark", "py4j")) and not isinstance(error, ConnectionError):
            raise
        options = "--data.engine spark" + ("" if memory_limit is None else f" --data.memory_limit {memory_limit}")
        if isinstance(error, ConnectionError) or type(error).__name__ == "Py4JNetworkError":
            raise SessRecError(f"{options}: Java has ended, for lack of memory? (--data.memory_limit)") from error
        if (told := _told(str(error), options)) is None:
            raise
        raise SessRecError(told) from error


def _told(text: str, options: str) -> str | None:
    """What is told of an error of Spark; None of a defect in a task, whose traceback is wanted."""
    if own := re.findall(r"SessRecError: (.+)", text):
        return own[-1]  # of a task, which names the file
    if re.search(r"No module named '?sessrec", text):
        return (
            f"{options}: the Python of Spark's machines lacks sessrec: install it there, or name another one by "
            "PYSPARK_PYTHON"
        )
    if "Traceback" in text and "MemoryError" not in text:
        return None
    lines = [line.strip(" :\t") for line in text.splitlines() if not re.match(r"\s*(at\b|$|An error occurred)", line)]
    of_tasks = [line.partition("): ")[2] for line in lines if "most recent failure" in line]
    errors = [line for line in lines if re.match(r"(Caused by: )?[\w.]+(Error|Exception)\b.*: ", line)]
    told = next((line for line in [*of_tasks, *errors[-1:], *lines] if line), "it has ended")
    return f"{options}: {told[:300]}"
