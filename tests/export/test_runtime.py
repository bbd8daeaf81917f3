"""Running an engine, on a GPU that `fake_gpu` imitates: in which order what is called, and what comes out."""

import ctypes
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cyclegan_fast.system.errors import UserError
from export.device import primary_context, pycuda_driver, runtime_cache
from export.device.buffers import BLOCK, grown
from export.device.driver import DriverError
from export.device.replay import Replay, Way
from export.device.stream_graph import StreamGraph
from export.run import main
from tests.cyclegan_fast.pictures import draw, draw_all, names, pixels_of
from tests.export.fake_machine import Machine
from tests.export.fake_tensorrt import upside_down

ROOT = Path(__file__).parents[2]

# --- one call after another ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtx", [True, False])
@pytest.mark.parametrize("uint8_io", [True, False])
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_translates_any_shape_in_any_order(machine: Machine, rtx: bool, uint8_io: bool, cuda_graph: bool) -> None:
    world = machine(rtx=rtx, uint8_io=uint8_io)
    with world.engine(cuda_graph=cuda_graph) as engine:
        shapes = [(1, 16, 12), (1, 16, 12), (1, 16, 12), (4, 64, 8), (4, 64, 8), (4, 64, 8), (2, 8, 8), (1, 16, 12)]
        results = []
        for seed, shape in enumerate(shapes * 2):
            images = world.images(*shape, seed=seed)
            results.append((engine(images), images))
        for result, images in results:  # at the end: no result shares memory with a later one
            assert result.dtype == images.dtype
            assert np.array_equal(result, upside_down(images))
            assert result.flags.owndata


