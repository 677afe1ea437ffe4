"""From events to sessions to batches: cleaning, splitting, the prepared log and the LightningDataModule."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessrec.data.datamodule import SessionDataModule
    from sessrec.data.loaders import EvaluationLoader, SessionParallelLoader
    from sessrec.data.preparation import Preparation, PreparedLog
    from sessrec.data.sessions import Sessions
    from sessrec.data.synthetic import generate_synthetic_sessions
    from sessrec.data.vocabulary import Vocabulary

_HOMES = {
    "SessionDataModule": "datamodule",
    "EvaluationLoader": "loaders",
    "SessionParallelLoader": "loaders",
    "Preparation": "preparation",
    "PreparedLog": "preparation",
    "Sessions": "sessions",
    "generate_synthetic_sessions": "synthetic",
    "Vocabulary": "vocabulary",
}

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


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: generating sessions needs neither torch nor Lightning, which take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sessrec.data' has no attribute {name!r}")
    return getattr(import_module(f"sessrec.data.{_HOMES[name]}"), name)
