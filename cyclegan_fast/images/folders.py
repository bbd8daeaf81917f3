"""Finds the images below a folder by one rule for every command, and describes the files that are left out."""

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import features
from tqdm import tqdm

from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.progress import progress_bar

# The endings that Pillow reads in every build, and those that it reads only with a library that a build may lack.
_ALWAYS = (
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .tga .icb .vda .vst .pcx .dcx "
    ".sgi .rgb .rgba .bw .psd .qoi .dds .ico .icns .msp .xbm .xpm .ras .blp"
)
_WITH_A_LIBRARY = {"webp": ".webp", "avif": ".avif .avifs", "jpg_2000": ".jp2 .j2k .j2c .jpc .jpf .jpx"}

ARRAY_ENDINGS = (".npy", ".npz")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
NIFTI_ENDINGS = (".nii", ".nii.gz")
OF_SAMPLES = (*ARRAY_ENDINGS, *DICOM_ENDINGS, *NIFTI_ENDINGS)
"""Endings of files of samples, which the modules of formats/ read; some need a package, and say so where it lacks."""

EXTENSIONS = frozenset(
    [
        *" ".join([_ALWAYS, *(endings for name, endings in _WITH_A_LIBRARY.items() if features.check(name))]).split(),
        *OF_SAMPLES,
    ]
)
"""Endings of the names of images that the installed Pillow or the modules of formats/ read."""

OTHER_EXTENSIONS = (
    frozenset(
        " ".join(
            [
                *_WITH_A_LIBRARY.values(),
                ".heic .heif .hif .jxl .jxr .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .raf .rw2 .pef .srw .x3f",
                ".raw .psb .xcf .kra .svg .eps .ai .exr .hdr .pfm .fit .fits .pcd .wmf .emf .im",
            ]
        ).split()
    )
    - EXTENSIONS
)
"""Endings of images that are not read. Pillow would take the thumbnail of a camera's raw file for the image."""

SERVICE_FOLDERS = frozenset(
    {
        "__macosx",  # a folder that macOS adds to archives
        "@eadir",  # thumbnails of Synology's and QNAP's servers, their bins and snapshots
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "~snapshot",
        "$recycle.bin",  # the bins of Windows
        "recycler",
        "system volume information",
        "network trash folder",  # a folder on Apple's file servers
        "temporary items",
        "lost+found",
        "__pycache__",
    }
)
"""Names of folders that programs leave behind beside those that begin with a dot, in lower case."""

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\xff\x0a", b"\0\0\0\x0cJXL ", b"8BPS")
_BRANDS = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")
DICOM_MARK = slice(128, 132)  # where a DICOM file says what it is
_SHOWN = 3

