r"""Train the reference implementation of GRU4Rec and ours on one split, or import weights that it has trained.

Example::

    python scripts/compare_reference.py vendor/GRU4Rec_PyTorch_Official --config configs/gru4rec.yaml \
        --data.path clicks.tsv.gz --seeds 1 2
    python scripts/compare_reference.py --weights weights.pt --items items.txt --config configs/gru4rec.yaml \
        --data.path clicks.tsv.gz

The first form takes a checkout of hidasib/GRU4Rec_PyTorch_Official, trains and tests it and then ours, with the same
hyper-parameters on the same machine, and prints the metrics and speeds of both. It stands first; all words that are not
listed below go to our fit. Everything before the test part is trained on, without a validation part, and the weights of
the last epoch are tested. The reference takes no seed, so it is trained once for each of ours. Its files and output
stay in lightning_logs/NAME, our runs in lightning_logs/NAME-SEED. The reference's speed is the median over its epochs,
ours over the windows of steps that the fit has logged.

The second form makes a run of a state_dict of the reference, a file of nothing but tensors: lightning_logs/NAME, whose
checkpoint `last` can be tested, or used to recommend, as one of a fit of ours.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from sessrec.arguments import ScriptParser
from sessrec.callbacks.checkpoints import check_run_is_free
from sessrec.callbacks.event_files import read_curves
from sessrec.callbacks.run_folder import RunConfig
from sessrec.cli import SessRecCLI
from sessrec.data.preparation import PreparedLog
from sessrec.errors import SessRecError
from sessrec.evaluation.tested_runs import read_run
from sessrec.experiments.fit_and_test import fit_and_test, parsed
from sessrec.models import GRU4Rec
from sessrec.models.reference_weights import import_weights, read_weights
from sessrec.text import Table, spread_text
from sessrec.writing import atomic_write, write_text

NO_VALIDATION = ["--data.val_ratio", "0", "--data.val_duration", "null"]
SPEED = "mini-batches/s"
# printed by the reference after its training, and after each of its epochs
_METRICS = re.compile(r"^Recall@(\d+): (\S+) MRR@\1: (\S+)", re.MULTILINE)
_SPEED = re.compile(r"([\d.]+) mb/s")
_PROBE = "import numpy, pandas; print(f'numpy {numpy.__version__} and pandas {pandas.__version__}')"


def reference_parameters(cli: SessRecCLI) -> dict[str, str]:
    """The reference's words for the hyper-parameters of a fit of ours.

    Raises:
        SessRecError: If the fit has a model or an option that the reference lacks.
    """
    model, data, trainer = cli.model, cli.datamodule.options, cli.config.trainer
    if not isinstance(model, GRU4Rec):
        raise SessRecError(f"--model {type(model).__name__} cannot be compared: the reference knows GRU4Rec only")
    options = model.options
    known: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model.loss": (options.loss, ("cross-entropy", "bpr-max")),
        "model.embedding": (options.embedding, (0, model.layers[0])),
        "model.tie_mode": (options.tie_mode, ("conservative", "standard")),
        **{f"model.{name}": (options[name], (False,)) for name in ("exclude_last", "exclude_seen")},
        "data.shuffle": (data.shuffle, (False,)),
        "trainer.max_steps": (trainer.max_steps, (-1,)),
        "trainer.max_time": (trainer.max_time, (None,)),
        "trainer.limit_train_batches": (trainer.limit_train_batches, (1.0, None)),
        "trainer.limit_test_batches": (trainer.limit_test_batches, (1.0, None)),
        "trainer.overfit_batches": (trainer.overfit_batches, (0.0,)),
        "trainer.precision": (cli.trainer.precision, ("32-true",)),
        "trainer.callbacks": (trainer.callbacks, (None,)),
        "trainer.devices": (cli.trainer.world_size, (1,)),
        "trainer.accelerator": (cli.trainer.strategy.root_device.type, ("cpu", "cuda")),
    }
    for name, (value, choices) in known.items():
        if value not in choices:
            allowed = " or ".join(str(choice).lower() for choice in choices)
            raise SessRecError(f"--{name} {value} is nothing that the reference has: give {allowed}")
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        raise SessRecError(f"--trainer.max_epochs {trainer.max_epochs}: the reference trains a given number of epochs")
    names = ("loss", "constrained_embedding", "embedding", "dropout_p_embed", "dropout_p_hidden", "learning_rate")
    values = {name: options[name] for name in (*names, "momentum", "n_sample", "sample_alpha")}
    is_bpr_max = options.loss == "bpr-max"  # the options of the other loss are 0 in the reference's own parameter files
    values |= {name: options[name] if is_bpr_max else 0.0 for name in ("bpreg", "elu_param")}
    values |= {"logq": 0.0 if is_bpr_max else options.logq}
    values |= {"layers": "/".join(map(str, model.layers))}
    values |= {"batch_size": data.batch_size, "n_epochs": trainer.max_epochs}
    return {name: str(value) for name, value in values.items()}


def write_parts(log: PreparedLog, folder: Path) -> None:
    """Write the train and the test part as the reference reads them, and the item ids in its order.

    Sessions, items and times are numbers in our order: so the reference cannot take two ids for one (0012 and 12 are
    the same number), nor put events of equal times into another order.

    Args:
        log: The prepared log.
        folder: Takes ``train.tsv``, ``test.tsv`` and ``items.txt``.
    """
    for part in ("train", "test"):
        if part not in log.sessions:
            raise SessRecError(f"the {part} part has no usable session: give --data.test_ratio or --data.test_duration")
        sessions = log.sessions[part]
        number = np.repeat(np.arange(len(sessions)), np.diff(sessions.offsets))
        table = pd.DataFrame({"SessionId": number, "ItemId": sessions.items, "Time": np.arange(len(number))})
        with atomic_write(folder / f"{part}.tsv") as temporary:
            table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")
    write_text(folder / "items.txt", "".join(f"{item_id}\n" for item_id in log.vocabulary.item_ids))


def run_reference(command: Sequence[str], cutoffs: Sequence[int], output: Path) -> dict[str, float]:
    """Train and test the reference.

    Args:
        command: Its command.
        cutoffs: Lengths K of the list that it was asked for.
        output: File for what it prints.

    Returns:
        Its metrics, such as ``recall@20``, and its speed.

    Raises:
        SessRecError: If it fails or does not print its results, with the end of its output.
    """
    print(f"training the reference; it prints to {output}", flush=True)
    with output.open("w", encoding="utf-8") as stream:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    text = output.read_text(encoding="utf-8", errors="replace")
    found, speeds = _METRICS.findall(text), [float(speed) for speed in _SPEED.findall(text)]
    if done.returncode or {int(cutoff) for cutoff, _, _ in found} != set(cutoffs) or not speeds:
        raise SessRecError(_failure(command[0], done.returncode, text, output))
    results = {SPEED: statistics.median(speeds)}
    for cutoff, recall, mrr in found:
        results |= {f"recall@{cutoff}": float(recall), f"mrr@{cutoff}": float(mrr)}
    return results


def _failure(python: str, code: int, text: str, output: Path) -> str:
    """What went wrong, and what may be done."""
    tail = "\n".join(text.rstrip().splitlines()[-15:])
    if missing := re.search(r"No module named '?([\w.]+)", text):
        return f"{python} has no {missing[1]}, which the reference needs: give --python of an environment that has"
    probe = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True)
    hint = f"it needs numpy below 2 and pandas below 3 (--python), and {python} has {probe.stdout.strip() or 'neither'}"
    if "IndexError" in text:
        hint += "; it is known to end so where the test part has fewer sessions than its evaluation takes at once"
    what = f"failed with exit code {code}" if code else "did not print its results"
    return f"the reference {what}; {hint}. The end of {output}:\n{tail}"


def our_results(run: Path, batch_size: int) -> dict[str, float]:
    """Metrics and speed of a tested run of ours, whose batches have a number of lanes."""
    results = {name.removeprefix("test/"): value for name, value in read_run(run).report["metrics"].items()}
    _, speeds = read_curves(run).get("train/events_per_second", (None, np.empty(0)))
    return results | ({SPEED: float(np.median(speeds)) / batch_size} if len(speeds) else {})


def results_table(reference: Sequence[dict[str, float]], ours: Sequence[dict[str, float]]) -> Table:
    """Lay the results of both side by side: means over their runs, with the range where there are several."""
    rows = []
    for name in sorted(reference[0], key=lambda name: (name == SPEED, name.split("@")[0] == "mrr")):
        columns = [[result[name] for result in results if name in result] for results in (reference, ours)]
        digits = 1 if name == SPEED else 4
        row = [
            name.replace("recall", "Recall").replace("mrr", "MRR"),
            *(spread_text(values, digits) for values in columns),
        ]
        if columns[1]:
            theirs, own = map(statistics.fmean, columns)
            row += [f"{own - theirs:+.{digits}f}", f"{own / theirs:.3f}" if theirs else "-"]
        rows.append(row if columns[1] else [*row, "-", "-"])
    return Table(["", "reference", "sessrec", "difference", "ratio"], rows)


def compare(checkout: Path, python: str, seeds: Sequence[int], name: str, words: Sequence[str]) -> str:
    """Train and test the reference and ours with every seed.

    Args:
        checkout: The checkout.
        python: Interpreter for the reference.
        seeds: Our seeds.
        name: Name of the folder for the reference, and first part of our runs' names.
        words: Words of our fit.

    Returns:
        The table, and what was compared.
    """
    words, folder = [*words, *NO_VALIDATION], Path("lightning_logs", name)
    for run_name in (f"{name}-{seed}" for seed in seeds):
        if Path("lightning_logs", run_name, "checkpoints").exists():  # both are to be timed one after the other
            raise SessRecError(f"the run lightning_logs/{run_name} exists: give another --name")
    cli = parsed([*words, "--trainer.logger.version", f"{name}-{seeds[0]}"])
    parameters, cutoffs = reference_parameters(cli), sorted(set(cli.model.hparams["cutoffs"]))
    log = cli.datamodule.prepare()
    write_parts(log, folder)
    device = "cpu" if cli.trainer.strategy.root_device.type == "cpu" else "cuda:0"
    parts, cut = [str(folder.resolve() / f"{part}.tsv") for part in ("train", "test")], map(str, cutoffs)
    command = [python, str(checkout.resolve() / "run.py"), parts[0], "-t", parts[1], "-m", *cut]
    command += ["-e", cli.model.tie_mode, "-d", device]
    command += ["-ps", ",".join(f"{option}={value}" for option, value in parameters.items())]
    reference, ours = [], []
    for seed in tqdm(seeds, desc="seeds", disable=None):
        reference.append(run_reference(command, cutoffs, folder / f"reference-{seed}.log"))
        run = fit_and_test([*words, "--seed_everything", str(seed)], f"{name}-{seed}")
        ours.append(our_results(run, int(parameters["batch_size"])))
    counted = {part: f"{len(sessions):,} {part} sessions" for part, sessions in log.sessions.items()}
    text = f"{results_table(reference, ours).markdown()}\n\n{counted['train']}, {counted['test']}, "
    text += f"{log.sessions['test'].n_positions:,} test positions, {len(log.vocabulary):,} items, ties "
    text += f"{cli.model.tie_mode}, on {device}; fits of each: {len(seeds)}\n{', '.join(command[-1].split(','))}"
    write_text(folder / "comparison.md", f"{text}\n")
    return text


def import_run(weights: Path, items: Path, name: str, words: Sequence[str]) -> Path:
    """Make a run of the reference's weights.

    Args:
        weights: File of its ``state_dict``.
        items: Text file with the item id of each of its rows, one a line.
        name: Name of the run.
        words: Words of a fit: the log and the options that the weights were trained with.

    Returns:
        The checkpoint.
    """
    state_dict, item_ids = read_weights(weights), items.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    cli = parsed([*words, *NO_VALIDATION, "--trainer.logger.version", name])
    model, data, trainer, run_folder = cli.model, cli.datamodule, cli.trainer, cli.name_run()
    check_run_is_free(run_folder, None, cli.run_option)
    if not isinstance(model, GRU4Rec):
        raise SessRecError(f"--model {type(model).__name__} cannot take the reference's weights: it needs GRU4Rec")
    model.set_vocabulary(data.prepare().vocabulary)
    import_weights(model, state_dict, item_ids)
    model.seed = cli.config.seed_everything
    RunConfig(cli.parser, cli.config, run_folder).save_config(trainer, model, "fit")
    file = run_folder / "checkpoints" / "last.ckpt"
    trainer.strategy.connect(model)
    trainer.datamodule = data  # type: ignore[attr-defined]
    trainer.save_checkpoint(file, weights_only=True)
    return file


def _parser() -> ScriptParser:
    usage = "python scripts/compare_reference.py CHECKOUT | --weights FILE --items FILE [--GROUP.OPTION VALUE ...]"
    parser = ScriptParser(__doc__, usage=usage)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="one fit of both each (default: 1)")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter for the reference, which needs numpy below 2 and pandas below 3 (default: this one)",
    )
    parser.add_argument("--weights", type=Path, help="state_dict of the reference, in a file of torch.save")
    parser.add_argument(
        "--items",
        type=Path,
        help="text file with the item id of each row of the weights, one a line: the order in which the items first "
        "appear in the training file; for those of a comparison, its items.txt has it",
    )
    parser.add_argument("--name", help="name of the run (default: compare-reference, or reference-weights)")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the command."""
    args = sys.argv[1:] if args is None else list(args)
    checkout = Path(args.pop(0)) if args and not args[0].startswith("-") else None
    parser = _parser()
    options, words = parser.parse_known_args(args)
    if (checkout is None) == (options.weights is None):
        parser.error("name a checkout of the reference, before all options, or --weights; one of both")
    if (options.weights is None) != (options.items is None):
        parser.error("--weights and --items go together: the tensors, and the item id of each row")
    if checkout is not None and not (checkout / "run.py").is_file():
        parser.error(f"{checkout} is no checkout of the reference, it has no run.py: `make fetch` makes one in vendor/")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds has one seed twice")
    if shutil.which(options.python) is None:
        parser.error(f"--python {options.python} is no interpreter")
    if options.items is not None and not options.items.is_file():
        parser.error(f"there is no file {options.items} (--items)")
    try:
        if checkout is not None:
            print(f"\n{compare(checkout, options.python, options.seeds, options.name or 'compare-reference', words)}")
            return
        file = import_run(options.weights, options.items, options.name or "reference-weights", words)
    except SessRecError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")  # with the lines of a reference that fails
    config = file.parent.parent / "config.yaml"
    print(f"\nimported into {file}; test it with: python -m sessrec.test --config {config} --ckpt_path last")


if __name__ == "__main__":
    main()
