"""Triton's operators, their plans and the tuned tables refuse bad input before anything is launched."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_fast.kernels import (
    conv2d_reflect,
    dispatch,
    instance_norm,
    plans as launch,
    reflection_pad,
    residual_block,
    triton_language,
)
from cyclegan_fast.kernels.gpus import Gpu
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.kernels.norm.backward import norm_backward
from cyclegan_fast.kernels.norm.forward import norm_forward
from cyclegan_fast.kernels.plans import NormPlan
from tests.kernels import test_operators
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import on_chip

X = torch.zeros(2, 3, 4, 5, device=DEVICE)
W = torch.zeros(3, 3, 3, 3, device=DEVICE)


def refuse_to_launch(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    raise AssertionError(f"{kernel} was launched")


@pytest.fixture
def no_launches() -> Iterator[None]:
    with launching_with(refuse_to_launch):
        yield


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize(("call", "error", "message"), test_operators.REFUSED.values(), ids=test_operators.REFUSED)
def test_what_the_reference_refuses_triton_refuses_with_the_same_words(
    call: Callable[[], object], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "triton")
    monkeypatch.setattr(test_operators, "X", X)
    monkeypatch.setattr(test_operators, "W", W)
    with pytest.raises(error, match=message.replace("cpu", str(X.device))):
        call()


FLOAT64: dict[str, Callable[[], object]] = {
    "reflection_pad": lambda: reflection_pad(X.double(), 1, impl="triton"),
    "instance_norm": lambda: instance_norm(X.double(), impl="triton"),
    "conv2d_reflect": lambda: conv2d_reflect(X.double(), W.double(), impl="triton"),
    "residual_block": lambda: residual_block(X.double(), W.double(), W.double(), impl="triton"),
}


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize(("operator", "call"), FLOAT64.items(), ids=FLOAT64)
def test_float64_is_refused_by_name(operator: str, call: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=rf"{operator} takes float32, float16 or bfloat16, got torch\.float64"):
        call()


P = torch.zeros(2, 1, 3, 3, device=DEVICE)
ELSEWHERE = "meta"

TRITON_ALONE: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "partials without a tile": (
        lambda: instance_norm(X, partials=P[:, :0], impl="triton"),
        ValueError,
        "partials must",
    ),
    "partials in float16": (lambda: instance_norm(X, partials=P.half(), impl="triton"), TypeError, "partials must"),
    "partials of integers": (lambda: instance_norm(X, partials=P.int(), impl="triton"), TypeError, "partials must"),
    "partials elsewhere": (
        lambda: instance_norm(X, partials=P.to(ELSEWHERE), impl="triton"),
        TypeError,
        "partials must",
    ),
    "conv: weight elsewhere": (lambda: conv2d_reflect(X, W.to(ELSEWHERE), impl="triton"), TypeError, "weight must"),
    "block: weight2 elsewhere": (
        lambda: residual_block(X, W, W.to(ELSEWHERE), impl="triton"),
        TypeError,
        "weight2 must",
    ),
}


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize(("call", "error", "message"), TRITON_ALONE.values(), ids=TRITON_ALONE)
def test_what_a_kernel_would_misread_is_refused_naming_the_argument(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("variant", "one_phase", "variant must be one of two_phase, on_chip, cooperative, got 'one_phase'"),
        ("block_pixels", 0, "block_pixels must be a power of two, got 0"),
        ("block_pixels", 48, "block_pixels must be a power of two, got 48"),
        ("block_channels", 12, "block_channels must be a power of two, got 12"),
        ("num_warps", -4, "num_warps must be a power of two, got -4"),
        ("pixels_per_program", 0, "pixels_per_program must be positive, got 0"),
        ("pixels_per_writer", 0, "pixels_per_writer must be positive, got 0"),
        ("residents", 0, "residents must be positive, got 0"),
        ("resident_writers", -1, "resident_writers must be positive, got -1"),
        ("num_warps", 1, "num_warps must be at least 2, got 1"),
        ("images_per_launch", 0, "images_per_launch must be positive, got 0"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_naming_the_field(field: str, value: object, message: str) -> None:
    valid: dict[str, Any] = {
        "variant": "two_phase",
        "block_pixels": 64,
        "block_channels": 16,
        "num_warps": 4,
        "pixels_per_program": 128,
        "images_per_launch": 1,
    }
    NormPlan(**valid)
    with pytest.raises(ValueError, match=message):
        NormPlan(**(valid | {field: value}))


@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_tile_that_cannot_hold_the_plane_is_refused(direction: launch.NormPass) -> None:
    with (
        launch.forcing(on_chip(16, 4)),
        pytest.raises(AssertionError, match="a tile of 16 pixels cannot hold a plane of 4x5"),
    ):
        run_norm(direction)


@pytest.mark.skipif(not triton_language.INTERPRETED, reason="a GPU runs the cooperative variant")
@pytest.mark.usefixtures("no_launches")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_cooperative_variant_is_refused_in_the_interpreter_where_it_would_wait_for_ever(
    direction: launch.NormPass,
) -> None:
    with (
        launch.forcing(launch.NormPlan("cooperative", 16, 4, 2, 16, 1)),
        pytest.raises(RuntimeError, match=r"the cooperative variant waits .* run it on a GPU"),
    ):
        run_norm(direction)


def run_norm(direction: launch.NormPass) -> None:
    if direction == "forward":
        norm_forward(X, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=1e-5)
    else:
        norm_backward(
            torch.zeros(2, 3, 6, 7, device=DEVICE),
            X,
            torch.zeros(2, 3, 3, device=DEVICE),
            activation="relu",
            negative_slope=0.0,
            pad=1,
        )


# --- tuned tables ----------------------------------------------------------------------------------------------------

GPU = Gpu("NVIDIA Test 1.5-GB", 90, 132, 60 << 20, 4800, 6600)
SHAPE = (1, 64, 32, 32)
KEY = "forward 1 x 1024 pixels, 64 channels, pad 1, bfloat16"


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path at which the table of `GPU` is looked for."""
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    launch.forget_tuned()
    yield tmp_path / "nvidia_test_1_5_gb.json"
    launch.forget_tuned()


