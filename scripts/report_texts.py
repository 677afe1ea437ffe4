"""The texts that `scripts/report.py` makes of docs/results.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sessrec.evaluation.rank_table import metric_name
from sessrec.text import Table, seconds_text

_HEAD = """# Results of all models

Each section is what its commands give on one log, best MRR@20 first: all items ranked at every position of the test
part, ties against the model. In brackets are 95 % intervals by bootstrap over sessions, and over seeds where a model
was fitted several times; behind them the least and greatest MRR@20 of the fits. A star marks a paired difference to the
better GRU4Rec that is significant at 5 % after correction for the number of comparisons on the log (Holm); `+` stands
before models that are above it.

GRU4Rec has the options published for RSC15 (`gru4rec`, cross-entropy) and RetailRocket (`gru4rec_bpr-max`), the
neighbourhood methods and rules those of session-rec or near them, NARM and SR-GNN those of their papers (each config
says). `MODEL-tuned` has the options of the best trial of a study: every model with options had the same budget, which
stands in its command ([Choosing options](tuning.md)). Options and number of epochs, also those of the row `MODEL`
beside it, were chosen on a validation part before the test part; validation and training part together are fitted for
the test, which was read once. `validation` is the score by which a trial was chosen, `trial` its number, `trials` how
many there were; [trials.csv.gz](trials.csv.gz) has them all. One study was made twice: a first one of GRU4Rec on
`serenade_example` had no published options in its space and was tested with 0.2928 before these were added. {tuned}

Times are those of one CPU core beside other work (a dash: not taken in one piece) and say only which models take
seconds and which minutes. The README tells where the logs come from; those without times (`Order` in place of a time)
give STAN and VSTAN rows for seconds. `python scripts/report.py --tune LOG` repeats the studies of a section, `--fit
LOG` its other rows.
"""
_UNTUNED = """\
Models were tuned on {tuned}. On {others} they were not, and a model that is tuned to a log does better on it.
`MODEL-of-LOG` has the options that the study of LOG chose, and as many epochs as the other models there."""
_STALE = """
SASRec's rows on {old} are of the model of sessrec 0.2, with options chosen among four tried on the test parts of
`rsc15_100k` and `serenade_example`: the model is another one since ([SASRec on short sessions](attention.md)), and
these rows wait to be measured anew."""
_PUBLISHED = """## Published figures

Recall@20 / MRR@20 in percent on yoochoose1_64, as others print them and as they are here. The last column counts as
misses the {missed} positions that the filter of unknown items takes out of the test part of {all:,}: they have a target
that no model was trained on, or nothing known before it.
"""
_ON_OTHER_SPLITS = """\
`a`: papers on graph networks, as quoted in Mathematical Problems in Engineering 2020, article 9290576, table 5, with
Sess-ODEnet 69.19 / 29.38, too. Their test part is this one with the unknown items left in. NARM and SR-GNN have the
options of their papers here, and five epochs. Their GRU4Rec is that of 2016, without sampled negatives and logQ; what
sets POP and S-POP apart is not known. `b`: session-rec, tables of single splits, `rsc15_64`, cut off the same clicks by
its own program. Its neighbourhood methods have options tuned to that split, its GRU4Rec is older than logQ; AR, SR and
Markov, which have hardly any options, agree to about one point.

The other figures of session-rec are means over five windows of each data set, and those of Hidasi and Czapp (RecSys
2023) on RSC15, Yoochoose, RetailRocket, Diginetica, Rees46 and Coveo of whole data sets with a preprocessing of their
own (`configs/data/` has it): they cannot be put beside these slices. For the reference implementation on the very same
splits see the README.
"""
_PUBLISHED_FIGURES = (
    ("popularity", "a", 6.71, 1.65),
    ("s_pop", "a", 30.44, 18.35),
    ("gru4rec", "a", 60.64, 22.89),
    ("narm", "a", 68.32, 28.76),
    ("sr_gnn", "a", None, 30.94),
    ("gru4rec", "b", 65.28, 27.52),
    ("markov", "b", 64.76, 29.83),
    ("ar", "b", 66.52, 28.62),
    ("sr", "b", 66.73, 30.33),
    ("sknn", "b", 64.23, 25.22),
    ("vsknn", "b", 69.61, 28.79),
)
_PUBLISHED_POSITIONS = 55_898
_TABLE = re.compile(r"(<!-- table: (\S+) (.+) -->\n).*?(?=<!-- end -->)", flags=re.DOTALL)


def with_tables(text: str, logs: Mapping[str, Mapping[str, Any]]) -> str:
    """A document with its tables of results up to date.

    Args:
        text: The document, with tables between ``<!-- table: METRIC MODEL ... -->`` and ``<!-- end -->``.
        logs: Results of each log, as docs/results.json has them.
    """

    def table(found: re.Match[str]) -> str:
        begin, metric, models = found.groups()
        rows = []
        for model in models.split():
            values = [log["models"].get(model, {}).get(metric) for log in logs.values()]
            rows.append([model, *(f"{value['value']:.4f}" if value else "-" for value in values)])
        return f"{begin}\n{Table([metric_name(metric), *logs], rows).markdown()}\n\n"

    return _TABLE.sub(table, text)


def results_text(logs: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/results.md, from the results of each log."""
    tuned = [f"`{log}`" for log, entry in logs.items() if any("tuning" in own for own in entry["models"].values())]
    others = [f"`{log}`" for log in logs if f"`{log}`" not in tuned]
    state = _UNTUNED.format(tuned=", ".join(tuned) or "none of the logs", others=", ".join(others)) if others else ""
    if old := [
        log for log in others if "sasrec" in logs[log[1:-1]]["models"] and "esasrec" not in logs[log[1:-1]]["models"]
    ]:
        state += _STALE.format(old=", ".join(old))
    return "\n".join(
        [_HEAD.format(tuned=state), *(_section(log, entry) for log, entry in logs.items()), _published(logs)]
    )


