"""Makes files of ncnn, a library for phones and small computers, by pnnx, and runs them in ncnn on the CPU."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.system.errors import UserError
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial

_INPUT, _OUTPUT = "in0", "out0"  # as pnnx calls them


class NcnnFormat(ExportFormat):
    """Describes ncnn's two files, .param with the graph and .bin with the weights in float32."""

    name = "ncnn"
    endings = (".ncnn.param", ".ncnn.bin")
    modules = ("pnnx", "ncnn")
    install = "pip install 'cyclegan-fast[formats]'"
    runs_with = "ncnn: C++ on Android, iOS, Linux, macOS, Windows, with or without Vulkan"
    taken = "one image of any size"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Convert TorchScript by the program pnnx, which is told two sizes, so that it takes neither for fixed."""
        import pnnx

        of_graph, of_weights = self.paths(stem)
        side, channels = material.side, material.channels
        with tempfile.TemporaryDirectory(dir=material.folder) as scratch:
            traced = Path(scratch) / "traced.pt"
            material.traced().save(traced)
            # Without fp16=0 it would store weights in float16.
            options = [
                f"inputshape=[1,{channels},{side},{side}]f32",
                f"inputshape2=[1,{channels},{2 * side},{side + 16}]f32",
                "fp16=0",
                f"ncnnparam={of_graph.resolve()}",
                f"ncnnbin={of_weights.resolve()}",
            ]
            ended = subprocess.run(
                [pnnx.EXEC_PATH, traced.name, *options], cwd=scratch, capture_output=True, text=True, check=False
            )
            print(ended.stdout, ended.stderr)
        if ended.returncode or not (of_graph.is_file() and of_weights.is_file()):
            raise UserError(f"pnnx ended with status {ended.returncode} and wrote no files of ncnn")

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the files for the CPU, to be computed in float32."""
        import ncnn

        network = ncnn.Net()
        options = network.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        for lower in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{lower}", False)
        of_graph, of_weights = self.paths(stem)
        if network.load_param(str(of_graph)) or network.load_model(str(of_weights)):
            raise UserError(f"ncnn does not load {of_graph} and {of_weights.name}")

        def run(images: FloatImages) -> FloatImages:
            image = np.ascontiguousarray(images[0])  # ncnn reads this memory, and copies nothing
            extractor = network.create_extractor()
            extractor.input(_INPUT, ncnn.Mat(image))
            status, translated = extractor.extract(_OUTPUT)
            if status:
                raise UserError(f"ncnn could not translate an image of {list(image.shape)}: status {status}")
            return np.array(translated)[None]

        return run
