"""Write a fitted model for another runtime, checked against the model itself.

Example::

    sessrec export --ckpt_path lightning_logs/my-run/checkpoints/best.ckpt --output exported/my-run

GRU4Rec is written as ONNX of one step, which takes an item and the states of a session and gives the list and the new
states; SASRec as ONNX of whole sessions. Beside model.onnx lie items.txt (the item id of each index), model.json (the
run, the digest of its checkpoint, the rules of its test and probes) and config.pbtxt, with which Triton serves it. 200
sessions are asked of onnxruntime, alone and in batches: nothing is written where a list is another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sessrec.arguments import ScriptParser
from sessrec.callbacks.checkpoints import load_model_with_digest
from sessrec.errors import SessRecError, check_least, error_text

try:
    from sessrec.exporting.onnx_files import write_onnx
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "onnxruntime"):
        raise
    _MISSING = error.name
else:
    _MISSING = ""


def main(args: list[str] | None = None) -> None:
    """Export a model."""
    parser = _parser()
    options = parser.parse_args(args)
    if _MISSING:
        parser.error(f"export needs {_MISSING}, which is not installed: pip install sessrec[onnx]")
    try:
        check_least("--k", options.k, 1)
        model, digest = load_model_with_digest(options.ckpt_path)
        rules = model.candidate_rules
        origin = {
            "checkpoint": options.ckpt_path.name,
            "digest": digest,
            "trained_until": model.trained_until,
            "rules": {"exclude_last": rules.exclude_last, "exclude_seen": rules.exclude_seen},
        }
        write_onnx(model, origin, options.output, options.k)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    print(
        f"{type(model).__name__}, {model.n_items:,} items, lists of {min(options.k, model.n_items)}: {options.output}"
    )


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__, command="export")
    add: Any = parser.add_argument
    add("--ckpt_path", type=Path, required=True, help="checkpoint of a GRU4Rec or a SASRec")
    add("--format", choices=["onnx"], default="onnx", help="what is written (default: onnx)")
    add("--output", type=Path, default=Path("exported"), help="folder to write, a new one (default: exported)")
    add("--k", type=int, default=100, help="length of the lists; fewer where there are fewer items (default: 100)")
    return parser


if __name__ == "__main__":
    main()
