"""`scripts/report.py`: results, documents and their tables come from the runs alone."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from helpers import ROOT, random_rows


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, in a folder with a small log under the name of a public one."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    lines = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(80))]
    Path("data/serenade_example.tsv").write_text("\n".join(lines) + "\n")
    Path("configs").symlink_to(ROOT / "configs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("report")


def fit(report: ModuleType, *models: str, seeds: tuple[int, ...] = (1,)) -> None:
    compare = importlib.import_module("sessrec.compare")
    small = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    configs = [f"configs/{model}.yaml" for model in models]
    words = ["--data.path", "data/serenade_example.tsv", "--data.cache_dir", "null", "--data.val_ratio", "0", *small]
    chosen = [str(seed) for seed in seeds]
    compare.main(["--configs", *configs, "--seeds", *chosen, "--name", "serenade_example", *words])


def test_results_are_those_of_the_runs(report: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fit(report, "markov", "popularity", "gru4rec", seeds=(1, 2))
    Path("docs/en").mkdir(parents=True)
    document = Path("docs/en/text.md")
    document.write_text("Before.\n<!-- table: mrr@20 gru4rec stan -->\nold\n<!-- end -->\nAfter.\n")
    report.main([])
    assert "serenade_example (3 models); the documents" in capsys.readouterr().out
    results = json.loads(Path("docs/results.json").read_text())
    own = results["serenade_example"]["models"]["gru4rec"]
    runs = [json.loads(Path(f"lightning_logs/serenade_example-gru4rec-{n}/metrics.json").read_text()) for n in (1, 2)]
    values = [run["metrics"]["test/mrr@20"] for run in runs]
    assert own["mrr@20"]["by_fit"] == pytest.approx(values, abs=1e-12)
    assert own["mrr@20"]["value"] == pytest.approx(sum(values) / 2, abs=1e-12)
    positions = runs[0]["protocol"]["positions"]
    head = "| MRR@20  | serenade_example |\n|:--------|-----------------:|"
    rows = f"| gru4rec |           {sum(values) / 2:.4f} |\n| stan    |                - |"
    marked = f"<!-- table: mrr@20 gru4rec stan -->\n\n{head}\n{rows}\n\n<!-- end -->"
    assert document.read_text() == f"Before.\n{marked}\nAfter.\n"
    text = Path("docs/results.md").read_text()
    assert f"positions {positions}" in text
    assert "--seeds 1 2 " in text
    assert text.count("\n## ") == 1  # published figures are those of another log
    before = Path("docs/results.json").read_text()
    for run in Path("lightning_logs").iterdir():
        (run / "metrics.json").unlink()
    report.main([])  # a log without runs keeps what is known of it
    assert Path("docs/results.json").read_text() == before
    assert Path("docs/results.md").read_text() == text


def test_studies_stand_beside_the_models_that_have_none(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = importlib.import_module("report_studies")
    small = "--trials 4 --max_epochs 1 --workers 1"
    monkeypatch.setitem(studies.BUDGETS, "serenade_example", small)
    monkeypatch.setitem(
        report.LOGS, "serenade_example", "--data.test_ratio 0.2 --data.val_ratio 0 --trainer.accelerator cpu"
    )
    log = Path("data/serenade_example.tsv").read_bytes()
    Path("data/serenade_example.tsv.gz").write_bytes(gzip.compress(log))
    for folder in ("lightning_logs", "docs"):
        Path(folder).mkdir()
    report.main(["--tune", "serenade_example", "--fit", "serenade_example", "--models", "popularity", "item_knn"])
    found = json.loads(Path("docs/results.json").read_text())["serenade_example"]
    study = "serenade_example-item_knn"
    names = {"serenade_example-popularity-1": "popularity", f"{study}-default-1": "item_knn"}
    if Path(f"lightning_logs/{study}-tuned-1").exists():  # unless no trial was better
        names[f"{study}-tuned-1"] = "item_knn-tuned"
    assert {run.name for run in Path("lightning_logs").glob("*-[0-9]")} == set(names)
    assert set(found["models"]) == set(names.values())
    for run, name in names.items():
        metrics = json.loads(Path(f"lightning_logs/{run}/metrics.json").read_text())["metrics"]
        assert found["models"][name]["mrr@20"]["by_fit"] == pytest.approx([metrics["test/mrr@20"]])
    words = "--data.path data/serenade_example.tsv.gz --data.test_ratio 0.2 --trainer.accelerator cpu"
    command = f"python -m sessrec.tune --config configs/item_knn.yaml {words} --study {study} {small} --final"
    assert found["command"].splitlines()[0] == f"{command} --seeds 1 2 3"
    origin = found["models"]["item_knn"]["tuning"]
    assert (origin["trials"], origin["trial"], origin["options"]) == (4, 0, "default")
    text = Path("docs/results.md").read_text()
    assert re.search(rf"\| item_knn +\|.*\| +{origin['validation']:.4f} \| +0 \| +4 \|", text)
    with gzip.open("docs/trials.csv.gz", "rt") as stream:
        trials = list(csv.DictReader(stream))
    with Path(f"lightning_logs/{study}/trials.csv").open() as stream:
        own = [row for row in csv.DictReader(stream) if row["state"] != "known"]
    assert [row["value"] for row in trials] == [row["value"] for row in own]
    assert [json.loads(row["options"]) for row in trials] == [
        {name: value for name, value in row.items() if name.startswith("model.") and value} for row in own
    ]
    before = Path("docs/trials.csv.gz").read_bytes()
    shutil.rmtree(f"lightning_logs/{study}")
    report.main(["--tune", "serenade_example", "--models", "item_knn"])  # its tests are there: nothing is done again
    assert not Path(f"lightning_logs/{study}").exists()
    assert Path("docs/trials.csv.gz").read_bytes() == before
    for run in Path("lightning_logs").glob(f"{study}-*"):
        shutil.rmtree(run)
    report.main(["--refit", "serenade_example", "--models", "item_knn"])  # by the published trials alone
    again = json.loads(Path("docs/results.json").read_text())["serenade_example"]["models"]
    for name in set(names.values()) - {"popularity"}:
        assert again[name]["mrr@20"]["by_fit"] == found["models"][name]["mrr@20"]["by_fit"]
        assert again[name]["tuning"] == pytest.approx(found["models"][name]["tuning"], abs=0.1)
    assert not Path(f"lightning_logs/{study}").exists()
    capsys.readouterr()


def test_options_of_another_log_are_tested_beside_the_models_own(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(report.LOGS, "diginetica", "--data.test_ratio 0.2 --data.val_ratio 0 --trainer.accelerator cpu")
    Path("data/diginetica.tsv.gz").write_bytes(gzip.compress(Path("data/serenade_example.tsv").read_bytes()))
    for folder in ("lightning_logs", "docs"):
        Path(folder).mkdir()
    head = "log,model,trial,state,value,epochs,seconds,default,reason,options\n"
    row = "serenade_example,{},{},complete,{},1,0.1,{},,{}\n"
    chosen = '"{""model.n_rules"": ""3""}"'
    rows = [("item_knn", 0, 0.1, True, "{}"), ("item_knn", 1, 0.2, "", chosen), ("markov", 0, 0.3, True, "{}")]
    text = head + "".join(row.format(*own) for own in rows)
    Path("docs/trials.csv.gz").write_bytes(gzip.compress(text.encode()))
    report.main(["--transfer", "diginetica", "--fit", "diginetica", "--models", "item_knn", "markov"])
    assert "serenade_example chose the default options of markov" in capsys.readouterr().out
    entry = json.loads(Path("docs/results.json").read_text())["diginetica"]
    assert set(entry["models"]) == {"item_knn", "markov", "item_knn-of-serenade_example"}
    command = "python scripts/report.py --transfer diginetica --models item_knn --seeds 1"
    assert entry["command"].splitlines()[-1] == command
    own = entry["models"]["item_knn-of-serenade_example"]["options_of"]
    assert own == {"log": "serenade_example", "trial": 1, "trials": 2, "validation": 0.2}
    run = Path("lightning_logs/diginetica-item_knn-of-serenade_example-1")
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["n_rules"] == 3
    text = Path("docs/results.md").read_text()
    assert "| item_knn-of-serenade_example |" in text
    assert "wait to be measured anew" not in text  # which is said of SASRec alone


def test_the_verdict_names_who_is_above(report: ModuleType) -> None:
    texts = importlib.import_module("report_texts")

    def model(recall: float, mrr: float, p: float = 0.01, is_best: bool = False) -> dict:
        own = {"fits": 1, "fit_seconds": None, "test_seconds": 1.0}
        for metric, value, best in (("recall@20", recall, 0.5), ("mrr@20", mrr, 0.3)):
            own[metric] = {"value": value, "low": value, "high": value, "by_fit": [value]}
            if not is_best:
                own[metric]["difference"] = {"value": value - best, "low": 0.0, "high": 0.0, "p": p}
        return own

    protocol = dict.fromkeys(("tie_mode", "items_ranked", "exclude_last", "exclude_seen", "positions", "sessions"), 1)
    models = {"stan": model(0.4, 0.4), "gru4rec": model(0.5, 0.3, is_best=True), "sasrec": model(0.6, 0.2, p=0.5)}
    entry = {"command": "c", "protocol": protocol, "against": "gru4rec", "models": models}
    text = texts.results_text({"log": entry})
    assert "Above the better GRU4Rec here, gru4rec: at MRR@20 stan*; at Recall@20 sasrec." in text
    assert "+0.4000* [0.4000, 0.4000]" in text
    assert "+0.6000  [0.6000, 0.6000]" in text
    del models["stan"], models["sasrec"]
    assert "No other model beats the better GRU4Rec here, gru4rec." in texts.results_text({"log": entry})


def test_models_with_fewer_seeds_have_a_command_of_their_own(report: ModuleType) -> None:
    words = "--data.path data/serenade_example.tsv.gz --data.test_ratio 0.1 --data.val_ratio 0"
    seeds_of = {"markov": [1], "gru4rec": [1, 2, 3], "sasrec": [1, 2]}
    assert report.commands("serenade_example", seeds_of) == [
        f"python scripts/compare.py --name serenade_example --configs configs/sasrec.yaml --seeds 1 2 {words}",
        "python scripts/compare.py lightning_logs/serenade_example-sasrec-1 lightning_logs/serenade_example-sasrec-2 "
        f"--name serenade_example --configs configs/markov.yaml configs/gru4rec.yaml --seeds 1 2 3 {words}",
    ]
    assert report.commands("serenade_example", {"markov": [1]}) == [
        f"python scripts/compare.py --name serenade_example --configs configs/markov.yaml --seeds 1 {words}"
    ]


def test_fit_takes_the_seeds_of_the_published_results(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    monkeypatch.setattr(report.compare, "main", given.append)
    for folder in ("lightning_logs", "docs"):
        Path(folder).mkdir()
    report.main(["--fit", "serenade_example", "--models", "sasrec", "gru4rec", "ar"])
    report.main(["--fit", "serenade_example", "--models", "gru4rec", "sasrec", "--seeds", "7"])
    capsys.readouterr()
    told = [(words[words.index("--configs") + 1 : words.index("--data.path")]) for words in given]
    assert told == [
        ["configs/sasrec.yaml", "--seeds", "1", "2", "3"],
        ["configs/gru4rec.yaml", "configs/ar.yaml", "--seeds", "1", "2", "3", "4", "5"],
        ["configs/gru4rec.yaml", "configs/sasrec.yaml", "--seeds", "7"],
    ]
