"""Plans the experiments: the command line, and from it the configuration of each run."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    EvaluationConfig,
    GeneratorName,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.experiments.paper_tables import DEFAULT, ROWS, RowName
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.system.ranges import (
    MOST_COUNTED,
    MOST_STEPS,
    BatchSize,
    LearningRate,
    LoadedSide,
    NetworkWidth,
    Range,
    RunSeed,
    TrainedSide,
    check_fields,
)

EXPERIMENTS_PROGRAM = "python -m cyclegan_fast.experiments"
PAPERS_EPOCHS = 200
PlanPreset = Literal["quick", "paper128", "paper256"]


@dataclass(frozen=True)
class PlanSettings:
    """Holds what all runs have in common; no row is tuned alone. The flags replace what the preset has."""

    size: TrainedSide = 64
    """side in pixels of the square that is trained on and scored, a multiple of 4"""
    load_size: LoadedSide = 64
    """side that images are resized to before a random crop of --size"""
    generator: GeneratorName = "resnet_6"
    """the generators of all methods but CoGAN, which renders images from a code"""
    ngf: NetworkWidth = 16
    """channels of the generators' first convolution"""
    ndf: NetworkWidth = 16
    """channels of the discriminators' first convolution"""
    steps: Annotated[int, Range(1, MOST_STEPS)] | None = 1500
    """steps of each run; None for the paper's 200 epochs"""
    learning_rate: LearningRate = 5e-4
    """Adam's step size in the first half of the epochs; it then falls linearly, epoch by epoch, towards zero"""
    ema: Annotated[float, Range(0, below=1)] = 0.995
    """decay of the moving average of the generators' weights, which is scored; 0 for none"""
    batch_size: BatchSize = 1
    """images of each domain in one step"""
    pool_size: Annotated[int, Range(0, 10**6)] = 50
    """generated images of each domain kept for the discriminators (pix2pix keeps none, as its paper has it)"""
    amp: bool = False
    """mixed precision, in training and in the scored translations"""
    checkpoint_every: Annotated[int, Range(1, MOST_STEPS)] = 250
    """steps between two checkpoints: what a kill may cost"""
    test_images: Annotated[int, Range(0, MOST_COUNTED)] = 0
    """test images of each domain that are scored, the first ones; 0 for all"""
    segmentation_epochs: Annotated[int, Range(1, MOST_COUNTED)] = 20
    """passes over the real photographs that the network which reads labels is trained for"""
    segmentation_width: NetworkWidth = 16
    """its channels at full size"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if self.load_size < self.size:
            raise ValueError(f"--load-size must be at least --size ({self.size}), got {self.load_size}")


_PAPER128 = PlanSettings(
    size=128,
    load_size=143,
    ngf=64,
    ndf=64,
    steps=None,
    learning_rate=2e-4,
    ema=0.0,
    checkpoint_every=1000,
    segmentation_epochs=60,
    segmentation_width=32,
)
PLAN_PRESETS: dict[PlanPreset, PlanSettings] = {
    "quick": PlanSettings(),
    "paper128": _PAPER128,
    "paper256": replace(_PAPER128, size=256, load_size=286, generator="resnet_9"),
}


@dataclass(frozen=True)
class Tables:
    """Run the comparisons of Zhu et al. 2017, tables 2 to 5, anew: every method and every variant of the loss is
    trained on photographs (domain A) and label maps (B) with the same networks, steps and rates, and scored in both
    directions as `evaluate fcn` does.

        python -m cyclegan_fast.street_scenes streets --size 64
        python -m cyclegan_fast.experiments tables --data streets --out tables

    The quick plan takes a little over an hour on two CPU cores; the others are for a GPU.

    OUT gets report.md, report.json and report.jpg; below it runs/ has an ordinary run for each row and seed, scores/
    what was read in its translations, segmentation.pt the network that reads. The same command continues what was
    interrupted, and trains and scores nothing twice; more --methods and --seeds may be added, everything else must
    stay for one OUT. The report is of all runs that OUT holds.

    Rows: cogan, bigan, simgan, feature-loss, cyclegan, pix2pix (tables 2, 3); cycle-alone, gan-alone, gan-forward,
    gan-backward (tables 4, 5; the forward cycle is labels -> photo -> labels). cyclegan-identity is not in the paper's.
    """

    data: Path
    """folder with labelled photographs, as street_scenes writes it, or Cityscapes as its archives unpack"""
    out: Path
    """folder of the report, and of everything that it is made from"""
    settings: Annotated[PlanSettings, tyro.conf.arg(name="")]
    preset: PlanPreset = "quick"
    """settings to start from: quick (64x64, small networks), paper128 (128x128 and 6 blocks, as the paper's tables), or
    paper256 (256x256 and 9 blocks); both of the paper for 200 epochs"""
    methods: tuple[RowName, ...] = DEFAULT
    """rows to train and score, one or more of the above"""
    seeds: tuple[RunSeed, ...] = (0, 1)
    """a run of each method for each of these"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    segmentation: Path | None = None
    """file of a network that `evaluate fcn` trained, to read labels; by default one is trained and kept in OUT"""
    feature_network: Path | None = None
    """file of the network of the row feature-loss, VGG-16's weights (vgg16-397923af.pth of torchvision) or one that a
    run trained; by default each of its runs trains its own"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        for name in ("methods", "seeds"):
            values = getattr(self, name)
            if not values or len({*values}) < len(values):
                raise ValueError(f"--{name} needs one or more, none of them twice")

    @property
    def runs(self) -> list[tuple[RowName, int]]:
        """Return all runs: first every row with the first seed, so that an early report is of all rows."""
        return [(method, seed) for seed in self.seeds for method in self.methods]


def parse_tables(arguments: Sequence[str] | None = None) -> Tables:
    """Parse the command line behind `tables`; see `parse_command`."""
    given = list(sys.argv[2:] if arguments is None else arguments)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", choices=get_args(PlanPreset), default="quick")
    try:
        preset: PlanPreset = first.parse_known_args(given)[0].preset
    except argparse.ArgumentError as error:  # a preset that there is not
        raise UserError(in_brief_words(error)) from error
    start = Tables(data=tyro.MISSING, out=tyro.MISSING, settings=PLAN_PRESETS[preset], preset=preset)
    return parse_command(Tables, f"{EXPERIMENTS_PROGRAM} tables", given, default=start)


def run_name(method: RowName, seed: int) -> str:
    """Return the name of a run: of its folder, and of the files with its scores."""
    return f"{method}-seed{seed}"


def schedule(steps: int | None, steps_per_epoch: int) -> tuple[int, int, int]:
    """Return how many epochs a run has at the full rate, how many of decay, and how many steps.

    The rate changes between epochs only. The epochs that the steps reach into are halved, the middle one of an odd
    number being at the full rate; the last epoch is cut where the steps end.
    """
    steps = steps or PAPERS_EPOCHS * steps_per_epoch
    epochs = -(-steps // steps_per_epoch)
    return epochs - epochs // 2, epochs // 2, steps


def config_of(plan: Tables, method: RowName, seed: int, steps_per_epoch: int) -> Config:
    """Return the configuration of a run: what the plan has for all, changed by what the row differs in."""
    settings, row = plan.settings, ROWS[method]
    epochs, decay_epochs, steps = schedule(settings.steps, steps_per_epoch)
    common = Config(
        data=DataConfig(
            data=plan.data.resolve(),
            load_size=settings.load_size,
            crop_size=settings.size,
            batch_size=settings.batch_size,
            pairs="yes",  # test images with their label maps
            strict=True,  # the number of images decides the schedule
        ),
        networks=NetworkConfig(generator=settings.generator, ngf=settings.ngf, ndf=settings.ndf),
        loss=LossConfig(lambda_identity=0.0, pool_size=settings.pool_size),
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, epochs=epochs, decay_epochs=decay_epochs, ema=settings.ema
        ),
        run=RunConfig(
            name=run_name(method, seed),
            runs=plan.out / "runs",
            device=plan.device,
            amp=settings.amp,
            seed=seed,
            max_steps=steps,
            report_every=max(1, min(50, steps // 20)),
            sample_every=steps // 2 + 1,  # at the start, in the middle, and what every run draws at its end
            checkpoint_every=settings.checkpoint_every,
        ),
        # Scored below, all runs alike.
        evaluation=EvaluationConfig(metrics=(), evaluate_images=1),
    )
    own = of_method(common, row.method)
    changes = dict(row.changes)
    if row.method == "feature-loss":
        changes["feature_network"] = plan.feature_network.resolve() if plan.feature_network else None
    return replace(own, loss=replace(own.loss, **changes))
