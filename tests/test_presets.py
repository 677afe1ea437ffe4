"""The shipped presets read the six public logs as they are downloaded, here in small, and prepare them as published."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import ROOT

from sessrec import fit, prepare, test
from sessrec.cli import SessRecCLI
from sessrec.data.preparation import PreparedLog

CONFIGS = ROOT / "configs"
DAY = 86400
Row = tuple[int, str, float, str]  # session or visitor, item as a letter, seconds after the split, kind of event

TABLE: dict[str, dict[str, Any]] = {  # published, for the constrained embedding, 2048 samples and 10 epochs
    "rsc15": {
        "layers": [100], "loss": "cross-entropy", "batch_size": 32, "dropout_p_embed": 0.1, "dropout_p_hidden": 0.0,
        "learning_rate": 0.1, "momentum": 0.0, "sample_alpha": 0.75, "logq": 1.0,
    },
    "yoochoose": {
        "layers": [480], "loss": "cross-entropy", "batch_size": 48, "dropout_p_embed": 0.0, "dropout_p_hidden": 0.2,
        "learning_rate": 0.07, "momentum": 0.0, "sample_alpha": 0.2, "logq": 1.0,
    },
    "rees46": {
        "layers": [512], "loss": "cross-entropy", "batch_size": 240, "dropout_p_embed": 0.45, "dropout_p_hidden": 0.0,
        "learning_rate": 0.065, "momentum": 0.0, "sample_alpha": 0.5, "logq": 1.0,
    },
    "coveo": {
        "layers": [512], "loss": "bpr-max", "batch_size": 144, "dropout_p_embed": 0.35, "dropout_p_hidden": 0.0,
        "learning_rate": 0.05, "momentum": 0.4, "sample_alpha": 0.2, "bpreg": 1.85, "elu_param": 1.0,
    },
    "retailrocket": {
        "layers": [224], "loss": "bpr-max", "batch_size": 80, "dropout_p_embed": 0.5, "dropout_p_hidden": 0.05,
        "learning_rate": 0.05, "momentum": 0.4, "sample_alpha": 0.4, "bpreg": 1.95, "elu_param": 0.5,
    },
    "diginetica": {
        "layers": [512], "loss": "bpr-max", "batch_size": 128, "dropout_p_embed": 0.5, "dropout_p_hidden": 0.3,
        "learning_rate": 0.05, "momentum": 0.15, "sample_alpha": 0.3, "bpreg": 0.9, "elu_param": 1.0,
    },
}  # fmt: skip

NUMBERS = {letter: str(214536500 + 7 * number) for number, letter in enumerate("abcdefrxz")}
HASHES = {letter: hashlib.sha256(letter.encode()).hexdigest() for letter in NUMBERS}


def spread(session: int, items: str, start: float, step: float = 60, kind: str = "view") -> list[Row]:
    return [(session, item, start + step * number, kind) for number, item in enumerate(items)]


def story(days: int) -> list[Row]:
    """Sessions around a split ``days`` before the last event, a trap in each.

    Repeats go first: sessions 1, 9 and 17 lose 4 events. r has 4 events, f 5 of which one is a repeat: both are rare.
    d has 5 until session 5 is left with d alone, so that d goes one round later, and session 8 with it. In session 3
    the two c meet after the repeats were dropped, and stay. Session 17 is one event, and not the end of the log.
    """
    end = days * DAY
    rows = spread(1, "aabbc", -9 * 3600) + spread(2, "abca", -8 * 3600) + spread(3, "crc", -7 * 3600)
    rows += spread(4, "rar", -6 * 3600) + spread(5, "rd", -5.5 * 3600) + spread(18, "c", -5.25 * 3600)
    rows += spread(7, "dadb", -5 * 3600) + spread(8, "dcd", -4.5 * 3600)
    rows += spread(9, "ffbf", -4 * 3600) + spread(10, "fafc", -3 * 3600)
    rows += spread(11, "abc", -1200, 900)  # the tail c lies behind the split
    rows += spread(12, "ab", -60, 120)  # the head is one event
    rows += spread(13, "ba", 0)  # at the split itself
    rows += spread(14, "zazcz", 3600) + spread(15, "zbz", 7200)  # z is in the test part only
    return rows + spread(16, "cb", end - 60) + spread(17, "aa", end + 2 * DAY)


STORY_TRAIN = {"1": "abc", "2": "abca", "3": "cc", "7": "ab", "10": "ac", "11": "ab"}
STORY_TEST = {"13": "ba", "14": "ac", "16": "cb"}
STORY_CLEANED = {"events_dropped_repeats": 4, "events_dropped_of_rare_items": 12, "events_dropped_in_short_sessions": 6}


def write(name: str, rows: list[Row], line: Callable[..., str], header: str | None = None) -> Path:
    """Write rows as lines of a file of data/, the last row first."""
    file = Path("data", name)
    file.parent.mkdir(exist_ok=True)
    lines = ([] if header is None else [header]) + [line(*row) for row in reversed(rows)]
    file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return file


def preset(name: str) -> str:
    return str(CONFIGS / "data" / f"{name}.yaml")


def prepared(name: str, *extra: str) -> PreparedLog:
    """The log as `python -m sessrec.prepare` prepares it by the preset, which names the file."""
    cli = SessRecCLI("prepare", ["--config", preset(name), "--data.cache_dir", "null", *extra])
    return cli.build_model_and_data()[1].prepare()


def sequences(log: PreparedLog, part: str, ids: dict[str, str]) -> dict[str, str]:
    """Items of each session of a part as letters, by session id, in session order."""
    letters = {item_id: letter for letter, item_id in ids.items()}
    sessions = log.sessions[part]
    assert sessions.session_ids is not None
    return {
        session_id: "".join(letters[log.vocabulary.item_ids[item]] for item in sessions[number].tolist())
        for number, session_id in enumerate(sessions.session_ids.to_pylist())
    }


def assert_figures(log: PreparedLog, section: str, figures: dict[str, int]) -> None:
    found = log.report.sections[section]
    assert {name: found[name] for name in figures} == figures


def assert_not_as_published(log: PreparedLog, *texts: str) -> None:
    """Counts of a small log are none of those published, and the report says so, once for each."""
    warnings = [warning for warning in log.report.warnings if "published" in warning]
    assert len(warnings) == len(texts) == len(log.report.sections["expected"])
    for warning, text in zip(warnings, texts, strict=True):
        assert warning.startswith(text)
    assert all("not as published" in str(line) for line in log.report.sections["expected"].values())


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def iso_milliseconds(start: str) -> Callable[[float], str]:
    return lambda seconds: str(np.datetime64(start, "ms") + np.timedelta64(round(1000 * seconds), "ms")) + "Z"


def milliseconds(start: int) -> Callable[[float], int]:
    return lambda seconds: start + round(1000 * seconds)


# -- RSC15 ------------------------------------------------------------------------------------------------------------

RSC15 = [
    *spread(1, "abab", -9 * 3600),
    *spread(2, "aabc", -8 * 3600),  # the repeat stays
    *spread(3, "ccca", -7 * 3600),
    *spread(4, "rd", -6 * 3600),  # r has 4 events; d alone is short, which leaves d with 4 events
    *spread(5, "rbcr", -5 * 3600),
    *spread(6, "rb", -4 * 3600),
    *spread(7, "e", -3 * 3600),  # short sessions go first, which leaves e with 4 events
    *spread(8, "dede", -2.5 * 3600),
    *spread(9, "eded", -2 * 3600),
    *spread(10, "ab", -60, 120),  # straddles: all of it is in the test part
    *spread(11, "bc", -1800, 1800),  # ends at the split itself: test
    *spread(12, "ca", -1800.001, 1800),  # ends a millisecond before it: train
    *spread(13, "azbz", 3600),  # z has 5 events, all in the test part
    *spread(14, "zzzc", 7200),
    *spread(15, "ba", DAY - 60),
    *spread(16, "a", 2 * DAY),  # dropped before the last time is taken
]


def rsc15_line(session: int, item: str, seconds: float, kind: str) -> str:
    category = {"a": "0", "b": "S", "c": "12"}.get(item, "2089538032")
    return f"{session},{iso_milliseconds('2014-09-29T02:59:59.277')(seconds)},{NUMBERS[item]},{category}"


def test_rsc15() -> None:
    """One pass of cleaning: d stays with 4 events."""
    file = write("yoochoose-clicks.dat", RSC15, rsc15_line)
    assert file.read_text().splitlines()[-1] == "1,2014-09-28T17:59:59.277Z,214536500,0"
    log = prepared("rsc15")
    train = {"1": "abab", "2": "aabc", "3": "ccca", "5": "bc", "8": "dd", "9": "dd", "12": "ca"}
    assert list(sequences(log, "train", NUMBERS).items()) == list(train.items())
    assert list(sequences(log, "test", NUMBERS).items()) == [("11", "bc"), ("10", "ab"), ("13", "ab"), ("15", "ba")]
    assert set(log.sessions) == {"train", "test"}
    dropped = {"events_dropped_repeats": 0, "events_dropped_of_rare_items": 8, "events_dropped_in_short_sessions": 4}
    assert_figures(log, "cleaned", dropped)
    assert_figures(log, "test cut", {"straddling_sessions": 2})
    assert_figures(log, "test", {"unknown_events": 5, "unknown_items": 1, "short_sessions": 1})
    assert_not_as_published(
        log,
        "train sessions: 7 here, 7966257 published",
        "train events: 20 here, 31637239 published",
        "train items: 4 here, 37483 published",
        "test sessions: 4 here, 15324 published",
        "test events: 8 here, 71222 published",
    )
    to_the_end = prepared("rsc15", "--data.filter_passes", "null")
    assert list(sequences(to_the_end, "train", NUMBERS)) == ["1", "2", "3", "5", "12"]  # without d


def test_yoochoose1_64() -> None:
    """The newest positions, counted by hand: half of 13, for which the oldest session loses its tail."""
    write("yoochoose-clicks.dat", RSC15, rsc15_line)
    log = prepared("yoochoose1_64", "--data.train_ratio", "0.5")
    train = {"3": "ccc", "5": "bc", "8": "dd", "9": "dd", "12": "ca"}
    assert list(sequences(log, "train", NUMBERS).items()) == list(train.items())
    assert log.sessions["train"].n_positions == 6
    assert_figures(log, "train window", {"sessions_before": 2, "events_before": 9})
    assert list(sequences(log, "test", NUMBERS).items()) == [("11", "bc"), ("10", "ab"), ("13", "ab"), ("15", "ba")]
    assert_not_as_published(
        log,
        "train positions: 6 here, 369859 published",
        "test sessions before: 5 here, 15324 published",
        "test events before: 14 here, 71222 published",
    )


# -- the protocol of 2023 ---------------------------------------------------------------------------------------------


def test_yoochoose() -> None:
    rows = story(days=1)
    clicks = write("yoochoose-clicks.dat", [row for row in rows if row[0] <= 10], rsc15_line)
    write("yoochoose-test.dat", [row for row in rows if row[0] > 10], rsc15_line)
    assert clicks.read_text().splitlines()[-1] == "1,2014-09-28T17:59:59.277Z,214536500,0"
    log = prepared("yoochoose")
    assert list(sequences(log, "train", NUMBERS).items()) == list(STORY_TRAIN.items())
    assert list(sequences(log, "test", NUMBERS).items()) == list(STORY_TEST.items())
    assert_figures(log, "read", {"files": 2, "rows": len(rows)})
    assert_figures(log, "cleaned", STORY_CLEANED)
    assert_figures(log, "test cut", {"straddling_sessions": 2, "events_of_short_heads": 1, "shared_sessions": 0})
    assert_figures(log, "test cut", {"train_events_at_or_after_t": 0, "items_only_in_test": 1})
    assert_figures(log, "test", {"unknown_events": 5, "unknown_items": 1, "short_sessions": 1, "short_events": 1})
    assert_not_as_published(log, "train positions: 9 here, 21.509M published")
    prepare.main(["--config", preset("yoochoose"), "--report_dir", "report"])  # the whole command, with its figures
    assert "21.509M published" in Path("report/data_report.json").read_text()


def visits() -> list[Row]:
    """Visits cut where more than an hour passes."""
    rows = spread(20, "ab", -40000, 3600)  # an hour is no gap
    rows += spread(20, "ca", -40000 + 3600 + 3601)  # a second more is one
    rows += spread(22, "ab", -30000, 6000)  # two sessions of one event
    rows += spread(23, "a", -20000) + spread(23, "a", -19950, kind="cart") + spread(23, "ac", -19900)  # a repeat
    return rows + spread(1, "ac", 10000)  # a visitor of the training part comes again


VISITS_TRAIN = {"20_1": "ab", "20_2": "ca", "23_1": "ac"}


def bridge() -> list[Row]:
    """An event between two views, neither of which is an hour away from it."""
    return spread(21, "a", -15000) + spread(21, "a", -12000, kind="cart") + spread(21, "b", -9000)


def assert_visits(log: PreparedLog, train: dict[str, str]) -> None:
    assert sequences(log, "train", NUMBERS) == {f"{visitor}_1": items for visitor, items in STORY_TRAIN.items()} | train
    test = {f"{visitor}_1": items for visitor, items in STORY_TEST.items()} | {"1_2": "ac"}
    assert sequences(log, "test", NUMBERS) == test


def retailrocket_line(visitor: int, item: str, seconds: float, kind: str) -> str:
    event, transaction = {"cart": "addtocart", "buy": "transaction"}.get(kind, kind), "4000" if kind == "buy" else ""
    return f"{milliseconds(1441940387788)(seconds)},{visitor},{event},{NUMBERS[item]},{transaction}"


def retailrocket_rows() -> list[Row]:
    late = spread(24, "xx", 10 * DAY, kind="cart") + spread(24, "x", 10 * DAY + 120, kind="buy")  # no view
    return story(days=7) + visits() + bridge() + spread(21, "b", -8900, kind="buy") + late


RETAILROCKET_HEADER = "timestamp,visitorid,event,itemid,transactionid"


def test_retailrocket() -> None:
    """Other events than views keep a session together, and are then removed."""
    file = write("events.csv", retailrocket_rows(), retailrocket_line, RETAILROCKET_HEADER)
    assert file.read_text().splitlines()[1] == f"1442804507788,24,transaction,{NUMBERS['x']},4000"
    log = prepared("retailrocket")
    assert_visits(log, VISITS_TRAIN | {"21_1": "ab"})
    assert_figures(log, "read", {"rows_of_other_events": 6, "cuts_at_gaps": 3, "visitors_or_sessions": 22})
    cleaned = {"events_dropped_repeats": 5, "events_dropped_of_rare_items": 12, "events_dropped_in_short_sessions": 8}
    assert_figures(log, "cleaned", cleaned)
    assert_figures(log, "test", {"unknown_events": 5, "short_sessions": 1})
    assert_not_as_published(
        log, "train positions: 13 here, 554.0k published", "test positions: 4 here, 20952 published"
    )


def rees46_line(user: int, item: str, seconds: float, kind: str) -> str:
    """A visitor's sessions in the log change with every event of visitor 2, stay over the gap of 20, and lack at 23."""
    time = str(np.datetime64("2019-11-29T23:59:59") + np.timedelta64(round(seconds), "s")).replace("T", " ")
    number = round(seconds) % 1000 if user == 2 else user
    session = "" if user == 23 else f"72d76fde-8bb3-4e00-8c23-a032dfed{number:04d}"
    category, brand = ("", "") if item in "ab" else ("electronics.smartphone", "samsung")
    return f"{time} UTC,{kind},{NUMBERS[item]},2053013555631882655,{category},{brand},130.76,{user},{session}"


