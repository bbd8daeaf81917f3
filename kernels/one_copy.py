"""Makes `kernels`, the name of this folder in a checkout, another name of `cyclegan_fast.kernels`.

The import name is `cyclegan_fast.kernels`, since a package of Hugging Face's is called `kernels`. In a checkout
`cyclegan_fast/kernels` is a link to the folder `kernels/`, which `python -m kernels.check` finds by its own name. Two
copies of the modules would register PyTorch's operators twice, so both names lead to the same modules.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType

OUR_NAME = "cyclegan_fast.kernels"


def share_modules(name: str) -> None:
    """Let the package `name`, which is being imported, and its modules be those of `cyclegan_fast.kernels`.

    Nothing is done where that is not this folder: a copy of the folder by itself needs nothing else of the project.
    """
    if _is_this_folder(OUR_NAME):
        importlib.import_module(OUR_NAME)
        sys.meta_path.insert(0, _SameModules(name))
        # Those that are there already: an import would set the package's attribute `instance_norm`, a function, to the
        # module of that name.
        for module in [OUR_NAME, *(found for found in sys.modules if found.startswith(f"{OUR_NAME}."))]:
            sys.modules[name + module.removeprefix(OUR_NAME)] = sys.modules[module]


def _is_this_folder(name: str) -> bool:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).parent.samefile(Path(__file__).parent)


class _SameModules(MetaPathFinder):
    """Finds the modules of a package under its other name."""

    def __init__(self, name: str) -> None:
        self.prefix = f"{name}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(self.prefix):
            return None
        real = find_spec(f"{OUR_NAME}.{fullname.removeprefix(self.prefix)}")
        if real is None:
            return None
        spec = ModuleSpec(fullname, _SameModule(real), origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec


class _SameModule(InspectLoader):
    """Loads a module by importing it under its real name."""

    def __init__(self, real: ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(self.real.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.real  # the import system has put the spec of the other name there

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the module, which `python -m` runs."""
        assert isinstance(self.real.loader, InspectLoader)
        return self.real.loader.get_code(self.real.name)

    def get_source(self, fullname: str) -> str | None:
        assert isinstance(self.real.loader, InspectLoader)
        return self.real.loader.get_source(self.real.name)
