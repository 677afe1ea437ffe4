"""Add items to a fitted model without training it: their vectors are what their features add.

Example::

    sessrec items --ckpt_path lightning_logs/my-run/checkpoints/best.ckpt --data.items new_items.csv --output grown.ckpt

The table has the item ids in --data.item_column and the columns that the model was fitted with (--model.features).
Items that the model knows stay as they are. The new checkpoint is tested, exported and served like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sessrec.arguments import ScriptParser
from sessrec.callbacks.checkpoints import CheckpointFiles, load_model
from sessrec.errors import SessRecError, error_text
from sessrec.features.reading import read_item_table
from sessrec.models.added_items import add_items
from sessrec.models.checkpoint_format import read_checkpoint
from sessrec.models.knows_features import KnowsFeatures


def main(args: list[str] | None = None) -> None:
    """Add the items."""
    parser = _parser()
    options = vars(parser.parse_args(args))
    source, output = options["ckpt_path"], options["output"]
    try:
        if output.exists():
            raise SessRecError(f"--output {output} exists: name a new file")
        table = read_item_table(options["data.items"], options["data.item_column"])
        checkpoint, model = read_checkpoint(source), load_model(source)
        added = add_items(model, table)
        assert isinstance(model, KnowsFeatures)
        # optimiser states are of the items before: a fit resumes from the checkpoint that these were added to
        checkpoint = {name: value for name, value in checkpoint.items() if name != "optimizer_states"}
        checkpoint |= {"state_dict": model.state_dict(), "added_items": added.added}
        model.save_items(checkpoint)
        CheckpointFiles().save_checkpoint(checkpoint, output)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    rows = {
        "items added": added.added,
        "of them without any feature": added.without_features,
        "items that were known": added.known,
        "items of the model": model.n_items,
        "file": output,
    }
    for label, value in rows.items():
        print(f"{label:<29}{value:,}" if isinstance(value, int) else f"{label:<29}{value}")
    for note in [*table.notes, *added.notes]:
        print(f"note: {note}")


def _parser() -> ScriptParser:
    parser = ScriptParser(__doc__, command="items")
    add: Any = parser.add_argument
    add("--ckpt_path", type=Path, required=True, help="checkpoint of a model that was fitted with --model.features")
    add("--data.items", required=True, metavar="FILE", help="table of the items: Parquet, CSV or TSV")
    add("--data.item_column", default="ItemId", metavar="NAME", help="its column of item ids (default: ItemId)")
    add("--output", type=Path, required=True, help="checkpoint to write, a new file")
    return parser


if __name__ == "__main__":
    main()
