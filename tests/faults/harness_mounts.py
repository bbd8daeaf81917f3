"""Mounts small file systems, and takes from a process what root may do beyond its files' modes; Linux only."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS of sched.h
_CAPABILITIES = 0x20080522  # the third version of capset's header


def can_mount(work: Path) -> bool:
    """Tell whether this process may mount a file system, as root outside of most containers may."""
    try:
        with tmpfs(work / "probe", "size=4k"):
            return True
    except PermissionError:
        return False


@contextmanager
def tmpfs(place: Path, *options: str) -> Iterator[Path]:
    """Mount an empty tmpfs at a folder as long as the context lasts; raises PermissionError where that is refused."""
    place.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)):
        raise PermissionError(f"no tmpfs with {options} can be mounted at {place}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def grow(place: Path, option: str) -> None:
    """Give a tmpfs more room."""
    if not _mount("-o", f"remount,{option}", str(place)):
        raise PermissionError(f"{place} cannot be mounted anew with {option}")


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode == 0


def with_small_shared_memory() -> None:
    """Put a tmpfs of one page at /dev/shm, seen by this process alone."""
    _called("unshare", ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/dev/shm"], check=True)


def without_powers() -> None:
    """Give up all of root's capabilities, so that the modes of files hold for this process as for anybody."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    nothing = (ctypes.c_uint32 * 6)()  # three sets of 64 bits
    _called("capset", ctypes.CDLL(None, use_errno=True).capset(header, nothing))


def _called(name: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
