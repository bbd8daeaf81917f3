"""Explains a device's errors (out of memory, a kernel that cannot run) in one sentence that says what to do next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cyclegan_fast.kernels.dispatch import ENVIRONMENT_VARIABLE
from cyclegan_fast.kernels.failure import KernelFailure
from cyclegan_fast.system.device import choose_device, describe, first_line
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.shortage import DoesNotFit, is_out_of_memory

BY_ENVIRONMENT = f"{ENVIRONMENT_VARIABLE}=reference in its environment"


@contextmanager
def told_of_translation(device_name: str) -> Iterator[None]:
    """Turn what a device raises in a command that only translates into a UserError that names a way to go on."""
    try:
        yield
    except DoesNotFit:
        raise
    except (RuntimeError, MemoryError) as error:
        device = choose_device(device_name)
        said = device_failure(error, device, BY_ENVIRONMENT)
        if is_out_of_memory(error):
            said = f"the memory of {device} does not suffice: lower --batch-size, or give a smaller --size"
        if said is None:
            raise
        raise UserError(said) from error


def device_failure(error: Exception, device: torch.device, without_kernels: str) -> str | None:
    """Return what to tell the user of a kernel that cannot run, or a device that takes no more work; else None.

    Args:
        without_kernels: a flag or setting that, added to the same command, leaves the fused kernels out.
    """
    if isinstance(error, KernelFailure):
        return f"{error}; the same command with {without_kernels} goes on with PyTorch's own operators"
    said = first_line(error)
    if "no kernel image" in said:
        built_for = ", ".join(torch.cuda.get_arch_list())
        major, minor = torch.cuda.get_device_capability(device)
        return (
            f"PyTorch {torch.__version__} has no code for {describe(device)} (sm_{major}{minor}), but for {built_for}: "
            "install a build that has, or use --device cpu"
        )
    if isinstance(error, torch.AcceleratorError) or said.startswith(("CUDA error", "Triton Error [CUDA]")):
        return (
            f"{device} reported '{said}', which it may do long after the cause: the same command with "
            f"CUDA_LAUNCH_BLOCKING=1 in its environment shows where it happens, and with {without_kernels} whether "
            "the fused kernels have a part in it"
        )
    return None
