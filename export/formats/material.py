"""Makes what several formats begin with, once for all of them: a generator's ONNX graph and its exported program."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_fast.conventions import LONGEST_SIDE, SIDE_MULTIPLE
from cyclegan_fast.system.files import write_atomically
from export.source import GeneratorSource

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

MOST_AT_ONCE = 64
"""The largest batch of an exported program; formats that plan their memory ahead plan it for this."""


@dataclass(frozen=True)
class ExportMaterial:
    """Holds a generator, the side of its usual images in pixels, and a folder for what its formats have in common.

    Each format is made in a process of its own. The first that needs the graph or the program leaves it in the folder.
    """

    source: GeneratorSource
    side: int
    folder: Path
    threads: int = 1

    def onnx(self) -> bytes:
        """Return the content of the ONNX file of `export.to_onnx`, in float32."""
        from export.graphs.graph import serialised
        from export.graphs.onnx_file import with_digest
        from export.to_onnx import to_onnx

        path = self.onnx_path
        if not path.exists():
            write_atomically(path, with_digest(serialised(to_onnx(self.source, "float32"))))
        return path.read_bytes()

    @property
    def onnx_path(self) -> Path:
        """Return where `onnx` leaves the file."""
        return self.folder / f"{self.source.name}.onnx"

    def program(self) -> "ExportedProgram":
        """Return what `torch.export` makes of the generator: PyTorch's own operators, any batch and size.

        The operators are convolutions, instance norms, pads, sums, ReLU and tanh, as in the ONNX graph; the fused
        operators stand aside while a graph is exported (`cyclegan_fast.kernels.dispatch`).
        """
        import torch

        path = self.folder / f"{self.source.name}.program.pt2"
        if not path.exists():
            least, most = 8 // SIDE_MULTIPLE, LONGEST_SIDE // SIDE_MULTIPLE
            rows, columns = (
                SIDE_MULTIPLE * torch.export.Dim(name, min=least, max=most) for name in ("rows", "columns")
            )
            program = torch.export.export(
                self.source.network,
                # There are two images of unequal sides: an export takes a side of one, or two equal sides, for fixed.
                (torch.zeros(2, self.channels, 32, 24),),
                dynamic_shapes={"image": {0: torch.export.Dim("batch", max=MOST_AT_ONCE), 2: rows, 3: columns}},
            )
            partial_path = path.with_suffix(".partial.pt2")
            torch.export.save(program, partial_path)
            partial_path.replace(path)
        return torch.export.load(path)

    def traced(self) -> Any:
        """Return the program as TorchScript, traced with one image of the usual side; it takes any batch and size."""
        import torch

        with torch.inference_mode():
            program = self.program().module()
            return torch.jit.trace(program, self.example(), check_trace=False)  # type: ignore[no-untyped-call]  # torch

    def example(self) -> "Tensor":
        """Return one image of the usual side, float32 [1, C, side, side], with values all over [-1, 1]."""
        import torch

        generator = torch.Generator().manual_seed(0)
        make = partial(torch.rand, generator=generator)
        return make(1, self.channels, self.side, self.side) * 2 - 1

    @property
    def channels(self) -> int:
        """Return the channels of the images that the generator takes."""
        return self.source.ends.source.channels
