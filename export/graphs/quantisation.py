"""Quantises a graph to INT8 or FP8 by explicit Q/DQ nodes around convolutions, with ranges measured on images.

A convolution between two of them is computed in 8 bits and summed in 32; everything else stays as in float16 (see
`export.graphs.precision`): instance norms, their statistics, sums and tanh in float32. TensorRT 11 has no other INT8.
Quantisation is symmetric, as TensorRT's is: activations by one scale for each tensor, weights by one for each output
channel (Wu et al. 2020, "Integer Quantization for Deep Learning Inference", sections 3.1 to 3.3).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_signed_array
from cyclegan_fast.system.errors import UserError
from export.graphs.graph import CONVOLUTIONS, finished, serialised
from export.graphs.interface import INPUT
from export.graphs.precision import in_precision
from export.options import EightBits

BINS = 4096
_SCALE = ".input.scale"


@dataclass(frozen=True)
class EightBitFormat:
    """Describes an 8-bit type: its ONNX type, and the largest value of it that is used."""

    onnx: int
    largest: float

    def rounded(self, values: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return values as they are after quantisation and dequantisation."""
        scaled = np.clip(values / scale, -self.largest, self.largest)
        if self.onnx == TensorProto.INT8:
            return np.rint(scaled) * scale
        return scaled.astype(helper.tensor_dtype_to_np_dtype(self.onnx)).astype(np.float64) * scale


FORMATS: dict[EightBits, EightBitFormat] = {
    "int8": EightBitFormat(TensorProto.INT8, 127.0),
    "fp8": EightBitFormat(TensorProto.FLOAT8E4M3FN, 448.0),
}


# --- ranges ----------------------------------------------------------------------------------------------------------


def activation_ranges(
    model: ModelProto, images: SampleArray, precision: EightBits, kind: PixelType = RGB
) -> dict[str, float]:
    """Return, for each convolution of a float32 graph, the input value that the largest 8-bit value stands for.

    For int8 it has the smallest mean square error over `images`, [N, H, W, C] of the type `kind`: a few outliers are
    cut off where that leaves finer steps for all other values. For fp8, whose steps are relative, it is the largest
    value.
    """
    format = FORMATS[precision]
    largest = largest_activations(model, images, kind)
    if format.onnx != TensorProto.INT8:
        return largest
    histograms = {layer: np.zeros(BINS, np.int64) for layer in largest}
    for layer, values in _inputs(model, images, kind):
        histograms[layer] += np.histogram(np.abs(values), BINS, (0.0, largest[layer] or 1.0))[0]
    return {layer: _least_error(histogram, largest[layer], format) for layer, histogram in histograms.items()}


def largest_activations(model: ModelProto, images: SampleArray, kind: PixelType = RGB) -> dict[str, float]:
    """Return, for each convolution by name, the largest absolute value of its input over the images."""
    largest: dict[str, float] = {}
    for layer, values in _inputs(model, images, kind):
        largest[layer] = max(largest.get(layer, 0.0), float(np.abs(values).max()))
    return largest


