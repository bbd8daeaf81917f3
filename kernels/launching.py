"""Launches Triton's kernels: the one place from which they are launched."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kernels.failure import KernelFailure, is_of_the_kernel
from kernels.triton_language import INSTALLED, INTERPRETED, triton

Grid = tuple[int, int, int]
Launcher = Callable[[Any, Grid, dict[str, Any], dict[str, Any]], None]


def run_kernel(kernel: Any, grid: Grid, arguments: Mapping[str, Any], **options: Any) -> None:
    """Launch on the current stream of the device that `x_ptr` is on.

    `arguments` may serve several kernels: each takes those it names. `options` are Triton's, such as num_warps.
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
    """What `run_kernel` does unless told otherwise.

    Raises KernelFailure where Triton does not compile, load or launch the kernel.
    """
    try:
        kernel[grid](**arguments, **options)
    except Exception as error:  # of Triton, whose errors have no type in common
        if not is_of_the_kernel(error):
            raise
        raise KernelFailure.of(kernel.__name__, arguments["x_ptr"].device, triton.__version__, error) from error


_launchers: list[Launcher] = [launch_kernel]


def run_in_interpreter(module: str, arguments: Sequence[str] | None, main: Callable[[], None]) -> int:
    """The exit status of `main`, a command whose kernels need Triton's interpreter.

    Where that is off, `python -m module` runs again with it on: `arguments`, or where they are None this process's own,
    are handed over. Without Triton it says so and gives status 2.
    """
    if not INSTALLED:
        print(f"{module} needs the triton package, which has Linux wheels only", file=sys.stderr)
        return 2
    if INTERPRETED:
        main()
        return 0
    again = [sys.executable, "-m", module, *(sys.argv[1:] if arguments is None else arguments)]
    return subprocess.run(again, env=os.environ | {"TRITON_INTERPRET": "1"}, check=False).returncode
