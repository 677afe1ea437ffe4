"""Pictures that explain: their texts against what was worked out by hand, and their layout against itself."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import make_sessions, make_vocabulary, random_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from sessrec.data.preparation import Preparation
from sessrec.data.report import DataReport
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.figures.batch_diagrams import protocol_figure, session_parallel_figure, traditional_figure
from sessrec.figures.diagrams import architecture_figure, pipeline_figure
from sessrec.figures.drawing import shortened, text_width, wrapped
from sessrec.figures.style import save_figure
from sessrec.models.gru4rec import GRU4Rec

LETTERS = "abcdefghijklmn"
WORDS = ("abcd", "ef", "ghi", "jk", "lmn")
LONG = "https://shop.example/item/$x_{1}$\n-"


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def lines(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def whole(figure: Figure) -> str:
    return " ".join(lines(figure))


def check_layout(figure: Figure) -> None:
    """No text meets another or leaves the figure, none is small, and the figure has a width for print."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = texts(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in shown]
    left, low, right, high = np.array([box.extents for box in boxes]).T
    meets = (np.minimum.outer(right, right) > np.maximum.outer(left, left)) & (
        np.minimum.outer(high, high) > np.maximum.outer(low, low)
    )
    np.fill_diagonal(meets, False)
    assert not meets.any(), [shown[number] for number in np.flatnonzero(meets.any(axis=0))]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in zip(shown, boxes, strict=True):
        assert 0 <= box.x0 < box.x1 <= width, text
        assert 0 <= box.y0 < box.y1 <= height, text
        assert text.get_fontsize() >= 8, text
    assert 7 <= figure.get_size_inches()[0] <= 11


def model_of(n_items: int = 50, **options: object) -> GRU4Rec:
    model = GRU4Rec(**options)  # type: ignore[arg-type]
    model.set_vocabulary(make_vocabulary(n_items))
    return model


# -- architecture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers": [8]}, ["constrained embedding", "50 × 8 = 400 weights and 50 biases", "432 weights"]),
        (
            {"layers": [8, 6, 4], "constrained_embedding": False, "embedding": 5},
            # 3 gates, each with inputs, states and two biases
            ["separate embedding", "50 × 5 = 250 weights", "360 weights", "288 weights", "144 weights", "50 × 4 = 200"],
        ),
        (
            {"layers": [8, 6], "constrained_embedding": False},
            ["no embedding", "50 × 24 = 1,200 weights", "216 weights", "288 weights", "50 × 6 = 300 weights"],
        ),
    ],
)
def test_sizes_of_the_architecture(options: dict, expected: list[str]) -> None:
    model = model_of(**options)
    figure = architecture_figure(model)
    check_layout(figure)
    for words in expected:
        assert words in whole(figure)
    total = sum(weight.numel() for weight in model.parameters())
    assert f"and {total:,} weights" in whole(figure)
    parts = [
        int(n.replace(",", "")) for line in lines(figure)[1:] for n in re.findall(r"([\d,]+) (?:weights|biases)", line)
    ]
    assert sum(parts) == total  # each weight is in one box
    assert [f"GRU layer {n}: {units} units" in whole(figure) for n, units in enumerate(model.layers, 1)]
    assert ("one table for both" in whole(figure)) == model.shared_inputs
    assert lines(figure).count("the next event") == len(model.layers)


def test_options_of_the_architecture() -> None:
    shown = whole(architecture_figure(model_of(n_sample=3000, sample_alpha=0.4, logq=0.5)))
    for words in ("3,000 sampled ones", "to the power 0.4", "cross-entropy", "strength 0.5", "p = 0.1"):
        assert words in shown
    assert "no dropout of the output and state" in shown
    options = {"loss": "bpr-max", "bpreg": 1.95, "elu_param": 0.25, "momentum": 0.3, "dropout_p_hidden": 0.05}
    figure = architecture_figure(model_of(**options, n_sample=0, exclude_last=True))
    check_layout(figure)
    for words in ("BPR-max", "1.95", "0.25", "momentum 0.3", "p = 0.05", "exclude_last"):
        assert words in whole(figure)
    assert "sampled ones" not in whole(figure)
    assert "loss: TOP1-max" in whole(architecture_figure(model_of(loss="top1-max")))
    assert "no logQ" in whole(architecture_figure(model_of(logq=0.0)))


def test_a_large_model_fits() -> None:
    figure = architecture_figure(model_of(300_000, layers=[10] * 12, dropout_p_hidden=0.123456, n_sample=1_000_000))
    check_layout(figure)
    with pytest.raises(SessRecError, match="knows no items yet"):
        architecture_figure(GRU4Rec())


