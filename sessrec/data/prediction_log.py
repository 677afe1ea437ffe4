"""Read the log to predict for: as that of the fit, or as bare sessions where it is one of the default columns."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from sessrec.click_log.events import Events
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.log_table import has_columns
from sessrec.click_log.memory_table import is_table
from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.engines import session_kept


@session_kept()
def read_for_prediction(preparation: Preparation, report: DataReport) -> Events:
    """Read a log with the options of the fit; or without those on its columns, where it has the default columns only.

    A model that was fitted to visitors and events predicts for plain sessions, too, and the report says so.

    Args:
        preparation: The log, and the options of the fit.
        report: The report.

    Raises:
        SessRecError: If the log cannot be read.
    """
    usual: dict[str, Any] = {field.name: field.default for field in fields(LogFormat) if field.name != "bad_lines"}
    usual |= dict.fromkeys(("session_gap", "events", "train_path", "val_path", "test_path"))
    changed = [name for name, value in usual.items() if getattr(preparation, name) != value and name[-5:] != "_path"]
    log = preparation.log
    if not changed or log is None:
        return preparation.read(report)
    bare = replace(preparation, path=log, **usual)
    files = [log] if is_table(log) else preparation.log_engine.find_files(log, "--data.path")
    if all(has_columns(file, preparation) for file in files) or not all(has_columns(file, bare) for file in files):
        return preparation.read(report)
    report.warn(
        [
            "the log lacks columns of the fit and has SessionId, ItemId and Time: its sessions are taken as they are, "
            f"without {', '.join(f'--data.{name}' for name in changed)}"
        ]
    )
    return bare.read(report)
