"""From events to sessions to batches: cleaning, splitting, the prepared log and the LightningDataModule."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessrec.data.datamodule import SessionDataModule as SessionDataModule
    from sessrec.data.loaders import EvaluationLoader as EvaluationLoader
    from sessrec.data.loaders import SessionParallelLoader as SessionParallelLoader
    from sessrec.data.preparation import Preparation as Preparation
    from sessrec.data.preparation import PreparedLog as PreparedLog
    from sessrec.data.sessions import Sessions as Sessions
    from sessrec.data.synthetic import generate_synthetic_sessions as generate_synthetic_sessions
    from sessrec.data.vocabulary import Vocabulary as Vocabulary

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
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: generating sessions needs neither torch nor Lightning, which take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sessrec.data' has no attribute {name!r}")
    return getattr(import_module(f"sessrec.data.{_HOMES[name]}"), name)
