"""Trains CycleGAN in plain PyTorch: the benchmark's opponent, and the reference that tests compare one update with.

A straight transcription of the contract in the manner of the paper's authors' implementation: modules in a row, six
generator passes one after the other, real and generated images judged separately. It shares no code with
`cyclegan_fast` and `kernels`, so that agreement means something, and its state dicts carry the original's keys.

G_A maps A to B, G_B maps B to A, D_A judges B, D_B judges A.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN_PYTORCH = "plain PyTorch"
"""The name of the contender that computes with PyTorch's own operators, as they come."""
PLAIN_FLOAT32 = f"{PLAIN_PYTORCH}, float32"


class PlainResidualBlock(nn.Module):
    """Computes x + norm(conv(pad(relu(norm(conv(pad(x))))))), with dropout behind the ReLU where asked for."""

    def __init__(self, channels: int, use_dropout: bool, track_running_stats: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _instance_norm(channels, track_running_stats),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if use_dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _instance_norm(channels, track_running_stats),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x [N, channels, H, W], in the same shape."""
        residual: Tensor = self.conv_block(x)
        return x + residual


class PlainGenerator(nn.Module):
    """Translates images: the ResNet generator (Zhu et al. 2017, section 7.2).

    Args:
        width: The number of channels after the stem (`ngf`).
        blocks: The number of residual blocks.
        use_dropout: Whether every block has a dropout of 0.5, which moves the keys of its second convolution by one.
        track_running_stats: Whether instance norms have running statistics, whose buffers early versions saved.
        inputs: The number of channels of the images that it takes.
        outputs: The number of channels of the images that it gives.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: int = 9,
        use_dropout: bool = False,
        track_running_stats: bool = False,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(inputs, width, 7),
            _instance_norm(width, track_running_stats),
            nn.ReLU(),
        ]
        for channels in (width, width * 2):
            layers += [
                nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1),
                _instance_norm(channels * 2, track_running_stats),
                nn.ReLU(),
            ]
        layers += [PlainResidualBlock(width * 4, use_dropout, track_running_stats) for _ in range(blocks)]
        for channels in (width * 4, width * 2):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1),
                _instance_norm(channels // 2, track_running_stats),
                nn.ReLU(),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the images [N, outputs, H, W] for [N, inputs, H, W] in [-1, 1]; H and W are multiples of 4."""
        translated: Tensor = self.model(image)
        return translated


class PlainDiscriminator(nn.Module):
    """Scores patches of images: the 70x70 PatchGAN; its first convolution has `width` channels (`ndf`)."""

    def __init__(self, *, width: int = 64, track_running_stats: bool = False, inputs: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for channels, stride in ((width, 2), (width * 2, 2), (width * 4, 1)):
            layers += [
                nn.Conv2d(channels, channels * 2, 4, stride=stride, padding=1),
                _instance_norm(channels * 2, track_running_stats),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(width * 8, 1, 4, padding=1))
        self.model = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return scores [N, 1, h, w] for images [N, inputs, H, W] in [-1, 1]; 256x256 gives 30x30."""
        scores: Tensor = self.model(image)
        return scores


def _instance_norm(channels: int, track_running_stats: bool) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=track_running_stats)


def _initialise(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and set biases to 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, 0.0, 0.02)
        else:
            nn.init.zeros_(parameter)


