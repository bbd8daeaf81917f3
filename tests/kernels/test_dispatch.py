"""Operators choose their implementation, and say why one cannot run."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cyclegan_fast.kernels import (
    Impl,
    conv2d_reflect,
    dispatch,
    instance_norm,
    reflection_pad,
    residual_block,
    triton_language,
)
from cyclegan_fast.kernels.cpu.compilation import is_compiled

X = torch.zeros(2, 3, 4, 5)
W = torch.zeros(3, 3, 3, 3)

OPERATORS: dict[str, Callable[[Impl], object]] = {
    "instance_norm": lambda impl: instance_norm(X, impl=impl),
    "reflection_pad": lambda impl: reflection_pad(X, 1, impl=impl),
    "conv2d_reflect": lambda impl: conv2d_reflect(X, W, impl=impl),
    "residual_block": lambda impl: residual_block(X, W, W, impl=impl),
}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(triton_language, "INTERPRETED", False)
    monkeypatch.setattr(triton_language, "INSTALLED", True)


@pytest.fixture
def on_gpu() -> Iterator[Tensor]:
    """Stands in for a tensor on a GPU; no GPU is needed to choose."""
    with FakeTensorMode():
        yield torch.empty(1, 2, 3, 4, device="cuda")


@pytest.mark.parametrize("call", OPERATORS.values(), ids=OPERATORS)
def test_triton_asked_for_by_name_on_a_cpu_tensor_raises_and_never_falls_back(call: Callable[[Impl], object]) -> None:
    with pytest.raises(RuntimeError, match="needs a CUDA tensor, got one on cpu; set TRITON_INTERPRET=1 before"):
        call("triton")


@pytest.mark.parametrize("call", OPERATORS.values(), ids=OPERATORS)
def test_the_environment_variable_replaces_auto_and_nothing_else(
    call: Callable[[Impl], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "triton")
    with pytest.raises(RuntimeError, match="impl='triton'"):
        call("auto")
    call("reference")
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "cuda")
    with pytest.raises(ValueError, match="CYCLEGAN_FAST_IMPL must be one of auto, triton, c, reference, got 'cuda'"):
        call("auto")
    call("reference")


@pytest.mark.parametrize("call", OPERATORS.values(), ids=OPERATORS)
def test_an_unknown_implementation_is_refused_by_name(call: Callable[[Impl], object]) -> None:
    with pytest.raises(ValueError, match="impl must be one of auto, triton, c, reference, got 'numba'"):
        call("numba")  # type: ignore[arg-type]  # the mistake under test


def test_the_environment_has_c_for_the_norm_and_the_pad_on_a_cpu_with_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert dispatch.choose("instance_norm", "auto", X) == "reference"
    monkeypatch.setenv("CYCLEGAN_FAST_IMPL", "c")
    expected = "c" if is_compiled() else "reference"
    assert dispatch.choose("instance_norm", "auto", X) == expected
    assert dispatch.choose("reflection_pad", "auto", X.bfloat16()) == expected
    assert dispatch.choose("residual_block", "auto", X) == "reference"
    assert dispatch.choose("instance_norm", "auto", X.half()) == "reference"
    assert dispatch.choose("instance_norm", "auto", X.double()) == "reference"


def test_auto_is_triton_on_a_gpu_and_the_reference_where_that_is_asked_for(
    on_gpu: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dispatch.choose("instance_norm", "auto", on_gpu) == "triton"
    assert dispatch.choose("instance_norm", "triton", on_gpu) == "triton"
    assert dispatch.choose("instance_norm", "reference", on_gpu) == "reference"
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "reference")
    assert dispatch.choose("instance_norm", "auto", on_gpu) == "reference"
    assert dispatch.choose("instance_norm", "triton", on_gpu) == "triton"


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(torch.compiler, "_is_exporting_flag", True), (torch.onnx, "is_in_onnx_export", lambda: True)],
    ids=["torch.export", "torch.onnx"],
)
def test_auto_is_the_reference_while_a_graph_is_being_exported(
    module: ModuleType, name: str, value: object, on_gpu: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    assert dispatch.choose("instance_norm", "auto", on_gpu) == "reference"
    assert dispatch.choose("instance_norm", "auto", X) == "reference"


def test_in_the_interpreter_a_cpu_tensor_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_language, "INTERPRETED", True)
    assert dispatch.choose("instance_norm", "triton", X) == "triton"
    assert dispatch.choose("instance_norm", "auto", X) != "triton"


def test_float64_is_the_references_alone(on_gpu: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.choose("instance_norm", "auto", on_gpu.double()) == "reference"
    with pytest.raises(TypeError, match=r"takes float32, float16 or bfloat16, got torch\.float64"):
        dispatch.choose("instance_norm", "triton", on_gpu.double())


def test_without_the_triton_package_auto_warns_and_an_explicit_choice_is_refused(
    on_gpu: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_language, "INSTALLED", False)
    with pytest.raises(RuntimeError, match="needs the triton package, which has Linux wheels only"):
        dispatch.choose("instance_norm", "triton", on_gpu)
    with pytest.warns(UserWarning, match="triton is not installed"):
        assert dispatch.choose("instance_norm", "auto", on_gpu) == "reference"


def test_the_operators_import_and_compute_where_triton_is_not_installed() -> None:
    program = """
import sys
sys.modules["triton"] = None  # makes the import fail
import torch
from cyclegan_fast import kernels
x = torch.randn(1, 2, 4, 4)
assert kernels.instance_norm(x, pad=1).shape == (1, 2, 6, 6)
try:
    kernels.instance_norm(x, impl="triton")
except RuntimeError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "needs the triton package" in result.stdout
