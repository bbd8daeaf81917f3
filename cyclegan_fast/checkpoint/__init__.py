"""Checkpoints of this project and of the original implementation: read, write, and translate one into the other."""

from cyclegan_fast.checkpoint.files import BEST, FOLDER, find_newest, load, load_weights, save
from cyclegan_fast.checkpoint.original import from_original, to_original

__all__ = ["BEST", "FOLDER", "find_newest", "from_original", "load", "load_weights", "save", "to_original"]
