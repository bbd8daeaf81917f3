"""Transcribes the network of fast style transfer (Johnson et al. 2016, arXiv 1603.08155) with instance norms."""

import torch.nn.functional as F
from torch import Tensor, nn


class StyleNetwork(nn.Module):
    """Gives images a style; its norms have trained parameters, unless they are told not to."""

    def __init__(self, width: int = 32, affine: bool = True, *, blocks: int = 5) -> None:
        super().__init__()
        self.conv1 = PaddedConvolution(3, width, 9)
        self.in1 = nn.InstanceNorm2d(width, affine=affine)
        self.conv2 = PaddedConvolution(width, width * 2, 3, stride=2)
        self.in2 = nn.InstanceNorm2d(width * 2, affine=affine)
        self.conv3 = PaddedConvolution(width * 2, width * 4, 3, stride=2)
        self.in3 = nn.InstanceNorm2d(width * 4, affine=affine)
        self.blocks = nn.Sequential(*(StyleBlock(width * 4, affine) for _ in range(blocks)))
        self.deconv1 = PaddedConvolution(width * 4, width * 2, 3, upsample=2)
        self.in4 = nn.InstanceNorm2d(width * 2, affine=affine)
        self.deconv2 = PaddedConvolution(width * 2, width, 3, upsample=2)
        self.in5 = nn.InstanceNorm2d(width, affine=affine)
        self.deconv3 = PaddedConvolution(width, 3, 9)
        self.relu = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """Return images for [N, 3, H, W], in the same shape; sides are multiples of 4."""
        y = self.relu(self.in1(self.conv1(image)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.relu(self.in3(self.conv3(y)))
        y = self.blocks(y)
        y = self.relu(self.in4(self.deconv1(y)))
        y = self.relu(self.in5(self.deconv2(y)))
        return self.deconv3(y)  # type: ignore[no-any-return]  # a module's result is untyped


class PaddedConvolution(nn.Module):
    """Enlarges where it is told to, pads by reflection, and convolves."""

    def __init__(self, channels: int, outputs: int, size: int, *, stride: int = 1, upsample: int = 1) -> None:
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(size // 2)
        self.conv2d = nn.Conv2d(channels, outputs, size, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to [N, outputs, H * upsample / stride, W * upsample / stride]."""
        if self.upsample > 1:
            x = F.interpolate(x, scale_factor=self.upsample, mode="nearest")
        return self.conv2d(self.reflection_pad(x))  # type: ignore[no-any-return]  # as above


class StyleBlock(nn.Module):
    """Computes norm(conv(pad(relu(norm(conv(pad(x))))))) + x."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = PaddedConvolution(channels, channels, 3)
        self.in1 = nn.InstanceNorm2d(channels, affine=affine)
        self.conv2 = PaddedConvolution(channels, channels, 3)
        self.in2 = nn.InstanceNorm2d(channels, affine=affine)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x [N, channels, H, W], in the same shape."""
        residual = x
        out = self.relu(self.in1(self.conv1(x)))
        out = self.in2(self.conv2(out))
        return out + residual  # type: ignore[no-any-return]  # as above
