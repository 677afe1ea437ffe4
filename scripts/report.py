"""Bring docs/results.json, docs/results.md, docs/audits.md and the numbers in all documents up to date with the runs.

Example::

    python scripts/report.py --fit yoochoose1_64     # fit and test what is missing on that log, then report
    python scripts/report.py                         # report what is in lightning_logs

Of each log, the runs that `scripts/compare.py --name LOG` left in lightning_logs are taken; a log without any keeps the
results that docs/results.json has. A number in a document that stands before a comment such as
`<!--yoochoose1_64/gru4rec/mrr@20-->` is replaced by what that path leads to in docs/results.json, with as many decimals
as it has.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import audit
import compare
from arguments import ScriptParser
from report_texts import audits_text, filled_text, results_text

from sessrec.errors import SessRecError
from sessrec.evaluation.comparison import ComparedModel, Comparison, compare_runs
from sessrec.evaluation.tested_runs import read_run
from sessrec.text import seconds_text
from sessrec.writing import replacing, write_json

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
    *("gru4rec", "gru4rec_bpr-max", "sasrec"),
)
"""Configs of the models."""
SEEDS = dict.fromkeys(MODELS, range(1, 6)) | {"sasrec": range(1, 4)}
"""Seeds of each one in the published results; a model that draws nothing takes the first."""
AUDITED = "yoochoose1_64"
_TESTED_AGAIN = ("gru4rec", "gru4rec_bpr-max", "sasrec", "markov", "vsknn", "stan", "vstan", "item_knn", "popularity")
_FITTED_AGAIN = ("gru4rec", "markov", "vsknn", "stan", "item_knn", "popularity")
AUDITS = {"sampled": _TESTED_AGAIN, "ties": _TESTED_AGAIN, "order": _TESTED_AGAIN, "leakage": _FITTED_AGAIN}
"""Models of each audit."""
METRICS = ("recall@20", "mrr@20")
_WRITTEN = ("results.md", "audits.md")
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
    drawing = {model: tuple(seeds) for model, seeds in seeds_of.items() if compare.has_seeds(config_of(model))}
    groups = sorted(set(drawing.values()), key=lambda seeds: (len(seeds), seeds)) or [(1,)]
    found, runs = [], ""
    for seeds in groups:
        models = [model for model in seeds_of if drawing.get(model, groups[-1]) == seeds]
        configs, chosen = " ".join(map(str, map(config_of, models))), " ".join(map(str, seeds))
        found.append(
            f"python scripts/compare.py {runs}--name {log} --configs {configs} --seeds {chosen} "
            f"--data.path data/{log}.tsv.gz {LOGS[log]}"
        )
        runs += "".join(f"lightning_logs/{log}-{model}-{seed} " for model in models for seed in seeds)
    return found


def config_of(model: str) -> Path:
    """File of a config.

    Args:
        model: Its name.
    """
    return Path("configs", f"{model}.yaml")


def audit_command(name: str, folder: Path) -> str:
    """The command that audits the models fitted with the first seed.

    Args:
        name: Name of the audit.
        folder: Folder of the runs.
    """
    runs = " ".join(str(folder / f"{AUDITED}-{model}-1") for model in AUDITS[name])
    return f"python scripts/audit.py {name} {runs} --output {folder / f'audits-{AUDITED}'}"


def results_of(log: str, folder: Path) -> dict[str, Any] | None:
    """Compare the runs on a log.

    Args:
        log: Name of the log, or of another study whose runs have names such as LOG-MODEL-SEED.
        folder: Folder of the runs.

    Returns:
        What docs/results.json holds of it; None where there are no runs.
    """
    found: dict[str, list[Path]] = {}
    for model in MODELS:
        runs = [run for run in folder.glob(f"{log}-{model}-*") if (run / "metrics.json").is_file()]
        own = [run for run in runs if run.name.removeprefix(f"{log}-{model}-").isdigit()]
        if own:
            found[model] = sorted(own)
    if not found:
        return None
    runs_of = {model: [read_run(run) for run in runs] for model, runs in found.items()}
    means = {
        model: statistics.mean(run.report["metrics"]["test/mrr@20"] for run in runs)
        for model, runs in runs_of.items()
        if model.startswith("gru4rec")
    }
    against = max(means, key=means.__getitem__) if means and len(found) > 1 else None  # the better GRU4Rec
    comparison = compare_runs([run for runs in runs_of.values() for run in runs], METRICS, against)
    seeds_of = {model: sorted(run.report["seed"] for run in runs) for model, runs in runs_of.items()}
    return {"command": "\n".join(commands(log, seeds_of))} | as_json(comparison)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values.

    Args:
        comparison: The comparison.
    """
    protocol = comparison.protocol
    return {
        "protocol": protocol,
        "positions": protocol["positions"],
        "sessions": protocol["sessions"],
        "items": protocol["items_ranked"],
        "against": comparison.against,
        "models": {model.name: _of_model(model) for model in comparison.models},
    }


def _of_model(model: ComparedModel) -> dict[str, Any]:
    own: dict[str, Any] = {
        "fits": len(model.runs),
        "seeds": sorted(run.report["seed"] for run in model.runs),
        "fit_seconds": model.fit_seconds,
        "test_seconds": model.test_seconds,
    }
    for metric, found in model.metrics.items():
        own[metric] = {**found._asdict(), "by_fit": model.by_run[metric]}
        if metric in model.differences:
            own[metric]["difference"] = model.differences[metric]._asdict()
    return own


def demo_results(folder: Path) -> dict[str, Any] | None:
    """Results of the demo's runs, if they are there."""
    runs = [folder / f"demo-{name}" for name in ("gru4rec", "markov", "popularity", "oracle")]
    if not all((run / "metrics.json").is_file() for run in runs):
        return None
    comparison = compare_runs([read_run(run) for run in runs], METRICS, against="gru4rec")
    return {"command": "make demo"} | as_json(comparison)


