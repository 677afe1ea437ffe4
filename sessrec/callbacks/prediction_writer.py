"""Write predictions to a file."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.nn.functional import pad

from sessrec.distributed import join_rows, n_processes
from sessrec.errors import SessRecError
from sessrec.evaluation.ranking import EXCLUDED
from sessrec.models.base import SessionRecommender
from sessrec.models.inference import TopItems
from sessrec.text import counted
from sessrec.writing import atomic_write, check_writable


class PredictionWriter(BasePredictionWriter):
    """Writes the best items of each session as a tab-separated file: SessionId, Rank, ItemId, Score.

    Ids that hold a tab, a quote or an end of line stand in quotes. The file gets its name when it is complete.

    Args:
        output: File to write.

    Raises:
        SessRecError: If the file exists already, or its folder cannot be written to.
    """

    def __init__(self, output: str | Path) -> None:
        super().__init__("batch")
        self.output = Path(output)
        self._open = ExitStack()
        self._n_sessions = 0
        self._n_fewer = {"fewer": 0, "none": 0}  # sessions with fewer candidates than asked for, and with none
        self._first: dict[str, str] = {}  # of each kind
        if self.output.is_dir():
            raise SessRecError(f"--output {self.output} is a folder: name a file in it")
        if self.output.exists():
            raise SessRecError(f"--output {self.output} exists: remove it or give another --output")
        check_writable(self.output.parent, "--output")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the temporary file, in the first of several processes."""
        if not trainer.is_global_zero:
            return
        temporary = self._open.enter_context(atomic_write(self.output))
        stream = self._open.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
        self._rows = csv.writer(stream, delimiter="\t", lineterminator="\n")  # an id may hold a tab or a quote
        self._rows.writerow(("SessionId", "Rank", "ItemId", "Score"))

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: TopItems, *args: Any
    ) -> None:
        """Write one batch, in the first process that of all."""
        assert isinstance(pl_module, SessionRecommender)
        loader: Any = trainer.predict_dataloaders
        prediction = _of_all_processes(prediction, loader.batch_size)
        if not trainer.is_global_zero:
            return
        item_ids = pl_module.vocabulary.item_ids
        all_ids = trainer.datamodule.sessions["predict"].session_ids  # type: ignore[attr-defined]
        session_ids = all_ids.take(pa.array(prediction.sessions.cpu().numpy())).to_pylist()
        for session_id, items, scores in zip(
            session_ids, prediction.items.tolist(), prediction.scores.tolist(), strict=True
        ):
            n_candidates = 0
            for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1):
                if score > EXCLUDED:
                    self._rows.writerow((session_id, rank, item_ids[item], f"{score:.9g}"))
                    n_candidates = rank
            if n_candidates < len(items):
                kind = "fewer" if n_candidates else "none"
                self._n_fewer[kind] += 1
                self._first.setdefault(kind, session_id)
        self._n_sessions += len(prediction.sessions)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the file its name."""
        if not trainer.is_global_zero:
            return
        self._open.close()
        assert isinstance(pl_module, SessionRecommender)
        report = trainer.datamodule.report.sections["predict"]  # type: ignore[attr-defined]
        if report["short_sessions"]:
            print(f"{report['short_sessions']} sessions have no item known to the model: no prediction")
        k = min(pl_module.k, pl_module.n_items)
        n_predicted = self._n_sessions - self._n_fewer["none"]
        print(f"\npredicted the next {k} items of {counted(n_predicted, 'session')}: {self.output}")
        for kind, candidates in (("fewer", f"fewer than {k} candidates"), ("none", "no candidate, and no row")):
            if number := self._n_fewer[kind]:
                what = f"{counted(number, 'session')} {'has' if number == 1 else 'have'} {candidates}"
                print(f"{what}, such as {self._first[kind]}: it holds the other items itself")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half-written file."""
        self._open.__exit__(type(exception), exception, exception.__traceback__)


def _of_all_processes(prediction: TopItems, batch_size: int) -> TopItems:
    """What all processes predict for their batches of this number, in the order of the sessions."""
    if n_processes() == 1:
        return prediction
    missing = batch_size - len(prediction.sessions)  # an own batch may be shorter, or hold no session

    def joined(own: Tensor, fill: int = 0) -> Tensor:
        return join_rows(pad(own, (0, 0) * (own.dim() - 1) + (0, missing), value=fill))

    sessions = joined(prediction.sessions, fill=-1)
    order = sessions.argsort()[int((sessions < 0).sum()) :]
    scores = joined(prediction.scores.double())  # of one type also where there are none
    return TopItems(sessions[order], joined(prediction.items)[order], scores[order])
