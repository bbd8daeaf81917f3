"""Transcribes U-GAT-IT's generator (Kim et al. 2020, arXiv 1907.10830): a ResNet's encoder, attention, and a decoder.

Attention weighs channels by the weights of two classifiers, which `forward` takes from their layers; the decoder's
norms have parameters that the attention computes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionGenerator(nn.Module):
    """Translates images; returns the translation, the logits of the classifiers, and a heat map."""

    def __init__(self, width: int = 64, *, blocks: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, width, 7, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
        ]
        for channels in (width, width * 2):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels * 2, 3, stride=2, bias=False)]
            layers += [nn.InstanceNorm2d(channels * 2), nn.ReLU(True)]
        wide = width * 4
        layers += [_EncoderBlock(wide) for _ in range(blocks)]
        self.DownBlock = nn.Sequential(*layers)
        self.gap_fc = nn.Linear(wide, 1, bias=False)
        self.gmp_fc = nn.Linear(wide, 1, bias=False)
        self.conv1x1 = nn.Conv2d(wide * 2, wide, 1)
        self.relu = nn.ReLU(True)
        self.FC = nn.Sequential(
            nn.Linear(wide, wide, bias=False), nn.ReLU(True), nn.Linear(wide, wide, bias=False), nn.ReLU(True)
        )
        self.gamma = nn.Linear(wide, wide, bias=False)
        self.beta = nn.Linear(wide, wide, bias=False)
        self.UpBlock1 = nn.ModuleList(_DecoderBlock(wide) for _ in range(blocks))
        self.UpBlock2 = nn.Sequential(
            *_doubling(wide), *_doubling(width * 2), nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images [N, 3, H, W], logits [N, 2] and heat maps [N, 1, H/4, W/4] for images; H, W multiples of 4."""
        x = self.DownBlock(image)
        pooled = F.adaptive_avg_pool2d(x, 1)
        mean_logit = self.gap_fc(pooled.view(x.shape[0], -1))
        by_mean = x * next(iter(self.gap_fc.parameters())).unsqueeze(2).unsqueeze(3)
        largest = F.adaptive_max_pool2d(x, 1)
        largest_logit = self.gmp_fc(largest.view(x.shape[0], -1))
        by_largest = x * next(iter(self.gmp_fc.parameters())).unsqueeze(2).unsqueeze(3)
        logits = torch.cat([mean_logit, largest_logit], 1)
        x = self.relu(self.conv1x1(torch.cat([by_mean, by_largest], 1)))
        heat = torch.sum(x, dim=1, keepdim=True)
        style = self.FC(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1))
        gamma, beta = self.gamma(style), self.beta(style)
        for block in self.UpBlock1:
            x = block(x, gamma, beta)
        return torch.tanh(self.UpBlock2(x)), logits, heat


class _EncoderBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # type: ignore[no-any-return]  # a Sequential's result is untyped


class _DecoderBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        y = F.relu(self._norm(self.conv1(self.pad(x)), gamma, beta))
        return self._norm(self.conv2(self.pad(y)), gamma, beta) + x

    def _norm(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        mixed = _mixed_norm(x, self.rho)
        return mixed * gamma.unsqueeze(2).unsqueeze(3) + beta.unsqueeze(2).unsqueeze(3)


class _LayerInstanceNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _mixed_norm(x, self.rho) * self.gamma + self.beta


def _mixed_norm(x: Tensor, rho: Tensor) -> Tensor:
    """Mix an instance norm and a layer norm, both written out as the original has them."""
    parts = []
    for axes in ((2, 3), (1, 2, 3)):
        variance, mean = torch.var_mean(x, axes, keepdim=True)
        parts.append((x - mean) / torch.sqrt(variance + 1e-5))
    return rho * parts[0] + (1 - rho) * parts[1]


def _doubling(channels: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels, channels // 2, 3, bias=False),
        _LayerInstanceNorm(channels // 2),
        nn.ReLU(True),
    ]