def audits_of(folder: Path) -> dict[str, Any]:
    """What the audits found, by audit; of those that were made.

    Args:
        folder: Folder of the runs.
    """
    files = {name: folder / f"audits-{AUDITED}" / f"{name}.json" for name in AUDITS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def updated_results(file: Path, found: Mapping[str, Any], audits: Mapping[str, Any]) -> dict[str, Any]:
    """What docs/results.json has, with what was found in place of what it had of it.

    Args:
        file: The file.
        found: Results of each log, None where there are no runs.
        audits: Findings of each audit.

    Returns:
        All that it is to hold.
    """
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    results |= {log: entry for log, entry in found.items() if entry is not None}
    if audits:
        results["audits"] = results.get("audits", {}) | audits
    return results


def copy_pictures(folder: Path, target: Path) -> None:
    """Copy the pictures that the documents show, of those that were made.

    Args:
        folder: Folder of the runs.
        target: Where they go.
    """
    pictures = {f"audit_{name}.png": folder / f"audits-{AUDITED}" / f"{name}.png" for name in AUDITS}
    pictures |= {f"{name}.png": folder / "demo-figures" / f"{name}.png" for name in FIGURES}
    for name, picture in pictures.items():
        if picture.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target / name)


def write_texts(results: Mapping[str, Any], docs: Path) -> None:
    """Write docs/results.md and docs/audits.md.

    Args:
        results: Content of docs/results.json.
        docs: Folder of the documents.
    """
    texts = {}
    if logs := {log: results[log] for log in LOGS if log in results}:
        texts["results.md"] = results_text(logs)
    if audits := results.get("audits"):
        commands = {name: audit_command(name, Path("lightning_logs")) for name in audits}
        texts["audits.md"] = audits_text(audits, AUDITED, commands)
    for name, text in texts.items():
        with replacing(docs / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def filled_documents(results: Mapping[str, Any], docs: Path) -> dict[Path, tuple[str, int]]:
    """README and all documents with their marked numbers brought up to date; nothing is written yet.

    Args:
        results: What docs/results.json is to hold.
        docs: Folder of the documents.

    Returns:
        Text and number of marks of each document.
    """
    documents = [*docs.rglob("*.md"), *(path for path in [docs.parent / "README.md"] if path.is_file())]
    return {document: filled_text(document, results) for document in documents if document.name not in _WRITTEN}


def write_filled(filled: Mapping[Path, tuple[str, int]]) -> int:
    """Write the documents whose text has changed.

    Args:
        filled: What `filled_documents` gave.

    Returns:
        How many marked numbers there are.
    """
    for document, (text, _) in filled.items():
        if text != document.read_text(encoding="utf-8"):
            with replacing(document) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return sum(n_numbers for _, n_numbers in filled.values())


def write_headers(results: Mapping[str, Any], folder: Path) -> None:
    """Bring the results in the headers of the models' configs up to date.

    Args:
        results: Content of docs/results.json.
        folder: Folder of the configs; nothing is done where it is missing.
    """
    models = results.get(AUDITED, {}).get("models", {})
    for file in (folder / f"{model}.yaml" for model in models):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            own = models[file.stem]
            recall, mrr = (f"{own[metric]['value']:.4f}" for metric in METRICS)
            header = (
                f"# On {AUDITED}: test Recall@20 {recall}, MRR@20 {mrr}, fitted in {seconds_text(own['fit_seconds'])}; "
                "command, other logs and spread: docs/results.md."
            )
            new = re.sub(rf"^# On {AUDITED}: .*$", header, text, count=1, flags=re.MULTILINE)
            if new != text:
                with replacing(file) as temporary:
                    temporary.write_text(new, encoding="utf-8")


def main(args: list[str] | None = None) -> None:
    """Write the report.

    Args:
        args: Words of the command line; those of the process where None.
    """
    parser = ScriptParser(__doc__)
    parser.add_argument("--fit", nargs="+", choices=list(LOGS), default=[], help="logs to fit and test models on first")
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="--fit: seeds of the models that draw (default: 1 2 3 4 5; SASRec 1 2 3)"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="--fit: some of the models")
    parser.add_argument("--audit", action="store_true", help=f"audit the runs on {AUDITED} first")
    parser.add_argument("--runs", type=Path, default=Path("lightning_logs"), help="folder (default: lightning_logs)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documents (default: docs)")
    options = parser.parse_args(args)
    for folder in (options.runs, options.docs):
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    for log in options.fit:
        seeds_of = {model: options.seeds or SEEDS[model] for model in options.models}
        for command in commands(log, seeds_of):
            compare.main(shlex.split(command)[2:])
    if options.audit:
        for name in AUDITS:
            audit.main(shlex.split(audit_command(name, options.runs))[2:])
    try:
        found = {log: results_of(log, options.runs) for log in LOGS} | {"demo": demo_results(options.runs)}
        results = updated_results(options.docs / "results.json", found, audits_of(options.runs))
        filled = filled_documents(results, options.docs)
        write_json(options.docs / "results.json", results)
        copy_pictures(options.runs, options.docs / "figures")
        write_texts(results, options.docs)
        n_filled = write_filled(filled)
        write_headers(results, options.docs.parent / "configs")
    except (SessRecError, OSError) as error:
        parser.error(str(error))
    taken = ", ".join(f"{log} ({len(entry['models'])} models)" for log, entry in found.items() if entry is not None)
    print(f"results of {taken or 'no new runs'}; {n_filled} numbers in {len(filled)} documents are up to date")


if __name__ == "__main__":
    main()
