"""`python export/trt.py`: real engines of TensorRT for RTX, and everything that it refuses."""

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import sha256_of
from export import trt, verify
from export.engines import libraries
from export.engines.builder import BuiltEngine, _set_flags, build, check_targets, default_targets, messages_of
from export.engines.engine_card import EngineCard, Profile
from export.engines.libraries import Library, choose_library, load_library
from export.graphs.graph import serialised
from export.graphs.pixel_io import with_pixel_io
from export.graphs.precision import in_precision
from export.graphs.quantisation import activation_ranges, quantised
from export.options import EightBits, Precision, is_eight_bits
from export.parity import BARS, Parity
from export.pictures import photographs
from export.source import ONE_WAY, GeneratorSource
from export.to_onnx import float32_graph, to_onnx

ROOT = Path(__file__).parents[2]
PROFILE = Profile((1, 32, 32), (1, 64, 64), (4, 128, 96))
TARGETS = ("sm86", "sm89", "sm120")


@pytest.fixture(scope="session")
def rtx() -> Library:
    return load_library("tensorrt_rtx")


@pytest.fixture(scope="session")
def content(random_generator: ResnetGenerator) -> bytes:
    return serialised(float32_graph(random_generator))


@pytest.fixture(scope="module")
def engine_of(rtx: Library, random_generator: ResnetGenerator) -> Callable[[Precision, bool], BuiltEngine]:
    """Builds an engine for three generations, in a precision and with pixels or without; each once."""

    @cache
    def built(precision: Precision, pixels: bool) -> BuiltEngine:
        source = GeneratorSource(random_generator, Path("G.pth"), "G", ONE_WAY, 64, "0" * 64, {})
        onnx = serialised(to_onnx(source, precision, uint8_io=pixels))
        engine = build(rtx, onnx, PROFILE, targets=TARGETS, progress=False)
        assert len(engine.content) > len(onnx) / 2  # it holds the weights
        return engine

    return built


# --- real engines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_an_engine_is_built_for_three_generations_without_a_gpu(
    engine_of: Callable[[Precision, bool], BuiltEngine], precision: Precision, pixels: bool
) -> None:
    engine = engine_of(precision, pixels)
    assert engine.input.name == "image"
    assert engine.output.name == "translated"
    assert engine.input.dtype == engine.output.dtype == ("uint8" if pixels else "float")
    assert engine.input.shape == ((-1, -1, -1, 3) if pixels else (-1, 3, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "targets"), [("int8", TARGETS), ("fp8", ("sm89", "sm120"))])
def test_an_engine_of_8_bits_is_built_from_calibrated_graphs(
    rtx: Library, random_generator: ResnetGenerator, precision: EightBits, targets: tuple[str, ...]
) -> None:
    graph = float32_graph(random_generator)
    model = quantised(graph, precision, activation_ranges(graph, photographs(4, 32, 32), precision))
    half = build(rtx, serialised(in_precision(graph, "float16")), PROFILE, targets=targets, progress=False)
    for variant in (model, with_pixel_io(model)):
        engine = build(rtx, serialised(variant), PROFILE, targets=targets, progress=False)
        assert engine.content != half.content
        assert engine.input.name == "image"


def test_fp8_is_for_gpus_that_have_it(rtx: Library) -> None:
    assert default_targets(rtx, "fp8") == ("sm89", "sm120")
    check_targets(rtx, ("sm89", "sm121"), "fp8")
    with pytest.raises(UserError, match="GPUs of sm86 have no fp8, which came with sm89: give --precision int8"):
        check_targets(rtx, ("sm120", "sm86"), "fp8")
    with pytest.raises(UserError, match="GPUs of sm75 have no bfloat16, which came with sm80"):
        check_targets(rtx, ("sm75",), "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8", "fp8"])
