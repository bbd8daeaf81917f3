"""Makes ONNX graphs whose bytes depend on nothing but the network: names, order, weights, serialisation.

`precision`, `quantisation` and `pixel_io` change such graphs.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from cyclegan_fast.version import __version__
from export.graphs.interface import GraphTensor, has_sample_io
from export.graphs.onnx_file import ends_of
from export.library_errors import explaining

CONVOLUTIONS = ("Conv", "ConvTranspose")
MOVES = ("Pad", "Resize")
"""Nodes in front of a convolution, which round nothing."""


def tidy(exported: ModelProto, dimensions: tuple[str | int, ...]) -> ModelProto:
    """Return the exporter's graph with the layers' names and no traces of how it was made.

    The exporter writes the paths and lines of source files into every node, and numbers names as it pleases. Input and
    output get `dimensions`, whatever those of the exporter's are. Raises AssertionError for a node that no generator
    has, and for one that holds for one size alone.
    """
    nodes = list(exported.graph.node)
    names = dict(_names(nodes))
    ends = {value.name for value in (*exported.graph.input, *exported.graph.output)}
    kept = {*ends, *(tensor.name for tensor in exported.graph.initializer), ""}  # "" is an input that is left out

    def renamed(tensor: str) -> str:
        return tensor if tensor in kept else names[tensor]

    (image,), (translated,) = (
        [helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dimensions) for value in values]
        for values in (exported.graph.input, exported.graph.output)
    )
    graph = helper.make_graph(
        [
            helper.make_node(
                node.op_type,
                [renamed(tensor) for tensor in node.input],
                [renamed(tensor) for tensor in node.output],
                name=names[node.output[0]],
                **{a.name: helper.get_attribute_value(a) for a in sorted(node.attribute, key=lambda a: a.name)},
            )
            for node in nodes
        ],
        "generator",
        [image],
        [translated],
        [_bare(tensor) for tensor in exported.graph.initializer],
    )
    return finished(graph, exported.opset_import[0].version)


def _bare(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)


def _names(nodes: list[NodeProto]) -> Iterator[tuple[str, str]]:
    """Yield (tensor, new name of it and its node), after the convolution that it enters or leaves.

    A convolution is named after its weight, `blocks.0.conv1`. The nodes before it are its `.resize` and its `.pad`,
    those behind it are its `.norm`, `.relu` and, for the sum around a residual block, `.sum`.
    """
    readers = readers_of(nodes)
    layer = ""
    for node in nodes:
        made = node.output[0]
        if node.op_type in CONVOLUTIONS:
            layer = _layer(node)
            yield made, layer
        elif node.op_type in MOVES:
            if node.op_type == "Resize" and len(node.input) != 3:  # image, region, factors; a size would be the fourth
                raise AssertionError(f"the exporter made a Resize to one size, {list(node.input)}")
            reader = readers[made][0]
            if reader.op_type == "Pad":
                (reader,) = readers[reader.output[0]]
            yield made, f"{_layer(reader)}.{node.op_type.lower()}"
        elif node.op_type in _SUFFIXES:
            yield made, f"{layer}.{_SUFFIXES[node.op_type]}"
        else:
            raise AssertionError(f"the exporter made a {node.op_type}, which no generator has")


_SUFFIXES = {"InstanceNormalization": "norm", "Relu": "relu", "Add": "sum", "Tanh": "tanh"}


def _layer(convolution: NodeProto) -> str:
    weight: str = convolution.input[1]
    return weight.removesuffix(".weight")


def finished(graph: onnx.GraphProto, opset: int, metadata: dict[str, str] | None = None) -> ModelProto:
    """Return a checked model of a graph, with inferred shapes and types. Raises onnx's errors where it is not valid."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="cyclegan-fast",
        producer_version=__version__,
        ir_version=10,  # the version of opsets 20 to 22; readers refuse files newer than themselves
    )
    helper.set_model_props(model, metadata or {})
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def with_weights(model: ModelProto, weights: dict[str, npt.NDArray[Any]]) -> ModelProto:
    """Return a copy of a model with `weights` by their names; constants that are no weights stay.

    The model may lack, of all weights, only biases in front of a norm and running statistics. Raises AssertionError
    where it lacks another.
    """
    result = ModelProto()
    result.CopyFrom(model)
    missing = weights.keys() - {tensor.name for tensor in result.graph.initializer}
    unused = (".bias", ".running_mean", ".running_var", ".num_batches_tracked")
    if any(name == "head.bias" or not name.endswith(unused) for name in missing):
        raise AssertionError(f"the traced graph lacks {', '.join(sorted(missing))}")
    for tensor in result.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return result


def with_channels(model: ModelProto, inputs: int, outputs: int) -> ModelProto:
    """Return a float32 graph that takes images of so many channels and gives others; its weights have them already."""
    graph = model.graph
    image, translated = (
        helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", channels, "height", "width"])
        for value, channels in ((graph.input[0], inputs), (graph.output[0], outputs))
    )
    made = helper.make_graph(graph.node, graph.name, [image], [translated], graph.initializer)
    return finished(made, model.opset_import[0].version)


def valid_model(path: Path, content: bytes) -> ModelProto:
    """Return the model of an ONNX file's content.

    Raises UserError where it is no valid graph, or not that of a generator.
    """
    with explaining(f"{path} is no valid ONNX file", "export it anew with python export/to_onnx.py"):
        model: ModelProto = ModelProto.FromString(content)
        onnx.checker.check_model(model, full_check=True)
        inputs, outputs = (list(map(_graph_tensor, values)) for values in (model.graph.input, model.graph.output))
    has_sample_io(path, inputs, outputs, ends_of(path, {entry.key: entry.value for entry in model.metadata_props}))
    return model


def _graph_tensor(value: onnx.ValueInfoProto) -> GraphTensor:
    tensor = value.type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim]
    return GraphTensor(value.name, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(sides))


def serialised(model: ModelProto) -> bytes:
    """Return the bytes of a model, which are the same each time."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def readers_of(nodes: Iterable[NodeProto]) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor."""
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    return readers
