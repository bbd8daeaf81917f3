"""Defines the options of a run: its optimizer and schedule, what it writes when, and what it is scored by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclegan_fast.config.checks import require
from cyclegan_fast.images.display import Colouring, Display, DomainView, DomainViews
from cyclegan_fast.images.levels import Level
from cyclegan_fast.images.pixel_type import ChannelCount, PixelTypes
from cyclegan_fast.system.files import LONGEST_NAME
from cyclegan_fast.system.ranges import (
    LARGEST_BATCH,
    MOST_COUNTED,
    MOST_STEPS,
    LearningRate,
    Range,
    RunSeed,
    ThreadCount,
    brief,
    check_fields,
)

_Made = TypeVar("_Made")
Policy = Literal["linear", "step", "plateau", "cosine"]
CudaGraph = Literal["auto", "on", "off"]
Streams = Literal["auto", "1", "2"]
AmpDtype = Literal["auto", "bfloat16", "float16"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]
MetricName = Literal["reconstruction", "truth", "lookup", "fid", "kid", "lpips", "fcn"]
DISPLAY_OPTIONS = ("bands_a", "bands_b", "window_a", "window_b", "colours_a", "colours_b")
"""The options that say how images of the two domains are made visible: they change nothing but pictures."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Set Adam and its schedule."""

    learning_rate: LearningRate = 2e-4
    """Adam's step size at first"""
    learning_rate_policy: Policy = "linear"
    """how the learning rate falls: linear after `epochs` epochs towards zero; step to a tenth every `step_epochs`
    epochs; cosine to zero over `epochs` epochs (and up again over `decay_epochs`, as the original's: give 0); plateau
    to a fifth where the generators' losses have not fallen by a hundredth for more than 5 epochs"""
    step_epochs: Annotated[int, Range(1, MOST_COUNTED)] = 50
    """policy step: epochs between two falls of the learning rate"""
    beta1: Annotated[float, Range(0, below=1)] = 0.5
    """Adam's decay rate of the first moment"""
    epochs: Annotated[int, Range(0, MOST_COUNTED)] = 100
    """epochs at the full learning rate"""
    decay_epochs: Annotated[int, Range(0, MOST_COUNTED)] = 100
    """epochs after that, over which the learning rate falls with policy linear"""
    accumulate: Annotated[int, Range(1, LARGEST_BATCH)] = 1
    """compute each batch in this many parts, one after another, to need less memory; the update stays that of the whole
    batch"""
    ema: Annotated[float, Range(0, below=1)] = 0.0
    """decay of the moving average of the generators' weights, which then draws the samples and is scored; 0 for none"""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.learning_rate_policy == "step" or self.step_epochs == type(self).step_epochs,
            f"step_epochs is of learning_rate_policy step: it has no effect on {self.learning_rate_policy}",
        )
        require(
            self.learning_rate_policy != "cosine" or self.epochs > 0, "learning_rate_policy cosine needs epochs above 0"
        )
        require(self.epochs + self.decay_epochs > 0, "epochs and decay_epochs must not both be 0")


