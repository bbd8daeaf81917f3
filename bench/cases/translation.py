"""Translates one image from pixels to pixels by PyTorch, torch.compile, ours, ONNX Runtime, OpenVINO and TensorRT."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.cases import counts
from bench.cases.plain_cyclegan import PAPER_SIZE, PLAIN_PYTORCH, PlainGenerator, PlainNetworkSize
from bench.measure.compiled import compiled_by_torch, forget_compiled, modes
from bench.measure.contest import Case, Contest
from bench.measure.timing import Call, Contender
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.images.pixels import FloatImages, Pixels
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.device import name_of
from cyclegan_fast.translation.on_device import TorchTranslator
from cyclegan_fast.translation.on_gpu import new_translator
from cyclegan_fast.translation.translator import SignedTranslator

_ALLOWED, _ALLOWED_IN_INT8 = 0.1, 0.4
"""The largest error of the image in [-1, 1], relative to its size: with random weights INT8 is off by up to 0.2, and
its PSNR for trained ones stands in docs/deployment.md. Without its last block the generator is off by 0.37."""

Translate = Callable[[Pixels], Pixels]


def translation_cases(
    dtype: torch.dtype, side: int, device: torch.device, size: PlainNetworkSize = PAPER_SIZE
) -> Iterator[Case]:
    """Yield the case of one image of `side` pixels, in that precision and in what export offers."""
    work = counts.network_workload(PlainGenerator, 1, side, dtype, backward=False, size=size)
    yield Case(
        subject="translation",
        case="one image, pixels to pixels",
        shape=f"1x{side}x{side}x3",
        dtype=name_of(dtype),
        batch=1,
        side=side,
        moved_bytes=work.moved_bytes,
        operations=work.operations,
        make=lambda: _contest(dtype, side, device, size),
    )


def _contest(dtype: torch.dtype, side: int, device: torch.device, size: PlainNetworkSize = PAPER_SIZE) -> Contest:
    forget_compiled()
    torch.manual_seed(0)
    network = ResnetGenerator(width=size.width, blocks=size.blocks).eval()
    pixels: Pixels = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8).numpy()
    original = PlainGenerator(width=size.width, blocks=size.blocks)
    original.load_state_dict(to_original(network.state_dict()))
    in_dtype = name_of(dtype)
    ways: dict[str, Translate] = {
        PLAIN_PYTORCH: _plain(original, device, dtype, torch.contiguous_format),
        f"{PLAIN_PYTORCH}, channels last": _plain(original, device, dtype, torch.channels_last),
        f"ours, {in_dtype}": new_translator(copy.deepcopy(network), device, dtype, print),
    }
    if dtype != torch.float32:
        ways[f"{PLAIN_PYTORCH}, float32"] = _plain(original, device, torch.float32, torch.contiguous_format)
    for mode in modes(device, recorded=False):
        ways[f"torch.compile {mode}"] = _plain(original, device, dtype, torch.channels_last, mode)
    ours = f"ours, {in_dtype}"
    if find_spec("onnx") is not None:
        ways |= dict(_exported(network, dtype, side, device))
        # Eight bits give another picture: it competes, but the others' times are not divided by its time.
        of_full_precision = (name for name in ways if name.startswith("ours, exported") and "INT8" not in name)
        ours = next(of_full_precision, ours)
    exact = TorchTranslator(copy.deepcopy(network), device, torch.float64)(pixels)
    return Contest(
        contenders={name: Contender([_signed(translate, pixels)]) for name, translate in ways.items()},
        ours=ours,
        plain=PLAIN_PYTORCH,
        exact=[_to_signed(exact)],
        allowed=_ALLOWED,
        allowed_for={name: _ALLOWED_IN_INT8 for name in ways if "INT8" in name},
        ends_on_host=True,
    )


def _plain(
    original: PlainGenerator,
    device: torch.device,
    dtype: torch.dtype,
    layout: torch.memory_format,
    mode: str | None = None,
) -> Translate:
    """Return a translation by the original's generator, with an image's way to the device and back."""
    network: nn.Module = copy.deepcopy(original).eval()
    network.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]  # absent from torch's stubs
    function = compiled_by_torch(network, mode) if mode else network

    def translate(images: FloatImages) -> FloatImages:
        with torch.no_grad():
            batch = torch.from_numpy(images).to(device, dtype, memory_format=layout)
            translated: FloatImages = function(batch).float().cpu().numpy()
        return translated

    return SignedTranslator(translate)


def _exported(
    network: ResnetGenerator, dtype: torch.dtype, side: int, device: torch.device
) -> Iterator[tuple[str, Translate]]:
    """Yield translations by the files that export writes, run by the libraries that people run them with.

    "ours" begins the names of those that docs/deployment.md advises.
    """
    from export.graphs.graph import serialised
    from export.graphs.quantisation import activation_ranges, quantised
    from export.onnx_translators import OnnxRuntimeTranslator, OpenVinoTranslator
    from export.pictures import photographs
    from export.to_onnx import float32_graph

    graph = float32_graph(network)
    files = {"float32": serialised(graph)}
    calibration = photographs(4, side, side)
    files["INT8"] = serialised(quantised(graph, "int8", activation_ranges(graph, calibration, "int8")))
    is_low = dtype != torch.float32
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder, name)
            file.write_bytes(content)
            if find_spec("onnxruntime") is not None:
                yield f"ONNX Runtime on the CPU, {name}", OnnxRuntimeTranslator(file, content, "cpu")
            if find_spec("openvino") is not None and device.type == "cpu":
                way = "OpenVINO, float32" if name == "float32" else f"ours, exported {name}, OpenVINO"
                yield way, OpenVinoTranslator(file, content, amp=False)
                if is_low:
                    yield f"ours, exported {name}, OpenVINO --amp", OpenVinoTranslator(file, content, amp=True)
        if device.type == "cuda" and find_spec("pycuda") is not None and is_low:
            yield from _engine(network, Path(folder), side)


_engines = ExitStack()
"""Keeps engines until the process ends: several cases may run one."""


def _engine(network: ResnetGenerator, folder: Path, side: int) -> Iterator[tuple[str, Translate]]:
    """Yield a TensorRT engine in float16, built here for the GPU at hand by the library that is installed."""
    from export import trt
    from export.runtime import Engine

    for runtime, module in (("tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx")):
        if find_spec(module) is None:
            continue
        weights = folder / "generator.pth"
        torch.save(to_original(network.state_dict()), weights)
        arguments = ["--checkpoint", str(weights), "--size", str(side), "--runtime", runtime, "--out", str(folder)]
        if trt.main(arguments) == 0:
            engine = _engines.enter_context(Engine(next(folder.glob("*.engine"))))
            yield f"ours, exported, engine of {module}, float16", SignedTranslator(engine)
        return


def _signed(translate: Translate, pixels: Pixels) -> Call:
    return lambda: _to_signed(translate(pixels))


def _to_signed(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).float() / 127.5 - 1
