"""Holds transcriptions of networks of other projects that have instance norms, for `accelerate` to be tried on.

They follow the structure of the papers' implementations: modules, their order, names where state dicts need them, what
is done in place, and the control flow of `forward`. `bench.cases.plain_cyclegan` has CycleGAN's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from bench.cases.others.contrastive import ContrastiveGenerator
from bench.cases.others.high_resolution import GlobalGenerator
from bench.cases.others.segmentation import SegmentationUNet
from bench.cases.others.skip_unet import PixelwiseDiscriminator, SkipUNet
from bench.cases.others.style import StyleNetwork
from bench.cases.others.with_attention import AttentionGenerator
from bench.cases.plain_cyclegan import PlainDiscriminator, PlainGenerator


@dataclass(frozen=True)
class OtherNetwork:
    """Names a network, and says how to make it as wide as its paper's, or narrower."""

    name: str
    make: Callable[[int], nn.Module]
    """called with the channels of the first convolution"""
    width: int
    """those of the paper"""
    side: int = 256
    """pixels of its images"""


OTHER_NETWORKS = (
    OtherNetwork("CycleGAN, ResNet of 9 blocks", lambda width: PlainGenerator(width=width), 64),
    OtherNetwork("CycleGAN, PatchGAN", lambda width: PlainDiscriminator(width=width), 64),
    OtherNetwork("pix2pix, U-Net", lambda width: SkipUNet(width), 64),
    OtherNetwork("pix2pix, 1x1 discriminator", PixelwiseDiscriminator, 64),
    OtherNetwork("CUT, ResNet with blurred sampling", lambda width: ContrastiveGenerator(width), 64),
    OtherNetwork("pix2pixHD, global generator", lambda width: GlobalGenerator(width), 64, side=512),
    OtherNetwork("U-GAT-IT, generator with light attention", lambda width: AttentionGenerator(width), 64),
    OtherNetwork("Johnson's style network", lambda width: StyleNetwork(width), 32),
    OtherNetwork("Johnson's style network, norms without parameters", lambda width: StyleNetwork(width, False), 32),
    OtherNetwork("nnU-Net in 2D", lambda width: SegmentationUNet(width), 32),
    OtherNetwork("nnU-Net in 2D, norms without parameters", lambda width: SegmentationUNet(width, False), 32),
)
