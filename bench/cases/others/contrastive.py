"""Transcribes CUT's generator (Park et al. 2020, arXiv 2007.15651): a ResNet whose sampling is blurred (Zhang 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContrastiveGenerator(nn.Module):
    """Translates images, and gives features of chosen layers; which ones is decided while it runs."""

    def __init__(self, width: int = 64, *, blocks: int = 9) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, width, 7),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
        ]
        for channels in (width, width * 2):
            layers += [
                nn.Conv2d(channels, channels * 2, 3, padding=1),
                nn.InstanceNorm2d(channels * 2),
                nn.ReLU(True),
                BlurredHalving(channels * 2),
            ]
        layers += [ContrastiveBlock(width * 4) for _ in range(blocks)]
        for channels in (width * 4, width * 2):
            layers += [
                BlurredDoubling(channels),
                nn.Conv2d(channels, channels // 2, 3, padding=1),
                nn.InstanceNorm2d(channels // 2),
                nn.ReLU(True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor, layers: tuple[int, ...] = (), encode_only: bool = False) -> object:
        """Return the translated images, with `layers` also the results of these; alone those if `encode_only`."""
        if len(layers) == 0:
            return self.model(image)
        features = []
        for index, layer in enumerate(self.model):
            image = layer(image)
            if index in layers:
                features.append(image)
            if index == layers[-1] and encode_only:
                return features
        return image, features


class ContrastiveBlock(nn.Module):
    """Computes x + norm(conv(pad(relu(norm(conv(pad(x)))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x [N, channels, H, W], in the same shape."""
        return x + self.conv_block(x)  # type: ignore[no-any-return]  # a Sequential's result is untyped


class BlurredHalving(nn.Module):
    """Halves both sides behind a blur by (1, 2, 1)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d([1, 1, 1, 1])  # type: ignore[arg-type]  # a list, as the original has it
        self.register_buffer("filt", _blur((1.0, 2.0, 1.0), channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to half the sides."""
        return F.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])


class BlurredDoubling(nn.Module):
    """Doubles both sides, and blurs by (1, 3, 3, 1)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = nn.ReplicationPad2d([1, 1, 1, 1])  # type: ignore[arg-type]  # as above
        self.register_buffer("filt", _blur((1.0, 3.0, 3.0, 1.0), channels) * 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to twice the sides."""
        doubled = F.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=2, groups=x.shape[1])
        return doubled[:, :, 1:, 1:][:, :, :-1, :-1]


def _blur(weights: tuple[float, ...], channels: int) -> Tensor:
    row = torch.tensor(weights)
    kernel = row[:, None] * row[None, :]
    return (kernel / kernel.sum())[None, None].repeat(channels, 1, 1, 1)
