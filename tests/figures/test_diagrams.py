"""Pictures that explain: the real numbers are in them, and no text meets another or leaves the figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import make_sessions, make_vocabulary, random_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from sessrec.data.preparation import Preparation
from sessrec.errors import SessRecError
from sessrec.figures.diagrams import (
    architecture_figure,
    pipeline_figure,
    protocol_figure,
    session_parallel_figure,
    traditional_figure,
)
from sessrec.figures.style import save_figure
from sessrec.models.gru4rec import GRU4Rec

LONG = "https://shop.example/item/$x_{1}$\n-"


def lines(figure: Figure) -> list[str]:
    """All texts of a picture, once it is clear that they are where they can be read."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_text().strip()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in shown]
    left, low, right, high = np.array([box.extents for box in boxes]).T
    meets = (np.minimum.outer(right, right) > np.maximum.outer(left, left)) & (
        np.minimum.outer(high, high) > np.maximum.outer(low, low)
    )
    np.fill_diagonal(meets, False)
    assert not meets.any(), [shown[number] for number in np.flatnonzero(meets.any(axis=0))]
    assert min(left.min(), low.min()) >= 0
    assert (np.array([right.max(), high.max()]) <= figure.get_size_inches() * figure.dpi).all()
    return [text.get_text() for text in shown]


def model_of(n_items: int = 50, **options: object) -> GRU4Rec:
    model = GRU4Rec(**options)  # type: ignore[arg-type]
    model.set_vocabulary(make_vocabulary(n_items))
    return model


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers": [8], "n_sample": 3000}, ["constrained", "50 × 8 = 400 weights and 50 biases", "3,000 items"]),
        (
            {"layers": [8, 6, 4], "constrained_embedding": False, "embedding": 5, "logq": 0.5},
            ["separate", "50 × 5 = 250 weights", "360 weights", "288 weights", "144 weights", "logq 0.5"],
        ),
        (
            {"layers": [8, 6], "constrained_embedding": False, "loss": "bpr-max", "bpreg": 1.95, "exclude_last": True},
            ["no embedding", "50 × 24 = 1,200 weights", "216 weights", "bpr-max, bpreg 1.95", "exclude_last"],
        ),
    ],
)
def test_sizes_and_options_of_the_architecture(options: dict, expected: list[str]) -> None:
    model = model_of(**options)
    title, *shown = lines(architecture_figure(model))
    whole, total = " ".join(shown), sum(weight.numel() for weight in model.parameters())
    for words in expected:
        assert words in whole
    assert f"and {total:,} weights" in title
    parts = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:weights|biases)", whole)]
    assert sum(parts) == total  # each weight is in one box
    assert ("one table for both" in whole) == model.shared_inputs
    assert shown.count("state for\nthe next event") == len(model.layers)


@pytest.mark.parametrize("options", [{}, {"val_ratio": 0}, {"val_ratio": 0, "test_ratio": 0}, {"time_column": None}])
def test_the_pipeline_loses_no_event(write_log: Callable[..., Path], options: dict) -> None:
    """The parts of the log are there with their counts, and what is taken away is shown, so that the sums come out."""
    rows = random_rows(200, n_items=150)
    log = write_log([*rows, ("u", "x", ""), *rows[-9:]])
    report = Preparation(path=str(log), drop_repeats=True, **options).run().report
    shown = " ".join(lines(pipeline_figure(report, n_lanes=7, cutoffs=(3, 9))))
    number = r"([\d,]+) events?"
    read, *kept = (int(n.replace(",", "")) for n in re.findall(rf"sessions?, {number}", shown))
    lost = sum(int(n.replace(",", "")) for n in re.findall(r"− ([\d,]+) ", shown))
    parts = [part for part in ("train", "val", "test") if part in report.sections]
    assert read == report.sections["log"]["events"]
    assert sum(kept[len(parts) :]) + lost == read
    for part in parts:
        assert f"{report.sections[part]['positions']:,} position" in shown
        assert (f"{part} metrics" in shown) == (part != "train")
    assert f"N = {report.sections['train']['items']} items" in shown
    assert "batches of 7 lanes" in shown
    assert str(log.parent) not in shown
    assert lines(pipeline_figure(report.as_dict())) == lines(pipeline_figure(report))  # as in data_report.json
    del report.sections["train"]
    with pytest.raises(SessRecError, match="no training part"):
        pipeline_figure(report)


