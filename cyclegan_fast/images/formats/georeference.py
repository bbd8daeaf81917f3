"""Keeps the tags of a GeoTIFF that say where on the Earth its pixels lie (OGC 19-008r4), and the value for no data."""

from typing import Any

from tifffile import TiffPage

KEPT_TAGS = {
    33550: "ModelPixelScale",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    42113: "GDAL_NODATA",
}
"""The tags that are written back as they were read, and their names."""
NO_DATA = 42113

Tag = tuple[int, int, int, Any]
"""A tag's code, the number of its type, how many values it has, and these."""


def geo_tags(page: TiffPage) -> tuple[Tag, ...]:
    """Return the tags of a page that are kept."""
    found = [page.tags[code] for code in KEPT_TAGS if code in page.tags]
    return tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in found)


def is_georeferenced(page: TiffPage) -> bool:
    """Return whether a page says where its pixels lie."""
    return any(code in page.tags for code in KEPT_TAGS if code != NO_DATA)


def no_data_of(page: TiffPage) -> float | None:
    """Return the value that stands where nothing was measured; None where there is none, or no number."""
    try:
        return float(page.tags.valueof(NO_DATA, "").strip().rstrip("\0"))
    except (ValueError, AttributeError):
        return None
