"""Reads label maps as Cityscapes has them (Cordts et al. 2016), and defines its 19 classes and their colours.

data/layouts.py finds the label files of a data set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclegan_fast.images.files import Half, read_image, read_indices
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError

Labels = npt.NDArray[np.uint8]

VOID = 255
"""The train id of pixels that no metric counts: what Cityscapes ignores, and what is black in a label map."""


@dataclass(frozen=True)
class StreetClass:
    """Describes a class that is trained and scored, as Cityscapes' published label table defines it."""

    name: str
    colour: tuple[int, int, int]
    label_id: int
    train_id: int


CLASSES = (
    StreetClass("road", (128, 64, 128), 7, 0),
    StreetClass("sidewalk", (244, 35, 232), 8, 1),
    StreetClass("building", (70, 70, 70), 11, 2),
    StreetClass("wall", (102, 102, 156), 12, 3),
    StreetClass("fence", (190, 153, 153), 13, 4),
    StreetClass("pole", (153, 153, 153), 17, 5),
    StreetClass("traffic light", (250, 170, 30), 19, 6),
    StreetClass("traffic sign", (220, 220, 0), 20, 7),
    StreetClass("vegetation", (107, 142, 35), 21, 8),
    StreetClass("terrain", (152, 251, 152), 22, 9),
    StreetClass("sky", (70, 130, 180), 23, 10),
    StreetClass("person", (220, 20, 60), 24, 11),
    StreetClass("rider", (255, 0, 0), 25, 12),
    StreetClass("car", (0, 0, 142), 26, 13),
    StreetClass("truck", (0, 0, 70), 27, 14),
    StreetClass("bus", (0, 60, 100), 28, 15),
    StreetClass("train", (0, 80, 100), 31, 16),
    StreetClass("motorcycle", (0, 0, 230), 32, 17),
    StreetClass("bicycle", (119, 11, 32), 33, 18),
)

TRAIN_ID = {row.name: row.train_id for row in CLASSES}
PALETTE: Pixels = np.array([row.colour for row in CLASSES], np.uint8)  # [19, 3] by train id

VOID_COLOURS = (
    (0, 0, 0),  # unlabeled, ego vehicle, rectification border, out of region of interest, static
    (111, 74, 0),  # dynamic
    (81, 0, 81),  # ground
    (250, 170, 160),  # parking
    (230, 150, 140),  # rail track
    (180, 165, 180),  # guard rail
    (150, 100, 100),  # bridge
    (150, 120, 90),  # tunnel
    (0, 0, 90),  # caravan
    (0, 0, 110),  # trailer
)
"""Colours of classes that Cityscapes does not score; those of pole group and licence plate are a pole's and a car's."""


# --- train ids and colours -----------------------------------------------------------------------------------------


def colours_of(labels: Labels) -> Pixels:
    """Return the colours [..., 3] of train ids [...], VOID in black. Raises ValueError for an id that no class has."""
    unknown = np.setdiff1d(labels, [VOID, *range(len(CLASSES))])
    if unknown.size:
        raise ValueError(f"no class has the train ids {unknown.tolist()}; CLASSES lists those there are")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(CLASSES)] = PALETTE
    return palette[labels]


def nearest_labels(pixels: Pixels, *, with_void: bool = False) -> Labels:
    """Return the train id of the class whose colour is nearest (Euclidean, in RGB) to each of `pixels` [..., 3].

    Generated maps are read so, as the paper reads them (Zhu et al. 2017, section 5.1.1 with the protocol of Isola et
    al. 2017). No pixel becomes VOID, unless `with_void` lets the colours of Cityscapes' other classes compete, which is
    meant for true maps that were saved with loss.
    """
    palette = np.concatenate([PALETTE, np.array(VOID_COLOURS, np.uint8)]) if with_void else PALETTE
    colours = pixels.reshape(-1, 3).astype(np.int32)
    nearest = np.empty(len(colours), np.uint8)
    for start in range(0, len(colours), _AT_ONCE):
        difference = colours[start : start + _AT_ONCE, None] - palette.astype(np.int32)  # [n, 19 or 29, 3]
        nearest[start : start + _AT_ONCE] = np.square(difference).sum(2).argmin(1)
    nearest[nearest >= len(CLASSES)] = VOID
    return nearest.reshape(pixels.shape[:-1])


_AT_ONCE = 1 << 18


def exact_labels(pixels: Pixels, origin: str) -> Labels:
    """Return the train ids [H, W] of a label map in Cityscapes' colours, [H, W, 3].

    Raises UserError naming a colour that is no class's, and where it is first seen.
    """
    known = {_code(np.array(row.colour, np.uint8)): row.train_id for row in CLASSES}
    known |= {_code(np.array(colour, np.uint8)): VOID for colour in VOID_COLOURS}
    codes, inverse = np.unique(_code(pixels), return_inverse=True)
    strangers = [index for index, code in enumerate(codes.tolist()) if code not in known]
    inverse = inverse.reshape(pixels.shape[:2])
    if strangers:
        row, column = np.argwhere(inverse == strangers[0])[0].tolist()
        red, green, blue = pixels[row, column].tolist()
        share = np.isin(inverse, strangers).mean()
        raise UserError(
            f"{origin}: the colour ({red}, {green}, {blue}) in row {row}, column {column} is no class of Cityscapes; "
            f"{share:.1%} of the pixels have such a colour. A label map must not be resized with smoothing nor saved "
            "as JPEG: give the PNG files as they were drawn"
        )
    return np.array([known[code] for code in codes.tolist()], np.uint8)[inverse]


def _code(pixels: Pixels) -> npt.NDArray[np.int32]:
    """Return each colour of [..., 3] as one number, [...]."""
    wide = pixels.astype(np.int32)
    code: npt.NDArray[np.int32] = (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]
    return code


# --- label files ---------------------------------------------------------------------------------------------------


def read_labels(path: Path, size: int | None = None, half: Half | None = None) -> Labels:
    """Return the train ids [H, W] of a label file; with `size`, resized to size x size by nearest pixels.

    `*_labelTrainIds.png` and `*_labelIds.png` hold numbers (other ids than the 19 classes' are VOID), and any other
    file is taken for a map in Cityscapes' colours; JPEG files, as the original's data set of Cityscapes has, are read
    by nearest colour. With `half`, the labels are colours in that half of the file. Raises UserError for a file that
    cannot be read or holds something else.
    """
    try:
        if half is None and path.stem.endswith("_labelTrainIds"):
            labels = read_indices(path)
            strangers = np.setdiff1d(labels, [VOID, *range(len(CLASSES))])
            if strangers.size:
                raise UserError(f"{path} holds {strangers.tolist()}, which are no train ids (0 to 18, or 255 for void)")
        elif half is None and path.stem.endswith("_labelIds"):
            train_ids = np.full(256, VOID, np.uint8)
            for row in CLASSES:
                train_ids[row.label_id] = row.train_id
            labels = train_ids[read_indices(path)]
        else:
            pixels = np.asarray(read_image(path, half))
            is_lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
            labels = nearest_labels(pixels, with_void=True) if is_lossy else exact_labels(pixels, str(path))
    except UnreadableImage as error:
        raise UserError(str(error)) from error
    if size is None or labels.shape == (size, size):
        return labels
    return np.asarray(Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST))
