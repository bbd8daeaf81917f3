"""Transcribes the U-Net and the 1x1 discriminator of pix2pix (Isola et al. 2017, arXiv 1611.07004)."""

import torch
from torch import Tensor, nn


class SkipUNet(nn.Module):
    """Translates images by convolutions down to 1/2^`downs` and up again, each level beside what it was made from."""

    def __init__(self, width: int = 64, *, downs: int = 8) -> None:
        super().__init__()
        level: nn.Module = _Level(width * 8, width * 8, "innermost")
        for _ in range(downs - 5):
            level = _Level(width * 8, width * 8, "between", level)
        for scale in (4, 2, 1):
            level = _Level(width * scale, width * scale * 2, "between", level)
        self.model = _Level(3, width, "outermost", level)

    def forward(self, image: Tensor) -> Tensor:
        """Return the translated images for [N, 3, H, W]; sides are multiples of 2^`downs`."""
        translated: Tensor = self.model(image)
        return translated


class _Level(nn.Module):
    def __init__(self, outer: int, inner: int, place: str, submodule: nn.Module | None = None) -> None:
        super().__init__()
        self.outermost = place == "outermost"
        down: list[nn.Module] = [nn.Conv2d(outer, inner, 4, stride=2, padding=1)]
        joined = inner if place == "innermost" else inner * 2
        up: list[nn.Module] = [nn.ReLU(True), nn.ConvTranspose2d(joined, outer, 4, stride=2, padding=1)]
        if self.outermost:
            up += [nn.Tanh()]
        else:
            down = [nn.LeakyReLU(0.2, True), *down]
            up += [nn.InstanceNorm2d(outer)]
        if place == "between":
            down += [nn.InstanceNorm2d(inner)]
        self.model = nn.Sequential(*down, *([] if submodule is None else [submodule]), *up)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)  # type: ignore[no-any-return]  # a Sequential's result is untyped
        # The activation in front of the model is done in place: what goes around has it as well.
        return torch.cat([x, self.model(x)], 1)


class PixelwiseDiscriminator(nn.Module):
    """Scores each pixel by itself."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, width * 2, 1),
            nn.InstanceNorm2d(width * 2),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width * 2, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return scores [N, 1, H, W] for images [N, 3, H, W]."""
        scores: Tensor = self.net(image)
        return scores
