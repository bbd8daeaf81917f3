"""Checks that a lack of memory or threads is one sentence at every door, whatever library noticed it."""

import errno
import mmap
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.process import available_bytes, check_threads_start
from cyclegan_fast.system.shortage import amount_asked, is_out_of_memory, sentence_on_shortage
from cyclegan_fast.system.trouble import told_of_translation

ROOT = Path(__file__).parents[3]


def raised(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def ask_pillow() -> Image.Image:
    """Ask for more than the process may have: without a limit, Pillow takes GiB after GiB first, for ten seconds."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (2 << 30), before[1]))
    try:
        return Image.new("RGB", (2**28, 2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


ASKING = {
    "python": lambda: bytes(2**62),
    "numpy": lambda: np.empty(2**52, np.uint8),
    "pillow": ask_pillow,
    "pytorch": lambda: torch.empty(2**52, dtype=torch.uint8),
    "pytorch, beyond addresses": lambda: torch.empty(2**40, 2**40),
    "a convolution": lambda: torch.nn.Conv2d(2**24, 2**24, 3),
    "the system": lambda: mmap.mmap(-1, 2**52),
    "a library in C++": raised(RuntimeError("std::bad_alloc")),
    "oneDNN": raised(RuntimeError("could not create a primitive")),
    "the dynamic linker": raised(ImportError("x.so: failed to map segment from shared object")),
    "cuda": raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")),
    "cublas": raised(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING)
def test_a_lack_of_memory_is_one_sentence(asking: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(asking) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the memory does not suffice")
    assert "ulimit -v" in line


@pytest.mark.parametrize("asking", [ASKING["python"], ASKING["numpy"], ASKING["pytorch"]])
def test_commands_that_translate_name_their_flags(
    asking: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        with told_of_translation("cpu"):
            return asking()

    assert run_command(command) == 2
    assert "error: the memory of cpu does not suffice: lower --batch-size, or" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["can't start new thread", "Resource temporarily unavailable"])
def test_a_lack_of_threads_is_one_sentence(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raised(RuntimeError(said))) == 2  # type: ignore[arg-type]  # it returns nothing
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the system starts no more threads: give a smaller --threads or --workers")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), ImportError("no module"), KeyError("memory")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert sentence_on_shortage(error) is None
    with pytest.raises(type(error)):
        run_command(raised(error))  # type: ignore[arg-type]  # it returns nothing


def test_what_was_asked_for_is_said() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**52, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**52, np.uint8)
    assert amount_asked(str(of_torch.value)) == f"{2**22:.3g} GiB"
    assert amount_asked(str(of_numpy.value)) == "4.00 PiB"
    assert amount_asked("Tried to allocate 20.00 GiB. GPU 0") == "20.00 GiB"
    assert amount_asked("std::bad_alloc") is None
    assert not is_out_of_memory(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def test_threads_that_do_not_start_are_found_before_openmp_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, start = threading.active_count(), threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        start(thread)

    check_threads_start(8)
    assert threading.active_count() == before
    monkeypatch.setattr(threading.Thread, "start", start_one)
    check_threads_start(2)
    assert run_command(lambda: check_threads_start(8) or 0) == 2
    assert re.search(r"error: the system starts ([12]) of 8 threads: give --threads \1, ", capsys.readouterr().err)


LIMITED = """
import resource
from cyclegan_fast.system.process import available_bytes

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
print(available_bytes())
"""


def test_a_limit_of_addresses_is_a_limit_of_memory() -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < int(ended.stdout) < min(2 << 30, available_bytes())
