"""Exported files on a CPU against PyTorch: pixels in, pixels out, one image, with parity beside each time."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.plain_cyclegan import Generator
from bench.timing import interleaved
from cyclegan_fast.device import working_dtype
from cyclegan_fast.networks import ResnetGenerator
from cyclegan_fast.original_names import to_original
from cyclegan_fast.pixels import Pixels
from cyclegan_fast.translator import FloatImages, SignedTranslator, TorchTranslator
from export.graph import serialised
from export.onnx_translators import OnnxRuntimeTranslator, OpenVinoTranslator
from export.parity import Parity
from export.pictures import photographs
from export.quantisation import activation_ranges, quantised
from export.to_onnx import float32_graph

SIDE = 256
ROUNDS = 15
ONNX_RUNTIME = "ONNX Runtime, float32"
OPENVINO = "OpenVINO, float32"


@pytest.mark.benchmark(group="one image on a CPU, 256x256, 9 blocks")
def test_deployment_on_a_cpu(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResnetGenerator().eval()
    pixels = photographs(1, SIDE, SIDE)
    expected = TorchTranslator(copy.deepcopy(network), torch.device("cpu"), torch.float32)(pixels).astype(float)
    graph = float32_graph(network)
    files = {
        "float32": serialised(graph),
        "INT8": serialised(quantised(graph, "int8", activation_ranges(graph, photographs(4, SIDE, SIDE), "int8"))),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def openvino(name: str, *, amp: bool) -> Callable[[Pixels], Pixels]:
        return OpenVinoTranslator(tmp_path / name, files[name], amp=amp)

    def plain(dtype: torch.dtype) -> Callable[[Pixels], Pixels]:
        original = Generator()
        original.load_state_dict(to_original(network.state_dict()))
        original.to(dtype)

        @torch.inference_mode()
        def translate(images: FloatImages) -> FloatImages:
            translated: FloatImages = original(torch.from_numpy(images).to(dtype)).float().numpy()
            return translated

        return SignedTranslator(translate)

    def translator(dtype: torch.dtype) -> Callable[[Pixels], Pixels]:
        return TorchTranslator(copy.deepcopy(network), torch.device("cpu"), dtype)

    contenders: dict[str, Callable[[Pixels], Pixels]] = {
        "plain PyTorch, float32": plain(torch.float32),
        "cyclegan_fast.translate": translator(torch.float32),
        ONNX_RUNTIME: OnnxRuntimeTranslator(tmp_path / "float32", files["float32"], "cpu"),
        "ONNX Runtime, INT8": OnnxRuntimeTranslator(tmp_path / "INT8", files["INT8"], "cpu"),
        OPENVINO: openvino("float32", amp=False),
        "OpenVINO, INT8": openvino("INT8", amp=False),
    }
    low, _ = working_dtype(torch.device("cpu"), amp=True, amp_dtype="auto")
    ours, eager = OPENVINO, "plain PyTorch, float32"
    if low == torch.bfloat16:
        ours, eager = "OpenVINO --amp, bfloat16", "plain PyTorch, bfloat16"
        contenders[eager] = plain(low)
        contenders["cyclegan_fast.translate --amp, bfloat16"] = translator(low)
        contenders[ours] = openvino("float32", amp=True)
        contenders["OpenVINO --amp, INT8"] = openvino("INT8", amp=True)
    for name, contender in contenders.items():
        print(f"\n{name}: {Parity.between(contender(pixels).astype(float), expected)}", end="")
    opponents = {name: partial(contender, pixels) for name, contender in contenders.items() if name != ours}
    print(f"\nours is {ours}", end="")
    ratios = interleaved(benchmark, partial(contenders[ours], pixels), opponents, rounds=ROUNDS)
    assert ratios[eager] >= 1.15
    assert ratios[ONNX_RUNTIME] >= (2 if low == torch.bfloat16 else 1)
