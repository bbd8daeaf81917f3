"""Makes TorchScript files, which C++ programs load with libtorch, and runs them in PyTorch.

PyTorch calls TorchScript deprecated since 2.9 and develops it no further: `pt2` takes its place. It is here for
programs that load nothing else.
"""

from pathlib import Path
from typing import Any

from cyclegan_fast.images.pixels import FloatImages
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class TorchScriptFormat(ExportFormat):
    """Describes TorchScript, traced from the exported program."""

    name = "torchscript"
    endings = (".torchscript.pt",)
    modules = ()
    install = "pip install cyclegan-fast"
    runs_with = "PyTorch or libtorch, on any of its devices; deprecated there, pt2 takes its place"
    taken = "any batch and size"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Trace the program, and save it."""
        (path,) = self.paths(stem)
        material.traced().save(path)

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the file in PyTorch, whose threads are the process's."""
        import torch

        return in_numpy(torch.jit.load(self.paths(stem)[0]).eval())  # type: ignore[no-untyped-call]  # torch's own lack


def in_numpy(module: Any) -> ImageFunction:
    """Return what gives PyTorch's images to a module, and NumPy's back."""
    import torch

    def run(images: FloatImages) -> FloatImages:
        with torch.inference_mode():
            result: FloatImages = module(torch.from_numpy(images)).numpy()
            return result

    return run
