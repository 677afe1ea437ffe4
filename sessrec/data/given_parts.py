"""Parts of a split that somebody else has made, each given as files of its own, and what that split leaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.events import Events
from sessrec.data.split import leakage_report
from sessrec.errors import SessRecError
from sessrec.text import counted, time_text

PATHS = ("train_path", "val_path", "test_path")
"""Options that give a part; a part without one is cut off the training files."""
_CUTS = {"val": ("ratio", "duration"), "test": ("ratio", "duration", "start")}


def check_parts(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a part that is given and cut, and a later part without a training part.

    Args:
        options: Values of the options of a preparation.
        defaults: Their defaults, which do not count as given.

    Raises:
        SessRecError: With both options.
    """
    for part, cuts in _CUTS.items():
        if options[f"{part}_path"] is None:
            continue
        if options["train_path"] is None:
            raise SessRecError(f"--data.{part}_path needs --data.train_path: parts are given together")
        for name in (f"{part}_{cut}" for cut in cuts):
            if options[name] not in (None, 0, "0", defaults[name]):
                raise SessRecError(
                    f"--data.{part}_path gives the {part} part, and --data.{name} {options[name]} cuts one off: "
                    "leave out one of them"
                )


def describe_leaks(part: str, train: Events, given: Events) -> tuple[dict[str, int | str], list[str]]:
    """Count what of a given part the training part tells, as `leakage_report` does for a part that was cut off.

    Args:
        part: ``val`` or ``test``.
        train: Events of the training part.
        given: Events of the given part; sessions and items have other codes than those of ``train``.

    Returns:
        The figures, and a warning for each leak.
    """
    train, given = _with_common_items(train, given)
    figures: dict[str, int | str] = {}
    warnings = []
    end = float(train.time.max())
    counts = leakage_report(train, given, end)
    if train.has_times and given.has_times:
        n_early = int(np.count_nonzero(given.starts < end))
        n_events = counts["test_events_before_t"]
        figures |= {"train_ends": time_text(end), "sessions_before_train_ends": n_early}
        figures["events_before_train_ends"] = n_events
        if n_early:
            verb, sessions = "begins" if n_early == 1 else "begin", counted(given.n_sessions, f"{part} session")
            warnings.append(
                f"the given split leaks: {n_early:,} of {sessions} {verb} before the training part ends at "
                f"{time_text(end)}, with {counted(n_events, 'event')} before it"
            )
    figures |= {f"items_only_in_{part}": counts["items_only_in_test"], "repeated_sessions": counts["repeated_sessions"]}
    return figures, warnings


def describe_shared_ids(part: str, given: Events, other: str, events: Events) -> tuple[dict[str, int | str], list[str]]:
    """Count the session ids that a given part shares with another part.

    Args:
        part: Name of the given part.
        given: Its events.
        other: Name of the other part.
        events: Its events.

    Returns:
        The figure, and a warning where it is not 0.
    """
    ids, known = (own.session_ids.take(pa.array(own.numbers)).cast(pa.string()) for own in (given, events))
    shared = ids.filter(pc.is_in(ids, known))
    figures: dict[str, int | str] = {f"session_ids_shared_with_{other}": len(shared)}
    if not len(shared):
        return figures, []
    first = f"{counted(len(shared), 'session id')}, such as {shared[0].as_py()!r}"
    return figures, [f"{first}, shared by the {part} part and the {other} part: taken as different sessions"]


def _with_common_items(*parts: Events) -> tuple[Events, ...]:
    """The same events with one list of item ids for all."""
    encoded = pa.chunked_array([part.item_ids for part in parts]).dictionary_encode()
    item_ids = encoded.combine_chunks().dictionary
    codes = [chunk.indices.to_numpy() for chunk in encoded.unify_dictionaries().chunks]
    return tuple(replace(part, item=own[part.item], item_ids=item_ids) for part, own in zip(parts, codes, strict=True))
