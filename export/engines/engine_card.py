"""Reads and writes the JSON file beside an engine, which says what the engine is, what it runs on and takes.

It needs nothing but Python. An engine itself is opaque, and a library that reads a foreign one says little or crashes:
what can be known beforehand is compared before the library sees a byte.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cyclegan_fast.conventions import SIDES
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.words import counted

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
        """Raise UserError where an engine of this profile does not take images of `shape`."""
        batch, height, width = shape
        if height % SIDES or width % SIDES:
            raise UserError(f"image sides must be multiples of {SIDES}, got {width}x{height} pixels")
        if not self.takes(shape):
            raise UserError(
                f"{counted(batch, 'image')} of {width}x{height} pixels {'does' if batch == 1 else 'do'} not fit this "
                f"engine, which takes {self}: give a --size that it takes, or build it with wider --min-size, "
                "--max-size and --max-batch"
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
    sentence where the engine could not be run on the machine that built it.
    """

    library: str
    version: str
    targets: tuple[str, ...]
    precision: str
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

    @property
    def value_range(self) -> str:
        return "0 to 255" if self.uint8_io else "-1 to 1"

    def write(self, path: Path) -> None:
        content = {**dataclasses.asdict(self), "value_range": self.value_range}
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def beside(cls, engine: Path) -> Self:
        """Read the card of an engine file. Raises UserError where there is none, or none of this project's."""
        path = engine.with_suffix(".json")
        try:
            content = json.loads(path.read_text())
            profile = Profile(**{name: tuple(shape) for name, shape in content.pop("profile").items()})
            del content["value_range"]
            return cls(**{**content, "targets": tuple(content["targets"])}, profile=profile)
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing: an engine runs only with the file that was written beside it"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} does not describe an engine of this version: build it anew ({error})") from error

    def check_content(self, engine: bytes, path: Path) -> None:
        """Raise UserError where the engine's bytes are not those that were written with this card."""
        if hashlib.sha256(engine).hexdigest() != self.engine_sha256:
            raise UserError(f"{path} is damaged, or another engine than its {path.with_suffix('.json').name} describes")

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
