"""Keeps rows of activations on the disk instead of in memory: in a file without a name."""

import heapq
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.translator import BatchDoesNotFit

RowBytes = npt.NDArray[np.uint8]


class KeptStatistics(Protocol):
    """Gathers numbers in a pass over an activation, which can be written down and put back."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any], device: torch.device) -> None: ...


class ScratchFile:
    """Keeps rows of equal size in one file, each in a slot, which the next row takes when nobody needs it any more.

    The file has no name from the beginning: whatever ends the process, kill -9 included, nothing remains of it. It is
    read and written and not mapped, so that its pages are the system's cache and not this process's memory.
    """

    def __init__(self, folder: Path, row_bytes: int) -> None:
        """Raises UserError where `folder` takes no file."""
        self.folder = folder
        self.row_bytes = row_bytes
        try:
            self._file = self._opened()
        except OSError as error:
            raise self._refused(error) from error
        self._slots = 0
        self._free: list[int] = []  # a heap: the first free slots are filled first, which keeps strips contiguous

    def __enter__(self) -> "ScratchFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def peak_bytes(self) -> int:
        """Return the size of the file, which is the most that it ever held: it grows only where no slot is free."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, row: RowBytes) -> int:
        """Keep `row_bytes` contiguous bytes and return their slot; raises UserError, for example for a full disk."""
        slot = heapq.heappop(self._free) if self._free else self._slots
        self._slots = max(self._slots, slot + 1)
        rest, offset = row.reshape(-1).data, slot * self.row_bytes
        try:
            while rest:  # a nearly full disk takes a part, and refuses the next one
                written = os.pwrite(self._file.fileno(), rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            raise self._refused(error) from error
        return slot

    def read(self, slot: int, row: RowBytes) -> None:
        """Fill `row` with what a slot holds."""
        rest, offset = row.reshape(-1).data, slot * self.row_bytes
        while rest:
            read = os.preadv(self._file.fileno(), [rest], offset)
            if read == 0:
                raise UserError(f"the scratch file in {self.folder} was cut off while it was in use")
            rest, offset = rest[read:], offset + read

    def free(self, slot: int) -> None:
        """Leave a slot to the next row that is written."""
        heapq.heappush(self._free, slot)

    def add(self, activation: "StoredActivation") -> None:
        """Take note of an activation that will be kept here, and has no rows yet."""

    def was_passed(self, statistics: "KeptStatistics") -> bool:
        """Return whether the pass that is about to begin was made by an earlier process; then fill its statistics."""
        return False

    def passed(self, statistics: "KeptStatistics") -> None:
        """Take note that a pass is complete, with what it gathered."""

    def _opened(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)

    def _refused(self, error: OSError) -> UserError:
        return UserError(f"no scratch file in {self.folder}: {error.strerror}; give another folder by --scratch")


class StoredActivation:
    """Keeps an activation [1, C, H, W] in a scratch file, a row [W, C] a slot; written and read from top to bottom."""

    def __init__(self, scratch: ScratchFile) -> None:
        self._scratch = scratch
        self.slots: list[int] = []
        self.row = torch.empty(0)
        """Has the shape, dtype and device of the rows that are kept"""
        scratch.add(self)

    def append(self, strip: Tensor) -> None:
        """Keep [1, C, rows, W] below what is there already."""
        rows = strip[0].permute(1, 2, 0)
        self.row = rows.new_empty(rows.shape[1:])
        self.slots.extend(map(self._scratch.write, _as_bytes(rows.contiguous().cpu())))

    def read(self, first: int, last: int) -> Tensor:
        """Return rows `first` to `last`, [1, C, rows, W], in a buffer of the caller's own."""
        strip = torch.empty((last - first, *self.row.shape), dtype=self.row.dtype)
        for slot, row in zip(self.slots[first:last], _as_bytes(strip), strict=True):
            self._scratch.read(slot, row)
        return strip.permute(2, 0, 1)[None].to(self.row.device)

    def take(self, first: int, last: int) -> Tensor:
        """Return the rows as `read` does, for the last time: they leave the file."""
        strip = self.read(first, last)
        for slot in self.slots[first:last]:
            self._scratch.free(slot)
        return strip


def _as_bytes(rows: Tensor) -> RowBytes:
    """Return the memory of [rows, W, C] on the host as bytes, since NumPy may not know the dtype."""
    array: RowBytes = rows.view(torch.uint8).numpy()
    return array


def check_free_space(folder: Path, needed_bytes: int, purpose: str) -> str:
    """Return a sentence on what is needed and what is free.

    Raises BatchDoesNotFit where it does not suffice, and UserError where there is no such folder.
    """
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"--scratch {folder}: {error.strerror}; give a folder that is there") from error
    needed, free = _gib(needed_bytes), _gib(free_bytes)
    if needed_bytes > free_bytes:
        raise BatchDoesNotFit(
            f"{purpose} needs {needed} of scratch files, and {folder} has {free} free: "
            "give a folder on a larger disk by --scratch, or a smaller --size",
            is_of_memory=False,
        )
    return f"{purpose} needs {needed} of scratch files in {folder}, which has {free} free"


def _gib(count_bytes: int) -> str:
    return f"{count_bytes / 2**30:.3g} GiB"
