"""Measures how much of an 8-bit graph's parity each layer costs, and says which to keep in float16."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from onnx import ModelProto

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.system.progress import progress_bar
from export.graphs.graph import CONVOLUTIONS, serialised
from export.graphs.quantisation import quantised, ranges_of
from export.options import EightBits
from export.parity import BARS, Parity, in_onnxruntime, in_pytorch
from export.pixel_ends import RGB_ENDS, PixelEnds
from export.to_onnx import float32_graph

if TYPE_CHECKING:
    from cyclegan_fast.networks.resnet import ResnetGenerator


def by_layer(
    network: "ResnetGenerator",
    model: ModelProto,
    precision: EightBits,
    samples: SampleArray,
    ends: PixelEnds = RGB_ENDS,
) -> dict[str, Parity]:
    """Return, for each layer that `model` has in 8 bits, the parity with all other layers in float16.

    The costliest layers stand first. This takes as many translations of `samples` as there are layers.
    """
    ranges, graph = ranges_of(model, precision), float32_graph(network)
    layers = {node.name for node in graph.graph.node if node.op_type in CONVOLUTIONS}
    expected = in_pytorch(network, samples, ends)
    found = {}
    for layer in progress_bar(ranges, desc="layer by layer", unit=" layers", leave=False):
        one = quantised(graph, precision, ranges, keep=layers - {layer})
        found[layer] = Parity.between(in_onnxruntime(serialised(one), samples, ends=ends), expected, ends.target)
    return dict(sorted(found.items(), key=lambda entry: entry[1].psnr_db))


def to_keep(parities: Mapping[str, Parity], whole: Parity, precision: EightBits) -> list[str]:
    """Return the costliest layers without which the rest should reach the bar.

    Errors of layers are taken to be independent: their mean squares add up. Where they do not, `whole`, the parity of
    all layers together, says by how much.
    """
    squares = {layer: 10 ** (-parity.psnr_db / 10) for layer, parity in parities.items()}
    allowed, joint = (10 ** (-psnr_db / 10) for psnr_db in (BARS[precision].psnr_db, whole.psnr_db))
    scale = max(1.0, joint / (math.fsum(squares.values()) or math.inf))
    keep: list[str] = []
    while scale * math.fsum(square for layer, square in squares.items() if layer not in keep) > allowed:
        keep.append(next(layer for layer in squares if layer not in keep))
    return keep


def sensitivity_report(
    network: "ResnetGenerator",
    model: ModelProto,
    precision: EightBits,
    samples: SampleArray,
    whole: Parity,
    ends: PixelEnds = RGB_ENDS,
) -> Iterator[str]:
    """Yield lines for the user of a graph that falls short: the parity layer by layer, and which layers to keep."""
    parities = by_layer(network, model, precision, samples, ends)
    yield f"each layer alone in {precision}, the costliest first:"
    width = max(map(len, parities))
    for layer, parity in parities.items():
        yield f"  {layer:<{width}}  {parity}"
    kept = [node.name for node in model.graph.node if node.op_type in CONVOLUTIONS and node.name not in parities]
    keep = to_keep(parities, whole, precision)
    if len(keep) < len(parities) and not math.isnan(whole.psnr_db):
        yield f"what should reach the bar: --keep-float16 {' '.join([*kept, *keep])}"
    else:
        yield "no choice of layers reaches the bar: --precision float16"
