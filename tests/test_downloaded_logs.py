"""The presets of logs without a published preprocessing read them as they are downloaded, here in small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from helpers import ROOT

from sessrec.cli import SessRecCLI
from sessrec.data.preparation import PreparedLog

CASES = ROOT / "tests" / "cases"
WHOLE = ("--data.min_item_support", "1", "--data.test_ratio", "0", "--data.test_duration", "null")
WHOLE += ("--data.val_ratio", "0", "--data.val_duration", "0")

TRIVAGO = """\
user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices
0RL8Z82B2Z1,aff3928535f48,1541037460,1,search for poi,Newtown,AU,"Sydney, Australia",mobile,,,
0RL8Z82B2Z1,aff3928535f48,1541037522,2,interaction item image,666856,AU,"Sydney, Australia",mobile,,,
0RL8Z82B2Z1,aff3928535f48,1541037522,3,interaction item image,666856,AU,"Sydney, Australia",mobile,,,
0RL8Z82B2Z1,aff3928535f48,1541037532,5,clickout item,109038,AU,"Sydney, Australia",mobile,Pool,340|109038,95|66
0RL8Z82B2Z1,aff3928535f48,1541037532,4,interaction item deals,1257342,AU,"Sydney, Australia",mobile,,,
0RL8Z82B2Z1,aff3928535f48,1541037542,6,interaction item info,unknown,AU,"Sydney, Australia",mobile,,,
0RL8Z82B2Z1,aff3928535f48,1541037542,7,filter selection,Focus on Distance,AU,"Sydney, Australia",mobile,,,
0BQ6ZM4GJ15,3d2b0f5a1c9e7,1541040001,1,search for item,unknown,BR,"São Paulo, Brazil",desktop,,,
0BQ6ZM4GJ15,3d2b0f5a1c9e7,1541040003,2,interaction item rating,109038,BR,"São Paulo, Brazil",desktop,,,
0BQ6ZM4GJ15,3d2b0f5a1c9e7,1541040005,3,interaction item info,1257342,BR,"São Paulo, Brazil",desktop,,,
0BQ6ZM4GJ15,3d2b0f5a1c9e7,1541040009,4,clickout item,666856,BR,"São Paulo, Brazil",desktop,,666856|109038,40|50
0BQ6ZM4GJ15,3d2b0f5a1c9e7,1541040020,5,change of sort order,interaction sort button,BR,"São Paulo, Brazil",desktop,,,
"""
A, B, C = (f"{letter * 8}-bd35-4e99-8624-24a6e15f133a" for letter in "abc")
LASTFM = f"""\
user_000001\t2009-05-04T23:08:57Z\t{B}\tDeep Dish\t\tFuck It (Pacha Ibiza)-09-28-2007
user_000001\t2009-05-04T13:54:10Z\t{A}\t坂本龍一\t\t"Heroes
user_000001\t2009-05-04T13:52:04Z\t\tThe "Unknown" One\t\tMc2 (Live_2009_4_15)
user_000001\t2009-05-04T13:42:52Z\t{A}\t坂本龍一\t{C}\tHibari (Live_2009_4_15)
user_000001\t2009-05-04T05:42:52Z\t{C}\tAnother\t{B}\t
user_000001\t2009-05-04T05:42:51Z\t{B}\tDeep Dish\t{B}\t"quoted"
user_000002\t2009-04-01T00:00:00Z\t{C}\tAnother\t\tx
user_000002\t2009-04-01T08:00:00Z\t{A}\t坂本龍一\t\ty
user_000002\t2009-04-01T16:00:01Z\t{C}\tAnother\t\tz
"""
RATINGS = [
    (1, 1193, 5, 978300760), (1, 661, 3, 978302109), (1, 914, 3, 978301968), (1, 3408, 4, 978300275),
    (1, 2355, 5, 978824291), (2, 661, 5, 978298413), (2, 1193, 5, 978220179), (2, 3408, 4, 978299279),
    (2, 914, 4, 978298625), (2, 2355, 3, 978299200), (3, 661, 4, 978197000), (3, 914, 3, 978197001),
]  # fmt: skip
RATED = {"2": ["1193", "661", "914", "2355", "3408"], "1": ["3408", "1193", "914", "661", "2355"]}  # 3 rated two


class Log(NamedTuple):
    """A log in its raw form, and what its preset makes of it."""

    preset: str
    content: str | Path
    sessions: dict[str, list[str]]
    figures: dict[str, Any]
    options: tuple[str, ...] = ()


LOGS = {
    "otto": Log(
        "otto",
        CASES / "104" / "otto.jsonl",
        {"1": ["101", "102", "103"], "2": ["102", "103"], "3": ["101", "103", "102"], "4": ["103", "101"]},
        {"lists": 4, "rows": 10, "rows_of_other_events": 0},
    ),
    "clicks of otto": Log(
        "otto",
        CASES / "104" / "otto.jsonl",
        {"1": ["101", "103"], "2": ["102", "103"], "3": ["101", "103"], "4": ["103", "101"]},
        {"rows_of_other_events": 2, "note_2": "rows of other events: 1 carts, 1 orders"},
        ("--data.events", "[clicks]"),
    ),
    "trivago": Log(
        "trivago",
        TRIVAGO,
        {"aff3928535f48": ["666856", "1257342", "109038"], "3d2b0f5a1c9e7": ["109038", "1257342", "666856"]},
        {"rows": 12, "rows_with_empty_item": 2, "rows_of_other_events": 3},
    ),
    "case 106": Log(
        "mind",
        CASES / "106" / "behaviors.tsv",
        {"U1": ["N101", "N102", "N103"], "U2": ["N102", "N103"], "U3": ["N101", "N103", "N102"]},
        {"lists": 5, "empty_lists": 1, "earlier_lists": 2, "note_3": "2 rows held earlier states of a session's list"},
    ),
    "lastfm": Log(
        "lastfm_1k",
        LASTFM,
        {"user_000002_1": [C, A], "user_000001_1": [B, C, A], "user_000001_2": [B]},
        {"rows": 9, "rows_with_empty_item": 1, "cuts_at_gaps": 2, "visitors_or_sessions": 2},
    ),
    "case 107": Log(
        "amazon_m2",
        CASES / "107" / "sessions_train.csv",
        {"1": ["101", "102", "103"], "2": ["102", "103"], "3": ["101", "103", "102", "104"], "4": ["103", "101"]},
        {"lists": 4, "rows": 11},
    ),
    "case 107, one locale": Log(
        "amazon_m2",
        CASES / "107" / "sessions_train.csv",
        {"1": ["101", "102", "103"], "2": ["102", "103"]},
        {"note_2": "rows of other events: 4 JP, 2 UK"},
        ("--data.event_column", "locale", "--data.events", "[DE]"),
    ),
    "ratings.csv": Log(
        "movielens",
        "".join(",".join(map(str, row)) + "\r\n" for row in [("userId", "movieId", "rating", "timestamp"), *RATINGS]),
        RATED,
        {"rows": 12},
    ),
    "ratings.dat": Log(
        "movielens_dat", "".join("::".join(map(str, row)) + "\n" for row in RATINGS), RATED, {"rows": 12}
    ),
    "u.data": Log("movielens_dat", "".join("\t".join(map(str, row)) + "\n" for row in RATINGS), RATED, {"rows": 12}),
}


def prepared(preset: str, *options: str) -> PreparedLog:
    config = str(ROOT / "configs" / "data" / f"{preset}.yaml")
    return (
        SessRecCLI("prepare", ["--config", config, "--data.cache_dir", "null", *options])
        .build_model_and_data()[1]
        .prepare()
    )


@pytest.mark.parametrize("name", LOGS)
def test_preset_reads_the_raw_form(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the very name that the preset gives, whole: nothing cut off for a test, and no item too rare."""
    monkeypatch.chdir(tmp_path)
    log = LOGS[name]
    content = yaml.safe_load((ROOT / "configs" / "data" / f"{log.preset}.yaml").read_text(encoding="ascii"))
    assert set(content) == {"data"}
    file = Path(content["data"]["path"])
    file.parent.mkdir()
    if isinstance(log.content, Path):
        shutil.copy(log.content, file)
    else:
        file.write_text(log.content, encoding="utf-8", newline="")
    found = prepared(log.preset, *WHOLE, *log.options)
    sessions, ids = found.sessions["train"], found.vocabulary.item_ids
    assert sessions.session_ids is not None
    sequences = {
        session: [ids[item] for item in sessions[number].tolist()]
        for number, session in enumerate(sessions.session_ids.to_pylist())
    }
    usable = {session: items for session, items in log.sessions.items() if len(items) > 1}
    assert list(sequences.items()) == list(usable.items())
    read = found.report.sections["read"]
    assert {figure: read.get(figure) for figure in log.figures} == log.figures


def test_every_preset_has_its_raw_form_here_or_in_test_presets() -> None:
    published = {"rsc15", "yoochoose", "yoochoose1_64", "rees46", "coveo", "retailrocket", "diginetica"}
    names = {file.stem for file in (ROOT / "configs" / "data").glob("*.yaml")}
    assert names == published | {log.preset for log in LOGS.values()}
