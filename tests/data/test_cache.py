"""Prepared logs on disk: the same as prepared anew, never stale, never half, whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import random_rows

import sessrec.data.cache
from sessrec.data.cache import find_prepared, open_or_prepare
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.errors import SessRecError


@pytest.fixture
def log(write_log: Callable[..., Path]) -> Preparation:
    return Preparation(str(write_log(random_rows(80))), min_item_support=2)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def assert_same(one: PreparedLog, other: PreparedLog) -> None:
    assert one.vocabulary.item_ids == other.vocabulary.item_ids
    assert one.vocabulary.counts.tolist() == other.vocabulary.counts.tolist()
    assert list(one.sessions) == list(other.sessions) == ["train", "val", "test"]
    for part in one.sessions:
        first, second = one.sessions[part], other.sessions[part]
        for name in ("items", "offsets", "times"):
            assert getattr(first, name).dtype == getattr(second, name).dtype
            assert getattr(first, name).tolist() == getattr(second, name).tolist()
        assert first.session_ids is not None
        assert second.session_ids is not None
        assert first.session_ids.to_pylist() == second.session_ids.to_pylist()
    sections = [
        {name: log.report.sections[name] for name in log.report.sections if name != "read"} for log in (one, other)
    ]
    assert sections[0] == sections[1]
    for name in ("has_times", "cuts", "warnings"):
        assert getattr(one.report, name) == getattr(other.report, name)


def test_opened_again_it_is_the_same_and_mapped(log: Preparation, cache: Path) -> None:
    in_memory = open_or_prepare(log, None)
    assert not cache.exists()
    first, again = open_or_prepare(log, cache), open_or_prepare(log, cache)
    assert_same(in_memory, first)
    assert_same(first, again)
    assert isinstance(again.sessions["train"].items, np.memmap)
    assert not again.sessions["train"].items.flags.writeable
    assert again.report.has_times
    assert again.report.sections["read"].pop("prepared_before")
    assert str(again.report) == str(first.report)
    assert len(list(cache.iterdir())) == 1


def test_other_settings_are_another_log(log: Preparation, cache: Path) -> None:
    open_or_prepare(log, cache)
    other = Preparation(log.path, min_item_support=2, test_ratio=0.5)
    assert_same(open_or_prepare(other, cache), open_or_prepare(other, None))
    assert len(list(cache.iterdir())) == 2


def test_options_of_other_types_are_the_same_log(log: Preparation, cache: Path) -> None:
    open_or_prepare(replace(log, test_ratio=0.25, missing_values=["x"]), cache)
    files, share = [Path(str(log.path))], np.float32(0.25)
    odd = Preparation(files, min_item_support=np.int64(2), test_ratio=share, missing_values=("x",))  # type: ignore[arg-type]
    assert "prepared_before" in open_or_prepare(odd, cache).report.sections["read"]
    with pytest.raises(SessRecError, match="--data.missing_values must be a list of texts, got 'x'"):
        replace(log, missing_values="x")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_changed_part_is_prepared_anew(part: str, cache: Path, write_log: Callable[..., Path]) -> None:
    rows = random_rows(90)
    cuts = {"train": rows[:60], "val": rows[60:120], "test": rows[120:]}
    log = Preparation(**{f"{name}_path": str(write_log(own, f"{name}.tsv")) for name, own in cuts.items()})
    open_or_prepare(log, cache)
    assert find_prepared(log, cache) is not None
    write_log(cuts[part] + rows[:9], f"{part}.tsv")
    assert find_prepared(log, cache) is None
    assert_same(open_or_prepare(log, cache), open_or_prepare(log, None))
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("keeps_size_and_time", [False, True])
def test_a_changed_file_is_prepared_anew(log: Preparation, cache: Path, keeps_size_and_time: bool) -> None:
    file = Path(str(log.path))
    open_or_prepare(log, cache)
    before = file.stat()
    if keeps_size_and_time:
        file.write_text(file.read_text().replace("x1\t", "x9\t"), encoding="utf-8")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    else:
        file.write_text(file.read_text() + "new\tx1\t1900000000\nnew\tx2\t1900000001\n", encoding="utf-8")
    anew = open_or_prepare(log, cache)
    assert "have changed" in str(anew.report.sections["read"]["prepared_anew"])
    assert_same(anew, open_or_prepare(log, None))
    assert len(list(cache.iterdir())) == 1  # the stale one is gone
    assert_same(open_or_prepare(log, cache), anew)


def flip_a_byte(folder: Path) -> None:
    file = folder / "train_items.npy"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped byte": flip_a_byte,
    "cut file": lambda folder: (folder / "test_offsets.npy").write_bytes(
        (folder / "test_offsets.npy").read_bytes()[:90]
    ),
    "missing file": lambda folder: (folder / "val_session_ids.arrow").unlink(),
    "missing index": lambda folder: (folder / "prepared.json").unlink(),
    "odd index": lambda folder: (folder / "prepared.json").write_text('{"digests": {}}'),
    "no json": lambda folder: (folder / "prepared.json").write_text("{"),
    "changed report": lambda folder: (folder / "prepared.json").write_text(
        (folder / "prepared.json").read_text().replace('"straddling_sessions": ', '"straddling_sessions": 1')
    ),
    "empty folder": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_mended(log: Preparation, cache: Path, damage: str) -> None:
    first = open_or_prepare(log, cache)
    sound = {part: sessions.items.copy() for part, sessions in first.sessions.items()}
    (folder,) = cache.iterdir()
    DAMAGE[damage](folder)
    mended = open_or_prepare(log, cache)
    assert "was damaged" in str(mended.report.sections["read"]["prepared_anew"])
    assert {part: sessions.items.tolist() for part, sessions in mended.sessions.items()} == {
        part: items.tolist() for part, items in sound.items()
    }
    assert "prepared_before" in open_or_prepare(log, cache).report.sections["read"]
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_a_failed_write_leaves_nothing(log: Preparation, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: Path, content: object) -> None:
        file.write_bytes(b"half")
        if file.name.startswith("val"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sessrec.data.cache, "_write", full_disk)
    with pytest.raises(SessRecError, match="cannot keep the prepared log .*No space left .*cache_dir"):
        open_or_prepare(log, cache)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert_same(open_or_prepare(log, cache), open_or_prepare(log, None))


def test_a_cache_that_cannot_be_is_named(log: Preparation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SessRecError, match="cache_dir"):
        open_or_prepare(log, tmp_path / "file" / "below")


def test_a_log_that_changes_while_it_is_read_is_refused(
    log: Preparation, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Preparation.run

    def slow_run(preparation: Preparation) -> PreparedLog:
        prepared = run(preparation)
        with Path(str(log.path)).open("a") as stream:
            stream.write("late\tx1\t1900000000\n")
        return prepared

    monkeypatch.setattr(Preparation, "run", slow_run)
    with pytest.raises(SessRecError, match="changed while it was being prepared"):
        open_or_prepare(log, cache)
    assert not cache.exists()


def test_leftovers_of_killed_processes_are_swept(log: Preparation, cache: Path) -> None:
    for name, age in ((".preparing-old", 2 * 86400), (".preparing-new", 60)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age,) * 2)
    (cache / ".preparing-gone").symlink_to("nowhere")  # as one that vanishes between the listing and the look at it
    open_or_prepare(log, cache)
    assert not (cache / ".preparing-old").exists()
    assert (cache / ".preparing-new").exists()


def prepare_at(moment: float, log: Preparation, cache: Path, results: multiprocessing.Queue) -> None:
    time.sleep(max(0.0, moment - time.time()))
    results.put([open_or_prepare(log, cache).sessions["train"].items.tolist() for _ in range(20)])


def test_processes_that_prepare_at_once(log: Preparation, cache: Path) -> None:
    """Four processes meet; one of them finds, as often as it looks, what another is writing."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    moment = time.time() + 0.2
    processes = [context.Process(target=prepare_at, args=(moment, log, cache, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [items for _ in processes for items in results.get(timeout=60)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    expected = open_or_prepare(log, None).sessions["train"].items.tolist()
    assert len(found) == 80
    assert all(items == expected for items in found)
    assert len(list(cache.iterdir())) == 1


def test_a_copy_elsewhere_is_its_own_log(log: Preparation, cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    shutil.copy(str(log.path), copy / "clicks.tsv")
    open_or_prepare(log, cache)
    other = open_or_prepare(Preparation(str(copy / "clicks.tsv"), min_item_support=2), cache)
    assert "prepared_anew" not in other.report.sections["read"]
    assert len(list(cache.iterdir())) == 2


def test_prepared_logs_are_no_part_of_the_log(log: Preparation, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(str(log.path), folder / "a.tsv")
    of_folder = Preparation(str(folder), min_item_support=2)
    first = open_or_prepare(of_folder, folder / "prepared")
    again = open_or_prepare(of_folder, folder / "prepared")
    assert "prepared_before" in again.report.sections["read"]
    assert_same(first, again)
    (folder / "b.tsv").write_text("SessionId\tItemId\tTime\nnew\tx1\t1900000000\nnew\tx2\t1900000001\n")
    grown = open_or_prepare(of_folder, folder / "prepared")  # a folder that gains a file
    assert grown.report.sections["read"]["files"] == 2
    assert "prepared_before" not in grown.report.sections["read"]


def test_other_code_prepares_anew(log: Preparation, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_or_prepare(log, cache)
    monkeypatch.setattr(sessrec.data.cache, "_code", lambda: "other code")
    assert "sessrec, have changed" in str(open_or_prepare(log, cache).report.sections["read"]["prepared_anew"])
    assert len(list(cache.iterdir())) == 1


def test_paths_may_be_paths(log: Preparation, cache: Path) -> None:
    paths: list = [Path(str(log.path))]
    assert_same(open_or_prepare(Preparation(paths, min_item_support=2), cache), open_or_prepare(log, None))
