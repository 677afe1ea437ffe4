"""SASRec as a graph of whole sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from onnx import TensorProto

from sessrec.exporting.graph import Graph
from sessrec.models import SASRec
from sessrec.nn.attention import Block


def sasrec_graph(model: SASRec, k: int) -> Any:
    """Sessions ``items`` (B, L), padded at the end, of ``lengths`` (B,); L is the model's ``max_length`` at most.

    Args:
        model: The model.
        k: Length of the lists.
    """
    h, graph = model.options, Graph("sasrec")
    items = graph.input("items", TensorProto.INT64, ["batch", "length"])
    lengths = graph.input("lengths", TensorProto.INT64, ["batch"])
    table = graph.weight(model.item_table, "item_embedding")
    embedded = graph.node("Gather", table, items, axis=0)  # (B, L, H)
    states = graph.node("Mul", embedded, graph.weight(np.float32(h.hidden_size**0.5)))
    one = graph.weight([1])
    n_events = graph.node("Slice", graph.node("Shape", items), one, graph.weight([2]))  # (1,): L
    place = graph.node(
        "Range", graph.weight(np.int64(0)), graph.node("Squeeze", n_events), graph.weight(np.int64(1))
    )  # (L,)
    distance = graph.node("Sub", graph.node("Unsqueeze", place, one), graph.node("Unsqueeze", place, graph.weight([0])))
    zero = graph.weight(np.int64(0))
    is_later = graph.node("Less", distance, zero)  # (L, L)
    distance = graph.node("Max", distance, zero)
    for block in model.blocks:
        assert isinstance(block, Block)
        states = _block(graph, block, states, distance, is_later, h.hidden_size // h.n_heads)
    last = graph.node("Unsqueeze", graph.node("Sub", lengths, one), one)  # (B, 1)
    ends = graph.node("GatherND", states, last, batch_dims=1)  # (B, H)
    queries = graph.linear(_norm(graph, model.norm, ends), model.output.weight, model.output.bias)
    rows = model.item_table
    if model.objective.temperature:
        length = graph.node("ReduceL2", queries, axes=[1], keepdims=1)
        queries = graph.node("Div", queries, graph.node("Max", length, graph.weight(np.float32(1e-12))))
        queries = graph.node("Div", queries, graph.weight(np.float32(model.objective.temperature)))
        rows = F.normalize(rows)
    graph.best_items(graph.linear(queries, rows, None), graph.mask_input(model.n_items), k)
    return graph.model("whole sessions, the newest max_length events of each")


def _norm(graph: Graph, norm: Any, values: str) -> str:
    weight, bias = graph.weight(norm.weight), graph.weight(norm.bias)
    return graph.node("LayerNormalization", values, weight, bias, axis=-1, epsilon=norm.eps)


def _block(graph: Graph, block: Block, states: str, distance: str, is_later: str, size: int) -> str:
    """States (B, L, H) after a block; see `Block`."""
    normed = _norm(graph, block.norms[0], states)
    added = graph.linear(_attend(graph, block, normed, distance, is_later, size), *_of(block.output))
    states = graph.node("Add", states, _gated(graph, block, 0, added, normed))
    normed = _norm(graph, block.norms[1], states)
    inner = graph.linear(normed, *_of(block.inner))
    if block.is_gated:
        gate, value = graph.several("Split", 2, inner, graph.weight([block.outer.in_features] * 2), axis=2)
        inner = graph.node("Mul", graph.node("Mul", gate, graph.node("Sigmoid", gate)), value)
    else:
        inner = graph.node("Relu", inner)
    added = graph.linear(inner, *_of(block.outer))
    return graph.node("Add", states, _gated(graph, block, 1, added, normed))


def _attend(graph: Graph, block: Block, normed: str, distance: str, is_later: str, size: int) -> str:
    heads = graph.weight([0, 0, block.n_heads, size])
    width = block.n_heads * size
    parts = graph.several("Split", 3, graph.linear(normed, *_of(block.inputs)), graph.weight([width] * 3), axis=2)
    query, key, value = (
        graph.node("Transpose", graph.node("Reshape", part, heads), perm=perm)
        for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = graph.node("Mul", graph.node("MatMul", query, key), graph.weight(np.float32(size**-0.5)))
    bias = graph.node("Gather", graph.weight(block.bias), distance, axis=1)  # (heads, L, L)
    scores = graph.node("Where", is_later, graph.weight(np.float32(-1e30)), graph.node("Add", scores, bias))
    seen = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)  # (B, heads, L, size)
    return graph.node("Reshape", graph.node("Transpose", seen, perm=[0, 2, 1, 3]), graph.weight([0, 0, width]))


def _gated(graph: Graph, block: Block, half: int, added: str, normed: str) -> str:
    if not block.is_gated:
        return added
    return graph.node("Mul", graph.node("Sigmoid", graph.linear(normed, *_of(block.gates[half]))), added)


def _of(linear: Any) -> tuple[Any, Any]:
    return linear.weight, linear.bias