_Parts = tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Says which entries of a folder are images: by their endings, and those folders that are one.

    name: what those of these endings are called in notes on others that lie beside them; None where all are images.
    """

    endings: frozenset[str] = EXTENSIONS
    is_image_folder: Callable[[Path], bool] | None = None
    name: str | None = None


IMAGES = Wanted()
"""The files that are decoded as a whole."""


@dataclass(frozen=True)
class Found:
    """Holds the images below a folder, in a fixed order, and lines that describe what else is there.

    `notes` describe what is left out as it should be, `missing` what the user may have meant and is not read.
    """

    images: list[Path]
    notes: list[str]
    missing: list[str]

    def told(self, *, strict: bool) -> list[str]:
        """Return all lines; with `strict`, raise UserError where something is missing."""
        if strict and self.missing:
            raise UserError(f"{self.missing[0]} (leave --strict out to go on without)")
        return self.missing + self.notes


def find_images(folder: Path, *, strict: bool = False) -> list[Path]:
    """Return the image files anywhere below `folder`, in a fixed order; print a note on what is left out.

    With `strict`, raises UserError where something is left out that may have been meant.
    """
    found = search(folder)
    for line in found.told(strict=strict):
        tqdm.write(f"note: {printable(line)}", file=sys.stderr)
    return found.images


def listed_images(folder: Path) -> list[Path]:
    """Return what `find_images` returns, and say nothing: for a folder that somebody else searches and describes."""
    return [folder.joinpath(*parts) for parts in sorted(_Walk(folder, images_only=True).images())]


def has_images(folder: Path) -> bool:
    """Return whether there is an image file anywhere below `folder`, which need not exist.

    Where there is a folder that cannot be searched it is taken to have one, so that whoever opens it names it.
    """
    walk = _Walk(folder, images_only=True)
    return any(True for _ in walk.images()) or bool(walk.closed)


def search(folder: Path, wanted: Wanted = IMAGES) -> Found:
    """Find the image files anywhere below `folder`, in a fixed order, and describe what is left out.

    There is a progress bar where it takes long.
    """
    walk = _Walk(folder, wanted=wanted)
    description = f"searching {printable(folder.name)}"
    with progress_bar(walk.images(), desc=description, unit=" images", leave=False) as images:
        found = sorted(images)
    return Found([folder.joinpath(*parts) for parts in found], walk.notes(), walk.missing())


def is_service(name: str) -> bool:
    """Return whether a file or folder of that name is a program's own and none of the user's."""
    # Hidden files are no photographs: macOS keeps "._a.jpg" beside a.jpg, and a killed write leaves ".a.png.partial".
    return name.startswith(".") or name.lower() in SERVICE_FOLDERS


class _Walk:
    """Searches a folder once: yields the images, and keeps the paths of what is left out, by the reason.

    Hidden files and folders and those of programs are left out. Folders that are links are followed, each once and
    after all that are none, so that an image's name does not depend on the order in which the system lists them.

    Args:
        folder: the paths, as tuples of names, are below it.
        images_only: leave unknown what else is there; then no file is opened.
        wanted: what an image is.
    """

    def __init__(self, folder: Path, *, images_only: bool = False, wanted: Wanted = IMAGES) -> None:
        self.folder = folder
        self.images_only = images_only
        self.wanted = wanted
        self.service: list[_Parts] = []
        self.again: list[_Parts] = []  # links to folders that are searched anyway
        self.nowhere: list[_Parts] = []  # links that lead nowhere
        self.closed: list[tuple[_Parts, str]] = []  # folders that cannot be searched, with the system's reason
        self.unseen: list[tuple[_Parts, str]] = []  # what the system does not tell about, with its reason
        self.unread: list[_Parts] = []
        self.beside: list[_Parts] = []  # images of other endings than the wanted ones
        self._searched: set[tuple[int, int]] = set()
        self._folders: list[_Parts] = []
        self._links: list[_Parts] = [()]

    def images(self) -> Iterator[_Parts]:
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                self._folders.append(link)
                while self._folders:
                    parts = self._folders.pop()
                    for entry in self._entries(parts):
                        yield from self._image((*parts, entry.name), entry)

    def _entries(self, parts: _Parts) -> list[os.DirEntry[str]]:
        """Yield what is in a folder; nothing where it was searched before, or cannot be."""
        folder = self.folder.joinpath(*parts)
        try:
            status = folder.stat()
            identity = status.st_dev, status.st_ino
            if identity in self._searched:
                self.again.append(parts)
                return []
            self._searched.add(identity)
            with os.scandir(folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []  # it was never there, or is gone by now
        except OSError as error:
            self.closed.append((parts, error.strerror or str(error)))
            return []

    def _image(self, parts: _Parts, entry: os.DirEntry[str]) -> Iterator[_Parts]:
        """Yield the path of an entry that is an image, and sort it in where it is something else."""
        if is_service(entry.name):
            if entry.is_dir(follow_symlinks=False):
                self.service.append(parts)
            return
        try:
            is_link = entry.is_symlink()
            is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
            if is_link:
                kind = stat.S_IFMT(entry.stat().st_mode)
                is_folder, is_file = kind == stat.S_IFDIR, kind == stat.S_IFREG
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # the target is gone, or the link itself
                self.nowhere.append(parts)
            else:
                self.unseen.append((parts, error.strerror or str(error)))
            return
        if is_folder and self.wanted.is_image_folder and self.wanted.is_image_folder(Path(entry.path)):
            yield parts
        elif is_folder and is_link:
            (self.again if self._is_loop(Path(entry.path)) else self._links).append(parts)
        elif is_folder:
            self._folders.append(parts)
        elif is_file:
            if ending_of(entry.name) in self.wanted.endings:
                yield parts
            elif ending_of(entry.name) in EXTENSIONS:
                self.beside.append(parts)
            elif not self.images_only and _is_unread_image(entry):
                self.unread.append(parts)

    def _is_loop(self, link: Path) -> bool:
        """Return whether a link leads to a folder that it lies in, or to one that holds all that is searched."""
        target, inside, root = link.resolve(), link.parent.resolve(), self.folder.resolve()
        return target in (inside, *inside.parents, root, *root.parents)

    def notes(self) -> list[str]:
        notes = []
        if self.service:
            names = sorted({parts[-1] for parts in self.service})
            notes.append(
                f"left out {_count(self.service, 'folder')} below {self.folder}, hidden or a program's own: "
                f"{_some(names)}"
            )
        if self.again:
            notes.append(
                f"left out {_count(self.again, 'link')} below {self.folder} to what is searched anyway: "
                f"{_some_paths(self.again)}"
            )
        return notes

    def missing(self) -> list[str]:
        missing = []
        if self.nowhere:
            lead = "leads" if len(self.nowhere) == 1 else "lead"
            missing.append(
                f"left out {_count(self.nowhere, 'link')} below {self.folder} that {lead} nowhere: "
                f"{_some_paths(self.nowhere)}"
            )
        if self.beside:
            missing.append(
                f"left out {_count(self.beside, 'image')} below {self.folder} beside the {self.wanted.name}: "
                f"{_some_paths(self.beside)}"
            )
        missing += [line_on_closed(self.folder.joinpath(*parts), reason) for parts, reason in sorted(self.closed)]
        missing += [
            f"left out {self.folder.joinpath(*parts)}, which cannot be looked at: {reason}"
            for parts, reason in sorted(self.unseen)
        ]
        return missing + lines_on_unread(["/".join(parts) for parts in sorted(self.unread)], f"below {self.folder}")


def line_on_closed(folder: Path, reason: str) -> str:
    """Return the line on a folder that cannot be searched, for the system's reason."""
    return f"left out the folder {folder}, which cannot be searched: {reason}"