def cancelled_biases(network: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the biases of convolutions directly in front of an instance norm, which subtracts them again."""
    for row in network.modules():
        if not isinstance(row, nn.Sequential):
            continue
        for layer, following in itertools.pairwise(row):
            if isinstance(following, nn.InstanceNorm2d):
                assert isinstance(layer.bias, nn.Parameter)
                yield layer.bias


@dataclass(frozen=True)
class PlainNetworkSize:
    """Says how large networks are: as large as the paper's, unless told otherwise."""

    width: int = 64
    """channels of the first convolution of each network"""
    blocks: int = 9
    """residual blocks of a generator: 9 or 6"""

    def network(self, kind: type[PlainGenerator] | type[PlainDiscriminator]) -> nn.Module:
        """Return a new network of this size."""
        if kind is PlainGenerator:
            return PlainGenerator(width=self.width, blocks=self.blocks)
        return PlainDiscriminator(width=self.width)


PAPER_SIZE = PlainNetworkSize()


class PlainImagePool:
    """Keeps `size` generated images (Shrivastava et al. 2017, section 2.3); a number below 0.5 means a swap."""

    def __init__(self, size: int, random_source: random.Random) -> None:
        self.size = size
        self.random_source = random_source
        self.stored: list[Tensor] = []  # each [1, C, H, W]

    def query(self, images: Tensor) -> Tensor:
        """Return as many images as [N, C, H, W] has, each either the new one or one from the pool."""
        if self.size == 0:
            return images
        chosen = []
        for image in images.detach().chunk(len(images)):
            if len(self.stored) < self.size:
                self.stored.append(image)
                chosen.append(image)
            elif self.random_source.random() < 0.5:
                index = self.random_source.randrange(self.size)
                chosen.append(self.stored[index])
                self.stored[index] = image
            else:
                chosen.append(image)
        return torch.cat(chosen)


class PlainCycleGAN:
    """Trains four networks with two Adams and two pools, one update each `step`.

    Args:
        ngf: The number of channels of a generator's first convolution.
        ndf: The number of channels of a discriminator's first convolution.
        blocks: The number of residual blocks of a generator.
        lambda_cycle: The weight of the cycle losses.
        lambda_identity: The weight of the identity losses in units of lambda_cycle; 0 skips their passes, which images
            of other channels in A than in B do not have.
        pool_size: The number of images that each pool keeps; 0 switches the pools off.
        learning_rate: The learning rate of both Adams.
        beta1: The first beta of both Adams.
        zero_cancelled_bias_gradients: Whether biases in front of an instance norm are kept as they are, as the contract
            defines; otherwise Adam moves them by rounding noise, as the original does. They are added in the forward
            pass either way.
        autocast_dtype: The dtype in which forward passes run under `torch.autocast`; losses are scaled for float16.
        recordable_adam: Whether both Adams are one kernel that keeps all its state on the device, so that a CUDA graph
            can record them; otherwise they are PyTorch's default.
        keeps_fakes: Whether generated images are copied before the discriminators judge them: compiled networks with
            CUDA graphs overwrite their results in the next pass.
        random_source: Decides about the pools. The pool of fake_B, which D_A is trained on, draws first; then the pool
            of fake_A. Each image draws `random()` and, where that is below 0.5, `randrange(pool_size)`.
        device: The device of the weights.
        dtype: The dtype of the weights.
        channels: Those of the images of A and of B.
    """

    def __init__(
        self,
        *,
        ngf: int = 64,
        ndf: int = 64,
        blocks: int = 9,
        lambda_cycle: float = 10.0,
        lambda_identity: float = 0.5,
        pool_size: int = 50,
        learning_rate: float = 2e-4,
        beta1: float = 0.5,
        zero_cancelled_bias_gradients: bool = True,
        autocast_dtype: torch.dtype | None = None,
        recordable_adam: bool = False,
        keeps_fakes: bool = False,
        random_source: random.Random | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels: tuple[int, int] = (3, 3),
    ) -> None:
        of_A, of_B = channels
        self.G_A = PlainGenerator(width=ngf, blocks=blocks, inputs=of_A, outputs=of_B).to(device, dtype)
        self.G_B = PlainGenerator(width=ngf, blocks=blocks, inputs=of_B, outputs=of_A).to(device, dtype)
        self.D_A = PlainDiscriminator(width=ndf, inputs=of_B).to(device, dtype)
        self.D_B = PlainDiscriminator(width=ndf, inputs=of_A).to(device, dtype)
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity
        random_source = random_source or random.Random(0)
        self.pool_A, self.pool_B = PlainImagePool(pool_size, random_source), PlainImagePool(pool_size, random_source)
        self.zero_cancelled_bias_gradients = zero_cancelled_bias_gradients
        self.device_type = torch.device(device).type
        self.autocast_dtype = autocast_dtype
        self.keeps_fakes = keeps_fakes
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=autocast_dtype == torch.float16)

        def adam(*networks: nn.Module) -> torch.optim.Adam:
            parameters = itertools.chain(*(network.parameters() for network in networks))
            how = {"fused": True, "capturable": True} if recordable_adam else {}
            return torch.optim.Adam(parameters, lr=learning_rate, betas=(beta1, 0.999), **how)

        self.generator_optimizer = adam(self.G_A, self.G_B)
        self.discriminator_optimizer = adam(self.D_A, self.D_B)

    def networks(self) -> dict[str, nn.Module]:
        return {"G_A": self.G_A, "G_B": self.G_B, "D_A": self.D_A, "D_B": self.D_B}

    def set_learning_rate(self, learning_rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

    def step(self, real_A: Tensor, real_B: Tensor) -> dict[str, float]:
        """Carry out one update from images [N, C, H, W] of each domain; return the weighted losses by name."""
        return {name: loss.item() for name, loss in self.update(real_A, real_B).items()}

    def update(self, real_A: Tensor, real_B: Tensor) -> dict[str, Tensor]:
        """Carry out a `step` without waiting for the device, as it is timed; return the losses as scalar tensors."""
        require_gradients((self.D_A, self.D_B), False)
        with self._autocast():
            fake_B = self.G_A(real_A)
            rec_A = self.G_B(fake_B)
            fake_A = self.G_B(real_B)
            rec_B = self.G_A(fake_A)
            losses = {
                "G_A": judged_as(self.D_A(fake_B), 1.0),
                "G_B": judged_as(self.D_B(fake_A), 1.0),
                "cycle_A": F.l1_loss(rec_A, real_A) * self.lambda_cycle,
                "cycle_B": F.l1_loss(rec_B, real_B) * self.lambda_cycle,
            }
            if self.lambda_identity > 0:
                losses["idt_A"] = F.l1_loss(self.G_A(real_B), real_B) * self.lambda_cycle * self.lambda_identity
                losses["idt_B"] = F.l1_loss(self.G_B(real_A), real_A) * self.lambda_cycle * self.lambda_identity
        self._descend(losses.values(), self.generator_optimizer, (self.G_A, self.G_B))

        if self.keeps_fakes:
            fake_A, fake_B = fake_A.detach().clone(), fake_B.detach().clone()
        require_gradients((self.D_A, self.D_B), True)
        with self._autocast():
            judgements = {
                "D_A": self._discriminator_loss(self.D_A, real_B, self.pool_B.query(fake_B)),
                "D_B": self._discriminator_loss(self.D_B, real_A, self.pool_A.query(fake_A)),
            }
        self._descend(judgements.values(), self.discriminator_optimizer, (self.D_A, self.D_B))
        self.scaler.update()
        return {name: loss.detach() for name, loss in (losses | judgements).items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device_type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def _discriminator_loss(self, network: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return (judged_as(network(real), 1.0) + judged_as(network(fake.detach()), 0.0)) * 0.5

    def _descend(
        self, losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, networks: Iterable[nn.Module]
    ) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(torch.stack(list(losses)).sum()))
        if self.zero_cancelled_bias_gradients:
            for bias in itertools.chain(*map(cancelled_biases, networks)):
                bias.grad = None  # Adam passes over what has no gradient
        self.scaler.step(optimizer)


def judged_as(scores: Tensor, target: float) -> Tensor:
    """Return the mean squared distance of the scores [N, 1, h, w] from 1 (real) or 0 (generated) (Mao et al. 2017)."""
    return F.mse_loss(scores, torch.full_like(scores, target))


def require_gradients(networks: Iterable[nn.Module], wanted: bool) -> None:
    for network in networks:
        network.requires_grad_(wanted)