REES46_HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
NOVEMBER = -29 * DAY + 1  # its first second, after the split


def rees46_files(rows: list[Row]) -> tuple[Path, Path]:
    october = [row for row in rows if row[2] < NOVEMBER]
    november = [row for row in rows if row[2] >= NOVEMBER]
    return (
        write("2019-Oct.csv", october, rees46_line, REES46_HEADER),
        write("2019-Nov.csv", november, rees46_line, REES46_HEADER),
    )


def rees46_rows() -> list[Row]:
    """With a visit from one month into the next, one in October, and purchases after the last view."""
    rows = story(days=1) + visits() + spread(25, "ab", NOVEMBER - 600, 1200) + spread(26, "bc", NOVEMBER - 20 * DAY)
    return rows + spread(24, "xx", 2 * DAY, kind="purchase")


REES46_TRAIN = VISITS_TRAIN | {"25_1": "ab", "26_1": "bc"}


def test_rees46() -> None:
    october, november = rees46_files(rees46_rows())
    assert october.read_text().splitlines()[1:] == [
        "2019-10-12 00:01:00 UTC,view,214536514,2053013555631882655,electronics.smartphone,samsung,130.76,26,"
        "72d76fde-8bb3-4e00-8c23-a032dfed0026",
        "2019-10-12 00:00:00 UTC,view,214536507,2053013555631882655,,,130.76,26,72d76fde-8bb3-4e00-8c23-a032dfed0026",
        "2019-10-31 23:50:00 UTC,view,214536500,2053013555631882655,,,130.76,25,72d76fde-8bb3-4e00-8c23-a032dfed0025",
    ]
    assert "2019-11-01 00:10:00 UTC" in november.read_text()
    log = prepared("rees46")
    assert_visits(log, REES46_TRAIN)
    assert_figures(log, "read", {"files": 2, "rows_of_other_events": 3, "cuts_at_gaps": 3, "visitors_or_sessions": 22})
    cleaned = {"events_dropped_repeats": 5, "events_dropped_of_rare_items": 12, "events_dropped_in_short_sessions": 8}
    assert_figures(log, "cleaned", cleaned)
    assert_not_as_published(log, "train positions: 14 here, 57.385M published")
    zipped = []
    for file in (october, november):
        zipped.append(f"data/{file.name}.gz")
        Path(zipped[-1]).write_bytes(gzip.compress(file.read_bytes()))
    assert_visits(prepared("rees46", "--data.path", f"[{', '.join(zipped)}]"), REES46_TRAIN)


