"""Makes engines of TensorRT for RTX, which are built without a GPU and run on RTX cards; `tensorrt` has the other kind.

`python export/trt.py` builds engines with more choices: precisions, sizes, batches, targets.
"""

import hashlib
from pathlib import Path

from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.version import __version__
from export.engines.engine_card import EngineCard, Profile
from export.engines.libraries import Runtime, capability_here, choose_library
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class TensorRtRtxFormat(ExportFormat):
    """Describes an engine with its card, for one image of one shape."""

    name = "tensorrt-rtx"
    endings = (".rtx.engine", ".rtx.json")
    modules = ("onnx", "tensorrt_rtx")
    install = "pip install 'cyclegan-fast[export,rtx]'"
    runs_with = (
        "a GeForce or RTX card, compute capability 8.0, 8.6, 8.9 or 12.0, tensorrt-rtx of the same version, PyCUDA"
    )
    taken = "one shape"
    runtime: Runtime = "rtx"

    def why_not_run(self) -> str | None:
        """Return that there is no GPU, where it is so; `open` asks whether it is one that the engine was built for."""
        from export.engines.libraries import gpu_count

        return None if gpu_count() else "there is no NVIDIA GPU here: it was built, not run"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Build the engine, and write its card behind it."""
        from export.engines.builder import build, default_targets

        library, onnx, side = choose_library(self.runtime), material.onnx(), material.side
        profile = Profile((1, side, side), (1, side, side), (1, side, side))
        targets = default_targets(library, "float32")
        engine = build(library, onnx, profile, targets=targets, progress=False)
        of_engine, of_card = self.paths(stem)
        write_atomically(of_engine, engine.content)
        EngineCard(
            library=library.name,
            version=library.version,
            targets=targets or (f"sm{capability_here()}",),
            precision="float32",
            direction=material.source.direction,
            uint8_io=False,
            profile=profile,
            input=engine.input.name,
            output=engine.output.name,
            checkpoint_sha256=material.source.sha256,
            onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            engine_sha256=hashlib.sha256(engine.content).hexdigest(),
            project_version=__version__,
            parity={"onnx": "see the table", "engine": "see the table"},
            ends=material.source.ends,
        ).write(of_card)

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the engine on the GPU. Raises UserError where it was not built for that one."""
        from export.runtime import Engine

        return Engine(self.paths(stem)[0])
