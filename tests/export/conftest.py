"""Gives tests of the export a world without a GPU, a trained run, small networks, their weights and a graph."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cyclegan_fast.networks.resnet import ResnetGenerator
from export.device import primary_context, pycuda_driver
from export.device.driver import DRIVER_VARIABLE
from export.pixel_ends import RGB_ENDS, PixelEnds
from tests.conftest import MadeOnce
from tests.export.fake_cuda_python import make_cuda_python
from tests.export.fake_gpu import FakeGpu
from tests.export.fake_machine import Machine, World
from tests.export.fake_tensorrt import GOOD

if TYPE_CHECKING:
    from onnx import ModelProto


@pytest.fixture(params=["pycuda", "cuda-python"])
def cuda_package(request: pytest.FixtureRequest) -> str:
    """Names the package that alone is installed where a test imitates a GPU; such a test runs once with each."""
    name: str = request.param
    return name


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda_package: str) -> Iterator[Machine]:
    """Makes a world and puts it where the modules look; after the test everything must be freed."""
    worlds: list[World] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv(DRIVER_VARIABLE, raising=False)

    def make(
        *, rtx: bool = True, uint8_io: bool = True, content: bytes = GOOD, ends: PixelEnds = RGB_ENDS, **gpu: Any
    ) -> World:
        (folder := tmp_path / "engines").mkdir(exist_ok=True)
        world = World(folder, FakeGpu(**gpu), rtx=rtx, uint8_io=uint8_io, content=content, ends=ends)
        worlds.append(world)
        monkeypatch.setattr(primary_context, "_OPEN", {})
        monkeypatch.setattr(pycuda_driver, "graph_library", lambda: world.gpu.libcuda)
        for name, package, driver in (
            ("pycuda", "pycuda", world.gpu.driver),
            ("cuda-python", "cuda.bindings", make_cuda_python(world.gpu)),
        ):
            is_installed = name == cuda_package
            module = ModuleType(package)
            module.__dict__.update(VERSION_TEXT="2026.1", __version__="13.4.4")
            monkeypatch.setitem(sys.modules, package, module if is_installed else None)
            monkeypatch.setitem(sys.modules, f"{package}.driver", driver if is_installed else None)
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, world.card.library, world.trt.module)
        return world

    yield make
    for world in worlds:
        world.gpu.assert_all_freed()


@pytest.fixture(scope="session")
def trained_run(made_once: MadeOnce) -> Path:
    """Trains on the embedded photographs until pictures are those of a trained network, not noise; read only."""

    def trained(runs: Path) -> None:
        from cyclegan_fast import train  # a GPU's image may lack what training imports

        arguments = ["--max-steps", "30", "--ngf", "16", "--ndf", "8", "--device", "cpu", "--runs", str(runs)]
        scored = ["--metrics", "reconstruction", "--evaluate-images", "2"]  # which takes longer than the training
        assert train.main([*arguments, *scored, "--name", "demo"]) == 0

    return made_once("trained", trained) / "demo"


@pytest.fixture(scope="session")
def network() -> ResnetGenerator:
    """Makes a narrow generator, whose translations show their input."""
    from tests.cyclegan_fast.translations import make_generator  # a GPU's image may lack what translating imports

    return make_generator(0)


@pytest.fixture(scope="session")
def random_generator() -> ResnetGenerator:
    torch.manual_seed(0)
    network = ResnetGenerator(width=8, blocks=9).eval()
    torch.nn.init.uniform_(network.get_parameter("head.bias"), -0.3, 0.3)  # zero at first, and not after training
    return network


@pytest.fixture(scope="session")
def graph(random_generator: ResnetGenerator) -> "ModelProto":
    """Exports the random generator in float32; tests that change the graph copy it."""
    from export.to_onnx import float32_graph  # a GPU's image may lack what exporting imports

    return float32_graph(random_generator)


@pytest.fixture
def weights(tmp_path: Path, random_generator: ResnetGenerator) -> Path:
    """Writes a generator of the original implementation."""
    from cyclegan_fast.checkpoint.original import to_original  # likewise

    path = tmp_path / "latest_net_G.pth"
    torch.save(to_original(random_generator.state_dict()), path)
    return path
