"""Says what pages and slices of a file were in a training, as ONNX files and cards of engines have it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from cyclegan_fast.images.formats.stored import Axis, Frames
from export.engines.card_fields import reads_one_of

FRAME_FIELDS = ("frames", "axis")
"""The names in a card, and in a file's metadata. A file without them takes the first page, and axial slices."""


class FileFrames(NamedTuple):
    """Holds what a run was trained with: `frames` and `axis` of `read_samples`."""

    frames: Frames = "first"
    axis: Axis = 2

    @property
    def is_default(self) -> bool:
        """Tells whether a file says nothing of them, as all did of format 1."""
        return self == DEFAULT_FRAMES

    def as_entries(self) -> dict[str, str]:
        """Return the fields of a card, and the entries of a file's metadata: none for what is the default."""
        return {} if self.is_default else {"frames": self.frames, "axis": str(self.axis)}

    @staticmethod
    def of_entries(entries: Mapping[str, Any]) -> "FileFrames":
        """Return what the fields of a card or a file's metadata say, among others.

        Raises ValueError, which names the field that is wrong or missing.
        """
        if not entries.keys() & {*FRAME_FIELDS}:
            return DEFAULT_FRAMES
        values = {}
        for name, allowed in zip(FRAME_FIELDS, (get_args(Frames), tuple(map(str, get_args(Axis)))), strict=True):
            if name not in entries:
                raise ValueError(f"{name} is missing")
            try:
                values[name] = reads_one_of(allowed)(entries[name])
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
        axis: dict[str, Axis] = {str(number): number for number in get_args(Axis)}
        return FileFrames(values["frames"], axis[values["axis"]])


DEFAULT_FRAMES = FileFrames()
