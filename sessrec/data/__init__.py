"""From events to sessions to batches: cleaning, splitting, the prepared log and the LightningDataModule."""

from sessrec.data.datamodule import SessionDataModule
from sessrec.data.loaders import EvaluationLoader, SessionParallelLoader
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.data.sessions import Sessions
from sessrec.data.synthetic import generate_synthetic_sessions
from sessrec.data.vocabulary import Vocabulary

__all__ = [
    "EvaluationLoader",
    "Preparation",
    "PreparedLog",
    "SessionDataModule",
    "SessionParallelLoader",
    "Sessions",
    "Vocabulary",
    "generate_synthetic_sessions",
]
