"""Launches Triton's kernels: every launch goes through `run_kernel`. `plans` decides how large a launch is."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .failure import KernelFailure, is_of_the_kernel
from .triton_language import INSTALLED, INTERPRETED, triton

Grid = tuple[int, int, int]
Launcher = Callable[[Any, Grid, dict[str, Any], dict[str, Any]], None]


def run_kernel(kernel: Any, grid: Grid, arguments: Mapping[str, Any], **options: Any) -> None:
    """Launch a kernel on the current stream of the device that `x_ptr` is on.

    Args:
        kernel: a function under `triton.jit`.
        grid: the number of programs along each axis.
        arguments: by name; they may serve several kernels, and each takes those that it names.
        options: Triton's launch options, such as num_warps.

    Raises ValueError where the grid is larger than CUDA allows, and what `launch_kernel` raises.
    """
    if max(grid[1:]) > 65535:
        raise ValueError(f"a launch takes at most 65535 images and blocks of channels, got a grid of {grid}: split x")
    taken = {name: arguments[name] for name in kernel.arg_names}
    x: Tensor = taken["x_ptr"]
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        _launchers[-1](kernel, grid, taken, options)
    else:
        with torch.cuda.device(x.device):
            _launchers[-1](kernel, grid, taken, options)


@contextmanager
def launching_with(launcher: Launcher) -> Iterator[None]:
    """Send every launch through `launcher(kernel, grid, arguments, options)`, to count it or to leave it out."""
    _launchers.append(launcher)
    try:
        yield
    finally:
        _launchers.remove(launcher)


def launch_kernel(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    """Launch a kernel as `run_kernel` does unless `launching_with` says otherwise.

    Raises KernelFailure where Triton does not compile, load or launch the kernel.
    """
    try:
        kernel[grid](**arguments, **options)
    except Exception as error:  # Triton's errors have no type in common
        if not is_of_the_kernel(error):
            raise
        raise KernelFailure.of(kernel.__name__, arguments["x_ptr"].device, triton.__version__, error) from error


_launchers: list[Launcher] = [launch_kernel]


def run_in_interpreter(module: str, arguments: Sequence[str] | None, main: Callable[[], None]) -> int:
    """Run `main`, a command whose kernels need Triton's interpreter, and return the exit status.

    Where the interpreter is off, `python -m module` runs again in a new process with it on and gets `arguments`, or
    where they are None this process's own. Where Triton is not installed, a message says so and the status is 2.
    """
    if not INSTALLED:
        print(f"{module} needs the triton package, which has Linux wheels only", file=sys.stderr)
        return 2
    if INTERPRETED:
        main()
        return 0
    again = [sys.executable, "-m", module, *(sys.argv[1:] if arguments is None else arguments)]
    return subprocess.run(again, env=os.environ | {"TRITON_INTERPRET": "1"}, check=False).returncode
