"""Defines the networks: generators (ResNet, U-Net), discriminators (PatchGAN), and the layers that they are made of.

Users import these names from here. The fused operators that the layers call are in kernels/; the networks of a single
baseline are beside it in methods/.
"""

from cyclegan_fast.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator

__all__ = ["PatchDiscriminator", "PixelDiscriminator", "ResnetGenerator", "UnetGenerator"]
