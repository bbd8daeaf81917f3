"""Gives the tests of videos a translation that flickers; it needs NumPy and pytest alone, as every conftest does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def flicker() -> Callable[[Any], Any]:
    """Returns what adds other noise to each frame, as a generator draws what the input hardly tells."""
    rng = np.random.default_rng(1)

    def noisy(samples: Any) -> Any:
        noise = rng.normal(0, 12, samples.shape)
        return np.clip(np.rint(255.0 - samples + noise), 0, 255).astype(np.uint8)

    return noisy
