"""Defines what every floor above agrees on: the domains A and B, the two directions, and the sides of images.

Importing this needs nothing but Python. Domain A is that of trainA, domain B that of trainB; "a2b" translates images of
A into images like those of B, "b2a" the reverse.
"""

import math
from typing import Literal

Direction = Literal["a2b", "b2a"]
DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")
OPPOSITE: dict[Direction, Direction] = {"a2b": "b2a", "b2a": "a2b"}
GENERATOR_OF: dict[Direction, str] = {"a2b": "G_A", "b2a": "G_B"}
"""The generator of each direction, by the name that the original implementation gives it (the paper's G and F)."""
FORMULAS = {
    "a2b": {"source": "A", "target": "B", "translation": "G_A(A)", "reconstruction": "G_B(G_A(A))"},
    "b2a": {"source": "B", "target": "A", "translation": "G_B(B)", "reconstruction": "G_A(G_B(B))"},
}
"""The images that each direction deals with, as formulas in tables and captions."""

SIDE_MULTIPLE = 4
"""An image's sides in pixels are multiples of this: two convolutions of stride 2 halve them. A U-Net needs more."""
SMALLEST_GENERATOR_SIDE = 8
"""The shortest side in pixels that is translated: after two halvings a residual block must still be able to reflect."""
SMALLEST_DISCRIMINATOR_SIDE = 24
"""The shortest side in pixels that is trained on: a 70x70 PatchGAN gives a smaller image no score."""
LONGEST_SIDE = 2**16
"""The longest side in pixels that images are resized to, which is that of JPEG files; --tile takes longer images."""


def wrong_side(name: str, side: int | None, smallest: int = SMALLEST_GENERATOR_SIDE) -> str | None:
    """Return what is wrong with a side in pixels that a user gave as `name`; None where it is right or not given."""
    if side is None or (side >= smallest and side % SIDE_MULTIPLE == 0):
        return None
    return f"{name} must be a multiple of {SIDE_MULTIPLE}, at least {smallest}, got {side}"


def padded_side(side: int, multiple: int = SIDE_MULTIPLE) -> int:
    """Return the shortest side in pixels, not below `side`, that a generator takes; U-Nets have its `multiple`."""
    return max(SMALLEST_GENERATOR_SIDE, math.ceil(side / multiple) * multiple)


def nearest_side(side: int) -> int:
    """Return the multiple of SIDE_MULTIPLE nearest to a side in pixels; of two that are as near, the multiple of 8."""
    return round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE
