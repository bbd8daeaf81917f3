"""Makes OpenVINO's own files, .xml with the graph and .bin with the weights, and runs them on the CPU.

OpenVINO reads ONNX files too, to the same speed: its own files are for tools that take nothing else.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.pixels import FloatImages
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class OpenVinoFormat(ExportFormat):
    """Describes OpenVINO's intermediate representation, with weights in float32."""

    name = "openvino"
    endings = (".xml", ".bin")
    modules = ("onnx", "openvino")
    install = "pip install 'cyclegan-fast[export]'"
    runs_with = "OpenVINO on Intel, AMD and Arm processors, Intel GPUs and NPUs"
    taken = "any batch and size"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Convert the ONNX graph."""
        import openvino

        model = openvino.Core().read_model(material.onnx())
        openvino.save_model(model, self.paths(stem)[0], compress_to_fp16=False)

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the files for the CPU; without the hint OpenVINO would take bfloat16 where the processor has it."""
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        model: Any = openvino.Core().compile_model(self.paths(stem)[0], "CPU", settings)

        def run(images: FloatImages) -> FloatImages:
            return np.array(model(images)[0])  # copied: the library writes the next one into the same memory

        return run
