"""Windows captured as graphs: the logic on a CPU, where a stand-in replays the call, and the real thing on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import make_sessions, make_vocabulary

from sessrec.data.loaders import SessionParallelLoader
from sessrec.models import GRU4Rec
from sessrec.nn.cuda_graphs import CapturedRun


def test_first_run_is_a_warm_up_and_the_others_replay_one_capture() -> None:
    captured: list[Callable] = []

    def capture(run: Callable) -> Callable:
        captured.append(run)
        return run

    state = torch.zeros(())
    addresses = []

    def run(tensors) -> torch.Tensor:  # noqa: ANN001
        addresses.append(tensors[0].data_ptr())
        state.add_(tensors[0].sum())
        assert tensors[1] is None
        return state * 2

    captured_run = CapturedRun(run, capture)
    results = [captured_run([torch.full((3,), float(number)), None], settings=0.1) for number in range(1, 5)]
    assert [result.item() for result in results] == [6.0, 18.0, 36.0, 60.0]  # each result is kept
    assert len(captured) == 1
    assert len(set(addresses[1:])) == 1  # the graph reads its own memory
    captured_run([torch.ones(3), None], settings=0.2)
    captured_run([torch.ones(3), None], settings=0.2)
    captured_run([torch.ones(5), None], settings=0.1)
    captured_run([torch.ones(5), None], settings=0.1)
    assert len(captured) == 3  # other settings and other shapes have graphs of their own


SEQUENCES = [[(7 * session + 3 * step) % 11 for step in range(2 + session % 5)] for session in range(40)]
OPTIONS = [
    {},
    {"loss": "bpr-max", "layers": [5, 7], "momentum": 0.3},
    {"constrained_embedding": False, "embedding": 4, "n_sample": 0},
    {"constrained_embedding": False, "loss": "top1-max"},
]


def fit_three_epochs(options: dict, device: str = "cpu", scheduled: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    settings = {"layers": [6], "n_sample": 9, "dropout_p_embed": 0.2, "dropout_p_hidden": 0.1}
    model = GRU4Rec(**(settings | options))
    model.set_vocabulary(make_vocabulary(11))
    model.to(device)
    optimizer = model.configure_optimizers()
    for epoch in range(3):
        model.on_train_epoch_start()
        for number, window in enumerate(SessionParallelLoader(make_sessions(SEQUENCES), n_lanes=4, steps_per_window=5)):
            generator = torch.Generator(device).manual_seed(100 * epoch + number)
            moved = type(window)(*(part.to(device) for part in window[:4]), *window[4:])
            model.rates = [0.1 / (1 + epoch + number + step) for step in range(window.n_steps)] if scheduled else None
            model.train_window(moved, optimizer, generator)
    return model.state_dict()


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_replayed_windows_train_as_usual(options: dict, scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs with shrinking tails give the same weights with and without capture, to the last bit.

    A learning rate that changes with every step needs no more graphs.
    """
    usual = fit_three_epochs(options, scheduled=scheduled)
    replayed = []

    def capture(run: Callable) -> Callable:
        replayed.append(run)
        return run

    monkeypatch.setattr(GRU4Rec, "captures", property(lambda model: True))
    monkeypatch.setattr("sessrec.nn.cuda_graphs._CudaGraphs", lambda: capture)
    captured = fit_three_epochs(options, scheduled=scheduled)
    assert 1 <= len(replayed) <= 4
    for name, weight in usual.items():
        torch.testing.assert_close(captured[name], weight, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(
        "sessrec.nn.cuda_graphs.CapturedRun.__call__", lambda self, tensors, settings: self._run(tensors)
    )
    eager = fit_three_epochs(options, scheduled=scheduled)
    for name, weight in eager.items():
        assert torch.equal(captured[name], weight), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_on_a_gpu(options: dict, scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = fit_three_epochs(options, "cuda", scheduled)
    monkeypatch.setattr(
        "sessrec.nn.cuda_graphs.CapturedRun.__call__", lambda self, tensors, settings: self._run(tensors)
    )
    eager = fit_three_epochs(options, "cuda", scheduled)
    for name, weight in eager.items():
        torch.testing.assert_close(captured[name], weight, rtol=1e-4, atol=1e-6)
