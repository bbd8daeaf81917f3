"""Engines against PyTorch, by `export/verify.py` and `export/trt.py`, on an imitated GPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from cyclegan_fast.system.files import sha256_of
from export import parity, trt, verify
from export.engines import libraries
from export.engines.builder import BuiltEngine, EngineTensor
from export.engines.engine_card import EngineCard, Profile
from tests.export.fake_machine import Machine, World
from tests.export.fake_tensorrt import GOOD, upside_down


@pytest.fixture
def faithful(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's generator computes what the imitated engine does."""
    monkeypatch.setattr(parity, "in_pytorch", lambda network, pixels, ends: upside_down(pixels).astype(float))


def of_checkpoint(world: World, weights: Path) -> list[str]:
    """Makes the world's engine one of these weights, and returns flags that say so."""
    profile = Profile((1, 8, 8), (1, 16, 16), (4, 64, 32))
    replace(world.card, checkpoint_sha256=sha256_of(weights), profile=profile).write(world.path.with_suffix(".json"))
    return ["--engine", str(world.path), "--checkpoint", str(weights)]


@pytest.mark.parametrize("uint8_io", [True, False])
def test_an_engine_that_computes_the_same_passes(
    machine: Machine, weights: Path, faithful: None, uint8_io: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = of_checkpoint(machine(uint8_io=uint8_io), weights)
    assert verify.main(arguments) == 0
    shown = [line.split("  ")[-2].strip() for line in capsys.readouterr().out.splitlines()]
    assert shown == ["1 of 8x8", "1 of 16x16", "3 of 16x16", "1 of 32x64", "1 of 20x16", "worst"]


def test_an_engine_that_computes_something_else_fails(
    machine: Machine, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = of_checkpoint(world := machine(), weights)
    assert verify.main(arguments) == 1
    assert f"error: {world.path} differs by " in capsys.readouterr().err


def test_an_engine_is_compared_with_the_checkpoint_that_it_was_made_from(
    machine: Machine, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = machine()
    assert verify.main(["--engine", str(world.path), "--checkpoint", str(weights)]) == 2
    assert f"{world.path} was made from another checkpoint than {weights}" in capsys.readouterr().err


def test_an_engine_beside_another_graph_is_told_of_and_a_damaged_one_refused(
    machine: Machine, weights: Path, faithful: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = of_checkpoint(world := machine(), weights)
    (graph := world.path.with_suffix(".onnx")).write_bytes(b"\x08another")
    assert verify.main(arguments) == 0
    assert f"note: {graph} is not the graph that the engine was built from" in capsys.readouterr().out
    world.path.write_bytes(b"An engine")  # one bit is another
    assert verify.main(arguments) == 2
    assert f"error: {world.path} is damaged, or another engine" in capsys.readouterr().err


def test_flags_that_do_not_go_together(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--checkpoint", str(weights)], "give either --onnx FILE or --engine FILE"),
        (["--onnx", "x.onnx", "--engine", "x.engine"], "give either --onnx FILE or --engine FILE"),
        (["--engine", "x.engine", "--size", "64"], "--size goes with --onnx"),
        (["--engine", "x.engine"], "x.json is missing"),
        (["--onnx", "x.onnx", "--size", "62"], "--size must be a multiple of 4 from 8 to 65536, got 62"),
        (["--onnx", "x.onnx", "--size", "0"], "--size must be a multiple of 4 from 8 to 65536, got 0"),
    ):
        assert verify.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_shapes_are_those_that_the_engine_takes() -> None:
    assert verify.shapes_within(Profile((1, 64, 64), (1, 64, 64), (1, 64, 64))) == [(1, 64, 64)]
    assert verify.shapes_within(Profile((2, 64, 64), (2, 64, 64), (2, 64, 64))) == [(2, 64, 64)]
    assert (2, 64, 64) in verify.shapes_within(Profile((1, 64, 64), (1, 64, 64), (2, 64, 64)))


# --- after a build ----------------------------------------------------------------------------------------------------


@pytest.fixture
def build(machine: Machine, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of `trt.main` on a machine with a GPU of sm89 whose library builds its engine from any graph."""
    machine(uint8_io=False)
    interface = EngineTensor("x", "float", (-1, 3, -1, -1))
    built = BuiltEngine(GOOD, replace(interface, name="image"), replace(interface, name="translated"), None)
    monkeypatch.setattr(trt, "build", lambda *_, **__: built)
    monkeypatch.setattr(libraries, "gpu_count", lambda: 1)
    arguments = ["--runtime", "rtx", "--target", "sm89", "--size", "32", "--max-size", "64"]
    return [*arguments, "--checkpoint", str(weights), "--out", str(tmp_path / "out")]


def engine_parity_in_the_card(arguments: list[str]) -> object:
    (card,) = Path(arguments[-1]).glob("*.json")
    return EngineCard.beside(card.with_suffix(".engine")).parity["engine"]


def test_an_engine_is_run_where_it_was_built(
    build: list[str], faithful: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity, "in_onnxruntime", lambda content, pixels, name, ends: upside_down(pixels).astype(float))
    assert trt.main(build) == 0
    output = capsys.readouterr().out
    assert "comparing with PyTorch" in output
    assert "not run" not in output
    figures = engine_parity_in_the_card(build)
    assert isinstance(figures, dict)
    assert set(figures) == {"1 of 32x32", "1 of 40x32", "1 of 64x64", "worst"}


def test_an_engine_that_falls_short_where_it_was_built(build: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert trt.main(build) == 1
    output = capsys.readouterr()
    assert "error: latest_net_G-float16.engine differs by" in output.err
    assert output.out.rstrip().endswith("FAILED")


def test_an_engine_that_cannot_be_run_although_its_gpu_is_here(
    build: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.export.fake_tensorrt.FakeEngine.num_io_tensors", 0)
    assert trt.main(build) == 1
    assert "error: latest_net_G-float16.engine cannot be run: " in capsys.readouterr().err
    assert engine_parity_in_the_card(build) == "not run"


def test_an_engine_for_another_gpu_is_not_run_and_the_reason_is_given(
    build: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trt.main([argument.replace("sm89", "sm120") for argument in build]) == 0
    output = capsys.readouterr().out
    assert "note: the engines were not compared: the engine was built for sm120 and this GPU is sm89" in output
    assert engine_parity_in_the_card(build) == "not run"