def test_rees46_cuts_at_gaps_between_views() -> None:
    """The published preprocessing of Rees46, other than that of RetailRocket, keeps the views first."""
    rees46_files(rees46_rows() + bridge())
    assert_visits(prepared("rees46"), REES46_TRAIN)


def diginetica_line(session: int, item: str, seconds: float, kind: str) -> str:
    """The day, and milliseconds whose order as numbers is not that as text."""
    day = np.datetime64("2016-05-25") + np.timedelta64(math.floor(seconds / DAY), "D")
    first = min(row[2] for row in story(days=7) if row[0] == session)
    user = "NA" if session % 3 else str(1000 + session)
    return f"{session};{user};{NUMBERS[item]};{9500 + round(1000 * (seconds - first))};{day}"


def test_diginetica() -> None:
    header = "sessionId;userId;itemId;timeframe;eventdate"
    file = write("train-item-views.csv", story(days=7), diginetica_line, header)
    assert file.read_text().splitlines()[-2:] == ["1;NA;214536500;69500;2016-05-24", "1;NA;214536500;9500;2016-05-24"]
    log = prepared("diginetica")
    assert sequences(log, "train", NUMBERS) == STORY_TRAIN
    assert sequences(log, "test", NUMBERS) == STORY_TEST
    assert_figures(log, "cleaned", STORY_CLEANED)
    assert_figures(log, "test cut", {"straddling_sessions": 2, "events_of_short_heads": 1})
    assert_figures(log, "test", {"unknown_events": 5, "short_sessions": 1})
    assert_not_as_published(log, "train positions: 9 here, 655.4k published")