# -- pipeline ----------------------------------------------------------------------------------------------------------


def report_of(file: Path, **options: object) -> DataReport:
    return Preparation(path=str(file), **options).run().report  # type: ignore[arg-type]


def test_counts_of_the_pipeline(write_log: Callable[..., Path]) -> None:
    report = report_of(write_log(random_rows()), min_item_support=2, drop_repeats=True)
    figure = pipeline_figure(report, n_lanes=7, cutoffs=(3, 9))
    check_layout(figure)
    content, shown = report.as_dict(), whole(figure)
    for part in ("train", "val", "test"):
        for name in ("events", "sessions", "positions"):
            assert f"{content[part][name]:,} {name[:-1]}" in shown
    for words in ("clicks.tsv", "7 lanes", "Recall, MRR, NDCG at 3, 9", f"N = {content['train']['items']} items"):
        assert words in shown
    assert str(write_log(random_rows()).parent) not in shown
    assert f"{content['log']['events']} events of {content['log']['items']} items" in shown
    assert whole(pipeline_figure(content, n_lanes=7, cutoffs=(3, 9))) == shown  # as in data_report.json


def test_the_pipeline_loses_no_event(write_log: Callable[..., Path]) -> None:
    """Every number that is taken away is shown, so that the picture's sums come out."""
    rows = random_rows(200, n_items=150)
    figure = pipeline_figure(
        report_of(write_log([*rows, ("u", "x", ""), *rows[-9:]]), drop_repeats=True, val_ratio=0.2)
    )
    shown = whole(figure)
    read = int(re.search(r"([\d,]+) events of", shown)[1].replace(",", ""))  # type: ignore[index]
    lost = sum(int(n.replace(",", "")) for n in re.findall(r"− ([\d,]+) ", shown))
    kept = sum(int(n.replace(",", "")) for n in re.findall(r"sessions?, ([\d,]+) events?", shown))
    assert read == len(rows) + 9
    assert lost > 9
    assert kept + lost == read
    assert "1 row not used" in shown


@pytest.mark.parametrize("options", [{"val_ratio": 0}, {"val_ratio": 0, "test_ratio": 0}, {"time_column": None}])
def test_pipeline_of_fewer_parts(write_log: Callable[..., Path], options: dict) -> None:
    report = report_of(write_log(random_rows()), **options)
    figure = pipeline_figure(report)
    check_layout(figure)
    for part in ("val", "test"):
        assert (f"{part} metrics" in whole(figure)) == (part in report.sections)
    del report.sections["train"]
    with pytest.raises(SessRecError, match="no training part"):
        pipeline_figure(report)


def test_pipeline_of_generated_sessions() -> None:
    figures = {"sessions": 1_234_567, "events": 98_765_432, "positions": 97_530_865, "items": 1_000_000}
    part = figures | {"sessions_before": 1_234_567, "events_before": 98_765_432, "unknown_events": 0, "short_events": 1}
    cut = {"events_of_tails": 12_345_678, "events_of_short_heads": 1}
    cut |= {"train_events_at_or_after_t": 0, "shared_sessions": 0}
    dropped = {f"events_dropped_{why}": 1_000_000 for why in ("repeats", "beyond_max_session_length", "of_rare_items")}
    content: dict = {"has_times": True, "cuts": {"val": 1396780643.0, "test": 1396867043.0}}
    content |= {"read": {"source": "synthetic sessions (20,000 over 1,000 items; no --data.path)"}, "log": figures}
    content |= {"cleaned": figures | dropped, "val cut": cut, "test cut": cut, "train": part, "val": part, "test": part}
    figure = pipeline_figure(content)
    check_layout(figure)
    assert "− 24,691,358 events of sessions cut there" in whole(figure)
    assert "val begins 2014-04-06 10:37:23 UTC" in whole(figure)
    assert "synthetic sessions" in whole(figure)


# -- protocol ----------------------------------------------------------------------------------------------------------


def test_metrics_of_the_protocol() -> None:
    """Ranks 2, 25, none and 4 at cutoff 20: two hits of four, (1/2 + 1/4) / 4."""
    top = [["b", "c"], ["c", "a"], ["a", "b"], ["e", "d"]]
    figure = protocol_figure("abcde", top, [2, 25, None, 4.0], n_items=1000)
    check_layout(figure)
    shown = lines(figure)
    assert "Recall@20 = 0.5000" in shown
    assert "MRR@20 = 0.1875" in shown
    assert "The next item is among the top 20 at 2 of 4 positions of this session" in shown
    assert any("(0.500 + 0 + 0 + 0.250) / 4" in line for line in shown)
    assert [line for line in shown if line in ("hit", "miss")] == ["hit", "miss", "miss", "hit"]
    assert "no candidate" in shown
    assert {"2", "25", "4", "0.500", "0.250"} <= {*shown}
    shown = lines(protocol_figure("abcde", top, [2, 2.5, None, 4.0], n_items=1000, cutoff=3))
    assert {"Recall@3 = 0.5000", "MRR@3 = 0.2250", "2.5", "0.400"} <= {*shown}  # (1/2 + 2/5) / 4


