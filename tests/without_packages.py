"""Makes packages seem not to be installed that the environment variable WITHOUT_PACKAGES names, as a pytest plugin."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder

MISSING = frozenset(os.environ.get("WITHOUT_PACKAGES", "").split())


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if fullname.split(".")[0] in MISSING:
            return None
        return super().find_spec(fullname, path, target)  # type: ignore[arg-type]  # a module, as importlib passes it


sys.meta_path[sys.meta_path.index(PathFinder)] = _Finder
