"""Transcribes a 2D U-Net as nnU-Net plans it (Isensee et al. 2021): instance norms, leaky ReLUs of 0.01."""

import torch
from torch import Tensor, nn


class SegmentationUNet(nn.Module):
    """Gives a score to each class at each pixel; its norms have trained parameters, unless they are told not to."""

    def __init__(self, width: int = 32, affine: bool = True, *, stages: int = 5, classes: int = 4) -> None:
        super().__init__()
        channels = [min(512, width * 2**stage) for stage in range(stages)]
        self.encoder = nn.ModuleList(
            _stage(before, after, affine, stride=1 if stage == 0 else 2)
            for stage, (before, after) in enumerate(zip([3, *channels], channels, strict=False))
        )
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for below, above in pairs)
        self.decoder = nn.ModuleList(_stage(above * 2, above, affine, stride=1) for _, above in pairs)
        self.seg_layer = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return scores [N, classes, H, W] for images [N, 3, H, W]; sides are multiples of 2^(stages - 1)."""
        skips = []
        for stage in self.encoder:
            image = stage(image)
            skips.append(image)
        x = skips.pop()
        for enlarge, stage in zip(self.transpconvs, self.decoder, strict=True):
            x = stage(torch.cat((enlarge(x), skips.pop()), 1))
        return self.seg_layer(x)  # type: ignore[no-any-return]  # a module's result is untyped


def _stage(before: int, after: int, affine: bool, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _ConvolutionNormActivation(before, after, affine, stride), _ConvolutionNormActivation(after, after, affine, 1)
    )


class _ConvolutionNormActivation(nn.Module):
    def __init__(self, before: int, after: int, affine: bool, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1)
        self.norm = nn.InstanceNorm2d(after, eps=1e-5, affine=affine)
        self.nonlin = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin(self.norm(self.conv(x)))  # type: ignore[no-any-return]  # as above
