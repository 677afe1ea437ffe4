"""The commands by name, and how the user has started the one that runs."""

from __future__ import annotations

import sys
from pathlib import Path

DESCRIPTIONS = {
    "fit": "Fit a session recommender to a click log.",
    "validate": "Evaluate a checkpoint on the validation part of a click log, ranking all items.",
    "test": "Evaluate a checkpoint on the test part of a click log, ranking all items.",
    "predict": "Write the best next items of every session of a click log.",
    "prepare": "Read, clean and split a click log, and report what is in it; only the --data options matter.",
    "tune": "Choose the options of a model on the validation part of a click log.",
    "roll": "Fit and test models at many times of a click log: windows, ageing, retraining.",
    "compare": "Compare tested models: metrics with intervals, paired differences, and figures.",
    "audit": "Measure how much the metrics of tested runs depend on choices of the evaluation.",
    "figures": "Draw all figures of a study from its tested runs and its click log.",
    "items": "Add items to a fitted model by their features, without training.",
    "export": "Write a fitted model as ONNX, checked against the model itself.",
    "serve": "Recommend for live sessions over HTTP.",
    "synth": "Write synthetic click sessions to a TSV file.",
}
"""The commands, with a line each."""


_SCRIPTS = {"synth": "make_synth_data"}  # named otherwise than their command


def program(command: str) -> str:
    """How the user starts a command: as ``sessrec fit``, ``python -m sessrec.fit``, or by the script that runs."""
    started = Path(sys.argv[0])
    if started.name in ("sessrec", "sessrec.exe") or started.parts[-2:] == ("sessrec", "__main__.py"):
        return f"sessrec {command}"
    is_its_script = started.parent.name == "scripts" and started.stem == _SCRIPTS.get(command, command)
    return f"python {started}" if is_its_script else f"python -m sessrec.{command}"
