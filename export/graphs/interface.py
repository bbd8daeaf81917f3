"""Says what a generator's graph takes and gives: names, types and sides of its input and output.

It needs nothing but Python, so that commands which have no onnx can ask it. `pixel_io` gives a graph pixels in and out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclegan_fast.system.errors import UserError

INPUT, OUTPUT = "image", "translated"


@dataclass(frozen=True)
class GraphTensor:
    """Describes an input or output of a graph: its name, type and sides, None for a side that may have any length."""

    name: str
    dtype: str
    sides: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join('any' if side is None else str(side) for side in self.sides)}]"


LAYOUTS = {("float32", (None, 3, None, None)): False, ("uint8", (None, None, None, 3)): True}
"""the types and sides that graphs of this project take and give, and whether those are pixels"""


def has_pixel_io(path: Path, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> bool:
    """Return whether a graph takes and gives uint8 pixels.

    Raises UserError where it is no graph that export/to_onnx.py wrote.
    """
    if [tensor.name for tensor in (*inputs, *outputs)] == [INPUT, OUTPUT]:
        takes, gives = ((tensor.dtype, tensor.sides) for tensor in (*inputs, *outputs))
        if takes == gives and takes in LAYOUTS:
            return LAYOUTS[takes]
    raise UserError(
        f"{path} is no generator that export/to_onnx.py wrote: it takes {', '.join(map(str, inputs))} and gives "
        f"{', '.join(map(str, outputs))}"
    )
