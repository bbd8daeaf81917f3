"""Running an engine, on a GPU that `fake_gpu` imitates: what every mistake says, and that nothing stays behind."""

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cyclegan_fast.system.errors import UserError
from export.device import driver, primary_context
from export.device.buffers import BLOCK, Buffer
from export.engines import libraries
from tests.export.fake_cuda_python import make_cuda_python
from tests.export.fake_gpu import Rule, Stream
from tests.export.fake_machine import Machine, World
from tests.export.fake_tensorrt import GOOD, FakeEngine, upside_down

# --- what is wrong with what was given ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1]], r"takes an array of uint8 \[N, H, W, 3\], got list"),
        (np.zeros((1, 16, 16, 3), np.float32), r"takes uint8 \[N, H, W, 3\], got float32 \[1, 16, 16, 3\]"),
        (np.zeros((1, 16, 16, 3), np.int8), "got int8"),
        (np.zeros((16, 16, 3), np.uint8), r"got uint8 \[16, 16, 3\]"),
        (np.zeros((1, 3, 16, 16), np.uint8), r"got uint8 \[1, 3, 16, 16\]"),
        (np.zeros((1, 18, 16, 3), np.uint8), "multiples of 4, got 16x18 pixels"),
        (np.zeros((5, 16, 16, 3), np.uint8), "5 images of 16x16 pixels do not fit this engine, which takes 1 to 4"),
        (np.zeros((0, 16, 16, 3), np.uint8), "0 images of 16x16 pixels do not fit"),
        (np.zeros((1, 2048, 16, 3), np.uint8), "1 image of 16x2048 pixels does not fit"),
        (np.zeros((1, 4, 4, 3), np.uint8), "1 image of 4x4 pixels does not fit"),
    ],
)
def test_arrays_that_an_engine_does_not_take(machine: Machine, images: Any, message: str) -> None:
    world = machine()
    with world.engine() as engine, pytest.raises(UserError, match=message):
        engine(images)
    assert "allocate device" not in world.gpu.calls


def test_floats_that_an_engine_does_not_take(machine: Machine) -> None:
    world = machine(uint8_io=False)
    with world.engine() as engine:
        for images in (
            np.zeros((1, 3, 16, 16)),
            np.zeros((1, 3, 16, 16), ">f4"),
            np.zeros((1, 16, 16, 3), np.float32),
            np.zeros((1, 16, 16, 3), np.uint8),
        ):
            with pytest.raises(UserError, match=r"takes float32 \[N, 3, H, W\] in \[-1, 1\], got"):
                engine(images)


