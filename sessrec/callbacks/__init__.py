"""What a run writes: checkpoints, ranks, predictions and its folder."""

from sessrec.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, load_model, read_checkpoint
from sessrec.callbacks.prediction_writer import PredictionWriter
from sessrec.callbacks.rank_writer import RankWriter
from sessrec.callbacks.run_folder import RunSummary

__all__ = [
    "BestCheckpoint",
    "LastCheckpoint",
    "PredictionWriter",
    "RankWriter",
    "RunSummary",
    "load_model",
    "read_checkpoint",
]
