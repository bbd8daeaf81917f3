"""`python export/verify.py`: compare an exported ONNX file or engine with the checkpoint that it came from."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclegan_fast.conventions import DIRECTIONS
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, printable, run_command
from cyclegan_fast.system.files import sha256_of
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import TranslatedSide, check_fields
from export.engines.engine_card import EngineCard, Profile
from export.graphs.interface import sample_dtype
from export.graphs.onnx_file import ends_of, read_onnx
from export.library_errors import explaining
from export.options import Precision, is_precision
from export.pixel_ends import RGB_ENDS, PixelEnds
from export.source import ONE_WAY, load_sources

if TYPE_CHECKING:
    from onnx import ModelProto

    from cyclegan_fast.images.pixel_type import SampleArray
    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.parity import Parity, Values
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
    """folder of images to compare on; by default the embedded photographs; for int8 and fp8, whose ranges were measured
    on the domain that is translated, and for images that are not 8-bit RGB, the run's own test images"""

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
    """Holds what an exported file says of itself; `model` is None for an engine, `ends` the pixels of both ends."""

    precision: Precision
    direction: str
    checkpoint_sha256: str
    model: "ModelProto | None"
    ends: PixelEnds = RGB_ENDS


def onnx_parity(
    network: "ResnetGenerator",
    model: "ModelProto",
    size: int,
    pictures: "Pictures",
    name: str = "the graph",
    ends: PixelEnds = RGB_ENDS,
) -> "dict[str, Parity]":
    """Return `export.parity.worst_parity` of a graph, which errors call `name`, in ONNX Runtime on the CPU.

    Raises UserError where it cannot be computed. A graph in bfloat16, for which ONNX Runtime has no convolution there,
    is computed in float32 and rounded to bfloat16 where the graph stores that.
    """
    from export.graphs.graph import serialised
    from export.graphs.precision import BFLOAT16, emulated
    from export.parity import in_onnxruntime, shapes, worst_parity

    if any(value.type.tensor_type.elem_type == BFLOAT16 for value in model.graph.value_info):
        with explaining(f"{name} cannot be computed in float32", "export it anew with python export/to_onnx.py"):
            model = emulated(model)
    content = serialised(model)

    def run(samples: "SampleArray") -> "Values":
        return in_onnxruntime(content, samples, name, ends)

    return worst_parity(network, run, list(shapes(size)), pictures, ends)


def engine_parity(network: "ResnetGenerator", path: Path, pictures: "Pictures") -> "dict[str, Parity]":
    """Return `export.parity.worst_parity` of an engine, on its GPU, at shapes all over its profile.

    Raises UserError as `export.runtime.Engine` does.
    """
    from cyclegan_fast.images.pixels import to_signed_array
    from export.parity import in_own_units, worst_parity
    from export.runtime import Engine

    with Engine(path) as engine:
        takes_samples, ends = engine.card.uint8_io, engine.card.ends

        def run(samples: "SampleArray") -> "Values":
            if takes_samples:
                return engine(samples.astype(sample_dtype(ends.source))).astype(float)
            return in_own_units(engine(to_signed_array(samples, ends.source)), ends.target)

        return worst_parity(network, run, shapes_within(engine.card.profile), pictures, ends)


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


def exported(command: VerifyCommand, notes: list[str]) -> Exported:
    """Read what the file, or the card beside an engine, says.

    A line is appended to `notes` for a file without a digest, and for an engine beside a graph that it was not built
    from. Raises UserError where it is damaged, or none of this project's.
    """
    if command.engine is not None:
        card = EngineCard.beside(command.engine)
        card.content_of_engine(command.engine)
        graph = command.engine.with_suffix(".onnx")
        if graph.is_file() and sha256_of(graph) != card.onnx_sha256:
            notes.append(f"{graph} is not the graph that the engine was built from, or is damaged")
        return Exported(card.precision, card.direction, card.checkpoint_sha256, None, card.ends)
    from export.graphs.graph import valid_model

    assert command.onnx is not None
    path = command.onnx
    model = valid_model(path, read_onnx(path, notes))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    precision, direction = properties.get("precision"), properties.get("direction")
    if not is_precision(precision) or direction not in (*DIRECTIONS, ONE_WAY) or "checkpoint_sha256" not in properties:
        raise UserError(
            f"{path} does not say in its metadata which precision, direction and checkpoint it has: export it anew "
            "with python export/to_onnx.py"
        )
    return Exported(precision, direction, properties["checkpoint_sha256"], model, ends_of(path, properties))


def verify(command: VerifyCommand) -> int:
    """Print the parity at each shape, and return the exit status."""
    command.check()
    file = command.engine or command.onnx
    notes: list[str] = []
    found = exported(command, notes)
    for note in notes:
        print(f"note: {printable(note)}")

    from export.options import is_eight_bits
    from export.parity import BARS
    from export.pictures import compared_with, of_domain, of_folder

    direction: Literal["a2b", "b2a"] = "b2a" if found.direction == "b2a" else "a2b"
    (source,) = load_sources(
        command.checkpoint, direction, [], command.network, running_statistics=command.running_statistics
    )
    if source.sha256 != found.checkpoint_sha256:
        raise UserError(f"{file} was made from another checkpoint than {source.checkpoint}: give --checkpoint")
    if not source.config and [kind.channels for kind in source.ends] == [kind.channels for kind in found.ends]:
        source = replace(source, ends=found.ends)  # bare weights do not say what else their pixels are
    if source.ends != found.ends:
        raise UserError(
            f"{file} says that it translates {found.ends}, and {source.checkpoint} that it was trained for "
            f"{source.ends}: export it anew"
        )
    if command.images is not None:
        pictures = of_folder(command.images, found.ends.source)
    elif is_eight_bits(found.precision):
        pictures = of_domain(None, source, "--images")[1]
    else:
        pictures = compared_with(source)
    size = source.size if command.size is None else command.size
    with waiting("comparing with PyTorch"):
        if found.model is not None:
            parity = onnx_parity(source.network, found.model, size, pictures, str(file), found.ends)
        else:
            assert command.engine is not None
            parity = engine_parity(source.network, command.engine, pictures)
    for shape, figures in parity.items():
        print(f"{shape:>16}  {figures}")
    failure = BARS[found.precision].failure(parity["worst"])
    if failure and is_eight_bits(found.precision) and found.model is not None:
        from export.sensitivity import sensitivity_report

        compared = pictures(2, size, size)
        for line in sensitivity_report(
            source.network, found.model, found.precision, compared, parity["worst"], found.ends
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
