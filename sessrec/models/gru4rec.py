"""GRU4Rec: a recurrent network trained on session-parallel mini-batches.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016.
    Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM 2018.
    Hidasi and Czapp, "The Effect of Third Party Implementations on Reproducibility", RecSys 2023.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from sessrec.data.session_parallel import Window
from sessrec.distributed import can_be_captured, gradient_of_rows, join_rows, n_processes, own_part, sum_gradients
from sessrec.errors import SessRecError, check_choice
from sessrec.models.compatibility import check_ranges
from sessrec.models.featured_items import FeaturedItems
from sessrec.models.inference import full_precision
from sessrec.models.neural import NeuralRecommender, set_rate
from sessrec.models.sharded import ShardedTables, taken
from sessrec.nn import losses
from sessrec.nn.cuda_graphs import CapturedRun
from sessrec.nn.item_features import ItemParts, Kept
from sessrec.nn.layers import GRUCell, GRUStack, ResetBeforeGRUCell, dropout_mask, initialise_gates, mm
from sessrec.nn.negatives import LogQ, NegativeSampler
from sessrec.nn.optim import AdagradMomentum, gather_rows
from sessrec.nn.steps import Step, StepLayout

_PLAIN_LOSSES = {
    "cross-entropy": losses.cross_entropy,
    "bpr": losses.bpr,
    "top1": losses.top1,
    "top1-max": losses.top1_max,
}
_RANGES = {
    "[0, 1)": "dropout_p_embed dropout_p_hidden momentum",
    "[0, 1]": "logq",
    "(0, inf)": "learning_rate",
    "[0, inf]": "embedding n_sample sample_alpha bpreg elu_param",
}
LossName = Literal["cross-entropy", "bpr-max", "bpr", "top1", "top1-max"]


class GRU4Rec(ShardedTables, FeaturedItems, NeuralRecommender):
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
        protocol: Options of `FeaturedItems`, `NeuralRecommender` and `SessionRecommender`.
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
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        self.layers = [100] if layers is None else list(layers)
        if not self.layers or min(self.layers) < 1:
            raise SessRecError(f"--model.layers is {layers} but must be at least one positive number of units")
        if constrained_embedding and embedding:
            raise SessRecError(
                f"--model.embedding is {embedding} but must be 0 with --model.constrained_embedding true"
            )
        if not constrained_embedding and self.uses_features:
            raise SessRecError("--model.features needs --model.constrained_embedding true: inputs have features, too")
        check_ranges(self.options, _RANGES)
        check_choice("loss", loss, LossName)
        self.loss_name = loss
        self._hidden: list[Tensor] = []  # of each layer, (B, H)
        self._layout: StepLayout | None = None
        self._captured: tuple[Optimizer, CapturedRun] | None = None

    item_rows: tuple[str, ...] = ("output_embedding", "output_bias", "input_embedding")

    def build(self) -> None:
        """Create the embeddings, the layers and the negative sampler."""
        h = self.options
        last = self.layers[-1]
        self.output_embedding = nn.Parameter(torch.empty(self.n_items, last))
        self.output_bias = nn.Parameter(torch.zeros(self.n_items, 1))
        self.shared_inputs = h.constrained_embedding
        self._layout, self._captured = None, None
        self.one_hot = not h.constrained_embedding and not h.embedding
        if self.one_hot:
            self.input_embedding = nn.Parameter(torch.empty(self.n_items, 3 * self.layers[0]))  # gates n, r, z
            first_cell: GRUCell | ResetBeforeGRUCell = ResetBeforeGRUCell(self.layers[0])
        else:
            if not h.constrained_embedding:
                self.input_embedding = nn.Parameter(torch.empty(self.n_items, h.embedding))
            first_cell = GRUCell(last if h.constrained_embedding else h.embedding, self.layers[0])
        deeper = [GRUCell(below, size) for below, size in zip(self.layers, self.layers[1:], strict=False)]
        self.cells = GRUStack([first_cell, *deeper])
        initialise_gates(self.output_embedding, 1, dim=1)
        if not h.constrained_embedding:
            initialise_gates(self.input_embedding, 3 if self.one_hot else 1, dim=1)
        counts = torch.from_numpy(self.vocabulary.counts)
        self.sampler = NegativeSampler(counts, h.sample_alpha)
        self.log_q = LogQ(counts, h.sample_alpha)
        self.build_features()

    def configure_optimizers(self) -> Optimizer:
        """Adagrad with momentum on all parameters."""
        return AdagradMomentum(self.parameters(), lr=self.options.learning_rate, momentum=self.options.momentum)

    # -- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Start every lane afresh, or resume with the saved states."""
        super().on_train_start()
        self._hidden = [self._own_lanes(state) for state in self._hidden] if self.progress.inside_epoch else []
        self._captured = None

    def _own_lanes(self, state: Tensor) -> Tensor:
        """This process's part of a checkpoint's states, which are those of all lanes."""
        return state[own_part(len(state))].to(self.device, copy=True)

    @property
    def trains_in_parallel(self) -> bool:
        """Yes: each process takes its own lanes of every step, unless a subclass takes them otherwise."""
        return type(self).train_window is GRU4Rec.train_window

    def on_train_epoch_start(self) -> None:
        """Start every lane afresh."""
        for state in self._hidden:
            state.zero_()  # in place: captured windows read this memory

    def on_train_end(self) -> None:
        """Free the CUDA graphs."""
        self._captured = None

    @torch.no_grad()
    def train_window(self, window: Window, optimizer: Optimizer, generator: torch.Generator) -> Tensor:
        """Take one optimiser step for every step of the window, carrying the hidden state.

        Any optimiser that takes sparse gradients will do; on a GPU only `AdagradMomentum` is captured.
        """
        n_steps, n_lanes = window.inputs.shape  # n_lanes of all processes; B below are those of this one
        own = own_part(n_lanes)
        self.begin_window(generator)
        if not self._hidden:
            n_own = own.stop - own.start
            self._hidden = [self.output_bias.new_zeros(n_own, size) for size in self.layers]  # (B, H) each
        n_drawn, drawn = window.n_before + n_steps + window.n_after, slice(window.n_before, window.n_before + n_steps)
        negatives = self.sampler.sample((n_drawn, self.options.n_sample), generator)[drawn]  # (steps, n)
        masks = [mask if mask is None else mask[drawn] for mask in self._dropout_masks(n_drawn, n_lanes, generator)]
        not_reset = (~window.starts).to(self.output_bias.dtype)[:, :, None]  # (steps, lanes, 1)
        losses = []
        for steps, live in window.runs():
            lanes = _OwnLanes.of(live, own)
            tensors: list[Tensor | None]
            tensors = [negatives[steps], window.inputs[steps, live], window.targets[steps, live]]
            tensors += [part if part is None else part[steps, lanes.in_window] for part in (not_reset, *masks)]
            rates = None if self.rates is None else self.rates[steps]
            if self.captures and isinstance(optimizer, AdagradMomentum) and isinstance(live, slice):
                # a graph reads the rates as it reads the items: other rates need no other graph
                in_memory = None if rates is None else self.output_bias.new_tensor(rates)
                losses.append(self._captured_run(optimizer)([in_memory, *tensors], _settings(optimizer, rates is None)))
            else:
                losses.append(self._take_steps(optimizer, lanes, rates, *tensors))
        if self.rates is not None:
            set_rate(optimizer, self.rates[-1])
        return torch.cat(losses)

    @property
    def captures(self) -> bool:
        """Whether windows of full lanes run as CUDA graphs; an epoch's last ones, whose lanes run out, do not."""
        # anomalies are asked of the device, and so is how many rows of a step are here
        is_static = self.shards is None and not torch.is_anomaly_enabled()
        return self.device.type == "cuda" and is_static and can_be_captured()

    def _captured_run(self, optimizer: Optimizer) -> CapturedRun:
        """Graphs of this optimiser's steps; parameters and hidden states must stay where they are meanwhile."""
        if self._captured is None or self._captured[0] is not optimizer:
            lanes = _OwnLanes.of(slice(None), own_part(len(self._hidden[0]) * n_processes()))
            self._captured = optimizer, CapturedRun(lambda window: self._take_steps(optimizer, lanes, *window))
        return self._captured[1]

    def _take_steps(
        self,
        optimizer: Optimizer,
        lanes: _OwnLanes,
        rates: Any,
        negatives: Any,
        inputs: Any,
        targets: Any,
        not_reset: Any,
        *masks: Tensor | None,
    ) -> Tensor:
        """Take consecutive steps of the same live lanes, V of them of this process.

        Returns:
            Sum of each step's loss over the V lanes, shape (steps,).
        """
        rates = [None] * len(inputs) if rates is None else rates
        distinct = self.device.type == "cpu" and not self.captures
        if self._layout is None or self._layout.distinct != distinct:
            self._layout = StepLayout(self.n_items, distinct, self.shared_inputs)
        weights = self._weights(targets, negatives)  # (steps, L + n), L lanes of all processes
        skipped = weights.shape[1] == 1
        if skipped and self.loss_name != "cross-entropy":
            rank_zero_warn("steps of a single lane are skipped: without --model.n_sample they have no negatives")
        hidden = [state[lanes.in_states] for state in self._hidden]  # (V, H) each
        losses = []
        # autocast would keep its copies of the weights from step to step
        kind = self.device.type
        update = optimizer.update if isinstance(optimizer, AdagradMomentum) else optimizer.step
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind), cache_enabled=False):
            steps = self._layout.steps(inputs, targets, negatives, weights, not_reset, masks, lanes.among_live)
            for step, rate in zip(steps, rates, strict=True):
                if rate is not None:
                    set_rate(optimizer, rate)
                loss, hidden = self.train_step(step, hidden)
                if skipped:
                    optimizer.zero_grad()
                elif n_processes() > 1:
                    sum_gradients(self.parameters())
                    self.keep_own_rows()
                update()
                losses.append(loss)
        for state, new in zip(self._hidden, hidden, strict=True):
            state[lanes.in_states] = new
        return torch.stack(losses)

    def _rows_of(self, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of the item table, (U, H), their biases, (C,), and the lanes' rows of a separate one, (V, I)."""
        n_candidates, inputs = len(step.candidates.weights), None
        if self.shards is not None:
            rows, biases = self.shards.gather([self.output_embedding, self.output_bias], step.items)
            if not self.shared_inputs:
                inputs = self.shards.gather([self.input_embedding], step.all_inputs)[0][step.own]
            return rows, biases[:n_candidates, 0], inputs
        rows = gather_rows(self.output_embedding, step.items)
        bias = self.output_bias.view(-1).index_select(0, step.items[:n_candidates])
        if not self.shared_inputs:
            inputs = self.input_embedding.index_select(0, step.inputs)
        return rows, bias, inputs

    def train_step(self, step: Step, hidden: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Loss of one session-parallel step, forwards and backwards.

        The gradients of the sum of the loss, divided by the nominal batch size also where fewer lanes are live, are
        left in the parameters. U rows of the item table are looked up, the first C of them candidates.

        Returns:
            Sum of the loss over the V live lanes, scalar, and the new state of each layer, shapes (V, H).
        """
        n_candidates, table = step.candidates.weights.shape[0], self.output_embedding  # C, (N, H)
        rows, bias, layer_input = self._rows_of(step)  # (U, H), (C,), (V, I) or None
        parts = kept = None
        if self.item_features is not None:
            parts = ItemParts(self.item_features, step.items, whole=self.captures)
            kept = None if self.kept is None else Kept.of(self.kept, step.items, n_candidates)
            rows = rows if kept is None else kept.rows(rows)
        output_rows, candidates = rows[:n_candidates], step.items[:n_candidates]  # (C, H), (C,)
        bias = bias if kept is None else kept.candidates(bias)
        layer_input = rows.index_select(0, step.inputs) if layer_input is None else layer_input  # (V, I)
        layer_input = layer_input if parts is None else parts.add_to_inputs(layer_input, step.inputs)
        states = [state * step.not_reset for state in hidden]  # (V, H) each
        hidden, saved = self.cells.step(layer_input, states, step.masks)  # (V, H) each
        with full_precision(self.device):
            logits = torch.addmm(bias, hidden[-1], output_rows.T)  # (V, C)
            logits = logits if parts is None else parts.add_to_logits(logits, hidden[-1])
            loss, d_logits = self._loss(logits, step.candidates)  # (V,), (V, C)
        d_logits.mul_(1 / (self._hidden[0].shape[0] * n_processes()))
        d_states = mm(d_logits, output_rows)  # (V, H)
        if parts is not None:
            parts.backward_of_logits(d_logits, hidden[-1], d_states)
        d_inputs = self.cells.backward(saved, d_states, step.masks)  # (V, I)
        d_rows = rows  # (U, H), whose values are no longer needed: fresh memory would cost more than the work
        mm(d_logits.T, hidden[-1], out=d_rows[:n_candidates])  # (C, V) (V, H)
        d_rows[n_candidates:].zero_()
        if self.shared_inputs:
            d_rows.index_add_(0, step.inputs, d_inputs)
        else:
            d_all = d_inputs
            if n_processes() > 1:  # the others add theirs
                d_all = d_inputs.new_zeros(len(step.all_inputs), d_inputs.shape[1])  # (L, I)
                d_all[step.own] = d_inputs
            self.input_embedding.grad = gradient_of_rows(
                step.all_inputs, d_all, self.input_embedding.shape, distinct=False
            )
        d_bias = d_logits.sum(dim=0)[:, None]  # (C, 1)
        if parts is not None:
            parts.backward_of_inputs(d_inputs, step.inputs)
        if kept is not None:
            d_rows, d_bias = kept.rows(d_rows), kept.candidates(d_bias)
        table.grad = gradient_of_rows(step.items, d_rows, table.shape, step.distinct)
        self.output_bias.grad = gradient_of_rows(candidates, d_bias, self.output_bias.shape, step.distinct)
        return loss.sum(), hidden

    def _loss(self, logits: Tensor, candidates: losses.Candidates) -> tuple[Tensor, Tensor]:
        """Loss of each live lane, shape (V,), and its gradient, shape (V, C), from logits (V, C)."""
        if self.loss_name == "bpr-max":
            return losses.bpr_max(logits, candidates, self.options.bpreg, self.options.elu_param)
        return _PLAIN_LOSSES[self.loss_name](logits, candidates)

    def _weights(self, targets: Tensor, negatives: Tensor) -> Tensor:
        """Weight of each target (steps, V) and each sample (steps, n) among the candidates, shape (steps, V + n)."""
        if self.loss_name == "cross-entropy" and self.options.logq:
            return self.log_q(targets, negatives).mul_(-self.options.logq).exp_().to(self.output_bias.dtype)
        return self.output_bias.new_ones(len(targets), targets.shape[1] + negatives.shape[1])

    def _dropout_masks(self, n_steps: int, n_lanes: int, generator: torch.Generator) -> list[Tensor | None]:
        """Masks for a window, each (steps, B, size) or None: for the inputs, then for every layer's output."""
        h = self.options
        input_size = self.layers[-1] if self.shared_inputs else self.input_embedding.shape[1]
        sizes = [(input_size, h.dropout_p_embed), *((size, h.dropout_p_hidden) for size in self.layers)]
        return [dropout_mask((n_steps, n_lanes, size), p, generator) if p else None for size, p in sizes]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the hidden states, where a fit may resume inside an epoch."""
        super().on_save_checkpoint(checkpoint)
        inside = self.progress.inside_epoch
        checkpoint["hidden"] = [join_rows(state) for state in self._hidden] if inside else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the hidden states."""
        super().on_load_checkpoint(checkpoint)
        self._hidden = checkpoint.get("hidden", [])

    # -- inference ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, items: Tensor) -> Tensor:
        """Last layer's hidden state after each event, float32, shape (S, L, H), without gradients."""
        table = self.item_table if self.shared_inputs else self.whole_table("input_embedding")
        hidden = [table.new_zeros(len(items), size, device=items.device) for size in self.layers]
        no_masks: list[Tensor | None] = [None] * (1 + len(self.layers))
        queries = []
        for item in items.T:
            hidden, _ = self.cells.step(taken(table, item), hidden, no_masks)
            queries.append(hidden[-1])
        return torch.stack(queries, dim=1)

    def score(self, queries: Tensor, items: slice | Tensor) -> Tensor:
        """Logit of each item, float32, shape (P, n): no ELU and no logQ, which do not belong to inference."""
        # in 32 bits also where the weights have 64, in which products round by their shape and ties would come apart
        bias, table = (
            taken(of, items, queries.device).float() for of in (self.whole_table("output_bias"), self.item_table)
        )
        return torch.addmm(bias[:, 0], queries.float(), table.T)

    def factors(self, queries: Tensor, items: slice) -> tuple[Tensor, Tensor]:
        """See `SessionRecommender.factors`; the bias is a product with 1."""
        tables = (self.item_table, self.whole_table("output_bias"))
        rows = torch.cat([taken(table, items, queries.device) for table in tables], dim=1).float()
        return torch.nn.functional.pad(queries.float(), (0, 1), value=1.0), rows

    def score_targets(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Logit of each position's target, float32, shape (P, 1), by the matrix product that scores the items."""
        return self.score(queries, targets).diagonal()[:, None]


class _OwnLanes(NamedTuple):
    """Where the live lanes of this process are."""

    in_window: slice | Tensor
    """Among all lanes of the window."""
    in_states: slice | Tensor
    """Among the hidden states, which are those of this process's lanes."""
    among_live: slice | None
    """Among the live lanes of all processes; None where they are all."""

    @classmethod
    def of(cls, live: slice | Tensor, own: slice) -> _OwnLanes:
        """Those of the live lanes, all or int64, ascending, that are among a process's own."""
        if n_processes() == 1:
            return cls(live, live, None)
        if isinstance(live, slice):
            return cls(own, slice(None), own)
        first, stop = torch.searchsorted(live, live.new_tensor([own.start, own.stop])).tolist()
        return cls(live[first:stop], live[first:stop] - own.start, slice(first, stop))


def _settings(optimizer: Optimizer, with_rate: bool) -> tuple[Any, ...]:
    """The numbers that an optimiser uses, with or without the learning rate."""
    left_out = {"params"} if with_rate else {"params", "lr"}
    return tuple(
        value for group in optimizer.param_groups for name, value in sorted(group.items()) if name not in left_out
    )
