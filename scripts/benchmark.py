"""Measure speed on this machine: ``python scripts/benchmark.py train``.

``train`` runs the bare step function and the whole Lightning loop (progress bar, logging) in turn, several times in one
process, and prints the steps a second of both and their ratio: the ratio is the result, for machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sessrec.data import SessionDataModule
from sessrec.models import GRU4Rec

CONFIGS: dict[str, tuple[int, dict[str, Any]]] = {
    "ce_32_100_2048": (32, {"layers": [100], "loss": "cross-entropy", "n_sample": 2048}),
    "bpr-max_80_224_2048": (
        80,
        {
            "layers": [224],
            "loss": "bpr-max",
            "n_sample": 2048,
            "dropout_p_embed": 0.5,
            "dropout_p_hidden": 0.05,
            "momentum": 0.4,
            "learning_rate": 0.05,
        },
    ),
}


def bare(data: SessionDataModule, options: dict[str, Any], n_windows: int) -> float:
    """Steps a second of the step function alone, without a trainer."""
    assert data.vocabulary is not None
    model = GRU4Rec(**options)
    model.set_vocabulary(data.vocabulary)
    optimizer, generator = model.configure_optimizers(), torch.Generator()
    steps, start = 0, time.perf_counter()
    for number, window in enumerate(data.train_dataloader()):
        if number == n_windows:
            break
        model.train_window(window, optimizer, generator)
        steps += len(window.widths)
    return steps / (time.perf_counter() - start)


class Stopwatch(GRU4Rec):
    """GRU4Rec that notes when the first window begins and the last one has ended."""

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        super().on_train_epoch_start()
        self.start = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Stop the clock."""
        self.steps_per_second = self.global_step / (time.perf_counter() - self.start)


def in_lightning(data: SessionDataModule, options: dict[str, Any], n_windows: int) -> float:
    """Steps a second in the trainer's loop, with progress bar and TensorBoard."""
    model = Stopwatch(**options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=n_windows,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
    return model.steps_per_second


def train(n_windows: int, repeats: int) -> list[dict[str, Any]]:
    """Both speeds of every configuration: medians over the repeats, taken in turn."""
    rows = []
    for name, (batch_size, options) in CONFIGS.items():
        data = SessionDataModule(batch_size=batch_size, val_ratio=0)
        data.setup("fit")
        pairs = []
        for repeat in range(repeats + 1):
            pair = bare(data, options, n_windows), in_lightning(data, options, n_windows)
            if repeat:  # the first round warms up
                pairs.append(pair)
        rows.append(
            {
                "name": name,
                "bare_steps_per_second": statistics.median(pair[0] for pair in pairs),
                "steps_per_second": statistics.median(pair[1] for pair in pairs),
                "overhead": statistics.median(pair[0] / pair[1] - 1 for pair in pairs),
            }
        )
    return rows


def main(args: list[str] | None = None) -> None:
    """Run a benchmark.

    Args:
        args: Words of the command line; those of the process where None.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train"], help="what to measure")
    parser.add_argument("--windows", type=int, default=8, help="windows of 64 steps a measurement (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, in turn (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    options = parser.parse_args(args)
    rows = train(options.windows, options.repeats)
    if options.json:
        print(json.dumps({"configs": rows}))
        return
    print(f"\n{'training':<22}{'bare step':>14}{'in the loop':>14}{'overhead':>11}")
    for row in rows:
        speeds = f"{row['bare_steps_per_second']:12.0f}/s{row['steps_per_second']:12.0f}/s"
        print(f"{row['name']:<22}{speeds}{row['overhead']:11.1%}")


if __name__ == "__main__":
    main()
