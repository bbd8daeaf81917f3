"""Saves and loads the checkpoints of a run, and loads weights into networks.

A run keeps `checkpoints/last.pt` and the one before it, `previous.pt`, and by further names what is kept for good:
names.py finds it by the names that users give. Files are read with `weights_only=True` or as
safetensors: a checkpoint from a stranger cannot run code. training/ fills a checkpoint and reads it back, and
original.py translates the keys of the original implementation's files.
"""

import io
import pickle
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan_fast.checkpoint.consistency import check_content
from cyclegan_fast.checkpoint.content import CHECKPOINT_FORMAT, CHECKPOINT_KEYS, RunCheckpoint
from cyclegan_fast.checkpoint.description import WrongEntry, in_few_words, is_finite
from cyclegan_fast.checkpoint.original import StateDict
from cyclegan_fast.networks.norms import missing_statistics
from cyclegan_fast.system.device import name_of
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import make_folder, rename, write_atomically
from cyclegan_fast.system.formats import NewerFormat, is_newer, refuse_newer
from cyclegan_fast.system.shortage import is_out_of_memory
from cyclegan_fast.version import __version__

FOLDER = "checkpoints"
LAST = "last.pt"
PREVIOUS = "previous.pt"
INCOMING = "incoming.pt"
BEST = "best.pt"

CheckpointCheck = Callable[[RunCheckpoint], None]
"""Raises WrongEntry for a checkpoint that whoever reads it cannot go on with."""


class DamagedCheckpoint(UserError):
    """Tells that a file is cut off or otherwise not what was written."""


class MissingCheckpoint(UserError):
    """Tells that there is no file of that name, or that it is gone."""


def save(run: Path, checkpoint: RunCheckpoint, *, keep_as: Sequence[str] = ()) -> None:
    """Write the newest checkpoint of a run; the one before it stays as `previous.pt`.

    Args:
        run: the run's folder.
        checkpoint: see content.py; its format and this version are written with it.
        keep_as: further names to keep this checkpoint under for good, such as "epoch_0100.pt".

    Raises WrongEntry, and writes nothing, for what no reader would take.
    """
    whole = {**checkpoint, "checkpoint_format": CHECKPOINT_FORMAT, "written_by": __version__}
    check_content(whole)
    folder = run / FOLDER
    make_folder(folder, "checkpoint")
    content = to_bytes(whole)
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
    if (folder / LAST).is_file():  # and no pipe, which is not worth the place of a checkpoint
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


def load_newest(run: Path, warnings: list[str], check: CheckpointCheck | None = None) -> RunCheckpoint | None:
    """Return the newest whole checkpoint of a run, None where there is none yet; see `find_newest`."""
    found = find_newest(run, warnings, check)
    return found[1] if found else None


def find_newest(
    run: Path, warnings: list[str], check: CheckpointCheck | None = None
) -> tuple[Path, RunCheckpoint] | None:
    """Return the file and the content of the newest whole checkpoint of a run, None where there is none yet.

    Args:
        warnings: get a line for each damaged checkpoint that is passed over.
        check: says what else must hold for a checkpoint to count as whole.

    Raises UserError where there are checkpoints and none of them is whole, and where a newer version wrote one.
    """
    damaged: list[DamagedCheckpoint] = []
    if (run / FOLDER / LAST).is_dir():
        raise UserError(f"{run / FOLDER / LAST} is a folder, where a checkpoint is to be: move it away")
    kept = [path.name for path in reversed(kept_epochs(run).values())]
    # A run that was killed between the two renames of `save` has its newest checkpoint under INCOMING.
    for name in (INCOMING, LAST, PREVIOUS, *kept):
        path = run / FOLDER / name
        try:
            checkpoint = load_run_checkpoint(path, check)
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


def load_run_checkpoint(path: Path, check: CheckpointCheck | None = None) -> RunCheckpoint:
    """Read one checkpoint of a run, and check its whole content; raises what `load` and `checked_run` raise."""
    return checked_run(path, load(path), check)


