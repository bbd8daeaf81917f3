"""`python export/trt.py`: write trained generators as ONNX files and TensorRT engines, and verify them."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.ranges import BatchSize, TranslatedSide, check_fields
from cyclegan_fast.version import __version__
from export.engines.builder import BuiltEngine, build, check_targets, default_targets
from export.engines.engine_card import EngineCard, Profile
from export.engines.engine_table import EngineRow, engine_table
from export.engines.layers import require_layers
from export.engines.libraries import Library, Runtime, capability_here, choose_library
from export.graphs.onnx_file import with_digest
from export.options import ExportOptions, is_eight_bits
from export.plugins.engine_graph import Norms, check_norms, engine_graph

if TYPE_CHECKING:
    from export.parity import Parity
    from export.pictures import Pictures
    from export.source import GeneratorSource


@dataclass(frozen=True)
class ShapeOptions:
    """Says which images an engine takes."""

    size: TranslatedSide | None = None
    """side of the square images that the engine is fastest at; by default what the network was trained with"""
    min_size: TranslatedSide | None = None
    """smallest side that it takes; by default --size"""
    max_size: TranslatedSide | None = None
    """largest side that it takes; by default --size"""
    max_batch: BatchSize = 1
    """images that it takes at once, at most"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)

    def profile(self, trained_size: int) -> Profile:
        """Return the shapes of the engine for a network that was trained at `trained_size` pixels."""
        size = self.size or trained_size
        smallest, largest = self.min_size or size, self.max_size or size
        if not smallest <= size <= largest:
            raise UserError(
                f"--size {size} must lie between --min-size {smallest} and --max-size {largest}: give all three"
            )
        return Profile((1, smallest, smallest), (1, size, size), (self.max_batch, largest, largest))