@pytest.mark.parametrize("length", [2, 30])
@pytest.mark.parametrize("item", ["%d", LONG + "%d"])
def test_layout_of_the_protocol(length: int, item: str) -> None:
    generator = np.random.default_rng(length)
    ids = [item % number for number in range(2000)]
    session = [ids[number] for number in generator.integers(0, 2000, size=length)]
    top = [[ids[number] for number in row] for row in generator.integers(0, 2000, size=(length - 1, 10))]
    ranks = [None if rank > 90_000 else float(rank) for rank in generator.integers(1, 100_000, size=length - 1)]
    check_layout(protocol_figure(session, top, ranks, n_items=1_000_000, cutoff=1000))


def test_a_protocol_that_does_not_go_together_is_refused() -> None:
    for ids, top, ranks, words in (
        ("a", [], [], "a session of 1 events"),
        ("abc", [["b"]], [1, 2], "1 lists and 2 ranks"),
        ("ab", [["b"]], [0], "from 1 to 9, got 0"),
        ("ab", [["b"]], [10], "from 1 to 9, got 10"),
    ):
        with pytest.raises(SessRecError, match=words):
            protocol_figure(ids, top, ranks, n_items=9)
    with pytest.raises(SessRecError, match="cutoff"):
        protocol_figure("ab", [["b"]], [1], n_items=9, cutoff=0)


# -- session-parallel batches ------------------------------------------------------------------------------------------


def in_columns(figure: Figure, is_wanted: Callable[[str], bool]) -> list[str]:
    """Texts of each column of a picture from left to right, joined from top to bottom."""
    steps = sorted(text.get_position()[0] for text in texts(figure) if text.get_text().startswith("step "))
    columns: list[list[tuple[float, str]]] = [[] for _ in steps]
    for text in texts(figure):
        if is_wanted(text.get_text()):
            x, y = text.get_position()
            columns[int(np.argmin(np.abs(np.array(steps) - x)))].append((y, text.get_text()[-1]))
    return ["".join(letter for _, letter in sorted(column)) for column in columns]


def test_worked_example_of_session_parallel_batches() -> None:
    sessions = make_sessions([[LETTERS.index(letter) for letter in word] for word in WORDS])
    figure = session_parallel_figure(sessions, LETTERS, n_lanes=3)
    check_layout(figure)
    assert in_columns(figure, lambda words: len(words) == 1 and words in LETTERS) == ["aeg", "bjh", "cl", "m"]
    assert in_columns(figure, lambda words: words.startswith("→ ")) == ["bfh", "cki", "dm", "n"]
    assert [words for words in lines(figure) if re.fullmatch("[01]+", words)] == ["111", "010", "01", "0"]
    assert in_columns(figure, lambda words: words.startswith("session ")) == ["123", "4", "5", ""]
    assert lines(figure).count("empty") == 3
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() > 3]
    assert len(bars) == 5  # where a session begins
    assert "5 sessions in 4 steps of 3 lanes" in whole(figure)


def test_colours_of_session_parallel_batches() -> None:
    """Cells of one session have one colour, and neighbours in a lane another."""
    generator = np.random.default_rng(3)
    lengths = generator.integers(2, 6, size=40)
    figure = session_parallel_figure(make_sessions([[0] * length for length in lengths]), ["x"], n_lanes=2, n_steps=12)
    cells = sorted(
        (round(patch.get_y(), 2), patch.get_x(), patch.get_facecolor())
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyBboxPatch)
    )
    bars = [np.ravel(line.get_xydata())[:2] for line in figure.axes[0].lines]
    assert len(cells) == 24
    for (y, _, colour), (other_y, x, other) in itertools.pairwise(cells):
        if y == other_y:
            begins = any(abs(bar_x - x) < 0.1 and 0 < bar_y - y < 0.1 for bar_x, bar_y in bars)
            assert (colour != other) == begins


