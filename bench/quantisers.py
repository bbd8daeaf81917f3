"""`python -m bench.quantisers`: compare INT8 by `export.graphs.quantisation`, by ONNX Runtime and by NVIDIA ModelOpt.

Each gets the float32 graph of one trained generator and the same calibration images; its result is compared with
PyTorch in float32 on others, and given to TensorRT for RTX where that is installed. ModelOpt is left out where it is
not (`pip install 'nvidia-modelopt[onnx]'`).
"""

import contextlib
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from cyclegan_fast.images.pixels import Pixels, to_signed_array
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.ranges import TranslatedSide, check_fields
from export.engines.builder import build
from export.engines.engine_card import Profile
from export.engines.libraries import load_library
from export.graphs.graph import CONVOLUTIONS, serialised
from export.graphs.quantisation import activation_ranges, largest_activations, quantised
from export.parity import Parity, in_onnxruntime, in_pytorch
from export.pictures import of_domain
from export.source import load_sources
from export.to_onnx import float32_graph

_IMAGES = 32
_COMPARED = 12


@dataclass(frozen=True)
class _CommandLine:
    """Compare quantisers of a trained generator's two directions."""

    checkpoint: Path | None = None
    """a run's folder; by default the newest of runs/"""
    size: TranslatedSide | None = None
    """side of the images, pixels; by default what the network was trained with"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def quantisers() -> Iterator[tuple[str, Callable[[ModelProto, Pixels], bytes]]]:
    """Yield each quantiser by name: it makes a file's content of a float32 graph and images."""
    yield "ours, least square error", partial(_ours, partial(activation_ranges, precision="int8"))
    yield "ours, largest value", partial(_ours, largest_activations)
    for method in ("MinMax", "Entropy", "Percentile"):
        for outputs in (True, False):
            name = f"ONNX Runtime, {method}{'' if outputs else ', float32 from convolutions'}"
            yield name, partial(_by_onnxruntime, method=method, outputs=outputs)
    if find_spec("modelopt") is not None:
        for method in ("max", "entropy"):
            yield f"ModelOpt, {method}", partial(_by_modelopt, method=method)


def _ours(ranges: Callable[[ModelProto, Pixels], dict[str, float]], model: ModelProto, images: Pixels) -> bytes:
    return serialised(quantised(model, "int8", ranges(model, images)))


def _by_onnxruntime(model: ModelProto, images: Pixels, *, method: str, outputs: bool) -> bytes:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"image": to_signed_array(image[None])}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(serialised(model))
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                **({} if outputs else {"OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS)}),
            },
        )
        return target.read_bytes()


def _by_modelopt(model: ModelProto, images: Pixels, *, method: str) -> bytes:
    # ModelOpt gets a process of its own, because it changes ONNX Runtime's quantiser for good.
    with tempfile.TemporaryDirectory() as folder:
        source, target, pictures = (Path(folder, name) for name in ("float32.onnx", "int8.onnx", "images.npy"))
        source.write_bytes(serialised(model))
        np.save(pictures, to_signed_array(images))
        command = [sys.executable, "-m", "modelopt.onnx.quantization", "--quantize_mode=int8"]
        command += [f"--onnx_path={source}", f"--output_path={target}", f"--calibration_data_path={pictures}"]
        command += [f"--calibration_method={method}", "--calibration_eps", "cpu", "--high_precision_dtype=fp32"]
        command += ["--op_types_to_quantize", *CONVOLUTIONS]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not target.exists():
            raise UserError(f"ModelOpt failed: {ended.stderr.strip()[-200:]}")
        return serialised(onnx.load(target))


def built(content: bytes, size: int) -> str:
    """Return the size of the engine that TensorRT for RTX builds, or why there is none."""
    if find_spec("tensorrt_rtx") is None:
        return "not installed"
    try:
        engine = build(
            load_library("tensorrt_rtx"),
            content,
            Profile(*3 * [(1, size, size)]),
            targets=("sm89",),
            progress=False,
        )
    except UserError as error:
        return str(error)[:60]
    return f"{len(engine.content) / 1e6:.1f} MB"


def _compare(command: _CommandLine) -> int:
    """Print a line for each direction and quantiser."""
    logging.disable(logging.WARNING)  # ONNX Runtime advises to preprocess the graph at every call
    for source in load_sources(command.checkpoint, "both", []):
        size = source.size if command.size is None else command.size
        calibration, compared = (
            pictures(count, size, size)
            for pictures, count in zip(of_domain(None, source), (_IMAGES, _COMPARED), strict=True)
        )
        expected = in_pytorch(source.network, compared)
        model = float32_graph(source.network)
        print(f"{source.direction}, {size}x{size}, {len(calibration)} images, compared on {len(compared)}")
        for name, quantiser in quantisers():
            started = time.perf_counter()
            with contextlib.redirect_stdout(None):
                content = quantiser(model, calibration)
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            parity = Parity.between(in_onnxruntime(content, compared), expected)
            ran = time.perf_counter() - started
            print(
                f"  {name:<52} {parity}; {len(content) / 1e6:.1f} MB in {seconds:.1f} s; "
                f"{ran / len(compared):.3f} s an image; engine {built(content, size)}",
                flush=True,
            )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: _compare(parse_command(_CommandLine, "python -m bench.quantisers", arguments)))


if __name__ == "__main__":
    sys.exit(main())