def hashed(session: int | str) -> str:
    return hashlib.sha256(f"session {session}".encode()).hexdigest()


def coveo_line(session: int, item: str, seconds: float, kind: str) -> str:
    kind = "detail" if kind == "view" else kind
    product = "pageview,," if kind == "page" else f"event_product,{kind},{HASHES[item]}"
    return f"{hashed(session)},{product},{milliseconds(1554465600123)(seconds)},{hashed(item)}"


def test_coveo() -> None:
    rows = story(days=7) + spread(1, "x", -9 * 3600 + 90, kind="page") + spread(13, "xx", -300, 30, kind="page")
    rows += spread(23, "a", -20000) + spread(23, "a", -19950, kind="add") + spread(23, "ac", -19900)  # a repeat
    rows += spread(23, "a", -19800, kind="remove") + spread(23, "c", -19700, kind="purchase")
    rows += spread(24, "xxx", 9 * DAY, kind="page")
    header = "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url"
    file = write("browsing_train.csv", rows, coveo_line, header)
    assert file.read_text().splitlines()[1] == f"{hashed(24)},pageview,,,1555243320123,{hashed('x')}"
    log = prepared("coveo")
    train = {hashed(session): items for session, items in STORY_TRAIN.items()} | {hashed(23): "ac"}
    assert sequences(log, "train", HASHES) == train
    assert sequences(log, "test", HASHES) == {hashed(session): items for session, items in STORY_TEST.items()}
    assert_figures(log, "read", {"rows_with_empty_event": 6, "rows_with_empty_item": 6, "rows_of_other_events": 3})
    assert_figures(log, "cleaned", STORY_CLEANED | {"events_dropped_repeats": 5})
    assert_figures(log, "test cut", {"straddling_sessions": 2, "events_of_short_heads": 1})
    assert_not_as_published(log, "train positions: 10 here, 1.2456M published")


