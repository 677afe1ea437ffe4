"""The tensor parts of a training step: cells, losses, negatives, steps and the optimiser."""

from sessrec.nn.layers import GRUCell, GRUStack
from sessrec.nn.losses import Candidates, bpr_max, cross_entropy
from sessrec.nn.negatives import LogQ, NegativeSampler
from sessrec.nn.optim import AdagradMomentum
from sessrec.nn.steps import Step, StepLayout

__all__ = [
    "AdagradMomentum",
    "Candidates",
    "GRUCell",
    "GRUStack",
    "LogQ",
    "NegativeSampler",
    "Step",
    "StepLayout",
    "bpr_max",
    "cross_entropy",
]
