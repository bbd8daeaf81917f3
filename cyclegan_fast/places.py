"""Where a data set has the images of its domains, in each of the layouts that are understood."""

from dataclasses import dataclass
from pathlib import Path

from cyclegan_fast import side_by_side
from cyclegan_fast.cityscapes import TRAINING_LABELS, is_cityscapes
from cyclegan_fast.image_files import find_images, has_images
from cyclegan_fast.images import Half
from cyclegan_fast.pairs import match
from cyclegan_fast.side_by_side import is_side_by_side

CITYSCAPES = {
    "trainA": ("leftImg8bit/train", "_leftImg8bit"),
    "trainB": ("gtFine/train", "_gtFine_color"),
    "testA": ("leftImg8bit/val", "_leftImg8bit"),
    "testB": ("gtFine/val", "_gtFine_color"),
}
"""Where Cityscapes' archives have what trainA and the others are elsewhere, and how its files' names end."""


@dataclass(frozen=True)
class Place:
    """The images of one domain: those below `folder` whose names end in `ending`, or one `half` of each of them."""

    folder: Path
    ending: str = ""
    half: Half | None = None

    def has_images(self) -> bool:
        return has_images(self.folder)

    def names(self) -> list[str]:
        """Of the files, below the folder."""
        found = (path for path in find_images(self.folder) if path.stem.endswith(self.ending))
        return [path.relative_to(self.folder).as_posix() for path in found]


def place_of(root: Path, name: str) -> Place:
    """Where `root` has "trainA", "trainB", "testA" or "testB", whether there are any images or not."""
    if is_cityscapes(root):
        below, ending = CITYSCAPES[name]
        return Place(root / below, ending)
    if is_side_by_side(root):
        split, domain = name[:-1], name[-1]
        folder = root / side_by_side.TRAINING if split == "train" else side_by_side.testing_folder(root)
        return Place(folder, half=side_by_side.HALVES[domain])
    return Place(root / name)


def training_places(root: Path, *, paired: bool) -> tuple[Place, Place]:
    """Where the training images of A and B are; with `paired`, those of B that are partners of A's.

    Where there is trainA_labels, it has the partners, and trainB has the label maps of other views.
    """
    A, B = place_of(root, "trainA"), place_of(root, "trainB")
    if paired and B.folder == root / "trainB" and (root / TRAINING_LABELS).is_dir():
        B = Place(root / TRAINING_LABELS)
    return A, B


def check_partners(A: Place, B: Place) -> None:
    """Raises UserError where the images of two places are not pairs of one name, naming some."""
    if A.half is None:
        match(A.names(), B.names(), A.folder, B.folder)
