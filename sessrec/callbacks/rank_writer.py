"""Keep what a test found: the rank of every position, and the metrics with the rules that they were taken by."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sessrec.callbacks.available_ranks import COUNTS, AvailableRanks
from sessrec.callbacks.projector import item_embeddings, write_projector
from sessrec.data.loaders import EvaluationBatch
from sessrec.data.sessions import Sessions, digest_of_texts
from sessrec.distributed import sum_over_processes
from sessrec.environment import hardware, versions
from sessrec.errors import SessRecError
from sessrec.evaluation.coverage import list_statistics
from sessrec.evaluation.rank_table import RANKS_FILE, Ranks, ranks_table, write_ranks
from sessrec.evaluation.slices import SLICE_METRICS, Slices, slice_metrics
from sessrec.models.base import SessionRecommender
from sessrec.models.inference import top_items_at_positions
from sessrec.text import Table
from sessrec.writing import write_json

METRICS_FILE = "metrics.json"


class RankWriter(Callback):
    """Writes ``ranks.parquet`` and ``metrics.json`` of a test, and prints the metrics of its slices.

    Args:
        slices: How positions are told apart.
        checkpoint: The checkpoint file that is tested, if any; kept with the results.
        folder: Where the files go; the run's folder where None.
        list_length: Length of the lists whose coverage, concentration and popularity are reported; 0 makes none, for
            they take as long again as the ranks.
        projector: Whether to write the item embeddings for TensorBoard's projector.
    """

    def __init__(
        self,
        slices: Slices,
        checkpoint: Path | None = None,
        folder: Path | None = None,
        list_length: int = 0,
        projector: bool = False,
    ) -> None:
        if list_length < 0:
            raise SessRecError(f"--list_length must be at least 0, got {list_length}")
        self.slices, self.checkpoint, self.folder, self.list_length = slices, checkpoint, folder, list_length
        self.projector = projector
        self.ranks: Ranks | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make room for the counts of every position."""
        assert isinstance(pl_module, SessionRecommender)
        if self.projector:
            item_embeddings(pl_module)  # whether there are any is known before the test
        self._start = time.perf_counter()
        n_positions = _test_sessions(trainer).n_positions
        kinds = {"above": torch.int64, "tied": torch.int64, "weight": torch.float64}
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._available = None
        if data.availability is not None:
            own = (_test_sessions(trainer), data.availability, data.report.has_times)
            self._available = AvailableRanks(pl_module, *own)
            pl_module.rank_among_available = self._available.rank
            kinds |= dict.fromkeys(COUNTS, torch.int64)
        self._counts = {name: torch.zeros(n_positions, dtype=kind) for name, kind in kinds.items()}
        self._is_ranked = torch.zeros(n_positions, dtype=torch.int64)
        self._times_recommended = torch.zeros(pl_module.n_items, dtype=torch.int64)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: EvaluationBatch, *args: Any
    ) -> None:
        """Keep the counts of a batch."""
        assert isinstance(pl_module, SessionRecommender)
        lengths = (batch.lengths - 1).cpu()
        first = torch.from_numpy(_test_sessions(trainer).offsets[batch.sessions.cpu().numpy()]) - batch.sessions.cpu()
        within = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        position = first.repeat_interleave(lengths) + within
        for name, kept in self._counts.items():
            kept[position] = outputs[name].cpu()
        self._is_ranked[position] = 1
        if self.list_length:
            best = top_items_at_positions(pl_module, batch, self.list_length)
            self._times_recommended += torch.bincount(best[best >= 0].cpu(), minlength=pl_module.n_items)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files, and print."""
        assert isinstance(pl_module, SessionRecommender)
        seconds = time.perf_counter() - self._start
        pl_module.rank_among_available = None
        found = {**self._counts, "is_ranked": self._is_ranked, "times_recommended": self._times_recommended}
        # each process has counted its own positions
        total = {name: sum_over_processes(own.to(pl_module.device)).cpu().numpy() for name, own in found.items()}
        is_ranked = total["is_ranked"] > 0
        folder = self.folder or trainer.log_dir  # which all processes have to ask for
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        sessions, vocabulary = _test_sessions(trainer), pl_module.vocabulary
        rules = (pl_module.exclude_last, pl_module.exclude_seen)
        allowed = None if pl_module.allowed is None else pl_module.allowed.cpu().numpy()
        counts = (total["above"], total["tied"], total["weight"])
        table = ranks_table(sessions, vocabulary, *counts, pl_module.tie_mode, rules, data.report.has_times, allowed)
        if self._available is not None:
            for name, column in self._available.columns(total).items():
                table = table.append_column(name, column)
        table = table.filter(is_ranked)  # all but where batches were limited
        self.ranks = Ranks(table, pl_module.tie_mode)
        if not len(table):
            return
        report = test_report(pl_module, data, self.ranks)
        report |= {"checkpoint": str(self.checkpoint), "seconds": round(seconds, 3)}
        if self.list_length:
            statistics = list_statistics(total["times_recommended"], vocabulary.counts)
            report["lists"] = {"length": min(self.list_length, pl_module.n_items), **statistics}
        if self._available is not None:
            report["available"] = self._available.figures({name: total[name][is_ranked] for name in COUNTS})
        report["slices"] = slice_metrics(self.ranks, self.slices)
        report["slice_options"] = self.slices.options()
        print(_text(report))
        if folder:
            folder = Path(folder)
            write_ranks(table, folder / RANKS_FILE, pl_module.tie_mode)
            report["ranks_digest"] = hashlib.sha256((folder / RANKS_FILE).read_bytes()).hexdigest()
            write_json(folder / METRICS_FILE, report)
            if self.projector:
                n_items = write_projector(pl_module, folder / "projector")
                print(f"embeddings of {n_items:,} items for TensorBoard's projector in {folder}/projector")


def allowed_text(model: SessionRecommender) -> str:
    """Which items may be candidates, as ``metrics.json`` has it: all, or how many and a fingerprint of their ids."""
    if model.allowed is None:
        return "all"
    item_ids = model.vocabulary.item_ids
    kept = sorted(item_ids[item] for item in model.allowed.nonzero()[:, 0].tolist())
    return f"{len(kept)} of {len(item_ids)} (sha256 {digest_of_texts(kept)[:16]})"


def test_report(model: SessionRecommender, data: Any, ranks: Ranks) -> dict[str, Any]:
    """The metrics of a test with all that is needed to know what they mean."""
    return {
        "model": type(model).__name__,
        "model_options": {name: value for name, value in model.hparams.items() if not name.startswith("_")},
        "seed": model.seed,
        "step": model.results_step,
        "metrics": model.results,
        "protocol": {
            "tie_mode": model.tie_mode,
            "items_ranked": model.n_items,
            "cold_items_ranked": int((model.vocabulary.counts == 0).sum()),
            "exclude_last": model.exclude_last,
            "exclude_seen": model.exclude_seen,
            "allowed_items": allowed_text(model),
            "positions": len(ranks),
            "sessions": int(ranks.session[-1]) + 1,
            "data_digest": data.sessions["test"].digest_of_ids(model.vocabulary.item_ids),
            "items_digest": digest_of_texts(sorted(model.vocabulary.item_ids)),
        },
        "tied_positions": int((ranks.column("ties") > 0).sum()),
        "data": data.report.sections["test"],
        "versions": versions(),
        "hardware": hardware(model.device),
    }


def _text(report: dict[str, Any]) -> str:
    rows = [
        [f"{name} {label}", f"{row['positions']:,}", *(f"{row[metric]:.4f}" for metric in SLICE_METRICS)]
        for name, parts in report["slices"].items()
        for label, row in parts.items()
    ]
    lines = [Table(["slice", "positions", *SLICE_METRICS], rows).markdown()]
    if lists := report.get("lists"):
        lines.append(
            f"lists of {lists['length']}: coverage {lists['coverage']:.4f}, Gini {lists['gini']:.4f}, "
            f"{lists['mean_popularity']:.1f} training events an item ({lists['mean_popularity_of_catalogue']:.1f} in "
            "the catalogue)"
        )
    if available := report.get("available"):
        shown = ", ".join(
            f"{name} {value:.4f}" for name, value in available["metrics"].items() if name in SLICE_METRICS
        )
        lines.append(
            f"among the items that were there ({available['mean_candidates']:,.1f} of "
            f"{report['protocol']['items_ranked']:,} on average): {shown}; {available['targets_not_there']:,} targets "
            "were not, by the table"
        )
    return "\n" + "\n".join(lines)


def _test_sessions(trainer: Trainer) -> Sessions:
    return trainer.datamodule.sessions["test"]  # type: ignore[attr-defined]
