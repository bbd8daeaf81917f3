"""Checks and serialises ONNX graphs, whose bytes depend on nothing but the network.

`generator` makes such a graph; `precision`, `quantisation` and `pixel_io` change it.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper

from cyclegan_fast.version import __version__
from export.graphs.interface import GraphTensor, has_sample_io
from export.graphs.onnx_file import ends_of
from export.library_errors import explaining

CONVOLUTIONS = ("Conv", "ConvTranspose")
MOVES = ("Pad", "Resize")
"""Nodes in front of a convolution, which round nothing."""


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
