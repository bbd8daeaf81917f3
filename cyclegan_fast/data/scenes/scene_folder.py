"""Opens the scenes of one domain: chooses their levels, makes their masks, and cuts crops out of them."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cyclegan_fast.config.data_options import DataConfig
from cyclegan_fast.data.image_lists import digest_of_middles
from cyclegan_fast.data.scenes.open_scenes import OpenScenes
from cyclegan_fast.data.scenes.positions import CropPositions
from cyclegan_fast.data.value_facts import ValueFacts, notes_on_values
from cyclegan_fast.images.folders import Found
from cyclegan_fast.images.levels import Extent, ValueRange, merged, note_on
from cyclegan_fast.images.pixel_type import DomainName, PixelType, SampleArray
from cyclegan_fast.images.scenes.data_mask import DataMask, has_data, small_samples
from cyclegan_fast.images.scenes.opening import open_scene
from cyclegan_fast.images.scenes.scene import Scene, TileCache
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted

LEVEL_WITHIN = 1.2
"""Bounds how many times as far or as near the pixels of a level may be as was asked for."""


class Surveyed(NamedTuple):
    """Holds what is known of a scene before crops are cut.

    level: the one that crops are cut from.
    microns: how far apart its pixels are, in micrometres, where the file says it.
    nbytes: what the level's samples take, decoded.
    images: how many images the file holds.
    facts, extent: those of a small level's values, see `PreparedSamples`.
    """

    level: int
    microns: float | None
    positions: CropPositions
    nbytes: int
    images: int
    facts: ValueFacts | None
    extent: Extent | None


@dataclass(frozen=True)
class SceneDomain:
    """Says what the crops of a domain are.

    kind: the type of the domain's pixels.
    side: of the crops in pixels.
    """

    config: DataConfig
    domain: DomainName
    kind: PixelType
    side: int

    @property
    def range_flag(self) -> str:
        """Return the option that gives the domain's range, for notes."""
        return f"--range-{self.domain.lower()}"

    @property
    def deep_range(self) -> ValueRange | None:
        """Return the values of deeper samples that become black and white; see `DataConfig.range_of_deep`."""
        return self.config.range_of_deep(self.domain)


