"""Builds the original implementation's networks in plain PyTorch, their modules at the places that give its keys.

They share no code with `cyclegan_fast`.
"""

import torch
from torch import Tensor, nn


def norm_layer(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=True, track_running_stats=True)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)
    return nn.Identity()


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, norm: str, dropout: bool) -> None:
        super().__init__()
        biased = norm == "instance"
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=biased),
            norm_layer(norm, channels),
            nn.ReLU(True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=biased),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class Row(nn.Module):
    """Layers in a row, called `model` or, in a pixel discriminator, `net`."""

    def __init__(self, layers: list[nn.Module], name: str = "model") -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(self.name)(x)
        return result


def resnet(width: int, blocks: int, norm: str, *, dropout: bool = False, channels: tuple[int, int] = (3, 3)) -> Row:
    biased = norm == "instance"
    taken, given = channels
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(taken, width, 7, bias=biased)]
    layers += [norm_layer(norm, width), nn.ReLU(True)]
    for inputs in (width, width * 2):
        layers.append(nn.Conv2d(inputs, inputs * 2, 3, stride=2, padding=1, bias=biased))
        layers += [norm_layer(norm, inputs * 2), nn.ReLU(True)]
    layers += [ResnetBlock(width * 4, norm, dropout) for _ in range(blocks)]
    for inputs in (width * 4, width * 2):
        layers.append(nn.ConvTranspose2d(inputs, inputs // 2, 3, stride=2, padding=1, output_padding=1, bias=biased))
        layers += [norm_layer(norm, inputs // 2), nn.ReLU(True)]
    return Row([*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, given, 7), nn.Tanh()])


class UnetBlock(nn.Module):
    def __init__(
        self,
        outer: int,
        inner: int,
        norm: str,
        inside: nn.Module | None,
        *,
        taken: int | None = None,
        outermost: bool = False,
        dropout: bool,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        biased = norm == "instance"
        down = nn.Conv2d(taken or outer, inner, 4, stride=2, padding=1, bias=biased)
        joined = inner if inside is None else inner * 2
        up = nn.ConvTranspose2d(joined, outer, 4, stride=2, padding=1, bias=biased or outermost)
        if outermost:
            assert inside is not None
            layers = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm_layer(norm, outer)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, norm_layer(norm, inner), inside]
            layers += [nn.ReLU(True), up, norm_layer(norm, outer), *([nn.Dropout(0.5)] if dropout else [])]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result if self.outermost else torch.cat([x, result], 1)


def unet(width: int, halvings: int, norm: str, *, dropout: bool = False, channels: tuple[int, int] = (3, 3)) -> Row:
    block = UnetBlock(width * 8, width * 8, norm, None, dropout=False)
    for _ in range(halvings - 5):
        block = UnetBlock(width * 8, width * 8, norm, block, dropout=dropout)
    for outer in (width * 4, width * 2, width):
        block = UnetBlock(outer, outer * 2, norm, block, dropout=False)
    taken, given = channels
    outermost = UnetBlock(given, width, norm, block, taken=taken, outermost=True, dropout=False)
    row = Row([])
    row.model = outermost  # the original keeps the outermost block as its model, without a row around it
    return row


def patch(width: int, n_layers: int, norm: str, *, channels: int = 3) -> Row:
    biased = norm == "instance"
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    before = 1
    for layer in range(1, n_layers + 1):
        after = min(2**layer, 8)
        stride = 2 if layer < n_layers else 1
        layers.append(nn.Conv2d(width * before, width * after, 4, stride=stride, padding=1, bias=biased))
        layers += [norm_layer(norm, width * after), nn.LeakyReLU(0.2, True)]
        before = after
    return Row([*layers, nn.Conv2d(width * before, 1, 4, stride=1, padding=1)])


def pixel(width: int, norm: str, *, channels: int = 3) -> Row:
    biased = norm == "instance"
    return Row(
        [
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, width * 2, 1, bias=biased),
            norm_layer(norm, width * 2),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width * 2, 1, 1, bias=biased),
        ],
        "net",
    )


def trained(network: nn.Module, seed: int = 0, side: int = 64, channels: int = 3) -> nn.Module:
    """Return the network in float64, no two tensors alike, its batch norms with running statistics of two batches."""
    torch.manual_seed(seed)
    network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.3)
    for _ in range(2):
        network(torch.rand(2, channels, side, side, dtype=torch.float64) * 2 - 1)
    return network
