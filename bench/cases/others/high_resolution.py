"""Transcribes pix2pixHD's global generator (Wang et al. 2018, arXiv 1711.11585)."""

from torch import Tensor, nn


class GlobalGenerator(nn.Module):
    """Translates images by a ResNet at a sixteenth of their sides; all its ReLUs are one module, done in place."""

    def __init__(self, width: int = 64, *, downs: int = 4, blocks: int = 9) -> None:
        super().__init__()
        activation = nn.ReLU(True)
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), activation]
        for scale in range(downs):
            channels = width * 2**scale
            layers += [nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1)]
            layers += [nn.InstanceNorm2d(channels * 2), activation]
        layers += [GlobalBlock(width * 2**downs, activation) for _ in range(blocks)]
        for scale in range(downs, 0, -1):
            channels = width * 2**scale
            layers += [nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)]
            layers += [nn.InstanceNorm2d(channels // 2), activation]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Return the translated images for [N, 3, H, W]; sides are multiples of 2^`downs`."""
        translated: Tensor = self.model(image)
        return translated


class GlobalBlock(nn.Module):
    """Computes x + norm(conv(pad(relu(norm(conv(pad(x)))))))."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            activation,
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x [N, channels, H, W], in the same shape."""
        return x + self.conv_block(x)  # type: ignore[no-any-return]  # a Sequential's result is untyped
