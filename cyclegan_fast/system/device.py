"""Chooses the device and the precision to compute in, and asks devices for memory, random states and their names."""

import os
import platform
import resource
import sys

import torch
from torch import Tensor

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import check_threads, check_threads_start
from cyclegan_fast.system.words import counted


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device where there is one and the CPU elsewhere.

    Raises UserError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"--device {name}: PyTorch {torch.__version__} sees no CUDA device here "
                f"({reason_against_cuda()}); use --device cpu"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there {_are_devices(torch.cuda.device_count())}")
    return device


def _are_devices(count: int) -> str:
    return "is 1 CUDA device, cuda:0" if count == 1 else f"are {count} CUDA devices, cuda:0 to cuda:{count - 1}"


def reason_against_cuda() -> str:
    """Return why PyTorch sees no CUDA device, in its words: that there is no driver, that it is too old, and so on."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except (RuntimeError, AssertionError) as error:  # a build without CUDA raises AssertionError
        return first_line(error).rstrip(".")
    return "it does not say why"


def remark_on_choice(name: str, device: torch.device) -> str | None:
    """Return a sentence where "auto" gave the CPU to a PyTorch that is built for CUDA; else None."""
    if name != "auto" or device.type != "cpu" or torch.version.cuda is None:
        return None
    return (
        f"computing on the CPU: PyTorch {torch.__version__} is built for CUDA {torch.version.cuda} and sees no such "
        f"device ({reason_against_cuda()})"
    )


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 matrices, instead of emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def working_dtype(device: torch.device, amp: bool, amp_dtype: str) -> tuple[torch.dtype, str | None]:
    """Return the precision of convolutions and fused operators, and a sentence for the user where one is needed.

    Without `amp` it is float32. "auto" is bfloat16 where the hardware has it; elsewhere it is float16 on a GPU, and
    float32 on a CPU, which has nothing faster.
    """
    if not amp:
        return torch.float32, None
    if amp_dtype == "auto":
        if has_bfloat16(device):
            return torch.bfloat16, None
        if device.type == "cuda":
            return torch.float16, "--amp computes in float16 with loss scaling, since this GPU has no bfloat16"
        return (
            torch.float32,
            "--amp changes nothing: this processor has no bfloat16 instructions, so it computes in float32",
        )
    if device.type == "cpu" and amp_dtype == "float16":
        return torch.float16, "--amp-dtype float16 is very slow on a CPU"
    if amp_dtype == "bfloat16" and not has_bfloat16(device):
        return torch.bfloat16, f"--amp-dtype bfloat16 is emulated on this {device.type}, and slower than float32"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp_dtype], None


def use_threads(threads: int | None) -> None:
    """Let PyTorch compute with so many threads on the CPU; None leaves it at one for each processor.

    Raises UserError where the machine has fewer processors, or the system does not start so many.
    """
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    check_threads_start(torch.get_num_threads())


def memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Return the memory format of networks on a device: the one that is faster by measurement (LOG.md, 2026-11-26).

    On a GPU tensor cores take channels last, and the fused operators write it. On a CPU bfloat16 gains by it, and
    float32 loses where there is no AVX-512.
    """
    gains = device.type == "cuda" or dtype == torch.bfloat16
    return torch.channels_last if gains else torch.contiguous_format


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def set_determinism(wanted: bool, *, sizes_repeat: bool = True, compiled: bool = False) -> None:
    """Ask PyTorch for the same bits for the same input, on a GPU too; or else let cuDNN time its algorithms.

    Args:
        sizes_repeat: whether images come in a few sizes. cuDNN times all of its algorithms for each new one, which
            takes longer than it saves where every image brings a size of its own.
        compiled: whether the networks go through torch.compile, whose code is to be deterministic, too. That alone
            imports the compiler, for two seconds or more.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiled:
        torch.use_deterministic_algorithms(wanted)
    else:
        torch.set_deterministic_debug_mode("error" if wanted else "default")
    torch.backends.cudnn.benchmark = sizes_repeat and not wanted


def random_state(device: torch.device) -> Tensor:
    """Return the state of PyTorch's own random numbers on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Let PyTorch's random numbers on a device go on from a state that `random_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def ready_to_copy(values: Tensor, device: torch.device) -> Tensor:
    """Return `values` in memory of the host that `device` copies from while the host goes on: pinned for a GPU."""
    is_ready = device.type != "cuda" or values.is_cuda or values.is_pinned()
    return values if is_ready else values.pin_memory()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message: PyTorch's messages go on with advice for programmers."""
    return str(error).partition("\n")[0]


def peak_gib(device: torch.device) -> float:
    """Return the most memory in GiB that this process took so far: PyTorch's tensors on a GPU, everything on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    in_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return in_kib / 2**20


def describe(device: torch.device) -> str:
    """Return the device's name for a report, such as "NVIDIA H200" or "CPU, 2 threads (AVX512)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {counted(torch.get_num_threads(), 'thread')} ({torch.backends.cpu.get_cpu_capability()})"
