"""The demo: fit Popularity, Markov, GRU4Rec and the Oracle on generated sessions and print one table.

Runs go to lightning_logs/demo-*; those of an earlier demo are replaced.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import make_synth_data

from sessrec import fit, test

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MODELS = {
    "Popularity": [],
    "Markov": [],
    "GRU4Rec": ["--config", str(CONFIGS / "synthetic.yaml")],
    "Oracle": ["--model.process_items", "1000", "--model.process_seed", "42"],
}
METRICS = ("recall@5", "recall@20", "mrr@5", "mrr@20", "ndcg@20")


def fit_and_test(name: str, data: Path, extra: list[str]) -> dict[str, float]:
    """Fit and test one model through the commands; gives its test metrics and the seconds of its fit."""
    run = Path("lightning_logs", f"demo-{name.lower()}")
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    # a --config stands before the flags that lie over it
    words = [*MODELS[name][:2]] if "--config" in MODELS[name] else ["--model", name, *MODELS[name]]
    fit.main([*words, "--data.path", str(data), "--trainer.logger.version", run.name, *extra])
    seconds = time.perf_counter() - start
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return metrics | {"fit_seconds": seconds}


def table(results: dict[str, dict[str, float]]) -> str:
    """One row a model."""
    lines = [f"{'model':<12}" + "".join(f"{metric:>11}" for metric in METRICS) + f"{'fit':>9}"]
    for name, result in results.items():
        cells = "".join(f"{result[f'test/{metric}']:11.4f}" for metric in METRICS)
        lines.append(f"{name:<12}{cells}{result['fit_seconds']:7.0f} s")
    return "\n".join(lines)


def main(args: list[str] | None = None) -> None:
    """Run the demo.

    Args:
        args: Words of the command line; those of the process where None.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_sessions", type=int, default=20000, help="sessions to generate (default: 20000)")
    parser.add_argument("--max_epochs", type=int, default=10, help="epochs of GRU4Rec (default: 10)")
    options = parser.parse_args(args)
    data = Path("data", "synth_sessions.tsv")
    make_synth_data.main(["--n_sessions", str(options.n_sessions), "--n_items", "1000", "--output", str(data)])
    results = {name: fit_and_test(name, data, ["--trainer.max_epochs", str(options.max_epochs)]) for name in MODELS}
    print("\nTest part, ranking all 1,000 items at every position, ties against the model:\n")
    print(table(results))
    print("\nThe Oracle knows the process behind the data: no model can do better but by chance.")
    print("Curves: tensorboard --logdir lightning_logs")


if __name__ == "__main__":
    main()
