"""Fields that hold lists of items: read by an option, by their type, or warned of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, sequences

from sessrec.click_log import text_source
from sessrec.click_log.lists import longest_lists
from sessrec.click_log.log_format import ItemLists, LogFormat
from sessrec.click_log.reading import read_events
from sessrec.errors import SessRecError

LISTS = ROOT / "tests" / "cases" / "118" / "lists.tsv"
MARKS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: text.replace(" ", ","),
    lambda text: text.replace(" ", ", "),
    lambda text: text.replace(" ", "|"),
    lambda text: text.replace(" ", ";"),
    lambda text: "['" + text.replace(" ", "' '") + "']",
    lambda text: '["' + text.replace(" ", '", "') + '"]',
    lambda text: "[" + text.replace(" ", ", ") + "]",
]


def rewritten(tmp_path: Path, mark: Callable[[str], str]) -> Path:
    """The log of case 118 with its lists written otherwise."""
    head, *rows = LISTS.read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    file = tmp_path / "lists.tsv"
    file.write_text("\n".join([head, *("\t".join((s, mark(items), t)) for s, items, t in cells)]) + "\n")
    return file


@pytest.mark.parametrize("mark", MARKS)
def test_case_118_lists_are_warned_of_and_read(tmp_path: Path, mark: Callable[[str], str]) -> None:
    file = rewritten(tmp_path, mark)
    (warning,) = read_events(file).warnings
    assert f"such as {mark('N101 N102')!r} ({file}, line 2)" in warning
    assert "--data.item_lists all reads lists" in warning
    longest = read_events(file, LogFormat(item_lists="longest"))
    assert sequences(longest) == {
        "1": ["N101", "N102", "N103"],
        "2": ["N102", "N103", "N101"],
        "3": ["N103", "N101", "N102"],
    }
    assert longest.figures == {"files": 1, "lists": 6, "rows": 15, "earlier_lists": 3}
    assert longest.warnings == []
    each = read_events(file, LogFormat(item_lists="all"))
    assert sequences(each)["1"] == ["N101", "N102", "N101", "N102", "N103"]
    assert each.time.tolist()[:5] == [1396867869] * 2 + [1396868049] * 3


@pytest.mark.parametrize(
    "ids",
    [
        ["Blade Runner", "Blade Runner", "The Matrix", "Alien", "The Matrix", "Blade Runner"],
        ["Alien 3", "Terminator 2", "Alien 4", "Rocky 5"],  # every one once
        ["1984 2010", "7 11"] * 20,  # ids that repeat as ids do
        ["[untitled]", "[untitled]", "[rec]", "[unknown artist]"],
        ["12,5", "13,5", "12,6"],  # parts that repeat no more often than the ids
    ],
)
def test_names_are_no_lists(write_log: Callable[..., Path], ids: list[str]) -> None:
    log = write_log([("s", item, number) for number, item in enumerate(ids)])
    assert not any("list" in warning for warning in read_events(log).warnings)


def test_printed_items_keep_their_blanks_and_commas(tmp_path: Path) -> None:
    file = tmp_path / "printed.csv"
    file.write_text(
        'SessionId,ItemId,Time\na,"[\'Blade Runner\' \'One, Two\'\n ""it\'s""]",1\nb,[],2\nc,"[]",3\nd,"",4\n'
        'e,"[7 8]",5\n"f",9,6\n'
    )
    events = read_events(file, LogFormat(item_lists="all"))
    assert sequences(events) == {"a": ["Blade Runner", "One, Two", "it's"], "e": ["7", "8"], "f": ["9"]}
    assert events.figures["rows_with_empty_item"] == 3
    assert any("3 rows dropped: empty ItemId, line 4, 5, 6" in note for note in events.notes)


@pytest.mark.parametrize(
    ("rows", "times"),
    [
        ("a\tx y\t10 20\nb\tz\t30\n", [10, 20, 30]),
        ("a\t['x' 'y']\t['1970-01-01 00:00:10' '1970-01-01 00:00:20']\nb\t['z']\t['1970-01-01T00:00:30Z']\n", None),
        ("a\tx|y\t1970-01-01 00:00:10|1970-01-01 00:00:20\nb\tz\t1970-01-01 00:00:30\n", None),
        ("a\tx y\t1970-01-01 00:00:10\nb\tz\t1970-01-01 00:00:30\n", [10, 10, 30]),  # one for a row
    ],
)
@pytest.mark.parametrize("block", [1 << 23, 60])
@pytest.mark.parametrize("lists", ["all", "longest"])
def test_lists_of_times(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: str,
    times: list[int] | None,
    block: int,
    lists: ItemLists,
) -> None:
    monkeypatch.setattr(text_source, "BLOCK", block)
    file = tmp_path / "lists.tsv"
    file.write_text("SessionId\tItemId\tTime\n" + rows)
    events = read_events(file, LogFormat(item_lists=lists))
    assert sequences(events) == {"a": ["x", "y"], "b": ["z"]}
    assert events.time.tolist() == (times or [10, 20, 30])


@pytest.mark.parametrize(
    ("content", "options", "fault"),
    [
        ("SessionId,ItemId,Time\na,1 2,x\nb,3,4\nc,5 6,y\n", {}, "line 2, 4: 4 of column 'Time' cannot be read"),
        ("SessionId,ItemId,Time\na,1 2,10 20 30\n", {}, "of a differ in length: 2 items, 3 in --data.time_column"),
        (
            "SessionId,ItemId,Time\na,\"['1' '2', ..., '9']\",1\n",
            {},
            "holds '...': it was cut short when it was printed",
        ),
        ('SessionId,ItemId,Time\na,"1 2\n3",1\n', {}, "spans lines: a quote is not closed"),
        (
            "SessionId,ItemId,Time\na,1 2,1\n",
            {"session_column": None, "item_lists": "longest"},
            "or --data.item_lists all",
        ),
        ("SessionId,ItemId,Time\na,1 2,1\n", {"next_item_column": "x", "item_lists": None}, "follows a list"),
    ],
)
def test_refusals(tmp_path: Path, content: str, options: dict[str, str | None], fault: str) -> None:
    file = tmp_path / "lists.csv"
    file.write_text(content)
    with pytest.raises(SessRecError, match=fault.replace(".", r"\.")):
        read_events(file, LogFormat(**({"item_lists": "all"} | options)))  # type: ignore[arg-type]


def test_lists_of_parquet_need_no_option(tmp_path: Path) -> None:
    """Parallel lists, lists of records, and records; an empty list and a null one are dropped, counted and named."""
    items, times = [[5, 6], [], None, [7]], [[10, 20], [], None, [30]]
    records = [
        [{"aid": f"i{item}", "ts": time} for item, time in zip(*row, strict=True)] if row[0] is not None else None
        for row in zip(items, times, strict=True)
    ]
    table = pa.table(
        {
            "SessionId": ["a", "b", "c", "d"],
            "ItemId": pa.array(items, pa.large_list(pa.int64())),
            "Time": pa.array(times, pa.list_(pa.int32())),
            "events": pa.array(records),
            "who": [{"id": 1}, {"id": 1}, None, {"id": 2}],
        }
    )
    file = tmp_path / "lists.parquet"
    pq.write_table(table, file)
    events = read_events(file)
    assert (sequences(events), events.time.tolist()) == ({"a": ["5", "6"], "d": ["7"]}, [10, 20, 30])
    assert f"{file}: 2 rows dropped: empty ItemId, row 2, 3" in events.notes
    nested = LogFormat(session_column="who.id", item_column="events.aid", time_column="events.ts")
    assert sequences(read_events(file, nested)) == {"1": ["i5", "i6"], "2": ["i7"]}
    with pytest.raises(
        SessRecError, match="no column aid; its schema gives SessionId, ItemId, Time, events.aid, events.ts"
    ):
        read_events(file, LogFormat(item_column="aid"))
    pq.write_table(pa.table({"SessionId": ["a"], "ItemId": [[1, 2]], "Time": [[1]]}), file)
    with pytest.raises(SessRecError, match="lists of a differ in length: 2 items, 1 in --data.time_column"):
        read_events(file)
    deep = pa.table({"SessionId": ["a"], "ItemId": [[[1, 2]]], "next": [[3]], "Time": [1]})
    with pytest.raises(SessRecError, match="ItemId stands in lists of lists"):
        read_events(deep)
    options = LogFormat(item_column="SessionId", session_column=None, item_lists="all", next_item_column="next")
    with pytest.raises(SessRecError, match="next_item_column holds lists"):
        read_events(deep, options)


def test_every_row_of_several_files_is_a_session_of_its_own(tmp_path: Path) -> None:
    for name, rows in (("a.csv", "1 2,3\n4,5\n"), ("b.csv", "1 2,6\n")):
        (tmp_path / name).write_text("items,next\n" + rows)
    options = LogFormat(
        session_column=None, item_column="items", next_item_column="next", item_lists="all", time_column=None
    )
    assert sequences(read_events(tmp_path, options)) == {"1": ["1", "2", "3"], "2": ["4", "5"], "3": ["1", "2", "6"]}


def test_longest_lists_against_a_plain_search() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        n_rows, n_sessions = int(generator.integers(1, 12)), int(generator.integers(1, 4))
        owner = np.concatenate([np.arange(n_sessions), generator.integers(0, n_sessions, n_rows)])
        lists = [generator.integers(0, 3, generator.integers(1, 5)).tolist() for _ in owner]
        times = generator.integers(0, 100, len(owner))
        row = np.repeat(np.arange(len(owner)), [len(items) for items in lists])
        item = np.array([item for items in lists for item in items])
        keep, time, n_others = longest_lists(owner[row], row, item, times[row])
        expected, others = set(), 0
        for session in range(n_sessions):
            rows = [number for number in range(len(owner)) if owner[number] == session]
            best = max(rows, key=lambda number: (len(lists[number]), number))
            expected.add(best)
            others += sum(lists[number] != lists[best][: len(lists[number])] for number in rows)
            assert set(time[owner[row[keep]] == session]) == {max(times[rows])}
        assert (set(row[keep]), n_others) == (expected, others)
        assert keep.sum() == sum(len(lists[number]) for number in expected)


def test_longest_counts_what_it_leaves_out(tmp_path: Path) -> None:
    """A row without a session is incomplete, an empty list an earlier state, another list is warned of; over files."""
    (tmp_path / "a.csv").write_text("SessionId,ItemId,Time\nu,1 2,9\n,4 5,8\nu,,7\nw,,7\n")
    (tmp_path / "b.csv").write_text("SessionId,ItemId,Time\nu,1 2 3,5\nv,7,6\nv,8,3\n")
    events = read_events(tmp_path, LogFormat(item_lists="longest"))
    assert sequences(events) == {"v": ["8"], "u": ["1", "2", "3"]}
    assert events.time.tolist() == [6, 9, 9, 9]
    wanted = {"lists": 7, "empty_lists": 2, "earlier_lists": 4, "rows": 9, "rows_with_empty_session": 2}
    assert {name: events.figures[name] for name in wanted} == wanted
    assert events.warnings[1:] == [  # after that of times in 1970
        "1 list with other items than the longest of the session begins with, not read: --data.item_lists all reads "
        "every list"
    ]
