"""Counts the pages of an image file, and describes the files that have several; the first one is read."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, TiffImagePlugin

from cyclegan_fast.images.folders import OF_SAMPLES, ending_of
from cyclegan_fast.images.samples import describe_file
from cyclegan_fast.images.unreadable import UnreadableImage

SEVERAL_PAGES = frozenset({".tif", ".tiff", ".gif", ".webp", ".png", ".apng", ".avif", ".avifs", ".dcx"})
"""Endings of pictures whose files may hold further pages or frames; the further pages of MPO show the same view."""

_NEW_SUBFILE_TYPE = 254  # the TIFF tag whose lowest bit marks a smaller copy of another page


def page_count(path: Path) -> int:
    """Return how many pages or frames an image file holds, of which the first is read; smaller copies do not count.

    Returns 1 where the file cannot be opened: the function that reads it says why.
    """
    if ending_of(path.name) in OF_SAMPLES:
        try:
            return describe_file(path).frames
        except UnreadableImage:
            return 1
    if ending_of(path.name) not in SEVERAL_PAGES:
        return 1
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames == 1 or not isinstance(image, TiffImagePlugin.TiffImageFile):
                return frames
            count = 1
            for frame in range(1, frames):
                image.seek(frame)
                count += not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1
            return count
    except Exception:  # damaged files raise errors of any kind
        return 1


def note_on_pages(pages: Mapping[str, int]) -> list[str]:
    """Return one line on files with several pages, from names and numbers of pages; no line where there are none."""
    if not pages:
        return []
    name, count = next(iter(pages.items()))
    others = f", and of {len(pages) - 1} more in the same way" if len(pages) > 1 else ""
    return [f"{name}: the first of {count} pages is read{others}"]
