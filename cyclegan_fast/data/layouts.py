"""Finds where a data set has the images and labels of its domains, in each of the layouts that are understood.

The layouts are trainA, trainB, testA and testB; train and test (or val) with A and B side by side in each image; and
Cityscapes as its archives unpack. domains.py opens the images.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cyclegan_fast.data.pairs import match
from cyclegan_fast.images.files import Half, read_image
from cyclegan_fast.images.folders import find_images, has_images, listed_images, search
from cyclegan_fast.images.labels import Labels, read_labels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError

TRAINING_LABELS = "trainA_labels"
HALVES: dict[str, Half] = {"A": "left", "B": "right"}
_SIDE_BY_SIDE_TRAINING = "train"
_SIDE_BY_SIDE_TESTING = ("test", "val")
STREETS_MARK = "street_scenes.json"
"""The file in a data set of street_scenes that says how it was drawn, so that no other set is mixed into it."""


_CITYSCAPES = {
    "trainA": ("leftImg8bit/train", "_leftImg8bit"),
    "trainB": ("gtFine/train", "_gtFine_color"),
    "testA": ("leftImg8bit/val", "_leftImg8bit"),
    "testB": ("gtFine/val", "_gtFine_color"),
}
"""The folders of Cityscapes' archives that hold what trainA and the others hold elsewhere, and their files' endings."""


@dataclass(frozen=True)
class Place:
    """Says which images one domain has: those below `folder` whose names end in `ending`, or one `half` of each."""

    folder: Path
    ending: str = ""
    half: Half | None = None

    def has_images(self) -> bool:
        """Tell whether there are any images."""
        return has_images(self.folder)

    def names(self) -> list[str]:
        """Return the files' names, relative to the folder."""
        found = (path for path in listed_images(self.folder) if path.stem.endswith(self.ending))
        return [path.relative_to(self.folder).as_posix() for path in found]


def place_of(root: Path, name: str) -> Place:
    """Return where `root` has "trainA", "trainB", "testA" or "testB", whether there are any images or not."""
    if is_cityscapes(root):
        below, ending = _CITYSCAPES[name]
        return Place(root / below, ending)
    if is_side_by_side(root):
        split, domain = name[:-1], name[-1]
        folder = root / _SIDE_BY_SIDE_TRAINING if split == "train" else testing_folder(root)
        return Place(folder, half=HALVES[domain])
    return Place(root / name)


def training_places(root: Path, *, paired: bool) -> tuple[Place, Place]:
    """Return where the training images of A and of B are; with `paired`, those of B that are partners of A's.

    Where there is trainA_labels, it has the partners, and trainB has the label maps of other views.
    """
    A, B = place_of(root, "trainA"), place_of(root, "trainB")
    if paired and B.folder == root / "trainB" and (root / TRAINING_LABELS).is_dir():
        B = Place(root / TRAINING_LABELS)
    return A, B


def check_partners(A: Place, B: Place) -> None:
    """Raise UserError, naming some images, where those of two places are not pairs of one name."""
    if A.half is not None:
        return
    try:
        match(A.names(), B.names(), A.folder, B.folder)
    except UserError as error:
        missing = [line for place in (A, B) for line in search(place.folder).missing]
        raise UserError("; ".join([str(error), *missing])) from error


@dataclass(frozen=True)
class Labelled:
    """Names a photograph and the label map of the same view, each a file or a half of one."""

    photograph: Path
    labels: Path
    photograph_half: Half | None = None
    labels_half: Half | None = None

    def read(self, size: int) -> tuple[Image.Image, Labels]:
        """Return the photograph as it is, and the label map at size x size; raises UserError for an unreadable file."""
        try:
            photograph = read_image(self.photograph, self.photograph_half)
        except UnreadableImage as error:
            raise UserError(str(error)) from error
        return photograph, read_labels(self.labels, size, self.labels_half)


