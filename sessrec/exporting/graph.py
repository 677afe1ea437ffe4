"""Builds an ONNX graph node by node, from plain operators: no exporter of torch takes part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from sessrec.exporting.onnx_model import NO_CANDIDATE

OPSET = 17
"""Version of ONNX's operators; onnxruntime knows it since 1.12."""


class Graph:
    """A graph whose values are named by the node that gives them.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, kind: int, shape: Sequence[str | int]) -> str:
        """An input; axes that are named have any length."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, kind: int, shape: Sequence[str | int]) -> None:
        """A value that is given back under a name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, value: Tensor | np.ndarray | np.generic | Sequence[int], name: str = "") -> str:
        """A constant: float32, or int64 and bool as it is."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = name or f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, **options: Any) -> str:
        """The value of a node with one output."""
        return self.several(operator, 1, *inputs, **options)[0]

    def several(self, operator: str, n_outputs: int, *inputs: str, **options: Any) -> list[str]:
        """The values of a node."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{number}" for number in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **options))
        return names

    def linear(self, values: str, weight: Tensor, bias: Tensor | None) -> str:
        """``values @ weight.T + bias``, over the last axis."""
        product = self.node("MatMul", values, self.weight(weight.T))
        return product if bias is None else self.node("Add", product, self.weight(bias))

    def mask_input(self, n_items: int) -> str:
        """An input of which items may be in the list, bool, (N,), that may be left out."""
        self.weight(np.ones(n_items, dtype=bool), "mask")
        return self.input("mask", TensorProto.BOOL, [n_items])

    def best_items(self, scores: str, mask: str, k: int) -> None:
        """Give the k best items of scores (B, N) and their scores back; equal scores by item index."""
        kept = self.node("Where", mask, scores, self.weight(np.float32(NO_CANDIDATE)))
        best, items = self.several("TopK", 2, kept, self.weight([k]), axis=1, largest=1, sorted=1)
        self.output("items_out", items, TensorProto.INT64, ["batch", k])
        self.output("scores", best, TensorProto.FLOAT, ["batch", k])

    def model(self, description: str) -> Any:
        """The graph as a model, checked for its form."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, producer_name="sessrec", doc_string=description)
        model.ir_version = 8  # of the same time as the operators
        onnx.checker.check_model(model)
        return model
