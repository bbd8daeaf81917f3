"""Packs a generator for a web page: its graph, weights in 8 or 16 bits, and a picture to check a browser's results by.

The page widens the weights to float32 before ONNX Runtime Web sees them, so that both its WebAssembly and its WebGPU
run the same float32 graph. That is why neither needs operators of 8 bits (WebGPU has no convolution of them) or
16-bit floats (of which a GPU may have none).

A pack is a uint32 n (little-endian), n bytes of JSON, and the parts that the JSON names by their places behind it:

- graph: the ONNX file without its large tensors, which lie in external data called `weights`.
- tensors: those, in the order in which they lie there. Each is int8 [count] with float32 scales [channels], or uint16
  [count] that are float16. Of an int8 value at place i the scale is that of channel (i // inner) % channels.
- check: samples [side, side, C] of uint8, and what PyTorch makes of them in float32, as uint16 of [-1, 1].
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cyclegan_fast.images.pixels import to_signed_array
from cyclegan_fast.system.errors import UserError
from export.graphs.graph import CONVOLUTIONS, serialised
from export.parity import Parity, in_onnxruntime, in_own_units

if TYPE_CHECKING:
    from export.browser.page import StoredWeights
    from export.source import GeneratorSource

CHECK_SIDE = 32
"""Side in pixels of the picture by which a page checks a browser: small, since a slow one computes it at each start."""
_STEPS = 127
_CANDIDATES = np.linspace(0.7, 1.0, 13)
_HALF_OF_UINT16 = 32767.5


@dataclass(frozen=True)
class PackedTensor:
    """Holds a tensor as a page stores it.

    `values` are int8 or float16 in the tensor's own shape, `scales` float32 [channels] along `axis` for int8.
    """

    name: str
    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None
    axis: int

    def widened(self) -> npt.NDArray[np.float32]:
        """Return the tensor in float32, as the page makes it."""
        values = self.values.astype(np.float32)
        if self.scales is None:
            return values
        sides = [-1 if place == self.axis else 1 for place in range(values.ndim)]
        return values * self.scales.reshape(sides)


def packed_tensors(model: ModelProto, stored: "StoredWeights") -> list[PackedTensor]:
    """Return the weights of a float32 graph's convolutions, as a page stores them; biases and norms stay in the graph.

    Raises UserError for a weight beyond the range of float16.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    packed = []
    for node in model.graph.node:
        if node.op_type not in CONVOLUTIONS:
            continue
        name, axis = node.input[1], 1 if node.op_type == "ConvTranspose" else 0
        values = numpy_helper.to_array(tensors[name])
        if stored == "float16":
            packed.append(PackedTensor(name, _in_float16(values, name), None, axis))
        else:
            packed.append(PackedTensor(name, *_in_int8(values, axis), axis))
    return packed


def _in_float16(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise UserError(
            f"{name} has values up to {abs(values).max():.3g}, beyond the range of float16: export with --weights int8"
        )
    return rounded


def _in_int8(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 values, and of each output channel the scale with the least square error.

    It is one of 13 from 0.7 to 1 times the largest value / 127: the largest few values may be cut off for finer steps.
    """
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
    largest = np.maximum(np.abs(rows).max(1), 2.0**-40)
    scales = np.zeros(len(rows), np.float32)
    least = np.full(len(rows), np.inf)
    for candidate in _CANDIDATES:
        scale = (largest * candidate / _STEPS).astype(np.float32)
        error = ((_rounded(rows, scale) * scale[:, None] - rows) ** 2).sum(1)
        scales, least = np.where(error < least, scale, scales), np.minimum(error, least)
    moved = np.moveaxis(values, axis, 0)
    rounded = _rounded(rows, scales).astype(np.int8).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis)), scales


def _rounded(rows: npt.NDArray[np.float64], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.rint(rows / scales.astype(np.float64)[:, None]).clip(-_STEPS, _STEPS)


def as_computed(model: ModelProto, tensors: Sequence[PackedTensor]) -> ModelProto:
    """Return the float32 graph that a page computes: with the stored weights, widened."""
    result = ModelProto()
    result.CopyFrom(model)
    widened = {tensor.name: tensor.widened() for tensor in tensors}
    for tensor in result.graph.initializer:
        if tensor.name in widened:
            tensor.CopyFrom(numpy_helper.from_array(widened[tensor.name], tensor.name))
    return result


def pack(source: "GeneratorSource", model: ModelProto, stored: "StoredWeights") -> tuple[bytes, ModelProto]:
    """Return the pack of a generator, the same bytes each time, and the float32 graph that the page computes with it.

    Args:
        source: the generator; its pixels are uint8 on both ends.
        model: its graph, from `export.to_onnx.float32_graph`.
        stored: how weights are stored.
    """
    tensors = packed_tensors(model, stored)
    computed = as_computed(model, tensors)
    parts = _Parts()
    described = [
        {
            "kind": stored,
            "count": tensor.values.size,
            "inner": int(np.prod(tensor.values.shape[tensor.axis + 1 :])),
            "channels": 0 if tensor.scales is None else len(tensor.scales),
            "scales": None if tensor.scales is None else parts.add(tensor.scales.astype("<f4").tobytes()),
            "values": parts.add(tensor.values.astype("<f2" if stored == "float16" else "i1").tobytes()),
        }
        for tensor in tensors
    ]
    samples, reference, expected_db = _check(source, computed)
    header = {
        "graph": parts.add(serialised(_without(computed, [tensor.name for tensor in tensors]))),
        "tensors": described,
        "check": {
            "side": CHECK_SIDE,
            "samples": parts.add(samples.tobytes()),
            "reference": parts.add(reference.astype("<u2").tobytes()),
            "expected_db": expected_db,
        },
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + bytes(parts.content), computed


class _Parts:
    """Collects parts, each of which begins at a multiple of 4 bytes, as JavaScript's arrays must."""

    def __init__(self) -> None:
        self.content = bytearray()

    def add(self, part: bytes) -> list[int]:
        """Append a part; return where it begins, and its length in bytes."""
        place = [len(self.content), len(part)]
        self.content += part + b"\0" * (-len(part) % 4)
        return place


def _without(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return the graph with the tensors `names` in external data, one behind the other in that order."""
    result = ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    begin = 0
    for name in names:
        tensor = tensors[name]
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", str(begin)), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        begin += length
    helper.set_model_props(result, {})
    return result


def _check(
    source: "GeneratorSource", computed: ModelProto
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], float]:
    """Return a picture, what PyTorch makes of it, and how near to that ONNX Runtime comes here, in dB."""
    import torch

    from export.pictures import photographs_as

    samples = photographs_as(source.ends.source)(1, CHECK_SIDE, CHECK_SIDE)
    with torch.inference_mode():
        exact = source.network(torch.from_numpy(to_signed_array(samples, source.ends.source))).numpy()
    reference = np.rint((exact[0].transpose(1, 2, 0).astype(np.float64) + 1) * _HALF_OF_UINT16).astype(np.uint16)
    found = in_onnxruntime(serialised(computed), samples, ends=source.ends)
    parity = Parity.between(found, in_own_units(exact, source.ends.target), source.ends.target)
    return samples[0], reference, round(min(parity.psnr_db, 120.0), 2)