# -- presets and training configs -------------------------------------------------------------------------------------


def test_presets_hold_data_options_only() -> None:
    assert {file.stem for file in (CONFIGS / "data").glob("*.yaml")} >= set(TABLE)
    for name in TABLE:
        content = yaml.safe_load(Path(preset(name)).read_text(encoding="ascii"))
        assert set(content) == {"data"}
        assert content["data"]["val_duration"] == 0  # the whole training part is fitted, as published


def test_tuning_pair_by_the_same_rule() -> None:
    """The validation part is the day before the last training event, which is 300 seconds before the split."""
    rows = story(days=1) + spread(30, "abc", -DAY - 1500, 700) + spread(31, "ca", -DAY - 7200)
    file = write("all.dat", rows, rsc15_line)
    log = prepared("yoochoose", "--data.path", str(file), "--data.val_duration", "1d")
    assert sequences(log, "train", NUMBERS) == {"31": "ca", "30": "ab"}
    assert sequences(log, "val", NUMBERS) == STORY_TRAIN
    assert sequences(log, "test", NUMBERS) == STORY_TEST


@pytest.mark.parametrize("name", TABLE)
def test_training_config_has_the_published_numbers(name: str) -> None:
    content = yaml.safe_load((CONFIGS / f"gru4rec_{name}.yaml").read_text(encoding="ascii"))
    row = dict(TABLE[name])
    assert content == {
        "model": {
            "class_path": "GRU4Rec",
            "init_args": {
                "constrained_embedding": True,
                "n_sample": 2048,
                **{key: value for key, value in row.items() if key != "batch_size"},
            },
        },
        "data": {"batch_size": row["batch_size"]},
        "trainer": {"max_epochs": 10},
    }


def test_training_config_and_preset_combine(capsys: pytest.CaptureFixture[str]) -> None:
    file = write("tiny.csv", retailrocket_rows(), retailrocket_line, RETAILROCKET_HEADER)
    configs = ["--config", str(CONFIGS / "gru4rec_retailrocket.yaml"), "--config", preset("retailrocket")]
    quick = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    fit.main([*configs, "--data.path", str(file), "--model.n_sample", "8", *quick])
    run = Path("lightning_logs/gru4rec-1")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt"}
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["data"]["batch_size"], saved["data"]["visitor_column"]) == (80, "visitorid")
    assert (saved["model"]["init_args"]["layers"], saved["model"]["init_args"]["n_sample"]) == ([224], 8)
    assert "13 here, 554.0k published" in capsys.readouterr().out
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    assert "test of GRU4Rec" in capsys.readouterr().out
