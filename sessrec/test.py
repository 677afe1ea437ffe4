"""Evaluate a checkpoint on the test part of a click log: ``python -m sessrec.test``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sessrec.callbacks.loggers import open_loggers
from sessrec.callbacks.rank_writer import RankWriter
from sessrec.cli import SessRecCLI, run_command
from sessrec.errors import SessRecError
from sessrec.serving.replay import Replay


def test(cli: SessRecCLI) -> None:
    """Rank all items at every position of the test part, and write the ranks and metrics into the run's folder.

    With ``--url``, the ranks are those of the lists that a server gives.
    """

    def writers(checkpoint: Path) -> list[RankWriter]:
        options = cli.config_init
        return [RankWriter(options.slices, checkpoint, list_length=options.list_length, projector=options.projector)]

    checkpoint = cli.build_for_evaluation(writers)
    if cli.config.url is not None:
        if cli.datamodule.availability is not None:
            raise SessRecError("--data.availability is for the model's own lists: with --url, give it to the server")
        cli.model.ranker = Replay(cli.config.url, checkpoint)
    with open_loggers(cli.trainer):
        cli.trainer.test(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)


main = partial(run_command, "test", test)

if __name__ == "__main__":
    main()
