"""Tells which folders of a data set hold scenes."""

from pathlib import Path

from tifffile import TiffFile

from cyclegan_fast.config.data_options import DataConfig
from cyclegan_fast.data.layouts import Place
from cyclegan_fast.images.folders import Found, Wanted, ending_of, search
from cyclegan_fast.images.formats.recognition import TIFF_ENDINGS, format_of_file
from cyclegan_fast.images.scenes.opening import LARGE_PIXELS
from cyclegan_fast.images.scenes.slide_scene import SLIDE_ENDINGS
from cyclegan_fast.images.scenes.zarr_scene import is_zarr
from cyclegan_fast.images.unreadable import BoundedFile, UnreadableImage, parsing, reading

SCENES = Wanted(frozenset({*TIFF_ENDINGS, *SLIDE_ENDINGS, ".svs"}), is_zarr, "scenes")
"""The files and folders that crops are cut from in a folder of scenes."""
_LEAST_BYTES = 2**20  # of a TIFF that is opened to see whether it is large


def find_scenes_in(place: Place, config: DataConfig) -> Found | None:
    """Return the scenes of a domain, whose folder may be a Zarr itself; None where it has images to be decoded."""
    folder = place.folder
    if config.scenes == "no" or config.frames != "first" or place.half or place.ending or not folder.is_dir():
        return None
    if is_zarr(folder):
        return Found([folder], [], [])
    found = search(folder, SCENES)
    is_one = bool(found.images) if config.scenes == "yes" else any(map(_is_only_a_scene, found.images))
    return found if is_one else None


def _is_only_a_scene(path: Path) -> bool:
    """Tell whether an image is none that is decoded as a whole: a slide, a Zarr, or a TIFF of very many pixels."""
    if ending_of(path.name) not in TIFF_ENDINGS or path.is_dir():
        return True
    try:
        with reading(path):
            if path.stat().st_size < _LEAST_BYTES or format_of_file(path) != "tiff":
                return False
            with BoundedFile(path) as file, parsing(), TiffFile(file) as tiff:
                page = tiff.pages.first
                return bool(page.imagewidth * page.imagelength >= LARGE_PIXELS)
    except UnreadableImage:
        return False  # whoever reads it says why
