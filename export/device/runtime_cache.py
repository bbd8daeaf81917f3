"""Keeps the kernels that TensorRT for RTX compiles on the user's GPU on disk.

No line of this has run on a GPU yet.
"""

import logging
import os
from pathlib import Path
from typing import Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import beside, write_atomically

_LOG = logging.getLogger(__name__)


def cache_paths(engine: Path, sha256: str) -> list[Path]:
    """Return the files that may keep an engine's kernels, best first: beside it, and in the user's folder of caches."""
    near = beside(engine, "", ".cache")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    except RuntimeError:  # a service may run without a home folder
        return [near]
    return [near, caches / "cyclegan-fast" / "engines" / f"{sha256[:16]}.cache"]


class RuntimeCache:
    """Reads the compiled kernels of one engine when it is opened, and writes them when it is closed.

    A file that cannot be read or written costs only the time to compile, and a line in the log. The library itself
    refuses kernels of another version or GPU. The GPU's context must be current in every call.
    """

    def __init__(self, config: Any, candidates: list[Path]) -> None:
        self._candidates = candidates
        self._cache = config.create_runtime_cache()
        self._saved = b""
        for path in candidates:
            if self._load(path):
                break
        config.set_runtime_cache(self._cache)

    def _load(self, path: Path) -> bool:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            _LOG.warning("cannot read the kernels compiled before, %s: %s", path, error.strerror)
            return False
        if not self._cache.deserialize(content):
            _LOG.warning(
                "%s has kernels of another GPU, driver or version, or is damaged: they are compiled anew", path
            )
            return False
        self._saved = content
        return True

    def save(self) -> None:
        """Write what was compiled since to the first file that can be written."""
        memory = self._cache.serialize()
        content = bytes(memory) if memory is not None else b""
        if not content or content == self._saved:
            return
        reason = ""
        for path in self._candidates:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
            except (OSError, UserError) as error:
                reason = str(error)
            else:
                self._saved = content
                return
        _LOG.warning("the kernels compiled here are not kept, and compiled again next time: %s", reason)