class SceneFolder:
    """Cuts crops out of the scenes of a folder.

    All scenes are opened when the object is made, and a small level of each is read for its mask. One of which no crop
    can be cut is left out and named in `unreadable`, or, with the configuration's `strict`, refused.

    Args:
        folder: holds the scenes.
        found: the scenes.
        domain: what crops are.
        tiles: keeps decoded tiles.
        limit: only the first so many scenes are taken.

    Raises UserError where no scene is left.
    """

    def __init__(
        self, folder: Path, found: Found, domain: SceneDomain, tiles: TileCache, limit: int | None = None
    ) -> None:
        self.folder, self.domain = folder, domain
        self.range_flag = domain.range_flag
        self.strict = domain.config.strict
        self.unreadable: list[str] = []
        self.note: str | None = None
        self.tiles = tiles
        self.remarks = found.told(strict=self.strict)
        self.paths: list[Path] = []
        self.surveyed: list[Surveyed] = []
        self._broken: Counter[int] = Counter()  # crops that could not be read, by scene
        self._lock = Lock()
        paths = found.images[:limit]
        self._survey_all(paths)
        if not self.paths:
            raise UserError(
                f"of none of the {counted(len(paths), 'scene')} in {folder} crops can be cut; the first: "
                f"{self.unreadable[0]}"
            )
        self.files = [self._name(path) for path in self.paths]
        self.values_notes = self._notes_on_values()
        self.remarks += self._notes_on_images()
        self._scenes = OpenScenes(self.paths, tiles)
        self.names = [
            f"{name} {bytes_of(path)} level {scene.level}, {domain.side} pixels, {len(scene.positions)} positions"
            for name, path, scene in zip(self.files, self.paths, self.surveyed, strict=True)
        ]

    def content(self) -> str:
        """Return a digest of parts of the files, see `digest_of_middles`."""
        return digest_of_middles([file for path in self.paths for file in _files_of(path)])

    @property
    def data_pixels(self) -> list[float]:
        """Return the area of each scene's level that has data, in its pixels."""
        return [scene.positions.data_pixels for scene in self.surveyed]

    @property
    def kept_bytes(self) -> int:
        """Return the bytes that decoded tiles take at most."""
        return min(self.tiles.most_bytes, sum(scene.nbytes for scene in self.surveyed))

    def crop(self, number: int, top: int, left: int) -> SampleArray:
        """Return a crop [side, side, C] of a scene, in the type of the domain; raises UnreadableImage."""
        side, kind = self.domain.side, self.domain.kind
        with self._scenes.lend(number) as scene:
            level, positions = self.surveyed[number].level, self.surveyed[number].positions
            if scene.levels[level : level + 1] != ((positions.height, positions.width),):
                raise UnreadableImage(f"{scene.path}: its level {level} has another size than when the training began")
            samples = scene.read(top, left, side, side, level)
            values: SampleArray = scene.converted(samples, kind, self.domain.deep_range).values[0]
        if values.dtype.kind == "f":
            np.nan_to_num(values, copy=False, nan=kind.low)
        return values

    def note_broken(self, number: int, error: UnreadableImage) -> None:
        """Say that a crop cannot be read, at the first of a scene, the tenth, the hundredth and so on."""
        with self._lock:
            self._broken[number] += 1
            count = self._broken[number]
        if str(count).strip("0") == "1":
            said = f"skipped {counted(count, 'crop')} that cannot be read, for others (--strict ends there): {error}"
            tqdm.write(f"note: {printable(said)}")

    def described(self) -> str:
        """Return from how many scenes, which levels of them, and which part of these crops are cut."""
        levels = sorted({scene.level for scene in self.surveyed})
        microns = [scene.microns for scene in self.surveyed if scene.microns is not None]
        apart = ""
        if microns:
            low, high = min(microns), max(microns)
            apart = f" (micrometres a pixel: {low:.3g}{f' to {high:.3g}' if high > 1.01 * low else ''})"
        pixels = sum(scene.positions.height * scene.positions.width for scene in self.surveyed)
        share = sum(self.data_pixels) / pixels
        named = "level" if len(levels) == 1 else "levels"
        return (
            f"{counted(len(self.paths), 'scene')} in {self.folder}, {named} {', '.join(map(str, levels))}{apart}: "
            f"{share:.0%} of {pixels / 1e6:,.4g} million pixels are tissue or data"
        )

    def _name(self, path: Path) -> str:
        return path.name if path == self.folder else path.relative_to(self.folder).as_posix()

    def _survey_all(self, paths: Sequence[Path]) -> None:
        def surveyed(path: Path) -> Surveyed | UnreadableImage:
            try:
                return _survey(path, self.domain)
            except UnreadableImage as error:
                return error

        with (
            ThreadPoolExecutor(max(1, self.domain.config.workers)) as pool,
            closing(ahead(pool, surveyed, paths, 2)) as results,
        ):
            description = f"looking for tissue in {self.folder.name}"
            bar = progress_bar(results, total=len(paths), desc=description, unit=" scenes", leave=False)
            for path, result in zip(paths, bar, strict=True):
                if not isinstance(result, UnreadableImage):
                    self.paths.append(path)
                    self.surveyed.append(result)
                elif self.strict:
                    raise UserError(f"{result} (leave --strict out to skip such files)")
                else:
                    self.unreadable.append(str(result))

    def _notes_on_values(self) -> list[str]:
        kind, where, flag = self.domain.kind, str(self.folder), self.domain.range_flag
        extents = [scene.extent for scene in self.surveyed if scene.extent is not None]
        deep = note_on(merged(extents), where, self.domain.deep_range, flag)
        facts = {
            name: scene.facts for name, scene in zip(self.files, self.surveyed, strict=True) if scene.facts is not None
        }
        notes = [*([deep] if deep else []), *notes_on_values(facts, kind, where, flag)]
        return [f"{note} (by the small levels of scenes)" for note in notes]

    def _notes_on_images(self) -> list[str]:
        several = [
            (name, scene.images) for name, scene in zip(self.files, self.surveyed, strict=True) if scene.images > 1
        ]
        if not several:
            return []
        name, count = several[0]
        others = f", and of {len(several) - 1} more in the same way" if len(several) > 1 else ""
        line = f"{self.folder / name}: crops are cut from the first of {count} images{others}"
        if self.strict:
            raise UserError(f"{line} (leave --strict out to take that)")
        return [line]


