"""Turns images upright, by the tag of TIFF and EXIF that says how the camera was held."""

import numpy as np
from PIL import Image

from cyclegan_fast.images.pixel_type import SampleArray

_ORIENTATION = 0x0112  # the tag of EXIF
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """Return how the camera was held, as the tag of EXIF has it, 1 to 8; 1 where that is not known."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # decoders raise anything, see `reading`; but damaged EXIF is no reason to give up the pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def upright(samples: SampleArray, orientation: int) -> SampleArray:
    """Turn [H, W, C] as the orientation tag of TIFF and EXIF says, 1 to 8; any other value is taken for 1."""
    match orientation:
        case 2:
            return samples[:, ::-1]
        case 3:
            return samples[::-1, ::-1]
        case 4:
            return samples[::-1]
        case 5:
            return samples.swapaxes(0, 1)
        case 6:
            return np.rot90(samples, -1)
        case 7:
            return samples[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(samples)
        case _:
            return samples
