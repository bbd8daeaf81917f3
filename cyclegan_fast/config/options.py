"""The configuration: frozen dataclasses that settings.py makes a command line and the file beside the weights of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cyclegan_fast.conventions import SIDE_MULTIPLE, SMALLEST_DISCRIMINATOR_SIDE
from cyclegan_fast.images.levels import ValueRange, check_range, range_of_domain
from kernels import Impl

GanLoss = Literal["lsgan", "vanilla", "hinge", "wgan-gp"]


Generator = Literal["resnet_9", "resnet_6", "unet_256", "unet_128"]
Discriminator = Literal["patch", "n_layers", "pixel"]
Norm = Literal["instance", "batch", "none"]
InitType = Literal["normal", "xavier", "kaiming", "orthogonal"]
Policy = Literal["linear", "step", "plateau", "cosine"]
MethodName = Literal["cyclegan", "simgan", "feature-loss", "bigan", "cogan", "pix2pix"]
CycleFrom = Literal["both", "A", "B"]
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]
CudaGraph = Literal["auto", "on", "off"]
Pairs = Literal["auto", "yes", "no"]
AmpDtype = Literal["auto", "bfloat16", "float16"]
MetricName = Literal["reconstruction", "truth", "lookup", "fid", "kid", "lpips", "fcn"]

CROPPING: tuple[Preprocess, ...] = ("resize_and_crop", "crop", "scale_width_and_crop")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_choice(name: str, value: object, choices: object) -> None:
    allowed = get_args(choices)
    _require(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")


@dataclass(frozen=True)
class DataConfig:
    """Images and how they are prepared."""

    data: Path | None = None
    """folder with trainA/, trainB/ and, where there are any, testA/ and testB/; or with train/ and test/ (or val/) of
    images that show A on the left half and B on the right; by default the embedded photographs"""
    preprocess: Preprocess = "resize_and_crop"
    """resizing and random crop; without a crop each image keeps its own shape, which needs batch size 1"""
    load_size: int = 286
    """side (or width, for scale_width) in pixels that images are resized to before the crop"""
    crop_size: int = 256
    """side in pixels of the square that is trained on, a multiple of 4"""
    flip: bool = True
    """mirror each image horizontally with probability 0.5"""
    batch_size: int = 1
    """images of each domain in one step"""
    workers: int = 2
    """threads that prepare images ahead of the step; 0 prepares them in between steps; never changes a result"""
    cache_gib: float | None = None
    """memory in GiB for decoded images, in each process; by default half of what is free, shared by all ranks"""
    cache_dir: Path | None = None
    """folder for decoded images that do not fit in memory, for later runs too; by default ~/.cache/cyclegan-fast"""
    max_images: int | None = None
    """train on the first so many images of each domain only, by name"""
    serial: bool = False
    """take images in the order of their names in every epoch, of B too, instead of a random one; crops stay random"""
    range: tuple[float, ...] = ()
    """the values of images of more than 8 bits that become black and white, such as 0 4095 of 12 bits in 16; of four
    numbers, two are for A and two for B; by default the least and the greatest that a file can hold"""
    strict: bool = False
    """stop at the first image that cannot be read, instead of leaving it out"""
    pairs: Pairs = "auto"
    """whether images of testA and testB with the same name show the same view, so that translations are scored against
    the truth; "auto" where the data set says so, names that end in _A and _B, or halves of one image"""

    def __post_init__(self) -> None:
        _require_choice("preprocess", self.preprocess, Preprocess)
        _require_choice("pairs", self.pairs, Pairs)
        for name, smallest in (
            ("load_size", SMALLEST_DISCRIMINATOR_SIDE),
            ("crop_size", SMALLEST_DISCRIMINATOR_SIDE),
            ("batch_size", 1),
            ("workers", 0),
        ):
            value = getattr(self, name)
            _require(value >= smallest, f"{name} must be at least {smallest}, got {value}")
        _require(
            self.crop_size % SIDE_MULTIPLE == 0,
            f"crop_size must be a multiple of {SIDE_MULTIPLE}, got {self.crop_size}",
        )
        _require(
            self.preprocess not in ("resize_and_crop", "scale_width_and_crop") or self.load_size >= self.crop_size,
            f"load_size must be at least crop_size ({self.crop_size}), got {self.load_size}",
        )
        _require(
            self.preprocess in CROPPING or self.batch_size == 1,
            f"preprocess {self.preprocess!r} keeps each image's shape and needs batch_size 1, got {self.batch_size}",
        )
        _require(self.max_images is None or self.max_images >= 1, f"max_images must be positive, got {self.max_images}")
        _require(self.cache_gib is None or self.cache_gib >= 0, f"cache_gib must not be negative, got {self.cache_gib}")
        check_range(self.range, of_two_domains=True)

    def range_of(self, domain: Literal["A", "B"]) -> ValueRange | None:
        """The values of `range` that are meant for the images of a domain; None for all that a file can hold."""
        return range_of_domain(self.range, domain)


@dataclass(frozen=True)
class NetworkConfig:
    """The networks, of one kind for all methods but cogan, which takes their widths only."""

    generator: Generator = "resnet_9"
    """ResNet generator with 9 residual blocks (256x256 and larger) or 6 (128x128); or the U-Net of pix2pix, for sides
    that are multiples of 256 or 128"""
    ngf: int = 64
    """channels of the generators' first convolution"""
    ndf: int = 64
    """channels of the discriminators' first convolution"""
    discriminator: Discriminator = "patch"
    """the 70x70 PatchGAN; or one of --n-layers convolutions that halve the image; or a judge of each pixel"""
    n_layers: int = 3
    """of discriminator n_layers: 1 to 5 judge patches of 16, 34, 70, 142 and 286 pixels"""
    norm: Norm = "instance"
    """normalisation in generators and discriminators"""
    dropout: bool = False
    """drop half of the activations in a U-Net's middle, or in the middle of each residual block, while training"""
    init_type: InitType = "normal"
    """how new weights are drawn: normal with standard deviation init_gain, or by torch.nn.init's xavier_normal,
    kaiming_normal (fan in) or orthogonal"""
    init_gain: float = 0.02
    """standard deviation of normal, gain of xavier and orthogonal; of no effect on kaiming"""
    impl: Impl = "auto"
    """implementation of the fused operators"""
    checkpoint_blocks: bool = False
    """keep only the inputs of residual blocks and compute the blocks once more in the backward pass: less memory for a
    third more arithmetic in them"""

    @property
    def blocks(self) -> int:
        """Residual blocks of a ResNet generator; 0 for a U-Net."""
        return int(self.generator.removeprefix("resnet_")) if self.generator.startswith("resnet_") else 0

    @property
    def halvings(self) -> int:
        """How often a generator halves the sides of an image: they must be multiples of 2 to this power."""
        return 2 if self.blocks else int(self.generator.removeprefix("unet_")).bit_length() - 1

    @property
    def smallest_side(self) -> int:
        """The side in pixels of the smallest image that a discriminator gives a score."""
        return 3 * 2**self.n_layers if self.discriminator == "n_layers" else SMALLEST_DISCRIMINATOR_SIDE

    def __post_init__(self) -> None:
        _require_choice("generator", self.generator, Generator)
        _require_choice("discriminator", self.discriminator, Discriminator)
        _require_choice("norm", self.norm, Norm)
        _require(self.n_layers >= 1, f"n_layers must be positive, got {self.n_layers}")
        _require(
            self.discriminator == "n_layers" or self.n_layers == 3,
            f"n_layers {self.n_layers} is of discriminator n_layers, not of {self.discriminator}: "
            "with --discriminator n_layers",
        )
        _require(
            not self.checkpoint_blocks or (self.norm != "batch" and not self.dropout),
            "checkpoint_blocks computes residual blocks twice, and batch norm would count their statistics twice, "
            "dropout draw twice: leave it out",
        )
        _require(
            bool(self.blocks) or not self.checkpoint_blocks,
            f"checkpoint_blocks is of residual blocks: {self.generator} has none",
        )
        _require_choice("init_type", self.init_type, InitType)
        _require(self.init_gain > 0, f"init_gain must be positive, got {self.init_gain}")
        _require_choice("impl", self.impl, Impl)
        for name in ("ngf", "ndf"):
            _require(getattr(self, name) >= 1, f"{name} must be positive, got {getattr(self, name)}")


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
"""The method that a weight belongs to."""


