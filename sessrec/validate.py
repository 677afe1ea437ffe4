"""Evaluate a checkpoint on the validation part of a click log: ``python -m sessrec.validate``."""

from __future__ import annotations

from functools import partial

from sessrec.cli import SessRecCLI, run_command


def validate(cli: SessRecCLI) -> None:
    """Rank all items at every position of the validation part."""
    checkpoint = cli.build_for_evaluation(lambda _: [])
    cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)


main = partial(run_command, "validate", validate)

if __name__ == "__main__":
    main()
