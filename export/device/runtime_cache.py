"""The kernels that TensorRT for RTX compiles on the user's GPU, kept on disk; no line has run on a GPU yet."""

import logging
import os
from pathlib import Path
from typing import Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import beside, write_atomically

LOG = logging.getLogger(__name__)


def places(engine: Path, sha256: str) -> list[Path]:
    """Where an engine's kernels may be kept, best first: beside it, and in the user's folder of caches."""
    near = beside(engine, "", ".cache")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    except RuntimeError:  # a service may run without a home folder
        return [near]
    return [near, caches / "cyclegan-fast" / "engines" / f"{sha256[:16]}.cache"]


class RuntimeCache:
    """The compiled kernels of one engine: read when it is opened, written when it is closed.

    What cannot be read or written costs only the time to compile, and a line in the log. The library itself refuses
    kernels of another version or GPU. The GPU's context must be current in every call.
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
            LOG.warning("cannot read the kernels compiled before, %s: %s", path, error.strerror)
            return False
        if not self._cache.deserialize(content):
            LOG.warning("%s has kernels of another GPU, driver or version, or is damaged: they are compiled anew", path)
            return False
        self._saved = content
        return True

    def save(self) -> None:
        """Write what was compiled since to the first place that takes it."""
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
        LOG.warning("the kernels compiled here are not kept, and compiled again next time: %s", reason)
