"""`python export/verify.py`: compare an exported ONNX file or engine with the checkpoint that it came from."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import TranslatedSide, check_fields
from export.engines.engine_card import EngineCard, Profile
from export.source import load_sources

if TYPE_CHECKING:
    from onnx import ModelProto

    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.pictures import Pictures


@dataclass(frozen=True)
class VerifyCommand:
    """Compare an ONNX file or an engine with PyTorch in float32, on photographs; the status is 1 where it falls short.

    An ONNX file is computed on the CPU, an engine on the GPU that it was built for.

    Examples:
        python export/verify.py --onnx engines/x-a2b-float16.onnx --checkpoint runs/x
        python export/verify.py --onnx engines/x-a2b-int8.onnx --checkpoint runs/x --images datasets/x/testA
        python export/verify.py --engine engines/x-a2b-float16.engine --checkpoint runs/x
    """

    onnx: Path | None = None
    """a file of export/to_onnx.py or export/trt.py; it says itself which precision and direction it has"""
    engine: Path | None = None
    """a file of export/trt.py, with its .json file beside it"""
    checkpoint: Path | None = None
    """what it was made from; by default the newest of runs/"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B; by default the one whose
    name says the direction"""
    running_statistics: bool = False
    """normalise by the running statistics of batch norms, as the original's test.py does with --eval; give
    it where the file was exported with it"""
    size: TranslatedSide | None = None
    """with --onnx: side of the images that are compared, in pixels; by default what the network was trained with"""
    images: Path | None = None
    """folder of images to compare on; by default the embedded photographs, and for int8 and fp8, whose ranges were
    measured on the domain that is translated, the run's own test images"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)

    def check(self) -> None:
        """Raise UserError for flags that contradict each other."""
        if (self.engine is None) == (self.onnx is None):
            raise UserError("give either --onnx FILE or --engine FILE")
        if self.engine is not None and self.size is not None:
            raise UserError("--size goes with --onnx: an engine is compared at the shapes that it was built for")


@dataclass(frozen=True)
class Exported:
    """Holds what an exported file says of itself; `model` is None for an engine."""

    precision: str
    direction: str
    checkpoint_sha256: str
    model: "ModelProto | None"


def onnx_parity(network: "ResnetGenerator", model: "ModelProto", size: int, pictures: "Pictures") -> dict[str, Any]:
    """Return `export.parity.worst_parity` of a graph in ONNX Runtime on the CPU.

    A graph in bfloat16, for which ONNX Runtime has no convolution there, is computed in float32 and rounded to bfloat16
    where the graph stores that.
    """
    from export.graphs.graph import serialised
    from export.graphs.precision import BFLOAT16, emulated
    from export.parity import in_onnxruntime, shapes, worst_parity

    if any(value.type.tensor_type.elem_type == BFLOAT16 for value in model.graph.value_info):
        model = emulated(model)
    content = serialised(model)
    return worst_parity(network, lambda pixels: in_onnxruntime(content, pixels), list(shapes(size)), pictures)


def engine_parity(network: "ResnetGenerator", path: Path, pictures: "Pictures") -> dict[str, Any]:
    """Return `export.parity.worst_parity` of an engine, on its GPU, at shapes all over its profile.

    Raises UserError as `export.runtime.Engine` does.
    """
    from cyclegan_fast.images.pixels import to_signed_array
    from export.parity import levels_of, worst_parity
    from export.runtime import Engine

    with Engine(path) as engine:
        is_pixels = engine.card.uint8_io
        return worst_parity(
            network,
            lambda pixels: engine(pixels).astype(float) if is_pixels else levels_of(engine(to_signed_array(pixels))),
            shapes_within(engine.card.profile),
            pictures,
        )


def why_not_here(card: EngineCard) -> str | None:
    """Return why the engine of that card cannot run on this machine, or None where it can."""
    from export.device.primary_context import open_gpu
    from export.engines.libraries import gpu_count

    if not gpu_count():
        return "there is no NVIDIA GPU here"
    try:
        card.check_runs_on(card.library, card.version, open_gpu(0).capability)
    except UserError as error:
        return str(error)
    return None


def shapes_within(profile: Profile) -> list[tuple[int, int, int]]:
    """Return the shapes that an engine is compared at.

    They are its smallest, usual and largest images, and of the shapes for an ONNX file those that it takes.
    """
    from export.parity import shapes
    from export.pictures import MOST_COMPARED

    most, height, width = profile.largest
    one, usual_height, usual_width = profile.usual
    several = (min(most, MOST_COMPARED), usual_height, usual_width)
    wanted = (profile.smallest, profile.usual, several, (one, height, width), *shapes(usual_height))
    return list(dict.fromkeys(shape for shape in wanted if profile.takes(shape)))


def exported(command: VerifyCommand) -> Exported:
    """Read what the file, or the card beside an engine, says. Raises UserError where it is none of this project's."""
    if command.engine is not None:
        card = EngineCard.beside(command.engine)
        return Exported(card.precision, card.direction, card.checkpoint_sha256, None)
    import onnx

    path = command.onnx
    try:
        model = onnx.load(str(path))
        properties = {entry.key: entry.value for entry in model.metadata_props}
        return Exported(properties["precision"], properties["direction"], properties["checkpoint_sha256"], model)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} is no file of export/to_onnx.py") from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # protobuf's, which no public module offers
            raise
        raise UserError(f"{path} is no ONNX file: {error}") from error


def verify(command: VerifyCommand) -> int:
    """Print the parity at each shape, and return the exit status."""
    command.check()
    file = command.engine or command.onnx
    found = exported(command)

    from export.options import is_eight_bits
    from export.parity import BARS
    from export.pictures import of_domain, of_folder, photographs

    direction: Literal["a2b", "b2a"] = "b2a" if found.direction == "b2a" else "a2b"
    (source,) = load_sources(
        command.checkpoint, direction, [], command.network, running_statistics=command.running_statistics
    )
    if source.sha256 != found.checkpoint_sha256:
        raise UserError(f"{file} was made from another checkpoint than {source.checkpoint}: give --checkpoint")
    if command.images is not None:
        pictures = of_folder(command.images)
    else:
        pictures = of_domain(None, source, "--images")[1] if is_eight_bits(found.precision) else photographs
    size = source.size if command.size is None else command.size
    with waiting("comparing with PyTorch"):
        if found.model is not None:
            parity = onnx_parity(source.network, found.model, size, pictures)
        else:
            assert command.engine is not None
            parity = engine_parity(source.network, command.engine, pictures)
    for shape, figures in parity.items():
        print(f"{shape:>16}  {figures}")
    failure = BARS[found.precision].failure(parity["worst"])
    if failure and is_eight_bits(found.precision) and found.model is not None:
        from export.sensitivity import sensitivity_report

        for line in sensitivity_report(
            source.network, found.model, found.precision, pictures(2, size, size), parity["worst"]
        ):
            print(line)
    if failure:
        print(f"error: {file} {failure}", file=sys.stderr)
    return int(bool(failure))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: verify(parse_command(VerifyCommand, "python export/verify.py", arguments)), next_time="begins again"
    )


if __name__ == "__main__":
    sys.exit(main())
