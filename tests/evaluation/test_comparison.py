"""Tested runs side by side: what is one model, what may be compared, and what is written about it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import one_error, random_rows
from tested import LOGS, MARKS, METRICS, OPTIONS, change_ranks, fit_and_test, fit_run, report_of, test_run, write_rows

from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import difference, holm
from sessrec.evaluation.comparison import Comparison, compare_runs, pooled_means
from sessrec.evaluation.comparison_tables import (
    comparison_csv,
    differences_table,
    metrics_table,
    protocol_text,
    slices_table,
)
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.slices import Slices, slice_metrics
from sessrec.evaluation.tested_runs import PROTOCOL, check_comparable, group_runs, read_run
from sessrec.figures.results import slices_figure
from sessrec.text import Table

pytestmark = MARKS
EARLY_STOPPING = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/mrr@20"}}
FITS = [("Markov", 1), ("SKNN", 1), ("GRU4Rec", 1), ("GRU4Rec", 2), ("GRU4Rec", 3)]


ALL = [LOGS / f"cmp-{model.lower()}-{seed}" for model, seed in FITS]


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = {run.name: [model, "--seed_everything", str(seed)] for (model, seed), run in zip(FITS, ALL, strict=True)}
    return fit_and_test(tmp_path_factory.mktemp("fits"), random_rows(120, 30), runs)


@pytest.fixture
def compare() -> ModuleType:
    return importlib.import_module("sessrec.compare")


def change_report(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    report = report_of(run.name)
    change(report)
    (run / "metrics.json").write_text(json.dumps(report))


def copied(run: Path, name: str) -> Path:
    return Path(shutil.copytree(run, LOGS / name))


def compared(n_resamples: int = 200, **options: Any) -> Comparison:
    return compare_runs([read_run(folder) for folder in ALL], METRICS, n_resamples=n_resamples, **options)


# 1. What is one model


@pytest.mark.parametrize(
    ("section", "option", "value", "n_models"),
    [
        ("data", "cache_dir", "kept", 1),
        ("data", "eval_batch_size", 7, 1),
        ("trainer", "logger", None, 1),
        ("model_options", "learning_rate", 0.05, 2),
        ("trainer", "max_epochs", 2, 2),
        ("data", "batch_size", 8, 2),
        ("data", "shuffle", True, 2),
        ("trainer", "precision", "64-true", 2),
        ("trainer", "devices", 2, 2),  # each process has its own batches
        ("trainer", "callbacks", [EARLY_STOPPING], 2),
        (None, "checkpoint", "lightning_logs/x/checkpoints/best.ckpt", 2),
    ],
)
def test_options_that_make_another_model(section: str | None, option: str, value: Any, n_models: int) -> None:
    file = ALL[2] / ("config.yaml" if section in ("data", "trainer") else "metrics.json")
    content = yaml.safe_load(file.read_text())
    options = content if section is None else content[section]
    assert options[option] != value  # it is there
    options[option] = value
    file.write_text(json.dumps(content))
    assert len(group_runs([read_run(ALL[2]), read_run(ALL[3])])) == n_models


def test_runs_of_earlier_releases_lack_options() -> None:
    """They are of one model with those that have them with the value that was the only one."""
    for name, section, added in (
        ("metrics.json", "model_options", ["schedule", "schedule_unit", "warmup", "stair"]),
        ("config.yaml", "data", ["bad_lines", "item_lists", "train_path"]),
    ):
        content = yaml.safe_load((ALL[2] / name).read_text())
        content[section] = {option: value for option, value in content[section].items() if option not in added}
        (ALL[2] / name).write_text(json.dumps(content))
    assert len(group_runs([read_run(ALL[2]), read_run(ALL[3])])) == 1
    content["data"]["bad_lines"] = "drop"
    (ALL[2] / "config.yaml").write_text(json.dumps(content))
    assert len(group_runs([read_run(ALL[2]), read_run(ALL[3])])) == 2


def test_names_without_what_all_begin_with() -> None:
    one, other = copied(ALL[0], "study-a-markov-x"), copied(ALL[1], "study-a-sknn-1")
    assert list(group_runs([read_run(one), read_run(other)])) == ["markov-x", "sknn"]
    assert list(group_runs([read_run(one)])) == ["study-a-markov-x"]


def test_names_are_whole_where_it_is_known_what_all_begin_with() -> None:
    """One model's name begins with another's and a hyphen."""
    runs = [copied(ALL[0], "cmp-gru4rec_bpr-max-1"), copied(ALL[1], "cmp-gru4rec_bpr-max-tuned-1")]
    read = [read_run(run) for run in runs]
    assert list(group_runs(read, "cmp-")) == ["gru4rec_bpr-max", "gru4rec_bpr-max-tuned"]
    assert list(group_runs(read[:1], "cmp-")) == ["gru4rec_bpr-max"]
    assert list(group_runs(read, "other-")) == ["max", "max-tuned"]
    found = compare_runs(read, METRICS, against="gru4rec_bpr-max", n_resamples=100, prefix="cmp-")
    assert found.against == "gru4rec_bpr-max"


def test_two_models_of_one_name_are_called_by_their_folders() -> None:
    one, other = Path("a/cmp-x-1"), Path("b/cmp-x-1")
    for source, target in ((ALL[0], one), (ALL[1], other)):
        shutil.copytree(source, target)
    assert list(group_runs([read_run(one), read_run(other)])) == [str(one), str(other)]


def test_seeds_with_names_of_their_own() -> None:
    runs = [copied(folder, name) for folder, name in zip(ALL[2:], ("tuned_a", "tuned_b", "tuned_c"), strict=True)]
    assert list(group_runs([read_run(folder) for folder in [ALL[0], *runs]])) == ["cmp-markov", "tuned"]


def test_a_run_without_its_config_is_a_model_of_its_own() -> None:
    (ALL[3] / "config.yaml").unlink()
    groups = group_runs([read_run(folder) for folder in ALL])
    assert sorted(len(runs) for runs in groups.values()) == [1, 1, 1, 2]


# 2. What is measured


def test_values_are_those_of_metrics_json() -> None:
    by_name = {model.name: model for model in compared().models}
    for name, folders in (("markov", ALL[:1]), ("sknn", ALL[1:2]), ("gru4rec", ALL[2:])):
        for metric in METRICS:
            own = [report_of(folder.name)["metrics"][f"test/{metric}"] for folder in folders]
            assert by_name[name].by_run[metric] == pytest.approx(own, abs=1e-9)
            found = by_name[name].metrics[metric]
            assert found.value == pytest.approx(sum(own) / len(own), abs=1e-9)
            assert found.low < found.value < found.high
    assert len(set(by_name["gru4rec"].by_run["mrr@20"])) == 3


def test_the_best_come_first_and_are_what_the_others_are_compared_to() -> None:
    comparison = compared()
    values = [model.metrics["mrr@20"].value for model in comparison.models]
    assert values == sorted(values, reverse=True)
    assert comparison.against == comparison.models[0].name
    assert comparison.models[0].differences == {}
    other = compare_runs([read_run(folder) for folder in ALL], ["mrr@20", "recall@1"])
    values = [model.metrics["recall@1"].value for model in other.models]
    assert values == sorted(values, reverse=True)


def test_differences_are_paired_and_corrected_for_their_number() -> None:
    runs = [read_run(folder) for folder in ALL]
    groups = group_runs(runs)
    comparison = compared(against="sknn", n_resamples=300, seed=5)
    means = pooled_means(groups, lambda run: [gains(run.ranks.rank, metric) for metric in METRICS], None, 300, 5)
    raw = {
        (name, metric): difference(means[name][place], means["sknn"][place])
        for name in ("markov", "gru4rec")
        for place, metric in enumerate(METRICS)
    }
    corrected = dict(zip(raw, holm([one.p for one in raw.values()]), strict=True))
    by_name = {model.name: model for model in comparison.models}
    assert by_name["sknn"].differences == {}
    for (name, metric), one in raw.items():
        found = by_name[name].differences[metric]
        assert found == one._replace(p=corrected[name, metric])
        own, other = by_name[name].metrics[metric].value, by_name["sknn"].metrics[metric].value
        assert found.value == pytest.approx(own - other, abs=1e-12)
    assert any(corrected[key] > raw[key].p for key in raw)


def test_a_model_does_not_differ_from_its_twin() -> None:
    twin = copied(ALL[0], "cmp-twin-1")
    (twin / "config.yaml").unlink()
    found = compare_runs([read_run(ALL[0]), read_run(twin)], METRICS, n_resamples=200).models[1].differences
    for one in found.values():
        assert tuple(one) == (0, 0, 0, 1)


def test_one_seed_one_comparison() -> None:
    one, again, other = (comparison_csv(compared(seed=seed)) for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_the_order_of_the_runs_changes_nothing() -> None:
    own = compared(against="gru4rec")
    again = compare_runs([read_run(folder) for folder in reversed(ALL)], METRICS, against="gru4rec", n_resamples=200)
    assert [model.name for model in own.models] == [model.name for model in again.models]
    for model, other in zip(own.models, again.models, strict=True):
        assert [run.folder for run in model.runs] == [run.folder for run in other.runs]
        assert model.differences.keys() == other.differences.keys()
        pairs = [(model.metrics, other.metrics), (model.differences, other.differences)]
        for found, twin in ((mine[metric], its[metric]) for mine, its in pairs for metric in mine):
            assert tuple(found) == pytest.approx(tuple(twin), rel=1e-9, abs=1e-12)


def test_more_confidence_is_a_wider_interval() -> None:
    for wide, narrow in zip(compared(level=0.99).models, compared(level=0.5).models, strict=True):
        for metric in METRICS:
            assert wide.metrics[metric].low < narrow.metrics[metric].low
            assert wide.metrics[metric].high > narrow.metrics[metric].high


def test_parts_of_a_test_are_averaged_over_their_own_positions() -> None:
    runs = {"markov": [read_run(ALL[0])]}
    inside = runs["markov"][0].ranks.column("position") > 2
    values = gains(runs["markov"][0].ranks.rank, "mrr@20")
    found = pooled_means(runs, lambda run: [values, values], [inside, ~inside])["markov"]
    assert [mean.value for mean in found] == pytest.approx([values[inside].mean(), values[~inside].mean()])
    session = runs["markov"][0].ranks.session
    assert [mean.n_sessions for mean in found] == [len(set(session[part])) for part in (inside, ~inside)]
    assert found[0].resampled.std() > 0


# 3. What cannot be compared


def refused(folders: list[Path], message: str, **options: Any) -> None:
    with pytest.raises(SessRecError, match=message) as caught:
        compare_runs([read_run(folder) for folder in folders], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.tie_mode", "median"], "tie mode conservative against median"),
        (["--model.tie_mode", "standard"], "tie mode conservative against standard"),
        (["--model.exclude_last", "true"], "exclude last False against True"),
        (["--model.exclude_seen", "true"], "exclude seen False against True"),
        (["--trainer.limit_test_batches", "2", "--data.eval_batch_size", "5"], "positions .* against"),
        (["--data.path", "more.tsv"], "cannot be compared: (positions|sessions|data digest)"),
        (["--data.path", "item.tsv"], "cannot be compared: data digest one test part against another"),
        (["--data.path", "name.tsv"], "cannot be compared: data digest one test part against another"),
        (["--data.test_ratio", "0.3"], "cannot be compared: positions"),
    ],
)
def test_other_rules_or_data_are_refused(words: list[str], message: str) -> None:
    rows = random_rows(120, 30)
    write_rows([*rows, ("more", "x1", rows[-1][2] + 50), ("more", "x2", rows[-1][2] + 60)], "more.tsv")
    write_rows([*rows[:-1], (rows[-1][0], "x1" if rows[-1][1] != "x1" else "x2", rows[-1][2])], "item.tsv")
    write_rows([(f"{name}b" if name == rows[-1][0] else name, *rest) for name, *rest in rows], "name.tsv")
    other = copied(ALL[1], "cmp-other-1")
    test_run(other.name, *words)
    refused([ALL[0], other], message)
    refused([other, ALL[0]], "cannot be compared")
    with pytest.raises(SessRecError, match=f"^{ALL[0]} and {other} cannot be compared.*by the same rules$"):
        check_comparable([read_run(ALL[0]), read_run(ALL[1]), read_run(other)])


def test_other_candidates_are_refused() -> None:
    change_report(ALL[1], lambda report: report["protocol"].update(items_ranked=7))
    refused(ALL, "items ranked 30 against 7")


def test_as_many_other_candidates_are_refused() -> None:
    """Items of the training part alone: the test parts are equal."""
    rows, runs = random_rows(120, 30), []
    for item, model in (("only-a", "Popularity"), ("only-b", "Markov")):
        write_rows([("first", item, rows[0][2] - 900), ("first", "x1", rows[0][2] - 890), *rows])
        runs.append(LOGS / f"cmp-{item}")
        fit_run(model, name=runs[-1].name)
        test_run(runs[-1].name)
    one, other = (report_of(run.name)["protocol"] for run in runs)
    assert one | {"items_digest": ""} == other | {"items_digest": ""}
    refused(runs, "items digest one catalogue against another")


def test_runs_that_would_count_twice_are_refused() -> None:
    refused([ALL[0], ALL[1], ALL[0]], "is given twice")
    refused([ALL[0], LOGS / ".." / ALL[0]], "is given twice")
    refused([ALL[2], copied(ALL[2], "cmp-copy-1")], "of one model and one seed")
    refused([ALL[0], copied(ALL[0], "cmp-copy-2")], "of one model and one seed")
    other = copied(ALL[2], "cmp-copy-3")
    refused([ALL[2], ALL[3], other], f"^{ALL[2]} and {other} are of one model")


def test_what_is_not_there_is_named() -> None:
    refused(ALL, "there is no model nobody to compare to; there are .*gru4rec", against="nobody")
    refused(ALL, "hit@5 is no metric", metrics=["mrr@20", "hit@5"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "is no tested run, it has no metrics.json: `python -m sessrec.test` writes it"),
        ("metrics.json", b"", "metrics.json is damaged or incomplete"),
        ("metrics.json", b"{", "metrics.json is damaged or incomplete"),
        ("metrics.json", b"{}", "metrics.json is damaged or incomplete"),
        ("metrics.json", b"[1]", "metrics.json is damaged or incomplete"),
        ("metrics.json", b"\xff\xfe\x00", "metrics.json is damaged or incomplete"),
        ("ranks.parquet", None, "there is no .*ranks.parquet"),
        ("ranks.parquet", b"PAR1", "ranks.parquet cannot be read"),
        ("fit.json", b"{", "fit.json is damaged or"),
        ("fit.json", b"{}", "fit.json is damaged or"),
        ("config.yaml", b"a: [\n", "config.yaml is damaged or"),
        ("config.yaml", b"{}\n", "config.yaml is damaged or"),
        ("config.yaml", b"", "config.yaml is damaged or"),
    ],
)
def test_runs_that_lack_something(name: str, content: bytes | None, message: str) -> None:
    file = ALL[0] / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    refused(ALL, message)


def test_files_of_two_tests_are_told_apart() -> None:
    file, message = (
        ALL[0] / "ranks.parquet",
        "metrics.json and ranks.parquet are of two tests, or damaged: test the run",
    )
    whole, of_another_model = file.read_bytes(), (ALL[1] / "ranks.parquet").read_bytes()
    file.write_bytes(of_another_model)
    refused([ALL[0]], message)
    for words in (["--data.test_ratio", "0.3"], ["--model.tie_mode", "median"]):
        test_run(ALL[0].name, *words)
        file.write_bytes(whole)
        refused(ALL, message)
    refused([Path("nowhere")], "nowhere is no tested run")


@pytest.mark.parametrize("key", ["model", "model_options", "seed", "seconds", "checkpoint", "metrics", "protocol"])
def test_reports_that_lack_something(key: str) -> None:
    change_report(ALL[0], lambda report: report.pop(key))
    refused(ALL, f"metrics.json is damaged or incomplete .*'{key}'")


@pytest.mark.parametrize("key", [key for key in PROTOCOL if key != "allowed_items"])
def test_reports_that_lack_a_rule(key: str) -> None:
    """Those of before have no digest of the items."""
    change_report(ALL[0], lambda report: report["protocol"].pop(key))
    refused(ALL, f"metrics.json does not say {key}: test the run again")


def test_reports_of_before_some_items_could_be_ranked_alone() -> None:
    change_report(ALL[0], lambda report: report["protocol"].pop("allowed_items"))
    assert compare_runs([read_run(run) for run in ALL]).protocol["allowed_items"] == "all"
    change_report(ALL[1], lambda report: report["protocol"].update(allowed_items="3 of 9"))
    refused(ALL, "cannot be compared: allowed items (all against 3 of 9|3 of 9 against all)")


# 4. What is written


def cells(text: str) -> list[list[str]]:
    """Rows of a Markdown table, the head first, checked for its form."""
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.fullmatch(r"\|:-+\|(-+:\|)+", lines[1])
    rows = [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in (lines[0], *lines[2:])]
    assert len({len(row) for row in rows}) == 1 == len({len(row) for row in [rows[0], lines[1].strip("|").split("|")]})
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]


def test_bars_in_names_end_no_cell() -> None:
    assert cells(Table(["model", "x"], [["a | b", "1"], ["c|", "2|3"]]).markdown())[1:] == [
        ["a | b", "1"],
        ["c|", "2|3"],
    ]


def test_tables_say_what_was_found() -> None:
    comparison = compared(against="markov")
    head, *rows = cells(metrics_table(comparison).markdown())
    assert head == ["model", "fits", "Recall@5", "MRR@20", "MRR@20 of the fits", "fit", "test"]
    assert [row[0] for row in rows] == [model.name for model in comparison.models]
    for row, model in zip(rows, comparison.models, strict=True):
        assert row[1] == str(len(model.runs))
        for cell, metric in zip(row[2:], METRICS, strict=False):
            assert cell == "{:.4f} [{:.4f}, {:.4f}]".format(*model.metrics[metric])
        own = model.by_run["mrr@20"]
        assert row[4] == (f"{min(own):.4f} - {max(own):.4f}" if len(own) > 1 else "")
        assert row[5:] == [f"{model.fit_seconds:.3g} s", f"{model.test_seconds:.3g} s"]
    head, *rows = cells(differences_table(comparison).markdown())
    assert head == ["minus markov", "Recall@5", "p", "MRR@20", "p"]
    assert [row[0] for row in rows] == [model.name for model in comparison.models if model.name != "markov"]
    by_name = {model.name: model.differences for model in comparison.models}
    for row in rows:
        for place, metric in enumerate(METRICS):
            found = by_name[row[0]][metric]
            assert row[1 + 2 * place] == f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
            assert row[2 + 2 * place].endswith("*") == (found.p < 0.05)
            assert row[2 + 2 * place].removesuffix(" *") == ("<0.001" if found.p < 0.001 else f"{found.p:.3f}")


def test_slices_are_means_over_the_fits() -> None:
    models = {model.name: model.runs for model in compared().models}
    head, *rows = cells(slices_table(models, "recall@5", Slices()).markdown())
    assert head == ["Recall@5", "positions", *models]
    found = {name: [slice_metrics(run.ranks, Slices(), ["recall@5"]) for run in runs] for name, runs in models.items()}
    for row in rows:
        kind = max((kind for kind in found["markov"][0] if row[0].startswith(kind)), key=len)
        label = row[0].removeprefix(kind).strip()
        means = [np.mean([one[kind][label]["recall@5"] for one in of_runs]) for of_runs in found.values()]
        assert row[2:] == [f"{mean:.4f}" for mean in means]
        assert row[1] == f"{found['markov'][0][kind][label]['positions']:,}"
    assert len(rows) == sum(len(parts) for parts in found["markov"][0].values())


def test_slices_where_one_run_has_no_ages() -> None:
    """Its checkpoint is of before first times were kept: what not all models have is left out."""
    content = torch.load(ALL[2] / "checkpoints/last.ckpt", weights_only=True)
    del content["vocabulary"]["first_times"]
    torch.save(content, ALL[2] / "checkpoints/last.ckpt")
    test_run(ALL[2].name)
    for folders in ([ALL[0], ALL[2]], [ALL[2], ALL[0]]):
        models = {folder.name: [read_run(folder)] for folder in folders}
        rows = cells(slices_table(models, "mrr@20", Slices()).markdown())[1:]
        assert any(row[0].startswith("position") for row in rows)
        assert all(re.fullmatch(r"\d\.\d{4}|-|", cell) for row in rows for cell in row[2:])
        slices_figure(models, "mrr@20", Slices())


def test_the_text_tells_the_protocol() -> None:
    comparison = compared(n_resamples=1234)
    text, protocol = protocol_text(comparison), report_of(ALL[0].name)["protocol"]
    for part in (
        "30 items ranked",
        f"{protocol['positions']:,} positions of {protocol['sessions']:,} test sessions",
        "ties conservative, all items candidates",
        "95% intervals",
        "1,234 resamples",
        "Holm",
    ):
        assert part in text
    for name in ("markov", "sknn"):
        assert name in text.partition("One fit only: ")[2]
    for rule, told in (("exclude_last", "the last item no candidate"), ("exclude_seen", "no item of the session so")):
        comparison.protocol[rule] = True
        assert told in protocol_text(comparison)


def test_the_csv_has_every_figure_in_full() -> None:
    comparison = compared(against="markov")
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [(row["model"], row["metric"]) for row in rows] == [
        (model.name, metric) for model in comparison.models for metric in METRICS
    ]
    by_name = {model.name: model for model in comparison.models}
    for row in rows:
        model = by_name[row["model"]]
        assert int(row["fits"]) == len(model.runs)
        assert tuple(float(row[name]) for name in ("value", "low", "high")) == model.metrics[row["metric"]]
        assert json.loads(row["by_fit"]) == model.by_run[row["metric"]]
        assert json.loads(row["runs"]) == [str(run.folder) for run in model.runs]
        assert (float(row["fit_seconds"]), float(row["test_seconds"])) == (model.fit_seconds, model.test_seconds)
        names = ("difference", "difference_low", "difference_high", "p_corrected")
        if row["model"] == "markov":
            assert {row[name] for name in ("against", *names)} == {""}
        else:
            assert row["against"] == "markov"
            assert tuple(float(row[name]) for name in names) == model.differences[row["metric"]]


def test_a_comparison_of_one_model(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([*map(str, ALL[2:])])
    text = capsys.readouterr().out
    assert "cmp-gru4rec" in text
    assert "minus" not in text
    assert "One fit only" not in text


def test_fit_times(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, seconds in zip(ALL[2:], (5.0, 100.0, 7.0), strict=True):
        (folder / "fit.json").write_text(json.dumps({"seconds": seconds}))
    (ALL[1] / "fit.json").unlink()
    (ALL[0] / "fit.json").write_text('{"seconds": null}')
    models = {model.name: model for model in compared().models}
    assert models["gru4rec"].fit_seconds == 7.0
    assert models["sknn"].fit_seconds is None
    assert models["markov"].fit_seconds is None
    assert [row[-2] for row in cells(metrics_table(compared()).markdown())[1:] if row[0] != "gru4rec"] == ["-", "-"]
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(comparison_csv(compared())))}
    assert rows["sknn"]["fit_seconds"] == ""


# 5. The command


def test_all_is_printed_and_written(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for folder in ALL for file in folder.rglob("*") if file.is_file()}
    compare.main([*map(str, ALL), "--against", "markov", "--metrics", "ndcg@3", "recall@7", "--output", "a/b"])
    assert {file: file.read_bytes() for folder in ALL for file in folder.rglob("*") if file.is_file()} == before
    out = capsys.readouterr().out
    files = {file.name for file in Path("a/b").iterdir() if file.is_file()}
    names = ("comparison", "recall_curves", "mrr_curves", "slices")
    assert files >= {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert files >= {"comparison.md", "comparison.csv"}
    assert not any(name.startswith(".") for name in files)
    told = re.search(r"written to a/b: (.*)", out)
    assert told is not None
    assert set(told[1].split(", ")) <= files
    for file in Path("a/b").glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")
    for file in Path("a/b").glob("*.svg"):
        assert "<svg" in file.read_text(encoding="utf-8")
    tables = Path("a/b/comparison.md").read_text().split("\n\n")
    for table in tables[:2]:
        assert table.rstrip("\n") in out
    assert "NDCG@3" in out
    assert "minus markov" in out
    rows = list(csv.DictReader(io.StringIO(Path("a/b/comparison.csv").read_text())))
    assert {row["metric"] for row in rows} == {"ndcg@3", "recall@7"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name runs to compare"),
        (["--output", "x"], "name runs to compare"),
        ([str(ALL[0]), "--metrics", "mrr@0"], "mrr@0 is no metric"),
        ([str(ALL[0]), "--against", "nobody"], "there is no model nobody"),
        ([str(ALL[0]), str(ALL[0])], "is given twice"),
        ([str(ALL[0]), "nowhere"], "nowhere is no tested run"),
        ([str(ALL[0]), "--resamples", "99"], "--resamples 99 is too few"),
        ([str(ALL[0]), "--output", "log.tsv"], "--output log.tsv cannot be written to: log.tsv is a file"),
        ([str(ALL[0]), "--against", "x", str(ALL[1])], "runs stand before all options"),
        ([str(ALL[0]), "--data.path", "log.tsv"], "unknown option --data.path"),
        (["--resamples", "200", str(ALL[0])], "runs stand before all options"),
        ([str(ALL[0]), "--configs", "nowhere.yaml"], "--configs nowhere.yaml: no such file"),
        ([str(ALL[0]), "--configs"], "needs a value"),
        ([str(ALL[0]), "--seed", "one"], "must be a whole number"),
        ([str(ALL[0]), "--seed", "-1"], "--seed must be at least 0, got -1"),
        ([str(ALL[0]), "--metrics", "recall@²"], "recall@² is no metric"),
    ],
)
def test_words_that_cannot_be_are_one_line(
    compare: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in one_error(capsys, compare.main, words)


def test_a_typo_in_a_metric_is_found_before_the_fits(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text("model:\n  class_path: Popularity\n")
    words = ["--configs", "c.yaml", *OPTIONS, "--metrics", "hit@3", "--name", "long"]
    assert "hit@3 is no metric" in one_error(capsys, compare.main, words)
    assert not list(LOGS.glob("long*"))


def test_runs_and_configs_together(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The words behind the configs go to the fits; those of the comparison may stand among them."""
    config = Path("popular.yaml")
    config.write_text(yaml.safe_dump({"model": {"class_path": "Popularity"}}))
    words = ["--configs", str(config), *OPTIONS, "--metrics", "recall@5", "--name", "mine", "--seeds", "7", "8"]
    compare.main([*map(str, ALL[:2]), *words])
    out = capsys.readouterr().out
    assert sorted(folder.name for folder in LOGS.glob("mine*")) == ["mine-popular-7"]  # it draws no random numbers
    head, *rows = cells("| model" + out.split("\n\n| model")[1].split("\n\n")[0])
    assert head[:3] == ["model", "fits", "Recall@5"]
    assert {row[0] for row in rows} == {"cmp-markov", "cmp-sknn", "mine-popular"}
    assert report_of("mine-popular-7")["seed"] == 7


def test_ranks_are_what_counts() -> None:
    """Values come from the ranks file: with every target first, every metric is 1."""
    change_ranks(ALL[0].name, rank=1, seed=1)
    found = {model.name: model for model in compared().models}["markov"]
    assert [tuple(one) for one in found.metrics.values()] == [(1, 1, 1)] * 2
