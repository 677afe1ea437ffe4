"""Bring docs/results.json, docs/results.md, docs/audits.md and the result tables in documents up to date with the runs.

Example::

    python scripts/report.py --tune eshop2008        # tune and test what can be tuned on that log, then report
    python scripts/report.py --refit eshop2008       # test what the published trials chose, without their studies
    python scripts/report.py --transfer diginetica   # test what the studies of another log chose, then report
    python scripts/report.py --fit yoochoose1_64     # fit and test what is missing on that log, then report
    python scripts/report.py                         # report what is in lightning_logs

Of each log, the runs that `scripts/compare.py --name LOG` and the final tests of studies left in lightning_logs are
taken; a log without any keeps the results that docs/results.json has. docs/trials.csv.gz has all trials of the studies.
In README.md and docs/, the lines between `<!-- table: mrr@20 gru4rec stan -->` and `<!-- end -->` become a table of
that metric, with the models named as rows and the logs as columns.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from glob import glob
from itertools import product
from pathlib import Path
from typing import Any

from report_studies import (
    BUDGETS,
    TRANSFERS,
    TUNABLE,
    fit_transferred,
    is_tuned,
    refit_published,
    runs_of_study,
    runs_transferred,
    study_command,
    transfer_command,
    transferred_name,
    tuning_of,
    write_trials,
)
from report_studies import SEEDS as STUDY_SEEDS
from report_texts import audits_text, results_text, with_tables

from sessrec import audit, compare, tune
from sessrec.arguments import ScriptParser
from sessrec.errors import SessRecError, error_text
from sessrec.evaluation.comparison import ComparedModel, Comparison, compare_runs
from sessrec.evaluation.tested_runs import read_run
from sessrec.experiments.fit_and_test import is_random
from sessrec.writing import write_json, write_text

_SPLIT = "--data.test_ratio 0.1 --data.val_ratio 0"
_OF_SOURCE = "--data.time_column Order --data.test_start {} --data.val_ratio 0 --trainer.max_epochs 5"
LOGS = {
    "rsc15_100k": _SPLIT,
    "serenade_example": _SPLIT,
    "eshop2008": f"--data.order_column Order {_SPLIT}",
    "yoochoose1_64": _OF_SOURCE.format(486026),
    "retailrocket": _OF_SOURCE.format(685984),
    "diginetica": _OF_SOURCE.format(906140),
}
"""Words of every fit on each log, without its path."""
MODELS = (
    *("random", "popularity", "s_pop", "markov", "ar", "sr", "item_knn", "sknn", "vsknn", "stan", "vstan", "vmis_knn"),
    *("gru4rec", "gru4rec_bpr-max", "sasrec", "esasrec", "narm", "sr_gnn"),
)
"""Configs of the models."""
SEEDS = dict.fromkeys(MODELS, range(1, 6)) | dict.fromkeys(("sasrec", "esasrec", "narm", "sr_gnn"), range(1, 4))
"""Seeds of each one in the published results; a model that draws nothing takes the first."""
AUDITED = dict.fromkeys(("sampled", "ties", "order", "leakage"), "yoochoose1_64") | {"tuning": "rsc15_100k"}
"""Log of each audit."""
_TESTED_AGAIN = ("gru4rec", "gru4rec_bpr-max", "sasrec", "markov", "vsknn", "stan", "vstan", "item_knn", "popularity")
_FITTED_AGAIN = ("gru4rec", "markov", "vsknn", "stan", "item_knn", "popularity")
AUDITS = {"sampled": _TESTED_AGAIN, "ties": _TESTED_AGAIN, "order": _TESTED_AGAIN, "leakage": _FITTED_AGAIN}
"""Models of each audit but that of tuning, which has all that were tuned."""
_TRIALS = 4  # of each study, in the audit of tuning
METRICS = ("recall@20", "mrr@20")
FIGURES = (
    *("architecture", "pipeline", "protocol", "session_parallel", "traditional_against_session_based"),
    *("comparison", "slices", "training_curves"),
)
"""Pictures of the demo that the documents show."""


def commands(log: str, seeds_of: Mapping[str, Sequence[int]]) -> list[str]:
    """The commands that fit, test and compare models on a log; the last one has the table of all.

    Args:
        log: Name of the log.
        seeds_of: Seeds of each config; models that draw nothing are fitted with the first one only.
    """
    is_drawing = {model: is_random(f"configs/{model}.yaml") for model in seeds_of}
    drawing = {model: tuple(seeds) for model, seeds in seeds_of.items() if is_drawing[model]}
    groups = sorted(set(drawing.values()), key=lambda seeds: (len(seeds), seeds)) or [(1,)]
    found, runs = [], ""
    for seeds in groups:
        models = [model for model in seeds_of if drawing.get(model, groups[-1]) == seeds]
        configs, chosen = " ".join(f"configs/{model}.yaml" for model in models), " ".join(map(str, seeds))
        found.append(
            f"python scripts/compare.py {runs}--name {log} --configs {configs} --seeds {chosen} "
            f"--data.path data/{log}.tsv.gz {LOGS[log]}"
        )
        runs += "".join(f"lightning_logs/{log}-{model}-{seed} " for model in models for seed in seeds)
    return found


def audit_command(name: str, folder: Path) -> str:
    """The command of an audit of the models fitted with the first seed, or of final tests; runs lie in a folder."""
    log, more = AUDITED[name], ""
    if name == "tuning":
        names, more = [f"{log}-*-default-*", f"{log}-*-tuned-*"], f"--trials {_TRIALS} "
    else:
        names = [f"{log}-{model}-1" for model in AUDITS[name]]
    runs = " ".join(str(folder / run) for run in names)
    return f"python scripts/audit.py {name} {runs} {more}--output {folder / f'audits-{log}'}"


def results_of(log: str, folder: Path) -> dict[str, Any] | None:
    """Results of the runs in a folder that are named LOG-MODEL-SEED, or are of studies; None where there are none."""
    tuned = [model for model in TUNABLE if log in BUDGETS and is_tuned(log, model, folder)]
    runs_of = {model: [read_run(run) for run in runs_of_study(log, model, folder)] for model in tuned}
    chosen, fitted = {run.settings for own in runs_of.values() for run in own}, []
    for model in (model for model in MODELS if model not in tuned):
        names = [run.parent.name for run in folder.glob(f"{log}-{model}-*/metrics.json")]
        if own := sorted(name for name in names if name.removeprefix(f"{log}-{model}-").isdigit()):
            found = [read_run(folder / name) for name in own]
            if found[0].settings not in chosen:  # a study may have chosen the very options of another config
                runs_of[model] = found
                fitted.append(model)
    transferred = {model: [read_run(run) for run in own] for model, own in runs_transferred(log, folder).items()}
    runs_of |= {transferred_name(log, model): found for model, found in transferred.items()}
    if not runs_of:
        return None
    runs = [run for own in runs_of.values() for run in own]
    comparison = compare_runs(runs, METRICS)
    recurrent = [model.name for model in comparison.models if model.name.startswith("gru4rec")]
    if recurrent and len(comparison.models) > 1:  # against the better GRU4Rec
        comparison = compare_runs(runs, METRICS, recurrent[0])
    seeds_of = {model: sorted(run.report["seed"] for run in runs_of[model]) for model in fitted}
    lines = [study_command(log, model, LOGS[log]) for model in tuned] + (commands(log, seeds_of) if seeds_of else [])
    groups: dict[tuple[int, ...], list[str]] = {}
    for model, found in transferred.items():
        groups.setdefault(tuple(sorted(run.report["seed"] for run in found)), []).append(model)
    lines += [transfer_command(log, models, seeds) for seeds, models in sorted(groups.items())]
    return _as_json(comparison, "\n".join(lines))


def demo_results(folder: Path) -> dict[str, Any] | None:
    """Results of the demo's runs in a folder; None where one is missing."""
    runs = [folder / f"demo-{name}" for name in ("gru4rec", "markov", "popularity", "oracle")]
    if not all((run / "metrics.json").is_file() for run in runs):
        return None
    return _as_json(compare_runs([read_run(run) for run in runs], METRICS, against="gru4rec"), "make demo")


