"""Makes ExecuTorch programs, PyTorch's format for phones and small devices, and runs them in its Python runtime.

Convolutions, sums, ReLU and tanh go to XNNPACK, which computes on Arm and x86 processors. Instance norms, reflected
pads and what else it does not know are ExecuTorch's own portable operators, which are plain loops.
"""

from pathlib import Path

import numpy as np

from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.system.files import write_atomically
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial


class ExecuTorchFormat(ExportFormat):
    """Describes a program with XNNPACK's parts inside."""

    name = "executorch"
    endings = (".pte",)
    modules = ("executorch",)
    install = "pip install -c constraints.txt 'cyclegan-fast[executorch]'"
    runs_with = "ExecuTorch's runtime with XNNPACK: Android, iOS, Linux, macOS"
    taken = "one shape"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Lower the program, whose sides are fixed: ExecuTorch plans the memory of the largest shape ahead."""
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        fixed = torch.export.export(material.program().module(), (material.example(),))
        lowered = to_edge_transform_and_lower(fixed, partitioner=[XnnpackPartitioner()])
        (path,) = self.paths(stem)
        write_atomically(path, lowered.to_executorch().buffer)

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the program; XNNPACK computes in so many threads, the portable operators in one."""
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(threads)  # unsafe while programs are loaded, and none is
        (path,) = self.paths(stem)
        method = Runtime.get().load_program(path).load_method("forward")
        assert method is not None

        def run(images: FloatImages) -> FloatImages:
            (result,) = method.execute([torch.from_numpy(images)])
            return np.array(result)

        return run
