"""Knows the errors which say that memory or threads cannot be had, and says so in one sentence; needs no PyTorch.

`errors.run_command` says it for every command. Where it is known which flags need less, `trouble.told_of_translation`
and its like of a training say that instead.
"""

import errno
import re

_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "Cannot allocate memory",  # the system's own words, as libraries hand them on
    "bad_alloc",
    "Storage size calculation overflowed",  # PyTorch's words for more bytes than there are addresses
    "integer multiplication overflow",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_OF_ONEDNN = "could not create a primitive"  # no memory for the code of a convolution; it gives no reason
_OF_LIBRARIES = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")  # the dynamic linker's
_OF_THREADS = ("can't start new thread", "Resource temporarily unavailable")
_ASKED_BYTES = re.compile(r"tried to allocate (\d+) bytes")
_ASKED = re.compile(r"(?:Unable|[Tt]ried) to allocate ([\d.]+ [KMGTPE]i?B)")


class DoesNotFit(MemoryError):
    """Says in one line, which is for the user, what does not fit the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that the memory of the device or of the host does not suffice.

    It may be Python's, NumPy's or Pillow's MemoryError, PyTorch's own, the system's, the CUDA driver's as PyTorch or
    Triton hand it on, or that of one of NVIDIA's libraries.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):  # libraries that a command needs late
        return any(part in str(error) for part in _OF_LIBRARIES)
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    if said.strip() == _OF_ONEDNN:
        return True
    return type(error).__name__ == "OutOfMemoryError" or any(part in said for part in _OF_MEMORY)


def is_out_of_threads(error: BaseException) -> bool:
    """Tell whether an exception says that the system starts no more threads."""
    if isinstance(error, BlockingIOError | RuntimeError):
        return any(part in str(error) for part in _OF_THREADS)
    return False


def sentence_on_shortage(error: BaseException) -> str | None:
    """Return what to tell the user where memory or threads cannot be had; None of any other error."""
    if isinstance(error, DoesNotFit):
        return str(error)
    if is_out_of_memory(error):
        asked = amount_asked(str(error))
        return (
            f"the memory does not suffice{f' ({asked} were asked for at once)' if asked else ''}: give smaller sizes, "
            "batches or networks, end other programs, or raise the limit that this process has (ulimit -v)"
        )
    if is_out_of_threads(error):
        return (
            "the system starts no more threads: give a smaller --threads or --workers, end other programs, or raise "
            "the limits that this process has (ulimit -u, ulimit -v)"
        )
    return None


def amount_asked(said: str) -> str | None:
    """Return how much memory an error's message says was asked for, such as "1.5 GiB"; None where it does not say."""
    if found := _ASKED_BYTES.search(said):
        return f"{int(found[1]) / 2**30:.3g} GiB"
    found = _ASKED.search(said)
    return found[1] if found else None
