"""Errors as Triton 3.6 to 3.8 raise them, and what is made of them."""

import subprocess
from typing import Any

import pytest
import torch

from cyclegan_fast.kernels import triton_language
from cyclegan_fast.kernels.failure import KernelFailure
from cyclegan_fast.kernels.launching import launch_kernel

needs_triton = pytest.mark.skipif(not triton_language.INSTALLED, reason="Triton is not installed")


class Kernel:
    """Raises an error when it is launched."""

    __name__ = "instance_norm_on_chip"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, **arguments: Any) -> None:
        raise self.error


def launch(error: Exception) -> None:
    launch_kernel(Kernel(error), (1, 1, 1), {"x_ptr": torch.ones(1)}, {"num_warps": 8})


def of_triton(name: str, *arguments: Any) -> Exception:
    from triton.runtime import errors

    error: Exception = getattr(errors, name)(*arguments)
    return error


def of_source() -> Exception:
    from triton.compiler.errors import CompilationError

    return CompilationError(None, None, "NameError('tl.gather2d is not defined')")  # type: ignore[arg-type]  # no node here


PTXAS = """Internal Triton PTX codegen error
`ptxas` stderr:
ptxas-blackwell fatal   : Value 'sm_130a' is not defined for option 'gpu-name'

Repro command: ptxas -lineinfo -v --gpu-name=sm_130a /tmp/x.ptx -o /tmp/x.ptx.o
"""
GCC = ["/usr/bin/gcc", "/tmp/x/main.c", "-O3", "-shared", "-fPIC", "-o", "/tmp/x/main.so"]
CASES = {
    "no compiler": (
        lambda: RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        "Failed to find C compiler",
        "gcc",
    ),
    "no headers": (lambda: subprocess.CalledProcessError(1, GCC), "/usr/bin/gcc ended with status 1", "python3-dev"),
    "a compiler that is not there": (
        lambda: FileNotFoundError(2, "No such file or directory", "gcc-15"),
        "No such file or directory: 'gcc-15'",
        "gcc",
    ),
    "a GPU that ptxas does not know": (
        lambda: of_triton("PTXASError", PTXAS),
        "Value 'sm_130a' is not defined for option 'gpu-name'",
        "install a newer one",
    ),
    "too much shared memory": (
        lambda: of_triton("OutOfResources", 300000, 101376, "shared memory"),
        "shared memory, Required: 300000, Hardware limit: 101376",
        "",
    ),
    "the language": (of_source, "tl.gather2d is not defined", ""),
    "a driver that is too old": (
        lambda: RuntimeError("Triton Error [CUDA]: the provided PTX was compiled with an unsupported toolchain."),
        "unsupported toolchain",
        "the NVIDIA driver is too old",
    ),
    "no image for the GPU": (
        lambda: RuntimeError("Triton Error [CUDA]: no kernel image is available for execution on the device"),
        "no kernel image",
        "the NVIDIA driver is too old",
    ),
    "no driver library": (
        lambda: AssertionError(
            'libcuda.so cannot found!\nPlease make sure GPU is set up and then run "/sbin/ldconfig"'
        ),
        "AssertionError: libcuda.so cannot found!",
        "libcuda.so.1",
    ),
    "a launcher that does not load": (
        lambda: ImportError("/root/cache/launcher.so: failed to map segment from shared object"),
        "ImportError: /root/cache/launcher.so: failed to map segment",
        "",
    ),
    "a folder that is full": (
        lambda: OSError(28, "No space left on device", "/home/x/.triton/cache"),
        "No space left on device: '/home/x/.triton/cache'",
        "TRITON_CACHE_DIR",
    ),
    "another interface": (lambda: KeyError("Keyword argument maxnreg was specified but unrecognised"), "maxnreg", ""),
    "a pass of the compiler": (lambda: RuntimeError("PassManager::run failed"), "PassManager::run failed", ""),
}


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_what_triton_refuses_is_one_exception_that_names_kernel_and_reason(name: str) -> None:
    make, reason, advice = CASES[name]
    error = make()
    with pytest.raises(KernelFailure) as caught:
        launch(error)
    failure = caught.value
    assert failure.__cause__ is error
    assert failure.kernel == "instance_norm_on_chip"
    assert reason in failure.reason
    assert advice in failure.advice
    assert bool(advice) == bool(failure.advice)
    said = str(failure)
    assert said.startswith("the fused kernel instance_norm_on_chip does not run on the cpu with Triton 3.")
    assert reason in said
    assert "\n" not in said


@needs_triton
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError("Triton Error [CUDA]: out of memory"),
        lambda: RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        lambda: torch.AcceleratorError("CUDA error: misaligned address"),
        lambda: of_triton("InterpreterError", "IndexError('of the kernel itself')"),
        KeyboardInterrupt,
    ],
)
def test_what_is_not_the_kernels_failure_stays_what_it_is(make: Any) -> None:
    error = make()
    with pytest.raises(type(error)) as caught:
        launch(error)
    assert caught.value is error


@needs_triton
def test_a_long_reason_is_cut() -> None:
    with pytest.raises(KernelFailure) as caught:
        launch(ValueError("x" * 5000))
    assert len(str(caught.value)) < 500


def test_the_gpu_is_named_with_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X900")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (13, 0))
    failure = KernelFailure.of("pad", torch.device("cuda", 1), "3.7.1", RuntimeError("no\nmore"))
    assert str(failure) == "the fused kernel pad does not run on NVIDIA X900 (sm_130) with Triton 3.7.1: no"
