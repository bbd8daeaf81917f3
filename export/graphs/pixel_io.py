"""Gives a graph pixels in and out: the conversions of `cyclegan_fast.images.pixels` as its first and last nodes."""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs.graph import finished

_Step = tuple[str, list[str], dict[str, Any]]
"""an operator, its constant inputs and its attributes"""


def with_pixel_io(model: ModelProto) -> ModelProto:
    """Return a graph that takes and gives uint8 [batch, height, width, 3] under the same names.

    The values are those of `to_signed_array` and `to_pixels_array`, operation by operation. TensorRT takes uint8 only
    directly in front of a Cast and behind one; the transpositions stand on the inner side of both.
    """
    graph = ModelProto.FromString(model.SerializeToString()).graph
    (image,), (translated,) = graph.input, graph.output
    names = {image.name: f"{image.name}.signed", translated.name: f"{translated.name}.signed"}
    for node in graph.node:
        for names_of in (node.input, node.output):
            for place, tensor in enumerate(names_of):
                names_of[place] = names.get(tensor, tensor)
    constants = {"pixels.half": 127.5, "pixels.one": 1.0, "pixels.lowest": 0.0, "pixels.highest": 255.0}
    before: list[_Step] = [
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
        ("Div", ["pixels.half"], {}),
        ("Sub", ["pixels.one"], {}),
    ]
    after: list[_Step] = [
        ("Add", ["pixels.one"], {}),
        ("Mul", ["pixels.half"], {}),
        ("Round", [], {}),  # this rounds half to even, as NumPy's rint does
        ("Clip", ["pixels.lowest", "pixels.highest"], {}),
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Cast", [], {"to": TensorProto.UINT8}),
    ]
    nodes = [
        *_chain(before, image.name, names[image.name]),
        *graph.node,
        *_chain(after, names[translated.name], translated.name),
    ]
    pixels: list[str | int | None] = ["batch", "height", "width", 3]
    typed = helper.make_graph(
        nodes,
        graph.name,
        [helper.make_tensor_value_info(image.name, TensorProto.UINT8, pixels)],
        [helper.make_tensor_value_info(translated.name, TensorProto.UINT8, pixels)],
        [
            *graph.initializer,
            *(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items()),
        ],
    )
    return finished(typed, model.opset_import[0].version)


def _chain(steps: list[_Step], first: str, last: str) -> list[NodeProto]:
    """Return nodes that compute the tensor `last` from the tensor `first`, one step after the other."""
    tensors = [first, *(f"{first}.{operator.lower()}" for operator, *_ in steps[:-1]), last]
    return [
        helper.make_node(operator, [before, *constants], [after], name=after, **attributes)
        for (operator, constants, attributes), before, after in zip(steps, tensors, tensors[1:], strict=False)
    ]
