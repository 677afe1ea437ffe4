"""What every model shares: full-ranking evaluation, prediction and `recommend`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection

from sessrec.data.loaders import EvaluationBatch, TrainingBatches
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError, check_choice, check_least
from sessrec.evaluation.metrics import (
    CUTOFFS,
    PositionCounts,
    TiedShare,
    TieMode,
    rank_from_counts,
    ranking_metrics,
    weight_digits,
)
from sessrec.evaluation.ranking import on_enough_rows, target_scores_in_blocks
from sessrec.models.checkpoint_format import CHECKPOINT_FORMAT, read_checkpoint
from sessrec.models.compatibility import check_class, check_trainer, check_vocabulary, check_weights
from sessrec.models.earlier import Earlier
from sessrec.models.fit_loop import Progress, count_steps
from sessrec.models.inference import CandidateRules, TopItems, rank_positions, recommend, top_items

if TYPE_CHECKING:
    from typing_extensions import Self


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
        check_least("--model.k", k, 1)
        check_choice("tie_mode", tie_mode, TieMode)
        self.tie_mode = tie_mode
        self.k = k
        self.exclude_last = exclude_last
        self.exclude_seen = exclude_seen
        self.allowed: Tensor | None = None
        """Which items `test` and `predict` may rank, bool, shape (N,); all where None."""
        self.automatic_optimization = False  # a batch is a window of many steps
        self._vocabulary: Vocabulary | None = None
        self.rank_among_available: Callable[[EvaluationBatch], dict[str, Tensor]] | None = None
        """Counts for the positions of a test among the items that were available; None where nothing is known."""
        self.ranker: Callable[[Any, EvaluationBatch, Tensor | None], PositionCounts] = rank_positions
        """Ranks the positions of a test."""
        self.seed: int | None = None
        self.results: dict[str, float] = {}
        self.results_step: int | None = None
        self._loaded_step: int | None = None
        self.earlier: Earlier | None = None
        """What an earlier fit has counted, to be added to what is learnt; None where a fit begins with nothing."""
        self.trained_until: float | None = None
        """Time of the last event that the model was trained on, Unix seconds; None where that is not known."""
        self.progress = Progress()
        self.val_metrics = ranking_metrics(cutoffs, prefix="val/")
        self.test_metrics = ranking_metrics(cutoffs, prefix="test/")
        self.tied_share = TiedShare()
        self._count_digits: Tensor | None = None  # training events of each item

    # -- what a model offers -----------------------------------------------------------------------------------------

    batches: TrainingBatches = "log"
    """What a training batch is: the whole ``log``, which the model learns in one pass, a ``window`` of session-parallel
    steps, or some ``sessions``."""
    scores_in_blocks = True
    """Whether `score` can score a few items cheaply; else it is asked for all at once, for fewer queries."""
    adds_up = False
    """Whether `learn_sessions` adds what `earlier` has counted."""
    data_dependent_buffers: tuple[str, ...] = ()
    """Buffers whose size follows from what was counted; a model makes room for them when it loads a checkpoint."""

    @property
    def trains_in_parallel(self) -> bool:
        """Whether several processes can train the model together."""
        return False

    @property
    def clips_gradients(self) -> bool:
        """Whether the trainer's ``gradient_clip_val`` is heeded."""
        return False

    @property
    def ranks_cold_items(self) -> bool:
        """Whether items of the item table without a click in training are ranked, too."""
        return bool(self.hparams.get("cold_items"))

    def build(self) -> None:
        """Create the parameters and buffers whose size depends on the vocabulary."""

    def encode(self, items: Tensor) -> Any:
        """Give one query a position, from that position's item and those before it.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L).

        Returns:
            Queries, shape (S, L, anything), such that `score` can rank the next item: a tensor, or what is indexed
            like one. They hold all that `score` needs: nothing of a call stays on the model.
        """
        raise TypeError(f"{type(self).__name__} has no encode method")

    def score(self, queries: Any, items: slice) -> Tensor:
        """Score consecutive items for every query.

        Args:
            queries: Queries from `encode`, shape (P, anything).
            items: Which item indices.

        Returns:
            Scores, higher is better, float, shape (P, n).
        """
        raise TypeError(f"{type(self).__name__} has no score method")

    def factors(self, queries: Tensor, items: slice) -> tuple[Tensor, Tensor] | None:
        """What scores are products of, but for rounding.

        Returns:
            Of the queries, float32, (P, D), and of the items, (n, D), for a large catalogue to be looked through
            faster; None where scores are no such products.
        """
        return None

    def score_targets(self, queries: Any, targets: Tensor) -> Tensor:
        """Score of one item for each query, shape (P, 1), from queries (P, anything) and items (P,), int64.

        A model may know a shorter way; where that rounds otherwise than `score`, the ranking takes twice as long.
        """
        return target_scores_in_blocks(self.score, queries, targets, self.n_items)

    # -- learning in one pass ----------------------------------------------------------------------------------------

    def learn_sessions(self, sessions: Sessions) -> None:
        """Learn from the training sessions; a model without gradients has to offer it, unless it learns nothing."""

    @property
    def inexact(self) -> str:
        """What it has not kept exactly of what it has counted, for people; empty where there is nothing."""
        return ""

    def learn(self, sessions: Sessions, vocabulary: Vocabulary | None = None) -> Self:
        """Learn from training sessions in one pass, without a trainer; gives the model.

        Args:
            sessions: The sessions.
            vocabulary: The items; text numbers from 0, in place of item ids, where the model has none, either.

        Example:
            >>> import numpy as np
            >>> from sessrec.models import Popularity
            >>> model = Popularity().learn(Sessions(np.array([0, 1, 1, 2]), np.array([0, 2, 4])))
            >>> model.recommend(["0"], k=2)
            [('1', 2.0), ('0', 1.0)]
        """
        device = self.device
        self.set_vocabulary(vocabulary or self._vocabulary or Vocabulary.of_indices(sessions.items))
        self.learn_sessions(sessions)
        return self.to(device)

    def configure_optimizers(self) -> Any:
        """No optimiser, unless a model has one."""
        return []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Learn the log in one pass, which is one step."""
        self.learn(batch.sessions)
        count_steps(self.trainer, 1)

    def on_train_epoch_end(self) -> None:
        """End the fit after one epoch: all there is has been learnt."""
        self.trainer.should_stop = True

    # -- vocabulary and checkpoint -----------------------------------------------------------------------------------

    @property
    def n_items(self) -> int:
        """Number of items the model ranks."""
        return len(self.vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        """The items that the model knows.

        Raises:
            SessRecError: If the model was neither fitted nor loaded.
        """
        if self._vocabulary is None:
            raise SessRecError("this model knows no items yet: fit it, or load it from a checkpoint")
        return self._vocabulary

    @property
    def candidate_rules(self) -> CandidateRules:
        """Which items may be in a list."""
        return CandidateRules(
            self.exclude_last, self.exclude_seen, None if self.allowed is None else self.allowed.to(self.device)
        )

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take the vocabulary and build what depends on it."""
        self._vocabulary = vocabulary
        self.build()

    def configure_model(self) -> None:
        """Take the vocabulary of the data, once; a model loaded from a checkpoint has its own."""
        if self._vocabulary is None and self._trainer is not None:
            self.take_data(self.trainer.datamodule)  # type: ignore[attr-defined]

    def take_data(self, data: Any) -> None:
        """Take what a fit needs to know of a `SessionDataModule` that is set up, its vocabulary first of all."""
        self.set_vocabulary(data.vocabulary)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # Lightning's reads hyper-parameters of today alone
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", **options: Any
    ) -> Self:
        """Load a model of this class; nothing in the file is executed.

        Args:
            checkpoint_path: The checkpoint.
            map_location: Device of the model.
            options: Options of the model, which take precedence over the checkpoint's.

        Raises:
            SessRecError: If the file is damaged, no checkpoint of sessrec, or another model's.
        """
        return cls.of_checkpoint(read_checkpoint(checkpoint_path, map_location), **options).to(map_location)

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any], **options: Any) -> Self:
        """The model of what `read_checkpoint` has read; see `load_from_checkpoint`."""
        check_class(checkpoint, cls)
        model = cls(**(checkpoint["hyper_parameters"] | options))
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        return model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the vocabulary, the class, the seed and the place in the epoch beside the weights."""
        checkpoint |= {
            "format": CHECKPOINT_FORMAT,
            "vocabulary": self.vocabulary.state_dict(),
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "seed": self.seed,
            "progress": self.progress.state_dict(),
            "results": self.results,
            "results_step": self.results_step,
            "trained_until": self.trained_until,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take vocabulary and seed from the checkpoint, or check that the data agree with it.

        Raises:
            SessRecError: If the checkpoint is no such model's, or was fitted to other items.
        """
        check_class(checkpoint, type(self))
        vocabulary = Vocabulary.from_state_dict(checkpoint["vocabulary"])
        if self._vocabulary is None:
            self.set_vocabulary(vocabulary)
        check_vocabulary(vocabulary, self.vocabulary, "the checkpoint was fitted to", "the data give")
        for name in self.data_dependent_buffers:
            self.register_buffer(name, torch.zeros_like(checkpoint["state_dict"][name]))
        check_weights(checkpoint["state_dict"], self.state_dict())
        self.seed = checkpoint["seed"]
        self.progress = Progress.of_checkpoint(checkpoint)
        self.results, self.results_step = checkpoint.get("results", {}), checkpoint.get("results_step")
        self._loaded_step = checkpoint["global_step"]
        self.trained_until = checkpoint.get("trained_until")

    def setup(self, stage: str) -> None:
        """Refuse trainers that are not supported, and data whose items are numbered otherwise than the model's."""
        check_trainer(self.trainer, stage, type(self).__name__, self.trains_in_parallel)
        vocabulary = getattr(self.trainer.datamodule, "vocabulary", None)  # type: ignore[attr-defined]
        if self._vocabulary is not None and vocabulary is not None:
            check_vocabulary(vocabulary, self._vocabulary, "the data were prepared for", "the model knows")

    def on_fit_start(self) -> None:
        """Fix the seed that everything random in a fit follows from."""
        self._loaded_step = None  # from here on the weights are those of the trainer's step
        self.trained_until = None
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined] # none where a Trainer is given a loader
        if data is not None and data.report.has_times and data.sessions["train"].times is not None:
            self.trained_until = float(data.sessions["train"].times.max())
            if self.earlier is not None:
                self.trained_until = max(self.trained_until, self.earlier.model.trained_until or 0.0)
        if not self.trainer.ckpt_path:
            self.results, self.results_step = {}, None
        if self.seed is None:
            self.seed = torch.initial_seed()

    @property
    def trained_steps(self) -> int:
        """Number of optimiser steps behind the weights, also of a model that was loaded from a checkpoint."""
        return self.global_step if self._loaded_step is None else self._loaded_step

    def log_at_step(self, figures: dict[str, float], but: type[Logger] | tuple[()] = ()) -> None:
        """Log to every logger by the number of optimiser steps; Lightning counts batches, which are windows here.

        Args:
            figures: Values by their names.
            but: Kind of logger that gets none.
        """
        for logger in self.loggers:
            if isinstance(logger, but):
                continue
            at = "_at_" if isinstance(logger, MLFlowLogger) else "@"  # MLflow takes no @, and has metrics of such names
            named = {name.replace("@", at): value for name, value in figures.items()}
            logger.log_metrics(named, step=self.trained_steps)

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics."""
        self.val_metrics.reset()
        self.tied_share.reset()

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self.test_metrics.reset()
        self.tied_share.reset()
        self._count_digits = weight_digits(torch.from_numpy(self.vocabulary.counts)).to(self.device)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Rank the next item at every position of the batch."""
        self._update(self.val_metrics, rank_positions(self, batch))

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, Tensor | None]:
        """Rank the next item at every position of the batch, and give what stands before it.

        Returns:
            The fields of `PositionCounts`, and what ``rank_among_available`` gives.
        """
        counts = self.ranker(self, batch, self._count_digits)
        self._update(self.test_metrics, counts)
        more = {} if self.rank_among_available is None else self.rank_among_available(batch)
        return counts._asdict() | more

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_results(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part."""
        self._log_results(self.test_metrics)

    def count_positions(self, batch: EvaluationBatch) -> tuple[Tensor, Tensor]:
        """Number of items above each position's target, and of other items tied with it, both int64, shape (P,)."""
        return rank_positions(self, batch)[:2]

    @property
    def looks_back(self) -> int | None:
        """Newest events that a query depends on; None for all."""
        return None

    def encode_sessions(self, items: Tensor, lengths: Tensor) -> Any:
        """`encode` for sessions of lengths (S,), int64; a query does not depend on the sessions beside it."""
        return on_enough_rows(self.encode, items)

    def _update(self, metrics: MetricCollection, counts: PositionCounts) -> None:
        self.tied_share.update(counts.tied)
        metrics.update(rank_from_counts(counts.above, counts.tied, self.tie_mode))

    def _log_results(self, metrics: MetricCollection) -> None:
        """Log and keep the results of a whole evaluation; only those of a fit and a test are curves."""
        if self.trainer.sanity_checking:
            return
        stage, last_step = self.trainer.state.fn, self.results_step
        self.results = {name: value.item() for name, value in metrics.compute().items()}
        self.results_step = self.trained_steps
        exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.results.items()}
        self.log_dict(exact, logger=False)  # plain numbers would be rounded to 32 bits
        if stage == "test" or (stage == "fit" and self.results_step != last_step):
            self.log_at_step(self.results)
        if (share := self.tied_share.compute().item()) > 0.01:
            rank_zero_warn(
                f"at {share:.1%} of the positions other items score exactly as the target does; tie_mode "
                f"{self.tie_mode} decides their ranks",
                category=UserWarning,
            )

    # -- recommendation ----------------------------------------------------------------------------------------------

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> TopItems:
        """The best next items after the last event of each session."""
        return TopItems(batch.sessions, *top_items(self, batch.items, batch.lengths, self.k))

    def recommend(
        self,
        item_ids: Sequence[str],
        k: int = 20,
        allow: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        exclude_last: bool | None = None,
        exclude_seen: bool | None = None,
    ) -> list[tuple[str, float]]:
        """Recommend the next item of one session; several threads may call it at a time.

        Args:
            item_ids: Item ids of the session so far, oldest first. Unknown ones are left out with a warning; a session
                without any known item gets the items most frequent in training, scored by their counts.
            k: Number of recommendations; fewer where there are fewer candidates.
            allow: Item ids that may be recommended, such as those in stock; all where None. Unknown ones are ignored.
            exclude: Item ids that may not be.
            exclude_last: Whether the session's last item may not be; the model's option where None.
            exclude_seen: Whether no item of the session may be; the model's option where None.

        Returns:
            Item ids with their scores, best first.

        Raises:
            SessRecError: If the item ids are not a list of text, or ``k`` is below 1.
        """
        return recommend(self, item_ids, k, (allow, exclude), exclude_last, exclude_seen)
