"""Write the best next items of every session of a click log: ``python -m sessrec.predict``."""

from __future__ import annotations

from functools import partial

from sessrec.callbacks.prediction_writer import PredictionWriter
from sessrec.cli import SessRecCLI, run_command


def predict(cli: SessRecCLI) -> None:
    """Write the best next items after each session's last event."""
    checkpoint = cli.build_for_evaluation(lambda _: [PredictionWriter(cli.config.output)])
    cli.trainer.predict(cli.model, cli.datamodule, ckpt_path=checkpoint, return_predictions=False, weights_only=True)


main = partial(run_command, "predict", predict)

if __name__ == "__main__":
    main()
