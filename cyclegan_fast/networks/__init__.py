"""The networks: generators (ResNet, U-Net) and discriminators (PatchGAN), and the layers that they are made of."""

from cyclegan_fast.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator

__all__ = ["PatchDiscriminator", "PixelDiscriminator", "ResnetGenerator", "UnetGenerator"]
