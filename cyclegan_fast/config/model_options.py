"""Defines the options of the model: its networks, and the objective that they are trained with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclegan_fast.config.checks import require
from cyclegan_fast.conventions import SMALLEST_DISCRIMINATOR_SIDE
from cyclegan_fast.kernels import Impl
from cyclegan_fast.system.ranges import NetworkWidth, Range, check_fields

GanLoss = Literal["lsgan", "vanilla", "hinge", "wgan-gp"]
GeneratorName = Literal["resnet_9", "resnet_6", "unet_256", "unet_128"]
DiscriminatorName = Literal["patch", "n_layers", "pixel"]
Norm = Literal["instance", "batch", "none"]
Upsampling = Literal["transposed", "resize"]
InitType = Literal["normal", "xavier", "kaiming", "orthogonal"]
MethodName = Literal["cyclegan", "simgan", "feature-loss", "bigan", "cogan", "pix2pix"]
CycleFrom = Literal["both", "A", "B"]
LossWeight = Annotated[float, Range(0, 10**6)]
"""A weight of a loss: beyond its range sums of losses would overflow in low precision, or drown each other."""


@dataclass(frozen=True)
class NetworkConfig:
    """Choose the networks, of one kind for all methods but cogan, which takes their widths only."""

    generator: GeneratorName = "resnet_9"
    """ResNet generator with 9 residual blocks (256x256 and larger) or 6 (128x128); or the U-Net of pix2pix, for sides
    that are multiples of 256 or 128"""
    ngf: NetworkWidth = 64
    """channels of the generators' first convolution, 1024 at most"""
    ndf: NetworkWidth = 64
    """channels of the discriminators' first convolution, 1024 at most"""
    discriminator: DiscriminatorName = "patch"
    """the 70x70 PatchGAN; or one of --n-layers convolutions that halve the image; or a judge of each pixel"""
    n_layers: Annotated[int, Range(1, 8)] = 3
    """of discriminator n_layers: 1 to 5 judge patches of 16, 34, 70, 142 and 286 pixels"""
    norm: Norm = "instance"
    """normalisation in generators and discriminators"""
    discriminator_norm: Norm | None = None
    """normalisation in discriminators alone; by default that of norm. With none they see how bright and how colourful
    an image is as a whole, which an instance norm hides from them"""
    dropout: bool = False
    """drop half of the activations in a U-Net's middle, or in the middle of each residual block, while training"""
    upsampling: Upsampling = "transposed"
    """how ResNet generators double sides: by transposed convolutions as in the paper; or by repeating each pixel in
    front of a convolution, which leaves no grid in images (Odena et al. 2016, doi 10.23915/distill.00003)"""
    init_type: InitType = "normal"
    """how new weights are drawn: normal with standard deviation init_gain, or by torch.nn.init's xavier_normal,
    kaiming_normal (fan in) or orthogonal"""
    init_gain: Annotated[float, Range(above=0, most=1000)] = 0.02
    """standard deviation of normal, gain of xavier and orthogonal; of no effect on kaiming"""
    init_from: Path | None = None
    """begin a new run with trained weights: a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best,
    or a .pt file), or latest_net_G_A.pth with the networks beside it. The settings of networks are theirs then, unless
    flags say otherwise"""
    impl: Impl = "auto"
    """implementation of the fused operators"""
    checkpoint_blocks: bool = False
    """keep only the inputs of residual blocks and compute the blocks once more in the backward pass: less memory for a
    third more arithmetic in them"""

    @property
    def blocks(self) -> int:
        """Number of residual blocks of a ResNet generator; 0 for a U-Net."""
        return int(self.generator.removeprefix("resnet_")) if self.generator.startswith("resnet_") else 0

    @property
    def halvings(self) -> int:
        """Number of times that a generator halves the sides of an image, which must be multiples of 2 to this power."""
        return 2 if self.blocks else int(self.generator.removeprefix("unet_")).bit_length() - 1

    @property
    def norm_of_discriminators(self) -> Norm:
        """Normalisation in discriminators."""
        return self.discriminator_norm or self.norm

    @property
    def has_batch_norm(self) -> bool:
        """True where a network has a batch norm, which couples the images of a batch and keeps running statistics."""
        return "batch" in (self.norm, self.norm_of_discriminators)

    @property
    def smallest_side(self) -> int:
        """Shortest side in pixels of an image that a discriminator gives a score."""
        return 3 * 2**self.n_layers if self.discriminator == "n_layers" else SMALLEST_DISCRIMINATOR_SIDE

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.discriminator == "n_layers" or self.n_layers == 3,
            f"n_layers {self.n_layers} is of discriminator n_layers, not of {self.discriminator}: "
            "with --discriminator n_layers",
        )
        require(
            not self.checkpoint_blocks or (self.norm != "batch" and not self.dropout),
            "checkpoint_blocks computes residual blocks twice, and batch norm would count their statistics twice, "
            "dropout draw twice: leave it out",
        )
        require(
            bool(self.blocks) or not self.checkpoint_blocks,
            f"checkpoint_blocks is of residual blocks: {self.generator} has none",
        )
        require(
            bool(self.blocks) or self.upsampling == "transposed",
            f"upsampling {self.upsampling} is of ResNet generators, and {self.generator} has transposed convolutions: "
            "leave it out",
        )
        require(self.impl != "c", "impl c has norms and pads alone: set CYCLEGAN_FAST_IMPL=c, which takes it for these")


