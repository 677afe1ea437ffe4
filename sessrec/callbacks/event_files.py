"""A run's TensorBoard files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from sessrec.writing import atomic_write


def drop_steps_after(run_folder: Path, step: int, inside_epoch: bool) -> None:
    """Drop from a run's event files what was logged after the step of a checkpoint: a resumed fit logs it again.

    Final metrics are dropped, too, whatever their step, and so is a record that a killed process has left half-written.
    TensorBoard's own mark of a restart would do this for its own readers only.

    Args:
        run_folder: Folder of the run; nothing is done where it has no event files.
        step: Step of the checkpoint.
        inside_epoch: Whether the fit resumes inside an epoch, so that the epoch's loss is still to come.
    """
    for file in _event_files(run_folder):
        kept = []
        for record, event in _records(file):
            tag = event.summary.value[0].tag if event.summary.value else ""
            if not tag or not is_logged_again(tag, event.step, step, inside_epoch):
                kept.append(record)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            writer = RecordWriter(stream)
            for record in kept:
                writer.write(record)


def is_logged_again(tag: str, logged_at: int, step: int, inside_epoch: bool) -> bool:
    """Whether a fit that resumes from a step logs a value again that was logged at another one; see above."""
    is_of_epoch_in_hand = inside_epoch and tag == "train/loss_epoch" and logged_at == step
    return logged_at > step or tag.startswith(("final/", "_hparams_/")) or is_of_epoch_in_hand


def read_curves(run_folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the curves of a run.

    Returns:
        Steps (int64) and values (float64) of each tag, in the order of the steps.
    """
    found: dict[str, dict[int, float]] = {}
    for file in _event_files(run_folder):
        for _, event in _records(file):
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return {
        tag: (np.array(sorted(curve)), np.array([curve[step] for step in sorted(curve)]))
        for tag, curve in found.items()
    }


def _event_files(run_folder: Path) -> list[Path]:
    return sorted(run_folder.glob("events.out.tfevents.*"))


def _records(file: Path) -> Iterator[tuple[bytes, Event]]:
    """Records of an event file, up to one that a killed process has left half-written."""
    for record in RawEventFileLoader(str(file)).Load():
        yield record, Event.FromString(record)