@dataclass(frozen=True)
class RunConfig:
    """Say where a run is, what it computes on, and what it writes when."""

    name: str | None = None
    """folder of the run under `runs`; by default made from the data and the preset. The same command continues it"""
    runs: Path = Path("runs")
    """folder that holds the runs"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    threads: ThreadCount | None = None
    """threads that compute on a CPU, in each process; by default one for each processor"""
    amp: bool = False
    """mixed precision: convolutions and fused operators in low precision; weights, statistics, losses in float32"""
    amp_dtype: AmpDtype = "auto"
    """low precision of --amp; "auto" is bfloat16 where the hardware has it and float16 with loss scaling elsewhere"""
    cuda_graph: CudaGraph = "auto"
    """replay each step as one CUDA graph: "auto" where that can be done, "on" or else stop, "off" never"""
    streams: Streams = "auto"
    """streams of a GPU that compute a step: with 2 its two directions, and its two discriminators, run at once, with
    the same results and twice the activations in memory, or with --paired the gradients of blocks' weights run beside
    the rest of the backward pass; "auto" is 2 in a CUDA graph up to 4 images of 256x256"""
    paired: bool = False
    """compute both directions as one, by networks with two groups of channels: half as many launches, with the same
    results but for rounding and twice the activations in memory. For method cyclegan with ResNet generators. Whether it
    is faster has not been measured yet"""
    compile: bool = False
    """compile the networks with torch.compile: faster steps after a start that takes a minute or more"""
    seed: RunSeed = 0
    """fixes weights, images, crops and pools"""
    deterministic: bool = False
    """the same bits for the same seed on a GPU too, at some cost in speed"""
    max_steps: Annotated[int, Range(1, MOST_STEPS)] | None = None
    """stop after this many steps where the epochs have not ended before; the same command with more of either goes on
    with a run, finished or not"""
    extend_from_here: bool = False
    """where more epochs would have changed the learning rate of steps that a run has taken: keep these steps, and give
    each epoch from here on the rate of the new settings (policy linear: the full one up to epoch `epochs`)"""
    report_every: Annotated[int, Range(1, MOST_STEPS)] = 50
    """steps between two lines of metrics.jsonl and of TensorBoard, each with mean losses"""
    sample_every: Annotated[int, Range(1, MOST_STEPS)] = 1000
    """steps between two grids of samples"""
    bands_a: tuple[ChannelCount, ...] = ()
    """channels of A's images, counted from 1, that samples and other pictures for people show: one in grey or false
    colours, two in red and cyan, three in red, green and blue, such as 4 3 2; by default all, or the first three. Like
    window_a and colours_a this changes nothing but pictures"""
    bands_b: tuple[ChannelCount, ...] = ()
    """channels of B's images that are shown, likewise"""
    window_a: tuple[Level, ...] = ()
    """the two values of A's images, in their own units, that are shown darkest and brightest; by default their range"""
    window_b: tuple[Level, ...] = ()
    """the two values of B's images that are shown darkest and brightest, likewise"""
    colours_a: Colouring = "grey"
    """how a single band of A is shown: grey; in false colours by brightness, cubehelix or hot; or blue-red, through
    white, around a middle"""
    colours_b: Colouring = "grey"
    """how a single band of B is shown, likewise"""
    checkpoint_every: Annotated[int, Range(1, MOST_STEPS)] = 1000
    """steps between two checkpoints"""
    keep_every_epochs: Annotated[int, Range(0, MOST_COUNTED)] = 0
    """keep a checkpoint of every this many epochs for good, called RUN@120 by commands; 0 keeps the two newest only"""
    rollback: bool = False
    """where the losses show that the training has gone wrong, go back to the newest checkpoint from before that, with
    another seed and half the learning rate; three times at most, then the run ends. A few more checkpoints are kept
    for it"""
    track: tuple[TrackerName, ...] = ("tensorboard",)
    """where reports, scores and samples go besides the run's own files, one or more; "none" for nowhere. One that fails
    in the middle, such as without a network, is left out from there on"""
    profile: Annotated[int, Range(0, 10000)] = 0
    """measure this many steps after the first few: prints where their time goes, and writes profile/trace.json, which
    chrome://tracing and ui.perfetto.dev open"""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.amp or self.amp_dtype == "auto", f"amp_dtype {self.amp_dtype} has no effect without --amp: add --amp"
        )
        require(bool(self.track), "track needs one tracker at least: none for none")
        require(len({*self.track}) == len(self.track), f"track has one twice: {', '.join(self.track)}")
        require("none" not in self.track or len(self.track) == 1, "track none stands by itself")
        require(
            self.name is None or _is_folder_name(self.name),
            f"name must be a plain folder name of {LONGEST_NAME} bytes at most, got {brief(self.name)}",
        )
        self._displays()

    def views(self, kinds: PixelTypes) -> DomainViews:
        """Return how images of both domains are shown to people.

        Raises ValueError, naming the domain, where the images do not have the bands that were asked for.
        """
        A, B = (
            _of_domain(domain, DomainView, kind, display)
            for domain, kind, display in zip("AB", kinds, self._displays(), strict=True)
        )
        return DomainViews(A, B)

    def _displays(self) -> tuple[Display, Display]:
        return (
            _of_domain("A", Display, self.bands_a, self.window_a, self.colours_a),
            _of_domain("B", Display, self.bands_b, self.window_b, self.colours_b),
        )


def _of_domain(domain: str, make: Callable[..., _Made], *values: Any) -> _Made:
    """Return make(*values), whose ValueError gets the name of the domain."""
    try:
        return make(*values)
    except ValueError as error:
        raise ValueError(f"pictures of {domain}: {error}") from error


def _is_folder_name(name: str) -> bool:
    """Return whether every file system, page and file of a run can hold a name: it is UTF-8, and no path."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and length <= LONGEST_NAME


@dataclass(frozen=True)
class EvaluationConfig:
    """Choose what is measured on the test images, while training and at its end."""

    evaluate_every: Annotated[int, Range(0, MOST_STEPS)] = 0
    """steps between two evaluations, which go to evaluations.jsonl, TensorBoard and the gallery; the best checkpoint is
    kept as checkpoints/best.pt. 0 evaluates at the end only"""
    patience: Annotated[int, Range(0, MOST_COUNTED)] = 0
    """end the run, as finished, once so many evaluations in a row were no better than the best one; 0 never does. Needs
    evaluate_every"""
    metrics: tuple[MetricName, ...] = ("reconstruction", "truth", "lookup")
    """what to measure; see `python -m cyclegan_fast.evaluate --help`"""
    best_by: str | None = None
    """the value that the best checkpoint is chosen by, such as a2b.truth.ssim or b2a.fcn.class_iou; by default the
    first of those that the metrics give: class IoU, KID, FID, SSIM against the truth, SSIM of reconstructions"""
    evaluate_images: Annotated[int, Range(0, MOST_COUNTED)] = 64
    """test images of each domain that are used, the first ones; 0 for all"""
    features: str = "inception"
    """the network of fid and kid: "inception", a file of `evaluate fcn`, or a .pt2 file of torch.export.save"""
    segmentation: Path | None = None
    """the network of fcn: a file that `python -m cyclegan_fast.evaluate fcn` wrote"""

    def __post_init__(self) -> None:
        check_fields(self)
        require(len({*self.metrics}) == len(self.metrics), f"metrics has one twice: {', '.join(self.metrics)}")
        require(
            "fcn" not in self.metrics or self.segmentation is not None,
            "the metric fcn needs --segmentation FILE, which `python -m cyclegan_fast.evaluate fcn` trains",
        )
        require(
            self.best_by is None or self.evaluate_every > 0,
            f"best_by {self.best_by} has no effect without --evaluate-every",
        )
        require(
            self.patience == 0 or self.evaluate_every > 0,
            f"patience {self.patience} has no effect without --evaluate-every",
        )
