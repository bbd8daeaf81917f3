"""Finds out what the pixels of a data set's domains are: from what was given, from the run, or from the files.

At the end of it, a configuration says of both domains how many channels they have, of which type, and which values
become -1 and 1. Domains of 8-bit RGB stay as they were given: that is the default.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.config.values import load_config
from cyclegan_fast.data.layouts import Place, training_places
from cyclegan_fast.data.scenes.finding import find_scenes_in
from cyclegan_fast.data.scenes.scene_values import DomainScenes
from cyclegan_fast.data.value_ranges import DomainFiles, value_range_of
from cyclegan_fast.images.pixel_type import DomainName, PixelType, SampleDtype
from cyclegan_fast.images.samples import FileKind, describe_file
from cyclegan_fast.images.scenes.opening import describe_scene
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.runs import CONFIG
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted

DOMAINS: tuple[DomainName, ...] = ("A", "B")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DescribedFile:
    """Says what an image file holds, by its header."""

    path: Path
    kind: FileKind

    @property
    def dtype(self) -> SampleDtype:
        """Return the type of its samples."""
        return self.kind.dtype

    @property
    def bands(self) -> int:
        """Return its channels, without one of opacity."""
        return self.kind.channels - self.kind.has_opacity

    @property
    def is_picture(self) -> bool:
        """Tells whether it is grey or has colours, and is no stack of other bands."""
        return self.bands == 1 or (self.kind.is_colour and self.bands == 3)

    def __str__(self) -> str:
        """Say it in a phrase, such as "1 channel of uint16"."""
        return f"{counted(self.bands, 'channel')} of {self.dtype}"


class GivenPixels(NamedTuple):
    """Holds what options say of the pixels of a domain, as far as they do."""

    channels: int | None
    dtype: SampleDtype | None
    range: tuple[float, ...]

    @classmethod
    def of(cls, config: DataConfig, domain: DomainName) -> "GivenPixels":
        """Return what a configuration says of a domain."""
        end = domain.lower()
        return cls(*(getattr(config, f"{name}_{end}") for name in cls._fields))

    def as_options(self, domain: DomainName) -> dict[str, Any]:
        """Return the values by the names of options."""
        return {f"{name}_{domain.lower()}": value for name, value in self._asdict().items()}


def with_known_pixels(config: Config, ranks: Ranks, *, paired: bool) -> Config:
    """Return the configuration of a run with all that is to be known of its pixels.

    Where the run was begun already, it says what is not given, else its training images do; the first rank reads them.

    Args:
        config: has the run's name.
        paired: the training images are pairs, see `open_data`.

    Raises UserError where files differ, and where what is given makes no sense for them.
    """
    assert config.run.name is not None
    begun = config.run.runs / config.run.name / CONFIG

    def known() -> dict[str, Any]:
        if begun.exists():
            saved = load_config(begun).data
            return {name: value for domain in DOMAINS for name, value in _as_the_run(config.data, saved, domain)}
        return {} if config.data.is_built_in else options_of_files(config.data, paired=paired)

    options = ranks.from_first(known)
    try:
        return replace(config, data=replace(config.data, **options))
    except ValueError as error:
        raise UserError(str(error)) from error


def _as_the_run(given: DataConfig, saved: DataConfig, domain: DomainName) -> Sequence[tuple[str, Any]]:
    """Return what is given of a domain, with the run's values for what is not; all as the run has it if that is it."""
    own, runs = GivenPixels.of(given, domain), GivenPixels.of(saved, domain)
    together = GivenPixels(own.channels or runs.channels, own.dtype or runs.dtype, own.range or runs.range)
    described = replace(given, **together.as_options(domain))
    try:
        means_the_same = (described.pixel_type(domain), described.range_of_deep(domain)) == (
            saved.pixel_type(domain),
            saved.range_of_deep(domain),
        )
    except ValueError:  # floating-point samples are asked of a run of others, which has no range of them
        means_the_same = False
    return [*(runs if means_the_same else together).as_options(domain).items()]


def options_of_files(config: DataConfig, *, paired: bool) -> dict[str, Any]:
    """Return the options that describe the pixels of both domains, from what is given and from the training images.

    Domains of 8-bit RGB get none. Raises UserError as `with_known_pixels` does.
    """
    assert config.data is not None
    options: dict[str, Any] = {}
    described: dict[Place, list[DescribedFile]] = {}
    for domain, place in zip(DOMAINS, training_places(config.data, paired=paired), strict=True):
        scenes = find_scenes_in(place, config)
        files = scenes.images if scenes else [place.folder / name for name in place.names()]
        searched = replace(place, half=None)  # both halves of images side by side are in one folder
        if searched not in described:
            limit = None if paired else config.max_images  # pairs are limited after partners are found
            described[searched] = _described(files[:limit], place.folder.name, config, are_scenes=scenes is not None)
        given = GivenPixels.of(config, domain)
        if described[searched]:  # of others, whoever opens them says what is wrong
            kind = pixels_of_files(described[searched], given, place.folder, domain)
            values_of = DomainFiles if scenes is None else DomainScenes
            found = _with_range(kind, given, described[searched], place, domain, config, values_of)
            options |= found.as_options(domain) if found else {}
    return options


