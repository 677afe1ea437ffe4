"""The configuration with which Triton serves an exported model."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

_KINDS = {TensorProto.INT64: "TYPE_INT64", TensorProto.FLOAT: "TYPE_FP32"}


def triton_config(name: str, model: Any) -> str:
    """Text of ``config.pbtxt``: a graph of steps keeps its states between the requests of a sequence.

    The mask is left out: it has no axis of the batch, which Triton asks of every input.

    Args:
        name: Name of the model in Triton's repository.
        model: The graph.
    """
    inputs = [_tensor(value) for value in model.graph.input if not value.name.startswith(("state_", "mask"))]
    outputs = [_tensor(value) for value in model.graph.output if not value.name.startswith("state_out_")]
    states = [_state(value) for value in model.graph.input if value.name.startswith("state_")]
    parts = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        "max_batch_size: 64",
        f"input [\n{_joined(inputs)}\n]",
        f"output [\n{_joined(outputs)}\n]",
    ]
    if states:  # the graph has no input that tells the start of a sequence: its states begin as zeros
        batching = "  oldest { max_candidate_sequences: 1024 }"
        parts.append(f"sequence_batching {{\n{batching}\n  state [\n{_joined(states)}\n  ]\n}}")
    else:
        parts.append("dynamic_batching { }")
    return "\n".join(parts) + "\n"


def _axes(value: Any) -> list[int]:
    """Lengths of the axes behind that of the batch; -1 for any."""
    axes = value.type.tensor_type.shape.dim[1:]
    return [axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes]


def _tensor(value: Any) -> str:
    axes, kind = _axes(value), _KINDS[value.type.tensor_type.elem_type]
    shape = f"dims: {axes}" if axes else "dims: [ 1 ] reshape: { shape: [ ] }"  # one number a request
    return f'  {{ name: "{value.name}" data_type: {kind} {shape} }}'


def _state(value: Any) -> str:
    axes, out = _axes(value), value.name.replace("state_", "state_out_")
    kind = _KINDS[value.type.tensor_type.elem_type]
    initial = f'initial_state: {{ data_type: {kind} dims: {axes} zero_data: true name: "zeros" }}'
    return f'    {{ input_name: "{value.name}" output_name: "{out}" data_type: {kind} dims: {axes} {initial} }}'


def _joined(parts: list[str]) -> str:
    return ",\n".join(parts)
