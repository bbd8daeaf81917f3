"""`python export/run.py`: what an exported graph writes is what PyTorch writes, and every bad input is explained."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.on_device import TorchTranslator
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.translator import BatchDoesNotFit, Translator
from export import onnx_translators
from export.engines.engine_card import Profile
from export.graphs.graph import serialised
from export.graphs.onnx_file import with_digest
from export.graphs.pixel_io import with_pixel_io
from export.graphs.precision import in_precision
from export.onnx_translators import (
    OnnxRuntimeTranslator,
    OpenVinoTranslator,
    _translating,
    choose_backend,
    load_translator,
)
from export.parity import BARS, Parity
from export.run import fit_to_engine, main
from export.to_onnx import float32_graph
from tests.cyclegan_fast.pictures import draw_all, names, pixels_of

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, network: ResnetGenerator) -> dict[str, Path]:
    """Files of one generator: float32, float32-uint8, and so on."""
    folder = tmp_path_factory.mktemp("graphs")
    model = float32_graph(network)  # once: it takes seconds
    paths = {}
    for precision in ("float32", "float16", "bfloat16"):
        typed = model if precision == "float32" else in_precision(model, precision)
        for name, graph in ((precision, typed), (f"{precision}-uint8", with_pixel_io(typed))):
            paths[name] = folder / f"{name}.onnx"
            paths[name].write_bytes(with_digest(serialised(graph)))
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    sizes = {"one.png": (48, 40), "deep/two.png": (45, 37), "deep/three.bmp": (45, 37)}
    return draw_all(tmp_path / "photos", sizes)


@pytest.fixture
def pytorch(tmp_path: Path, photos: Path, network: ResnetGenerator) -> Callable[..., dict[str, Pixels]]:
    """Translates the photos with PyTorch, by the names of the files."""

    def translate(size: int | None) -> dict[str, Pixels]:
        options = ImageOptions((str(photos),), tmp_path / "pytorch", keep_size=size is None, no_contact_sheet=True)
        translator = TorchTranslator(network, torch.device("cpu"), torch.float32)
        translate_images(translator, plan(options), options, size)
        return translations(tmp_path / "pytorch")

    return translate


def translations(folder: Path) -> dict[str, Pixels]:
    return {name: pixels_of(folder / name) for name in names(folder)}


def largest_difference(actual: dict[str, Pixels], expected: dict[str, Pixels]) -> int:
    assert actual.keys() == expected.keys()
    for name, pixels in expected.items():
        assert actual[name].shape == pixels.shape
        assert pixels.std() > 10, "a flat picture would prove nothing"
    return max(int(np.abs(actual[name].astype(int) - pixels).max()) for name, pixels in expected.items())


# --- what is computed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [32, None])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_translations_equal_pytorchs(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], pytorch: Any, backend: str, size: int | None, batch_size: int
) -> None:
    """Translates at one size in a batch, or 45x37 pixels, no multiples of 4; through both kinds of graph."""
    flags = ["--keep-size"] if size is None else ["--size", str(size)]
    flags += ["--backend", backend, "--batch-size", str(batch_size), "--no-contact-sheet"]
    for name in ("float32", "float32-uint8"):
        assert main([str(photos), "--onnx", str(graphs[name]), "--out", str(tmp_path / name), *flags]) == 0
        assert largest_difference(translations(tmp_path / name), pytorch(size)) <= 1
    # OpenVINO computes the conversion of pixels as part of the first convolution, in another order.
    difference = largest_difference(translations(tmp_path / "float32"), translations(tmp_path / "float32-uint8"))
    assert difference <= (1 if backend == "openvino" else 0)


@pytest.mark.parametrize("uint8", ["", "-uint8"])
@pytest.mark.parametrize(
    ("precision", "backend"), [("float16", "openvino"), ("float16", "onnxruntime"), ("bfloat16", "openvino")]
)
def test_low_precisions_stay_near(
    tmp_path: Path,
    photos: Path,
    graphs: dict[str, Path],
    pytorch: Any,
    precision: str,
    backend: str,
    uint8: str,
) -> None:
    command = [str(photos), "--onnx", str(graphs[precision + uint8]), "--out", str(tmp_path / "out"), "--size", "32"]
    assert main([*command, "--backend", backend, "--no-contact-sheet"]) == 0
    found, expected = translations(tmp_path / "out"), pytorch(32)
    assert found.keys() == expected.keys()
    parity = Parity.between(*(np.stack([of[name].astype(float) for name in sorted(of)]) for of in (found, expected)))
    print(f"{precision}{uint8} on {backend}: {parity}")
    assert BARS[precision].failure(parity) is None


def test_results_are_not_overwritten_by_the_next_call(graphs: dict[str, Path]) -> None:
    """They are written to disk by other threads, while the next batch is computed."""
    first, second = (np.full((1, 8, 8, 3), level, np.uint8) for level in (10, 240))
    for backend in (OnnxRuntimeTranslator, OpenVinoTranslator):
        path = graphs["float32-uint8"]
        translator: Translator = (
            OpenVinoTranslator(path, path.read_bytes(), amp=False)
            if backend is OpenVinoTranslator
            else OnnxRuntimeTranslator(path, path.read_bytes(), "cpu")
        )
        kept = translator(first)
        before = kept.copy()
        assert not np.array_equal(translator(second), before)
        assert np.array_equal(kept, before)


def test_amp_is_bfloat16_only_where_the_cpu_has_it(graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    hints = []
    original = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, config: dict[str, str]) -> Any:
        hints.append(config["INFERENCE_PRECISION_HINT"])
        return original(self, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    for capabilities, words in ((["FP32", "BF16"], "bfloat16"), (["FP32"], "float32, as it has no bfloat16")):
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_, found=capabilities: found)
        means = load_translator(graphs["float32"], "openvino", "cpu", amp=True)[1]
        assert means == f"OpenVINO on the CPU in {words}"
    load_translator(graphs["float32"], "openvino", "cpu", amp=False)
    assert hints == ["bf16", "f32", "f32"], "without a hint it would choose for itself"


def test_diverged_weights_are_not_written(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelProto.FromString(graphs["float32"].read_bytes())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("bias"))
    bias.raw_data = np.full(tuple(bias.dims), np.nan, np.float32).tobytes()
    del model.metadata_props[:]  # the digest, which is of other weights
    (path := tmp_path / "nan.onnx").write_bytes(with_digest(serialised(model)))
    assert main([str(photos), "--onnx", str(path), "--out", str(tmp_path / "out"), "--size", "32"]) == 2
    assert "not finite" in capsys.readouterr().err


CTRL_C = """
import gc
import signal
import sys
from pathlib import Path

