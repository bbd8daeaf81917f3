"""Where a data set has the images of its domains, in each of the layouts that are understood."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cyclegan_fast.data.pairs import match
from cyclegan_fast.images.files import Half, read_image
from cyclegan_fast.images.folders import find_images, has_images
from cyclegan_fast.images.labels import Labels, read_labels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError

TRAINING_LABELS = "trainA_labels"
HALVES: dict[str, Half] = {"A": "left", "B": "right"}
TRAINING = "train"
TESTING = ("test", "val")
MARK = "street_scenes.json"
"""in OUT: what its images were drawn from, so that no other set is mixed into them"""


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
        folder = root / TRAINING if split == "train" else testing_folder(root)
        return Place(folder, half=HALVES[domain])
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


@dataclass(frozen=True)
class Labelled:
    """A photograph and the label map of the same view, each a file or a half of one."""

    photograph: Path
    labels: Path
    photograph_half: Half | None = None
    labels_half: Half | None = None

    def read(self, size: int) -> tuple[Image.Image, Labels]:
        """The photograph as it is, and the label map at size x size; raises UserError for what cannot be read."""
        try:
            photograph = read_image(self.photograph, self.photograph_half)
        except UnreadableImage as error:
            raise UserError(str(error)) from error
        return photograph, read_labels(self.labels, size, self.labels_half)


def is_cityscapes(root: Path) -> bool:
    """Whether `root` is laid out as Cityscapes' archives unpack: leftImg8bit/ beside gtFine/."""
    return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def find_cityscapes(root: Path, split: str) -> list[Labelled]:
    """The photographs of `split` ("train", "val") with their fine labels; raises UserError where one has none."""
    folder = root / "leftImg8bit" / split
    photographs = [path for path in find_images(folder) if path.stem.endswith("_leftImg8bit")]
    if not photographs:
        raise UserError(f"no photographs CITY/*_leftImg8bit.png in {folder}")
    return [Labelled(photograph, _fine_labels(root, split, photograph)) for photograph in photographs]


def best_of(colours: Path) -> Path:
    """Of the label files of one view the most exact: colours do not tell a pole group from a pole."""
    for kind in ("_gtFine_labelTrainIds", "_gtFine_labelIds"):
        path = colours.with_name(colours.name.replace("_gtFine_color", kind))
        if path.is_file():
            return path
    return colours


def _fine_labels(root: Path, split: str, photograph: Path) -> Path:
    name = photograph.stem.removesuffix("_leftImg8bit")
    folder = root / "gtFine" / split / photograph.parent.name
    path = best_of(folder / f"{name}_gtFine_color.png")
    if path.is_file():
        return path
    raise UserError(f"{photograph} has no labels: {folder / name}_gtFine_labelIds.png is missing; unpack gtFine there")


def find_training_labels(data: Path, labels: Path | None = None) -> list[Labelled]:
    """The training photographs that have a label map, in a data set of photographs and labels.

    That is Cityscapes as its archives unpack, train/ where its files show photograph and label map side by side, or
    trainA beside trainA_labels (trainB has the label maps of other views), or beside `labels` where given. Raises
    UserError where something is missing.
    """
    if labels is None and is_cityscapes(data):
        return find_cityscapes(data, "train")
    if is_side_by_side(data):
        if labels is not None:
            raise UserError(f"{data / TRAINING} shows each photograph beside its label map: leave --labels out")
        return [Labelled(path, path, HALVES["A"], HALVES["B"]) for path in find_images(data / TRAINING)]
    if labels is not None:
        return match_by_name(data / "trainA", labels)
    if (data / TRAINING_LABELS).is_dir():
        return match_by_name(data / "trainA", data / TRAINING_LABELS)
    raise UserError(
        f"{data} has no labels of its training photographs, which a segmentation network learns from: put them into "
        f"{data / TRAINING_LABELS}, each under its photograph's name, or give --labels FOLDER (the original's data set "
        "of Cityscapes has them in trainB)"
    )


def match_by_name(photographs: Path, labels: Path) -> list[Labelled]:
    """The images of two folders that have one name (see pairs.py). Raises UserError where one has no partner."""
    for folder in (photographs, labels):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: photographs and label maps must lie there under the same names")
    one, other = find_images(photographs), find_images(labels)
    names = [path.relative_to(photographs).as_posix() for path in one]
    partners = [path.relative_to(labels).as_posix() for path in other]
    places = match(names, partners, photographs, labels)
    return [Labelled(photograph, other[place]) for photograph, place in zip(one, places, strict=True)]


def is_side_by_side(root: Path) -> bool:
    """Whether `root` has images in train/, and no folder of a domain of its own: where it has one, that counts."""
    domains = (root / f"{split}{domain}" for split in ("train", "test") for domain in HALVES)
    return not any(folder.is_dir() for folder in domains) and has_images(root / TRAINING)


def testing_folder(root: Path) -> Path:
    """The first one that has images."""
    return next((root / name for name in TESTING if has_images(root / name)), root / TESTING[0])
