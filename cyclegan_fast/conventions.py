"""Names and sizes that every floor above agrees on: domains A and B, the two directions, the sides of images.

Importing this needs nothing but Python. Domain A is that of trainA, domain B that of trainB; "a2b" translates images of
A into images like those of B, "b2a" the reverse.
"""

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
"""The images that each direction deals with, as formulas that people read."""

DOWNSAMPLING = 4  # two convolutions of stride 2
SIDES = 4  # an image's sides must be multiples of this; a U-Net's of more
SMALLEST = 8  # two halvings must leave what a residual block can pad by reflection
SMALLEST_SIDE = 24  # pixels; of less a 70x70 PatchGAN makes no score