def test_as_far_as_a_machine_without_a_gpu_reads_it_the_engine_is_whole(
    rtx: Library,
    random_generator: ResnetGenerator,
    engine_of: Callable[[Precision, bool], BuiltEngine],
    precision: Precision,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fails for all without a device; what the library says tells a whole engine from a damaged one."""
    if libraries.gpu_count():
        pytest.skip("tests/export/test_gpu_engine.py runs engines where there is a GPU")
    if is_eight_bits(precision):
        graph = float32_graph(random_generator)
        graph = quantised(graph, precision, activation_ranges(graph, photographs(4, 32, 32), precision))
        engine = build(rtx, serialised(graph), PROFILE, targets=("sm89",), progress=False).content
    else:
        engine = engine_of(precision, False).content
    runtime = rtx.module.Runtime(messages_of(rtx))

    def refusal(content: bytes) -> str:
        caplog.clear()
        with caplog.at_level(logging.ERROR, logger="tensorrt"):
            assert runtime.deserialize_cuda_engine(content) is None
        return caplog.text

    whole = refusal(engine)
    assert "CUDA driver" in whole
    assert "Serialization" not in whole
    assert "Serialization" in refusal(engine[:-1])
    assert "Serialization" in refusal(b"x" + engine)


def test_targets_and_precision_change_the_engine(
    rtx: Library, content: bytes, engine_of: Callable[[Precision, bool], BuiltEngine]
) -> None:
    one, two = (
        build(rtx, content, PROFILE, targets=targets, progress=False).content
        for targets in (("sm86",), ("sm86", "sm120"))
    )
    assert one != two  # of one size: an engine holds the weights once, and code is made on the user's GPU
    assert len(engine_of("float16", False).content) < len(one)


@pytest.mark.parametrize("refittable", [True, False])
def test_flags_of_the_builder(rtx: Library, refittable: bool) -> None:
    flags = rtx.module.BuilderFlag
    config = rtx.module.Builder(messages_of(rtx)).create_builder_config()
    _set_flags(rtx.module, config, refittable=refittable)
    assert config.get_flag(flags.REQUIRE_USER_ALLOCATION), "without it no CUDA graph can be recorded"
    assert not config.get_flag(flags.TF32)
    assert config.get_flag(flags.REFIT) == refittable


def test_what_the_library_does_not_take_is_an_error_in_its_words(rtx: Library, content: bytes) -> None:
    with pytest.raises(UserError, match=r"tensorrt_rtx .* does not take the graph"):
        build(rtx, content[: len(content) // 2], PROFILE, progress=False)
    backwards = Profile((4, 128, 96), (1, 64, 64), (1, 32, 32))
    with pytest.raises(UserError, match="built no engine"):
        build(rtx, content, backwards, progress=False)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_both_directions_of_a_run_with_cards_that_describe_them(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(trained_run.parent)
    assert trt.main(["--runtime", "rtx", "--target", "sm89,sm120", "--max-size", "128", "--max-batch", "2"]) == 0
    out = capsys.readouterr().out
    print(out)
    for direction in ("a2b", "b2a"):
        stem = tmp_path / "engines" / f"demo-{direction}-float16"
        assert f"{stem.name}  tensorrt_rtx, sm89 sm120" in out
        card = EngineCard.beside(stem.with_suffix(".engine"))
        card.content_of_engine(stem.with_suffix(".engine"))
        assert card.direction == direction
        assert card.profile == Profile((1, 64, 64), (1, 64, 64), (2, 128, 128))
        assert card.targets == ("sm89", "sm120")
        assert card.onnx_sha256 == sha256_of(stem.with_suffix(".onnx"))
        assert card.checkpoint_sha256 == sha256_of(trained_run / "checkpoints" / "last.pt")
        assert card.parity["onnx"]["worst"]["psnr_db"] >= 45
        assert json.loads(stem.with_suffix(".json").read_text())["value_range"] == "-1 to 1"
    # verify reads the same figures from the files
    onnx = tmp_path / "engines" / "demo-b2a-float16.onnx"
    assert verify.main(["--onnx", str(onnx)]) == 0
    worst = Parity(**card.parity["onnx"]["worst"])
    assert f"worst  {worst}" in capsys.readouterr().out


def test_a_parity_that_falls_short_is_named_and_ends_in_status_1(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BARS, "float16", type(BARS["float16"])(psnr_db=200.0))
    arguments = ["--checkpoint", str(weights), "--size", "32", "--target", "sm89", "--out", str(tmp_path / "out")]
    assert trt.main([*arguments, "--runtime", "rtx"]) == 1
    output = capsys.readouterr()
    assert "FAILED" in output.out
    assert "error: latest_net_G-float16.onnx reaches a PSNR of" in output.err


def test_figures_that_are_nan_reach_no_bar() -> None:
    nan = float("nan")
    for bar in BARS.values():
        assert bar.failure(Parity(nan, nan, nan)) is not None


WITHOUT_LIBRARIES = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {"torch", "onnx", "triton", "tensorrt", "tensorrt_rtx"}:
            raise ModuleNotFoundError(f"{name} must not be needed")

sys.meta_path.insert(0, Missing())
from export import trt
trt.main(["--help"])
"""


def test_help_is_there_in_a_second_without_pytorch() -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT_LIBRARIES], cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - started)
        assert ended.returncode == 0, ended.stderr
        assert "--max-batch" in ended.stdout
    print(f"help in {min(seconds):.2f} s")
    assert min(seconds) < 3  # 0.8 s on a machine that does little else


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_no_partial_file(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits the size of files in the place of a disk: the ONNX file fits, the engine does not."""
    out = tmp_path / "out"
    script = f"""
import resource, sys
from export import trt
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
sys.exit(trt.main(["--checkpoint", {str(weights)!r}, "--size", "32", "--target", "sm89", "--runtime", "rtx",
                   "--out", {str(out)!r}]))
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "File too large" in ended.stderr
    assert [path.name for path in out.iterdir() if path.suffix not in (".onnx",)] == []


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "62"], "--size must be a multiple of 4 from 8 to 65536, got 62"),
        (["--max-batch", "0"], "--max-batch must be a whole number from 1 to 65536, got 0"),
        (["--size", "64", "--max-size", "32"], "--size 64 must lie between --min-size 64 and --max-size 32"),
        (["--target", "sm90"], "builds for sm75, .*, not for sm90; Hopper needs --runtime tensorrt"),
        (["--target", "ada"], "--target takes names such as sm80, sm86, sm89, sm120, got ada"),
        (["--runtime", "tensorrt"], "needs an NVIDIA GPU to build and there is none here: --runtime rtx"),
        (["--checkpoint", "nowhere.pt"], "no checkpoint at nowhere.pt"),
    ],
)
def test_bad_arguments_get_one_line_and_write_nothing(
    arguments: list[str],
    reason: str,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "gpu_count", lambda: 0)
    checkpoint = [] if "--checkpoint" in arguments else ["--checkpoint", str(weights)]
    assert trt.main([*arguments, *checkpoint, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")

    assert re.search(reason, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_a_library_that_is_missing_says_what_to_install_and_what_works_without(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name} cannot be imported .*cyclegan-fast\[{extra}\].*export/to_onnx.py"):
        load_library(name)
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="11"))  # type: ignore[arg-type]  # no module
    with pytest.raises(UserError, match="is installed without its libraries"):
        load_library(name)


@pytest.mark.parametrize(
    ("gpus", "installed", "chosen"),
    [(1, True, "tensorrt"), (0, True, "tensorrt_rtx"), (1, False, "tensorrt_rtx")],
)
def test_auto_takes_tensorrt_where_it_is_installed_beside_a_gpu(
    gpus: int, installed: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = SimpleNamespace(__version__="11.0", Builder=object) if installed else None
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(libraries, "gpu_count", lambda: gpus)
    assert choose_library("auto").name == chosen


def test_targets_are_for_rtx_only() -> None:
    with pytest.raises(UserError, match="--target is for --runtime rtx"):
        check_targets(Library(None, "tensorrt", "11.0"), ("sm89",), "float16")


# --- the card --------------------------------------------------------------------------------------------------------


@pytest.fixture
def card(tmp_path: Path) -> EngineCard:
    import hashlib

    engine = BuiltEngine(b"engine", None, None, None)  # type: ignore[arg-type]  # not read here
    (tmp_path / "x.engine").write_bytes(engine.content)
    card = EngineCard(
        library="tensorrt_rtx",
        version="1.7.1",
        targets=("sm86", "sm89"),
        precision="float16",
        direction="a2b",
        uint8_io=False,
        profile=PROFILE,
        input="image",
        output="translated",
        checkpoint_sha256="0" * 64,
        onnx_sha256="1" * 64,
        engine_sha256=hashlib.sha256(engine.content).hexdigest(),
        project_version="0",
        parity={},
    )
    card.write(tmp_path / "x.json")
    return card


def test_a_card_is_read_as_it_was_written(card: EngineCard, tmp_path: Path) -> None:
    assert EngineCard.beside(tmp_path / "x.engine") == card


def test_a_card_refuses_another_library_gpu_engine_and_shape(card: EngineCard, tmp_path: Path) -> None:
    card.check_runs_on("tensorrt_rtx", "1.7.1", (8, 9))
    with pytest.raises(
        UserError, match=r"runs with exactly that, not with tensorrt_rtx 1\.8: `pip install tensorrt-rtx=="
    ):
        card.check_runs_on("tensorrt_rtx", "1.8", (8, 9))
    with pytest.raises(UserError, match="was built for sm86, sm89 and this GPU is sm90"):
        card.check_runs_on("tensorrt_rtx", "1.7.1", (9, 0))
    (tmp_path / "x.engine").write_bytes(b"engines")
    with pytest.raises(UserError, match="is damaged, or another engine"):
        card.content_of_engine(tmp_path / "x.engine")
    card.profile.check((4, 128, 96))
    for shape in ((5, 64, 64), (1, 132, 64), (1, 64, 100), (1, 28, 64)):
        with pytest.raises(
            UserError, match="not fit this engine, which takes 1 to 4 images of 32x32 to 96x128"
        ) as raised:
            card.profile.check(shape)
        assert str(raised.value).startswith("5 images of" if shape[0] == 5 else "1 image of")
    with pytest.raises(UserError, match="must be multiples of 4, got 64x63"):
        card.profile.check((1, 63, 64))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"profile": {"smallest": 3}}'])
def test_a_foreign_or_missing_card_gets_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="is missing: an engine runs only with the file"):
        EngineCard.beside(tmp_path / "y.engine")
    (tmp_path / "y.json").write_bytes(content)
    with pytest.raises(UserError, match="does not describe an engine"):
        EngineCard.beside(tmp_path / "y.engine")
