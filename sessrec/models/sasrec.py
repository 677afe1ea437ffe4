"""SASRec: causal self-attention over the session.

References:
    Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from sessrec.errors import SessRecError, check_choice
from sessrec.models.compatibility import check_ranges
from sessrec.models.neural import NeuralRecommender
from sessrec.models.whole_sessions import SESSION_RANGES, WholeSessions
from sessrec.nn.attention import Block, BlockName, Packing
from sessrec.nn.objective import Objective, ObjectiveName
from sessrec.nn.optim import AdagradMomentum, JoinedOptimizers

_RANGES = {
    "[1, inf)": "hidden_size n_blocks n_heads inner_factor",
    "[0, 1)": "dropout",
    "(0, inf)": "table_learning_rate",
    "[0, inf]": "temperature bpreg elu_param",
}


class SASRec(WholeSessions, NeuralRecommender):
    """Blocks of causal self-attention, trained on whole sessions by cross-entropy.

    Three things differ from the paper, as short sessions need them (docs/attention.md). A linear map lies between the
    last norm and the item embedding: without it, the residual path makes the last item the best next one. The attention
    has a bias for each distance in place of an embedding of places. Adagrad trains the embedding, in touched rows only,
    and Adam the rest.

    Args:
        hidden_size: Size of the embeddings and of all layers (paper: 50; GRU4Rec's size here).
        n_blocks: Number of blocks, each of attention and an inner layer (paper: 2).
        n_heads: Number of attention heads (paper: 1).
        block: The paper's block (plain), or one with gates and a SwiGLU as inner layer (ligr), that of eSASRec.
        inner_factor: Size of the inner layer over ``hidden_size`` (paper: 1; eSASRec: 4).
        dropout: Probability to drop an element of an embedding or of a layer's output (paper: 0.2 for the dense log,
            0.5 for the sparse ones).
        learning_rate: Learning rate of Adam, of the blocks (paper: 0.001).
        table_learning_rate: Learning rate of Adagrad, of the item embedding.
        max_length: Events that a position looks back at; a longer session is trained on in pieces of that length
            (paper: 50 for the sparse logs).
        loss: ``cross-entropy`` or ``bpr-max`` (paper: binary cross-entropy).
        temperature: Temperature of cross-entropy: its logits are cosines over it, 0 makes them inner products; other
            losses have inner products.
        n_sample: Negative samples of a step, shared by all positions, beside the other positions' targets; 0 compares a
            target with all items (paper: one negative a target).
        sample_alpha: Samples are drawn in proportion to an item's count to this power; 0 gives eSASRec's mixed
            negatives, uniform ones and the other targets.
        logq: Strength in [0, 1] of the popularity correction of sampled cross-entropy; other losses have none.
        bpreg: Weight of the score regularisation of BPR-max.
        elu_param: Saturation of the ELU in BPR-max; 0 for none.
        protocol: Options of `FeaturedItems`, `NeuralRecommender` and `SessionRecommender`.
    """

    has_sparse_gradients = True

    def __init__(
        self,
        hidden_size: int = 100,
        n_blocks: int = 2,
        n_heads: int = 1,
        block: BlockName = "plain",
        inner_factor: int = 1,
        dropout: float = 0.2,
        learning_rate: float = 0.002,
        table_learning_rate: float = 0.05,
        max_length: int = 50,
        loss: ObjectiveName = "cross-entropy",
        temperature: float = 0.1,
        n_sample: int = 8192,
        sample_alpha: float = 0.75,
        logq: float = 1.0,
        bpreg: float = 1.0,
        elu_param: float = 0.5,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        check_ranges(self.options, SESSION_RANGES)
        check_ranges(self.options, _RANGES)
        check_choice("--model.loss", loss, ObjectiveName)
        check_choice("--model.block", block, BlockName)
        if hidden_size % n_heads:
            raise SessRecError(f"--model.hidden_size {hidden_size} is no multiple of --model.n_heads {n_heads}")

    def build(self) -> None:
        """Create the embedding, the blocks, the last map and the negative sampler."""
        h = self.options
        self.item_embedding = nn.Parameter(torch.empty(self.n_items, h.hidden_size).normal_(std=h.hidden_size**-0.5))
        sizes = (h.hidden_size, h.n_heads, h.inner_factor * h.hidden_size, h.max_length)
        self.blocks = nn.ModuleList(Block(*sizes, h.block) for _ in range(h.n_blocks))
        self.norm, self.output = nn.LayerNorm(h.hidden_size), nn.Linear(h.hidden_size, h.hidden_size)
        temperature = h.temperature if h.loss == "cross-entropy" else 0.0
        self.objective = Objective(
            torch.from_numpy(self.vocabulary.counts),
            *(h.loss, h.n_sample, h.sample_alpha, h.logq, temperature, h.bpreg, h.elu_param),
        )
        self.build_features()

    def configure_optimizers(self) -> Optimizer:
        """Adam for the blocks, Adagrad for the item vectors, those of ids and what features add."""
        h, layers, of_items = self.options, dict(self.named_parameters()), []
        for name in [*layers]:
            if name.startswith(("item_embedding", "item_features")):
                of_items.append(layers.pop(name))
        of_layers = Adam(layers.values(), lr=h.learning_rate, betas=(0.9, 0.98))
        return JoinedOptimizers(of_layers, AdagradMomentum(of_items, lr=h.table_learning_rate))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `SessionRecommender.on_load_checkpoint`.

        Raises:
            SessRecError: If the checkpoint is of sessrec 0.2.
        """
        if "place_embedding" in checkpoint["state_dict"]:
            raise SessRecError("the checkpoint is of the SASRec of sessrec 0.2, which had no last map: fit anew")
        super().on_load_checkpoint(checkpoint)

    def queries(self, items: Tensor, wanted: Tensor, training: bool = False) -> Tensor:
        """Output at each wanted event, from it and the events before it; see `WholeSessions`."""
        h, packing = self.options, Packing.up_to(wanted)
        dropout = h.dropout if training else 0.0
        inputs = items.flatten()[packing.events]
        states = F.dropout(self.rows(inputs) * h.hidden_size**0.5, dropout)  # (E, H)
        for block in self.blocks:
            states = block(states, packing, dropout)
        return self.output(self.norm(states[wanted.flatten()[packing.events]]))
