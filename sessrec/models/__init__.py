"""The models; the commands know those that are imported here by their class names."""

from sessrec.models.ar import AR
from sessrec.models.base import SessionRecommender
from sessrec.models.content_knn import ContentKNN
from sessrec.models.content_mix import ContentMix
from sessrec.models.gru4rec import GRU4Rec
from sessrec.models.item_knn import ItemKNN
from sessrec.models.markov import Markov
from sessrec.models.narm import NARM
from sessrec.models.oracle import Oracle
from sessrec.models.popularity import Popularity
from sessrec.models.random import Random
from sessrec.models.s_pop import SPop
from sessrec.models.sasrec import SASRec
from sessrec.models.sknn import SKNN
from sessrec.models.sr import SR
from sessrec.models.sr_gnn import SRGNN
from sessrec.models.stan import STAN
from sessrec.models.vmis_knn import VMISKNN
from sessrec.models.vsknn import VSKNN
from sessrec.models.vstan import VSTAN

__all__ = [
    "AR",
    "ContentKNN",
    "ContentMix",
    "GRU4Rec",
    "ItemKNN",
    "Markov",
    "NARM",
    "Oracle",
    "Popularity",
    "Random",
    "SASRec",
    "SKNN",
    "SPop",
    "SR",
    "SRGNN",
    "STAN",
    "SessionRecommender",
    "VMISKNN",
    "VSKNN",
    "VSTAN",
]
