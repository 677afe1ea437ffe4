"""Files of a lake, by a URL of any file system that Hadoop knows, such as s3a://, hdfs:// or file://."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sessrec.click_log.arrays import scratch_folder
from sessrec.click_log.files import PREPARED, is_left_out, natural_order
from sessrec.engines.spark_session import explained
from sessrec.errors import SessRecError

_LARGEST = 2**31 - 2**20  # bytes; Spark hands over files as a whole


@dataclass(frozen=True)
class LakeFile:
    """A file of a lake."""

    url: str
    size: int
    modified: int
    """Milliseconds since 1970."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Its name without the folders."""
        return PurePosixPath(self.url).name

    def resolve(self) -> str:
        """What tells it from all other files, as `Path.resolve` does."""
        return self.url

    @property
    def identity(self) -> dict[str, Any]:
        """What changes whenever its content does, as far as a lake tells."""
        return {"path": self.url, "size": self.size, "modified": self.modified}


class Lake:
    """The file systems of Spark.

    Args:
        spark: The Spark session.
    """

    def __init__(self, spark: Any) -> None:
        self._context = spark.sparkContext

    def files(self, url: str, option: str) -> list[LakeFile]:
        """The files that a URL stands for: a file, a folder or a pattern, by the rules of `log_files`.

        Args:
            url: The URL.
            option: The option that it came from, for messages.

        Raises:
            SessRecError: If nothing is there, or the file system cannot be asked.
        """
        with explained():
            system, path = self._system_of(url)
            if system.exists(path):
                status = system.getFileStatus(path)
                found = self._below(system, status) if status.isDirectory() else [_file_of(status)]
                fault = f"the folder {url} holds no click log ({option})"
            else:
                found = [_file_of(status) for status in system.globStatus(path) or [] if status.isFile()]
                fault = f"no such file: {url} ({option})"
        if not found:
            raise SessRecError(fault)
        for file in found:
            if is_left_out([file.name]):
                raise SessRecError(
                    f"{file} ({option}): of URLs, Spark reads no name that begins with a dot or underscore"
                )
            if file.size > _LARGEST:
                raise SessRecError(
                    f"{file} ({option}) has {file.size / 1e9:.1f} GB, and Spark hands over 2 GB at "
                    "most as a whole: write several"
                )
        return sorted(found, key=lambda file: natural_order(file.url))

    @contextmanager
    def copied(self, file: LakeFile) -> Iterator[Path]:
        """A copy of a file on this machine."""
        with tempfile.TemporaryDirectory(prefix="copy-", dir=scratch_folder()) as folder:
            copy = Path(folder, "file")
            with explained():
                system, path = self._system_of(file.url)
                target = self._context._jvm.org.apache.hadoop.fs.Path(copy.as_uri())
                system.copyToLocalFile(False, path, target, True)
            yield copy

    def _system_of(self, url: str) -> tuple[Any, Any]:
        """File system and path of a URL, as Hadoop has them."""
        path = self._context._jvm.org.apache.hadoop.fs.Path(url)
        return path.getFileSystem(self._context._jsc.hadoopConfiguration()), path

    def _below(self, system: Any, folder: Any) -> list[LakeFile]:
        """All files in and below a folder that may be part of a log."""
        top, found, prepared = folder.getPath().toString().rstrip("/") + "/", [], set()
        statuses = system.listFiles(folder.getPath(), True)
        while statuses.hasNext():
            file = _file_of(statuses.next())
            inner = file.url.removeprefix(top)
            if file.name == PREPARED:
                prepared.add(file.url.removesuffix(PREPARED))
            if not is_left_out(inner.split("/")):
                found.append(file)
        return [file for file in found if file.url.removesuffix(file.name) not in prepared]


def _file_of(status: Any) -> LakeFile:
    return LakeFile(status.getPath().toString(), status.getLen(), status.getModificationTime())