def plan_by_table() -> NormPlan:
    return launch.norm_plan("forward", SHAPE, 1, torch.bfloat16, GPU)


def test_a_tuned_plan_overrides_the_rule_for_its_key_alone(tuned: Path) -> None:
    by_rule = plan_by_table()
    launch.tuned_table.cache_clear()
    launch._norm_plan.cache_clear()
    plan = NormPlan("two_phase", 32, 16, 4, 64, 1, residents=3)
    tuned.write_text(json.dumps({KEY: dataclasses.asdict(plan)}))
    expected = launch.divided(plan, "forward", SHAPE, 1, torch.bfloat16, GPU)
    assert plan_by_table() == expected != by_rule
    assert expected is not None
    assert (expected.block_pixels, expected.num_warps, expected.residents) == (32, 4, 3)
    assert launch.norm_plan("backward", SHAPE, 1, torch.bfloat16, GPU) == launch.norm_rule(
        "backward", SHAPE, 1, torch.bfloat16, GPU
    )


def test_a_tuned_convolution_says_whether_it_beats_the_library(tuned: Path) -> None:
    assert not launch.conv_beats_library(SHAPE, 64, torch.bfloat16, GPU)
    launch.tuned_table.cache_clear()
    plan = launch.ConvPlan(32, 32, 32, 4, 2)
    tuned.write_text(
        json.dumps(
            {
                "conv2d_reflect 1 x 1024 pixels, 64 to 64 channels, bfloat16": dataclasses.asdict(plan)
                | {"beats_library": True}
            }
        )
    )
    assert launch.conv_beats_library(SHAPE, 64, torch.bfloat16, GPU)
    assert launch.conv_plan(SHAPE, 64, torch.bfloat16, GPU) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .* restore it, or delete it to plan by rule"),
        ("", "is not JSON"),
        ("[1, 2]", "must hold an object of plans by shape, got list"),
        ("null", "must hold an object of plans by shape, got NoneType"),
    ],
)
def test_a_tuned_table_that_cannot_be_read_is_refused_naming_the_file(text: str, message: str, tuned: Path) -> None:
    tuned.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(tuned))} {message}"):
        plan_by_table()


def test_a_tuned_plan_that_cannot_run_is_refused_naming_the_field(tuned: Path) -> None:
    plan = dataclasses.asdict(NormPlan("two_phase", 32, 16, 4, 64, 1)) | {"block_pixels": 33}
    tuned.write_text(json.dumps({KEY: plan}))
    with pytest.raises(ValueError, match="block_pixels must be a power of two, got 33"):
        plan_by_table()
