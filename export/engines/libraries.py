"""Finds the TensorRT that is installed: `tensorrt`, or TensorRT for RTX.

The latter has the same interface and builds without a GPU.
"""

import ctypes
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from cyclegan_fast.system.errors import UserError

Runtime = Literal["auto", "tensorrt", "rtx"]

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_INSTALL = {
    "tensorrt": "`pip install 'cyclegan-fast[tensorrt]'` (fetched from NVIDIA's own index, needs an NVIDIA GPU)",
    "rtx": "`pip install 'cyclegan-fast[rtx]'` (builds without a GPU)",
}
_WITHOUT = "ONNX files need neither: python export/to_onnx.py, python export/run.py --onnx FILE"


@dataclass(frozen=True)
class Library:
    """Holds an installed TensorRT; `module` is typed Any, as the two have no stubs in common."""

    module: Any
    name: str
    version: str

    @property
    def is_rtx(self) -> bool:
        return self.name == MODULES["rtx"]


def choose_library(runtime: Runtime) -> Library:
    """Return the library to build with: for "auto" tensorrt if it is installed beside a GPU, else tensorrt_rtx.

    Raises UserError saying what to install where it is missing or cannot be used.
    """
    if runtime == "auto":
        runtime = "tensorrt" if gpu_count() and _is_installed("tensorrt") else "rtx"
    elif runtime == "tensorrt" and not gpu_count():
        raise UserError(
            "--runtime tensorrt needs an NVIDIA GPU to build and there is none here: "
            "--runtime rtx builds without one for RTX GPUs"
        )
    return load_library(MODULES[runtime])


def load_library(name: str) -> Library:
    """Import the library of that module's name, one of MODULES.

    Raises UserError where it cannot be imported or is incomplete.
    """
    (runtime,) = (key for key, module in MODULES.items() if module == name)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} cannot be imported ({error}): {_INSTALL[runtime]}. {_WITHOUT}") from error
    _require_builder(module, name, runtime)
    return Library(module, name, module.__version__)


def _require_builder(module: ModuleType, name: str, runtime: str) -> None:
    # The package of that name on PyPI is empty until its libraries were fetched.
    if not hasattr(module, "Builder"):
        raise UserError(f"{name} is installed without its libraries: {_INSTALL[runtime]}. {_WITHOUT}")


def _is_installed(runtime: str) -> bool:
    try:
        return hasattr(importlib.import_module(MODULES[runtime]), "Builder")
    except ImportError:
        return False


def gpu_count() -> int:
    """Return the number of CUDA devices by the driver itself, as PyTorch may not be there; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def capability_here() -> int:
    """Return the compute capability of the GPU that TensorRT builds for, 90 for Hopper; it asks PyTorch."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