from export.onnx_translators import OpenVinoTranslator

path = Path(sys.argv[1])
first, second = (OpenVinoTranslator(path, path.read_bytes(), amp=False) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_two_translators_of_openvino_is_no_crash(graphs: dict[str, Path]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CTRL_C, graphs["float32"]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


# --- which library and device --------------------------------------------------------------------------------------


@pytest.mark.parametrize("uint8", ["", "-uint8"])
def test_threads_are_as_many_as_asked_for(graphs: dict[str, Path], uint8: str) -> None:
    """Told by the libraries, whose own defaults are one for each core: 0 in ONNX Runtime's options."""
    path = graphs[f"float32{uint8}"]
    for asked in (1, os.cpu_count(), None):
        openvino, _ = load_translator(path, "openvino", "cpu", amp=False, threads=asked)
        assert isinstance(openvino, OpenVinoTranslator)
        if asked is not None:
            assert openvino._model.get_property("INFERENCE_NUM_THREADS") == asked
        onnxruntime, _ = load_translator(path, "onnxruntime", "cpu", amp=False, threads=asked)
        assert isinstance(onnxruntime, OnnxRuntimeTranslator)
        options = onnxruntime._session.get_session_options()
        assert options.intra_op_num_threads == (asked or 0)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("backend", "device", "installed", "cuda", "expected"),
    [
        ("auto", "auto", "openvino onnxruntime", False, ("openvino", "cpu")),
        ("auto", "auto", "openvino onnxruntime", True, ("onnxruntime", "cuda")),
        ("auto", "cpu", "openvino onnxruntime", True, ("openvino", "cpu")),
        ("auto", "auto", "onnxruntime", False, ("onnxruntime", "cpu")),
        ("auto", "auto", "openvino", False, ("openvino", "cpu")),
        ("auto", "cuda", "openvino onnxruntime", True, ("onnxruntime", "cuda")),
        ("openvino", "auto", "openvino onnxruntime", True, ("openvino", "cpu")),
        ("onnxruntime", "auto", "openvino onnxruntime", False, ("onnxruntime", "cpu")),
        ("onnxruntime", "cpu", "openvino onnxruntime", True, ("onnxruntime", "cpu")),
        ("auto", "cuda", "openvino onnxruntime", False, "no CUDAExecutionProvider"),
        ("auto", "cuda", "openvino", False, "needs ONNX Runtime"),
        ("onnxruntime", "cuda", "", False, "needs ONNX Runtime"),
        ("openvino", "cuda", "openvino onnxruntime", True, "OpenVINO has no CUDA"),
        ("openvino", "auto", "onnxruntime", False, "openvino is not installed"),
        ("onnxruntime", "cpu", "openvino", False, "onnxruntime is not installed"),
        ("auto", "auto", "", False, "need OpenVINO, `pip install openvino`"),
    ],
)
def test_choice_of_library(backend: Any, device: Any, installed: str, cuda: bool, expected: Any) -> None:
    def decide() -> Any:
        return choose_backend(backend, device, set(installed.split()), lambda: cuda)

    if isinstance(expected, tuple):
        assert decide() == expected
    else:
        with pytest.raises(Exception, match=expected):
            decide()


def test_cuda_that_does_not_start_is_no_silent_cpu(
    tmp_path: Path,
    photos: Path,
    graphs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Imitates an ONNX Runtime that lists CUDA, cannot load it, and makes a session on the CPU all the same."""
    import onnxruntime

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx_translators.CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda content, sess_options, providers: session(content, sess_options, ["CPUExecutionProvider"]),
    )
    for flags in ([], ["--device", "cuda"]):
        command = [str(photos), "--onnx", str(graphs["float32"]), "--out", str(tmp_path / "out"), *flags]
        assert main(command) == 2
        assert "ONNX Runtime could not start on CUDA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- bad files and flags -------------------------------------------------------------------------------------------


def graph_of(path: Path, names: tuple[str, str] = ("image", "translated"), channels: int = 3, type: int = 1) -> Path:
    values = [helper.make_tensor_value_info(name, type, ["n", channels, "h", "w"]) for name in names]
    node = helper.make_node("Identity", [names[0]], [names[1]])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_files_are_explained_in_one_line(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    def error_of(path: Path) -> str:
        assert main([str(photos), "--onnx", str(path), "--out", str(tmp_path / "out"), "--backend", backend]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert path.name in error
        assert not (tmp_path / "out").exists()
        return error

    assert "python export/to_onnx.py writes one" in error_of(tmp_path / "nowhere.onnx")
    (nothing := tmp_path / "nothing.onnx").write_bytes(b"")
    assert "is no ONNX file" in error_of(nothing)
    assert "is no ONNX file" in error_of(photos / "one.png")
    (cut := tmp_path / "cut.onnx").write_bytes(graphs["float32"].read_bytes()[:-2000])
    assert "damaged" in error_of(cut)
    foreign = error_of(graph_of(tmp_path / "names.onnx", ("input", "output")))
    assert "is no generator" in foreign
    assert "takes input: float32 [any, 3, any, any] and gives output:" in foreign
    assert "is no generator" in error_of(graph_of(tmp_path / "grey.onnx", channels=1))
    assert "takes image: float64" in error_of(graph_of(tmp_path / "double.onnx", type=TensorProto.DOUBLE))


def test_bfloat16_on_onnx_runtimes_cpu(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(photos), "--onnx", str(graphs["bfloat16"]), "--out", str(tmp_path / "out")]
    assert main([*command, "--backend", "onnxruntime"]) == 2
    error = capsys.readouterr().err
    assert "export in float16 or float32, or give --backend openvino" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "give either --engine FILE or --onnx FILE"),
        ("--engine x.engine --onnx {float32}", "give either --engine FILE or --onnx FILE"),
        ("--engine x.engine --backend openvino", "go with --onnx"),
        ("--engine x.engine --threads 1", "--threads goes with --onnx"),
        ("--onnx {float32} --threads 0", "--threads must be a whole number from 1 to 4096, got 0"),
        ("--engine x.engine --amp", "go with --onnx"),
        ("--engine x.engine", "x.json is missing"),
        ("--onnx {float32} --amp --backend onnxruntime", "--amp is OpenVINO's"),
        ("--onnx {float32} --size 30", "--size must be a multiple of 4 from 8 to 65536, got 30"),
        ("--onnx {float32} --size 32 --keep-size", "contradict each other"),
        ("--onnx {float32} --device cuda --backend openvino", "OpenVINO has no CUDA"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    given = flags.format(float32=graphs["float32"]).split()
    assert main([str(photos), "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --- what an engine's profile allows -------------------------------------------------------------------------------

PROFILE = Profile((1, 128, 128), (1, 256, 256), (4, 512, 512))


def options(**changes: Any) -> ImageOptions:
    return ImageOptions(("photos",), Path("out"), **changes)


def test_an_engine_is_asked_only_what_it_was_built_for() -> None:
    refused = (
        "the engine takes 1 to 4 images of 128x128 to 512x512: images of other sizes are left out, unless --size is "
        "given"
    )
    for flags in ({}, {"keep_size": True}):
        assert fit_to_engine(options(**flags), PROFILE) == (options(batch_size=4, **flags), None, [refused])
    assert fit_to_engine(options(size=512), PROFILE) == (options(batch_size=4, size=512), 512, [])
    square = Profile((1, 256, 256), (1, 256, 256), (1, 256, 256))
    resized = "the engine takes images of 256x256 only: other images are resized to that"
    assert fit_to_engine(options(), square) == (options(batch_size=1), 256, [resized])
    assert fit_to_engine(options(keep_size=True), square)[1] is None
    fitted, size, notes = fit_to_engine(options(batch_size=9, size=256), PROFILE)
    assert (fitted.batch_size, size) == (4, 256)
    assert notes == ["the engine takes 1 to 4 images of 128x128 to 512x512: batches of 4 instead of 9"]
    with pytest.raises(Exception, match="1 image of 64x64 pixels does not fit this engine"):
        fit_to_engine(options(size=64), PROFILE)
    wide = Profile((1, 256, 512), (1, 256, 512), (1, 256, 512))
    with pytest.raises(Exception, match="takes images of 512x256 only: give such images, and --keep-size"):
        fit_to_engine(options(batch_size=1), wide)
    assert fit_to_engine(options(batch_size=1, keep_size=True), wide)[1] is None


@pytest.mark.parametrize(
    ("error", "is_of_memory"),
    [
        (MemoryError("Unable to allocate 9 GiB"), True),
        (ValueError("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 576000000"), True),
        (RuntimeError("Exception from infer_request.cpp:223:\nstd::bad_alloc"), True),
        (RuntimeError("Check 'shape' failed"), False),
    ],
)
def test_a_library_whose_memory_ends_leaves_that_image_out(error: Exception, is_of_memory: bool) -> None:
    with pytest.raises(UserError) as raised, _translating("OpenVINO", np.zeros((1, 8, 8, 3), np.uint8)):
        raise error
    assert isinstance(raised.value, BatchDoesNotFit) is is_of_memory
    held = "the memory does not hold what OpenVINO needs for uint8 [1, 8, 8, 3]; give a smaller --size"
    assert (str(raised.value) == held) is is_of_memory


# --- what is imported ----------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {"torch", "onnx", "triton", "tensorrt", "tensorrt_rtx", "pycuda"}:
            raise ModuleNotFoundError(f"{name} must not be needed")

sys.meta_path.insert(0, Missing())
from export.run import main
status = main(sys.argv[2:])
assert sys.argv[1] not in sys.modules, "one library is enough"
sys.exit(status)
"""


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("backend", "other"), [BACKENDS, BACKENDS[::-1]])
def test_needs_no_torch_nor_the_other_library(
    tmp_path: Path, photos: Path, graphs: dict[str, Path], backend: str, other: str
) -> None:
    ended = python(
        *("-c", WITHOUT_TORCH, other, photos, "--onnx", graphs["float32-uint8"], "--out", tmp_path / "out"),
        *("--size", "32", "--backend", backend),
    )
    assert ended.returncode == 0, ended.stderr
    assert names(tmp_path / "out") == {"one.png", "deep/two.png", "deep/three.png", "contact_sheet.jpg"}


HELP = """
import runpy, sys
sys.argv = ["export/run.py", "--help"]
sys.path.insert(0, "export")  # as a script has it
try:
    runpy.run_path("export/run.py", run_name="__main__")
finally:
    slow = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda"} & set(sys.modules)
    print(f"{slow=}")
"""


def test_help_loads_nothing_that_is_slow() -> None:
    ended = python("-c", HELP)
    assert "slow=set()" in ended.stdout, ended.stderr
    for flag in ("--engine", "--onnx", "--backend", "--device", "--amp", "--size", "--keep-size", "--batch-size"):
        assert flag in ended.stdout
    help = python("export/run.py", "--help")
    assert help.returncode == 0
    assert "python export/run.py photos --engine engines/x-a2b-float16.engine --out translated\n" in help.stdout
