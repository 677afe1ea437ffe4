"""The demo: fit Popularity, Markov, GRU4Rec and the Oracle on generated sessions, compare them and draw all pictures.

Runs go to lightning_logs/demo-*; those of an earlier demo are replaced.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sessrec import compare, study_figures, synth
from sessrec.arguments import ScriptParser
from sessrec.experiments.fit_and_test import fit_and_test

MODELS = {
    "gru4rec": ["--config", "synthetic"],
    "markov": ["--model", "Markov"],
    "popularity": ["--model", "Popularity"],
    "oracle": ["--model", "Oracle", "--model.process_items", "1000", "--model.process_seed", "42"],
}


def main(args: list[str] | None = None) -> None:
    """Run the demo."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--n_sessions", type=int, default=20000, help="sessions to generate (default: 20000)")
    parser.add_argument("--max_epochs", type=int, default=10, help="epochs of GRU4Rec (default: 10)")
    options = parser.parse_args(args)
    data = Path("data", "synth_sessions.tsv")
    synth.main(["--n_sessions", str(options.n_sessions), "--n_items", "1000", "--output", str(data)])
    for earlier in Path("lightning_logs").glob("demo-*"):
        shutil.rmtree(earlier)
    common = ["--data.path", str(data), "--trainer.max_epochs", str(options.max_epochs)]
    runs = [str(fit_and_test([*words, *common], f"demo-{name}")) for name, words in MODELS.items()]
    study_figures.main(["--runs", *runs, "--output", "lightning_logs/demo-figures"])
    compare.main([*runs, "--against", "gru4rec", "--output", "lightning_logs/demo-comparison"])
    print("\nThe Oracle knows the process behind the data: no model can do better but by chance.")
    print("Curves: tensorboard --logdir lightning_logs")


if __name__ == "__main__":
    main()