def _survey(path: Path, domain: SceneDomain) -> Surveyed:
    """Look at a scene; raises UnreadableImage where no crop can be cut from it."""
    config, kind = domain.config, domain.kind
    with open_scene(path) as scene:
        level = level_of(scene, config)
        height, width = scene.levels[level]
        if min(height, width) < domain.side:
            raise UnreadableImage(
                f"{path}: its level {level}, {width}x{height}, is smaller than the crop of {domain.side}: lower "
                "--crop-size, or take a larger level"
            )
        samples = small_samples(scene)
        mask = has_data(samples, scene)
        if not mask.any() and config.least_data:
            raise UnreadableImage(f"{path}: it has no tissue or data anywhere (--least-data 0 takes it nevertheless)")
        converted = scene.converted(samples, kind, domain.deep_range)
        facts = None
        if not kind.is_rgb and not np.isnan(converted.values).all():
            facts = ValueFacts.of(converted.values, kind)
            if facts.missing and config.strict:
                raise UnreadableImage(f"{path}: {facts.missing} of {facts.count} values are NaN, without a value")
        positions = CropPositions(DataMask(mask, height, width), domain.side, config.least_data)
        if not len(positions):
            raise UnreadableImage(
                f"{path}: no crop of {domain.side} pixels of its level {level} has tissue or data in "
                f"{config.least_data:.0%} of it: lower --least-data or --crop-size"
            )
        nbytes = height * width * scene.channels * scene.dtype.itemsize
        microns, images = scene.microns_of(level), scene.layout.images
        return Surveyed(level, microns, positions, nbytes, images, facts, converted.extent)


def level_of(scene: Scene, config: DataConfig) -> int:
    """Return the level that crops are cut from; raises UnreadableImage where the scene does not have it."""
    wanted = config.microns_per_pixel
    if wanted is None:
        if config.scene_level >= len(scene.levels):
            sizes = ", ".join(f"{width}x{height}" for height, width in scene.levels)
            raise UnreadableImage(f"{scene.path}: it has no level {config.scene_level}: its levels are {sizes}")
        return config.scene_level
    found = [scene.microns_of(level) for level in range(len(scene.levels))]
    microns = [each for each in found if each is not None]
    if not microns:
        raise UnreadableImage(
            f"{scene.path}: it does not say how far apart its pixels are: give --scene-level instead of "
            "--microns-per-pixel"
        )
    ratios = [max(each / wanted, wanted / each) for each in microns]
    level = int(np.argmin(ratios))
    if ratios[level] > LEVEL_WITHIN:
        has = ", ".join(f"{each:.3g}" for each in microns)
        raise UnreadableImage(f"{scene.path}: it has no level of {wanted:g} micrometres a pixel: its levels have {has}")
    return level


def bytes_of(path: Path) -> int:
    """Return the bytes of a scene's file, or of all files of a folder."""
    return sum(file.stat().st_size for file in _files_of(path))


def _files_of(path: Path) -> list[Path]:
    """Return a scene's file, or all files of a folder in a fixed order."""
    if not path.is_dir():
        return [path]
    found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sorted(found)
