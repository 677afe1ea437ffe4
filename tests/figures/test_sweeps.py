"""The picture of a sweep."""

from __future__ import annotations

import numpy as np

from sessrec.figures.sweeps import sweep_figure


def test_lines_of_the_figure() -> None:
    recall = {"Markov": [[0.2], [0.3], [0.4]], "GRU4Rec": [[0.3, 0.5], [], [0.5, 0.5]], "Oracle": [[0.6]] * 3}
    figure = sweep_figure("title", "alpha", [0.5, 0.0, 1.0], {"Recall@20": recall, "MRR@20": recall}, "Oracle")
    assert [axes.get_title() for axes in figure.axes] == ["Recall@20", "MRR@20"]
    axes = figure.axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert list(lines) == ["Markov", "GRU4Rec", "Oracle"]
    assert np.array_equal(lines["Markov"].get_xydata(), [[0, 0.3], [0.5, 0.2], [1, 0.4]])  # from left to right
    assert np.array_equal(lines["GRU4Rec"].get_xydata(), [[0.5, 0.4], [1, 0.5]])
    assert lines["Oracle"].get_linestyle() == "--"
    assert len({line.get_color() for line in lines.values()}) == 3
    assert len(axes.collections) == 1  # the band of the one with several fits
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "0.5", "0"]
    assert axes.get_xscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Markov", "GRU4Rec", "Oracle"]


def test_axes_of_the_figure() -> None:
    metrics = {"Recall@20": {"GRU4Rec": [[0.3, 0.5], [0.2, 0.3]]}}
    figure = sweep_figure("title", "filtering", ["none", "support-5+no-repeats"], metrics)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "support-5\n+ no-repeats"]
    assert len(axes.containers) == 1  # bars of the fits with several seeds
    assert sweep_figure("title", "sessions", [100.0, 2000.0], metrics).axes[0].get_xscale() == "log"
    assert axes.get_ylim()[0] == 0