@dataclass(frozen=True)
class LossConfig:
    """The objective."""

    method: MethodName = "cyclegan"
    """cyclegan, or what the paper compares it with: simgan (adversarial and pixel loss), feature-loss (adversarial loss
    and one in deep features), bigan (BiGAN/ALI), cogan (whose networks are its own), or pix2pix (which needs pairs)"""
    gan_loss: GanLoss = "lsgan"
    """adversarial loss; wgan-gp needs second derivatives and runs its discriminators on the reference operators"""
    lambda_penalty: float = 10.0
    """wgan-gp: weight of the gradient penalty; 0 leaves it out, as the original's CycleGAN does"""
    lambda_gan: float = 1.0
    """cyclegan: weight of the adversarial losses; 0 trains by cycle consistency alone, without discriminators"""
    lambda_cycle: float = 10.0
    """cyclegan: weight of the cycle-consistency losses; 0 skips their forward passes"""
    lambda_cycle_a: float | None = None
    """cyclegan: weight of the cycle A -> B -> A alone, and unit of G_B's identity loss; by default lambda_cycle"""
    lambda_cycle_b: float | None = None
    """cyclegan: weight of the cycle B -> A -> B alone, and unit of G_A's identity loss; by default lambda_cycle"""
    cycle_from: CycleFrom = "both"
    """cyclegan: the domain whose images go through a cycle, A for A -> B -> A alone, B for B -> A -> B alone"""
    lambda_identity: float = 0.5
    """cyclegan: weight of the identity losses, in units of lambda_cycle; 0 skips their forward passes"""
    lambda_pixel: float = 10.0
    """simgan: weight of the L1 between an image and its translation"""
    lambda_feature: float = 10.0
    """feature-loss: weight of the L1 between deep features of an image and of its translation"""
    feature_network: Path | None = None
    """feature-loss: file of the network that gives them, VGG-16's weights (vgg16-397923af.pth of torchvision) or one
    that was trained here; by default one is trained on the data first, without labels, and kept in the run's folder"""
    lambda_paired: float = 100.0
    """pix2pix: weight of the L1 between a translation and the true one"""
    pool_size: int = 50
    """generated images of each domain kept for the discriminators; 0, as pix2pix has it, trains them on the newest
    only"""

    def __post_init__(self) -> None:
        _require_choice("gan_loss", self.gan_loss, GanLoss)
        _require_choice("method", self.method, MethodName)
        _require_choice("cycle_from", self.cycle_from, CycleFrom)
        for name in (*WEIGHTS_OF, "lambda_penalty", "pool_size"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"{name} must not be negative, got {value}")
        for name, method in WEIGHTS_OF.items():
            _require(
                self.method == method or getattr(self, name) == type(self).__dataclass_fields__[name].default,
                f"{name} is a weight of --method {method}: it has no effect on {self.method}",
            )
        _require(
            self.gan_loss == "wgan-gp" or self.lambda_penalty == type(self).lambda_penalty,
            f"lambda_penalty is a weight of gan_loss wgan-gp: it has no effect on {self.gan_loss}",
        )
        _require(
            any(map(self.cycle_weight, "AB")) or self.lambda_identity == 0,
            "lambda_identity is in units of lambda_cycle: with lambda_cycle 0 it must be 0 too",
        )
        _require(
            self.cycle_from == "both" or (self.cycle_weight(self.cycle_from) > 0 and self.method == "cyclegan"),
            f"cycle_from {self.cycle_from} has no effect without cycles: it needs --method cyclegan and lambda_cycle "
            "above 0",
        )
        _require(
            self.lambda_gan > 0 or (all(map(self.cycle_weight, "AB")) and self.cycle_from == "both"),
            "with lambda_gan 0 both generators are trained by cycle consistency alone: it needs lambda_cycle above 0 "
            "and cycle_from both",
        )
        _require(
            self.feature_network is None or self.method == "feature-loss",
            f"feature_network is of --method feature-loss: it has no effect on {self.method}",
        )

    def cycle_weight(self, domain: str) -> float:
        """The weight of the cycle that begins in a domain, "A" or "B"."""
        own = self.lambda_cycle_a if domain == "A" else self.lambda_cycle_b
        return self.lambda_cycle if own is None else own

    @property
    def has_penalty(self) -> bool:
        """Tells whether the discriminators' losses hold a gradient penalty."""
        return self.gan_loss == "wgan-gp" and self.lambda_penalty > 0


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule."""

    learning_rate: float = 2e-4
    """Adam's step size at first"""
    learning_rate_policy: Policy = "linear"
    """how the learning rate falls: linear after `epochs` epochs towards zero; step to a tenth every `step_epochs`
    epochs; cosine to zero over `epochs` epochs (and up again over `decay_epochs`, as the original's: give 0); plateau
    to a fifth where the generators' losses have not fallen by a hundredth for more than 5 epochs"""
    step_epochs: int = 50
    """policy step: epochs between two falls of the learning rate"""
    beta1: float = 0.5
    """Adam's decay rate of the first moment"""
    epochs: int = 100
    """epochs at the full learning rate"""
    decay_epochs: int = 100
    """epochs after that, over which the learning rate falls with policy linear"""
    accumulate: int = 1
    """compute each batch in this many parts, one after another, to need less memory; the update stays that of the whole
    batch"""
    ema: float = 0.0
    """decay of the moving average of the generators' weights, which then draws the samples and is scored; 0 for none"""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        _require_choice("learning_rate_policy", self.learning_rate_policy, Policy)
        _require(self.step_epochs >= 1, f"step_epochs must be positive, got {self.step_epochs}")
        _require(
            self.learning_rate_policy == "step" or self.step_epochs == type(self).step_epochs,
            f"step_epochs is of learning_rate_policy step: it has no effect on {self.learning_rate_policy}",
        )
        _require(
            self.learning_rate_policy != "cosine" or self.epochs > 0, "learning_rate_policy cosine needs epochs above 0"
        )
        _require(0 <= self.beta1 < 1, f"beta1 must be in [0, 1), got {self.beta1}")
        _require(0 <= self.ema < 1, f"ema must be in [0, 1), got {self.ema}")
        _require(self.accumulate >= 1, f"accumulate must be positive, got {self.accumulate}")
        _require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")
        _require(self.decay_epochs >= 0, f"decay_epochs must not be negative, got {self.decay_epochs}")
        _require(self.epochs + self.decay_epochs > 0, "epochs and decay_epochs must not both be 0")


