"""Defines what a format of export is: how files are made, how they run on this machine, and what both need."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cyclegan_fast.images.pixels import FloatImages
from export.options import Precision

if TYPE_CHECKING:
    from export.formats.material import ExportMaterial
    from export.parity import Parity

ImageFunction = Callable[[FloatImages], FloatImages]
"""maps float32 images [N, C, H, W] in [-1, 1] to translations of the same kind"""

TakenShapes = Literal["any batch and size", "up to 8 images of any size", "one image of any size", "one shape"]


class ExportFormat(ABC):
    """Describes one format; a subclass imports what it needs where it uses it, so that all can be listed anywhere.

    Files of each format take and give float32 images [N, C, H, W] in [-1, 1], whatever the pixels of the run are: their
    channels, types and ranges stand in the table beside the files.
    """

    name: ClassVar[str]
    """what --format calls it"""
    endings: ClassVar[tuple[str, ...]]
    """the endings of the files that it consists of; a file is called as its generator is"""
    modules: ClassVar[tuple[str, ...]]
    """the modules, not of this project and not PyTorch, that must be importable to make it"""
    install: ClassVar[str]
    """the command that installs these"""
    runs_with: ClassVar[str]
    """what a machine needs where the files run"""
    taken: ClassVar[TakenShapes]
    """which arrays the files take; one shape is one image of the side in pixels that the command was given"""
    precision: ClassVar[Precision] = "float32"
    """what it is computed in, by which its bar of parity is chosen"""
    compared_by: ClassVar[str | None] = None
    """of a format that runs elsewhere: what computed the parity that `make` returns"""

    def why_not_made(self) -> str | None:
        """Return why the format cannot be made on this machine, with what to do, or None where it can."""
        missing = [module for module in self.modules if not is_importable(module)]
        return f"{', '.join(missing)} is not installed: {self.install}" if missing else None

    def why_not_run(self) -> str | None:
        """Return why the files cannot run on this machine, or None where they can."""
        return None

    @abstractmethod
    def make(self, material: "ExportMaterial", stem: Path) -> "Parity | None":
        """Write the files, `stem` with each of the endings; return the parity where making them measures it.

        Raises UserError, or what the converter raises.
        """

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the files that `make` wrote, and return what translates by them, in so many threads."""
        raise NotImplementedError(f"{self.name} runs elsewhere")

    def paths(self, stem: Path) -> list[Path]:
        """Return the files, or folders, that it consists of."""
        return [stem.with_name(f"{stem.name}{ending}") for ending in self.endings]

    def shapes_compared(self, side: int) -> Sequence[tuple[int, int, int]]:
        """Return the shapes (batch, height, width) at which it is compared with PyTorch, the usual one first."""
        from export.parity import shapes

        found = list(shapes(side))
        if self.taken == "one shape":
            return found[:1]
        most = {"up to 8 images of any size": 8, "one image of any size": 1}.get(self.taken)
        return found if most is None else [shape for shape in found if shape[0] <= most]


def is_importable(module: str) -> bool:
    """Return whether a module is installed, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package that it is in is missing; or somebody took it out of sys.modules
        return False
