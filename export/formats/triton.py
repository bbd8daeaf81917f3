"""Makes a model repository of Triton Inference Server, by `export/serving/triton_repository.py`."""

from pathlib import Path

from export.formats.export_format import ExportFormat
from export.formats.material import ExportMaterial


class TritonFormat(ExportFormat):
    """Describes a folder to start the server with; it holds the ONNX file of one direction, and its configuration."""

    name = "triton"
    endings = (".triton",)
    modules = ("onnx", "onnxruntime")
    install = "pip install 'cyclegan-fast[export]'"
    runs_with = "Triton Inference Server with its ONNX Runtime backend"
    taken = "up to 8 images of any size"  # TritonOptions.batch_size

    def why_not_run(self) -> str | None:
        """Return that this project starts no server of Triton."""
        return "a Triton server runs it, and none was asked: it holds the ONNX file, and a configuration beside it"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Write the ONNX file of the generator into a repository of its own."""
        from export.serving.triton_repository import write_triton_repository

        material.onnx()
        (repository,) = self.paths(stem)
        write_triton_repository([material.onnx_path], repository)