def test_what_the_library_refuses_is_quoted_and_the_next_call_computes(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine:
        for flag, message in (
            ("refuses_shape", r"refused the shape \[2, 16, 12, 3\]: Static dimension mismatch"),
            ("enqueue_fails", "the engine could not run: Cask convolution execution failed"),
        ):
            engine(world.images())  # so that two images are another shape than that of the call before
            setattr(world.trt, flag, True)
            with pytest.raises(UserError, match=message):
                engine(world.images(2))
            setattr(world.trt, flag, False)
            calls = world.calls_of(lambda: engine(world.images(2)))
            assert "shape [2, 16, 12, 3]" in calls, "what the context is set to is not taken for granted"
            assert np.array_equal(engine(world.images()), upside_down(world.images()))
        world.trt.context_fails = True
        with pytest.raises(UserError, match=r"could not make room for a worker.*: Requested size was 9 bytes"):
            engine.worker()
        world.trt.context_fails = False
        assert np.array_equal(engine(world.images()), upside_down(world.images()))


def test_out_of_memory_says_what_does_not_fit_and_smaller_images_still_do(machine: Machine) -> None:
    world = machine(total=4 * BLOCK)
    with world.engine() as engine:
        engine(world.images())
        message = "a batch of 2 images of 1024x1024 pixels does not fit the memory of the Fake GPU, of which 0.01 GiB"
        with pytest.raises(UserError, match=message):
            engine(world.images(2, 1024, 1024))
        large = world.images(1, 1024, 1024)
        assert np.array_equal(engine(large), upside_down(large)), "nothing of the batch takes its room"
        for seed in range(3):
            assert np.array_equal(engine(images := world.images(seed=seed)), upside_down(images))


# --- files, libraries and GPUs that do not fit ------------------------------------------------------------------------


def refused(world: World, message: str, **options: Any) -> None:
    """Expects the engine to be refused with `message`, before the library sees it."""
    with pytest.raises(UserError, match=message) as error:
        world.engine(**options)
    assert "\n" not in str(error.value)
    assert "deserialize" not in world.gpu.calls


def test_engines_that_do_not_belong_here_are_never_deserialised(machine: Machine) -> None:
    refused(
        machine(capability=(9, 0)), "built for sm86, sm89 and this GPU is sm90: build it here, with --runtime tensorrt"
    )
    world = machine()
    world.trt.module.__version__ = "1.8.0"
    refused(world, "built by tensorrt_rtx 1.7.1 and runs with exactly that, not with tensorrt_rtx 1.8.0")
    world.path.write_bytes(GOOD[:-1])
    refused(world, "damaged")
    world.path.unlink()
    refused(world, "no engine .*x.engine: python export/trt.py writes one")
    world.path.with_suffix(".json").write_text("{}")
    refused(world, "does not describe an engine")
    world.path.with_suffix(".json").unlink()
    refused(world, "runs only with the file that was written beside it")
    refused(machine(), "there is no GPU 1 here: 1 found", device=1)
    refused(machine(count=0), "there is no GPU 0 here: 0 found, counted from 0. .*run.py --onnx")


def test_a_foreign_file_that_the_library_does_not_know(machine: Machine) -> None:
    world = machine(content=b"a foreign file")
    with pytest.raises(UserError, match=r"x.engine cannot be loaded: Serialization assertion magicTag failed"):
        world.engine()


def test_an_engine_of_other_tensors_than_its_card_says(machine: Machine) -> None:
    world = machine()
    world.trt.uint8_io = False
    with pytest.raises(UserError, match=r"not image and translated as uint8 \[N, H, W, 3\]"):
        world.engine()
    world = machine()
    world.trt.names = ["input", "output"]
    with pytest.raises(UserError, match="takes and gives input, output, not image and translated"):
        world.engine()


def test_without_a_cuda_package(machine: Machine, cuda_package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = machine()
    module = {"pycuda": "pycuda.driver", "cuda-python": "cuda.bindings.driver"}[cuda_package]
    installed = sys.modules[module]
    monkeypatch.setitem(sys.modules, module, None)
    refused(
        world,
        "through PyCUDA or cuda-python, and neither can be imported .*: `pip install cuda-python` installs wheels "
        "alone; `pip install pycuda` .* needs a CUDA toolkit .*cuda.h, curand.h.* python export/run.py --onnx FILE",
    )
    monkeypatch.setenv("CYCLEGAN_FAST_CUDA", cuda_package)
    refused(
        world, f"CYCLEGAN_FAST_CUDA={cuda_package} asks for {cuda_package}, which cannot be imported .*: `pip install"
    )
    monkeypatch.setenv("CYCLEGAN_FAST_CUDA", "cuda")
    refused(world, "CYCLEGAN_FAST_CUDA must be auto, pycuda or cuda-python, got 'cuda'")
    monkeypatch.setitem(sys.modules, module, installed)
    other = {"pycuda": "cuda-python", "cuda-python": "pycuda"}[cuda_package]
    monkeypatch.setenv("CYCLEGAN_FAST_CUDA", other)
    refused(world, f"CYCLEGAN_FAST_CUDA={other} asks for {other}, which cannot be imported")


@pytest.mark.parametrize("cuda_package", ["pycuda"])
def test_pycuda_is_taken_where_both_are_installed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = machine()
    for package, imitation in (("pycuda", world.gpu.driver), ("cuda.bindings", make_cuda_python(world.gpu))):
        module = ModuleType(package)
        module.__dict__.update(VERSION_TEXT="2026.1", __version__="13.4.4")
        monkeypatch.setitem(sys.modules, package, module)
        monkeypatch.setitem(sys.modules, f"{package}.driver", imitation)
    for choice, description in (
        (None, "PyCUDA 2026.1"),
        ("auto", "PyCUDA 2026.1"),
        ("pycuda", "PyCUDA 2026.1"),
        ("cuda-python", "cuda-python 13.4.4"),
    ):
        if choice:
            monkeypatch.setenv("CYCLEGAN_FAST_CUDA", choice)
        primary_context.release_all()
        with world.engine() as engine:
            assert engine.driver == description
            assert np.array_equal(engine(images := world.images()), upside_down(images))


def test_without_a_driver_or_a_gpu(machine: Machine, cuda_package: str) -> None:
    world = machine()
    world.gpu.init_fails = True
    refused(world, "the CUDA driver finds none here .cuInit failed: (no CUDA-capable device|CUDA_ERROR_NO_DEVICE)")
    if cuda_package == "cuda-python":
        world.gpu.has_driver = False
        refused(world, "there is no CUDA driver here .*an NVIDIA driver library.*run.py --onnx FILE")


@pytest.mark.parametrize("cuda_package", ["pycuda"])  # which alone is linked with CUDA's libraries
def test_pycuda_that_does_not_load(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = machine()
    load = importlib.import_module
    for missing, message in (
        ("libcuda.so.1", "there is no CUDA driver here"),
        (
            "libcurand.so.10",
            "PyCUDA is installed and does not load .libcurand.*libraries of the CUDA toolkit.*_CUDA=cuda-python",
        ),
    ):

        def without(name: str, missing: str = missing) -> Any:
            if name == "pycuda.driver":
                raise ImportError(f"{missing}: cannot open shared object file: No such file or directory")
            return load(name)

        with monkeypatch.context() as patch:
            patch.setattr(driver.importlib, "import_module", without)  # type: ignore[attr-defined]
            refused(world, message)


def test_without_the_library(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = machine()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    refused(world, "tensorrt_rtx cannot be imported")
    assert world.card.library in libraries.MODULES.values()


# --- everything is freed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["create_runtime_config", "get_tensor_mode", "create_execution_context"])
def test_an_exception_half_way_frees_everything(machine: Machine, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """`machine` checks at the end that nothing is left."""

    class Interrupt:
        """Raises when called; a function would be given the engine, which its frame in the traceback would keep."""

        def __call__(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    world = machine()
    monkeypatch.setattr(FakeEngine, step, Interrupt())
    with pytest.raises(KeyboardInterrupt), world.engine() as engine:
        engine(world.images())
    assert world.gpu.depth == 0


@pytest.mark.parametrize("failing", range(1, 5))
def test_each_allocation_may_fail(machine: Machine, failing: int) -> None:
    world = machine()
    world.gpu.failing_allocation = failing
    with world.engine() as engine:
        with pytest.raises(UserError, match="does not fit the memory"):
            engine(world.images())
        assert np.array_equal(engine(world.images()), upside_down(world.images()))


def test_a_gpu_is_taken_once_and_let_go_of_at_the_end(machine: Machine) -> None:
    world = machine()
    for _ in range(3):
        with world.engine() as engine:
            engine(world.images())
    assert world.gpu.calls.count("retain") == 1
    assert "detach" not in world.gpu.calls
    primary_context.release_all()
    primary_context.release_all()
    assert world.gpu.calls.count("detach") == 1


def test_an_interrupt_while_waiting_frees_nothing_in_use(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = machine()
    original, interrupts = Stream.synchronize, [KeyboardInterrupt()]

    def synchronize(self: Stream) -> None:
        if self.pending and interrupts:
            raise interrupts.pop()
        original(self)

    with world.engine() as engine:
        engine(world.images())
        monkeypatch.setattr(Stream, "synchronize", synchronize)
        with pytest.raises(KeyboardInterrupt):
            engine(world.images(2))


def test_the_fakes_notice_what_they_are_for(machine: Machine) -> None:
    """Memory freed without a context, twice or in use, and work without one."""
    world = machine()
    gpu = primary_context.open_gpu(0)
    with pytest.raises(Rule, match="without a current context"):
        Buffer(gpu.driver).grow_to(1)
    with gpu.current():
        buffer, stream = Buffer(gpu.driver), gpu.driver.make_stream()
        buffer.grow_to(10)
        buffer.view((10,), np.uint8)[:] = 1
        buffer.upload(10, stream)
        with pytest.raises(Rule, match="while work is pending"):
            world.gpu.memory[buffer.address].free()
        stream.synchronize()
        memory = world.gpu.memory[buffer.address]
        buffer.free()
        buffer.free()
        with pytest.raises(Rule, match="freed twice"):
            memory.free()
        stream.close()
        stream.close()
