"""Gives a graph samples in and out: the conversions of `cyclegan_fast.images.pixels` as its first and last nodes."""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cyclegan_fast.images.pixel_type import PixelType
from export.graphs.graph import finished
from export.graphs.interface import sample_dtype
from export.pixel_ends import RGB_ENDS, PixelEnds

_Step = tuple[str, list[str], dict[str, Any]]
"""an operator, its constant inputs and its attributes"""


def with_pixel_io(model: ModelProto, ends: PixelEnds = RGB_ENDS) -> ModelProto:
    """Return a graph that takes and gives samples [batch, height, width, channels] under the same names.

    They are uint8, or float32 for samples of another type, in the images' own units; those of whole numbers are whole.
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
    constants: dict[str, float] = {}  # by their names
    before, after = _steps_before(ends.source, constants), _steps_after(ends.target, constants)
    nodes = [
        *_chain(before, image.name, names[image.name]),
        *graph.node,
        *_chain(after, names[translated.name], translated.name),
    ]
    typed = helper.make_graph(
        nodes,
        graph.name,
        [_samples(image.name, ends.source)],
        [_samples(translated.name, ends.target)],
        [
            *graph.initializer,
            *(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items()),
        ],
    )
    return finished(typed, model.opset_import[0].version)


def _steps_before(kind: PixelType, constants: dict[str, float]) -> list[_Step]:
    """Return what makes samples values in [-1, 1]; the constants that it needs are entered by name."""
    half, one = _enter(constants, "half", kind.half_range), _enter(constants, "one", 1.0)
    steps: list[_Step] = [("Cast", [], {"to": TensorProto.FLOAT})] if kind.dtype == "uint8" else []
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if kind.low:
        steps.append(("Sub", [_enter(constants, "low", kind.low)], {}))
    steps += [("Div", [half], {}), ("Sub", [one], {})]
    if kind.dtype != "uint8":
        steps.append(("Clip", [_enter(constants, "minus_one", -1.0), one], {}))
    return steps


def _steps_after(kind: PixelType, constants: dict[str, float]) -> list[_Step]:
    """Return what makes values in [-1, 1] samples; the constants that it needs are entered by name."""
    one, half = _enter(constants, "one", 1.0), _enter(constants, "half", kind.half_range)
    steps: list[_Step] = [("Add", [one], {}), ("Mul", [half], {})]
    if kind.low:
        steps.append(("Add", [_enter(constants, "low", kind.low)], {}))
    if kind.dtype != "float32":
        steps.append(("Round", [], {}))  # this rounds half to even, as NumPy's rint does
    lowest, highest = (kind.low, kind.high) if kind.dtype == "float32" else kind.held_range
    clip = [_enter(constants, "lowest", lowest), _enter(constants, "highest", highest)]
    steps += [("Clip", clip, {}), ("Transpose", [], {"perm": [0, 2, 3, 1]})]
    if kind.dtype == "uint8":
        steps.append(("Cast", [], {"to": TensorProto.UINT8}))
    return steps


def _enter(constants: dict[str, float], name: str, value: float) -> str:
    """Return the name of a constant; one that both ends have, of two values, gets a second name for the other end."""
    name = f"pixels.{name}"
    if constants.setdefault(name, value) != value:
        constants[name := f"{name}_of_output"] = value
    return name


def _samples(name: str, kind: PixelType) -> ValueInfoProto:
    of_onnx = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[sample_dtype(kind)]
    return helper.make_tensor_value_info(name, of_onnx, ["batch", "height", "width", kind.channels])


def _chain(steps: list[_Step], first: str, last: str) -> list[NodeProto]:
    """Return nodes that compute the tensor `last` from the tensor `first`, one step after the other."""
    tensors = [first]
    for operator, constants, _ in steps[:-1]:
        name = f"{first}.{operator.lower()}"
        tensors.append(name if name not in tensors else f"{name}.{constants[0].removeprefix('pixels.')}")
    tensors.append(last)
    return [
        helper.make_node(operator, [before, *constants], [after], name=after, **attributes)
        for (operator, constants, attributes), before, after in zip(steps, tensors, tensors[1:], strict=False)
    ]
