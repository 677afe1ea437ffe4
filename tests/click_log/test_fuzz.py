"""Random valid logs in random layouts give the same sessions; random damage gives an error or a counted drop."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import sequences
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.errors import SessRecError

# category Z: separators of lines, C: control characters; both are tried by the damage below
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)
TRICKY = ["0012", "12", "12.0", "1.0", "1", "NA", "nan", "null", "None", "True", "-1", "+1", "2.1E+08", "0x1F", "a b"]
TRICKY += ["9007199254740993", "9007199254740992", "18446744073709551616", "007", "-0", "1e5", "inf", "\u00e9", "00"]
PLAIN = st.integers(0, 10**6).map(str)
IDS = st.one_of(PLAIN, st.sampled_from(TRICKY), TEXT)
TIMES = st.integers(1_000_000_000, 1_700_000_000)


def iso(t: int, zone: str) -> str:
    hours = int(zone[:3]) if zone[:1] in "+-" and zone else 0
    return str(np.datetime64(t + 3600 * hours, "s")) + zone


CLOCKS: dict[str, Any] = {
    "s": str,
    "float": lambda t: f"{t}.0",
    "ms": lambda t: str(t * 1000),
    "us": lambda t: str(t * 10**6),
    "ns": lambda t: str(t * 10**9),
    "iso": lambda t: iso(t, "Z"),
    "iso ms": lambda t: iso(t, ".000Z"),
    "iso naive": lambda t: iso(t, ""),
    "iso offset": lambda t: iso(t, "+02:00"),
    "iso blank": lambda t: iso(t, "").replace("T", " "),
    "UTC": lambda t: iso(t, "").replace("T", " ") + " UTC",
    "iso mixed": lambda t: iso(t, ["Z", "", ".000Z", "-05:00", ".000000000Z"][t % 5]),
}
PACKERS: dict[str, Any] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda data: zipped(data),
}


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("clicks.csv", data)
    return stream.getvalue()


@st.composite
def logs(draw: st.DrawFn) -> dict[str, list[tuple[str, int]]]:
    """Items and times of each session; no two events of a session at the same time."""
    ids = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    return {
        session: sorted(
            draw(st.lists(st.tuples(IDS, TIMES), min_size=1, max_size=5, unique_by=lambda e: e[1])), key=TIME
        )
        for session in ids
    }


def TIME(event: tuple[str, int]) -> int:  # noqa: N802 - a key
    return event[1]


LAYOUTS = st.fixed_dictionaries(
    {
        "separator": st.sampled_from(["\t", ",", ";", "|"]),
        "quoting": st.sampled_from(["none", "minimal", "all"]),
        "columns": st.permutations(["SessionId", "ItemId", "Time", "extra", "more"]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "bom": st.booleans(),
        "header": st.booleans(),
        "last end": st.booleans(),
        "clock": st.sampled_from(sorted(CLOCKS)),
        "pack": st.sampled_from(sorted(PACKERS)),
        "files": st.integers(1, 3),
    }
)


def rows_of(log: dict[str, list[tuple[str, int]]], layout: dict[str, Any], more: str) -> list[dict[str, str]]:
    """The rows of a log, its times as the layout writes them."""
    clock = CLOCKS[layout["clock"]]
    return [
        {"SessionId": session, "ItemId": item, "Time": clock(time), "extra": "x y", "more": more}
        for session, events in log.items()
        for item, time in events
    ]


def write(folder: Path, rows: list[dict[str, str]], layout: dict[str, Any]) -> list[Path]:
    files = []
    for number in range(layout["files"]):
        part = rows[number :: layout["files"]]
        if not part:
            continue
        text = "".join(line + layout["end"] for line in lines(part, layout))
        if not layout["last end"]:
            text = text[: -len(layout["end"])]
        file = folder / f"part{number}"
        data = text.encode("utf-8-sig" if layout["bom"] else "utf-8")
        file.write_bytes(PACKERS[layout["pack"]](data))
        files.append(file)
    return files


def lines(rows: list[dict[str, str]], layout: dict[str, Any]) -> list[str]:
    table = [[row[name] for name in layout["columns"]] for row in rows]
    if layout["header"]:
        table.insert(0, list(layout["columns"]))
    if layout["quoting"] == "none":
        return [layout["separator"].join(row) for row in table]
    stream = io.StringIO()
    quoting = csv.QUOTE_ALL if layout["quoting"] == "all" else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=layout["separator"], quoting=quoting, lineterminator="\n").writerows(table)
    return stream.getvalue().split("\n")[:-1]


def is_writable(log: dict[str, list[tuple[str, int]]], layout: dict[str, Any]) -> bool:
    """Whether the layout can hold these ids: quotes and separators need quoting, which a header with tabs decides."""
    texts = [*log, *(item for events in log.values() for item, _ in events)]
    if layout["quoting"] == "all" or (layout["quoting"] == "minimal" and layout["separator"] != "\t"):
        return True
    return not any('"' in text or layout["separator"] in text for text in texts)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(log=logs(), layout=LAYOUTS, shuffle=st.randoms(use_true_random=False), as_folder=st.booleans())
def test_any_layout_gives_the_same_sessions(
    tmp_path_factory: pytest.TempPathFactory, log: dict, layout: dict, shuffle: Any, as_folder: bool
) -> None:
    assume(is_writable(log, layout))
    rows = rows_of(log, layout, more="")
    shuffle.shuffle(rows)
    folder = tmp_path_factory.mktemp("log")
    files = write(folder, rows, layout)
    names = None if layout["header"] else tuple(layout["columns"])
    events = read_events(folder if as_folder else files, LogFormat(column_names=names))
    assert sequences(events) == {session: [item for item, _ in found] for session, found in log.items()}
    starts = [time for _, time in sorted((found[0][1], found[0][1]) for found in log.values())]
    assert events.starts.tolist() == starts
    assert events.time.tolist() == [
        time for session in sequences(events) for _, time in log[session]
    ]  # sessions in order of their starts, events in order of their times
    assert events.figures["rows"] == len(rows)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    log=logs(), shuffle=st.randoms(use_true_random=False), unit=st.sampled_from(["s", "ms", "us", "ns", "zone", "int"])
)
def test_typed_columns_give_the_same_sessions(
    tmp_path_factory: pytest.TempPathFactory, log: dict, shuffle: Any, unit: str
) -> None:
    rows = [(session, item, time) for session, events in log.items() for item, time in events]
    shuffle.shuffle(rows)
    frame = pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"])
    stamps = pd.to_datetime(frame["Time"], unit="s")
    if unit == "zone":
        frame["Time"] = stamps.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    elif unit != "int":
        frame["Time"] = stamps.astype(f"datetime64[{unit}]")
    file = tmp_path_factory.mktemp("log") / "log.parquet"
    frame.astype({"ItemId": "category"}).to_parquet(file, row_group_size=3)
    events = read_events(file)
    assert sequences(events) == {session: [item for item, _ in found] for session, found in log.items()}
    assert sorted(events.time.tolist()) == sorted(time for _, _, time in rows)


DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["delete", "insert", "replace", "cut", "repeat"]),
        st.floats(0, 1),
        st.one_of(
            st.sampled_from([b'"', b"\n", b"\t", b",", b"\r", b"\x00", b"\xff", b" ", b"e", b"-"]),
            st.binary(max_size=3),
        ),
    ),
    min_size=1,
    max_size=3,
)


def damaged(data: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, what in damage:
        place = int(where * len(data))
        if kind == "delete":
            data = data[:place] + data[place + 1 + len(what) :]
        elif kind == "insert":
            data = data[:place] + what + data[place:]
        elif kind == "replace":
            data = data[:place] + what + data[place + len(what) :]
        elif kind == "cut":
            data = data[:place]
        else:
            data = data[:place] + data[place : place + 40] + data[place:]
    return data


@settings(max_examples=400, deadline=None, derandomize=True)
@given(log=logs(), layout=LAYOUTS, damage=DAMAGE, damage_packed=st.booleans())
def test_damage_is_an_error_or_a_counted_drop(
    tmp_path_factory: pytest.TempPathFactory, log: dict, layout: dict, damage: list, damage_packed: bool
) -> None:
    assume(is_writable(log, layout))
    rows = rows_of(log, layout, more="z")
    data = "".join(line + layout["end"] for line in lines(rows, layout)).encode()
    packer = PACKERS[layout["pack"]]
    file = tmp_path_factory.mktemp("log") / "log"
    content = data if damage_packed else damaged(data, damage)
    file.write_bytes(damaged(packer(data), damage) if damage_packed else packer(content))
    names = None if layout["header"] else tuple(layout["columns"])
    try:
        events = read_events(file, LogFormat(column_names=names))
    except SessRecError as error:
        complaint = str(error)
    else:
        complaint = ""
    event("refused" if complaint else "read")
    if complaint:
        assert str(file) in complaint
        assert "\n" not in complaint
        return
    dropped = {name: count for name, count in events.figures.items() if name.startswith("rows_with_empty")}
    n_rows = int(events.figures["rows"])
    assert (
        n_rows - sum(map(int, dropped.values())) <= len(events) <= n_rows - max(map(int, dropped.values()), default=0)
    )
    if not damage_packed and b'"' not in content:
        n_lines = sum(bool(line) for line in content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        assert n_rows == n_lines - layout["header"]
    assert np.isfinite(events.time).all()
    assert "" not in events.session_ids.to_pylist() + events.item_ids.to_pylist()