def _published(logs: Mapping[str, Mapping[str, Any]]) -> str:
    entry = logs.get("yoochoose1_64")
    if entry is None:
        return ""
    positions, models, rows = entry["positions"], entry["models"], []
    for model, source, *published in _PUBLISHED_FIGURES:
        if model in models:
            here = [100 * models[model][metric]["value"] for metric in ("recall@20", "mrr@20")]
            with_misses = [value * positions / _PUBLISHED_POSITIONS for value in here]
            cells = (
                " / ".join("-" if value is None else f"{value:.2f}" for value in pair)
                for pair in (published, here, with_misses)
            )
            rows.append([model, source, *cells])
    head = ["model", "source", "published", "here", "with the misses"]
    text = _PUBLISHED.format(missed=_PUBLISHED_POSITIONS - positions, all=_PUBLISHED_POSITIONS)
    return f"{text}\n{Table(head, rows).markdown()}\n\n{_ON_OTHER_SPLITS}"


def _section(log: str, entry: Mapping[str, Any]) -> str:
    protocol, against = entry["protocol"], entry["against"]
    metrics = [name for name in next(iter(entry["models"].values())) if "@" in name]
    head = ["model", "fits", *map(metric_name, metrics), f"{metric_name(metrics[-1])} of the fits", "fit", "test"]
    is_tuned, rows = any("tuning" in own for own in entry["models"].values()), []
    head += ["validation", "trial", "trials"] if is_tuned else []
    for model, own in entry["models"].items():
        cells = [_cell(own[metric]) for metric in metrics]
        by_fit = own[metrics[-1]]["by_fit"]
        spread = f"{min(by_fit):.4f} - {max(by_fit):.4f}" if len(by_fit) > 1 else ""
        times = [seconds_text(own["fit_seconds"]), seconds_text(own["test_seconds"])]
        rows.append([model, str(own["fits"]), *cells, spread, *times, *(_of_study(own) if is_tuned else [])])
    rules = ", ".join(
        f"{name.replace('_', ' ')} {protocol[name]}"
        for name in ("tie_mode", "items_ranked", "exclude_last", "exclude_seen", "positions", "sessions")
    )
    return (
        f"## {log}\n\n```\n{entry['command']}\n```\n\n{Table(head, rows).markdown()}\n\n"
        f"All items ranked at every position of the test part: {rules}.\n\n{_verdict(entry, against, metrics)}\n"
    )


def _of_study(own: Mapping[str, Any]) -> list[str]:
    """Validation, trial and number of trials of a model with options from a study."""
    if (origin := own.get("tuning")) is None:
        return ["", "", ""]
    return [f"{origin['validation']:.4f}", str(origin["trial"]), str(origin["trials"])]


def _cell(found: Mapping[str, Any]) -> str:
    difference = found.get("difference")
    above = "+" if difference and difference["value"] > 0 else " "
    star = "*" if difference and difference["p"] < 0.05 else " "
    return f"{above}{found['value']:.4f}{star} [{found['low']:.4f}, {found['high']:.4f}]"


def _verdict(entry: Mapping[str, Any], against: str, metrics: list[str]) -> str:
    """Which models are above the better GRU4Rec, and which of them by more than chance; nothing without one."""
    if not against.startswith("gru4rec"):
        return ""
    parts = []
    for metric in reversed(metrics):
        above = [
            f"{model}{'*' if own[metric]['difference']['p'] < 0.05 else ''}"
            for model, own in entry["models"].items()
            if "difference" in own[metric] and own[metric]["difference"]["value"] > 0
        ]
        if above:
            parts.append(f"at {metric_name(metric)} {', '.join(above)}")
    if not parts:
        return f"No other model beats the better GRU4Rec here, {against}."
    return f"Above the better GRU4Rec here, {against}: {'; '.join(parts)}."


def audits_text(audits: Mapping[str, Mapping[str, Any]], logs: Mapping[str, str], commands: Mapping[str, str]) -> str:
    """docs/audits.md.

    Args:
        audits: What `scripts/audit.py` wrote, by audit.
        logs: Log of each audit.
        commands: Command of each audit.
    """
    parts = [
        "# What hangs on a choice\n\nAudits of models on public logs (docs/results.md has the fits). In brackets are "
        "95 % intervals by bootstrap over sessions.\n"
    ]
    for name, audit in audits.items():
        parts.append(f"## {audit['title']}\n\nOn `{logs[name]}`:\n\n```\n{commands[name]}\n```\n")
        parts.append(f"![{audit['title']}](figures/audit_{name}.png)\n")
        for metric, by_model in audit["values"].items():
            ordered = sorted(by_model.items(), key=lambda item: -item[1][0][0])
            rows = [[model, *(f"{v:.4f} [{low:.4f}, {high:.4f}]" for v, low, high in own)] for model, own in ordered]
            parts.append(Table([metric_name(metric), *audit["conditions"]], rows).markdown() + "\n")
        parts.append("\n".join(f"- {remark}" for remark in audit["remarks"]) + "\n")
    return "\n".join(parts)
