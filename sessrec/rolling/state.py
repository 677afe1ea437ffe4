"""What a roll was begun with: the same command goes on with it, another one is refused."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sessrec.click_log.events import Events
from sessrec.errors import SessRecError
from sessrec.writing import write_json

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None  # type: ignore[assignment]

STATE_FILE = "roll.json"
_KEPT = ("train_window", "step", "horizon", "windows", "offset", "retrain")


def check_state(
    folder: Path,
    options: argparse.Namespace,
    configs: Mapping[str, str],
    words: Sequence[str],
    runs: Sequence[str],
    events: Events,
) -> None:
    """Keep the options and the log of a new roll; refuse others for one that is there.

    Args:
        folder: Folder of the roll.
        options: Options of the command.
        configs: Text of each model's config.
        words: More words of the fits.
        runs: Names of the runs.
        events: The log.

    Raises:
        SessRecError: If a roll of the name was begun with others, or a run of another one is there.
    """
    state: dict[str, Any] = {f"--{name}": getattr(options, name) for name in _KEPT}
    state |= {"fits": [dict(configs), list(words)], "log": _digest(events)}
    file = folder / STATE_FILE
    if not file.is_file():
        if there := next((run for run in runs if (folder.parent / run).exists()), None):
            raise SessRecError(f"{folder.parent / there} is there, and of no roll of that name: give another --name")
        write_json(file, state)
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = next((name for name, value in state.items() if before[name] != value), None)
    except (ValueError, KeyError, TypeError) as error:
        raise SessRecError(f"{file} is damaged ({error!r}): give another --name") from None
    if changed is not None:
        what = {"fits": "models or options of the fits", "log": "click log"}.get(changed)
        what = f"another {what}" if changed == "log" else f"other {what}" if what else f"{changed} {before[changed]}"
        raise SessRecError(f"--name {folder.name} is there with {what}: give another --name")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second command off a roll for as long as the first one works; a killed one keeps nobody off.

    Raises:
        SessRecError: If another command works on it.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SessRecError(f"another command works on {folder}: wait for it, or give another --name") from None
        yield


def _digest(events: Events) -> str:
    """Fingerprint of a log: its sessions, items and times."""
    digest = hashlib.sha256()
    for array in (events.offsets, events.item, events.numbers, events.time):
        digest.update(np.ascontiguousarray(array).tobytes())
    for texts in (events.item_ids, events.session_ids):
        digest.update("\n".join(map(str, texts.to_pylist())).encode())
    return digest.hexdigest()
