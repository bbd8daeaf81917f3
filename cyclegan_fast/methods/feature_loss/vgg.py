"""Computes activations of VGG-16 and VGG-19 (Simonyan & Zisserman 2015), which compare what images show.

It reads torchvision's files of their ImageNet weights, without torchvision.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.kernels.dispatch import wide
from cyclegan_fast.system.errors import UserError

Depth = Literal[16, 19]
Pooling = Literal["max", "average"]
_Network = TypeVar("_Network", bound=nn.Module)

STAGES: dict[Depth, tuple[int, ...]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""The number of convolutions of each stage (Simonyan & Zisserman 2015, table 1, columns D and E)."""
WIDTHS = (64, 128, 256, 512, 512)
FILES: dict[Depth, str] = {16: "vgg16-397923af.pth", 19: "vgg19-dcbb9e9d.pth"}
DIMENSIONS = {"weight": 4, "bias": 1}  # the numbers of dimensions of a convolution's tensors
URL = "https://download.pytorch.org/models/"

# The statistics of images in [0, 1] that torchvision's weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Vgg(nn.Module):
    """Computes stages of 3x3 convolutions, each with a ReLU, and a pooling that halves the sides between stages.

    Args:
        stages: the number of convolutions of each stage.
        widths: the channels of each stage.
        pooling: "max" is the published network's; "average" gives smoother pictures where pictures are optimised
            through the network (Gatys et al. 2016, section 2).
    """

    def __init__(
        self, stages: Sequence[int] = STAGES[16], widths: Sequence[int] = WIDTHS, pooling: Pooling = "max"
    ) -> None:
        super().__init__()
        self.pooling = pooling
        channels = [3, *(width for width, count in zip(widths, stages, strict=True) for _ in range(count))]
        self.convolutions = nn.ModuleDict(
            {
                place: nn.Conv2d(before, after, 3, padding=1)
                for place, (before, after) in zip(_places(stages), itertools.pairwise(channels), strict=True)
            }
        )

    @property
    def activations(self) -> list[str]:
        """Return the names of all activations by depth: "relu2_1" follows the first convolution of the second stage."""
        return [f"relu{place}" for place in self.convolutions]

    def forward(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the activations of these names; nothing deeper than the last of them is computed.

        images: [N, 3, H, W] in [-1, 1]. Returns [N, C, H / 2^(stage - 1), W / 2^(stage - 1)], sides rounded down, in
        the weights' dtype. Raises ValueError for a name that this network does not have.
        """
        wanted = set(names)
        if not wanted <= {*self.activations}:
            unknown = ", ".join(sorted(wanted.difference(self.activations)))
            raise ValueError(f"no activation {unknown}: this network has {', '.join(self.activations)}")
        x = _normalised(images).to(next(self.parameters()).dtype)
        found: dict[str, Tensor] = {}
        for place, convolution in self.convolutions.items():
            if len(found) == len(wanted):
                break
            if place.endswith("_1") and place != "1_1":
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            x = F.relu(convolution(x))
            if f"relu{place}" in wanted:
                found[f"relu{place}"] = x
        return found


def _places(stages: Sequence[int]) -> list[str]:
    """Return the place of each convolution: "1_1", "1_2", "2_1" and on."""
    return [f"{stage}_{index}" for stage, count in enumerate(stages, 1) for index in range(1, count + 1)]


def _normalised(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean from images [N, 3, H, W] in [-1, 1] and divide by its deviation, channel by channel.

    Returns float32, or float64 from float64. The constants are no tensors: tensors would be rounded where a network is
    cast to low precision, and copied to the device within a recorded CUDA graph.
    """
    channels = zip(wide(images).unbind(1), IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)
    return torch.stack([(channel / 2 + (0.5 - mean)) / deviation for channel, mean, deviation in channels], 1)


class VggActivation(nn.Module):
    """Computes always the same activation of a network: [N, 3, H, W] in [-1, 1] -> [N, C, h, w]."""

    def __init__(self, network: Vgg, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, images: Tensor) -> Tensor:
        found: dict[str, Tensor] = self.network(images, [self.name])
        return found[self.name]


def load_vgg(path: Path, depth: Depth, pooling: Pooling = "max") -> Vgg:
    """Read a VGG in eval mode from torchvision's file of weights; its classifier is not read.

    The file decides about the channels. Raises UserError where it is missing, damaged, or another network's.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: the weights of VGG-{depth} are {URL}{FILES[depth]}; fetch them, and name it")
    state = checkpoint.load(path)
    weights = {str(key): value for key, value in state.items() if str(key).startswith("features.")}
    found = _what_it_is(weights)
    if found != f"a VGG-{depth}":
        raise UserError(f"{path} holds {found}, not the VGG-{depth} of torchvision: give {FILES[depth]} ({URL})")
    indices = _places_in_file(STAGES[depth])
    ours = dict(zip(indices, _places(STAGES[depth]), strict=True))
    named = {}
    for key, value in weights.items():
        _, index, kind = key.split(".")
        named[f"convolutions.{ours[index]}.{kind}"] = value
    widths = [len(named[f"convolutions.{stage}_1.weight"]) for stage in range(1, len(STAGES[depth]) + 1)]
    network = blank(Vgg, STAGES[depth], widths, pooling)
    checkpoint.load_weights(network, named, str(path))
    return network.eval()


def _places_in_file(stages: Sequence[int]) -> Iterator[str]:
    """Yield the indices of convolutions in torchvision's `features`, which count ReLUs and poolings as well."""
    index = 0
    for count in stages:
        for _ in range(count):
            yield str(index)
            index += 2
        index += 1


def _what_it_is(weights: dict[str, Any]) -> str:
    for depth, stages in STAGES.items():
        if weights.keys() == {
            f"features.{index}.{kind}" for index in _places_in_file(stages) for kind in DIMENSIONS
        } and all(
            isinstance(value, Tensor) and value.dim() == DIMENSIONS[key.split(".")[2]] for key, value in weights.items()
        ):
            return f"a VGG-{depth}"
    return "another network"


def blank(make: type[_Network], *arguments: Any) -> _Network:
    """Make a network whose weights are not set yet; it draws nothing from the global generator, as constructors do."""
    with torch.device("meta"):
        network = make(*arguments)
    return network.to_empty(device="cpu")
