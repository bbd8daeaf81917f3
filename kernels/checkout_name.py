"""Decides what `kernels` is where that name finds this folder in a checkout.

The import name is `cyclegan_fast.kernels`, since a package of Hugging Face's is called `kernels`; in a checkout
`cyclegan_fast/kernels` is a link to the folder `kernels/`. Code that is run in the checkout finds the folder by its own
name as well: `python -m kernels.check` should, and a library that asks for Hugging Face's package should not.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import CodeType, ModuleType

OUR_NAME = "cyclegan_fast.kernels"
_HERE = Path(__file__).resolve().parent


def is_replaced(name: str) -> bool:
    """Replace the package of this folder that is being imported, unless that is right; tell whether it was replaced.

    Under its name in a checkout, `kernels`, it is another package where one of that name is installed, except for the
    commands here (`python -m kernels.check`). Otherwise it is `cyclegan_fast.kernels`, module by module: two copies
    would register PyTorch's operators twice. A copy of the folder by itself stays what it is, and needs nothing else of
    the project.
    """
    if name != _HERE.name:
        return False
    installed = _installed_package(name)
    if installed is not None and not _runs_a_command(name):
        assert installed.loader is not None
        sys.modules[name] = package = module_from_spec(installed)
        installed.loader.exec_module(package)
        return True
    if not _is_this_folder(OUR_NAME):
        return False
    importlib.import_module(OUR_NAME)
    sys.meta_path.insert(0, _SameModules(name))
    # Those that are there already: an import would set the package's attribute `instance_norm`, a function, to the
    # module of that name. A module that `python -m` runs must be found anew.
    for module in [OUR_NAME, *(found for found in sys.modules if found.startswith(f"{OUR_NAME}."))]:
        other = name + module.removeprefix(OUR_NAME)
        if other not in sys.orig_argv:
            sys.modules[other] = sys.modules[module]
    return True


def _installed_package(name: str) -> ModuleSpec | None:
    elsewhere = [place for place in sys.path if Path(place).resolve() != _HERE.parent]
    spec = PathFinder.find_spec(name, elsewhere)
    if spec is None or spec.origin is None:  # a folder without an __init__.py has no origin
        return None
    return None if (Path(spec.origin).parent / Path(__file__).name).exists() else spec  # another checkout of this


def _runs_a_command(name: str) -> bool:
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # while the module is looked for
        return any(word.startswith(f"{name}.") for word in sys.orig_argv)
    return Path(program).resolve().is_relative_to(_HERE)


def _is_this_folder(name: str) -> bool:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).parent.samefile(_HERE)


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
