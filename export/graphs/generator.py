"""Makes the ONNX graph of a generator, layer by layer as `ResnetGenerator.forward` goes through them.

PyTorch's exporter makes the same graph, which `tests/export/graphs/test_generator.py` shows; its tracing takes ten
seconds, of which this file needs none.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.graphs.graph import finished
from export.graphs.interface import INPUT, OUTPUT

if TYPE_CHECKING:
    from cyclegan_fast.config.options import Norm
    from cyclegan_fast.networks.resnet import ResnetGenerator

OPSET = 20
EPSILON = 1e-5
"""Keeps the root of a variance from zero: every norm adds it."""


def generator_graph(network: "ResnetGenerator") -> ModelProto:
    """Return the graph of a generator in float32, checked, of any batch, height and width.

    A convolution is named as in the network, `blocks.0.conv1`. Nodes before it are its `.resize` and its `.pad`, those
    behind it its `.norm`, `.relu` and, for the sum around a residual block, `.sum`. Batch norms go by each image's own
    statistics, as instance norms with parameters; running ones are folded away before (`export.graphs.folding`).
    """
    weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
    graph = _Layers(weights, network.norm)
    by_resizing = network.upsampling == "resize"
    x = graph.convolution(graph.pad(INPUT, "stem", 3), "stem", "stem_norm")
    x = graph.relu(x, "stem")
    for level in (0, 1):
        x = graph.convolution(x, f"down.{level}", f"down_norms.{level}", stride=2, padding=1)
        x = graph.relu(x, f"down.{level}")
    for block in range(len(network.blocks)):
        first, second = (f"blocks.{block}.conv{half}" for half in (1, 2))
        middle = graph.convolution(graph.pad(x, first, 1), first, f"blocks.{block}.norm1")
        middle = graph.pad(graph.relu(middle, first), second, 1)
        last = graph.convolution(middle, second, f"blocks.{block}.norm2")
        x = graph.node("Add", [last, x], f"{second}.sum")
    for level in (0, 1):
        layer, norm = f"up.{level}", f"up_norms.{level}"
        if by_resizing:
            x = graph.convolution(graph.pad(graph.doubled(x, layer), layer, 1), layer, norm)
        else:
            x = graph.convolution(x, layer, norm, stride=2, padding=1, output_padding=1)
        x = graph.relu(x, layer)
    x = graph.convolution(graph.pad(x, "head", 3), "head", "")
    graph.node("Tanh", [x], "head.tanh", OUTPUT)
    return graph.model(network.stem.in_channels, network.head.out_channels)


class _Layers:
    """Collects nodes in the order in which they are computed, and the tensors that they read.

    `weights` are those of a network by their names, `norm` is its kind of norm.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], norm: "Norm") -> None:
        self.weights, self.norm = weights, norm
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, npt.NDArray[Any]] = {}

    def node(self, operator: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Any) -> str:
        """Append a node, and return the name of its result, which is its own unless `output` is given."""
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def tensor(self, name: str, values: npt.NDArray[Any] | None = None) -> str:
        """Have a tensor in the graph, a weight of the network unless `values` are given, and return its name."""
        self.tensors[name] = self.weights[name] if values is None else values
        return name

    def pad(self, x: str, layer: str, by: int) -> str:
        """Pad x by reflection in front of a convolution."""
        amounts = self.tensor(f"pad_by_{by}", np.array([0, 0, by, by, 0, 0, by, by], np.int64))
        return self.node("Pad", [x, amounts], f"{layer}.pad", mode="reflect")

    def doubled(self, x: str, layer: str) -> str:
        """Repeat each pixel of x twice, downwards and to the right."""
        factors = self.tensor("doubling", np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize",
            [x, "", factors],
            f"{layer}.resize",
            coordinate_transformation_mode="asymmetric",
            mode="nearest",
            nearest_mode="floor",
        )

    def convolution(
        self, x: str, layer: str, norm: str, *, stride: int = 1, padding: int = 0, output_padding: int | None = None
    ) -> str:
        """Convolve x, and normalise it by the module `norm`, "" for none; with `output_padding` transposed."""
        weight, is_normalised = self.tensor(f"{layer}.weight"), bool(norm) and self.norm != "none"
        inputs = [x, weight]
        if f"{layer}.bias" in self.weights and not is_normalised:  # a norm takes away what a bias adds
            inputs.append(self.tensor(f"{layer}.bias"))
        kernel = self.weights[weight].shape[2:]
        sizes: dict[str, Any] = {"kernel_shape": kernel, "pads": 4 * [padding], "strides": 2 * [stride]}
        if output_padding is None:
            x, channels = self.node("Conv", inputs, layer, **sizes), self.weights[weight].shape[0]
        else:
            x = self.node("ConvTranspose", inputs, layer, output_padding=2 * [output_padding], **sizes)
            channels = self.weights[weight].shape[1]
        return self.normalised(x, layer, norm, channels) if is_normalised else x

    def normalised(self, x: str, layer: str, norm: str, channels: int) -> str:
        """Normalise each channel of each image; only batch norms have parameters."""
        if self.norm == "batch":
            scale, shift = self.tensor(f"{norm}.weight"), self.tensor(f"{norm}.bias")
        else:
            scale = self.tensor(f"ones_{channels}", np.ones(channels, np.float32))
            shift = self.tensor(f"zeros_{channels}", np.zeros(channels, np.float32))
        return self.node("InstanceNormalization", [x, scale, shift], f"{layer}.norm", epsilon=EPSILON)

    def relu(self, x: str, layer: str) -> str:
        return self.node("Relu", [x], f"{layer}.relu")

    def model(self, inputs: int, outputs: int) -> ModelProto:
        """Return the graph of all nodes, from images of `inputs` channels to images of `outputs` channels."""
        image, translated = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, "height", "width"])
            for name, channels in ((INPUT, inputs), (OUTPUT, outputs))
        )
        tensors = [onnx.numpy_helper.from_array(values, name) for name, values in self.tensors.items()]
        return finished(helper.make_graph(self.nodes, "generator", [image], [translated], tensors), OPSET)
