"""Defines the options that both exporting commands take: which generator, in which precision, into which folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cyclegan_fast.images.levels import Level, check_range
from cyclegan_fast.images.pixel_type import SampleDtype
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import check_fields
from export.pixel_ends import PixelEnds
from export.source import Directions, GeneratorSource, check_layers, load_sources

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Precision = Literal["float32", "float16", "bfloat16", "int8", "fp8"]
EightBits = Literal["int8", "fp8"]


def is_precision(name: object) -> "TypeIs[Precision]":
    """Return whether a name is that of a precision."""
    return name in get_args(Precision)


def is_eight_bits(precision: str) -> "TypeIs[EightBits]":
    """Return whether a precision is one of 8 bits."""
    return precision in ("int8", "fp8")


@dataclass(frozen=True)
class ExportOptions:
    """Says which generator is exported, and how its graph computes."""

    checkpoint: Path | None = None
    """a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best, or a .pt file), latest_net_G.pth of
    the original, .safetensors, or hub:owner/name; by default the newest of runs/"""
    direction: Directions = "both"
    """a2b makes images like those of trainA into those of trainB, b2a the reverse; bare weights know one way only"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B; by default the one whose
    name says the direction"""
    running_statistics: bool = False
    """normalise by the running statistics of batch norms, as the original's test.py does with --eval; by default by
    each image's own, as it does without"""
    precision: Precision = "float16"
    """of convolutions; instance norms, sums and tanh are computed in float32 in any case"""
    calibration: Path | None = None
    """for int8 and fp8, folder of images like those that will be translated: their ranges are measured on three of
    four; export/trt.py compares the result with PyTorch on the others; by default what the run was trained with"""
    keep_float16: tuple[str, ...] = ()
    """for int8 and fp8, layers that stay in float16, such as head or blocks.3.conv1; where a result falls short,
    export/trt.py and export/verify.py say which"""
    uint8_io: bool = False
    """take and give samples [batch, height, width, channels], as images are decoded, instead of float32 in [-1, 1]:
    uint8, or float32 in the images' own units where a domain has another type"""
    dtype: SampleDtype | None = None
    """type of the samples of the images; bare weights do not say it, and a run does; by default uint8"""
    range: tuple[Level, ...] = ()
    """with --dtype, the two values of the images, in their own units, that become -1 and 1, such as 0 4095; by default
    all that --dtype can hold"""
    target_dtype: SampleDtype | None = None
    """type of the samples of the translations, likewise"""
    target_range: tuple[Level, ...] = ()
    """with --target-dtype, the two values of the translations that -1 and 1 become"""
    out: Path = Path("engines")
    """folder for what is written; files of the same name are replaced, whole or not at all"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        for name, given in (("calibration", self.calibration), ("keep-float16", self.keep_float16)):
            if given and not is_eight_bits(self.precision):
                raise ValueError(f"--{name} is for --precision int8 and fp8")
        for name, values, dtype in (
            ("range", self.range, self.dtype),
            ("target-range", self.target_range, self.target_dtype),
        ):
            check_range(values, f"--{name}")
            if values and dtype in (None, "uint8"):
                raise ValueError(f"--{name} goes with a type of more than 8 bits, got {dtype or 'none'}")

    def sources(self, notes: list[str]) -> list[GeneratorSource]:
        """Load the generators, with the pixels that the flags say bare weights have.

        Raises UserError as `load_sources` and `check_layers` do, and for a run with such flags.
        """
        from cyclegan_fast.translation.command import with_flags

        statistics = self.running_statistics
        found = load_sources(self.checkpoint, self.direction, notes, self.network, running_statistics=statistics)
        for source in found:
            check_layers(source.network, self.keep_float16)
        if not (self.dtype or self.target_dtype):
            return found
        if any(source.config for source in found):
            raise UserError(
                f"{found[0].checkpoint} is of a run, which says what its pixels are: leave --dtype and --target-dtype "
                "out, which are for bare weights"
            )

        def told(ends: PixelEnds) -> PixelEnds:
            return PixelEnds(
                with_flags(ends.source, self.dtype, self.range, "--dtype", "--range"),
                with_flags(ends.target, self.target_dtype, self.target_range, "--target-dtype", "--target-range"),
            )

        return [replace(source, ends=told(source.ends)) for source in found]

    def name_of(self, source: GeneratorSource) -> str:
        """Return the name of a generator's files, without the ending."""
        statistics = "-running-statistics" if self.running_statistics else ""
        samples = "uint8" if source.ends.are_bytes else "samples"
        return f"{source.name}{statistics}-{self.precision}{f'-{samples}' if self.uint8_io else ''}"
