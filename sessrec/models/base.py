"""What every model shares: full-ranking evaluation, prediction and `recommend`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection

from sessrec.data.loaders import EvaluationBatch
from sessrec.data.session_parallel import Window
from sessrec.data.vocabulary import Vocabulary
from sessrec.distributed import sum_over_processes
from sessrec.environment import keep_freed_memory
from sessrec.errors import SessRecError, check_choice
from sessrec.evaluation.metrics import CUTOFFS, PositionCounts, TieMode, rank_from_counts, ranking_metrics
from sessrec.evaluation.ranking import (
    EXCLUDED,
    Excluded,
    best_items,
    count_positions,
    items_so_far,
    on_enough_rows,
    target_scores_in_blocks,
)
from sessrec.models.compatibility import refuse_other_class, refuse_other_weights, refuse_trainer
from sessrec.models.fit_loop import Progress, inside_window

CHECKPOINT_FORMAT = 2
"""Number of the way in which checkpoints hold what they hold; files without one are of 1."""


class TopItems(NamedTuple):
    """The best items for some sessions, best first."""

    sessions: Tensor
    """Index of each session, int64, shape (S,)."""
    items: Tensor
    """Item indices, int64, shape (S, k)."""
    scores: Tensor
    """Their scores, float, shape (S, k)."""


class SavePoints(Protocol):
    """Chooses the steps after which a fit is saved or stopped."""

    def steps_to_next(self, global_step: int) -> int:
        """Steps that may be taken in one go."""

    def after_steps(self) -> None:
        """Save or stop, where it is time to."""


class SessionRecommender(LightningModule):
    """A model that ranks all items as the next one of a session.

    A model has to offer three methods: `build` makes what depends on the vocabulary, `encode` turns sessions into one
    query a position, `score` scores items for queries. It takes the vocabulary from the data when it is fitted, keeps
    it in its checkpoint, and needs no data afterwards.

    Args:
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: ``conservative`` (below them all), ``standard`` (above
            them all) or ``median``.
        k: Items that `predict` gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    def __init__(
        self,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters("cutoffs", "tie_mode", "k", "exclude_last", "exclude_seen")
        if k < 1:
            raise SessRecError(f"--model.k must be at least 1, got {k}")
        check_choice("tie_mode", tie_mode, TieMode)
        self.tie_mode = tie_mode
        self.k = k
        self.exclude_last = exclude_last
        self.exclude_seen = exclude_seen
        self.automatic_optimization = False  # a batch is a window of many steps
        self.vocabulary: Vocabulary | None = None
        self.seed: int | None = None
        self.results: dict[str, float] = {}
        self.progress = Progress()
        self.save_points: SavePoints | None = None
        self._val_progress: Any = None
        self._loops_before_validation: dict[str, Any] | None = None
        self.val_metrics = ranking_metrics(cutoffs, prefix="val/")
        self.test_metrics = ranking_metrics(cutoffs, prefix="test/")
        self._positions = {"seen": 0, "tied": 0}
        self._popularity: Tensor | None = None

    trains_in_parallel = False
    """Whether several processes can train the model together."""
    grown_buffers: tuple[str, ...] = ()
    """Buffers whose size follows from what was counted; a model makes room for them when it loads a checkpoint."""

    # -- what a model offers -----------------------------------------------------------------------------------------

    def build(self) -> None:
        """Create the parameters and buffers whose size depends on the vocabulary."""

    def encode(self, items: Tensor) -> Tensor:
        """Give one query a position, from that position's item and those before it.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L).

        Returns:
            Queries, shape (S, L, anything), such that `score` can rank the next item.
        """
        raise TypeError(f"{type(self).__name__} has no encode method")

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Score consecutive items for every query.

        Args:
            queries: Queries from `encode`, shape (P, anything).
            items: Which item indices.

        Returns:
            Scores, higher is better, float, shape (P, n).
        """
        raise TypeError(f"{type(self).__name__} has no score method")

    def score_targets(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Score of one item for each query, as `score` gives it; a model may know a shorter way.

        Where that rounds otherwise than `score`, the ranking notices and takes twice as long.

        Args:
            queries: Queries from `encode`, shape (P, anything).
            targets: Item indices, int64, shape (P,).

        Returns:
            Scores, float, shape (P, 1).
        """
        return target_scores_in_blocks(self.score, queries, targets, self.n_items)

    trains_on_whole_sessions = False
    """Whether a training batch is some whole sessions, in place of a window of session-parallel steps."""
    scores_in_blocks = True
    """Whether `score` can score a few items cheaply; else it is asked for all at once, for fewer queries."""

    # -- vocabulary and checkpoint -----------------------------------------------------------------------------------

    @property
    def n_items(self) -> int:
        """Number of items the model ranks."""
        return len(self.known_items)

    @property
    def known_items(self) -> Vocabulary:
        """The vocabulary.

        Raises:
            SessRecError: If the model was neither fitted nor loaded.
        """
        if self.vocabulary is None:
            raise SessRecError("this model knows no items yet: fit it, or load it from a checkpoint")
        return self.vocabulary

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take the vocabulary and build what depends on it."""
        self.vocabulary = vocabulary
        self.build()

    def configure_model(self) -> None:
        """Take the vocabulary of the data, once; a model loaded from a checkpoint has its own."""
        if self.vocabulary is None and self._trainer is not None:
            self.set_vocabulary(self.trainer.datamodule.vocabulary)  # type: ignore[attr-defined]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """Load a model of this class; nothing in the file is executed.

        Args:
            checkpoint_path: The checkpoint.
            args: See Lightning, as for the options.
            options: Among them options of the model, which win over the checkpoint's.

        Raises:
            SessRecError: If the checkpoint is another model's.
        """
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **({"weights_only": True} | options))
        except TypeError:  # options that this class does not have
            refuse_other_class(torch.load(checkpoint_path, map_location="cpu", weights_only=True), cls)
            raise

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the vocabulary, the class, the seed and the place in the epoch beside the weights."""
        checkpoint["format"] = CHECKPOINT_FORMAT
        checkpoint["vocabulary"] = self.known_items.state_dict()
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["seed"] = self.seed
        checkpoint["progress"] = self.progress.state_dict()
        checkpoint["results"] = self.results
        if self.progress.steps:
            loops = checkpoint["loops"]
            if self._loops_before_validation is not None:
                loops = loops | {"fit_loop": self._loops_before_validation}
            checkpoint["loops"] = inside_window(loops)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and seed from the checkpoint, or check that the data agree with it.

        Raises:
            SessRecError: If the checkpoint is no such model's, or was fitted to other items.
        """
        refuse_other_class(checkpoint, type(self))
        vocabulary = Vocabulary.from_state_dict(checkpoint["vocabulary"])
        if self.vocabulary is None:
            self.set_vocabulary(vocabulary)
        elif self.vocabulary.item_ids != vocabulary.item_ids:
            raise SessRecError(
                f"the data give {self.n_items} training items and the checkpoint was fitted to {len(vocabulary)} "
                "(or to others): resume with the click log and the --data options of the first fit"
            )
        refuse_other_weights(checkpoint["state_dict"], self.state_dict(), self.grown_buffers)
        self.seed = checkpoint["seed"]
        self.progress = Progress.from_state_dict(checkpoint.get("progress", {}))
        self.results = checkpoint.get("results", {})

    def setup(self, stage: str) -> None:
        """Make ready for a stage, and refuse data whose items are numbered otherwise than the model's.

        Raises:
            SessRecError: If model and data have different vocabularies, or the trainer's precision or number of
                processes is not supported.
        """
        refuse_trainer(self.trainer, stage, type(self).__name__, self.trains_in_parallel)
        keep_freed_memory()
        vocabulary = getattr(self.trainer.datamodule, "vocabulary", None)  # type: ignore[attr-defined]
        if self.vocabulary is not None and vocabulary is not None and vocabulary.item_ids != self.vocabulary.item_ids:
            raise SessRecError(
                f"the data were prepared for {len(vocabulary)} items and the model knows {self.n_items} (or others): "
                "give the model a SessionDataModule of its own"
            )

    def on_fit_start(self) -> None:
        """Fix the seed that everything random in a fit follows from."""
        if self.seed is None:
            self.seed = torch.initial_seed()

    # -- training ----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Undo that Lightning counts a validation once more where a fit goes on after one."""
        if self._val_progress is not None:
            self.trainer.fit_loop.epoch_loop.val_loop.batch_progress = self._val_progress
            self._val_progress = None

    def training_step(self, window: Window, batch_idx: int) -> None:
        """Learn from a window, or from what a fit that goes on has left of it."""
        progress = self.progress
        progress.begin_window(window.first_step, window.n_steps)
        while (n_steps := min(progress.steps_left, self._steps_in_one_go())) > 0:
            start = progress.steps - window.first_step
            progress.add_steps(*self.learn(window, start, start + n_steps))
            self.count_steps(n_steps)
            if self.save_points is not None:
                self.save_points.after_steps()
        self.finish_window(window)

    def _steps_in_one_go(self) -> int:
        """Steps until the trainer's last one, or the next one that is saved."""
        n_steps = self.trainer.max_steps - self.global_step if self.trainer.max_steps > 0 else 1 << 62
        return n_steps if self.save_points is None else min(n_steps, self.save_points.steps_to_next(self.global_step))

    def learn(self, window: Window, start: int, stop: int) -> tuple[list[float], int]:
        """Learn from steps ``start`` to ``stop`` (exclusive) of a window.

        Returns:
            Sum of the loss over the lanes for each step, 0 where there is no loss, and the number of pairs of all.
        """
        raise TypeError(f"{type(self).__name__} has no learn method")

    def finish_window(self, window: Window) -> None:
        """Do what is due when the steps of a window are taken."""

    def count_steps(self, n_steps: int) -> None:
        """Tell the trainer of steps taken: they are its ``global_step``, and a fit without any is not saved."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tracker in (progress.total, progress.current):
            tracker.ready += n_steps
            tracker.completed += n_steps

    def take_up_epoch(self) -> None:
        """Have the loader go on where the epoch was left."""
        if self.progress.steps:
            epoch_loop = self.trainer.fit_loop.epoch_loop
            total = epoch_loop.batch_progress.total
            total.ready = total.started = total.completed  # type: ignore[attr-defined] # the window comes once more
            self._val_progress = deepcopy(epoch_loop.val_loop.batch_progress)
            self.trainer.train_dataloader.take_up(self.progress.steps)  # type: ignore[union-attr]

    def on_train_epoch_start(self) -> None:
        """Begin an epoch; one that a fit goes on with is not begun again."""
        self.progress = Progress()

    def end_epoch(self) -> bool:
        """Leave the epoch behind where it is complete, and say whether it is: a fit may stop inside."""
        is_complete = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and not self.progress.steps_left
        if is_complete:
            self.progress = Progress()
        return is_complete

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Keep the state of the fit's loops, for a fit that is stopped while it validates."""
        if self.trainer.state.fn == "fit":
            self._loops_before_validation = self.trainer.fit_loop.state_dict()

    def on_validation_end(self) -> None:
        """Forget it: what follows can be gone on with."""
        self._loops_before_validation = None

    def on_validation_epoch_start(self) -> None:
        """Start counting ranks afresh."""
        self._start_counting(self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """Start counting ranks afresh."""
        self._start_counting(self.test_metrics)
        self._popularity = torch.from_numpy(self.known_items.popularity).float().to(self.device)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Rank the next item at every position of the batch."""
        self.val_metrics.update(self._rank(self.weigh_positions(batch)))

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, Tensor | None]:
        """Rank the next item at every position of the batch, and give what stands before it, see `PositionCounts`."""
        counts = self.weigh_positions(batch, self._popularity)
        self.test_metrics.update(self._rank(counts))
        return counts._asdict()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_results(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part."""
        self._log_results(self.test_metrics)

    def count_positions(self, batch: EvaluationBatch) -> tuple[Tensor, Tensor]:
        """Count the items above each position's target, and the other items tied with it.

        Args:
            batch: Padded sessions of at least two events.

        Returns:
            Items above and items tied, int64, shape (P,); positions session by session.
        """
        return self.weigh_positions(batch)[:2]

    def weigh_positions(self, batch: EvaluationBatch, weights: Tensor | None = None) -> PositionCounts:
        """`count_positions`, and the sum of the weights of the items above and tied.

        Args:
            batch: Padded sessions of at least two events.
            weights: Weight of each item to be summed up, float, shape (N,); None sums none.

        Returns:
            The counts, positions session by session.
        """
        items = batch.items[:, :-1]  # the last item is a target only
        row, place = batch.positions()
        queries, targets = (
            self.encode_sessions(items, batch.lengths - 1)[row, place],
            batch.items[row, place + 1],
        )  # (P, anything), (P,)
        with self._full_precision():
            return count_positions(
                self.score,
                self.score_targets,
                queries,
                targets,
                self.n_items,
                self._excluded(items, row, place),
                self.scores_in_blocks,
                weights,
            )

    def best_at_positions(self, batch: EvaluationBatch, k: int) -> Tensor:
        """The k best next items at every position, where the targets are ranked.

        Args:
            batch: Padded sessions of at least two events.
            k: Length of the list.

        Returns:
            Item indices, best first, int64, shape (P, min(k, N)); -1 in place of items that are no candidates.
        """
        items = batch.items[:, :-1]
        row, place = batch.positions()
        queries = self.encode_sessions(items, batch.lengths - 1)[row, place]
        if not len(row):
            return row.new_empty(0, min(k, self.n_items))
        with self._full_precision():
            excluded = self._excluded(items, row, place)
            best, scores = best_items(self.score, queries, self.n_items, k, excluded, self.scores_in_blocks)
        return best.masked_fill_(scores <= EXCLUDED, -1)

    def _excluded(self, items: Tensor, row: Tensor, place: Tensor) -> Excluded | None:
        """The items that are no candidates at some places of sessions, by the rules of this model."""
        if not (self.exclude_last or self.exclude_seen):
            return None
        return items_so_far(items, row, place, last_only=not self.exclude_seen)

    def encode_sessions(self, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode`, such that a session's queries do not depend on the sessions beside it.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L).
            lengths: Number of events of each session, int64, shape (S,); later queries mean nothing.

        Returns:
            Queries, shape (S, L, anything).
        """
        return on_enough_rows(self.encode, items)

    def _rank(self, counts: PositionCounts) -> Tensor:
        self._positions["seen"] += len(counts.tied)
        self._positions["tied"] += int((counts.tied > 0).sum())
        return rank_from_counts(counts.above, counts.tied, self.tie_mode)

    def _start_counting(self, metrics: MetricCollection) -> None:
        metrics.reset()
        self._positions = {"seen": 0, "tied": 0}

    def _log_results(self, metrics: MetricCollection) -> None:
        self.results = {name: value.item() for name, value in metrics.compute().items()}
        fitting = self.trainer.state.fn == "fit"
        exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.results.items()}
        self.log_dict(exact, logger=not fitting)  # plain numbers would be rounded to 32 bits
        for logger in self.loggers if fitting else []:  # Lightning would log a validation by the number of windows
            logger.log_metrics(self.results, step=self.global_step)
        positions = torch.tensor([self._positions["seen"], self._positions["tied"]], device=self.device)
        seen, tied = sum_over_processes(positions).tolist()
        if tied > 0.01 * seen:
            rank_zero_warn(
                f"at {tied} of {seen} positions ({tied / seen:.1%}) other items score exactly as the target does; "
                f"tie_mode {self.tie_mode} decides their ranks",
                category=UserWarning,
            )

    # -- recommendation ----------------------------------------------------------------------------------------------

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> TopItems:
        """The best next items after the last event of each session."""
        return TopItems(batch.sessions, *self.top_items(batch.items, batch.lengths, self.k))

    def top_items(self, items: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best next items of each session, fewer where the catalogue is smaller.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L).
            lengths: Number of events of each session, int64, shape (S,).
            k: Length of the list.

        Returns:
            Item indices (int64) and scores, both of shape (S, min(k, N)), best first; equal scores by item index. Items
            that are no candidates come last, with the score `EXCLUDED`.
        """
        row, last = torch.arange(len(lengths), device=lengths.device), lengths - 1
        queries = self.encode_sessions(items, lengths)[row, last]
        with self._full_precision():
            excluded = self._excluded(items, row, last)
            return best_items(self.score, queries, self.n_items, k, excluded, self.scores_in_blocks)

    def _full_precision(self) -> AbstractContextManager[None]:
        """Scores and losses are never taken in 16 bits: whole groups of items would tie."""
        if not torch.is_autocast_enabled(self.device.type):
            return nullcontext()
        return torch.autocast(self.device.type, enabled=False)

    @torch.inference_mode()
    def recommend(self, item_ids: Sequence[str], k: int = 20) -> list[tuple[str, float]]:
        """Recommend the next item of one session.

        Args:
            item_ids: Item ids of the session so far, oldest first. Ids unknown to the model are left out with a
                warning; a session without any known item gets the items most frequent in training, scored by their
                counts.
            k: Number of recommendations; a smaller catalogue gives fewer.

        Returns:
            Item ids with their scores, best first.

        Raises:
            SessRecError: If the item ids are not a list of text, or ``k`` is below 1.
        """
        if isinstance(item_ids, str) or not all(isinstance(item_id, str) for item_id in item_ids):
            raise SessRecError(f"recommend takes a list of item ids as text, such as ['10', '25'], got {item_ids!r}")
        if k < 1:
            raise SessRecError(f"k must be at least 1, got {k}")
        vocabulary = self.known_items
        index = vocabulary.index_of(item_ids)
        if (unknown := int((index < 0).sum())) > 0:
            rank_zero_warn(f"{unknown} of {len(index)} items of the session are unknown to the model", stacklevel=2)
        items = torch.from_numpy(index[index >= 0]).to(self.device)
        if was_training := self.training:  # which takes as long as a fast model's recommendation
            self.eval()
        if len(items):
            best, scores = self.top_items(items[None], torch.tensor([len(items)], device=self.device), k)
        else:
            best, scores = self.popular_items(k)
        if was_training:
            self.train()
        return [
            (vocabulary.item_ids[item], score)
            for item, score in zip(best[0].tolist(), scores[0].tolist(), strict=True)
            if score > EXCLUDED
        ]

    def popular_items(self, k: int) -> tuple[Tensor, Tensor]:
        """The items most frequent in training with their counts, both of shape (1, min(k, N))."""
        counts, items = torch.from_numpy(self.known_items.counts).sort(descending=True, stable=True)
        return items[None, :k], counts[None, :k].double()
