"""The models; the commands know those that are imported here by their class names."""

from sessrec.models.base import SessionRecommender
from sessrec.models.gru4rec import GRU4Rec
from sessrec.models.markov import Markov
from sessrec.models.oracle import Oracle
from sessrec.models.popularity import Popularity

__all__ = ["GRU4Rec", "Markov", "Oracle", "Popularity", "SessionRecommender"]