def test_metrics_of_the_protocol() -> None:
    """Ranks 2, 25, none and 4 at cutoff 20: two hits of four, (1/2 + 1/4) / 4."""
    top = [["b", "c"], ["c", "a"], ["a", "b"], ["e", "d"]]
    shown = lines(protocol_figure("abcde", top, [2, 25, None, 4.0], n_items=1000))
    assert "Recall@20 = 0.5000: hits at 2 of 4 positions" in shown
    assert "MRR@20 = 0.1875: 0.750 / 4, the mean of the last column" in shown
    assert [line for line in shown if line in ("hit", "miss")] == ["hit", "miss", "miss", "hit"]
    assert {"2", "25", "no candidate", "4", "0.500", "0.250"} <= {*shown}
    with pytest.raises(SessRecError, match="3 events, 1 lists and 2 ranks"):
        protocol_figure("abc", [["b"]], [1, 2], n_items=9)


def test_worked_example_of_session_parallel_batches() -> None:
    letters = "abcdefghijklmn"
    sessions = make_sessions(
        [[letters.index(letter) for letter in word] for word in ("abcd", "ef", "ghi", "jk", "lmn")]
    )
    figure = session_parallel_figure(sessions, letters, n_lanes=3)
    shown = [line for line in lines(figure) if "→" in line or line == "empty"]
    lanes = ["".join(re.findall(r"(\w)\n→ (\w)|empty", line)[0]) for line in shown]
    assert lanes == ["ab", "bc", "cd", "", "ef", "jk", "lm", "mn", "gh", "hi", "", ""]
    assert [line[:9] for line in shown if "session" in line] == [f"session {number}" for number in (1, 2, 4, 5, 3)]
    assert lines(figure)[lines(figure).index("resets") :][1:5] == ["3", "1", "1", "0"]
    assert len(figure.axes[0].lines) == 5  # a bar where a session begins
    for n_lanes, n_steps in ((0, 8), (4, 0), (25, 8), (4, 13)):
        with pytest.raises(SessRecError, match="cannot be drawn"):
            session_parallel_figure(sessions, letters, n_lanes, n_steps)


def test_the_matrix_has_the_items_of_the_sessions() -> None:
    """Sessions bac, cab and ba, and a newcomer whose first click is d, whatever follows."""
    sessions = make_sessions([[1, 0, 2], [2, 0, 1], [3, 1], [1, 0]])
    figure = traditional_figure(sessions, "abcd", n_shown=3)
    shown = [line for line in lines(figure) if line in [*"abcd?"] or "user " in line]
    assert "".join(line for line in shown if len(line) == 1) == "abcbac?cab?ba?d?"
    colours = [patch.get_facecolor()[:3] for patch in figure.axes[0].patches if patch.get_width() < 0.4]
    filled = [
        colour != colours[-2] for colour in colours
    ]  # beside the 3 squares of a row there is that of the question
    assert [filled[4 * row : 4 * row + 3] for row in range(4)] == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]]
    with pytest.raises(SessRecError, match="cannot be shown"):
        traditional_figure(sessions, "abcd", n_shown=4)


@pytest.mark.parametrize("item", [LONG + "%d"])
def test_long_ids_and_large_models_fit_and_are_written(tmp_path: Path, item: str) -> None:
    generator = np.random.default_rng(3)
    ids = [item % number for number in range(2000)]
    sessions = make_sessions(
        [generator.integers(0, 2000, size=size).tolist() for size in generator.integers(2, 31, 90)]
    )
    session, top = ids[:30], [ids[5 * number : 5 * number + 5] for number in range(29)]
    figures = [
        architecture_figure(model_of(300_000, layers=[10] * 12, dropout_p_hidden=0.123456, n_sample=1_000_000)),
        session_parallel_figure(sessions, ids, 14, 12),
        traditional_figure(sessions, ids, 20),
        protocol_figure(session, top, [None, 88_888.0, *range(1, 28)], n_items=1_000_000, cutoff=1000),
    ]
    for number, figure in enumerate(figures):
        lines(figure)
        save_figure(figure, tmp_path / f"{number}.svg")
    for kind in ("png", "svg"):
        for name in ("one", "two"):
            save_figure(figures[0], tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