def _as_json(comparison: Comparison, command: str) -> dict[str, Any]:
    protocol = comparison.protocol
    return {
        "command": command,
        "protocol": protocol,
        "positions": protocol["positions"],
        "sessions": protocol["sessions"],
        "items": protocol["items_ranked"],
        "against": comparison.against.removesuffix("-default"),
        "models": {model.name.removesuffix("-default"): _of_model(model) for model in comparison.models},
    }


def _of_model(model: ComparedModel) -> dict[str, Any]:
    own: dict[str, Any] = {
        "fits": len(model.runs),
        "seeds": sorted(run.report["seed"] for run in model.runs),
        "fit_seconds": model.fit_seconds,
        "test_seconds": model.test_seconds,
        **tuning_of(model.runs[0].report),
    }
    for metric, found in model.metrics.items():
        own[metric] = {**found._asdict(), "by_fit": model.by_run[metric]}
        if metric in model.differences:
            own[metric]["difference"] = model.differences[metric]._asdict()
    return own


def updated_results(file: Path, found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Content of docs/results.json with what was found on each log, and with the audits in the folder of the runs."""
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    results |= {log: entry for log, entry in found.items() if entry is not None}
    for name, log in AUDITED.items():
        audit_file = folder / f"audits-{log}" / f"{name}.json"
        if audit_file.is_file():
            results.setdefault("audits", {})[name] = json.loads(audit_file.read_text(encoding="utf-8"))
    return results


def copy_pictures(folder: Path, target: Path) -> None:
    """Copy the pictures that the documents show from the folder of the runs, where they were made."""
    pictures = {f"audit_{name}.png": folder / f"audits-{log}" / f"{name}.png" for name, log in AUDITED.items()}
    pictures |= {f"{name}.png": folder / "demo-figures" / f"{name}.png" for name in FIGURES}
    for name, picture in pictures.items():
        if picture.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target / name)


def texts_of(results: Mapping[str, Any], docs: Path) -> dict[Path, str]:
    """Text of docs/results.md, docs/audits.md and every document whose tables of results change.

    Args:
        results: Content of docs/results.json.
        docs: Folder of the documents; the README lies beside it.
    """
    logs = {log: results[log] for log in LOGS if log in results}
    texts = {}
    for file in [docs.parent / "README.md", *docs.rglob("*.md")]:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if (updated := with_tables(text, logs)) != text:
            texts[file] = updated
    if logs:
        texts[docs / "results.md"] = results_text(logs)
    if audits := results.get("audits"):
        repeated = {name: audit_command(name, Path("lightning_logs")) for name in audits}
        texts[docs / "audits.md"] = audits_text(audits, {name: AUDITED[name] for name in audits}, repeated)
    return texts


def _make_runs(options: argparse.Namespace) -> None:
    """Tune, fit, test and audit what the user asks for."""
    tunable = [model for model in options.models if model in TUNABLE]
    trials, seeds = options.docs / "trials.csv.gz", options.seeds or STUDY_SEEDS
    for log, model in product(options.tune, tunable):
        if not is_tuned(log, model, options.runs):
            tune.main(shlex.split(study_command(log, model, LOGS[log], seeds))[3:])
    for log, model in product(options.refit, tunable):
        if not is_tuned(log, model, options.runs):
            refit_published(log, model, trials, LOGS[log], seeds)
    for log, model in product(options.transfer, tunable):
        fit_transferred(log, model, trials, LOGS[log], seeds)
    for log in options.fit:
        seeds_of = {
            model: options.seeds or SEEDS[model]
            for model in options.models
            if not (log in BUDGETS and is_tuned(log, model, options.runs))
        }
        for command in commands(log, seeds_of):
            compare.main(shlex.split(command)[2:])
    for name in () if options.audit is None else options.audit or AUDITS:
        words = shlex.split(audit_command(name, options.runs))[2:]
        audit.main([run for word in words for run in (sorted(glob(word)) if "*" in word else [word])])


def main(args: list[str] | None = None) -> None:
    """Write the report."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--tune", nargs="+", choices=list(BUDGETS), default=[], help="logs to tune models on first")
    text = "logs on which to test what docs/trials.csv.gz chose"
    parser.add_argument("--refit", nargs="+", choices=list(BUDGETS), default=[], help=text)
    text = "logs on which to test what another log's studies chose"
    parser.add_argument("--transfer", nargs="+", choices=list(TRANSFERS), default=[], help=text)
    parser.add_argument("--fit", nargs="+", choices=list(LOGS), default=[], help="logs to fit and test models on first")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="seeds of the models that draw (default: 1 2 3; --fit: GRU4Rec 1 2 3 4 5)",
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="some of the models")
    text = "audits to make first (without a name: all but tuning)"
    parser.add_argument("--audit", nargs="*", choices=list(AUDITED), help=text)
    parser.add_argument("--runs", type=Path, default=Path("lightning_logs"), help="folder (default: lightning_logs)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documents (default: docs)")
    options = parser.parse_args(args)
    for folder in (options.runs, options.docs):
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    _make_runs(options)
    try:
        found = {log: results_of(log, options.runs) for log in LOGS} | {"demo": demo_results(options.runs)}
        results = updated_results(options.docs / "results.json", found, options.runs)
        texts = texts_of(results, options.docs)
        write_json(options.docs / "results.json", results)
        write_trials(options.runs, options.docs / "trials.csv.gz")
        copy_pictures(options.runs, options.docs / "figures")
        for file, text in texts.items():
            write_text(file, text)
    except (SessRecError, OSError) as error:
        parser.error(error_text(error))
    taken = ", ".join(f"{log} ({len(entry['models'])} models)" for log, entry in found.items() if entry is not None)
    print(f"results of {taken or 'no new runs'}; the documents are up to date")


if __name__ == "__main__":
    main()
