"""A run's TensorBoard files."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from sessrec.writing import replacing


def forget_steps_from(run_folder: Path, step: int) -> None:
    """Drop from a run's event files what was logged at a step or later: a fit that goes on logs it anew.

    Without, curves would go back and have two values at a step. Final metrics are dropped too, whatever their step, and
    so is a record that a killed process has left half-written.

    Args:
        run_folder: Folder of the run; nothing is done where it has no event files.
        step: First step to drop.
    """
    for file in sorted(run_folder.glob("events.out.tfevents.*")):
        kept = []
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            tag = event.summary.value[0].tag if event.summary.value else ""
            if not tag or (event.step < step and not tag.startswith(("final/", "_hparams_/"))):
                kept.append(record)
        with replacing(file) as temporary, temporary.open("wb") as stream:
            writer = RecordWriter(stream)
            for record in kept:
                writer.write(record)
