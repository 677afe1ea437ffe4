"""The whole preparation against plain Python over lists, on random logs with random options."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.errors import SessRecError

Session = list[tuple[str, int]]  # (item, time)


def in_order(sessions: dict[str, Session]) -> dict[str, Session]:
    """Sessions by their first event; those that begin at once stay as they are."""
    return dict(sorted(((name, events) for name, events in sessions.items() if events), key=lambda pair: pair[1][0][1]))


def read(rows: list[tuple[str, str, int]]) -> dict[str, Session]:
    """Events by time, equal times as the rows stand; sessions that begin at once by the row of their first event."""
    sessions: dict[str, Session] = {}
    for name, item, time in sorted(rows, key=lambda row: row[2]):  # stable
        sessions.setdefault(name, []).append((item, time))
    return in_order(sessions)


def clean(sessions: dict[str, Session], options: dict[str, Any]) -> dict[str, Session]:
    if options["drop_repeats"]:
        for name, events in sessions.items():
            sessions[name] = [e for n, e in enumerate(events) if n == 0 or events[n - 1][0] != e[0]]
    if (most := options["max_session_length"]) is not None:
        sessions = {name: events[:most] for name, events in sessions.items()}
    passes = 0
    while True:
        kept = {name: events for name, events in sessions.items() if len(events) >= options["min_session_length"]}
        if passes == options["filter_passes"]:
            return in_order(kept)
        counts = Counter(item for events in kept.values() for item, _ in events)
        filtered = {
            name: [e for e in events if counts[e[0]] >= options["min_item_support"]] for name, events in kept.items()
        }
        passes += 1
        if filtered == kept:
            return in_order(kept)
        sessions = {name: events for name, events in filtered.items() if events}


def cut(
    sessions: dict[str, Session], t: float, options: dict[str, Any]
) -> tuple[dict[str, Session], dict[str, Session]]:
    earlier: dict[str, Session] = {}
    later: dict[str, Session] = {}
    for name, events in sessions.items():
        if events[0][1] >= t or (options["straddling"] == "test" and events[-1][1] >= t):
            later[name] = events
        else:
            head = [event for event in events if event[1] < t]
            if len(head) >= options["min_session_length"]:
                earlier[name] = head
    return in_order(earlier), in_order(later)


def time_of_ratio(sessions: dict[str, Session], ratio: float) -> int:
    starts = [events[0][1] for events in sessions.values()]
    return starts[min(int((1 - ratio) * len(starts) + 1e-9), len(starts) - 1)]


def expected_parts(rows: list[tuple[str, str, int]], options: dict[str, Any]) -> dict[str, dict[str, Session]] | None:
    """Sessions of each part, without the items that training lacks; None where nothing is left to train on."""
    sessions = clean(read(rows), options)
    parts = {}
    for part in ("test", "val"):
        if not sessions:
            return None
        ratio, duration = options.get(f"{part}_ratio"), options.get(f"{part}_duration")
        if duration is not None:
            t: float = max(e[1] for events in sessions.values() for e in events) - duration
            if not min(events[0][1] for events in sessions.values()) < t:
                return None
        else:
            t = time_of_ratio(sessions, ratio)
        sessions, parts[part] = cut(sessions, t, options)
    if not sessions:
        return None
    known = {item for events in sessions.values() for item, _ in events}
    parts["train"] = sessions
    for part, found in parts.items():
        mapped = {name: [e for e in events if e[0] in known] for name, events in found.items()}
        order = sorted((name for name in mapped if mapped[name]), key=lambda name: mapped[name][0][1])
        parts[part] = {name: mapped[name] for name in order if len(mapped[name]) >= 2}
    return parts


def found_parts(log: PreparedLog) -> dict[str, dict[str, Session]]:
    parts = {}
    for part, sessions in log.sessions.items():
        assert sessions.session_ids is not None
        assert sessions.times is not None
        parts[part] = {
            name: [
                (log.vocabulary.item_ids[item], time)
                for item, time in zip(sessions[number].tolist(), sessions.times[start:stop].tolist(), strict=True)
            ]
            for number, (name, start, stop) in enumerate(
                zip(sessions.session_ids.to_pylist(), sessions.offsets[:-1], sessions.offsets[1:], strict=True)
            )
        }
    return parts


ROWS = st.lists(
    st.tuples(st.sampled_from("pqrstuvwxyz"), st.sampled_from("abcdefg"), st.integers(0, 60)), min_size=2, max_size=70
)
OPTIONS = st.fixed_dictionaries(
    {
        "drop_repeats": st.booleans(),
        "min_session_length": st.sampled_from([2, 2, 3]),
        "min_item_support": st.sampled_from([1, 2, 3, 5]),
        "max_session_length": st.sampled_from([None, None, 4]),
        "filter_passes": st.sampled_from([None, None, 0, 1, 2]),
        "straddling": st.sampled_from(["cut", "test"]),
        "test_ratio": st.sampled_from([0.1, 0.3, 0.5]),
        "val_ratio": st.sampled_from([0.1, 0.4]),
    },
    optional={"test_duration": st.sampled_from([5, 20, 45]), "val_duration": st.sampled_from([3, 15])},
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(rows=ROWS, options=OPTIONS)
def test_equals_plain_python(tmp_path_factory: pytest.TempPathFactory, rows: list, options: dict) -> None:
    file = tmp_path_factory.mktemp("log") / "log.tsv"
    file.write_text("SessionId\tItemId\tTime\n" + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in rows))
    expected = expected_parts(rows, options)
    if expected is None:
        with pytest.raises(SessRecError):
            Preparation(str(file), **options).run()
        return
    log = Preparation(str(file), **options).run()
    found = found_parts(log)
    for part, sessions in expected.items():
        assert found.get(part, {}) == sessions
        assert list(found.get(part, {})) == list(sessions)  # in the same order
    train = expected["train"]
    counts = Counter(item for events in train.values() for item, _ in events)
    assert dict(zip(log.vocabulary.item_ids, log.vocabulary.counts.tolist(), strict=True)) == counts
    first_seen = list(dict.fromkeys(item for events in train.values() for item, _ in events))
    assert log.vocabulary.item_ids == first_seen
    for part in ("test", "val"):
        figures = log.report.sections[f"{part} cut"]
        assert figures["train_events_at_or_after_t"] == figures["shared_sessions"] == 0
        if part in found:
            assert log.report.sections[part]["positions"] == sum(len(events) - 1 for events in found[part].values())
    assert max(e[1] for events in train.values() for e in events) < log.report.cuts["val"] <= log.report.cuts["test"]


def test_every_dropped_event_is_counted(tmp_path: Path) -> None:
    """The report's figures of each step lead from the rows to the parts."""
    generator = np.random.default_rng(3)
    rows = [
        (f"s{generator.integers(90)}", f"i{generator.integers(25)}", int(generator.integers(5000))) for _ in range(700)
    ]
    file = tmp_path / "log.tsv"
    file.write_text("SessionId\tItemId\tTime\n" + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in rows) + "s1\t\t7\n")
    log = Preparation(
        str(file), drop_repeats=True, min_item_support=20, max_session_length=9, test_ratio=0.3, val_ratio=0.2
    ).run()
    report: Any = log.report.sections
    assert report["read"]["rows"] - report["read"]["incomplete_rows"] == report["log"]["events"] == 700
    dropped = [count for name, count in report["cleaned"].items() if name.startswith("events_dropped")]
    assert report["log"]["events"] - sum(dropped) == report["cleaned"]["events"]
    cuts = sum(
        report[f"{part} cut"][name] for part in ("test", "val") for name in ("events_of_tails", "events_of_short_heads")
    )
    assert report["cleaned"]["events"] - cuts == sum(report[part]["events_before"] for part in ("train", "val", "test"))
    for part in ("train", "val", "test"):
        figures = report[part]
        assert figures["events_before"] - figures["unknown_events"] - figures["short_events"] == figures["events"]
        assert figures["sessions_before"] - figures["short_sessions"] == figures["sessions"] == len(log.sessions[part])
