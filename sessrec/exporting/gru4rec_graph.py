"""GRU4Rec as a graph of one step: items and states in, the best items and new states out."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from sessrec.exporting.graph import Graph
from sessrec.models import GRU4Rec
from sessrec.nn.layers import GRUCell, ResetBeforeGRUCell


def gru4rec_graph(model: GRU4Rec, k: int) -> Any:
    """One step of a session: ``item`` (B,), ``state_0`` (B, H0) and so on; zeros begin a session.

    Args:
        model: The model.
        k: Length of the lists.
    """
    graph = Graph("gru4rec_step")
    item = graph.input("item", TensorProto.INT64, ["batch"])
    states = [
        graph.input(f"state_{number}", TensorProto.FLOAT, ["batch", size]) for number, size in enumerate(model.layers)
    ]
    table = graph.weight(model.item_table, "item_embedding")
    inputs = table if model.shared_inputs else graph.weight(model.input_embedding, "input_embedding")
    below = graph.node("Gather", inputs, item, axis=0)
    new_states = []
    for cell, state in zip(model.cells, states, strict=True):
        if isinstance(cell, ResetBeforeGRUCell):
            below = _step_reset_before(graph, cell, below, state)
        else:
            assert isinstance(cell, GRUCell)
            below = _step(graph, cell, below, state)
        new_states.append(below)
    scores = graph.node("Gemm", below, table, graph.weight(model.output_bias[:, 0]), transB=1)
    graph.best_items(scores, graph.mask_input(model.n_items), k)
    for number, (state, size) in enumerate(zip(new_states, model.layers, strict=True)):
        graph.output(f"state_out_{number}", state, TensorProto.FLOAT, ["batch", size])
    return graph.model("one event of each session, with the state after the event before")


def _step(graph: Graph, cell: GRUCell, below: str, state: str) -> str:
    """Torch's cell: the reset gate acts on what the product gives of the state."""
    size = cell.hidden_size
    sizes = graph.weight([size] * 3)
    terms, hidden_terms = (
        graph.several("Split", 3, graph.linear(value, weight, bias), sizes, axis=1)
        for value, weight, bias in ((below, cell.weight_ih, cell.bias_ih), (state, cell.weight_hh, cell.bias_hh))
    )
    reset, update = (graph.node("Sigmoid", graph.node("Add", terms[gate], hidden_terms[gate])) for gate in (0, 1))
    candidate = graph.node("Tanh", graph.node("Add", terms[2], graph.node("Mul", reset, hidden_terms[2])))
    return _between(graph, candidate, state, update)


def _step_reset_before(graph: Graph, cell: ResetBeforeGRUCell, below: str, state: str) -> str:
    """The cell of one-hot inputs: the reset gate acts on the state before the product."""
    size = cell.hidden_size
    terms = graph.several(
        "Split", 3, graph.node("Add", below, graph.weight(cell.bias)), graph.weight([size] * 3), axis=1
    )
    of_state = graph.several("Split", 2, graph.linear(state, cell.weight_rz.T, None), graph.weight([size] * 2), axis=1)
    reset, update = (graph.node("Sigmoid", graph.node("Add", *pair)) for pair in zip(terms[1:], of_state, strict=True))
    kept = graph.linear(graph.node("Mul", reset, state), cell.weight_n.T, None)
    return _between(graph, state, graph.node("Tanh", graph.node("Add", terms[0], kept)), update)


def _between(graph: Graph, first: str, second: str, share: str) -> str:
    """``first + share * (second - first)``."""
    return graph.node("Add", first, graph.node("Mul", share, graph.node("Sub", second, first)))
