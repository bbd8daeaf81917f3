"""Finds, decodes and writes image files, and arranges images on sheets. Importing this needs no PyTorch.

Users import the names below from here; they are imported when they are first used, so that code which needs a single
module of this package, such as an engine's, needs no other. folders.py says which files are images (patterns.py finds
them by wildcards), decoding.py and tiff.py decode them, and files.py reads and writes them; data/ holds the images that
are trained on.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclegan_fast.images.files import read_image, read_indices, write_image
    from cyclegan_fast.images.unreadable import UnreadableImage

__all__ = ["UnreadableImage", "read_image", "read_indices", "write_image"]


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` from its module at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "unreadable" if name == "UnreadableImage" else "files"
    return getattr(import_module(f"{__name__}.{module}"), name)
