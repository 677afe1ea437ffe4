"""From scores to ranks, metrics, intervals, comparisons and audits."""

from sessrec.evaluation.bootstrap import Interval
from sessrec.evaluation.comparison import compare_runs
from sessrec.evaluation.metrics import MRR, NDCG, Recall, ranking_metrics
from sessrec.evaluation.rank_table import Ranks, read_ranks
from sessrec.evaluation.slices import Slices

__all__ = ["MRR", "NDCG", "Interval", "Ranks", "Recall", "Slices", "compare_runs", "ranking_metrics", "read_ranks"]
