"""Reads ONNX files whole and unharmed: a digest stands in each file that this project writes.

A flipped bit in a weight still makes a graph, which draws other pictures. So the last entry of a file's metadata,
`content_sha256`, is the SHA-256 of the file's bytes with zeros in place of the entry's own 64 digits. It is computed
from those bytes alone, without onnx, and an ONNX file that is read and written again unchanged keeps it.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.formats import refuse_newer
from cyclegan_fast.version import __version__
from export.engines.engine_card import EngineCard
from export.engines.file_frames import FileFrames
from export.file_content import content_of
from export.graphs.external_data import has_external_data
from export.graphs.protobuf import parts_of
from export.pixel_ends import PixelEnds

DIGEST_KEY = "content_sha256"
_DIGITS = 64
ONNX_FORMAT = 2
"""The number of the format of what we write into ONNX files: images in and out, their names and ranges. Whoever changes
that so that an older version cannot translate with a file raises this; files from before it was counted have none.
Format 2 has `FileFrames`; a file that has none is still written as 1, which older versions read."""
_FORMAT_KEY = "cyclegan_fast_format"
# The fields of StringStringEntryProto (onnx.proto): 1 is the key, 2 the value, each behind its tag and length.
_MARK = bytes([0x0A, len(DIGEST_KEY)]) + DIGEST_KEY.encode() + bytes([0x12, _DIGITS])
_ENTRIES = 14  # the field of ModelProto that holds metadata, the last of those that we write
_METADATA = bytes([_ENTRIES << 3 | 2, len(_MARK) + _DIGITS])


def with_digest(content: bytes) -> bytes:
    """Return the bytes of a model, as `export.graphs.graph.serialised` gives them, with the digest behind them."""
    begun = content + _METADATA + _MARK
    return begun + _digest(begun, len(begun)).encode()


def format_entry(frames: FileFrames) -> dict[str, str]:
    """Return the entry of a file's metadata that says its format, and the version that wrote it."""
    return {_FORMAT_KEY: f"{1 if frames.is_default else ONNX_FORMAT} by {__version__}"}


def _refuse_newer(path: Path, content: bytes) -> None:
    """Raise NewerFormat where the entry of `format_entry` says so."""
    value = metadata_of(content).get(_FORMAT_KEY, "")
    if found := re.fullmatch(r"(\d{1,9}) by (.*)", value, re.DOTALL | re.ASCII):
        refuse_newer(path, int(found[1]), ONNX_FORMAT, found[2])


def metadata_of(content: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file's bytes; of what is no protobuf, those that stand before that place."""
    entries = {}
    for field, begin, end in parts_of(content, 0, len(content)):
        if field == _ENTRIES:
            parts = {number: content[first:last] for number, first, last in parts_of(content, begin, end)}
            key, value = (parts.get(number, b"").decode("utf-8", "replace") for number in (1, 2))
            entries[key] = value
    return entries


def ends_of(path: Path, metadata: Mapping[str, str]) -> PixelEnds:
    """Return the types of the pixels that a file's metadata say it takes and gives; 8-bit RGB where they say nothing.

    Raises UserError where they make no sense.
    """
    try:
        return PixelEnds.of_entries(metadata)
    except ValueError as error:
        raise UserError(
            f"{path} says what pixels it translates in a way that makes no sense ({error}): export it anew with python "
            "export/to_onnx.py"
        ) from error


def frames_of(path: Path, metadata: Mapping[str, str]) -> FileFrames:
    """Return what a file's metadata say that pages and slices are; raises UserError where they make no sense."""
    try:
        return FileFrames.of_entries(metadata)
    except ValueError as error:
        raise UserError(
            f"{path} says what pages and slices it takes in a way that makes no sense ({error}): export it anew with "
            "python export/to_onnx.py"
        ) from error


def is_as_written(content: bytes) -> bool | None:
    """Return whether a file's bytes are those of its digest; None where it has none."""
    place = content.rfind(_MARK)
    if place < 0:
        return None
    place += len(_MARK)
    return content[place : place + _DIGITS] == _digest(content, place).encode()


def _digest(content: bytes, place: int) -> str:
    view = memoryview(content)  # nothing is copied: a file may have hundreds of megabytes
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * _DIGITS)
    digest.update(view[place + _DIGITS :])
    return digest.hexdigest()


def read_onnx(path: Path, notes: list[str]) -> bytes:
    """Return the bytes of an ONNX file; a line is appended to `notes` where nothing can tell whether it is unharmed.

    Raises UserError where it is missing, no ONNX file, damaged or changed since it was written, of a newer version, and
    where its weights lie in other files. A file without a digest is held against the card of the engine beside it.
    """
    content = content_of(path, "ONNX file", "python export/to_onnx.py")
    # Every ONNX file begins with this field. On others OpenVINO tries all the formats that it knows, and prints about
    # it.
    if not content.startswith(b"\x08"):
        raise UserError(f"{path} is no ONNX file: python export/to_onnx.py writes one")
    unharmed = is_as_written(content)
    if unharmed is None:
        if has_external_data(content):
            # They would be looked for in the current folder, wherever the file itself lies.
            raise UserError(f"{path} has weights in other files: save it with all of them inside, by onnx.save")
        if not _is_of_engine_beside(path, content):
            notes.append(
                f"{path} has no digest, so damage to it would not be seen: "
                "python export/to_onnx.py writes files with one"
            )
    elif not unharmed:
        raise UserError(
            f"{path} is damaged, or was changed after it was written: copy it again, or export it anew with python "
            f"export/to_onnx.py; a change of yours is taken once {DIGEST_KEY} is removed from its metadata"
        )
    _refuse_newer(path, content)
    return content


def _is_of_engine_beside(path: Path, content: bytes) -> bool:
    """Tell whether a file is the one that the engine beside it was built from, as its card says.

    Another one need not be damaged: it may have been exported anew.
    """
    try:
        card = EngineCard.beside(path)
    except UserError:
        return False  # an ONNX file needs no card: one that is missing or damaged says nothing of it
    return hashlib.sha256(content).hexdigest() == card.onnx_sha256
