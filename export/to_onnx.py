"""`python export/to_onnx.py`: write a trained generator as an ONNX file, checked and reproducible.

The graph is the paper's: Conv, ConvTranspose, InstanceNormalization, Relu, Pad (reflect), Add and Tanh, of any batch,
height and width, with a Cast where a type changes. The same checkpoint gives the same bytes, wherever it is exported.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.progress import waiting
from export.graphs.onnx_file import format_entry, with_digest
from export.options import ExportOptions, Precision, is_eight_bits
from export.source import check_layers

if TYPE_CHECKING:
    from onnx import ModelProto

    from cyclegan_fast.images.pixel_type import SampleArray
    from cyclegan_fast.networks.resnet import ResnetGenerator
    from export.pictures import Pictures
    from export.source import GeneratorSource


def to_onnx(
    source: "GeneratorSource",
    precision: Precision,
    *,
    uint8_io: bool = False,
    calibration: "SampleArray | None" = None,
    keep_float16: Sequence[str] = (),
) -> "ModelProto":
    """Return a trained generator as an ONNX model, checked, with every tensor's type and shape.

    Input `image` and output `translated` are float32 [batch, channels, height, width] in [-1, 1], or with `uint8_io`
    samples [batch, height, width, channels], see `export.graphs.pixel_io`; sides are multiples of 4, at least 8. The
    model's properties say what it was made from, which pixels it takes and gives where they are not 8-bit RGB, and what
    pages and slices of a file are where that is not the default.

    Args:
        source: the generator, from `export.source.load_sources`.
        precision: the precision of convolutions.
        uint8_io: whether the graph takes and gives samples.
        calibration: for int8 and fp8, images [N, H, W, C] of the source's type that ranges are measured on.
        keep_float16: for int8 and fp8, names of layers that stay in float16.

    Raises UserError where a weight does not fit the precision, and for a name that is no layer's.
    """
    from onnx import helper

    from export.graphs.pixel_io import with_pixel_io
    from export.graphs.precision import in_precision

    model, ends = float32_graph(source.network), source.ends
    if is_eight_bits(precision):
        from export.graphs.quantisation import activation_ranges, quantised

        assert calibration is not None, f"{precision} needs images to calibrate with"
        check_layers(source.network, keep_float16)
        model = quantised(model, precision, activation_ranges(model, calibration, precision, ends.source), keep_float16)
    elif precision != "float32":
        model = in_precision(model, precision)
    if uint8_io:
        model = with_pixel_io(model, ends)
    helper.set_model_props(
        model,
        {
            **format_entry(source.frames),
            "direction": source.direction,
            "precision": precision,
            "range": ends.sample_range if uint8_io else "-1 to 1",
            "checkpoint_sha256": source.sha256,
            **ends.as_entries(),
            **source.frames.as_entries(),
            **({"keep_float16": " ".join(keep_float16)} if keep_float16 else {}),
        },
    )
    return model


def as_asked(source: "GeneratorSource", options: ExportOptions, calibration: "Pictures | None") -> "ModelProto":
    """Return the model that the options ask for; `calibration` is from `export.pictures.pictures_for`."""
    from export.pictures import CALIBRATED

    return to_onnx(
        source,
        options.precision,
        uint8_io=options.uint8_io,
        calibration=calibration and calibration(CALIBRATED, source.size, source.size),
        keep_float16=options.keep_float16,
    )


def float32_graph(network: "ResnetGenerator") -> "ModelProto":
    """Return the graph of a generator in float32, opset 20.

    Nodes and tensors are named after the layers that they come from, such as `blocks.3.conv1` and
    `blocks.3.conv1.norm`; see `export.graphs.generator`.
    """
    from cyclegan_fast.networks.norms import uses_running_statistics
    from export.graphs.folding import fold_norms
    from export.graphs.generator import generator_graph

    return generator_graph(fold_norms(network) if uses_running_statistics(network) else network)


# --- the command line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToOnnxCommand:
    """Export trained generators as ONNX files.

    Examples:
        python export/to_onnx.py
        python export/to_onnx.py --checkpoint runs/x --direction a2b --precision float32 --uint8-io --out deployed
        python export/to_onnx.py --precision int8 --keep-float16 head stem
    """

    options: Annotated[ExportOptions, tyro.conf.arg(name="")]


def export_graphs(options: ExportOptions) -> int:
    """Write one file for each direction, and return the exit status."""
    from export.graphs.graph import serialised
    from export.pictures import pictures_for

    remarks: list[str] = []
    sources = options.sources(remarks)
    for remark in remarks:
        print(f"note: {remark}")
    for source, (calibration, _) in [(source, pictures_for(options, source)) for source in sources]:
        started = time.perf_counter()
        path = options.out / f"{options.name_of(source)}.onnx"
        with waiting(f"exporting {path.name}"):
            content = with_digest(serialised(as_asked(source, options, calibration)))
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        print(f"{path}: {len(content) / 1e6:.1f} MB in {time.perf_counter() - started:.1f} s")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: export_graphs(parse_command(ToOnnxCommand, "python export/to_onnx.py", arguments).options),
        next_time="begins again",
    )


if __name__ == "__main__":
    sys.exit(main())
