"""Compiles `operators.c` for this machine's CPU at first use, keeps what was compiled, and loads it.

Any C compiler will do that knows `-march=native` and OpenMP: $CC, or gcc, clang or cc. What it made lies in the folder
`operators` of $CYCLEGAN_FAST_CACHE, or else of $XDG_CACHE_HOME/cyclegan-fast or ~/.cache/cyclegan-fast, under a name
that depends on the source, the command and the CPU. It runs as the user who loads it, so nothing is loaded that another
user could have put there: the folder is the user's own, and nobody else may write to it.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

CACHE_VARIABLE = "CYCLEGAN_FAST_CACHE"
_HERE = Path(__file__).parent
_SOURCES = ("operators.c", "of_dtype.h")
_VECTORS = ("-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno")
"""The last two change no result. Without them GCC makes no vectors of a choice by sign where there is no AVX-512, and a
forward pass takes 20 times as long (2026-11-30)."""
_OPTIONS = (*_VECTORS, "-fopenmp", "-shared", "-fPIC", "-std=gnu11")
_LONGEST_S = 120


class NotCompiled(RuntimeError):
    """Says why the operators in C are not there: no compiler, or none that compiles them, or no place to keep them."""


def is_compiled() -> bool:
    """Return whether the operators in C run here; compile them at the first call.

    Off Linux they do not. On Linux a UserWarning says once why they do not, and what to do.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library()
    except NotCompiled as error:
        _warn_once(str(error))
        return False
    return True


# What `torch.compiler.assume_constant_result` does, which imports the whole of torch._dynamo for it: a second that
# every command would wait. Compiled graphs take the answer as it is.
is_compiled._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's mark


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"plain operators run on the CPU instead of fused ones: {reason}", stacklevel=6)


@functools.cache
def _loaded() -> "ctypes.CDLL | NotCompiled":
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, ValueError) as error:  # no home, say, or a compiler's words in another encoding
        return error if isinstance(error, NotCompiled) else NotCompiled(f"they cannot be kept or loaded: {error}")


def library() -> ctypes.CDLL:
    """Return the compiled operators; raises NotCompiled, each time for the first time's reason."""
    found = _loaded()
    if isinstance(found, NotCompiled):
        raise found
    return found


def _compiled() -> Path:
    command = [_compiler(), *_OPTIONS, str(_HERE / _SOURCES[0]), "-lm", "-o"]
    path = _cache_folder() / "operators" / f"{_fingerprint(command)}.so"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(path.parent)
    if path.exists():
        _check_owner(path)
        return path
    # Several processes may compile at once: each writes a file of its own, and the last one stays.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        try:
            subprocess.run([*command, str(made)], capture_output=True, text=True, check=True, timeout=_LONGEST_S)
        except subprocess.CalledProcessError as error:
            said = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[0]
            raise NotCompiled(f"{command[0]} does not compile them ({said}); set CC to another compiler") from error
        except subprocess.TimeoutExpired as error:
            raise NotCompiled(f"{command[0]} took more than {_LONGEST_S} s") from error
        made.chmod(0o700)  # compilers give what the umask leaves, which may let a group write
        made.replace(path)
    return path


def _check_owner(path: Path) -> None:
    """Raise NotCompiled where another user than this one or root owns a folder or file, or could write to it."""
    status = path.stat()
    advice = f"remove it, or set {CACHE_VARIABLE} to another folder"
    if status.st_uid not in (0, os.geteuid()):
        raise NotCompiled(f"{path} belongs to user {status.st_uid}, who could change what is loaded: {advice}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotCompiled(f"other users may write to {path}, and change what is loaded: {advice}")


def _compiler() -> str:
    names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang", "cc"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise NotCompiled(f"there is no C compiler named {' or '.join(names)} (Debian: apt install gcc libc6-dev)")


def _cache_folder() -> Path:
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cyclegan-fast"


def _fingerprint(command: list[str]) -> str:
    """Return a name for what the command makes here; homes are shared between machines, and `native` means this one."""
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith(("flags", "Features", "model name", "CPU part"))
    ]
    digest = hashlib.sha256("\n".join([*command, *sorted(set(cpu))]).encode())
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]
