"""Reads and writes the JSON file beside an engine, which says what the engine is, what it runs on and takes.

It needs neither PyTorch nor a library of NVIDIA's. An engine itself is opaque, and a library that reads a foreign one
says little or crashes: what can be known beforehand is compared before the library sees a byte.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from cyclegan_fast.conventions import DIRECTIONS, SIDE_MULTIPLE
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.formats import refuse_newer
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.translator import BatchDoesNotFit
from export.engines.card_fields import (
    Reader,
    read_digest,
    read_fields,
    read_flag,
    read_parity,
    read_shape,
    read_targets,
    read_text,
    reads_one_of,
    reads_text_like,
)
from export.engines.file_frames import DEFAULT_FRAMES, FRAME_FIELDS, FileFrames
from export.engines.libraries import MODULES
from export.file_content import content_of
from export.options import Precision
from export.pixel_ends import PIXEL_FIELDS, RGB_ENDS, SAMPLE_RANGES, PixelEnds
from export.source import ONE_WAY

_WRITER = "python export/trt.py"
_LARGEST_CARD = 2**20
"""bytes; one that we write has a few thousand"""
ImageShape = tuple[int, int, int]
"""batch, height and width in pixels"""


@dataclass(frozen=True)
class Profile:
    """Holds the shapes that an engine takes: from `smallest` to `largest`; it is fastest at `usual`."""

    smallest: ImageShape
    usual: ImageShape
    largest: ImageShape

    @property
    def takes_one_size(self) -> bool:
        return self.smallest[1:] == self.largest[1:]

    def takes(self, shape: ImageShape) -> bool:
        """Return whether the engine takes images of `shape`, whose sides must be multiples of 4."""
        return all(low <= side <= high for low, side, high in zip(self.smallest, shape, self.largest, strict=True))

    def check(self, shape: ImageShape) -> None:
        """Raise BatchDoesNotFit where an engine of this profile does not take images of `shape`.

        Raises UserError where their sides are no multiples of 4.
        """
        batch, height, width = shape
        if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
            raise UserError(f"image sides must be multiples of {SIDE_MULTIPLE}, got {width}x{height} pixels")
        if not self.takes(shape):
            raise BatchDoesNotFit(
                f"{counted(batch, 'image')} of {width}x{height} pixels {'does' if batch == 1 else 'do'} not fit this "
                f"engine, which takes {self}: give a --size that it takes, or build it with wider --min-size, "
                "--max-size and --max-batch",
                is_of_memory=False,
            )

    def __str__(self) -> str:
        (least, low_height, low_width), _, (most, high_height, high_width) = dataclasses.astuple(self)
        batches = f"{least} to {most} images" if most > least else counted(most, "image")
        smallest, largest = f"{low_width}x{low_height}", f"{high_width}x{high_height}"
        return f"{batches} of {smallest if smallest == largest else f'{smallest} to {largest}'}"


@dataclass(frozen=True)
class EngineCard:
    """Holds what is known of an engine without its library.

    Only the module `library` in exactly this `version`, which built the engine, can run it. `targets` are compute
    capabilities such as "sm89". `parity` has the figures of `export.verify` for the ONNX file and for the engine, or a
    sentence where the engine could not be run on the machine that built it. `uint8_io` tells whether the engine takes
    and gives samples, `ends` what these are, `frames` what pages and slices of a file are.
    """

    library: str
    version: str
    targets: tuple[str, ...]
    precision: Precision
    direction: str
    uint8_io: bool
    profile: Profile
    input: str
    output: str
    checkpoint_sha256: str
    onnx_sha256: str
    engine_sha256: str
    project_version: str
    parity: dict[str, Any]
    ends: PixelEnds = RGB_ENDS
    frames: FileFrames = DEFAULT_FRAMES

    @property
    def value_range(self) -> str:
        return self.ends.sample_range if self.uint8_io else _SIGNED_RANGE

    def write(self, path: Path) -> None:
        number = 1 if self.frames.is_default else CARD_FORMAT
        content = {"format": number, **dataclasses.asdict(self), "value_range": self.value_range}
        del content["ends"], content["frames"]
        content |= self.ends.as_fields() | self.frames.as_entries()
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def beside(cls, engine: Path) -> Self:
        """Read the card of an engine file.

        Raises UserError where there is none, where a field is not as `CARD_FIELDS` describes it, or where a newer
        version wrote it. Cards from before formats were counted have no number of theirs.
        """
        path = engine.with_suffix(".json") if engine.name else engine
        missing = f"{path} is missing: an engine runs only with the file that was written beside it"
        content = content_of(path, "card of an engine", _WRITER, missing=missing, most=_LARGEST_CARD)
        try:
            fields = {**read_fields(json.loads(content))}
            number = fields.pop("format", None)
            refuse_newer(path, number, CARD_FORMAT, fields.get("project_version"))
            if number is not None and type(number) is not int:
                raise ValueError("format must be a whole number")
            ends, frames = PixelEnds.of_fields(fields), FileFrames.of_entries(fields)
            optional = {*PIXEL_FIELDS, *FRAME_FIELDS}
            values = _read(CARD_FIELDS, {name: value for name, value in fields.items() if name not in optional})
            value_range = values.pop("value_range")
            card = cls(**values, ends=ends, frames=frames)
            if value_range != card.value_range:
                raise ValueError(f"value_range must be {card.value_range} with that uint8_io")
            return card
        except (ValueError, RecursionError) as error:  # lists nested without end are a RecursionError
            raise UserError(
                f"{path} does not describe an engine of this version ({error}): build it anew with {_WRITER}"
            ) from error

    def content_of_engine(self, path: Path) -> bytes:
        """Return the bytes of the engine file `path`; every engine that is loaded is read by this.

        Raises UserError where it is missing, and where its bytes are not those that were written with this card.
        """
        content = content_of(path, "engine", _WRITER)
        if hashlib.sha256(content).hexdigest() != self.engine_sha256:
            raise UserError(
                f"{path} is damaged, or another engine than its {path.with_suffix('.json').name} describes: copy both "
                f"again, or build it anew with {_WRITER}"
            )
        return content

    def check_runs_on(self, library: str, version: str, capability: tuple[int, int]) -> None:
        """Raise UserError where this library, or a GPU of this compute capability, does not run the engine."""
        if (library, version) != (self.library, self.version):
            raise UserError(
                f"the engine was built by {self.library} {self.version} and runs with exactly that, not with "
                f"{library} {version}: `pip install {self.library.replace('_', '-')}=={self.version}`, or build it anew"
            )
        here = "sm{}{}".format(*capability)
        if here not in self.targets:
            if self.library == "tensorrt" or here == "sm90":
                advice = "build it here, with --runtime tensorrt"
            else:
                advice = f"build it with --target {here}"
            raise UserError(f"the engine was built for {', '.join(self.targets)} and this GPU is {here}: {advice}")


# --- what stands in a card -------------------------------------------------------------------------------------------


def _read(description: Mapping[str, Reader], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a description's readers make of a JSON object which has those fields and no others.

    Raises ValueError that names the first field which is missing, unknown or wrong.
    """
    if unknown := content.keys() - description.keys():
        raise ValueError(f"it has fields that are not known, {', '.join(sorted(map(repr, unknown)))[:100]}")
    values = {}
    for name, read in description.items():
        if name not in content:
            raise ValueError(f"{name} is missing")
        try:
            values[name] = read(content[name])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
    return values


