"""Runs a real engine on an NVIDIA GPU: what it computes, from threads, and that it takes no more memory with time."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.translation.on_device import TorchTranslator
from export.engines.builder import build
from export.engines.engine_card import EngineCard, Profile
from export.engines.libraries import load_library
from export.graphs.graph import serialised
from export.graphs.pixel_io import with_pixel_io
from export.runtime import Engine
from export.to_onnx import float32_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here"),
]

PROFILE = Profile((1, 32, 32), (1, 64, 64), (4, 128, 128))


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, network: ResnetGenerator) -> Path:
    pytest.importorskip("pycuda.driver", reason="PyCUDA is not installed", exc_type=ImportError)
    module = pytest.importorskip(request.param)
    capability = torch.cuda.get_device_capability()
    if not hasattr(module, "Builder"):
        pytest.skip(f"{request.param} is installed without its libraries")
    if request.param == "tensorrt_rtx" and capability in ((7, 0), (9, 0), (10, 0)):
        pytest.skip("TensorRT for RTX does not run on this GPU")
    graph = serialised(with_pixel_io(float32_graph(network)))
    here = ("sm{}{}".format(*capability),)
    library = load_library(request.param)
    content = build(library, graph, PROFILE, targets=here if library.is_rtx else (), progress=False).content
    path = tmp_path_factory.mktemp("engines") / "x.engine"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    EngineCard(
        *(library.name, library.version, here, "float32", "a2b", True, PROFILE),
        *("image", "translated", "0" * 64, hashlib.sha256(graph).hexdigest(), digest, "0.1.0", {}),
    ).write(path.with_suffix(".json"))
    return path


@pytest.fixture(params=[True, False], ids=["graph", "no graph"])
def engine(path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(path, cuda_graph=request.param) as engine:
        yield engine


def pictures(count: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def expected(network: ResnetGenerator, pixels: Any) -> Any:
    return TorchTranslator(network, torch.device("cpu"), torch.float32)(pixels).astype(int)


def test_translations_equal_pytorchs(engine: Engine, network: ResnetGenerator) -> None:
    for shape in ((1, 64, 64), (1, 64, 64), (1, 64, 64), (4, 128, 96), (4, 128, 96), (1, 32, 40), (1, 64, 64)):
        pixels = pictures(*shape, seed=sum(shape))
        assert np.abs(engine(pixels) - expected(network, pixels)).max() <= 1


def test_two_threads_on_two_streams(engine: Engine, network: ResnetGenerator) -> None:
    batches = [pictures(1 + index, seed=index) for index in range(2)]
    wanted = [expected(network, pixels) for pixels in batches]
    workers = [engine.worker(), engine.worker()]

    def work(index: int) -> int:
        return max(int(np.abs(workers[index](batches[index]) - wanted[index]).max()) for _ in range(100))

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, range(2))) <= 1


def test_a_thousand_runs_take_no_more_memory(engine: Engine) -> None:
    pixels = pictures()
    for _ in range(10):
        engine(pixels)
    before = torch.cuda.mem_get_info()[0]  # cuMemGetInfo: of the whole GPU
    first = engine(pixels)
    for _ in range(1000):
        assert np.array_equal(engine(pixels), first)
    assert torch.cuda.mem_get_info()[0] >= before - (8 << 20)


def test_pytorch_computes_in_the_same_process(engine: Engine, network: ResnetGenerator) -> None:
    """Both use the device's primary context; afterwards too."""
    pixels = pictures()
    wanted = expected(network, pixels)
    matrix = torch.randn(64, 64, device="cuda")
    for _ in range(3):
        engine(pixels)
        assert torch.allclose((matrix @ matrix).cpu(), matrix.cpu() @ matrix.cpu(), atol=1e-2, rtol=1e-2)
    assert np.abs(engine(pixels) - wanted).max() <= 1


def test_latency(engine: Engine, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not judged: pixels in to pixels out, beside eager PyTorch."""
    pixels = pictures()
    eager = TorchTranslator(network, torch.device("cuda"), torch.float32)
    lines = []
    for name, translator in (("engine", engine), ("eager PyTorch", eager)):
        times_ms = []
        for _ in range(110):
            started = time.perf_counter()
            translator(pixels)
            times_ms.append(1e3 * (time.perf_counter() - started))
        lines.append(f"{name}: median {np.median(times_ms[10:]):.3f} ms, worst {max(times_ms[10:]):.3f} ms")
    network.cpu()
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}, {engine.card.library}, 64x64: {'; '.join(lines)}")
