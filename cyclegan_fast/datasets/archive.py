"""Unpacks a data set from a stranger's zip archive, which is checked before a byte of it is written."""

import errno
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from cyclegan_fast.images.folders import EXTENSIONS, is_service
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import LONGEST_NAME, beside
from cyclegan_fast.system.progress import progress_bar

MAX_RATIO = 20  # unpacked to packed size: images hardly compress, and a bomb is a thousand times its archive
SMALL_BYTES = 1 << 20  # any archive may unpack to so much
MOST_MEMBERS = 100_000  # the largest published data set has 8231
DEEPEST = 16  # folders in one another
ENCRYPTED = 0x1  # a bit of a member's flags


class RefusedArchive(UserError):
    """Tells that an archive is damaged, or holds what no data set needs."""


# The errors that zipfile was seen to raise for damaged bytes, beside OSErrors for seeking to where nothing is.
_READING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)


def unpack_data_set(
    file: Path, name: str, folders: Sequence[str], target: Path, finish: Callable[[Path], None]
) -> None:
    """Unpack the folder `name` of an archive as `target`, which appears when all of it is on the disk.

    Args:
        file: the archive; its checksums are compared on the way.
        name: the one folder in the archive that is wanted.
        folders: the folders in that one, each of which must have images.
        target: a path that does not exist yet, or an empty folder.
        finish: is called with the unpacked folder before it gets its name.

    Raises RefusedArchive, naming the member, for a damaged archive or a hostile one; UserError where there is no room.
    """
    unpacking = beside(target, ".", ".unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)  # a kill may have left it
    try:
        try:
            with zipfile.ZipFile(file) as archive:
                members = check_members(archive, name, folders, file.stat().st_size)
                _check_room(members, target.parent)
                unpacking.mkdir()
                _extract(archive, members, unpacking)
        except _READING_ERRORS as error:
            raise RefusedArchive(f"it is damaged: {error}") from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # a damaged directory leads to a seek before the beginning
                raise RefusedArchive("it is damaged: it names places outside itself") from error
            raise UserError(
                f"could not unpack to {unpacking}: {error.strerror}; once this is mended the same command continues"
            ) from error
        finish(unpacking)
        # This comes before the name: after a power cut a folder of empty files would pass for a data set. One call for
        # the whole system takes seconds at most, where thousands of fsyncs take minutes on a spinning disk.
        os.sync()
        unpacking.replace(target)
    except BaseException:
        shutil.rmtree(unpacking, ignore_errors=True)
        raise


def check_members(
    archive: zipfile.ZipFile, name: str, folders: Sequence[str], archive_bytes: int
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files below the folder `name`, by their paths in it; raises RefusedArchive for any unfit member."""
    if len(archive.infolist()) > MOST_MEMBERS:
        raise RefusedArchive(f"it has {len(archive.infolist())} members, more than {MOST_MEMBERS}")
    wanted: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        problem = _problem(info)
        if problem:
            raise RefusedArchive(f"its member {_shortened(info.orig_filename)!r} {problem}")
        path = PurePosixPath(info.filename)
        if info.is_dir() or path.parts[:1] != (name,) or any(map(is_service, path.parts)):
            continue
        place = path.relative_to(name)
        if place in wanted:
            raise RefusedArchive(f"its member {info.orig_filename!r} is there twice")
        wanted[place] = info
    for place in wanted:
        if any(parent in wanted for parent in place.parents):
            raise RefusedArchive(f"its member {name}/{place} lies in what is a file")
    size_bytes = sum(info.file_size for info in archive.infolist())
    if size_bytes > max(MAX_RATIO * archive_bytes, SMALL_BYTES):
        raise RefusedArchive(
            f"it would unpack to {size_bytes / 1e6:.0f} MB, more than {MAX_RATIO} times its own size: a bomb"
        )
    for folder in folders:
        if not any(place.parts[0] == folder and place.suffix.lower() in EXTENSIONS for place in wanted):
            raise RefusedArchive(f"it has no images in {name}/{folder}")
    return wanted


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:50]}...{name[-40:]}"


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Return why a member is refused; None where it is not."""
    name = info.orig_filename  # as it stands in the archive: zipfile cuts `filename` at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not name.strip("/") or name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        return "would be written outside of the folder"
    if "\\" in name or "\0" in name:
        return "has a name that means one file here and another one elsewhere"
    parts = name.split("/")
    if len(parts) > DEEPEST:
        return f"lies in more than {DEEPEST} folders"
    if max(len(os.fsencode(part)) for part in parts) > LONGEST_NAME:
        return f"has a name of more than {LONGEST_NAME} bytes"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is a special file"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an unusual way"
    return None


def _check_room(members: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> None:
    needed, free = sum(info.file_size for info in members.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"unpacked it has {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free in {folder}: make room, or name "
            "another disk with --out; the same command continues"
        )


def _extract(archive: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> None:
    with progress_bar(members.items(), desc="unpacking", unit=" files") as progress:
        for place, info in progress:
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(path, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)  # ends at the declared size, and compares the checksum
