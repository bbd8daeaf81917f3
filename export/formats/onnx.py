"""Makes ONNX files in float32, and runs them in ONNX Runtime on the CPU.

`export.to_onnx` makes the graph, in other precisions too; `python export/run.py --onnx FILE` translates with it.
"""

from pathlib import Path

from cyclegan_fast.system.files import write_atomically
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class OnnxFormat(ExportFormat):
    """Describes ONNX, opset 20."""

    name = "onnx"
    endings = (".onnx",)
    modules = ("onnx", "onnxruntime")
    install = "pip install 'cyclegan-fast[export]'"
    runs_with = "ONNX Runtime, OpenVINO, or whatever reads ONNX opset 20"
    taken = "any batch and size"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Write the graph with its digest."""
        (path,) = self.paths(stem)
        write_atomically(path, material.onnx())

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the file as `export/run.py` does."""
        from export.onnx_translators import OnnxRuntimeTranslator

        (path,) = self.paths(stem)
        signed = OnnxRuntimeTranslator(path, path.read_bytes(), "cpu", threads).signed
        assert signed is not None
        return signed
