"""Tests the filter against flicker: a moving picture flickers less, shows what it did, and forgets what is gone."""

from collections.abc import Callable

import numpy as np
from skimage import data

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.translation.video.flow import backward_flow
from cyclegan_fast.translation.video.steady import SteadyFilter

STEP = (1, 3)
"""How far, in rows and columns, the picture moves from frame to frame."""


def pan(count: int) -> SampleArray:
    photograph = data.astronaut()
    return np.stack([photograph[90 + t : 154 + t, 150 + 3 * t : 246 + 3 * t] for t in range(count)])


def warping_error(frames: SampleArray) -> float:
    """Return the mean squared difference of pixels that show the same (Lai et al. 2018), by the true motion."""
    values, (down, right) = frames.astype(float) / 255, STEP
    return float(np.mean((values[:-1, down:, right:] - values[1:, :-down, :-right]) ** 2))


def filtered(frames: SampleArray, translations: SampleArray, strength: float) -> SampleArray:
    steady, before, found = SteadyFilter(strength), None, []
    for frame, translation in zip(frames, translations, strict=True):
        flow = None if before is None else backward_flow(frame, before)
        found.append(steady(translation, frame, before, flow))
        before = frame
    return np.stack(found)


def test_the_motion_of_a_pan_is_found() -> None:
    first, second = pan(2)
    flow = backward_flow(second, first)
    assert np.abs(np.median(flow[0]) - STEP[0]) < 0.2
    assert np.abs(np.median(flow[1]) - STEP[1]) < 0.2


def test_a_pan_flickers_less_and_is_nearer_to_what_does_not_flicker(
    flicker: Callable[[SampleArray], SampleArray],
) -> None:
    frames = pan(8)
    translations, still = flicker(frames), 255 - frames
    steady = filtered(frames, translations, 0.8)
    assert warping_error(still) == 0
    assert warping_error(steady) < 0.2 * warping_error(translations)
    errors = [np.mean((images[2:].astype(float) - still[2:]) ** 2) for images in (translations, steady)]
    assert errors[1] < 0.6 * errors[0]


def test_nothing_is_kept_over_a_cut() -> None:
    frames = np.stack([pan(1)[0], data.coffee()[100:164, 200:296]])
    translations = np.stack([np.full_like(frames[0], 250), np.full_like(frames[0], 10)])
    second = filtered(frames, translations, 0.8)[1]
    assert np.median(second) == 10
    assert (second > 60).mean() < 0.1
