"""Draw all pictures of a study from its tested runs and its click log, as PNG and SVG.

Example::

    sessrec figures --runs lightning_logs/my-gru4rec lightning_logs/my-markov --output figures/

The log is the one that the first run was fitted to, split as it was there. Of a kind of picture that the runs give
nothing for, such as the architecture where none of them is a GRU4Rec, the command says why it is left out. The sweep of
Markov's alpha fits and tests Markov with several values, as runs of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from tqdm import tqdm

from sessrec.arguments import ScriptParser
from sessrec.callbacks.checkpoints import load_model
from sessrec.compare import comparison_figures
from sessrec.data import SessionDataModule
from sessrec.data.loaders import EvaluationBatch
from sessrec.data.preparation import PreparedLog
from sessrec.errors import SessRecError, error_text
from sessrec.evaluation.audits import sampled_audit
from sessrec.evaluation.comparison import Comparison, compare_runs
from sessrec.evaluation.tested_runs import Run, read_run
from sessrec.experiments.audit_runs import checkpoint_of, fit_other_model
from sessrec.figures.audits import audit_figure
from sessrec.figures.data import data_figures
from sessrec.figures.diagrams import (
    architecture_figure,
    pipeline_figure,
    protocol_figure,
    session_parallel_figure,
    traditional_figure,
)
from sessrec.figures.style import save_figures
from sessrec.figures.sweeps import sweep_figure
from sessrec.figures.training import training_figure
from sessrec.models import GRU4Rec, SessionRecommender
from sessrec.models.inference import top_items_at_positions

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def open_log(run: Run, path: str | None) -> tuple[PreparedLog, dict[str, Any]]:
    """The log of a run, prepared as it was for its fit or from another path, and the options of the data module."""
    config = run.folder / "config.yaml"
    if not config.is_file():
        raise SessRecError(f"{run.folder} has no config.yaml, so that its click log is not known")
    options = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    options |= {} if path is None else {"path": path}
    return SessionDataModule(**options).prepare(), options


def log_figures(log: PreparedLog, batch_size: int) -> dict[str, Figure]:
    """Pictures of the click log and of how it is used."""
    sessions, item_ids = log.sessions["train"], log.vocabulary.item_ids
    return data_figures(log) | {
        "pipeline": pipeline_figure(log.report, batch_size),
        "session_parallel": session_parallel_figure(sessions, item_ids),
        "traditional_against_session_based": traditional_figure(sessions, item_ids),
    }


def run_figures(comparison: Comparison) -> dict[str, Figure]:
    """Pictures of the runs' results."""
    models = {model.name: model.runs for model in comparison.models}
    found = comparison_figures(comparison)
    found["sampled"] = audit_figure(sampled_audit(models, ["recall@20", "mrr@20"]))
    folders = {
        name if len(group) == 1 else f"{name}, seed {run.report['seed']}": run.folder
        for name, group in models.items()
        for run in group
    }
    curves = training_figure(folders)
    return found if curves is None else found | {"training_curves": curves}


def protocol_of(run: Run, log: PreparedLog) -> Figure:
    """Explain the evaluation on one session of the test part: the first of five events with both a hit and a miss."""
    model, sessions = _model_of(run), log.sessions["test"]
    if sessions.digest_of_ids(log.vocabulary.item_ids) != run.report["protocol"]["data_digest"]:
        raise SessRecError(f"{run.folder} was tested on another log, or on a part of this one (--data)")
    ranks, session = run.ranks.rank, run.ranks.session
    lengths = np.diff(sessions.offsets)
    hits = np.bincount(session, ranks <= 20)
    positions = np.bincount(session)
    for wanted in (positions == 4) & (hits > 0) & (hits < 4), (positions > 1) & (hits > 0) & (hits < positions):
        if wanted.any():
            break
    number = int(np.argmax(wanted))
    items = torch.from_numpy(sessions[number].astype(np.int64))
    batch = EvaluationBatch(items[None], torch.tensor([int(lengths[number])]), torch.tensor([number]))
    with torch.inference_mode():
        best = top_items_at_positions(model, batch, 5)
    ids = model.vocabulary.item_ids
    top = [[ids[item] for item in row if item >= 0] for row in best.tolist()]
    own = [rank if np.isfinite(rank) else None for rank in ranks[session == number].tolist()]
    return protocol_figure([ids[item] for item in items.tolist()], top, own, len(ids))


def alpha_figure(run: Run, path: str | None) -> Figure:
    """Fit and test Markov with several alphas on a run's data, and draw its metrics."""
    words = [] if path is None else ["--data.path", path]
    results: dict[str, list[Sequence[float]]] = {"Recall@20": [], "MRR@20": []}
    for alpha in tqdm(ALPHAS, desc="alpha of Markov", disable=None):
        fitted = fit_other_model(run, "Markov", ["--model.alpha", str(alpha), *words], f"-alpha-{alpha}")
        for name, values in results.items():
            values.append([fitted.report["metrics"][f"test/{name.lower()}"]])
    metrics = {name: {"Markov": values} for name, values in results.items()}
    return sweep_figure("Markov: how much popularity to blend in", "alpha, share of popularity", ALPHAS, metrics)


def _model_of(run: Run) -> SessionRecommender:
    return load_model(checkpoint_of(run))


def draw(runs: Sequence[Run], path: str | None, with_alphas: bool) -> tuple[Mapping[str, Figure], list[str]]:
    """Draw all that can be drawn.

    Args:
        runs: Tested runs of one test part.
        path: Where the log lies, if no longer where it was.
        with_alphas: Whether to sweep Markov's alpha.

    Returns:
        The pictures by name, and what was left out, and why.
    """
    log, options = open_log(runs[0], path)
    comparison, left_out = compare_runs(runs), []
    figures = log_figures(log, options["batch_size"]) | run_figures(comparison)
    figures["protocol"] = protocol_of(comparison.models[0].runs[0], log)
    of_gru4rec = next((run for run in runs if run.report["model"] == "GRU4Rec"), None)
    if of_gru4rec is None:
        left_out.append("architecture: none of the runs is of a GRU4Rec")
    else:
        model = _model_of(of_gru4rec)
        assert isinstance(model, GRU4Rec)
        figures["architecture"] = architecture_figure(model)
    if "training_curves" not in figures:
        left_out.append("training_curves: no run has a curve of more than one point")
    if with_alphas:
        figures["alpha_sweep"] = alpha_figure(runs[0], path)
    else:
        left_out.append("alpha_sweep: --no_alphas")
    return figures, left_out


def main(args: list[str] | None = None) -> None:
    """Draw the pictures."""
    parser = ScriptParser(__doc__, command="figures")
    parser.add_argument("--runs", nargs="+", type=Path, required=True, help="folders of tested runs, of one test part")
    parser.add_argument("--data", help="the click log, if it no longer lies where the first run read it")
    parser.add_argument("--no_alphas", action="store_true", help="leave out the sweep of Markov's alpha, which fits")
    parser.add_argument(
        "--output", type=Path, default=Path("lightning_logs/figures"), help="folder (default: lightning_logs/figures)"
    )
    options = parser.parse_args(args)
    parser.check_output(options.output)
    try:
        runs = [read_run(folder) for folder in options.runs]
        figures, left_out = draw(runs, options.data, not options.no_alphas)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    for name, figure in tqdm(figures.items(), desc="writing", disable=None):
        save_figures({name: figure}, options.output)
    print(f"\n{len(figures)} pictures in {options.output}, as PNG and SVG: {', '.join(sorted(figures))}")
    for reason in left_out:
        print(f"left out: {reason}")
