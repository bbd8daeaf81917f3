"""Translates the files of a batch one after another, and packs the translations into a ZIP archive."""

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cyclegan_fast.demonstration.shown_run import BeforeAndAfter
from cyclegan_fast.demonstration.wording import said_of
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import replacing

ARCHIVE = "translations.zip"


class Archive(NamedTuple):
    """Holds the archive of a batch, its translations as PNG files, and a line on each picture that was left out."""

    file: Path
    pictures: list[Path]
    left_out: list[str]


def write_archive(files: Iterable[Path], translate: Callable[[Path], BeforeAndAfter], out: Path) -> Archive:
    """Translate files into PNG files of a folder and into an archive of them, which is made also where none is left.

    A file that cannot be translated is left out, with a line, as the command does. Names that come twice get a number.
    """
    pictures: list[Path] = []
    left_out: list[str] = []
    taken: set[str] = set()
    with replacing(out / ARCHIVE, to_disk=False) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for given in files:
            try:
                after = translate(given).after
            except (UserError, UnreadableImage) as error:
                left_out.append(said_of(error, given))
                continue
            picture = out / f"{_free_name(given.stem, taken)}.png"
            write_image(np.asarray(after), picture)
            archive.write(picture, picture.name)
            pictures.append(picture)
    return Archive(out / ARCHIVE, pictures, left_out)


def _free_name(stem: str, taken: set[str]) -> str:
    """Return a name that no file of the batch has yet, also where the system's names ignore case."""
    name, number = stem, 2
    while name.lower() in taken:
        name, number = f"{stem} {number}", number + 1
    taken.add(name.lower())
    return name
