"""GRU4Rec: a recurrent network trained on session-parallel mini-batches.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016.
    Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018.
    Hidasi and Czapp, "The Effect of Third Party Implementations on Reproducibility", RecSys 2023.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from sessrec import losses
from sessrec.batches import Window
from sessrec.errors import SessRecError, check_choice
from sessrec.layers import GRUCell, ResetBeforeGRUCell, initialise_gates
from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.base import SessionRecommender
from sessrec.negatives import LogQ, LogQMode, NegativeSampler
from sessrec.optim import AdagradMomentum

LossName = Literal["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"]


class GRU4Rec(SessionRecommender):
    """GRU4Rec, as published: session-parallel mini-batches, sampled negatives, one-step truncation.

    The batch size (number of lanes) is an option of the data, the number of epochs one of the trainer.

    Args:
        layers: Units of each GRU layer.
        loss: Loss of a step; the papers recommend cross-entropy and BPR-max.
        constrained_embedding: Whether input and output share one item embedding, of the last layer's size.
        embedding: Size of a separate input embedding; 0 without constrained embedding feeds the first layer one-hot.
        dropout_p_embed: Probability to drop an element of an input embedding.
        dropout_p_hidden: Probability to drop an element of a layer's output, which is also the state carried on.
        learning_rate: Learning rate of Adagrad.
        momentum: Momentum on Adagrad's scaled steps.
        n_sample: Negative samples of a step, shared by all lanes, beside the other lanes' targets.
        sample_alpha: Samples are drawn in proportion to an item's count to this power.
        bpreg: Weight of the score regularisation of BPR-max.
        elu_param: Saturation of the ELU in BPR-max; 0 for none.
        logq: Strength in [0, 1] of the popularity correction of cross-entropy's logits in training; other losses have
            none.
        logq_mode: ``published`` corrects by raw counts; ``textbook`` by the expected number of times that a candidate
            is drawn.
        exclude_target_copies: Whether copies of a lane's target are kept out of its negatives.
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.

    Raises:
        SessRecError: If the options contradict each other.
    """

    def __init__(
        self,
        layers: list[int] | None = None,
        loss: LossName = "cross-entropy",
        constrained_embedding: bool = True,
        embedding: int = 0,
        dropout_p_embed: float = 0.1,
        dropout_p_hidden: float = 0.0,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        n_sample: int = 2048,
        sample_alpha: float = 0.75,
        bpreg: float = 1.0,
        elu_param: float = 0.5,
        logq: float = 1.0,
        logq_mode: LogQMode = "published",
        exclude_target_copies: bool = False,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
    ) -> None:
        super().__init__(cutoffs, tie_mode, k)
        self.save_hyperparameters()
        self.options: Any = self.hparams
        self.layers = [100] if layers is None else list(layers)
        _check_options(self.options, self.layers)
        check_choice("loss", loss, LossName)
        check_choice("logq_mode", logq_mode, LogQMode)
        self.loss_name = loss
        self._hidden: list[Tensor] = []
        self._last_time = 0.0

    def build(self) -> None:
        """Create the embeddings, the layers and the negative sampler."""
        h = self.options
        last = self.layers[-1]
        self.output_embedding = nn.Parameter(torch.empty(self.n_items, last))
        self.output_bias = nn.Parameter(torch.zeros(self.n_items, 1))
        self.one_hot = not h.constrained_embedding and not h.embedding
        if self.one_hot:
            self.input_embedding = nn.Parameter(torch.empty(self.n_items, 3 * self.layers[0]))  # gates n, r, z
            first_cell: nn.Module = ResetBeforeGRUCell(self.layers[0])
        else:
            if not h.constrained_embedding:
                self.input_embedding = nn.Parameter(torch.empty(self.n_items, h.embedding))
            first_cell = GRUCell(last if h.constrained_embedding else h.embedding, self.layers[0])
        deeper = [GRUCell(below, size) for below, size in zip(self.layers, self.layers[1:], strict=False)]
        self.cells = nn.ModuleList([first_cell, *deeper])
        initialise_gates(self.output_embedding, 1, dim=1)
        if not h.constrained_embedding:
            initialise_gates(self.input_embedding, 3 if self.one_hot else 1, dim=1)
        counts = torch.from_numpy(self.known_items.counts)
        self.sampler = NegativeSampler(counts, h.sample_alpha)
        self.log_q = LogQ(counts, h.sample_alpha, h.logq_mode)

    def configure_optimizers(self) -> Optimizer:
        """Adagrad with momentum on all parameters."""
        return AdagradMomentum(self.parameters(), lr=self.options.learning_rate, momentum=self.options.momentum)

    # -- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse what the training step cannot do.

        Raises:
            SessRecError: If the precision needs a gradient scaler.
        """
        super().on_fit_start()
        if self.trainer.precision == "16-mixed":
            raise SessRecError("--trainer.precision 16-mixed is not supported: use 32-true or bf16-mixed")

    def on_train_start(self) -> None:
        """Let the options of this fit win over those in a resumed checkpoint's optimiser."""
        for group in self._raw_optimizer().param_groups:
            group.update(lr=self.options.learning_rate, momentum=self.options.momentum)

    def on_train_epoch_start(self) -> None:
        """Begin every lane afresh."""
        self._hidden = []
        self._last_time = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Nothing to finish."""

    def training_step(self, window: Window, batch_idx: int) -> None:
        """Train on a window of session-parallel steps and log its mean loss a pair."""
        if self.trainer.max_steps > 0:
            window = window.head(self.trainer.max_steps - self.global_step)
        loss = self.train_window(window, self.optimizers(), self._window_generator(batch_idx))
        mean_loss = loss.item() / window.n_events  # the window's only synchronisation with the device
        if not np.isfinite(mean_loss):
            raise SessRecError(
                f"the training loss is {mean_loss} at step {self.global_step}: the fit has diverged; try a lower "
                f"--model.learning_rate than {self.options.learning_rate}"
            )
        now = time.perf_counter()
        speed, self._last_time = window.n_events / (now - self._last_time), now
        self.log("train/loss", mean_loss, prog_bar=True, logger=False)
        self.log("train/events_per_second", speed, prog_bar=True, logger=False)
        self.log("train/loss_epoch", mean_loss, on_step=False, on_epoch=True, logger=False, batch_size=window.n_events)
        figures = {
            "train/loss": mean_loss,
            "train/events_per_second": speed,
            "train/learning_rate": self._raw_optimizer().param_groups[0]["lr"],
        }
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval and self.global_step // interval > (self.global_step - len(window.widths)) // interval:
            for logger in self.loggers:
                logger.log_metrics(figures, step=self.global_step)

    def train_window(self, window: Window, optimizer: Optimizer | Any, generator: torch.Generator) -> Tensor:
        """Take one optimiser step for every step of the window, carrying the hidden state.

        Args:
            window: Session-parallel steps.
            optimizer: Anything with ``step`` and ``zero_grad``.
            generator: Source of the negatives and dropout masks, on the model's device.

        Returns:
            Sum of the loss over all pairs, detached, scalar.
        """
        n_steps, n_lanes = window.inputs.shape
        if not self._hidden:
            self._hidden = [torch.zeros(n_lanes, size, device=self.device) for size in self.layers]
        negatives = self.sampler.sample((n_steps, self.options.n_sample), generator)
        masks = self._dropout_masks(n_steps, n_lanes, generator)
        total = torch.zeros((), device=self.device)
        for step, width in enumerate(window.widths.tolist()):
            # the lanes that still hold a session, all of them but at the end of the epoch
            live = slice(None) if width == n_lanes else window.live[step].nonzero()[:, 0]
            hidden = [state[live].masked_fill(window.starts[step, live, None], 0.0) for state in self._hidden]
            step_masks = [None if mask is None else mask[step, live] for mask in masks]
            inputs, targets = window.inputs[step, live], window.targets[step, live]
            loss, hidden = self.step_loss(inputs, targets, negatives[step], hidden, step_masks)
            optimizer.zero_grad()
            if width + self.options.n_sample > 1:
                (loss / n_lanes).backward()  # the nominal batch size, also when fewer lanes are live
            elif self.loss_name != "cross-entropy":
                rank_zero_warn("steps of a single lane are skipped: without --model.n_sample they have no negatives")
            optimizer.step()  # changes nothing where there are no gradients, but the step counts
            for state, new in zip(self._hidden, hidden, strict=True):
                state[live] = new.detach()
            total += loss.detach()
        return total

    def step_loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        negatives: Tensor,
        hidden: list[Tensor],
        masks: list[Tensor | None],
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of one session-parallel step.

        Args:
            inputs: Item of each live lane, int64, shape (V,).
            targets: Next item of each live lane, int64, shape (V,).
            negatives: Sampled items, int64, shape (n_sample,).
            hidden: State of each layer, shapes (V, H).
            masks: Dropout mask on the inputs, then on each layer's output, or None.

        Returns:
            Sum of the loss over the live lanes, scalar, and the new states.
        """
        candidates = torch.cat([targets, negatives])  # (C,)
        if self.options.constrained_embedding:  # one lookup, so one gradient of the shared table
            rows = F.embedding(torch.cat([candidates, inputs]), self.output_embedding, sparse=True)
            output_rows, layer_input = rows.split([len(candidates), len(inputs)])
        else:
            output_rows = F.embedding(candidates, self.output_embedding, sparse=True)
            layer_input = F.embedding(inputs, self.input_embedding, sparse=True)
        bias = F.embedding(candidates, self.output_bias, sparse=True)[:, 0]
        hidden = self._recur(layer_input, hidden, masks)
        logits = torch.addmm(bias, hidden[-1], output_rows.T)  # (V, C)
        return self._loss(logits, candidates, len(targets)).sum(), hidden

    def _recur(self, layer_input: Tensor, hidden: list[Tensor], masks: list[Tensor | None]) -> list[Tensor]:
        """New state of each layer, shapes (V, H), after dropout."""
        layer_input = layer_input if masks[0] is None else layer_input * masks[0]
        new_hidden = []
        for cell, state, mask in zip(self.cells, hidden, masks[1:], strict=True):
            layer_input = cell(layer_input, state)
            layer_input = layer_input if mask is None else layer_input * mask
            new_hidden.append(layer_input)
        return new_hidden

    def _loss(self, logits: Tensor, candidates: Tensor, n_live: int) -> Tensor:
        """Loss of each live lane, shape (V,), from logits (V, C)."""
        h = self.options
        excluded = None
        if h.exclude_target_copies:
            excluded = (candidates[:n_live, None] == candidates).fill_diagonal_(False)
        if self.loss_name == "cross-entropy":
            if h.logq:
                logits = logits - h.logq * self.log_q(candidates[:n_live], candidates[n_live:])
            return losses.cross_entropy(logits, excluded)
        if self.loss_name == "bpr-max":
            return losses.bpr_max(logits, h.bpreg, h.elu_param, excluded)
        return {"bpr": losses.bpr, "top1": losses.top1, "top1-max": losses.top1_max}[self.loss_name](logits, excluded)

    def _dropout_masks(self, n_steps: int, n_lanes: int, generator: torch.Generator) -> list[Tensor | None]:
        """Masks for a window, each (steps, B, size) or None: for the inputs, then for every layer's output."""
        h = self.options
        input_size = self.input_embedding.shape[1] if not h.constrained_embedding else self.layers[-1]
        sizes_and_probabilities = [
            (input_size, h.dropout_p_embed),
            *((size, h.dropout_p_hidden) for size in self.layers),
        ]
        masks: list[Tensor | None] = []
        for size, probability in sizes_and_probabilities:
            mask = None
            if probability:
                mask = torch.empty(n_steps, n_lanes, size, device=self.device)
                mask.bernoulli_(1 - probability, generator=generator).div_(1 - probability)
            masks.append(mask)
        return masks

    def _window_generator(self, window_number: int) -> torch.Generator:
        """A generator that follows from seed, epoch and window alone, so that a resumed fit draws the same."""
        entropy = np.random.SeedSequence([self.seed or 0, self.current_epoch, window_number])
        return torch.Generator(self.device).manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def _raw_optimizer(self) -> Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    # -- inference ---------------------------------------------------------------------------------------------------

    def encode(self, items: Tensor) -> Tensor:
        """Last layer's hidden state after each event.

        Args:
            items: Item indices, padded at the end, int64, shape (S, L).

        Returns:
            Queries, float32, shape (S, L, H).
        """
        table = self.output_embedding if self.options.constrained_embedding else self.input_embedding
        hidden = [table.new_zeros(len(items), size) for size in self.layers]
        no_masks: list[Tensor | None] = [None] * (1 + len(self.layers))
        queries = []
        for item in items.T:
            hidden = self._recur(table[item], hidden, no_masks)
            queries.append(hidden[-1])
        return torch.stack(queries, dim=1)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Logit of each item, float32, shape (P, n): no ELU and no logQ, which do not belong to inference."""
        return torch.addmm(self.output_bias[items, 0], queries, self.output_embedding[items].T)

    def score_targets(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Logit of each position's target, float32, shape (P, 1), by the matrix product that scores the items."""
        return torch.addmm(self.output_bias[targets, 0], queries, self.output_embedding[targets].T).diagonal()[:, None]


def _check_options(options: Any, layers: list[int]) -> None:
    """Refuse options out of their range or at odds with each other."""
    shared_table_alone = not (options.constrained_embedding and options.embedding)
    rules = {
        "embedding": (
            options.embedding >= 0 and shared_table_alone,
            "at least 0, and 0 with --model.constrained_embedding true",
        ),
        "dropout_p_embed": (0 <= options.dropout_p_embed < 1, "at least 0 and below 1"),
        "dropout_p_hidden": (0 <= options.dropout_p_hidden < 1, "at least 0 and below 1"),
        "learning_rate": (options.learning_rate > 0, "above 0"),
        "momentum": (0 <= options.momentum < 1, "at least 0 and below 1"),
        "logq": (0 <= options.logq <= 1, "from 0 to 1"),
        **{name: (options[name] >= 0, "at least 0") for name in ("n_sample", "sample_alpha", "bpreg", "elu_param")},
    }
    if not layers or min(layers) < 1:
        raise SessRecError(f"--model.layers is {layers} but must be a list of at least one positive number of units")
    for name, (holds, wanted) in rules.items():
        if not holds:
            raise SessRecError(f"--model.{name} is {options[name]!r} but must be {wanted}")
