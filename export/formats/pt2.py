"""Makes AOTInductor packages, PyTorch's own compilation ahead of time, for the CPU of this machine.

A package holds a library that PyTorch's compiler wrote in C++, and the weights. A C++ compiler makes it, and uses all
the vector instructions that this processor has: an older processor does not run it.
"""

import os
import shutil
from pathlib import Path

from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial
from export.formats.torchscript import in_numpy


class Pt2Format(ExportFormat):
    """Describes a package of torch.export and AOTInductor."""

    name = "pt2"
    endings = (".pt2",)
    modules = ()
    install = "pip install cyclegan-fast, and a C++ compiler (Debian: apt-get install g++)"
    runs_with = "PyTorch of the same version or libtorch, on a processor like the one that made it"
    taken = "any batch and size"

    def why_not_made(self) -> str | None:
        """Return that there is no C++ compiler, where it is so."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"there is no C++ compiler {compiler}: install one (Debian: apt-get install g++), or name one in CXX"
        return None

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Compile the program."""
        from torch._inductor import aoti_compile_and_package, config

        with config.patch({"compile_threads": 1}):  # its other processes would outlive this one
            aoti_compile_and_package(material.program(), package_path=str(self.paths(stem)[0]))

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the package, whose threads are PyTorch's."""
        from torch._inductor import aoti_load_package

        return in_numpy(aoti_load_package(str(self.paths(stem)[0])))
