"""CycleGAN training (Zhu et al. 2017, arXiv 1703.10593), from the command line and from Python: see api.py."""

from typing import TYPE_CHECKING, Any

from cyclegan_fast.version import __version__

if TYPE_CHECKING:
    from cyclegan_fast.api import evaluate, load, train
    from cyclegan_fast.kernels import accelerate
    from cyclegan_fast.training.callbacks.callback import Callback, StopTraining

__all__ = ["Callback", "StopTraining", "__version__", "accelerate", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import the functions for users of Python when they are asked for, since most imports of this package need none.

    The modules of the commands `train` and `evaluate` have these names already, and can be called.
    """
    import importlib

    if name == "accelerate":
        return importlib.import_module("cyclegan_fast.kernels").accelerate
    if name == "load":
        return importlib.import_module("cyclegan_fast.api").load
    if name in ("evaluate", "train"):
        return importlib.import_module(f"cyclegan_fast.{name}")
    if name in ("Callback", "StopTraining"):
        return getattr(importlib.import_module("cyclegan_fast.training.callbacks.callback"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all names, those included that are imported when they are asked for."""
    return sorted({*globals(), *__all__})
