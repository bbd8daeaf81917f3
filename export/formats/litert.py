"""Makes LiteRT files (TensorFlow Lite's format) by litert-torch, and runs them in LiteRT's interpreter with XNNPACK.

litert-torch is no extra of this project: a package that it needs, xdsl 0.28.0, asks for typing-extensions before 4.13,
and tyro, which parses our command lines, for a later one. No choice of versions suits both, so pip refuses them
together; with a later typing-extensions both work.

litert-torch 0.10 converts no transposed convolution with an output padding ("failed to legalize mhlo.convolution"). It
is given plain convolutions in their place, which compute the same values.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cyclegan_fast.images.pixels import FloatImages
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial

if TYPE_CHECKING:
    from torch import nn

    from cyclegan_fast.networks.resnet import ResnetGenerator


class LiteRtFormat(ExportFormat):
    """Describes a .tflite file in float32, for one shape, [N, C, H, W] as everywhere here."""

    name = "litert"
    endings = (".tflite",)
    modules = ("litert_torch", "ai_edge_litert")
    install = "pip install litert-torch==0.10.0, in an environment of its own (docs/deployment.md, Every format)"
    runs_with = "LiteRT: Android, iOS, Linux, macOS, Windows, microcontrollers"
    taken = "one shape"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Convert the generator for one image of the usual side."""
        import litert_torch

        (path,) = self.paths(stem)
        network = without_transposed_convolutions(material.source.network)
        litert_torch.convert(network, (material.example(),)).export(str(path))

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the file in the interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        (path,) = self.paths(stem)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def run(images: FloatImages) -> FloatImages:
            interpreter.set_tensor(taken, images)
            interpreter.invoke()
            return np.array(interpreter.get_tensor(given))

        return run


def without_transposed_convolutions(network: "ResnetGenerator") -> "ResnetGenerator":
    """Return a copy of a generator that doubles sides by plain convolutions, to the same values.

    A transposed convolution w of 3x3, stride 2, padding 1 and output padding 1 gives, in one dimension,

        y[2i] = w[1] x[i],    y[2i + 1] = w[2] x[i] + w[0] x[i + 1],    x beyond the end = 0

    which is a convolution of two taps for even places and one for odd ones. Their channels are then put in their places
    (pixel shuffle).
    """
    from torch import nn

    result = copy.deepcopy(network)
    for level, convolution in enumerate(result.up):
        if isinstance(convolution, nn.ConvTranspose2d):
            result.up[level] = _by_places(convolution)
    return result.eval()


def _by_places(transposed: "nn.ConvTranspose2d") -> "nn.Sequential":
    import torch
    from torch import nn

    found = (transposed.kernel_size, transposed.stride, transposed.padding, transposed.output_padding)
    assert found == ((3, 3), (2, 2), (1, 1), (1, 1)), found
    inputs, outputs = transposed.in_channels, transposed.out_channels
    plain = nn.Conv2d(inputs, outputs * 4, 2, bias=transposed.bias is not None, dtype=transposed.weight.dtype)
    taps = ((0, 0, 1), (1, 0, 2), (1, 1, 0))  # of each: even or odd place, which neighbour is read, index in w
    with torch.no_grad():
        weight = torch.zeros(outputs, 2, 2, inputs, 2, 2, dtype=transposed.weight.dtype)
        for row, neighbour_below, of_row in taps:
            for column, neighbour_right, of_column in taps:
                weight[:, row, column, :, neighbour_below, neighbour_right] = transposed.weight[
                    :, :, of_row, of_column
                ].T
        plain.weight.copy_(weight.reshape(plain.weight.shape))
        if transposed.bias is not None and plain.bias is not None:
            plain.bias.copy_(transposed.bias.repeat_interleave(4))
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), plain, nn.PixelShuffle(2))
