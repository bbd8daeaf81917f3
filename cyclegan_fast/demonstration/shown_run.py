"""Knows the checkpoints and directions of the run that is shown, and translates pictures with one of its generators."""

import warnings
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

from PIL import Image

from cyclegan_fast.checkpoint.hub import is_hub_name
from cyclegan_fast.checkpoint.names import LATEST, kept_checkpoints
from cyclegan_fast.conventions import DIRECTIONS, Direction
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.images.decoding import decode, opened_picture
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.images.unreadable import BoundedFile, UnreadableImage, reading
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.any_image import ImageTranslator
from cyclegan_fast.translation.prepared import is_picture

WEIGHTS = "weights"
"""The choice of weights that are no run: there is nothing else to choose."""


class Loading(Protocol):
    """Loads a translator by a name of weights and a direction, as `cyclegan_fast.load` does."""

    def __call__(self, path: Path, direction: Direction, /) -> ImageTranslator: ...


class BeforeAndAfter(NamedTuple):
    """Holds a picture as it was translated, and its translation, of one size; and who translated it.

    `description` is the translator's; `notes` are what a user should know of its checkpoint, such as a damaged newer
    one that was passed over.
    """

    before: Image.Image
    after: Image.Image
    description: str
    notes: tuple[str, ...]


class _Loaded(NamedTuple):
    """Holds a generator in memory, what it is called by, and what was noted as it was loaded."""

    key: object
    translator: ImageTranslator
    notes: tuple[str, ...]


class ShownRun:
    """Translates with the generators of one run, or of weights that are no run; one generator is loaded at a time.

    Args:
        name: what `load` takes: a run's folder, "RUN@120" of it, a file of weights, a name on a hub.
        load: loads a generator.
        limits: how large pictures may be.

    Raises UserError where nothing can be loaded, or where its pixels are no 8-bit RGB or grey.
    """

    def __init__(self, name: Path, load: Loading, limits: DemoLimits) -> None:
        self.name = name
        self.run, self.first_checkpoint = _run_and_checkpoint(name)
        self._load = load
        self._limits = limits
        self._lock = Lock()
        self._loaded: _Loaded | None = None
        first = self._loaded_for(self.first_checkpoint, "a2b")
        self.notes = list(first.notes)
        self.directions: tuple[Direction, ...] = DIRECTIONS if first.translator.direction else ()

    def checkpoints(self) -> list[str]:
        """Return what can be chosen: "latest", "best" where there is one, and epochs, newest first."""
        if self.run is None:
            return [WEIGHTS]
        named = list(kept_checkpoints(self.run)) or [LATEST]  # of what was given away there is one
        epochs = sorted((name for name in named if name.isdecimal()), key=int, reverse=True)
        return [*(name for name in named if not name.isdecimal()), *epochs]

    def translate(self, file: Path, checkpoint: str, direction: Direction, longest_side: int | None) -> BeforeAndAfter:
        """Translate a picture file to the bits of `cyclegan_fast.translate`, one image at a time.

        Args:
            file: of a format that Pillow reads.
            checkpoint: one of `checkpoints`.
            direction: is ignored by weights that know one way only.
            longest_side: a picture whose width or height has more pixels is made smaller first; None for its own size.

        Raises UserError, and UnreadableImage for what is no picture, or one of more pixels than the limits allow.
        """
        self._check_header(file)
        with self._lock:
            _, translator, notes = self._loaded_for(checkpoint, direction)
            upright = decode(file, translator.value_range).image
            smaller = _fitted(upright, longest_side)
            pixels, most = smaller.width * smaller.height, self._limits.max_translated_pixels
            if pixels > most:
                raise UserError(
                    f"{file.name} would be translated at {smaller.width}x{smaller.height}, {pixels} pixels, and this "
                    f"demo translates {most} at most: choose a smaller longest side"
                )
            after = translator(smaller if smaller is not upright else file)
        before = smaller if translator.source.channels == 3 else smaller.convert("L")
        return BeforeAndAfter(before, after, translator.description, notes)

    def close(self) -> None:
        """Free the generator that is loaded."""
        with self._lock:
            if self._loaded is not None:
                self._loaded.translator.close()
                self._loaded = None

    def _loaded_for(self, checkpoint: str, direction: Direction) -> _Loaded:
        """Return the generator of a checkpoint, which is loaded unless the last picture was translated by it."""
        if checkpoint not in self.checkpoints():
            raise UserError(f"{self.run or self.name} keeps no checkpoint {checkpoint} any more: choose another")
        place = Path(f"{self.run}@{checkpoint}") if self.run and kept_checkpoints(self.run) else self.name
        key = (checkpoint, direction, _changed_at(self.run))
        if self._loaded is not None:
            if self._loaded.key == key:
                return self._loaded
            self._loaded.translator.close()
            self._loaded = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            translator = self._load(place, direction)
        for kind in (translator.source, translator.target):
            _require_shown(kind, str(self.name))
        self._loaded = _Loaded(key, translator, tuple(str(warning.message) for warning in caught))
        return self._loaded

    def _check_header(self, file: Path) -> None:
        """Raise UnreadableImage for what is no picture, or has too many pixels by its header."""
        if not is_picture(file):
            raise UnreadableImage(
                f"{file}: a page shows pictures such as JPEG, PNG and WebP; python -m cyclegan_fast.translate takes "
                "TIFF, volumes and arrays, too"
            )
        most = self._limits.max_pixels
        with reading(file), BoundedFile(file) as opened, opened_picture(opened) as picture:
            if picture.width * picture.height > most:
                raise UnreadableImage(
                    f"{file}: has {picture.width}x{picture.height} pixels, and this demo takes {most} at most: make it "
                    "smaller, or start the demo with a larger --max-pixels"
                )


def _run_and_checkpoint(name: Path) -> tuple[Path | None, str]:
    """Return the folder of a run and the checkpoint that was named; None and WEIGHTS for weights that are no run."""
    if is_hub_name(name):
        return None, WEIGHTS
    if name.is_dir():
        return name, LATEST
    run, _, checkpoint = str(name).rpartition("@")
    if not name.exists() and kept_checkpoints(Path(run)):
        return Path(run), str(int(checkpoint)) if checkpoint.isdecimal() else checkpoint
    return None, WEIGHTS


def _changed_at(run: Path | None) -> int:
    """Return when a run last saved a checkpoint, so that "latest" is loaded again while it is trained on."""
    folder = run / "checkpoints" if run else None
    return folder.stat().st_mtime_ns if folder and folder.is_dir() else 0


def _fitted(image: Image.Image, longest_side: int | None) -> Image.Image:
    """Return an image whose sides are at most that long, in the same proportion; the same one where they are."""
    longest = max(image.size)
    if longest_side is None or longest <= longest_side:
        return image
    width, height = (max(1, round(side * longest_side / longest)) for side in image.size)
    return resize(image, width, height)


def _require_shown(kind: PixelType, name: str) -> None:
    """Raise UserError unless pixels are 8-bit RGB or grey, which a browser shows as they are."""
    if kind.dtype != "uint8" or kind.channels not in (1, 3):
        raise UserError(
            f"{name} translates images of {kind}, and the demo shows 8-bit RGB and grey: use python -m "
            "cyclegan_fast.translate"
        )