@dataclass(frozen=True)
class RunConfig:
    """The run: where, on what, and what it writes when."""

    name: str | None = None
    """folder of the run under `runs`; by default made from the data and the preset. The same command continues it"""
    runs: Path = Path("runs")
    """folder that holds the runs"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    threads: int | None = None
    """threads that compute on a CPU, in each process; by default one for each processor"""
    amp: bool = False
    """mixed precision: convolutions and fused operators in low precision; weights, statistics, losses in float32"""
    amp_dtype: AmpDtype = "auto"
    """low precision of --amp; "auto" is bfloat16 where the hardware has it and float16 with loss scaling elsewhere"""
    cuda_graph: CudaGraph = "auto"
    """replay each step as one CUDA graph: "auto" where that can be done, "on" or else stop, "off" never"""
    compile: bool = False
    """compile the networks with torch.compile: faster steps after a start that takes a minute or more"""
    seed: int = 0
    """fixes weights, images, crops and pools"""
    deterministic: bool = False
    """the same bits for the same seed on a GPU too, at some cost in speed"""
    max_steps: int | None = None
    """stop after this many steps where the epochs have not ended before"""
    report_every: int = 50
    """steps between two lines of metrics.jsonl and of TensorBoard, each with mean losses"""
    sample_every: int = 1000
    """steps between two grids of samples"""
    checkpoint_every: int = 1000
    """steps between two checkpoints"""
    keep_every_epochs: int = 0
    """keep a checkpoint of every this many epochs for good; 0 keeps the two newest only"""
    profile: int = 0
    """measure this many steps after the first few: prints where their time goes, and writes profile/trace.json, which
    chrome://tracing and ui.perfetto.dev open"""

    def __post_init__(self) -> None:
        _require_choice("amp_dtype", self.amp_dtype, AmpDtype)
        _require(
            self.amp or self.amp_dtype == "auto", f"amp_dtype {self.amp_dtype} has no effect without --amp: add --amp"
        )
        for name in ("report_every", "sample_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"{name} must be positive, got {getattr(self, name)}")
        _require_choice("cuda_graph", self.cuda_graph, CudaGraph)
        _require(self.threads is None or self.threads >= 1, f"threads must be positive, got {self.threads}")
        _require(self.profile >= 0, f"profile must not be negative, got {self.profile}")
        _require(self.keep_every_epochs >= 0, f"keep_every_epochs must not be negative, got {self.keep_every_epochs}")
        _require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be positive, got {self.max_steps}")
        _require(0 <= self.seed < 2**63, f"seed must be at least 0 and below 2^63, got {self.seed}")
        _require(
            self.name is None or (self.name not in ("", ".", "..") and not set(self.name) & set("/\\\0")),
            f"name must be a plain folder name, got {self.name!r}",
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on the test images, while training and at its end."""

    evaluate_every: int = 0
    """steps between two evaluations, which go to evaluations.jsonl, TensorBoard and the gallery; the best checkpoint is
    kept as checkpoints/best.pt. 0 evaluates at the end only"""
    metrics: tuple[MetricName, ...] = ("reconstruction", "truth", "lookup")
    """what to measure; see `python -m cyclegan_fast.evaluate --help`"""
    best_by: str | None = None
    """the value that the best checkpoint is chosen by, such as a2b.truth.ssim or b2a.fcn.class_iou; by default the
    first of those that the metrics give: class IoU, KID, FID, SSIM against the truth, SSIM of reconstructions"""
    evaluate_images: int = 64
    """test images of each domain that are used, the first ones; 0 for all"""
    features: str = "inception"
    """the network of fid and kid: "inception", a file of `evaluate fcn`, or a .pt2 file of torch.export.save"""
    segmentation: Path | None = None
    """the network of fcn: a file that `python -m cyclegan_fast.evaluate fcn` wrote"""

    def __post_init__(self) -> None:
        for name in ("evaluate_every", "evaluate_images"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        for metric in self.metrics:
            _require_choice("metrics", metric, MetricName)
        _require(len({*self.metrics}) == len(self.metrics), f"metrics has one twice: {', '.join(self.metrics)}")
        _require(
            "fcn" not in self.metrics or self.segmentation is not None,
            "the metric fcn needs --segmentation FILE, which `python -m cyclegan_fast.evaluate fcn` trains",
        )
        _require(
            self.best_by is None or self.evaluate_every > 0,
            f"best_by {self.best_by} has no effect without --evaluate-every",
        )


@dataclass(frozen=True)
class Config:
    """Train CycleGAN: two generators that translate between two folders of unpaired images; or, with --method, what the
    paper compares it with.

    Without --data the embedded photographs are used, with settings for a small machine (preset demo).
    """

    data: DataConfig = field(default_factory=DataConfig)
    networks: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _require(
            not self.loss.has_penalty or self.data.preprocess in CROPPING,
            f"gan_loss wgan-gp mixes real and generated images and needs them of one size: preprocess "
            f"{self.data.preprocess!r} does not give that; use one of {', '.join(CROPPING)}, or lambda_penalty 0",
        )
        _require(
            not self.loss.has_penalty or self.networks.norm != "batch",
            "the gradient penalty of wgan-gp is that of each image by itself, and batch norm mixes them: use norm "
            "instance, or lambda_penalty 0",
        )
        _require(
            self.loss.method != "cogan" or self.data.preprocess in CROPPING,
            f"method cogan renders images of one size, the crop's: preprocess {self.data.preprocess!r} does not give "
            f"that; use one of {', '.join(CROPPING)}",
        )
        _require(
            bool(self.networks.blocks) or self.data.preprocess in CROPPING,
            f"a U-Net halves sides down to nothing: preprocess {self.data.preprocess!r} does not give it multiples of "
            f"{2**self.networks.halvings}; use one of {', '.join(CROPPING)}",
        )
        _require(
            self.networks.norm != "batch" or self.optimizer.accumulate == 1,
            "batch norm takes the statistics of all that is computed at once, and accumulate computes a batch in "
            "parts: use norm instance, or accumulate 1",
        )
        _require(
            self.networks.smallest_side <= SMALLEST_DISCRIMINATOR_SIDE or self.data.preprocess in CROPPING,
            f"a discriminator of {self.networks.n_layers} layers needs images of {self.networks.smallest_side} pixels "
            f"each way: preprocess {self.data.preprocess!r} does not promise that; use one of {', '.join(CROPPING)}",
        )
        _require(
            self.data.crop_size >= self.networks.smallest_side or self.data.preprocess not in CROPPING,
            f"crop_size must be at least {self.networks.smallest_side} for a discriminator of {self.networks.n_layers} "
            f"layers, got {self.data.crop_size}",
        )
        _require(
            self.data.crop_size % 2**self.networks.halvings == 0,
            f"crop_size must be a multiple of {2**self.networks.halvings} for generator {self.networks.generator}, "
            f"got {self.data.crop_size}{'; unet_128 needs 128' if self.networks.generator == 'unet_256' else ''}",
        )
        _require(
            self.data.batch_size % self.optimizer.accumulate == 0,
            f"batch_size must be a multiple of accumulate ({self.optimizer.accumulate}), got {self.data.batch_size}",
        )

    @property
    def total_epochs(self) -> int:
        return self.optimizer.epochs + self.optimizer.decay_epochs