def test_the_order_of_calls(machine: Machine) -> None:
    world = machine()
    images = world.images()
    with world.engine() as engine:
        assert world.gpu.calls == ["retain", "deserialize"]
        copies = ["upload", "enqueue", "download", "synchronize"]
        first = world.calls_of(lambda: engine(images))
        buffers = ["allocate device", "allocate host"] * 2
        assert [call for call in first if call != "synchronize"] == [*buffers, "shape [1, 16, 12, 3]", *copies[:-1]]
        assert first[-4:] == copies
        recording = ["cuStreamBeginCapture_v2", "enqueue", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
        replay = ["upload", "cuGraphLaunch", "download", "synchronize"]
        assert world.calls_of(lambda: engine(images)) == [*recording, "cuGraphDestroy", *replay]
        assert world.calls_of(lambda: engine(images)) == replay
        # Another shape: the graph goes before the context is set to something else, and memory stays.
        other = world.images(1, 8, 8)
        assert world.calls_of(lambda: engine(other)) == [
            *("synchronize", "cuGraphExecDestroy", "shape [1, 8, 8, 3]", *copies)
        ]
        assert world.calls_of(lambda: engine(other))[:4] == recording
        assert world.calls_of(lambda: engine(other)) == replay


def test_without_graphs_a_shape_is_set_once(machine: Machine) -> None:
    world = machine()
    with world.engine(cuda_graph=False) as engine:
        engine(world.images())
        for _ in range(3):
            calls = world.calls_of(lambda: engine(world.images()))
            assert calls == ["upload", "enqueue", "download", "synchronize"]


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_a_thousand_runs_allocate_nothing_after_the_first(machine: Machine, cuda_graph: bool) -> None:
    world = machine()
    with world.engine(cuda_graph=cuda_graph) as engine:
        engine(world.images())
        used, memory = world.gpu.used, list(world.gpu.memory)
        calls = world.calls_of(lambda: [engine(world.images()) for _ in range(1000)])
        assert not [call for call in calls if "allocate" in call or "free" in call]
        assert (world.gpu.used, list(world.gpu.memory)) == (used, memory)
        assert len(world.gpu.graphs) == cuda_graph
        assert sum(call == "cuStreamBeginCapture_v2" for call in calls) == cuda_graph


def test_buffers_grow_and_are_kept(machine: Machine) -> None:
    """Moves the buffers for a shape that needs more, which graph and context have to follow; not for a smaller one."""
    world = machine()
    with world.engine() as engine:
        small, large = world.images(1, 16, 16), world.images(2, 1024, 1024)
        for images in (small, small, small):
            assert np.array_equal(engine(images), upside_down(images))
        assert world.gpu.used == 2 * BLOCK
        calls = world.calls_of(lambda: engine(large))
        assert calls.index("cuGraphExecDestroy") < calls.index("free device") < calls.index("allocate device")
        assert world.gpu.used == 2 * grown(0, large.nbytes) == 2 * 3 * BLOCK
        for images in (large, large, small, small, small, large, large):
            calls = world.calls_of(lambda images=images: engine(images))  # type: ignore[misc]
            assert not [call for call in calls if "allocate" in call or "free" in call]
            assert np.array_equal(engine(images), upside_down(images))


def test_arrays_of_any_strides(machine: Machine) -> None:
    world = machine(uint8_io=False)
    with world.engine() as engine:
        pixels_last = np.ascontiguousarray(world.images(2, 16, 8).transpose(0, 2, 3, 1))
        for images in (
            pixels_last.transpose(0, 3, 1, 2),
            world.images(4, 16, 8)[::2],
            world.images(2, 16, 8)[..., ::-1],
        ):
            assert not images.flags.c_contiguous
            assert np.array_equal(engine(images), upside_down(images))


def test_closing_twice_and_calling_after(machine: Machine) -> None:
    world = machine()
    engine = world.engine()
    kept = engine.worker()
    engine.close()
    engine.close()
    for call in (engine, kept, lambda _: engine.worker()):
        with pytest.raises(UserError, match="the engine is closed"):
            call(world.images())


# --- decisions -----------------------------------------------------------------------------------------------------


def test_growth_is_by_whole_blocks() -> None:
    assert [grown(0, 1), grown(0, BLOCK), grown(0, BLOCK + 1)] == [BLOCK, BLOCK, 2 * BLOCK]
    assert [grown(3 * BLOCK, 1), grown(3 * BLOCK, 3 * BLOCK)] == [3 * BLOCK] * 2


def test_a_graph_serves_only_the_shape_of_the_call_before() -> None:
    a, b = (1, 8, 8), (2, 8, 8)
    replay = Replay(enabled=True)
    assert replay.way(a) is Way.SET_UP
    replay.set_to(a)
    assert (replay.way(a), replay.way(b)) == (Way.RECORD, Way.SET_UP)
    replay.is_recorded = True
    assert (replay.way(a), replay.way(b)) == (Way.REPLAY, Way.SET_UP)
    replay.set_to(b)
    assert (replay.way(b), replay.way(a)) == (Way.RECORD, Way.SET_UP)
    replay.set_to(None)
    assert replay.way(b) is Way.SET_UP
    plain = Replay(enabled=False, shape=a)
    assert (plain.way(a), plain.way(b)) == (Way.ENQUEUE, Way.SET_UP)


# --- threads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtx", [True, False])
def test_two_threads_with_a_worker_each(machine: Machine, rtx: bool) -> None:
    """Both are inside the engine at once, on streams of their own; the context is current on neither in between."""
    world = machine(rtx=rtx)
    with world.engine() as engine:
        workers = [engine.worker(), engine.worker()]
        both = threading.Barrier(2, timeout=20)

        def work(index: int) -> set[int]:
            for turn in range(6):
                images = world.images(1 + index, 16, 8 + 4 * index, seed=turn)
                both.wait()
                assert np.array_equal(workers[index](images), upside_down(images))
                assert world.gpu.depth == 0
            return set(world.gpu.streams)

        with ThreadPoolExecutor(2) as pool:
            streams = [future.result(30) for future in [pool.submit(work, index) for index in range(2)]]
        assert len(streams[0] | streams[1]) == 2
        assert len(world.gpu.graphs) == 2


def test_threads_that_share_an_engine_get_a_worker_each(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine:
        inside = threading.Barrier(3, timeout=20)
        engine.worker()  # which the others must leave alone
        synchronize = world.gpu.calls.append

        def wait_inside(call: str) -> None:
            synchronize(call)
            if call == "download":
                inside.wait()

        world.gpu.log = wait_inside  # type: ignore[method-assign]

        def work(seed: int) -> bool:
            images = world.images(seed=seed)
            return bool(np.array_equal(engine(images), upside_down(images)))

        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(work, range(9)))
        assert world.gpu.live["context"] == 1 + 3, "a worker for each of three threads, used three times each"


def test_a_repeated_shape_finds_the_worker_with_its_graph(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine:
        a, b = world.images(1), world.images(2)
        inside = threading.Barrier(2, timeout=20)
        log = world.gpu.log
        world.gpu.log = lambda call: (log(call), inside.wait() if call == "download" else None)[0]  # type: ignore[method-assign,func-returns-value]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(engine, [a, b]))
        world.gpu.log = log  # type: ignore[method-assign]
        calls = world.calls_of(lambda: [engine(images) for images in (a, b, a, b, a, b)])
        assert not [call for call in calls if call.startswith("shape")], "each worker stays with its shape"
        assert calls.count("cuGraphLaunch") == 6


def test_a_worker_called_by_two_threads_at_once_takes_one_after_the_other(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine, ThreadPoolExecutor(4) as pool:
        worker = engine.worker()
        batches = [world.images(1 + seed % 3, seed=seed) for seed in range(40)]
        for images, result in zip(batches, pool.map(worker, batches), strict=True):
            assert np.array_equal(result, upside_down(images))


# --- graphs that cannot be ------------------------------------------------------------------------------------------


def test_an_engine_that_cannot_be_recorded_runs_without_a_graph(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    world = machine()
    world.trt.is_capturable = False
    with world.engine() as engine:
        for seed in range(4):
            assert np.array_equal(engine(images := world.images(seed=seed)), upside_down(images))
    assert "cuStreamBeginCapture_v2" not in world.gpu.calls
    assert caplog.text.count("without a CUDA graph") == 1


@pytest.mark.parametrize("function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_recording_that_fails_is_logged_and_the_call_computes(
    machine: Machine, function: str, cuda_package: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = machine()
    world.gpu.libcuda.fails = function
    with world.engine() as engine:
        for seed in range(4):
            assert np.array_equal(engine(images := world.images(seed=seed)), upside_down(images))
    assert world.gpu.calls.count(function) == 1, "not tried again at every call"
    spoken = function.removesuffix("_v2").removesuffix("WithFlags") if cuda_package == "cuda-python" else function
    assert f"{spoken} failed: CUDA_ERROR_UNKNOWN" in caplog.text


def test_a_launch_that_fails_is_an_error_and_frees_everything(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine:
        engine(world.images())
        world.gpu.libcuda.fails = "cuGraphLaunch"
        with pytest.raises(UserError, match=r"could not run the engine \(cuGraphLaunch failed: CUDA_ERROR_UNKNOWN\)"):
            engine(world.images())
        world.gpu.libcuda.fails = None
        assert np.array_equal(engine(world.images()), upside_down(world.images()))


def test_an_enqueue_that_raises_ends_the_recording(machine: Machine) -> None:
    world = machine()
    with world.engine() as engine:
        worker = engine.worker()
        (handle,) = world.gpu.streams
        stream, gpu = worker._stream, primary_context.open_gpu(0)
        assert stream.handle == handle

        def interrupt() -> None:
            raise KeyboardInterrupt

        def invalidate() -> None:
            world.gpu.stream(handle).recording_is_invalid = True

        with gpu.current():
            with pytest.raises(KeyboardInterrupt):
                StreamGraph(gpu.driver, stream, interrupt)
            assert world.gpu.stream(handle).recording is None
            with pytest.raises(DriverError, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
                StreamGraph(gpu.driver, stream, invalidate)
        assert not world.gpu.graphs
        assert np.array_equal(worker(images := world.images()), upside_down(images))


def test_handles_are_not_cut_to_32_bits() -> None:
    """Reads what ctypes makes of the arguments, with a C library in place of the driver's."""
    library = ctypes.CDLL(None)
    for name, arguments in pycuda_driver._SIGNATURES.items():
        assert arguments[0] is not ctypes.c_uint, name
    function = library.labs
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_long
    assert function(0x7F00_0000_0001) == 0x7F00_0000_0001


# --- kernels that TensorRT for RTX compiled --------------------------------------------------------------------------


def test_compiled_kernels_are_kept_beside_the_engine(machine: Machine) -> None:
    world = machine()
    cache = world.path.with_name("x.engine.cache")
    with world.engine() as engine:
        engine(world.images())
        assert not cache.exists()
    assert cache.read_bytes() == b"kernels:(1, 16, 12, 3)"
    assert list(world.path.parent.glob(".*")) == []
    world.trt.compiled.clear()
    modified = cache.stat().st_mtime_ns
    with world.engine() as engine:
        assert world.trt.compiled == {b"(1, 16, 12, 3)"}, "read before the first call"
        engine(world.images())
    assert cache.stat().st_mtime_ns == modified, "nothing new, nothing written"


def test_kernels_of_another_gpu_are_compiled_anew(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    world = machine()
    cache = world.path.with_name("x.engine.cache")
    cache.write_bytes(b"something else")
    with world.engine() as engine:
        engine(world.images())
    assert f"{cache} has kernels of another GPU" in caplog.text
    assert cache.read_bytes().startswith(b"kernels:")


def test_a_folder_that_cannot_be_written_to(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = machine()
    write = runtime_cache.write_atomically

    def refuse(path: Path, content: bytes) -> None:
        if path.parent == world.path.parent:
            raise UserError(f"could not write {path}: Read-only file system")
        write(path, content)

    monkeypatch.setattr(runtime_cache, "write_atomically", refuse)
    with world.engine() as engine:
        engine(world.images())
    (written,) = (tmp_path / "caches" / "cyclegan-fast" / "engines").iterdir()
    assert written.name == f"{world.card.engine_sha256[:16]}.cache"
    world.trt.compiled.clear()
    with world.engine():
        assert world.trt.compiled == {b"(1, 16, 12, 3)"}
    assert "not kept" not in caplog.text

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with world.engine() as engine:
        engine(world.images(2))
    assert "are not kept, and compiled again next time" in caplog.text


def test_kernels_for_a_graph_are_compiled_before_it_is_recorded(machine: Machine) -> None:
    for cuda_graph, name in ((True, "EAGER"), (False, None)):
        world = machine()
        with world.engine(cuda_graph=cuda_graph) as engine:
            strategy = engine._config.dynamic_shapes_kernel_specialization_strategy
            assert (strategy.name if strategy else None) == name
            assert engine._config.cache is not None


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uint8_io", [True, False])
def test_images_through_an_engine(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], uint8_io: bool, cuda_package: str
) -> None:
    world = machine(uint8_io=uint8_io)
    for seed in range(5):
        draw(tmp_path / "photos" / f"{seed}.png", 16, 16, seed=seed)
    draw(tmp_path / "other" / "odd.png", 21, 18)
    command = ["--engine", str(world.path), "--no-contact-sheet", "--out"]
    assert main([str(tmp_path / "photos"), *command, str(tmp_path / "out"), "--batch-size", "9"]) == 0
    shown = capsys.readouterr().out
    described = {"pycuda": "PyCUDA 2026.1", "cuda-python": "cuda-python 13.4.4"}[cuda_package]
    assert f"at their own sizes; tensorrt_rtx 1.7.1 in float16, through {described}\n" in shown
    assert "note: the engine takes 1 to 4 images of 8x8 to 1024x1024: batches of 4 instead of 9" in shown
    for seed in range(5):
        expected = upside_down(pixels_of(tmp_path / "photos" / f"{seed}.png")[None])[0]
        assert np.array_equal(pixels_of(tmp_path / "out" / f"{seed}.png"), expected)
    assert main([str(tmp_path / "other"), *command, str(tmp_path / "odd"), "--keep-size"]) == 0
    assert pixels_of(tmp_path / "odd" / "odd.png").shape == (18, 21, 3)
    draw(tmp_path / "other" / "odd.png", 1200, 20)
    draw(tmp_path / "other" / "zebra.png", 200, 160)  # of more pixels, which the engine takes
    assert main([str(tmp_path / "other"), *command, str(tmp_path / "large"), "--keep-size"]) == 1
    assert names(tmp_path / "large") == {"zebra.png"}
    *_, left_out, error = capsys.readouterr().err.splitlines()
    said = "1 image of 1200x20 pixels does not fit this engine, which takes 1 to 4 images of 8x8 to 1024x1024"
    assert left_out.startswith(f"left out {tmp_path / 'other' / 'odd.png'}: {said}: give a --size that it takes")
    assert error == "error: 1 image did not fit, as said above; the same command tries it again"
    assert main([str(tmp_path / "other"), *command, str(tmp_path / "strict"), "--strict"]) == 2


@pytest.mark.usefixtures("cuda_package")
def test_images_that_the_memory_of_the_gpu_does_not_hold(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = machine(total=3 * BLOCK)
    large = dict.fromkeys(("b.png", "c.png"), (1024, 1024))
    medium = dict.fromkeys(("d.png", "e.png"), (800, 800))  # which fit one by one
    sizes = {"a.png": (16, 16), **large, **medium, "f.png": (20, 20)}
    draw_all(tmp_path / "in", sizes)
    command = [str(tmp_path / "in"), "--engine", str(world.path), "--no-contact-sheet", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == {"a.png", *medium, "f.png"}
    for name in names(tmp_path / "out"):
        expected = upside_down(pixels_of(tmp_path / "in" / name)[None])[0]
        assert np.array_equal(pixels_of(tmp_path / "out" / name), expected)
    error = capsys.readouterr().err
    b, c = (tmp_path / "in" / name for name in ("b.png", "c.png"))
    why = f"{b}: a batch of 1 image of 1024x1024 pixels does not fit the memory of the Fake GPU, of which"
    assert f"left out {why}" in error
    assert f"left out {c}: 1024x1024 is not tried, for it has no fewer pixels than {why}" in error
    assert main([*command, str(tmp_path / "two"), "--batch-size", "2"]) == 2
    assert "error: a batch of 2 images of 1024x1024 pixels does not fit the memory" in capsys.readouterr().err


# --- what is imported -------------------------------------------------------------------------------------------------

IMPORTS = """
import sys
for name in ("torch", "PIL", "tyro", "onnx", "onnxruntime", "openvino", "tqdm", "scipy", "yaml"):
    sys.modules[name] = None  # whatever imports it fails
from export.runtime import Engine
from cyclegan_fast.system.errors import UserError
try:
    Engine(sys.argv[1])
except (UserError, AttributeError) as error:
    print(type(error).__name__, error)
"""


def test_needs_nothing_but_numpy_a_cuda_package_and_the_library() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS, "x"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_library_speaks_through_pythons_log(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    world = machine()
    with caplog.at_level(logging.DEBUG, logger="tensorrt"), world.engine() as engine:
        for name in ("ERROR", "WARNING", "INFO", "VERBOSE"):
            engine._messages.log(world.trt.severity(name), f"{name}\nof the library")
        assert engine._messages.last == "ERROR of the library"
    levels = [record.levelname for record in caplog.records if record.name == "tensorrt"]
    assert levels == ["ERROR", "WARNING", "DEBUG", "DEBUG"]
