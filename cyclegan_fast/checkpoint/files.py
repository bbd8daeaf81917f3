"""Saves and loads the checkpoints of a run, and loads weights into networks.

A run keeps `checkpoints/last.pt` and the one before it, `previous.pt`, and by further names what is kept for good:
names.py finds it by the names that users give. Files are read with `weights_only=True` or as
safetensors: a checkpoint from a stranger cannot run code. training/ fills a checkpoint and reads it back, and
original.py translates the keys of the original implementation's files.
"""

import io
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.checkpoint.original import StateDict
from cyclegan_fast.networks.norms import missing_statistics
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import make_folder, rename, write_atomically

FOLDER = "checkpoints"
LAST = "last.pt"
PREVIOUS = "previous.pt"
INCOMING = "incoming.pt"
BEST = "best.pt"
CHECKPOINT_KEYS = RunCheckpoint.__required_keys__


class DamagedCheckpoint(UserError):
    """Tells that a file is cut off or otherwise not what was written."""


class MissingCheckpoint(UserError):
    """Tells that there is no file of that name, or that it is gone."""


def save(run: Path, checkpoint: Mapping[str, Any], *, keep_as: Sequence[str] = ()) -> None:
    """Write the newest checkpoint of a run; the one before it stays as `previous.pt`.

    Args:
        run: the run's folder.
        checkpoint: tensors and plain values.
        keep_as: further names to keep this checkpoint under for good, such as "epoch_0100.pt".
    """
    folder = run / FOLDER
    make_folder(folder, "checkpoint")
    content = to_bytes(checkpoint)
    # The kept ones are written first: after a kill in between, the run resumes before them and writes them again.
    for name in keep_as:
        write_atomically(folder / name, content, "kept_checkpoint")
    write_atomically(folder / INCOMING, content, "checkpoint")
    finish_saving(run)


def finish_saving(run: Path) -> None:
    """Give the newest checkpoint of a run its name, and that name's holder the one before; a kill may come in between.

    Only the process that holds the run's lock may do it, and only where INCOMING is whole.
    """
    folder = run / FOLDER
    if (folder / LAST).exists():
        rename(folder / LAST, folder / PREVIOUS, "checkpoint", "before_last_becomes_previous")
    rename(folder / INCOMING, folder / LAST, "checkpoint", "before_incoming_becomes_last")


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file that `load` reads `content` back from."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def exists(run: Path) -> bool:
    """Tell whether a run has a checkpoint, whole or not."""
    return any((run / FOLDER).glob("*.pt"))


def kept_as(epoch: int) -> str:
    """Return the name of the checkpoint that is kept for good after an epoch."""
    return f"epoch_{epoch:04d}.pt"


def kept_epochs(run: Path) -> dict[int, Path]:
    """Return the checkpoints that a run keeps for good, by their epochs, in order."""
    names = ((re.fullmatch(r"epoch_(\d+)\.pt", path.name), path) for path in (run / FOLDER).glob("epoch_*.pt"))
    return dict(sorted((int(match[1]), path) for match, path in names if match))


def load_newest(run: Path, warnings: list[str]) -> dict[str, Any] | None:
    """Return the newest whole checkpoint of a run, None where there is none yet; `warnings` get the damaged ones.

    Raises UserError where there are checkpoints, and none of them is whole.
    """
    found = find_newest(run, warnings)
    return found[1] if found else None


def find_newest(run: Path, warnings: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """Return the file and the content of the newest whole checkpoint of a run, as `load_newest` does."""
    damaged: list[DamagedCheckpoint] = []
    kept = [path.name for path in reversed(kept_epochs(run).values())]
    # A run that was killed between the two renames of `save` has its newest checkpoint under INCOMING.
    for name in (INCOMING, LAST, PREVIOUS, *kept):
        path = run / FOLDER / name
        try:
            checkpoint = load(path)
            if not checkpoint.keys() >= CHECKPOINT_KEYS:
                raise DamagedCheckpoint(f"{path} is no checkpoint of a run")
        except MissingCheckpoint:
            continue
        except DamagedCheckpoint as error:
            damaged.append(error)
            continue
        warnings.extend(f"{error}; going back to {path.name}" for error in damaged)
        return path, checkpoint
    if damaged:
        raise UserError(f"no whole checkpoint in {run / FOLDER}: {damaged[0]}; start anew with --name NEW")
    return None


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint or weights file (.pt, .pth, .safetensors) onto the CPU, running no code from it.

    Raises MissingCheckpoint, DamagedCheckpoint, or UserError where the system refuses to read it.
    """
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        # torch.load notices a file that is cut off, but not a flipped bit in a tensor; the archive's checksums do.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise DamagedCheckpoint(f"{path} is damaged: the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MissingCheckpoint(f"no checkpoint at {path}") from None
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(
            f"{path} is damaged or holds more than tensors and plain values, which could run code; refused: where you "
            "trust it, load it with the program that wrote it and save the networks' state_dict() alone"
        ) from error
    except _READING_ERRORS as error:
        raise DamagedCheckpoint(f"{path} is cut off or damaged: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


# The errors that the readers of PyTorch, pickle and zip were seen to raise for damaged bytes.
_READING_ERRORS = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
)


def _load_safetensors(path: Path) -> dict[str, Any]:
    import safetensors.torch  # here, because benchmarks run where it is not installed

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def load_weights(network: nn.Module, state: StateDict, origin: str, names: Mapping[str, str] | None = None) -> None:
    """Load a whole state dict; raises UserError naming the keys that are missing, unknown or of another shape.

    Batch norms without running statistics, as older versions here wrote them, get those of a new network.

    Args:
        origin: the file, which errors name.
        names: the names that the file has for keys, where they are others.
    """
    names = names or {}
    state = {**missing_statistics(network, state), **state}
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [f"{names.get(key, key)} is missing" for key in expected.keys() - given.keys()]
    wrong += [f"{names.get(key, key)} is not known" for key in given.keys() - expected.keys()]
    wrong += [
        f"{names.get(key, key)} is {given[key]} instead of {expected[key]}"
        for key in expected.keys() & given.keys()
        if expected[key] != given[key]
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise UserError(f"{origin} does not fit this network: {shown}")
    network.load_state_dict(state)
