"""`SparkEngine`: a click log read and sorted by Spark's workers, on one machine or many, from files or a lake."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sessrec.click_log.arrays import scratch_folder
from sessrec.click_log.files import file_identity, log_files
from sessrec.click_log.log_engine import LogEngine
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.log_table import LogTable, open_source, place_in, read_table_of
from sessrec.click_log.memory_table import is_table
from sessrec.click_log.row_index import Rows
from sessrec.engines.spark_index import SparkIndex
from sessrec.engines.spark_lake import Lake, LakeFile
from sessrec.engines.spark_session import explained, spark_session
from sessrec.engines.spark_shards import (
    ARRAYS,
    Shard,
    mapped_array,
    mapped_table,
    read_contents,
    read_shard,
    write_shard,
)
from sessrec.errors import SessRecError


class SparkEngine(LogEngine):
    """Has Spark's workers read the files and sort the rows; to be used inside of `arrays_on_disk`.

    Workers and this process share the folder of these arrays. What is brought here are the columns of the rows that are
    numbers, which lie in that folder, too, and the distinct ids.

    Args:
        memory_limit: See `spark_session`.
        scratch_dir: See `spark_session`.
    """

    def __init__(self, memory_limit: str | None = None, scratch_dir: str | None = None) -> None:
        self._options = memory_limit, scratch_dir

    def find_files(self, paths: Any, option: str) -> list[Any]:
        """See `LogEngine`; also those of a URL, in any file system that Hadoop knows."""
        return log_files(paths, option, lambda url, of_option: self._lake().files(url, of_option))

    def identity_of(self, file: Any) -> dict[str, Any]:
        """See `LogEngine`; of a URL, its length and its time of change."""
        return file.identity if isinstance(file, LakeFile) else file_identity(file)

    def read_tables(self, files: list[Any], log_format: LogFormat) -> list[LogTable]:
        """See `LogEngine`."""
        folder = scratch_folder()
        assert folder is not None
        self._folder = tempfile.TemporaryDirectory(prefix="spark-", dir=folder)
        self._path = Path(self._folder.name)
        plain = LogFormat(**{one.name: getattr(log_format, one.name) for one in fields(LogFormat)})
        if is_table(files[0]):
            shards: list[Shard | str] = [write_shard(read_table_of(files[0], plain, 1), self._path, 0)]
        else:
            with explained(self._options[0]):
                found = dict(self._read_files(files, plain)) | dict(self._read_urls(files, plain))
            shards = [found[number] for number in range(len(files))]
        for shard in shards:
            if isinstance(shard, str):  # the message of the first file that cannot be read
                raise SessRecError(shard)
        self._shards = [shard for shard in shards if isinstance(shard, Shard)]
        return [self._table(number, file, plain) for number, file in enumerate(files)]

    def index_rows(self, rows: Rows) -> SparkIndex:
        """See `LogEngine`."""
        numbers = [number for number, shard in enumerate(self._shards) if shard.n_rows]
        shards = [self._shards[number] for number in numbers]
        return SparkIndex(spark_session(*self._options), self._folder, shards, numbers, rows)

    def _read_files(self, files: list[Any], log_format: LogFormat) -> Iterator[tuple[int, Shard | str]]:
        """Have files read that all machines see."""
        jobs = [
            (number, str(file), str(file.absolute())) for number, file in enumerate(files) if isinstance(file, Path)
        ]
        if jobs:
            read = partial(read_shard, folder=self._folder.name, log_format=log_format, n_files=len(files))
            context = spark_session(*self._options).sparkContext
            numbers = (number for number, *_ in jobs)
            yield from zip(numbers, context.parallelize(jobs, len(jobs)).map(read).collect(), strict=True)

    def _read_urls(self, files: list[Any], log_format: LogFormat) -> Iterator[tuple[int, Shard | str]]:
        """Have files of a lake read, which come to the workers through Spark."""
        numbers = {file.url: number for number, file in enumerate(files) if isinstance(file, LakeFile)}
        if numbers:
            read = partial(
                read_contents, numbers=numbers, folder=self._folder.name, log_format=log_format, n_files=len(files)
            )
            names = [re.sub(r"([][{}*?\\])", r"\\\1", url) for url in numbers]  # none is a pattern
            contents = spark_session(*self._options).read.format("binaryFile").load(names)
            for row in contents.select("path", "content").mapInArrow(read, "number bigint, shard string").collect():
                shard = json.loads(row.shard)
                yield row.number, shard if isinstance(shard, str) else Shard(*shard)

    def _table(self, number: int, file: Any, log_format: LogFormat) -> LogTable:
        """The rows of a shard, mapped."""
        shard = self._shards[number]
        columns = mapped_table(self._path / f"{number}.arrow")
        arrays = {name: mapped_array(self._path / f"{number}-{name}.npy") if shard.n_rows else None for name in ARRAYS}
        pieces = {
            name: columns[name].chunks if name in columns.column_names else [] for name in ("session", "item", "event")
        }
        own = {**pieces, **arrays, **shard._asdict()}
        del own["n_rows"], own["have_numbers"]

        def place_of_row(row: int) -> str:
            return self._place_of_row(file, log_format, arrays["rows"], row)

        return LogTable(**own, place_of_row=place_of_row)

    def _place_of_row(self, file: Any, log_format: LogFormat, rows: np.ndarray | None, row: int) -> str:
        if not isinstance(file, LakeFile):
            return place_in(open_source(file, log_format), rows, row)
        with self._lake().copied(file) as copy:
            return place_in(open_source(copy, log_format), rows, row).replace(str(copy), file.url)

    def _lake(self) -> Lake:
        return Lake(spark_session(*self._options))
