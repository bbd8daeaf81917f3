"""Makes LiteRT files (TensorFlow Lite's format) by litert-torch, and runs them in LiteRT's interpreter with XNNPACK.

litert-torch is no extra of this project: a package that it needs, xdsl 0.28.0, asks for typing-extensions before 4.13, and
tyro, which parses our command lines, for a later one. No choice of versions suits both, so pip refuses them together;
with a later typing-extensions both work.
"""

from pathlib import Path

import numpy as np

from cyclegan_fast.images.pixels import FloatImages
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class LiteRtFormat(ExportFormat):
    """Describes a .tflite file in float32, for one shape, [N, C, H, W] as everywhere here."""

    name = "litert"
    endings = (".tflite",)
    modules = ("litert_torch", "ai_edge_litert")
    install = "pip install litert-torch==0.10.0, in an environment of its own (docs/deployment.md, Every format)"
    runs_with = "LiteRT: Android, iOS, Linux, macOS, Windows, microcontrollers"
    taken = "one shape"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Convert the program's module for one image of the usual side."""
        import litert_torch

        (path,) = self.paths(stem)
        litert_torch.convert(material.program().module(), (material.example(),)).export(str(path))

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the file in the interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        (path,) = self.paths(stem)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def run(images: FloatImages) -> FloatImages:
            interpreter.set_tensor(taken, images)
            interpreter.invoke()
            return np.array(interpreter.get_tensor(given))

        return run
