"""Lowers the precision of a graph by its types: a strongly typed graph says itself what is computed in which.

TensorRT 11 knows no other way, and 10 and TensorRT-RTX are built the same. Convolutions and the pads in front of them
are in float16 or bfloat16; instance norms with their statistics, activations, residual sums and tanh are in float32,
because float16 statistics overflow (the usual cause of black images). A value that goes from one to the next is rounded
once. `quantisation` has the 8-bit types.
"""

from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cyclegan_fast.system.errors import UserError
from export.graphs.graph import CONVOLUTIONS, MOVES, finished, readers_of

LowPrecision = Literal["float16", "bfloat16"]

FLOAT32, FLOAT16, BFLOAT16 = map(int, (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16))
NAMES = {FLOAT32: "float32", FLOAT16: "float16", BFLOAT16: "bfloat16"}
OPSETS = {"float16": 20, "bfloat16": 22}  # ONNX has a Conv of bfloat16 since opset 22


def in_precision(model: ModelProto, precision: LowPrecision) -> ModelProto:
    """Return a float32 graph with its convolutions in `precision`, and a Cast wherever a type changes.

    In bfloat16 the two transposed convolutions are in float16: TensorRT-RTX 1.7 has none in bfloat16.
    Raises UserError where a weight does not fit the type.
    """
    graph = model.graph
    types = {node.name: _type_of(node, precision) for node in graph.node}
    readers = readers_of(graph.node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    flow = _Flow()
    flow.stored[graph.input[0].name] = graph.input[0].name, FLOAT32
    for original in graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        for place, tensor in enumerate(node.input):
            if tensor and tensor not in weights:
                node.input[place] = flow.read(tensor, types[node.name])
            elif node.op_type in CONVOLUTIONS:
                weights[tensor] = cast_weight(weights[tensor], types[node.name])
        flow.nodes.append(node)
        flow.store(node.output[0], types[node.name], {types[reader.name] for reader in readers.get(node.output[0], [])})
    typed = helper.make_graph(flow.nodes, graph.name, graph.input, graph.output, list(weights.values()))
    return finished(typed, OPSETS[precision])


def _type_of(node: NodeProto, precision: LowPrecision) -> int:
    if node.op_type not in (*CONVOLUTIONS, *MOVES):
        return FLOAT32
    return BFLOAT16 if precision == "bfloat16" and node.op_type != "ConvTranspose" else FLOAT16


class _Flow:
    """Collects the typed nodes, and under which name and type each tensor of the float32 graph is stored."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, tuple[str, int]] = {}

    def store(self, tensor: str, made_in: int, read_in: set[int]) -> None:
        """Store a tensor as it is made, or for all its readers in the type of the convolution that reads it."""
        self.stored[tensor] = tensor, made_in
        lower = read_in - {FLOAT32}
        if made_in == FLOAT32 and lower:
            (to,) = lower
            self.stored[tensor] = self.read(tensor, to), to

    def read(self, tensor: str, wanted: int) -> str:
        """Return the name of `tensor` in the type `wanted`, after a Cast where it is stored in another."""
        name, type = self.stored[tensor]
        if type == wanted:
            return name
        result = f"{name}.{NAMES[wanted]}"
        if not any(node.output[0] == result for node in self.nodes):
            self.nodes.append(cast(name, result, wanted))
        return result


def cast(tensor: str, result: str, to: int) -> NodeProto:
    """Return a node that casts a tensor to the ONNX type `to`."""
    return helper.make_node("Cast", [tensor], [result], name=result, to=to)


def cast_weight(weight: TensorProto, to: int) -> TensorProto:
    """Return a constant tensor rounded to another type. Raises UserError where that makes a value infinite."""
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        rounded = values.astype(helper.tensor_dtype_to_np_dtype(to))
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise UserError(
            f"{weight.name} has values up to {abs(values).max():.3g}, beyond the range of {NAMES[to]}: "
            "export in --precision float32"
        )
    return numpy_helper.from_array(rounded, weight.name)


def emulated(model: ModelProto) -> ModelProto:
    """Return a graph that computes in float32 what `model` does, and rounds to bfloat16 where that is stored.

    The results are those of a bfloat16 convolution that sums in float32, as GPUs do. It serves ONNX Runtime, whose CPU
    provider has no convolution in bfloat16.
    """
    graph = model.graph
    low = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == BFLOAT16}
    low |= {tensor.name for tensor in graph.initializer if tensor.data_type == BFLOAT16}
    nodes: list[NodeProto] = []
    for original in graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        made = node.output[0]
        if made in low and node.op_type not in MOVES:
            is_convolution = node.op_type in CONVOLUTIONS
            node.name = node.output[0] = f"{made}.exact" if is_convolution else f"{made}.stored"
            nodes.append(node)
            if is_convolution:
                nodes.append(cast(node.name, f"{made}.stored", BFLOAT16))
            nodes.append(cast(f"{made}.stored", made, FLOAT32))
        else:
            nodes.append(node)
    weights = [
        numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        if tensor.data_type == BFLOAT16
        else tensor
        for tensor in graph.initializer
    ]
    return finished(helper.make_graph(nodes, graph.name, graph.input, graph.output, weights), OPSETS["float16"])
