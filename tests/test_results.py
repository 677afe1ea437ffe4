"""docs/results.md and docs/results.json: every row has its command, and what is said is what the numbers are."""

from __future__ import annotations

import json
import re

import pytest
from helpers import ROOT

RESULTS = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
DRAWING = ("gru4rec", "gru4rec_bpr-max", "sasrec")
"""Models whose fits draw random numbers."""
SECTIONS = {part.split("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:] if "```" in part}


def rows_of(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines][1:]


def test_all_logs_are_there() -> None:
    logs = {"rsc15_100k", "serenade_example", "eshop2008", "yoochoose1_64", "retailrocket", "diginetica"}
    assert set(SECTIONS) == logs
    assert logs | {"demo", "audits"} == set(RESULTS)
    assert all(len(RESULTS[log]["models"]) == 15 for log in logs)


@pytest.mark.parametrize("log", SECTIONS)
def test_every_row_has_its_command_and_its_numbers(log: str) -> None:
    command, rows, entry = SECTIONS[log].split("```")[1], rows_of(SECTIONS[log]), RESULTS[log]
    assert command.strip() == entry["command"]
    configs = [word for word in command.split() if word.startswith("configs/")]
    for line in command.strip().splitlines():
        models, seeds = re.findall(r"configs/(\S+)\.yaml", line), re.findall(r"--seeds ([\d ]+)", line)[0].split()
        for model in models:
            own = entry["models"][model]["seeds"]
            assert own == list(map(int, seeds)) if model in DRAWING else own == [int(seeds[0])]
    assert all((ROOT / word).is_file() for word in configs)
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


@pytest.mark.parametrize("log", SECTIONS)
def test_the_table_says_what_beats_gru4rec(log: str) -> None:
    models, said = RESULTS[log]["models"], SECTIONS[log].strip().splitlines()[-1]
    if "## " not in said:
        said = next(line for line in SECTIONS[log].splitlines() if "the better GRU4Rec here" in line)
    best = max(
        (name for name in models if name.startswith("gru4rec")), key=lambda name: models[name]["mrr@20"]["value"]
    )
    assert RESULTS[log]["against"] == best
    assert f"the better GRU4Rec here, {best}" in said
    for name, own in models.items():
        beats = any(own[metric]["value"] > models[best][metric]["value"] for metric in ("recall@20", "mrr@20"))
        if name != best:
            assert beats == bool(re.search(rf"[ ,]{re.escape(name)}\*?[,.;]", said.replace(f"here, {best}", ""))), name


@pytest.mark.parametrize("model", RESULTS["yoochoose1_64"]["models"])
def test_configs_carry_their_result(model: str) -> None:
    own = RESULTS["yoochoose1_64"]["models"][model]
    text = (ROOT / "configs" / f"{model}.yaml").read_text(encoding="utf-8")
    found = re.findall(
        r"^# On yoochoose1_64: test Recall@20 ([\d.]+), MRR@20 ([\d.]+), fitted in ([\d.,]+) s;", text, re.M
    )
    ((recall, mrr, seconds),) = found
    assert (float(recall), float(mrr)) == (round(own["recall@20"]["value"], 4), round(own["mrr@20"]["value"], 4))
    assert float(seconds.replace(",", "")) == pytest.approx(own["fit_seconds"], rel=5e-3)


def test_published_figures_stand_beside_ours() -> None:
    """The positions that the filter takes out count as misses in the last column."""
    table = TEXT.split("## Published figures")[1]
    models = RESULTS["yoochoose1_64"]["models"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")
    ]
    assert [row[0] for row in rows[1:]] == [
        *("popularity", "s_pop", "gru4rec", "gru4rec", "markov", "ar", "sr", "sknn", "vsknn")
    ]
    for model, _, _, here, with_misses in rows[1:]:
        for place, metric in enumerate(("recall@20", "mrr@20")):
            value = 100 * models[model][metric]["value"]
            assert float(here.split(" / ")[place]) == pytest.approx(value, abs=0.0051)
            assert float(with_misses.split(" / ")[place]) == pytest.approx(value * 55400 / 55898, abs=0.0051)
