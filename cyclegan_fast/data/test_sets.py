"""Holds the test images of both domains, and reads the label maps among them."""

from dataclasses import dataclass

import numpy as np

from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.layouts import best_label_file
from cyclegan_fast.images.labels import Labels, read_labels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar


@dataclass(frozen=True)
class HeldOut:
    """Holds the test images of one domain, all [crop_size, crop_size, C], and their true translations where known."""

    images: Images
    truth: Images | None = None


@dataclass(frozen=True)
class TestSets:
    """Holds the test images of both domains, None where there are none, and a remark for the user."""

    A: HeldOut | None
    B: HeldOut | None
    note: str | None = None

    __test__ = False  # pytest would take it for tests by its name


def label_maps(tests: TestSets, size: int) -> dict[str, Labels]:
    """Return the train ids [N, size, size] of "B", whose test images are label maps, and of "A" where they are pairs.

    Raises UserError where domain B has none, or holds something else.
    """
    maps = tests.B.images if tests.B is not None else None
    paired = isinstance(maps, Selected)  # the label maps are in the order of their photographs
    folder = maps.images if isinstance(maps, Selected) else maps
    if maps is None or not isinstance(folder, ImageFolder):
        raise UserError("labels are read from the files in testB: --data needs a folder with label maps there")
    places = maps.places if isinstance(maps, Selected) else range(len(folder.paths))
    shown = progress_bar(places, desc="reading label maps", unit=" images", leave=False)
    labels = np.stack([read_labels(best_label_file(folder.paths[place]), size, folder.half) for place in shown])
    return {"B": labels, "A": labels} if paired else {"B": labels}