def checked_run(path: Path, content: Mapping[str, Any], check: CheckpointCheck | None = None) -> RunCheckpoint:
    """Return the content of the file `path` as a checkpoint of a run, all of which was checked.

    Raises DamagedCheckpoint, which names the entry, where it is none, and NewerFormat where a newer version wrote it.
    """
    if not is_run_checkpoint(content):
        raise DamagedCheckpoint(f"{path} is no checkpoint of a run")
    try:
        check_content(content)
        checkpoint: RunCheckpoint = content  # type: ignore[assignment]  # which it is now
        if check:
            check(checkpoint)
    except WrongEntry as error:
        if is_newer(content.get("written_by")):
            raise NewerFormat(path, content["written_by"]) from error
        raise DamagedCheckpoint(f"{path} is damaged or was changed: {error}") from error
    return checkpoint


def is_run_checkpoint(content: Mapping[str, Any]) -> bool:
    """Tell whether the content of a file is that of a checkpoint of a run, also where some of it is missing."""
    return "checkpoint_format" in content or content.keys() >= CHECKPOINT_KEYS


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint or weights file (.pt, .pth, .safetensors) onto the CPU, running no code from it.

    Raises MissingCheckpoint, DamagedCheckpoint, or UserError where the system refuses to read it, or where a newer
    version wrote it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device may never end
            raise DamagedCheckpoint(f"{path} is no file but {_kind_of_place(path)}")
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        # torch.load notices a file that is cut off, but not a flipped bit in a tensor; the archive's checksums do.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # PyTorch compresses nothing; what does may unpack to more than any memory holds.
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise DamagedCheckpoint(f"{path} is compressed, as PyTorch writes no file")
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
        if is_out_of_memory(error) and zipfile.is_zipfile(path):  # whose checksums are right: the file is whole
            raise
        raise DamagedCheckpoint(f"{path} is cut off or damaged: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path} holds a {type(content).__name__}, not a checkpoint")
    refuse_newer(path, content.get("checkpoint_format"), CHECKPOINT_FORMAT, content.get("written_by"))
    return content


def _kind_of_place(path: Path) -> str:
    return "a folder" if path.is_dir() else "a named pipe" if path.is_fifo() else "a device or a socket"


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
    ArithmeticError,
    struct.error,
    zlib.error,
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
    """Load a whole state dict; raises UserError naming the keys that are missing, unknown or of another kind.

    Batch norms without running statistics, as older versions here wrote them, get those of a new network.
    """
    check_fits(network, state, origin, names)
    network.load_state_dict({**missing_statistics(network, state), **state})


def check_fits(network: nn.Module, state: StateDict, origin: str, names: Mapping[str, str] | None = None) -> None:
    """Raise UserError naming the keys of a state dict that are missing, unknown, of another kind, or not finite.

    Weights may have another precision, and statistics that `load_weights` brings may be missing.

    Args:
        network: what is to be loaded; its weights may be on PyTorch's device "meta", where they take no memory.
        origin: the file, which errors name.
        names: the names that the file has for keys, where they are others.
    """
    names, expected = names or {}, network.state_dict()
    absent = expected.keys() - state.keys() - missing_statistics(network, state).keys()
    wrong = [f"{names.get(key, key)} is missing" for key in absent]
    wrong += [f"{names.get(key, key)} is not known" for key in state.keys() - expected.keys()]
    for key in expected.keys() & state.keys():
        if problem := _unlike(state[key], expected[key]):
            wrong.append(f"{names.get(key, key)} {problem}")
    if wrong:
        shown = "; ".join(sorted(wrong)[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise UserError(f"{origin} does not fit this network: {shown}")
    lost = sorted(names.get(key, key) for key, value in state.items() if not is_finite(value))
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UserError(f"{origin} holds weights that are infinite or NaN ({lost[0]}{more}): no network is in there")


def _unlike(value: object, expected: Tensor) -> str | None:
    """Return how a value differs from a tensor of a network, None where it can take its place."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return f"is {in_few_words(value)} and no plain tensor"
    if value.shape != expected.shape:
        return f"is {tuple(value.shape)} instead of {tuple(expected.shape)}"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex() or value.is_quantized:
        return f"is of {name_of(value.dtype)} instead of {name_of(expected.dtype)}"
    return None
