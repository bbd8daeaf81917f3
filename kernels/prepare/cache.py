"""Asks Triton's cache on disk for variants, and fills it, for a GPU that need not be there.

Triton's own JIT compiles, through the call that a launch makes. All that it asks a driver before it compiles is the
target, so that a stand-in which knows the target fills the same cache as a launch on such a GPU. A later launch finds a
variant there where these are the same: Triton's version and files, the kernel's source, types, constants and alignment
of the arguments, the compute capability, the options of the launch, `ptxas`, and the environment variables that Triton
takes into its key (`TRITON_DEBUG` and other TRITON_ and LLVM_ ones, `get_cache_invalidating_env_vars`).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ..checking.ahead import warm_up
from ..checking.specialisations import Specialisation

WARP_SIZE = 32  # of every NVIDIA GPU


class StandInDriver:
    """Answers what Triton asks a driver before it compiles, as that of a GPU would; it can launch nothing."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, WARP_SIZE)

    def get_current_device(self) -> int:
        """Return a number that no other target has: the JIT keeps a target, and what it compiled, by this number."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def standing_in(capability: int) -> Iterator[None]:
    """Let Triton compile for a compute capability, such as 90, whatever this machine has. Nothing can be launched."""
    from triton.runtime import driver

    before = driver._active  # the property would look for a GPU
    driver.set_active(StandInDriver(capability))
    try:
        yield
    finally:
        driver._active = before


class _NotThereError(Exception):
    """Says that Triton's cache does not have what was looked for."""


def not_in_cache(wanted: Iterable[Specialisation]) -> list[Specialisation]:
    """Return the variants that Triton would compile at their launch, for the GPU of its driver; compiles nothing.

    What is found is read from the disk, and this process keeps it for its launches.
    """
    from triton.compiler import compiler

    find_manager = compiler.get_cache_manager

    def looking(key: str) -> Any:
        manager = find_manager(key)
        find_group = manager.get_group

        def get_group(filename: str) -> Any:
            group = find_group(filename)
            if not group:
                raise _NotThereError
            return group

        manager.get_group = get_group
        return manager

    missing = []
    with mock.patch.object(compiler, "get_cache_manager", looking):
        for one in wanted:
            try:
                warm_up(one)
            except Exception:  # it is not there, or Triton refuses it, which compiling it will say
                missing.append(one)
    return missing


def compile_into_cache(specialisation: Specialisation) -> str:
    """Compile one variant for its compute capability, without a GPU; return why it failed, or nothing."""
    with standing_in(specialisation.capability):
        try:
            warm_up(specialisation)
        except Exception as error:  # whatever a compiler raises is reported, and the next variant follows
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


def always_compiles() -> bool:
    """Tell whether Triton is asked to leave its cache aside (TRITON_ALWAYS_COMPILE)."""
    from triton import knobs

    return bool(knobs.compilation.always_compile)


def cache_folder() -> str:
    """Return the folder in which Triton keeps what it compiled."""
    from triton import knobs

    return str(knobs.cache.dir)
