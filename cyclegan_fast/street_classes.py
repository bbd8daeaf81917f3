"""The classes that a street scene is labelled with: names, colours and train ids as Cityscapes has them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclegan_fast.pixels import Pixels

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StreetClass:
    """One class of Cityscapes (Cordts et al. 2016), as its published label table defines it."""

    name: str
    colour: tuple[int, int, int]
    train_id: int


CLASSES = (
    StreetClass("road", (128, 64, 128), 0),
    StreetClass("sidewalk", (244, 35, 232), 1),
    StreetClass("building", (70, 70, 70), 2),
    StreetClass("wall", (102, 102, 156), 3),
    StreetClass("fence", (190, 153, 153), 4),
    StreetClass("pole", (153, 153, 153), 5),
    StreetClass("traffic light", (250, 170, 30), 6),
    StreetClass("traffic sign", (220, 220, 0), 7),
    StreetClass("vegetation", (107, 142, 35), 8),
    StreetClass("terrain", (152, 251, 152), 9),
    StreetClass("sky", (70, 130, 180), 10),
    StreetClass("person", (220, 20, 60), 11),
    StreetClass("rider", (255, 0, 0), 12),
    StreetClass("car", (0, 0, 142), 13),
    StreetClass("truck", (0, 0, 70), 14),
    StreetClass("bicycle", (119, 11, 32), 18),
)
"""The classes that streets here show; Cityscapes' bus, train and motorcycle are not drawn."""

TRAIN_ID = {row.name: row.train_id for row in CLASSES}


def colours_of(labels: Labels) -> Pixels:
    """Train ids [...] -> their colours [..., 3]. Raises ValueError for an id that CLASSES does not have."""
    unknown = np.setdiff1d(labels, [row.train_id for row in CLASSES])
    if unknown.size:
        raise ValueError(f"no class has the train ids {unknown.tolist()}; CLASSES lists those there are")
    palette = np.zeros((256, 3), np.uint8)
    for row in CLASSES:
        palette[row.train_id] = row.colour
    return palette[labels]
