"""Reads and writes checkpoints of this project and of the original implementation, and translates between them.

Users import these names from here; files.py holds the files of a run, original.py the original's keys, and
wrapped_weights.py looks for networks inside files that wrap them.
"""

from cyclegan_fast.checkpoint.files import (
    BEST,
    FOLDER,
    DamagedCheckpoint,
    MissingCheckpoint,
    exists,
    find_newest,
    kept_as,
    load,
    load_newest,
    load_weights,
    save,
)
from cyclegan_fast.checkpoint.original import from_original, to_original

__all__ = [
    "BEST",
    "FOLDER",
    "DamagedCheckpoint",
    "MissingCheckpoint",
    "exists",
    "find_newest",
    "from_original",
    "kept_as",
    "load",
    "load_newest",
    "load_weights",
    "save",
    "to_original",
]