WEIGHTS_OF: dict[str, MethodName] = {
    "lambda_gan": "cyclegan",
    "lambda_cycle": "cyclegan",
    "lambda_cycle_a": "cyclegan",
    "lambda_cycle_b": "cyclegan",
    "lambda_identity": "cyclegan",
    "lambda_pixel": "simgan",
    "lambda_feature": "feature-loss",
    "lambda_paired": "pix2pix",
}
"""The method that each weight of a loss belongs to."""


@dataclass(frozen=True)
class LossConfig:
    """Choose the method, its losses and their weights."""

    method: MethodName = "cyclegan"
    """cyclegan, or what the paper compares it with: simgan (adversarial and pixel loss), feature-loss (adversarial loss
    and one in deep features), bigan (BiGAN/ALI), cogan (whose networks are its own), or pix2pix (which needs pairs)"""
    gan_loss: GanLoss = "lsgan"
    """adversarial loss; wgan-gp needs second derivatives and runs its discriminators on the reference operators"""
    lambda_penalty: LossWeight = 10.0
    """wgan-gp: weight of the gradient penalty; 0 leaves it out, as the original's CycleGAN does"""
    lambda_gan: LossWeight = 1.0
    """cyclegan: weight of the adversarial losses; 0 trains by cycle consistency alone, without discriminators"""
    lambda_cycle: LossWeight = 10.0
    """cyclegan: weight of the cycle-consistency losses; 0 skips their forward passes"""
    lambda_cycle_a: LossWeight | None = None
    """cyclegan: weight of the cycle A -> B -> A alone, and unit of G_B's identity loss; by default lambda_cycle"""
    lambda_cycle_b: LossWeight | None = None
    """cyclegan: weight of the cycle B -> A -> B alone, and unit of G_A's identity loss; by default lambda_cycle"""
    cycle_from: CycleFrom = "both"
    """cyclegan: the domain whose images go through a cycle, A for A -> B -> A alone, B for B -> A -> B alone"""
    lambda_identity: LossWeight = 0.5
    """cyclegan: weight of the identity losses, in units of lambda_cycle; 0 skips their forward passes. Images of A with
    other channels than those of B have none"""
    lambda_pixel: LossWeight = 10.0
    """simgan: weight of the L1 between an image and its translation"""
    lambda_feature: LossWeight = 10.0
    """feature-loss: weight of the L1 between deep features of an image and of its translation"""
    feature_network: Path | None = None
    """feature-loss: file of the network that gives them, VGG-16's weights (vgg16-397923af.pth of torchvision) or one
    that was trained here; by default one is trained on the data first, without labels, and kept in the run's folder"""
    lambda_paired: LossWeight = 100.0
    """pix2pix: weight of the L1 between a translation and the true one"""
    pool_size: Annotated[int, Range(0, 10**6)] = 50
    """generated images of each domain kept for the discriminators; 0, as pix2pix has it, trains them on the newest
    only"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, method in WEIGHTS_OF.items():
            require(
                self.method == method or getattr(self, name) == type(self).__dataclass_fields__[name].default,
                f"{name} is a weight of --method {method}: it has no effect on {self.method}",
            )
        require(
            self.gan_loss == "wgan-gp" or self.lambda_penalty == type(self).lambda_penalty,
            f"lambda_penalty is a weight of gan_loss wgan-gp: it has no effect on {self.gan_loss}",
        )
        require(
            any(map(self.cycle_weight, "AB")) or self.lambda_identity == 0,
            "lambda_identity is in units of lambda_cycle: with lambda_cycle 0 it must be 0 too",
        )
        require(
            self.cycle_from == "both" or (self.cycle_weight(self.cycle_from) > 0 and self.method == "cyclegan"),
            f"cycle_from {self.cycle_from} has no effect without cycles: it needs --method cyclegan and lambda_cycle "
            "above 0",
        )
        require(
            self.lambda_gan > 0 or (all(map(self.cycle_weight, "AB")) and self.cycle_from == "both"),
            "with lambda_gan 0 both generators are trained by cycle consistency alone: it needs lambda_cycle above 0 "
            "and cycle_from both",
        )
        require(
            self.feature_network is None or self.method == "feature-loss",
            f"feature_network is of --method feature-loss: it has no effect on {self.method}",
        )

    def cycle_weight(self, domain: str) -> float:
        """Return the weight of the cycle that begins in a domain, "A" or "B"."""
        own = self.lambda_cycle_a if domain == "A" else self.lambda_cycle_b
        return self.lambda_cycle if own is None else own

    @property
    def has_penalty(self) -> bool:
        """Tells whether the discriminators' losses hold a gradient penalty."""
        return self.gan_loss == "wgan-gp" and self.lambda_penalty > 0
