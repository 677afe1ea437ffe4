"""Audit tested runs: how much of a figure hangs on choices that papers seldom tell.

  sampled   ranks among 100 sampled negatives, uniform and by popularity, against those among all items
  ties      the three rules for ties side by side
  order     the same models tested with the clicks shuffled inside each session
  leakage   the same models fitted and tested with sessions dealt to train and test at random, whatever their time
  chance    the models between guessing and, on generated sessions, the best that is possible
  tuning    default against tuned options, from the final tests of `sessrec tune`

Example::

    sessrec audit sampled lightning_logs/my-gru4rec lightning_logs/my-stan lightning_logs/my-markov

sampled, ties and tuning read the runs only; order tests each of them again, leakage and chance fit more runs, and
tuning with --trials fits and tests so many trials of each study, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from sessrec.arguments import ScriptParser
from sessrec.errors import SessRecError, check_least, error_text
from sessrec.evaluation.audits import (
    Audit,
    chance_audit,
    changed_data_audit,
    sampled_audit,
    ties_audit,
    trials_remark,
    tuning_audit,
)
from sessrec.evaluation.rank_table import check_metrics
from sessrec.evaluation.tested_runs import Run, check_comparable, group_runs, read_run
from sessrec.experiments.audit_runs import fit_leaking, fit_other_model, rank_shuffled
from sessrec.experiments.trial_fits import fit_trials
from sessrec.figures.audits import audit_figure, trials_figure
from sessrec.figures.style import save_figures
from sessrec.writing import write_json, write_text

Models = dict[str, list[Run]]


def order(models: Models, options: argparse.Namespace) -> Audit:
    """Test all runs on shuffled sessions."""
    shuffled = _each(models, lambda run: rank_shuffled(run, options.seed))
    return changed_data_audit(
        "order",
        "How much is sequence: clicks shuffled inside each session",
        ["as clicked", "shuffled"],
        [models, shuffled],
        options.metrics,
    )


def leakage(models: Models, options: argparse.Namespace) -> Audit:
    """Fit all runs on a leaking split."""
    leaking = _each(models, lambda run: fit_leaking(run, options.seed))
    check_comparable([run for runs in leaking.values() for run in runs])
    return changed_data_audit(
        "leakage",
        "What a leaking split gives: sessions dealt at random",
        ["split by time", "dealt at random"],
        [models, leaking],
        options.metrics,
    )


def chance(models: Models, options: argparse.Namespace) -> Audit:
    """Fit Random and, on generated sessions, the Oracle."""
    first = next(iter(models.values()))[0]
    more = {"chance": [fit_other_model(first, "Random")]}
    if options.process_items is not None:
        words = ["--model.process_items", str(options.process_items), "--model.process_seed", str(options.process_seed)]
        more["ceiling"] = [fit_other_model(first, "Oracle", words)]
    check_comparable([first, *(run for runs in more.values() for run in runs)])
    return chance_audit(models | more, options.metrics, "chance", "ceiling" if "ceiling" in more else None)


def tuning(models: Models, options: argparse.Namespace) -> Audit:
    """Read the final tests of studies, and test more of their trials."""
    audit, default = tuning_audit([run for runs in models.values() for run in runs], options.metrics)
    if not options.trials:
        return audit
    trials = {name: fit_trials(run, options.trials) for name, run in default.items()}
    remarks = [*audit.remarks, *(trials_remark(name, tested) for name, tested in trials.items())]
    return audit._replace(remarks=remarks, trials=trials)


def _each(models: Models, change: Callable[[Run], Run]) -> Models:
    return {name: [change(run) for run in runs] for name, runs in models.items()}


AUDITS: dict[str, Callable[[Models, argparse.Namespace], Audit]] = {
    "sampled": lambda models, options: sampled_audit(models, options.metrics, options.negatives, options.seed),
    "ties": lambda models, options: ties_audit(models, options.metrics),
    "order": order,
    "leakage": leakage,
    "chance": chance,
    "tuning": tuning,
}


def main(args: list[str] | None = None) -> None:
    """Run the audit."""
    parser = ScriptParser(__doc__, command="audit")
    parser.add_argument("audit", choices=list(AUDITS), help="which audit")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of tested runs, all of one test part")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["recall@20", "mrr@20"],
        help="recall@K, mrr@K or ndcg@K, whatever K (default: recall@20 mrr@20)",
    )
    parser.add_argument("--trials", type=int, default=0, help="tuning: trials of each study to test (default: 0)")
    parser.add_argument("--negatives", type=int, default=100, help="sampled: negatives a position (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of negatives, shuffles and deals (default: 0)")
    parser.add_argument("--process_items", type=int, help="chance: items of the generator, for the ceiling")
    parser.add_argument("--process_seed", type=int, default=42, help="chance: seed of the generator (default: 42)")
    parser.add_argument(
        "--output", type=Path, help="folder for the table and the picture (default: lightning_logs/audit-NAME)"
    )
    options = parser.parse_args(args)
    try:
        for name, least in {"seed": 0, "trials": 0, "negatives": 1, "process_items": 2, "process_seed": 0}.items():
            check_least(f"--{name}", getattr(options, name), least)
    except SessRecError as error:
        parser.error(str(error))
    output = options.output or Path("lightning_logs", f"audit-{options.audit}")
    parser.check_output(output)
    try:
        check_metrics(options.metrics)
        runs = [read_run(folder) for folder in options.runs]
        check_comparable(runs)
        audit = AUDITS[options.audit](group_runs(runs), options)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    text = "\n\n".join([audit.title, *(table.markdown() for table in audit.tables()), "\n".join(audit.remarks)])
    print(f"\n{text}\n")
    write_text(output / f"{audit.name}.md", f"# {text}\n")
    write_json(output / f"{audit.name}.json", audit._asdict())
    figures = {audit.name: audit_figure(audit)}
    if audit.trials:
        figures["trials"] = trials_figure(audit.trials, options.metrics[-1])
    save_figures(figures, output)
    print(f"table and picture in {output}")


if __name__ == "__main__":
    main()
