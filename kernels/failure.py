"""Defines the one exception that is raised where Triton does not compile, load or launch a kernel, and its advice."""

import subprocess

import torch

# These errors tell of the device or of an earlier kernel: CUDA reports them at whatever is asked of it next, and they
# say nothing about the kernel that is launched.
OF_THE_DEVICE = (
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "illegal address",
    "invalid program counter",
    "invalid address space",
    "unspecified launch failure",
    "device-side assert",
    "hardware stack error",
    "launch timed out",
    "uncorrectable",
    "has fallen off the bus",
)
OF_MEMORY = ("out of memory",)

COMPILER = "Triton needs a C compiler (Debian: gcc) and Python's headers (Debian: python3-dev)"
NEWER_DRIVER = "the NVIDIA driver is too old for this Triton: update it"
NEWER_TRITON = "this Triton does not know the GPU: install a newer one"
LIBRARY = "Triton looks for the driver's libcuda.so.1 by /sbin/ldconfig -p"
CACHE = "Triton writes what it compiles to ~/.triton; TRITON_CACHE_DIR names another folder"

ADVICE = {
    "C compiler": COMPILER,
    "Python.h": COMPILER,
    "'-shared'": COMPILER,  # it stands in the command of the compiler that failed
    "driver version is insufficient": NEWER_DRIVER,
    "unsupported toolchain": NEWER_DRIVER,
    "kernel image": NEWER_DRIVER,
    "PTX JIT": NEWER_DRIVER,
    "option 'gpu-name'": NEWER_TRITON,
    "libcuda": LIBRARY,
    "ldconfig": LIBRARY,
    "active drivers": LIBRARY,
    "Permission denied": CACHE,
    "Read-only file system": CACHE,
    "No space left": CACHE,
}
"""Advice to the user, by a part of the error's text"""

LONGEST = 240  # characters of a reason, at most


class KernelFailure(RuntimeError):
    """Says that this machine does not compile, load or launch a fused kernel; `impl="reference"` runs without it.

    Args:
        kernel: the kernel's name.
        gpu: the device that it was to run on, and the version of Triton.
        reason: Triton's message in one line.
        advice: a sentence on what to do; empty where none is known.
    """

    def __init__(self, kernel: str, gpu: str, reason: str, advice: str = "") -> None:
        super().__init__(f"the fused kernel {kernel} does not run on {gpu}: {reason}{f' ({advice})' if advice else ''}")
        self.kernel = kernel
        self.gpu = gpu
        self.reason = reason
        self.advice = advice

    @staticmethod
    def of(kernel: str, device: torch.device, triton_version: str, error: Exception) -> "KernelFailure":
        """Make the exception from `error`, which Triton raised for a kernel on a device."""
        said = f"{error}"
        advice = next((what for needle, what in ADVICE.items() if needle in said), "")
        if isinstance(error, FileNotFoundError) and not advice:
            advice = COMPILER
        return KernelFailure(kernel, f"{_described(device)} with Triton {triton_version}", _reason_of(error), advice)


def is_of_the_kernel(error: Exception) -> bool:
    """Return whether an error that a launch raised means that this kernel cannot run.

    It does not mean that where memory ran out, where an earlier kernel broke the device, or where Triton's interpreter
    met a mistake in the kernel's own code, whose traceback is needed.
    """
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return False
    said = str(error)
    return type(error).__name__ != "InterpreterError" and not any(part in said for part in OF_THE_DEVICE + OF_MEMORY)


def _reason_of(error: Exception) -> str:
    """Return the line of an error's text that says the most, after the error's type unless that is RuntimeError."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0] if isinstance(error.cmd, list) else error.cmd} ended with status {error.returncode}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    of_assembler = [line for line in lines if "ptxas" in line and ("fatal" in line or "error  " in line)]
    if of_assembler:
        chosen = of_assembler[0]
    elif type(error).__name__.startswith("Compil"):  # Triton's error says first where in the source, then what is wrong
        chosen = lines[-1]
    else:
        chosen = lines[0]
    named = chosen if isinstance(error, RuntimeError) else f"{type(error).__name__}: {chosen}"
    return named if len(named) <= LONGEST else f"{named[:LONGEST]}..."


def _described(device: torch.device) -> str:
    if device.type != "cuda":
        return f"the {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"
