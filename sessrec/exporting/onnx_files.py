"""Writes a model as ONNX with what a server needs beside it, if onnxruntime gives the model's own lists."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sessrec import __version__
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.exporting.gru4rec_graph import gru4rec_graph
from sessrec.exporting.onnx_model import OnnxModel
from sessrec.exporting.sasrec_graph import sasrec_graph
from sessrec.exporting.triton import triton_config
from sessrec.models import GRU4Rec, SASRec, SessionRecommender

N_PROBES = 200
"""Sessions whose lists are compared."""
TOP = 20
"""Length of the lists that are compared."""
TOLERANCE = 1e-5
"""Greatest difference of a score, over the greatest score of its list."""
_AT_ONCE = 64
_MOST_BYTES = 2_000_000_000


def write_onnx(model: SessionRecommender, origin: dict[str, Any], folder: Path, k: int) -> None:
    """Write ``model.onnx``, ``items.txt``, ``model.json`` and ``config.pbtxt`` into a new folder, or nothing.

    Args:
        model: A GRU4Rec, as a graph of one step, or a SASRec, as one of whole sessions.
        origin: What ``model.json`` says of where the model is from.
        folder: The folder.
        k: Length of the lists; all items where there are fewer.

    Raises:
        SessRecError: If the model cannot be written, the folder is there, or a list is another one in onnxruntime.
    """
    if folder.exists():
        raise SessRecError(f"--output {folder} exists: remove it or give another name")
    if broken := [item_id for item_id in model.vocabulary.item_ids if len(item_id.splitlines()) != 1]:
        raise SessRecError(f"item id {broken[0]!r} has an end of line, which items.txt cannot hold")
    if (size := 4 * sum(own.numel() for own in model.parameters())) > _MOST_BYTES:
        raise SessRecError(f"the weights take {size:,} bytes, and an ONNX file holds 2 GB")
    k = min(k, model.n_items)
    if isinstance(model, GRU4Rec):
        graph, about = gru4rec_graph(model, k), {"k": k, "kind": "step", "layers": model.layers}
    elif isinstance(model, SASRec):
        graph, about = sasrec_graph(model, k), {"k": k, "kind": "sessions", "max_length": model.options.max_length}
    else:
        raise SessRecError(f"export knows GRU4Rec and SASRec, not {type(model).__name__}")
    sessions = probe_sessions(model.vocabulary)
    content = graph.SerializeToString()
    probes = check_probes(model, content, about, sessions)
    about = {
        **{"format": 1, "sessrec": __version__, "model": type(model).__name__, **about},
        **{"n_items": model.n_items, "counts": model.vocabulary.counts.tolist(), **origin, "probes": probes},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        (temporary / "model.onnx").write_bytes(content)
        ids = "".join(f"{item_id}\n" for item_id in model.vocabulary.item_ids)
        (temporary / "items.txt").write_text(ids, encoding="utf-8", newline="\n")
        (temporary / "model.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        (temporary / "config.pbtxt").write_text(triton_config(folder.name, graph), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def probe_sessions(vocabulary: Vocabulary, seed: int = 0) -> list[list[int]]:
    """Sessions of one to ten items, drawn by popularity and evenly in turn."""
    rng, found = np.random.default_rng(seed), []
    for number in range(N_PROBES):
        shares = vocabulary.popularity if number % 2 else None
        found.append(rng.choice(len(vocabulary), size=rng.integers(1, 11), p=shares).tolist())
    return found


def check_probes(
    model: SessionRecommender, content: bytes, about: dict[str, Any], sessions: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """The model's own lists for some sessions, after onnxruntime has given the same, alone and in batches.

    Raises:
        SessRecError: If a list is another one.
    """
    runtime = OnnxModel(content, about)
    ids, found = model.vocabulary.item_ids, []
    together = [
        one for start in range(0, len(sessions), _AT_ONCE) for one in runtime.lists(sessions[start : start + _AT_ONCE])
    ]
    for session, in_batch in zip(sessions, together, strict=True):
        item_ids = [ids[item] for item in session]
        expected = model.recommend(item_ids, min(TOP, about["k"]), exclude_last=False, exclude_seen=False)
        for items, scores in (in_batch, runtime.lists([session])[0]):
            _compare([(ids[item], float(score)) for item, score in zip(items, scores, strict=True)], expected, item_ids)
        found.append({"session": item_ids, "items": [own for own, _ in expected], "scores": [s for _, s in expected]})
    return found


def _compare(given: list[tuple[str, float]], expected: list[tuple[str, float]], session: list[str]) -> None:
    given = given[: len(expected)]
    greatest = max(abs(score) for _, score in expected)
    differs = max(abs(own - score) for (_, own), (_, score) in zip(given, expected, strict=True))
    if [item for item, _ in given] != [item for item, _ in expected] or not differs <= TOLERANCE * greatest:
        raise SessRecError(
            f"onnxruntime gives another list for the session {session}: scores differ by {differs:.2g}, "
            f"{given[:3]} in place of {expected[:3]}; nothing is written"
        )
