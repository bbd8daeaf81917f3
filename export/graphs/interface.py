"""Says what a generator's graph takes and gives: names, types and sides of its input and output.

It needs no onnx, so that commands which have none can ask it. `pixel_io` gives a graph samples in and out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.system.errors import UserError
from export.pixel_ends import RGB_ENDS, PixelEnds

INPUT, OUTPUT = "image", "translated"


@dataclass(frozen=True)
class GraphTensor:
    """Describes an input or output of a graph: its name, type and sides, None for a side that may have any length."""

    name: str
    dtype: str
    sides: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join('any' if side is None else str(side) for side in self.sides)}]"


def sample_dtype(kind: PixelType) -> Literal["uint8", "float32"]:
    """Return the type in which graphs and engines take and give samples, by NumPy's name.

    It is float32 for all that is not uint8: TensorRT has no uint16 and no int16, and float32 holds all their values.
    """
    return "uint8" if kind.dtype == "uint8" else "float32"


def has_sample_io(
    path: Path, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor], ends: PixelEnds = RGB_ENDS
) -> bool:
    """Return whether a graph takes and gives samples [N, H, W, C], rather than float32 [N, C, H, W] in [-1, 1].

    Raises UserError where it is no graph that export/to_onnx.py wrote for images of the types `ends`.
    """
    if [tensor.name for tensor in (*inputs, *outputs)] == [INPUT, OUTPUT]:
        found = [(tensor.dtype, tensor.sides) for tensor in (*inputs, *outputs)]
        if found == [("float32", (None, kind.channels, None, None)) for kind in ends]:
            return False
        if found == [(sample_dtype(kind), (None, None, None, kind.channels)) for kind in ends]:
            return True
    raise UserError(
        f"{path} is no generator that export/to_onnx.py wrote: it takes {', '.join(map(str, inputs))} and gives "
        f"{', '.join(map(str, outputs))}{'' if ends.are_rgb else f', and says that it translates {ends}'}"
    )
