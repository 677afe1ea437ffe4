"""docs/results.md and docs/results.json: every row has its command, and what documents say is what the numbers are."""

from __future__ import annotations

import csv
import gzip
import json
import re

import pytest
from helpers import ROOT

RESULTS = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
AUDITS = RESULTS["audits"]
TEXT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
GRU4RECS = ("gru4rec", "gru4rec_bpr-max")
DRAWING = (*GRU4RECS, "sasrec", "esasrec", "narm", "sr_gnn")
"""Models whose fits draw random numbers."""
MODELS = {file.stem for file in (ROOT / "configs").glob("*.yaml")} - {
    "default",
    "synthetic",
    "content_knn",
    "content_mix",
}
MODELS = {name for name in MODELS if not name.startswith("gru4rec_") or name == "gru4rec_bpr-max"}
TUNED = {log for log in RESULTS if any("tuning" in own for own in RESULTS[log].get("models", {}).values())}
"""Logs on which models were tuned."""
MEASURED_ANEW = {"yoochoose1_64"}
"""Logs without studies that have the models that were added since 0.2, too."""
SECTIONS = {part.split("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:] if "```" in part}


def rows_of(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines][1:]


def value(log: str, model: str, metric: str = "mrr@20") -> float:
    if model == "gru4rec_bpr-max" and model not in RESULTS[log]["models"]:
        model = "gru4rec-tuned"  # its best trial has these options
    return RESULTS[log]["models"][model][metric]["value"]


def test_all_logs_are_there() -> None:
    logs = {"rsc15_100k", "serenade_example", "eshop2008", "yoochoose1_64", "retailrocket", "diginetica"}
    assert set(SECTIONS) == logs
    assert logs | {"demo", "audits"} == set(RESULTS)
    for log in logs:
        models = set(RESULTS[log]["models"])
        plain = {model for model in models if not model.endswith("-tuned") and "-of-" not in model}
        if log in TUNED:
            assert MODELS - {"gru4rec_bpr-max"} <= plain <= MODELS  # whose options the study of gru4rec may have chosen
        else:
            assert plain == (MODELS if log in MEASURED_ANEW else MODELS - {"esasrec", "narm", "sr_gnn"})
        recurrent = [model for model in models if model.startswith("gru4rec")]
        assert RESULTS[log]["against"] == max(recurrent, key=lambda model, log=log: value(log, model))


def test_a_tuned_model_says_what_it_was_chosen_by() -> None:
    for log in TUNED:
        models = RESULTS[log]["models"]
        for name, own in models.items():
            if name.endswith("-tuned"):
                default, chosen = models[name.removesuffix("-tuned")]["tuning"], own["tuning"]
                assert chosen["study"] == default["study"] == f"{log}-{name.removesuffix('-tuned')}"
                assert chosen["trials"] == default["trials"] > 1
                assert chosen["trial"] > default["trial"] == 0
                assert chosen["validation"] > default["validation"]
        budgets = {line.split(" --trials ")[1] for line in RESULTS[log]["command"].splitlines() if ".tune " in line}
        assert len(budgets) == 1  # the same for every model


def test_all_trials_are_in_the_table() -> None:
    with gzip.open(ROOT / "docs" / "trials.csv.gz", "rt", encoding="utf-8") as stream:
        trials = list(csv.DictReader(stream))
    for log in TUNED:
        for own in RESULTS[log]["models"].values():
            if "tuning" in own:
                origin = own["tuning"]
                table = {int(row["trial"]): row for row in trials if f"{row['log']}-{row['model']}" == origin["study"]}
                done = [row for row in table.values() if row["state"] in ("complete", "pruned")]
                assert len(done) == origin["trials"]
                assert float(table[origin["trial"]]["value"]) == pytest.approx(origin["validation"], abs=1e-6)


@pytest.mark.parametrize("log", SECTIONS)
def test_every_row_has_its_command_and_its_numbers(log: str) -> None:
    command, rows, entry = SECTIONS[log].split("```")[1], rows_of(SECTIONS[log]), RESULTS[log]
    assert command.strip() == entry["command"]
    configs = [word for word in command.split() if word.startswith("configs/")]
    for line in command.strip().splitlines():
        models, seeds = re.findall(r"configs/(\S+)\.yaml", line), re.findall(r"--seeds ([\d ]+)", line)[0].split()
        if "--transfer" in line:
            names = re.findall(r"--models ([\w ]+)", line)[0].split()
            models = [
                f"{name}-of-{entry['models'][one]['options_of']['log']}"
                for name in names
                for one in entry["models"]
                if one.startswith(f"{name}-of-")
            ]
            configs += [f"configs/{model}.yaml" for model in models]
        is_study = ".tune " in line
        configs += [
            f"configs/{model}-tuned.yaml" for model in models if is_study and f"{model}-tuned" in entry["models"]
        ]
        for model in models:
            own = entry["models"][model]["seeds"]
            assert own == (list(map(int, seeds)) if model in DRAWING else [int(seeds[0])])
    assert all((ROOT / re.sub(r"-tuned|-of-\w+", "", word)).is_file() for word in configs)
    assert sorted(row[0] for row in rows) == sorted(word[8:-5] for word in configs)
    scores = [float(row[3].strip("+").split()[0].strip("*")) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for name, fits, *cells in ((row[0], row[1], row[2], row[3]) for row in rows):
        own = entry["models"][name]
        assert int(fits) == own["fits"] == len(own["seeds"]) == len(own["mrr@20"]["by_fit"])
        for metric, cell in zip(("recall@20", "mrr@20"), cells, strict=True):
            found = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
            assert found == [round(own[metric][part], 4) for part in ("value", "low", "high")]
            assert own[metric]["low"] <= own[metric]["value"] <= own[metric]["high"]
            assert own[metric]["value"] == pytest.approx(sum(own[metric]["by_fit"]) / own["fits"], abs=1e-12)


def test_published_figures_stand_beside_ours() -> None:
    """The positions that the filter takes out count as misses in the last column."""
    rows = rows_of(TEXT.split("## Published figures")[1])
    models = RESULTS["yoochoose1_64"]["models"]
    assert [row[0] for row in rows] == [
        *("popularity", "s_pop", "gru4rec", "narm", "sr_gnn", "gru4rec", "markov", "ar", "sr", "sknn", "vsknn")
    ]
    for model, _, _, here, with_misses in rows:
        for place, metric in enumerate(("recall@20", "mrr@20")):
            percent = 100 * models[model][metric]["value"]
            assert float(here.split(" / ")[place]) == pytest.approx(percent, abs=0.0051)
            assert float(with_misses.split(" / ")[place]) == pytest.approx(percent * 55400 / 55898, abs=0.0051)


def test_the_readme_has_the_results_of_the_demo() -> None:
    models = RESULTS["demo"]["models"]
    table = rows_of(README.split("prints\n\n```\n")[1].split("\n\n")[0])
    assert [row[0] for row in table] == list(models)
    for name, _, *cells in table:
        for metric, cell in zip(("recall@20", "mrr@20"), cells, strict=False):
            own = models[name][metric]
            assert cell == f"{own['value']:.4f} [{own['low']:.4f}, {own['high']:.4f}]"


def test_the_reference_implementation_is_as_near_as_the_readme_says() -> None:
    said = README.split("The reference implementation of GRU4Rec")[1].split("\n\n")[0]
    found = [float(number) for number in re.findall(r"0\.\d{4}", said)]
    runs = [("serenade_example", "gru4rec_bpr-max"), ("yoochoose1_64", "gru4rec"), ("retailrocket", "gru4rec_bpr-max")]
    assert "each Recall@20 is within 0.01 of these, each MRR@20 within 0.002" in " ".join(said.split())
    for (log, model), recall, mrr in zip(runs, found[::2], found[1::2], strict=True):
        assert value(log, model, "recall@20") == pytest.approx(recall, abs=0.01)
        assert value(log, model) == pytest.approx(mrr, abs=0.002)


def test_what_the_documents_say_in_words() -> None:
    """The claims of the case study, the executive summary and the technical report."""
    neighbours, logs = ("sknn", "vsknn", "stan", "vstan", "vmis_knn"), set(SECTIONS)
    best_neighbour = {log: max(value(log, model) for model in neighbours) for log in logs}
    assert len({max(RESULTS[log]["models"], key=lambda model: value(log, model)) for log in logs}) > 1
    ahead = {"serenade_example", "eshop2008", "yoochoose1_64"}
    assert {log for log in logs if value(log, "gru4rec") > best_neighbour[log]} == ahead
    assert {log for log in logs if max(value(log, "stan"), value(log, "vstan")) > value(log, "gru4rec")} == logs - ahead
    assert {log for log in logs if value(log, "stan") > value(log, "gru4rec")} >= {"retailrocket", "diginetica"}
    assert (
        RESULTS["rsc15_100k"]["models"]["vstan-tuned"]["mrr@20"]["difference"]["p"] > 0.05
    )  # level with gru4rec-tuned
    assert value("rsc15_100k", "vstan-tuned") == pytest.approx(value("rsc15_100k", "gru4rec-tuned"), abs=0.005)
    assert value("rsc15_100k", "gru4rec_bpr-max") > (value("rsc15_100k", "gru4rec") + value("rsc15_100k", "vstan")) / 2
    assert value("retailrocket", "gru4rec_bpr-max") == pytest.approx(value("retailrocket", "stan"), abs=0.001)
    assert value("retailrocket", "gru4rec_bpr-max", "recall@20") > value("retailrocket", "stan", "recall@20") + 0.02
    assert value("serenade_example", "gru4rec_bpr-max") > value("serenade_example", "gru4rec") + 0.02
    recalls = [value("serenade_example", model, "recall@20") for model in ("stan", "gru4rec_bpr-max")]
    assert recalls[0] == pytest.approx(recalls[1], abs=0.01)
    assert best_neighbour["eshop2008"] == pytest.approx(0.6 * value("eshop2008", "gru4rec"), rel=0.05)
    for log in ("eshop2008", "yoochoose1_64"):
        assert value(log, "markov") > 0.9 * value(log, "gru4rec")
    for log in ("retailrocket", "diginetica"):
        assert value(log, "markov") < 0.75 * value(log, "gru4rec")
        assert value(log, "s_pop") > value(log, "markov")
    assert all(value(log, "popularity") < 0.25 * value(log, "gru4rec") for log in logs)
    everywhere, uniform, _ = (audited[0] for audited in AUDITS["sampled"]["values"]["recall@20"]["popularity"])
    assert everywhere < 0.1
    assert uniform > max(0.9, AUDITS["sampled"]["values"]["recall@20"]["stan"][1][0])
    for metric, by_model in AUDITS["order"]["values"].items():
        left = {model: shuffled[0] / clicked[0] for model, (clicked, shuffled) in by_model.items()}
        assert [model for model, share in left.items() if share >= 1] == ["popularity"]
        if metric == "recall@20":
            shares = [left[model] for model in ("gru4rec", "markov", "stan")]
            assert shares == pytest.approx([4 / 5, 0.77, 7 / 8], abs=0.02)