def is_cityscapes(root: Path) -> bool:
    """Tell whether `root` is laid out as Cityscapes' archives unpack: leftImg8bit/ beside gtFine/."""
    return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def find_cityscapes(root: Path, split: str, *, strict: bool = False) -> list[Labelled]:
    """Return the photographs of `split` ("train", "val") with their fine labels; raises UserError where those lack.

    `strict` is that of `find_images`.
    """
    folder = root / "leftImg8bit" / split
    photographs = [path for path in find_images(folder, strict=strict) if path.stem.endswith("_leftImg8bit")]
    if not photographs:
        raise UserError(f"no photographs CITY/*_leftImg8bit.png in {folder}")
    return [Labelled(photograph, _fine_labels(root, split, photograph)) for photograph in photographs]


def best_label_file(colours: Path) -> Path:
    """Return the most exact of the label files of a view: colours do not tell a pole group from a pole."""
    for kind in ("_gtFine_labelTrainIds", "_gtFine_labelIds"):
        path = colours.with_name(colours.name.replace("_gtFine_color", kind))
        if path.is_file():
            return path
    return colours


def _fine_labels(root: Path, split: str, photograph: Path) -> Path:
    name = photograph.stem.removesuffix("_leftImg8bit")
    folder = root / "gtFine" / split / photograph.parent.name
    path = best_label_file(folder / f"{name}_gtFine_color.png")
    if path.is_file():
        return path
    raise UserError(f"{photograph} has no labels: {folder / name}_gtFine_labelIds.png is missing; unpack gtFine there")


def find_training_labels(data: Path, labels: Path | None = None, *, strict: bool = False) -> list[Labelled]:
    """Return the training photographs that have a label map, in a data set of photographs and labels.

    They are Cityscapes' as its archives unpack, those of train/ where its files show photograph and label map side by
    side, or those of trainA with labels in trainA_labels (trainB has the label maps of other views) or in `labels`,
    where given. `strict` is that of `find_images`. Raises UserError where something is missing.
    """
    if labels is None and is_cityscapes(data):
        return find_cityscapes(data, "train", strict=strict)
    if is_side_by_side(data):
        if labels is not None:
            raise UserError(
                f"{data / _SIDE_BY_SIDE_TRAINING} shows each photograph beside its label map: leave --labels out"
            )
        found = find_images(data / _SIDE_BY_SIDE_TRAINING, strict=strict)
        return [Labelled(path, path, HALVES["A"], HALVES["B"]) for path in found]
    if labels is not None:
        return match_by_name(data / "trainA", labels, strict=strict)
    if (data / TRAINING_LABELS).is_dir():
        return match_by_name(data / "trainA", data / TRAINING_LABELS, strict=strict)
    raise UserError(
        f"{data} has no labels of its training photographs, which a segmentation network learns from: put them into "
        f"{data / TRAINING_LABELS}, each under its photograph's name, or give --labels FOLDER (the original's data set "
        "of Cityscapes has them in trainB)"
    )


def match_by_name(photographs: Path, labels: Path, *, strict: bool = False) -> list[Labelled]:
    """Return the photographs and label maps of two folders that have one name; raises UserError where one is alone.

    `strict` is that of `find_images`.
    """
    for folder in (photographs, labels):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: photographs and label maps must lie there under the same names")
    one, other = find_images(photographs, strict=strict), find_images(labels, strict=strict)
    names = [path.relative_to(photographs).as_posix() for path in one]
    partners = [path.relative_to(labels).as_posix() for path in other]
    places = match(names, partners, photographs, labels)
    return [Labelled(photograph, other[place]) for photograph, place in zip(one, places, strict=True)]


def is_side_by_side(root: Path) -> bool:
    """Tell whether `root` has images in train/, and no folder of a single domain, which would count instead."""
    domains = (root / f"{split}{domain}" for split in ("train", "test") for domain in HALVES)
    return not any(folder.is_dir() for folder in domains) and has_images(root / _SIDE_BY_SIDE_TRAINING)


def testing_folder(root: Path) -> Path:
    """Return the first of test/ and val/ that has images; test/ where neither has."""
    return next(
        (root / name for name in _SIDE_BY_SIDE_TESTING if has_images(root / name)), root / _SIDE_BY_SIDE_TESTING[0]
    )
