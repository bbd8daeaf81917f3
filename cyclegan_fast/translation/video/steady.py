"""Keeps translations from flickering, by a filter in time along the motion of the input; nothing is trained for it.

A generator translates each frame by itself, and what it draws where the input hardly differs may differ a lot. The
filter takes a part of each pixel from where it was in the frame before, except where the input shows that it was not
there: what was hidden, or has changed. That the input tells what must be stable is the idea of Bonneel et al. 2015
(Blind Video Temporal Consistency); the weight is the visibility of Lai et al. 2018 (Learning Blind Video Temporal
Consistency).

Filtering the difference between translation and input instead keeps an unchanged input exactly, but also the noise that
is in it: on a camera's noise it lost both in warping error and in PSNR (docs/video.md).
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.translation.video.flow import Flow, warped

Carried = npt.NDArray[np.float32]
"""The filter's result for a frame before it is rounded, [H, W, 3]: what the next frame is filtered with."""

_SHARPNESS = 50.0
"""Says how fast the weight falls with the squared difference of two inputs in [0, 1], as in Lai et al. 2018."""
_WINDOW = 5
"""The side in pixels of the window in which that difference is averaged, so that noise is no change."""


class SteadyFilter:
    """Filters the translated frames of a video one after another.

    Args:
        strength: the weight of the frame before where nothing has changed, in [0, 1).
        carried: what an earlier filter carried from the frame before the first; None where there is none.
    """

    def __init__(self, strength: float, carried: Carried | None = None) -> None:
        self.strength = strength
        self.carried = carried

    def __call__(self, translation: Pixels, source: Pixels, before: Pixels | None, flow: Flow | None) -> Pixels:
        """Return a translation with less flicker, uint8 [H, W, 3].

        Args:
            translation: of `source`, of its size.
            before: the source's frame before; None for the first one.
            flow: of `backward_flow` from `before` to `source`.
        """
        result = translation.astype(np.float32)
        if self.carried is not None and before is not None and flow is not None:
            both = warped(np.concatenate([self.carried, before], -1, dtype=np.float32), flow)
            weight = self.strength * _visibility(source, both[..., 3:])
            result += weight[..., None] * (np.nan_to_num(both[..., :3]) - result)
        self.carried = result
        return np.rint(result).clip(0, 255).astype(np.uint8)


def _visibility(source: Pixels, warped_before: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how far each pixel is what it was in the frame before, [H, W] in [0, 1]; 0 where it was not in it."""
    difference = (source - warped_before) / np.float32(255)
    squares = (difference**2).sum(-1)
    outside = np.isnan(squares)
    squares[outside] = 1.0
    visibility: npt.NDArray[np.float32] = np.exp(
        -np.float32(_SHARPNESS) * ndimage.uniform_filter(squares, _WINDOW, mode="nearest")
    )
    visibility[outside] = 0.0
    return visibility