@dataclass(frozen=True)
class TrtCommand:
    """Export trained generators as ONNX files and TensorRT engines.

    Each generator becomes NAME.onnx, NAME.engine and NAME.json, which says what the engine is and what it takes. The
    ONNX file is compared with PyTorch in float32 on photographs; the status is 1 where it falls short.

    Examples:
        python export/trt.py
        python export/trt.py --checkpoint runs/x --direction a2b --size 256 --max-size 512 --max-batch 8
        python export/trt.py --runtime rtx --target sm89,sm120 --precision bfloat16
        python export/trt.py --precision int8 --calibration datasets/x/trainA --direction a2b
    """

    options: Annotated[ExportOptions, tyro.conf.arg(name="")]
    shapes: Annotated[ShapeOptions, tyro.conf.arg(name="")]
    runtime: Runtime = "auto"
    """tensorrt builds for the GPU at hand; rtx builds for the RTX GPUs of --target and needs none; auto takes tensorrt
    where it is installed beside a GPU"""
    target: str = ""
    """compute capabilities to build for with rtx, such as sm89,sm120; by default sm80,sm86,sm89,sm120, of which the
    last two have fp8"""
    norms: Norms = "library"
    """what computes instance norms with their relu, residual sum and pad: the library, or triton for this project's own
    kernels, compiled into the engine; triton is for --runtime tensorrt"""
    refittable: bool = False
    """let weights be replaced later without a new build; costs some speed"""
    timing_cache: Path | None = None
    """file that keeps the library's measurements for the next build; by default one beside the engines"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def export_engines(command: TrtCommand) -> int:
    """Write every file, print the table, and return the exit status, 1 where a parity falls short."""
    # What can be refused is refused before PyTorch is imported and before anything is written.
    library = choose_library(command.runtime)
    precision = command.options.precision
    targets = tuple(command.target.split(",")) if command.target else default_targets(library, precision)
    check_targets(library, targets, precision)
    check_norms(command.norms, library, precision)

    from export.pictures import pictures_for

    remarks: list[str] = []
    sources = command.options.sources(remarks)
    profiles = [command.shapes.profile(source.size) for source in sources]
    pictures = [pictures_for(command.options, source) for source in sources]
    for remark in remarks:
        print(f"note: {remark}")
    print(f"{library.name} {library.version}, {precision}; engines take {profiles[0]}")
    rows = [
        _export(source, command, library, targets, profile, *of_domain)
        for source, profile, of_domain in zip(sources, profiles, pictures, strict=True)
    ]
    print(engine_table(rows))
    for reason in dict.fromkeys(row.not_run for row in rows if row.not_run):
        print(f"note: the engines were not compared: {reason}")
    failures = [(f"{row.name}.{kind}", failure) for row in rows for kind, failure in row.failures()]
    for file, failure in failures:
        print(f"error: {file} {failure}", file=sys.stderr)
    return int(bool(failures))


def _export(
    source: "GeneratorSource",
    command: TrtCommand,
    library: Library,
    targets: Sequence[str],
    profile: Profile,
    calibration: "Pictures | None",
    compared: "Pictures",
) -> EngineRow:
    from export.graphs.graph import serialised
    from export.parity import BARS
    from export.to_onnx import as_asked
    from export.verify import onnx_parity, why_not_here

    started = time.perf_counter()
    options = command.options
    path = options.out / f"{options.name_of(source)}.engine"
    print(f"{path.stem}: exporting", flush=True)
    model = as_asked(source, options, calibration)
    onnx = with_digest(serialised(model))
    print(f"{path.stem}: comparing with PyTorch", flush=True)
    parity = onnx_parity(source.network, model, profile.usual[1], compared, ends=source.ends)
    failure = BARS[options.precision].failure(parity["worst"])
    if failure and is_eight_bits(options.precision):
        from export.sensitivity import sensitivity_report

        samples = compared(2, *profile.usual[1:])
        for line in sensitivity_report(source.network, model, options.precision, samples, parity["worst"], source.ends):
            print(line, flush=True)
    print(f"{path.stem}: building", flush=True)
    cache = command.timing_cache or options.out / f"timings-{library.name}-{library.version}.cache"
    graph, plugins = engine_graph(command.norms, library, model, onnx, profile)
    engine = build(
        library,
        graph,
        profile,
        targets=targets,
        refittable=command.refittable,
        timings=cache.read_bytes() if cache.exists() else None,
    )
    require_layers(library, engine.content, plugins)
    card = _card(source, options, library, targets, profile, onnx, engine, parity)
    options.out.mkdir(parents=True, exist_ok=True)
    # The card is written last: an engine without one is refused, and a card goes with no other engine.
    write_atomically(path.with_suffix(".onnx"), onnx)
    write_atomically(path, engine.content)
    card.write(path.with_suffix(".json"))
    if engine.timings:
        write_atomically(cache, engine.timings)
    row = EngineRow(
        name=path.stem,
        engine=f"{library.name}, {' '.join(card.targets)}",
        onnx_mb=len(onnx) / 1e6,
        engine_mb=len(engine.content) / 1e6,
        seconds=time.perf_counter() - started,
        parity=str(parity["worst"]),
        failure=failure,
        not_run=why_not_here(card),
    )
    return row if row.not_run else _run(source, path, card, compared, row)


def _run(source: "GeneratorSource", path: Path, card: EngineCard, compared: "Pictures", row: EngineRow) -> EngineRow:
    """Compare an engine that was written with PyTorch, note that in its card, and return its row."""
    from export.parity import BARS
    from export.verify import engine_parity

    print(f"{path.name}: comparing with PyTorch", flush=True)
    try:
        parity = engine_parity(source.network, path, compared)
    except UserError as error:
        return replace(row, engine_failure=f"cannot be run: {error}")
    replace(card, parity={**card.parity, "engine": _as_json(parity)}).write(path.with_suffix(".json"))
    failure = BARS[card.precision].failure(parity["worst"])
    return replace(row, engine_parity=str(parity["worst"]), engine_failure=failure)


def _card(
    source: "GeneratorSource",
    options: ExportOptions,
    library: Library,
    targets: Sequence[str],
    profile: Profile,
    onnx: bytes,
    engine: BuiltEngine,
    parity: "Mapping[str, Parity]",
) -> EngineCard:
    return EngineCard(
        library=library.name,
        version=library.version,
        targets=tuple(targets) or (f"sm{capability_here()}",),
        precision=options.precision,
        direction=source.direction,
        uint8_io=options.uint8_io,
        profile=profile,
        input=engine.input.name,
        output=engine.output.name,
        checkpoint_sha256=source.sha256,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        engine_sha256=hashlib.sha256(engine.content).hexdigest(),
        project_version=__version__,
        parity={
            "onnx": _as_json(parity),
            "engine": "not run",
        },
        ends=source.ends,
        frames=source.frames,
    )


def _as_json(parity: "Mapping[str, Parity]") -> dict[str, dict[str, float]]:
    """Return figures by shape, as a card has them."""
    return {shape: of_shape.figures() for shape, of_shape in parity.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: export_engines(parse_command(TrtCommand, "python export/trt.py", arguments)), next_time="begins again"
    )


if __name__ == "__main__":
    sys.exit(main())
