"""Defines the whole configuration, one frozen dataclass, and the rules that hold between its sections.

Its sections with their own rules are in data_options.py, model_options.py and run_options.py; other modules import
them from here. command.py turns the configuration into a command line, values.py into the file beside the weights.
"""

from dataclasses import dataclass, field

from cyclegan_fast.config.checks import require
from cyclegan_fast.config.data_options import CROPPING, EARTH, DataConfig, Pairs, Preprocess, is_earth
from cyclegan_fast.config.model_options import (
    WEIGHTS_OF,
    CycleFrom,
    DiscriminatorName,
    GanLoss,
    GeneratorName,
    InitType,
    LossConfig,
    MethodName,
    NetworkConfig,
    Norm,
    Upsampling,
)
from cyclegan_fast.config.run_options import (
    AmpDtype,
    CudaGraph,
    EvaluationConfig,
    MetricName,
    OptimizerConfig,
    Policy,
    RunConfig,
    Streams,
    TrackerName,
)
from cyclegan_fast.conventions import SMALLEST_DISCRIMINATOR_SIDE
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.system.words import counted

__all__ = [
    "CROPPING",
    "EARTH",
    "WEIGHTS_OF",
    "AmpDtype",
    "Config",
    "CudaGraph",
    "CycleFrom",
    "DataConfig",
    "DiscriminatorName",
    "EvaluationConfig",
    "GanLoss",
    "GeneratorName",
    "InitType",
    "LossConfig",
    "MethodName",
    "MetricName",
    "NetworkConfig",
    "Norm",
    "OptimizerConfig",
    "Pairs",
    "Policy",
    "Preprocess",
    "RunConfig",
    "Streams",
    "TrackerName",
    "Upsampling",
    "is_earth",
]


@dataclass(frozen=True)
class Config:
    """Train CycleGAN: two generators that translate between two folders of unpaired images.

    With --method, train what the paper compares it with instead. Without --data the embedded photographs
    are used, with settings for a small machine (preset demo).
    """

    data: DataConfig = field(default_factory=DataConfig)
    networks: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        require(
            not self.loss.has_penalty or self.data.preprocess in CROPPING,
            f"gan_loss wgan-gp mixes real and generated images and needs them of one size: preprocess "
            f"{self.data.preprocess!r} does not give that; use one of {', '.join(CROPPING)}, or lambda_penalty 0",
        )
        require(
            not self.loss.has_penalty or self.networks.norm_of_discriminators != "batch",
            "the gradient penalty of wgan-gp is that of each image by itself, and batch norm mixes them: use norm "
            "instance, or lambda_penalty 0",
        )
        require(
            self.loss.method != "cogan" or self.data.preprocess in CROPPING,
            f"method cogan renders images of one size, the crop's: preprocess {self.data.preprocess!r} does not give "
            f"that; use one of {', '.join(CROPPING)}",
        )
        require(
            bool(self.networks.blocks) or self.data.preprocess in CROPPING,
            f"a U-Net halves sides down to nothing: preprocess {self.data.preprocess!r} does not give it multiples of "
            f"{2**self.networks.halvings}; use one of {', '.join(CROPPING)}",
        )
        require(
            not self.networks.has_batch_norm or self.optimizer.accumulate == 1,
            "batch norm takes the statistics of all that is computed at once, and accumulate computes a batch in "
            "parts: use norm instance, or accumulate 1",
        )
        require(
            self.networks.smallest_side <= SMALLEST_DISCRIMINATOR_SIDE or self.data.preprocess in CROPPING,
            f"a discriminator of {self.networks.n_layers} layers needs images of {self.networks.smallest_side} pixels "
            f"each way: preprocess {self.data.preprocess!r} does not promise that; use one of {', '.join(CROPPING)}",
        )
        require(
            self.data.crop_size >= self.networks.smallest_side or self.data.preprocess not in CROPPING,
            f"crop_size must be at least {self.networks.smallest_side} for a discriminator of {self.networks.n_layers} "
            f"layers, got {self.data.crop_size}",
        )
        require(
            self.data.crop_size % 2**self.networks.halvings == 0,
            f"crop_size must be a multiple of {2**self.networks.halvings} for generator {self.networks.generator}, "
            f"got {self.data.crop_size}{'; unet_128 needs 128' if self.networks.generator == 'unet_256' else ''}",
        )
        require(
            self.data.batch_size % self.optimizer.accumulate == 0,
            f"batch_size must be a multiple of accumulate ({self.optimizer.accumulate}), got {self.data.batch_size}",
        )
        against = reason_against_pixels(self, are_known=False)
        require(against is None, str(against))
        against = _reason_against_pairing(self)
        require(not self.run.paired or against is None, f"paired computes both directions alike, as one, and {against}")

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of the images of A and of B: an RGB image's where neither options nor data have said so yet."""
        return self.data.channels_a or RGB.channels, self.data.channels_b or RGB.channels

    @property
    def has_equal_channels(self) -> bool:
        """True where a generator can be given images of its own target domain, as the identity loss does."""
        return len({*self.channels}) == 1

    @property
    def total_epochs(self) -> int:
        """Number of epochs of the whole run, at the full learning rate and after."""
        return self.optimizer.epochs + self.optimizer.decay_epochs


def reason_against_pixels(config: Config, *, are_known: bool = True) -> str | None:
    """Say what does not go with the pixels of both domains, and what does; returns None where all does.

    Args:
        are_known: what is not given is 8-bit RGB's, as once the training images were looked at. Before that it may be
            anything, and is no reason.
    """
    data, method = config.data, config.loss.method
    of_A, of_B = config.channels
    differ = of_A != of_B and (are_known or None not in (data.channels_a, data.channels_b))
    are_others = {data.channels_a, data.channels_b, data.dtype_a, data.dtype_b} - {None, RGB.channels, RGB.dtype}
    so = f"and A has {counted(of_A, 'channel')}, B {of_B}"
    mended = "give channels_a and channels_b alike"
    reasons = {
        f"method simgan compares an image with its translation, {so}: use method cyclegan, or {mended}": (
            method == "simgan" and differ
        ),
        "method feature-loss compares images in a network that takes 8-bit RGB, and A or B is of others: use method "
        "cyclegan, or give channels_a 3, channels_b 3, dtype_a uint8 and dtype_b uint8": (
            method == "feature-loss" and bool(are_others)
        ),
        f"paired computes both directions alike, as one, {so}: leave it out, or {mended}": config.run.paired and differ,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _reason_against_pairing(config: Config) -> str | None:
    """Say which option does not go with `paired`, and what does; returns None where all do."""
    loss, networks = config.loss, config.networks
    reasons = {
        f"method {loss.method} has others than CycleGAN's: use method cyclegan": loss.method != "cyclegan",
        f"cycle_from {loss.cycle_from} leaves one without a cycle: use both": loss.cycle_from != "both",
        "lambda_cycle_a and lambda_cycle_b weigh them differently: give lambda_cycle for both": (
            loss.cycle_weight("A") != loss.cycle_weight("B")
        ),
        "the gradient penalty of wgan-gp is that of one discriminator: use another gan_loss, or lambda_penalty 0": (
            loss.has_penalty
        ),
        f"generator {networks.generator} is none of those that can be: use resnet_9 or resnet_6": not networks.blocks,
        "batch norm has statistics of each: use norm instance or none": networks.has_batch_norm,
        "dropout would draw other numbers: leave it out": networks.dropout,
        f"preprocess {config.data.preprocess} gives them images of different sizes: use one of {', '.join(CROPPING)}": (
            config.data.preprocess not in CROPPING
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