def _profile(value: Any) -> Profile:
    shapes = _read({field.name: read_shape for field in dataclasses.fields(Profile)}, read_fields(value))
    profile = Profile(**shapes)
    if not profile.takes(profile.usual):
        raise ValueError(f"must have its usual shape between the smallest and the largest, got {shapes}")
    return profile


CARD_FORMAT = 2
"""The number of a card's format: whoever changes a field so that an older version cannot read it raises this. Format 2
has `FileFrames`; a card that has none is still written as 1, which older versions read."""
_SIGNED_RANGE = "-1 to 1"

CARD_FIELDS: dict[str, Reader] = {
    "library": reads_one_of(tuple(MODULES.values())),
    "version": reads_text_like("[0-9][0-9A-Za-z.+]{0,49}", "a version such as 1.7.1"),
    "targets": read_targets,
    "precision": reads_one_of(get_args(Precision)),
    "direction": reads_one_of((*DIRECTIONS, ONE_WAY)),
    "uint8_io": read_flag,
    "profile": _profile,
    "input": read_text,
    "output": read_text,
    "checkpoint_sha256": read_digest,
    "onnx_sha256": read_digest,
    "engine_sha256": read_digest,
    "project_version": read_text,
    "parity": read_parity,
    "value_range": reads_one_of((SAMPLE_RANGES[True], _SIGNED_RANGE, SAMPLE_RANGES[False])),
}
"""Says what reads each field of a card: `EngineCard.write` writes just these, and for images that are not 8-bit RGB
those of `export.pixel_ends`; where pages and slices are no default, those of `export.engines.file_frames`."""
