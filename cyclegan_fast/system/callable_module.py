"""Lets a module be called: `cyclegan_fast.train` is the module of a command, and a function for users of Python."""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def let_be_called(name: str, function: Callable[..., Any]) -> None:
    """Let the module of that name be called as `function`, whose signature and help it shows.

    Python sets a package's attribute to a submodule when that is imported, so the package cannot have a function of the
    same name beside it. A class of its own for a module is what Python's data model provides for such cases.
    """
    module = sys.modules[name]

    def call(_: ModuleType, *arguments: Any, **flags: Any) -> Any:
        return function(*arguments, **flags)

    call.__doc__ = function.__doc__
    module.__class__ = type("CallableModule", (ModuleType,), {"__call__": call})
    module.__dict__["__signature__"] = inspect.signature(function)
