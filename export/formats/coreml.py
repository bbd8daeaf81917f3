"""Makes Core ML packages for Apple's devices. They are made on Linux and macOS, and run on macOS alone.

On Linux nothing computes them, so their parity is not measured there; that they are whole is seen by reading them back.
"""

import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cyclegan_fast.conventions import SMALLEST_GENERATOR_SIDE
from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.system.errors import UserError
from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial
from export.graphs.interface import INPUT, OUTPUT

_MOST_SIDE = 4096


class CoreMlFormat(ExportFormat):
    """Describes an ML program with weights in float32, in a package, which is a folder."""

    name = "coreml"
    endings = (".mlpackage",)
    modules = ("coremltools",)
    install = "pip install 'cyclegan-fast[coreml]'"
    runs_with = "macOS 13, iOS 16 or later"
    taken = "any batch and size"

    def why_not_run(self) -> str | None:
        """Return that this is not macOS, where it is so."""
        return (
            None if platform.system() == "Darwin" else "Core ML is a part of macOS and iOS: it was made and read back"
        )

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Convert TorchScript, save the package and read it back."""
        import coremltools

        sides = coremltools.RangeDim(SMALLEST_GENERATOR_SIDE, _MOST_SIDE, material.side)
        shape = (coremltools.RangeDim(1, 64, 1), material.channels, sides, sides)
        model = coremltools.convert(
            material.traced(),
            inputs=[coremltools.TensorType(name=INPUT, shape=shape)],
            outputs=[coremltools.TensorType(name=OUTPUT)],
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
        )
        (path,) = self.paths(stem)
        model.save(str(path))
        read = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
        _check(read, (str(node.target) for node in material.program().graph.nodes))

    def open(self, stem: Path, threads: int) -> ImageFunction:
        """Load the package on the CPU of a Mac."""
        import coremltools

        (path,) = self.paths(stem)
        model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)

        def run(images: FloatImages) -> FloatImages:
            result: FloatImages = model.predict({INPUT: images})[OUTPUT]
            return result

        return run


_OPERATORS = {
    "conv": "aten.conv2d.default",
    "conv_transpose": "aten.conv_transpose2d.input",
    "instance_norm": "aten.instance_norm.default",
    "pad": "aten.pad.default",
    "tanh": "aten.tanh.default",
}
"""Core ML's operators of a generator, and PyTorch's."""


def _check(specification: Any, operators: Iterable[str]) -> None:
    """Raise UserError unless a package that was read back takes and gives float32 images, by as many operators.

    `operators` are those of the program that it was made from. Nothing here says that it computes the same.
    """
    description = specification.description
    ends = [
        (feature.name, feature.type.multiArrayType.dataType) for feature in (*description.input, *description.output)
    ]
    float32 = 65568  # ArrayFeatureType.FLOAT32 of Core ML's specification
    if ends != [(INPUT, float32), (OUTPUT, float32)] or specification.WhichOneof("Type") != "mlProgram":
        raise UserError(f"coremltools wrote a package that takes and gives {ends}, in place of float32 images")
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    found, wanted = Counter(operation.type for operation in block.operations), Counter(operators)
    for name, of_pytorch in _OPERATORS.items():
        if found[name] != wanted[of_pytorch]:
            raise UserError(f"coremltools wrote {found[name]} operators {name}, in place of {wanted[of_pytorch]}")