def _inputs(model: ModelProto, images: SampleArray, kind: PixelType) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield (a convolution's name, its input), image by image, from ONNX Runtime."""
    import onnxruntime

    readers = {node.input[0]: node.name for node in model.graph.node if node.op_type in CONVOLUTIONS}
    observed = ModelProto()
    observed.CopyFrom(model)
    known = {value.name: value for value in (*observed.graph.value_info, *observed.graph.input)}
    del observed.graph.output[:]
    observed.graph.output.extend(known[tensor] for tensor in readers)
    session = onnxruntime.InferenceSession(serialised(observed), providers=["CPUExecutionProvider"])
    for image in images:
        inputs = session.run(list(readers), {INPUT: to_signed_array(image[None], kind)})
        yield from zip(readers.values(), inputs, strict=True)


def _least_error(histogram: npt.NDArray[np.int64], largest: float, format: EightBitFormat) -> float:
    centres = ((np.arange(BINS) + 0.5) * (largest / BINS)).astype(np.float64)
    candidates = largest * np.arange(20, 101) / 100

    def error(bound: float) -> float:
        rounded = format.rounded(centres, np.array(bound / format.largest))
        return float((histogram * (rounded - centres) ** 2).sum())

    return float(min(candidates[::-1], key=error)) if largest else 0.0


# --- the graph -------------------------------------------------------------------------------------------------------


def quantised(
    model: ModelProto, precision: EightBits, ranges: Mapping[str, float], keep: Collection[str] = ()
) -> ModelProto:
    """Return a float32 graph with its convolutions in 8 bits, and those named in `keep` in float16.

    `ranges` is from `activation_ranges`. Raises UserError for a weight beyond the range of float16.
    """
    format = FORMATS[precision]
    half = in_precision(model, "float16")
    weights = {tensor.name: tensor for tensor in half.graph.initializer}
    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for original in half.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        if node.op_type in CONVOLUTIONS and node.name not in keep:
            activation, weight = f"{node.name}.input", node.input[1]
            scale = _scale(np.array(ranges[node.name]), format)
            constants = [
                numpy_helper.from_array(scale, f"{node.name}{_SCALE}"),
                _eight_bits(np.zeros((), np.float64), format, f"{activation}.zero"),
            ]
            nodes += _quantise_and_back(node.input[0], activation, [tensor.name for tensor in constants])
            axis = 1 if node.op_type == "ConvTranspose" else 0
            constants += _quantised_weight(exact[weight], axis, format)
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [tensor.name for tensor in constants[2:]],
                    [f"{weight}.rounded"],
                    name=f"{weight}.rounded",
                    axis=axis,
                )
            )
            del weights[weight]
            weights |= {tensor.name: tensor for tensor in constants}
            node.input[0], node.input[1] = f"{activation}.rounded", f"{weight}.rounded"
        nodes.append(node)
    graph = helper.make_graph(nodes, half.graph.name, half.graph.input, half.graph.output, list(weights.values()))
    return finished(graph, half.opset_import[0].version)


def ranges_of(model: ModelProto, precision: EightBits) -> dict[str, float]:
    """Return, for each layer of a quantised graph by name, the range of its input, read back from the graph.

    Raises UserError where the graph has none, as one that `quantised` did not make.
    """
    scales = {
        tensor.name.removesuffix(_SCALE): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith(_SCALE)
    }
    if not scales or any(scale.size != 1 for scale in scales.values()):
        raise UserError(f"the graph has no ranges of {precision}: export it anew with python export/to_onnx.py")
    return {layer: scale.item() * FORMATS[precision].largest for layer, scale in scales.items()}


def _quantise_and_back(tensor: str, name: str, constants: list[str]) -> list[NodeProto]:
    stored, rounded = f"{name}.stored", f"{name}.rounded"
    return [
        helper.make_node("QuantizeLinear", [tensor, *constants], [stored], name=stored),
        helper.make_node("DequantizeLinear", [stored, *constants], [rounded], name=rounded),
    ]


def _quantised_weight(weight: TensorProto, axis: int, format: EightBitFormat) -> list[TensorProto]:
    """Return the 8-bit weight, its scales by output channel, and its zero points."""
    values = numpy_helper.to_array(weight).astype(np.float64)
    others = tuple(place for place in range(values.ndim) if place != axis)
    scales = _scale(np.abs(values).max(axis=others), format)
    broadcast = scales.astype(np.float64).reshape([-1 if place == axis else 1 for place in range(values.ndim)])
    return [
        _eight_bits(values / broadcast, format, weight.name),
        numpy_helper.from_array(scales, f"{weight.name}.scale"),
        _eight_bits(np.zeros(scales.shape), format, f"{weight.name}.zero"),
    ]


def _scale(largest: npt.NDArray[np.float64], format: EightBitFormat) -> npt.NDArray[np.float16]:
    """Return the scale in float16, the type of the convolution; it is positive even for a tensor of zeros."""
    return np.maximum(largest / format.largest, 2.0**-20).astype(np.float16)


def _eight_bits(scaled: npt.NDArray[np.float64], format: EightBitFormat, name: str) -> TensorProto:
    values = np.clip(scaled, -format.largest, format.largest)
    if format.onnx == TensorProto.INT8:
        values = np.rint(values)
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(format.onnx)), name)
