"""Estimates how a picture moved since the one before; by scikit-image, which needs no further package."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.registration import optical_flow_ilk
from skimage.transform import resize

from cyclegan_fast.images.pixels import Pixels

Flow = npt.NDArray[np.float32]
"""For each pixel, [2, H, W], how far down and to the right of it the picture before shows the same thing, in pixels."""

_LONGEST_SIDE = 320
"""The longest side, in pixels, of the pictures that are compared: the flow of larger ones is interpolated."""
_RADIUS = 7
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def backward_flow(current: Pixels, before: Pixels) -> Flow:
    """Return how a picture, uint8 [H, W, 3], moved since the one before, of the same size.

    The method is the iterative Lucas-Kanade with a pyramid (Le Besnerais and Champagnat 2005).
    """
    height, width = current.shape[:2]
    shrunk = min(1.0, _LONGEST_SIDE / max(height, width))
    size = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    small = [_grey(picture, size) for picture in (current, before)]
    if min(size) < 2 * _RADIUS + 1:
        return np.zeros((2, height, width), np.float32)
    flow = np.stack(optical_flow_ilk(*small, radius=_RADIUS, num_warp=1)).astype(np.float32)
    if size == (height, width):
        return flow
    scale = np.array([height / size[0], width / size[1]], np.float32)[:, None, None]
    return np.stack([resize(part, (height, width), order=1) for part in flow]).astype(np.float32) * scale


def warped(values: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """Return values of the picture before, [H, W, C], at the places that each pixel has come from.

    Places beyond the picture have NaN.
    """
    rows, columns = np.indices(flow.shape[1:], np.float32)
    places = np.stack([rows + flow[0], columns + flow[1]])
    channels = [
        ndimage.map_coordinates(values[..., channel], places, order=1, mode="constant", cval=np.nan)
        for channel in range(values.shape[2])
    ]
    return np.stack(channels, -1)


def _grey(picture: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    grey = picture @ _LUMA / np.float32(255)
    return grey if grey.shape == size else resize(grey, size, anti_aliasing=True).astype(np.float32)
