"""Finds how far apart the pixels of a scene are, in micrometres, in what its file says of it."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tifffile import TiffFile

_MICRONS = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,
    "μm": 1.0,  # the Greek letter, where the one above is the sign for micro
    "um": 1.0,
    "micrometer": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
}
_OF_APERIO = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")
_OF_OME = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_ATTRIBUTE = re.compile(r'\b(PhysicalSizeX|PhysicalSizeXUnit)\s*=\s*"([^"]*)"')
_UNIT_TAG, _X_TAG = 296, 282
_OF_UNIT = {2: 25_400.0, 3: 10_000.0}  # micrometres of an inch and of a centimetre


def microns_of_tiff(tiff: TiffFile) -> float | None:
    """Return what a TIFF says: OME's PhysicalSizeX, Aperio's MPP, or the resolution of its first page."""
    page = tiff.pages.first
    said = page.description or ""
    if tiff.is_ome and (pixels := _OF_OME.search(said)):
        found = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(pixels[0])}  # such as &#181;m
        return microns_of(found.get("PhysicalSizeX"), found.get("PhysicalSizeXUnit", "µm"))
    if tiff.is_svs and (aperio := _OF_APERIO.search(said)):
        return microns_of(aperio[1], "µm")
    unit, dots = _OF_UNIT.get(page.tags.valueof(_UNIT_TAG)), page.tags.valueof(_X_TAG)
    if unit is None or not isinstance(dots, tuple) or len(dots) != 2 or not dots[0]:
        return None
    return microns_of(unit * dots[1] / dots[0], "µm")


def microns_of_zarr(image: Mapping[str, Any], axes: Sequence[str]) -> float | None:
    """Return what the multiscales of an OME-Zarr say: the scale of axis x of the first level, in its unit."""
    place = axes.index("x")
    axis = image["axes"][place] if image.get("axes") else None
    unit = axis.get("unit") if isinstance(axis, dict) else None
    scale = 1.0
    for described in (image["datasets"][0], image):
        for each in described.get("coordinateTransformations", ()):
            values = each.get("scale", ())
            if len(values) == len(axes):
                scale *= values[place]
    return microns_of(scale, unit)


def microns_of(value: object, unit: object) -> float | None:
    """Return a length in micrometres; None where it is none, or of an unknown unit."""
    try:
        found = float(value) * _MICRONS[str(unit).lower()]  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, KeyError):
        return None
    return found if math.isfinite(found) and found > 0 else None