def lines_on_unread(names: Sequence[str], where: str) -> list[str]:
    """Return one line on images that are not read under their names; no line where there are no such images."""
    if not names:
        return []
    counts = Counter(ending_of(name) or "without an ending" for name in names)
    listed = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
    return [
        f"left out {_count(names, 'image')} {where} that cannot be read under that name, {listed}: {_some(names)}; "
        "convert them, or give them the ending of their format"
    ]


def ending_of(name: str) -> str:
    """Return the ending of a file's name in lower case, such as ".png" or ".nii.gz"; empty where it has none."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path for each of very many names would take longer
    return ".nii.gz" if ending == ".gz" and name.lower().endswith(".nii.gz") else ending


def _is_unread_image(entry: os.DirEntry[str]) -> bool:
    """Tell by its name, or by its first bytes where it has no ending, whether a file is an image."""
    if ending_of(entry.name) in OTHER_EXTENSIONS:
        return True
    try:
        with open(entry.path, "rb") as file:
            head = file.read(DICOM_MARK.stop)
    except OSError:
        return False  # a file that cannot be opened does not look like an image
    return begins_like_image(head)


def begins_like_image(head: bytes) -> bool:
    """Tell by the first bytes of a file, up to those of `DICOM_MARK`, whether it is an image of a known kind."""
    if head[DICOM_MARK] == b"DICM":
        return True
    return head.startswith(_SIGNATURES) or head[4:12] in _BRANDS or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _some_paths(paths: Sequence[_Parts]) -> str:
    return _some(["/".join(parts) for parts in sorted(paths)])
