"""Keeps a scratch file beyond the process that writes it, so that a translation in strips continues where it was ended.

A translation is a sequence of passes. When one is complete, what the next ones need is written down in a journal beside
the file: the statistics that passes gathered, and which rows of the file belong to which activation. Whoever opens the
file again makes the passes in the same order, skips those that the journal has, and begins with the one that was under
way. For that a pass must leave what it reads: rows leave their places at its end only, and the file is twice as large
as one that is not kept. The journal has a digest of its own and a checksum of each row, so that damage on the disk is
told and not translated.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.file_locks import locked_file
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.translation.strips.scratch_file import KeptStatistics, RowBytes, ScratchFile, StoredActivation

PEAK_OF_KEPT = 2
"""Says how many times as large a scratch file becomes that is kept."""
_FORMAT = 2


class KeptScratchFile(ScratchFile):
    """Keeps rows in a file with a name, and says in a journal what of it a later process can use.

    Args:
        identity: of the translation: what all depends on that is in the file, see `identity_of`.
        device: where the activations are computed.
        dtype: theirs.

    Raises UserError where another process has it open.
    """

    def __init__(self, folder: Path, row_bytes: int, identity: str, device: torch.device, dtype: torch.dtype) -> None:
        self._path, self._journal = paths_of_kept(folder, identity)
        super().__init__(folder, row_bytes)
        self._device, self._dtype = device, dtype
        self._activations: list[StoredActivation] = []
        self._left: list[int] = []  # slots whose rows were read for the last time, by the pass that is under way
        self._states: list[dict[str, Any]] = []
        self._made = 0  # passes of this process, with those that it skipped
        self._kept: dict[str, Any] = {}
        self._sums: dict[int, int] = {}  # the checksum of the row in each slot
        self._unproved: set[int] = set()  # slots that an earlier process wrote
        journal = _read_journal(self._journal)
        if journal and os.fstat(self._file.fileno()).st_size >= journal["slots"] * row_bytes:
            self._states, self._kept, self._slots = journal["passes"], journal["activations"], journal["slots"]
            for kept in self._kept.values():
                self._sums.update(zip(_slots_of(kept["runs"]), kept["sums"], strict=True))
            live = self._unproved = {*self._sums}
            self._free = [slot for slot in range(self._slots) if slot not in live]  # sorted, which is a heap
        else:
            self._journal.unlink(missing_ok=True)  # before the file has rows again, which would be others
            os.ftruncate(self._file.fileno(), 0)
        self.skipped = len(self._states)
        """Counts the passes that an earlier process made."""

    def remove(self) -> None:
        """Remove the file and its journal, which are of no more use."""
        remove_kept(self._path, self._journal)

    def give_up(self) -> None:
        """Remove the file where no pass is complete: a later process can use nothing of it."""
        if not self._states:
            self.remove()

    def write(self, row: RowBytes) -> int:
        """Keep a row and its checksum, and return its slot; raises UserError as `ScratchFile.write` does."""
        slot = super().write(row)
        self._sums[slot] = zlib.crc32(row.reshape(-1).data)
        self._unproved.discard(slot)
        return slot

    def read(self, slot: int, row: RowBytes) -> None:
        """Fill `row` with what a slot holds; raises UserError where that is not what an earlier process wrote."""
        super().read(slot, row)
        if slot in self._unproved and zlib.crc32(row.reshape(-1).data) != self._sums[slot]:
            raise _damaged(self._path)

    def free(self, slot: int) -> None:
        """Leave a slot to later rows, once the pass is complete."""
        self._left.append(slot)

    def add(self, activation: StoredActivation) -> None:
        """Take note of an activation, and give it the rows that an earlier process kept of it."""
        kept = self._kept.get(str(len(self._activations)))
        self._activations.append(activation)
        if kept is not None:
            activation.slots = _slots_of(kept["runs"])
            activation.row = torch.empty(kept["row"], dtype=self._dtype, device=self._device)

    def was_passed(self, statistics: KeptStatistics) -> bool:
        """Return whether the pass that is about to begin was made by an earlier process; then fill its statistics."""
        if self._made >= self.skipped:
            return False
        statistics.restore(self._states[self._made], self._device)
        self._made += 1
        return True

    def passed(self, statistics: KeptStatistics) -> None:
        """Write down that a pass is complete, when all that it wrote is on the disk."""
        self._made += 1
        self._states.append(statistics.state())
        left = set(self._left)
        kept = {}
        for index, activation in enumerate(self._activations):
            if activation.slots and activation.slots[0] in left:
                activation.slots = []  # a pass reads an activation as a whole
            elif activation.slots:
                kept[str(index)] = {
                    "row": list(activation.row.shape),
                    "runs": _runs_of(activation.slots),
                    "sums": [self._sums[slot] for slot in activation.slots],
                }
        os.fdatasync(self._file.fileno())
        journal = {"format": _FORMAT, "passes": self._states, "slots": self._slots, "activations": kept}
        content = json.dumps(journal).encode()
        write_atomically(self._journal, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        for slot in self._left:
            super().free(slot)
        self._left = []

    def _opened(self) -> IO[bytes]:
        refusal = f"another process is at this translation, with {self._path}: wait for it, or end it"
        return locked_file(self._path, refusal, permissions=0o600)


def identity_of(network: nn.Module, facts: Iterable[object]) -> str:
    """Return a name for all that a translation depends on: the weights, and facts that a string tells apart."""
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(repr([*map(str, facts)]).encode())
    return digest.hexdigest()[:16]


def paths_of_kept(folder: Path, identity: str) -> tuple[Path, Path]:
    """Return the scratch file of a translation, and its journal."""
    name = f"cyclegan-fast-{identity}"
    return folder / f"{name}.activations", folder / f"{name}.json"


def remove_kept(*paths: Path) -> None:
    """Remove the scratch file and the journal of a translation that is complete."""
    for path in paths:
        path.unlink(missing_ok=True)


def _read_journal(path: Path) -> dict[str, Any] | None:
    """Return a journal; None where there is none, or one that another version wrote. Raises UserError for damage."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise _damaged(path)
    journal: dict[str, Any] = json.loads(content)
    return journal if journal["format"] == _FORMAT else None


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: remove it, and the translation begins anew")


def _runs_of(slots: Sequence[int]) -> list[list[int]]:
    """Return slots as runs of neighbours: the first one of each, and how many they are."""
    runs: list[list[int]] = []
    for slot in slots:
        if runs and slot == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([slot, 1])
    return runs


def _slots_of(runs: Iterable[Sequence[int]]) -> list[int]:
    return [slot for first, count in runs for slot in range(first, first + count)]