@pytest.mark.parametrize(("n_lanes", "n_steps"), [(1, 1), (4, 8), (14, 12)])
@pytest.mark.parametrize("item", ["%d", LONG + "%d"])
def test_layout_of_session_parallel_batches(n_lanes: int, n_steps: int, item: str) -> None:
    generator = np.random.default_rng(n_lanes)
    sequences = [generator.integers(0, 2000, size=generator.integers(2, 31)).tolist() for _ in range(90)]
    sessions = make_sessions(sequences)
    check_layout(session_parallel_figure(sessions, [item % n for n in range(2000)], n_lanes, n_steps))


def test_session_parallel_batches_that_cannot_be_drawn() -> None:
    sessions = make_sessions([[0, 1]])
    check_layout(session_parallel_figure(sessions, "ab", n_lanes=3))
    for n_lanes, n_steps in ((0, 8), (4, 0), (25, 8), (4, 13)):
        with pytest.raises(SessRecError, match="1 to 24 lanes and 1 to 12 steps"):
            session_parallel_figure(sessions, "ab", n_lanes, n_steps)
    with pytest.raises(SessRecError, match="no sessions"):
        session_parallel_figure(make_sessions([]), "ab")


# -- traditional and session-based -------------------------------------------------------------------------------------


def test_the_matrix_has_the_items_of_the_sessions() -> None:
    """Sessions bac, cab and bd, and a newcomer whose first click is b, whatever follows."""
    figure = traditional_figure(make_sessions([[1, 0, 2], [2, 0, 1], [1, 3], [1, 0]]), "abcd", n_shown=3)
    check_layout(figure)
    shown = [(text.get_position(), text.get_text()) for text in texts(figure)]
    heads = sorted((x, words) for (x, _), words in shown if words in "abcd" and x < 5)
    assert [words for _, words in heads] == [*"abcd"]
    rows: dict[float, str] = {}
    for (x, y), words in sorted(shown):
        if x > 6 and words in "abcd?":
            rows[round(y, 2)] = rows.get(round(y, 2), "") + words
    assert [rows[y] for y in sorted(rows)] == ["bac?", "cab?", "bd?", "b?"]
    step = heads[1][0] - heads[0][0]
    filled: dict[float, list[int]] = {}
    for patch in figure.axes[0].patches:
        if isinstance(patch, FancyBboxPatch) and patch.get_x() < 5 and patch.get_facecolor()[:3] != (1, 1, 1):
            column = round((patch.get_x() + patch.get_width() / 2 - heads[0][0]) / step)
            filled.setdefault(round(patch.get_y(), 2), []).append(column)
    assert [sorted(filled[y]) for y in sorted(filled)] == [[0, 1, 2], [0, 1, 2], [1, 3]]  # and none of the newcomer
    assert "ranks all 4 items" in whole(figure)


@pytest.mark.parametrize(("longest", "n_shown"), [(4, 20), (30, 6), (30, 1)])
@pytest.mark.parametrize("item", ["%d", LONG + "%d"])
def test_layout_of_the_matrix(longest: int, n_shown: int, item: str) -> None:
    generator = np.random.default_rng(longest)
    sequences = [generator.integers(0, 2000, size=generator.integers(2, longest + 1)).tolist() for _ in range(30)]
    check_layout(traditional_figure(make_sessions(sequences), [item % n for n in range(2000)], n_shown))
    with pytest.raises(SessRecError, match="cannot be shown"):
        traditional_figure(make_sessions(sequences[:6]), [item] * 2000, n_shown=6)


# -- what all share ----------------------------------------------------------------------------------------------------


def test_ids_are_shortened_in_their_middle() -> None:
    assert shortened("214832557", 2) == "214832557"
    short = shortened("214832557" * 20, 0.8)
    assert re.fullmatch(r"2148?3?…\d?\d?2557|21?4?8?…2?557", short)
    assert text_width(short) <= 0.8
    assert shortened("a\tb\n", 2) == "a\ufffdb\ufffd"
    assert wrapped("one two three", 0.5) == ["one", "two", "three"]
    assert wrapped("", 1) == []


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    """Also when it is saved a second time, and without a warning about its layout."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one", "two"):
            figure = architecture_figure(model_of())
            for kind in ("png", "svg"):
                save_figure(figure, tmp_path / f"{name}.{kind}")
                save_figure(figure, tmp_path / f"{name}.{kind}")
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_dollars_are_no_formulas() -> None:
    vocabulary = Vocabulary(["$\\frac{1}$", "$b$"], np.array([1, 1]))
    figure = session_parallel_figure(make_sessions([[0, 1]]), vocabulary.item_ids, 1, 1)
    check_layout(figure)
    assert "→ $b$" in lines(figure)
