"""Keeps the translated segments of a video beside its target, so that a translation continues where it was ended.

They lie in a hidden folder: a file for each segment, named by its first frame; with `--steady` one of what the filter
carries from frame to frame; and a file that says what all of it depends on.
"""

import json
import shutil
from pathlib import Path
from typing import Self

import numpy as np

from cyclegan_fast.system.file_locks import locked_file
from cyclegan_fast.system.files import beside, replacing, write_atomically
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.video.encoding import times_beside
from cyclegan_fast.translation.video.steady import Carried

SEGMENT_FRAMES = 48
"""The frames of a segment: at most so many are translated again, and so many apart are the key frames of H.264."""
_IDENTITY = "identity"
_LOCK = "lock"


class KeptSegments:
    """Holds the segments of one translation; a context manager, which keeps other processes from the same one.

    `frames` are there from before; `begun_anew` says whether there were some that do not fit.

    Args:
        target: the file that they are for; its folder is there.
        identity: of all that they depend on.

    Raises UserError where another process translates to the same target.
    """

    def __init__(self, target: Path, identity: str) -> None:
        self.folder = folder_of_segments(target)
        self.folder.mkdir(exist_ok=True)
        self._lock = locked_file(
            self.folder / _LOCK, f"another process is at this translation, with {self.folder}: wait for it, or end it"
        )
        path = self.folder / _IDENTITY
        known = path.read_text() if path.exists() else None
        self.begun_anew = known not in (None, identity)
        if known != identity:
            for old in self.folder.iterdir():
                if old.name != _LOCK:
                    old.unlink()
            write_atomically(path, identity.encode())
        self.frames = self._count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def told(self, source: Path) -> list[str]:
        """Return a line that says with what the translation of a source continues, or why it does not."""
        if self.frames:
            return [f"{source} continues: {counted(self.frames, 'frame')} are there from before"]
        if self.begun_anew:
            return [f"{source} begins anew: what is there from before is of other options, weights or versions"]
        return []

    def path(self, first: int) -> Path:
        """Return the file of the segment that begins with a frame."""
        return self.folder / f"{first:09d}.nut"

    def paths(self) -> list[Path]:
        """Return the files of all segments, in order."""
        return sorted(self.folder.glob("*.nut"))

    def carried(self) -> Carried | None:
        """Return what the filter carried from the last frame that is there to the next one."""
        path = self._path_of_carried(self.frames)
        return np.load(path) if path.exists() else None

    def keep_carried(self, carried: Carried, next_frame: int) -> None:
        """Keep what the filter carries to a frame, in place of all before; to be done before the segment is named."""
        path = self._path_of_carried(next_frame)
        with replacing(path) as file:
            np.save(file, carried)

    def forget_carried(self, before: int) -> None:
        """Remove what the filter carried to frames before another one, once the segment behind them is there."""
        for path in self.folder.glob("*.npy"):
            if path != self._path_of_carried(before):
                path.unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _path_of_carried(self, next_frame: int) -> Path:
        return self.folder / f"{next_frame:09d}.npy"

    def _count(self) -> int:
        paths = self.paths()
        if not paths:
            return 0
        return int(paths[-1].stem) + len(json.loads(times_beside(paths[-1]).read_bytes()))


def folder_of_segments(target: Path) -> Path:
    """Return the folder in which the segments of a translation are kept."""
    return beside(target, ".", ".segments")


def remove_segments(target: Path) -> None:
    """Remove the segments of a translation that is complete, where the end came before they were removed."""
    shutil.rmtree(folder_of_segments(target), ignore_errors=True)