def _described(files: Sequence[Path], name: str, config: DataConfig, *, are_scenes: bool) -> list[DescribedFile]:
    """Read the headers of files; those that cannot be read are left out."""
    axis = config.slice_axis

    def describe(path: Path) -> FileKind | None:
        try:
            return describe_scene(path) if are_scenes else describe_file(path, config.frames, axis)
        except UnreadableImage:
            return None  # whoever reads it names it

    with (
        ThreadPoolExecutor(max(1, config.workers)) as pool,
        closing(ahead(pool, describe, files, 64)) as kinds,
    ):
        bar = progress_bar(kinds, total=len(files), desc=f"looking at {name}", unit=" images", leave=False)
        return [DescribedFile(path, kind) for path, kind in zip(files, bar, strict=True) if kind is not None]


def pixels_of_files(
    files: Sequence[DescribedFile], given: GivenPixels, folder: Path, domain: DomainName
) -> tuple[int, SampleDtype]:
    """Return the channels and the type of a domain's pixels.

    Pictures of 8 bits, whatever they hold, become RGB, or 1 channel where all of them are grey. Raises UserError, which
    names two files and what to give, where files differ otherwise.
    """
    flag = f"--dtype-{domain.lower()}"
    advice = f"give {flag} uint8 for 8 bits, or {flag} float32 to keep the values"
    types = [file.dtype for file in files] if given.dtype is None else [given.dtype]
    dtype = _common(files, types, folder, advice)
    if given.channels is not None:
        return given.channels, dtype
    are_pictures, bands = all(file.is_picture for file in files), [file.bands for file in files]
    if dtype == "uint8" and are_pictures:
        return (1 if set(bands) == {1} else 3), dtype
    flag = f"--channels-{domain.lower()}"
    advice = f"give {flag} 1 for grey or {flag} 3 for colours" if are_pictures else "keep those of one kind there"
    return _common(files, bands, folder, advice), dtype


def _common(files: Sequence[DescribedFile], values: Sequence[_Value], folder: Path, advice: str) -> _Value:
    """Return the value that all files have; raises UserError, with advice, where they have several."""
    other = next((place for place, value in enumerate(values) if value != values[0]), None)
    if other is None:
        return values[0]
    one, another = (f"{files[place].path.relative_to(folder)} has {files[place]}" for place in (0, other))
    raise UserError(f"the images in {folder} are of several kinds: {one}, and {another}; {advice}")


def _with_range(
    kind: tuple[int, SampleDtype],
    given: GivenPixels,
    files: Sequence[DescribedFile],
    place: Place,
    domain: DomainName,
    config: DataConfig,
    values_of: type[DomainFiles],
) -> GivenPixels | None:
    """Return all that is known of a domain's pixels, None for 8-bit RGB; raises UserError for wrong ranges."""
    channels, dtype = kind
    flag = f"--range-{domain.lower()}"
    if dtype == "uint8":
        if given.range and all(file.dtype == "uint8" for file in files):
            raise UserError(
                f"{flag} is for images of more than 8 bits, and those in {place.folder} have 8: leave it out"
            )
        if not given.range and any(file.dtype == "float32" for file in files):
            raise UserError(
                f"the images in {place.folder} are floating-point ones: give the values that become black and white by "
                f"{flag}"
            )
        return None if channels == 3 else GivenPixels(channels, dtype, given.range)
    values = given.range
    if not values and (dtype == "float32" or config.range_from == "data"):
        paths = [file.path for file in files]
        source = values_of(paths, channels, dtype, config.frames, config.slice_axis, place.half, config.workers, domain)
        try:
            values = value_range_of(source, config.percentiles, place.folder.name)
        except ValueError as error:
            raise UserError(f"no range can be taken from the images in {place.folder} ({error}): give {flag}") from None
    pixels = PixelType(channels, dtype, *values) if values else PixelType.with_full_range(channels, dtype)
    if dtype != "float32" and pixels.held_range[0] >= pixels.held_range[1]:
        full = PixelType.with_full_range(channels, dtype)
        raise UserError(
            f"{flag} {pixels.low:g} {pixels.high:g} holds less than two of the values that the images in "
            f"{place.folder} can have, {full.low:g} to {full.high:g} ({dtype})"
        )
    return GivenPixels(channels, dtype, (pixels.low, pixels.high))


def lines_on_pixels(config: DataConfig, *, paired: bool) -> list[str]:
    """Return a line for the user on each domain of training images that are no 8-bit RGB."""
    if config.is_built_in:
        return []
    assert config.data is not None
    lines = []
    for domain, place in zip(DOMAINS, training_places(config.data, paired=paired), strict=True):
        pixels = config.pixel_type(domain)
        if not pixels.is_rgb:
            half = f", {place.half} halves" if place.half else ""
            lines.append(
                f"{place.folder.name}{half}: {counted(pixels.channels, 'channel')}, {pixels.dtype}, "
                f"-1 is {pixels.low:g} and 1 is {pixels.high:g}"
            )
    return lines
