"""`python export/verify.py`: an exported ONNX file against the checkpoint that it came from."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclegan_fast.command_line import parse_command
from cyclegan_fast.errors import UserError, run_command
from export.source import load_sources

if TYPE_CHECKING:
    from onnx import ModelProto

    from cyclegan_fast.networks import ResnetGenerator
    from export.pictures import Pictures


@dataclass(frozen=True)
class CommandLine:
    """Compare an exported ONNX file with PyTorch in float32, on photographs; the status is 1 where it falls short.

    Examples:
        python export/verify.py --onnx engines/x-a2b-float16.onnx --checkpoint runs/x
        python export/verify.py --onnx engines/x-a2b-int8.onnx --checkpoint runs/x --images datasets/x/testA
    """

    onnx: Path
    """the file; it says itself which precision and direction it has"""
    checkpoint: Path | None = None
    """what it was made from; by default the newest of runs/"""
    size: int | None = None
    """side of the images that are compared, pixels; by default what the network was trained with"""
    images: Path | None = None
    """folder of images to compare on; by default the embedded photographs, and for int8 and fp8, whose ranges were
    measured on the domain that is translated, the run's own test images"""


def onnx_parity(network: "ResnetGenerator", model: "ModelProto", size: int, pictures: "Pictures") -> dict[str, Any]:
    """`export.parity.worst_parity` of a graph in ONNX Runtime on the CPU.

    What it has no bfloat16 convolution for is computed in float32 and rounded to bfloat16 where the graph stores that.
    """
    from export.graph import serialised
    from export.parity import in_onnxruntime, shapes, worst_parity
    from export.precision import BFLOAT16, emulated

    if any(value.type.tensor_type.elem_type == BFLOAT16 for value in model.graph.value_info):
        model = emulated(model)
    content = serialised(model)
    return worst_parity(network, lambda pixels: in_onnxruntime(content, pixels), list(shapes(size)), pictures)


def verify(command: CommandLine) -> int:
    """Print the parity at each shape; returns the exit status."""
    import onnx

    from export.options import is_eight_bits
    from export.parity import BARS
    from export.pictures import of_domain, of_folder, photographs

    try:
        model = onnx.load(command.onnx)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        precision, made_in = properties["precision"], properties["direction"]
    except FileNotFoundError:
        raise UserError(f"no file {command.onnx}") from None
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{command.onnx} is no file of export/to_onnx.py") from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # protobuf's, of no importable public place
            raise
        raise UserError(f"{command.onnx} is no ONNX file: {error}") from error
    direction: Literal["a2b", "b2a"] = "b2a" if made_in == "b2a" else "a2b"
    (source,) = load_sources(command.checkpoint, direction, [])
    if source.sha256 != properties["checkpoint_sha256"]:
        raise UserError(f"{command.onnx} was made from another checkpoint than {source.checkpoint}: give --checkpoint")
    if command.images is not None:
        pictures = of_folder(command.images)
    else:
        pictures = of_domain(None, source)[1] if is_eight_bits(precision) else photographs
    parity = onnx_parity(source.network, model, command.size or source.size, pictures)
    for shape, figures in parity.items():
        print(f"{shape:>16}  {figures}")
    failure = BARS[precision].failure(parity["worst"])
    if failure and is_eight_bits(precision):
        from export.sensitivity import report

        pixels = pictures(2, *2 * [command.size or source.size])
        for line in report(source.network, model, precision, pixels, parity["worst"]):
            print(line)
    if failure:
        print(f"error: {command.onnx} {failure}", file=sys.stderr)
    return int(bool(failure))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: verify(parse_command(CommandLine, "python export/verify.py", arguments)))


if __name__ == "__main__":
    sys.exit(main())
