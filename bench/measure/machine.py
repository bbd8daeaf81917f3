"""Describes the machine and the versions that a measurement was made with."""

import datetime
import functools
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from cyclegan_fast.kernels.triton_language import INSTALLED
from cyclegan_fast.system.device import has_bfloat16
from cyclegan_fast.version import __version__

ROOT = Path(__file__).parents[2]
COMMIT_VARIABLE = "CYCLEGAN_FAST_COMMIT"
DRY_RUN = "dry run of tiny networks"
"""The end of the device's name in every result of tiny networks."""


@dataclass(frozen=True)
class Stamp:
    """Says which machine, versions and commit a measurement was made with; it stands beside every measurement."""

    device: str
    """for example "NVIDIA H200" or "AMD EPYC, 2 threads, AVX512 bf16"."""
    date: str
    """UTC, ISO 8601"""
    commit: str
    """with "+" where files of the tree had been changed; "unknown" in a checkout without git"""
    project: str
    torch: str
    triton: str
    cuda: str
    """the CUDA that PyTorch was built with; "none" on a CPU"""
    driver: str
    python: str
    threads: int
    """the number of PyTorch's threads on the host"""
    clocks: str
    """the clocks when it began: a GPU's as nvidia-smi says them, a CPU's as its kernel does"""


def stamp(device: torch.device) -> Stamp:
    is_gpu = device.type == "cuda"
    return Stamp(
        device=device_name(device),
        date=utc_now(),
        commit=commit(),
        project=__version__,
        torch=torch.__version__,
        triton=triton_version(),
        cuda=str(torch.version.cuda) if is_gpu else "none",
        driver=nvidia_smi("driver_version", device) if is_gpu else "none",
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        clocks=clocks(device),
    )


def utc_now() -> str:
    """Return the time in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """Return the device's model, and for a CPU what else its speed depends on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = " bf16" if has_bfloat16(device) else ""
    return f"{_cpu_model()}, {torch.get_num_threads()} threads, {capability}{bf16}"


def triton_version() -> str:
    if not INSTALLED:
        return "none"
    import triton

    return str(triton.__version__)


def clocks(device: torch.device) -> str:
    if device.type == "cuda":
        return nvidia_smi("clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw", device)
    return f"{_cpu_info('cpu MHz') or 'unknown'} MHz"


def nvidia_smi(query: str, device: torch.device) -> str:
    """Return the answer of the driver's tool about that GPU, or "unknown" where the tool is missing."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    # The driver counts all GPUs, PyTorch those of CUDA_VISIBLE_DEVICES.
    command += ["-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.strip().splitlines()[0] if answer.strip() else "unknown"


@functools.cache
def commit() -> str:
    """Return the commit of this tree.

    The environment variable CYCLEGAN_FAST_COMMIT tells a copy without git.
    """
    if told := os.environ.get(COMMIT_VARIABLE):
        return told
    try:
        short = _git("rev-parse", "--short", "HEAD")
        # Results change with every run, but are not what is measured.
        pages = (":!bench/results", ":!docs/benchmarks.md")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *pages)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return short + ("+" if changed else "")


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    return answer.stdout.strip()


@functools.cache
def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
