"""Damaged image files and folders: every file is read or named, and whatever cannot be searched is named.

Whatever the damage, a file is read or ends in UnreadableImage, alone, through the data path of a training and through a
translation, which agree. A folder may hold what the system does not let be read, or names that lead nowhere: then every
command says so in a note, and with `--strict` refuses it.
"""

import faulthandler
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.translator import FunctionTranslator
from tests.faults.harness import TINY, Campaign, Tally, drop_powers, photos_in, run, trained
from tests.faults.harness_image_files import damaged_files, whole_files

MOST_PIXELS = 2**20  # instead of Pillow's limit: a damaged size then costs some MiB, not GiB
BATCH = 200  # files that are in the folder at once
HANG_S = 60.0
FILES_PER_FOLDER = 20
"""Says of how many faults one is of a folder: it takes as long as the others together."""


# --- files ---------------------------------------------------------------------------------------------------------


@contextmanager
def few_pixels() -> Iterator[None]:
    """Lower Pillow's limit on the pixels of an image, and let it not warn of what it reads past."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS // 2
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def cause_of(path: Path) -> str | None:
    """Return the exception of a decoder that ended as UnreadableImage; None where the file is read."""
    try:
        decode(path)
    except UnreadableImage as error:
        return type(error.__cause__).__name__
    return None


def through_the_data_path(folder: Path, cache: Path) -> set[str]:
    """Return the names of the files that training would use."""
    images = ImageFolder(
        folder, Preparation("resize_and_crop", 36, 32), cache_bytes=2**30, cache_dir=cache, workers=2, strict=False
    )
    assert len(images.files) + len(images.unreadable) == len(list(folder.iterdir()))
    return {*images.files}


def through_translation(folder: Path, out: Path) -> set[str]:
    """Return the names of the files that are translated, into their negatives."""

    def negative(pixels: Pixels) -> Pixels:
        return 255 - pixels

    options = ImageOptions((str(folder),), out, format="png")
    jobs = plan(options)
    summary = translate_images(FunctionTranslator(negative), jobs, options, None)
    translated = {job.source.name for job in jobs if job.target.exists()}
    assert summary.translated == len(translated)
    assert len(translated) + len(summary.unreadable) == len(jobs)
    return translated


@dataclass(frozen=True)
class DamagedFile:
    """Says what a damaged file was, and what came of it: "read", or the exception that a decoder raised."""

    ending: str
    damage: str
    came_of_it: str


def damage_files(count: int, seed: int, place: Path) -> Iterator[tuple[Path, DamagedFile, str | None]]:
    """Yield what came of `count` damaged files, which lie in `place` for a while, and in what the ways disagree.

    Whatever leaves them but UnreadableImage is raised, and a file that hangs ends the process with a stack.
    """
    files = damaged_files(count, seed)
    whole = whole_files()["plain.png"]
    for first in range(0, count, BATCH):
        folder = place / f"from-{first}"
        folder.mkdir(parents=True)
        (folder / "whole.png").write_bytes(whole)  # of nothing but unreadable files either way is an error
        damages = {}
        for index in range(first, min(first + BATCH, count)):
            name, damage, content = next(files)
            path = folder / f"{index}-{damage}-{name}"
            path.write_bytes(content)
            damages[path] = damage
        faulthandler.dump_traceback_later(HANG_S * 3, exit=True)
        causes = {path: cause_of(path) for path in damages}
        trained_on = through_the_data_path(folder, place / "cache")
        translated = through_translation(folder, place / "out" / folder.name)
        faulthandler.cancel_dump_traceback_later()
        for path, damage in damages.items():
            is_read = causes[path] is None
            ways = {"trained on": path.name in trained_on, "translated": path.name in translated}
            disagreeing = [f"{'not ' if is_read else ''}{way}" for way, taken in ways.items() if taken != is_read]
            came_of_it = DamagedFile(path.suffix[1:], damage, causes[path] or "read")
            yield path, came_of_it, ", ".join(disagreeing) or None
        shutil.rmtree(folder)
        shutil.rmtree(place / "out")


# --- folders -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderFault:
    """Says what happens to a folder of photographs: `happen` gets the folder and one of its files.

    names: what every command has to name, and with --strict refuses to go on without; "" where all is as it should be.
    powerless: the command runs without the capabilities of root, whom no mode of a file holds up.
    """

    happen: Callable[[Path, Path], object]
    names: str = ""
    powerless: bool = False


def _closed_below(folder: Path, photo: Path, mode: int) -> None:
    (folder / "closed").mkdir()
    shutil.copy(photo, folder / "closed")
    (folder / "closed").chmod(mode)


def _deep(folder: Path, photo: Path) -> None:
    """Put a photograph so deep that its path is longer than the system takes."""
    content, here = photo.read_bytes(), os.open(folder, os.O_RDONLY)
    for _ in range(250):
        os.mkdir("d" * 20, dir_fd=here)  # a Path has no folder to begin at
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with os.fdopen(os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(content)
    os.close(here)


def _replaced(folder: Path, replace: Callable[[Path], object]) -> None:
    shutil.rmtree(folder)
    replace(folder)


FOLDER_FAULTS = {
    "link to itself": FolderFault(lambda folder, _: (folder / "x.png").symlink_to("x.png"), "x.png"),
    "stale link": FolderFault(lambda folder, _: (folder / "x.png").symlink_to("nowhere.png"), "x.png"),
    "stale link to a folder": FolderFault(lambda folder, _: (folder / "x").symlink_to("nowhere"), "x"),
    "links that lead round": FolderFault(
        lambda folder, _: ((folder / "here").symlink_to(folder), (folder / "up").symlink_to(".."))
    ),
    "file without permission": FolderFault(lambda _, photo: photo.chmod(0), "0000.png", powerless=True),
    "folder without permission": FolderFault(lambda f, photo: _closed_below(f, photo, 0), "closed", powerless=True),
    "folder to list only": FolderFault(lambda f, photo: _closed_below(f, photo, 0o444), "closed", powerless=True),
    "folder to enter only": FolderFault(lambda f, photo: _closed_below(f, photo, 0o111), "closed", powerless=True),
    "no permission at all": FolderFault(lambda folder, _: folder.chmod(0), "A", powerless=True),
    "private, and mine": FolderFault(lambda folder, _: folder.chmod(0o700), powerless=True),
    "pipe": FolderFault(lambda folder, _: os.mkfifo(folder / "x.png")),
    "link to a device": FolderFault(lambda folder, _: (folder / "x.png").symlink_to("/dev/zero")),
    "link to a file without an end": FolderFault(
        lambda folder, _: (folder / "x.png").symlink_to("/proc/self/mem"), "x.png"
    ),
    "folder with a file's name": FolderFault(lambda folder, _: (folder / "x.png").mkdir()),
    "name that is no text": FolderFault(lambda f, photo: shutil.copy(photo, os.fsencode(f) + b"/\xff\xfe\xe4.png")),
    "damaged, of such a name": FolderFault(
        lambda folder, _: Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(b"none"), ".png"
    ),
    "name of two lines": FolderFault(lambda folder, photo: shutil.copy(photo, folder / "a\nb\t\x1b[31m.png")),
    "longest name": FolderFault(lambda folder, photo: shutil.copy(photo, folder / f"{'x' * 251}.png")),
    "path too long for the system": FolderFault(_deep, "dddddddd"),
    "formats of one stem": FolderFault(
        lambda folder, photo: [
            Image.open(photo).save(folder / f"a.{ending}") for ending in ("png", "bmp", "bmp.png", "tif")
        ]
    ),
    "two hundred names of one file": FolderFault(
        lambda folder, photo: [os.link(photo, folder / f"{index}.png") for index in range(200)]
    ),
    "no images": FolderFault(lambda folder, _: [path.unlink() for path in folder.iterdir()], "A"),
    "damaged images only": FolderFault(lambda folder, _: [path.write_bytes(b"") for path in folder.iterdir()], "A"),
    "one image": FolderFault(lambda folder, photo: [path.unlink() for path in folder.iterdir() if path != photo]),
    "file in place of the folder": FolderFault(lambda f, _: _replaced(f, lambda folder: folder.write_text("x")), "A"),
    "folder that leads to itself": FolderFault(
        lambda folder, _: _replaced(folder, lambda folder: folder.symlink_to(folder.name)), "A"
    ),
}

NOT_ASKED_FOR = {
    ("stale link to a folder", "translate a pattern"),  # "**/*.png" asks for other names
    ("file in place of the folder", "evaluate"),  # there need be no testA; that there is none is noted
}
"""Faults that a command need not name, or refuse with --strict."""

WAYS = ("train", "train, kept on disk", "translate", "translate a pattern", "evaluate")


def _command(way: str, data: Path, folder: Path, place: Path, generator: Path) -> tuple[str, list[str]]:
    """Return the command, and its arguments, that searches `folder` of the data set `data`."""
    if way.startswith("train"):
        flags = ["--runs", str(place / "runs"), "--name", "x", *(["--cache-gib", "0"] if "disk" in way else [])]
        steps = list(TINY)
        steps[steps.index("--max-steps") + 1] = "1"
        return "cyclegan_fast.train", ["--data", str(data), *steps, *flags, "--cache-dir", str(place / "cache")]
    checkpoint = ["--checkpoint", str(generator), "--out", str(place / "out")]
    if way == "evaluate":
        return "cyclegan_fast.evaluate", ["--data", str(data), *checkpoint]
    return "cyclegan_fast.translate", [str(folder / "**/*.png" if "pattern" in way else folder), *checkpoint]


def search_folder(tally: Tally, work: Path, name: str, way: str, generator: Path) -> None:
    """Let one thing happen to a folder, and one command search it: as it is, and where it has to name it, strictly."""
    fault, place = FOLDER_FAULTS[name], work / "folder"
    data = place / "data"
    shutil.copytree(photos_in(work), data)
    folder = data / ("testA" if way == "evaluate" else "trainA")
    fault.happen(folder, folder / "0000.png")
    module, arguments = _command(way, data, folder, place, generator)
    prepare = drop_powers if fault.powerless else None
    try:
        ended = run(module, arguments, work, prepare=prepare)
        what = f"{name}, {way}"
        is_asked_for = (name, way) not in NOT_ASKED_FOR
        if ended.acceptable and is_asked_for and fault.names not in ended.out + ended.err:
            tally.add(what, f"{ended.kind}, and {fault.names} is not named", failed=True)
            return
        tally.ended(what, ended)
        if fault.names and is_asked_for and ended.status == 0:
            for made in ("out", "runs"):  # what is done is not begun again
                shutil.rmtree(place / made, ignore_errors=True)
            strictly = run(module, [*arguments, "--strict"], work, prepare=prepare)
            if strictly.kind != "clear error":
                tally.add(f"{what} --strict", f"{strictly.kind}: {strictly.last_line}", failed=True)
    finally:
        for path in (folder / "closed", folder):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(place)


def make(tally: Tally, work: Path, count: int, random: random.Random) -> None:
    """Damage files, nineteen of twenty, and folders."""
    generator = trained(work, "generator", steps=1)
    folders = [(name, way) for name in FOLDER_FAULTS for way in WAYS]
    chosen = random.sample(folders, min(len(folders), max(1, count // FILES_PER_FOLDER)))
    for name, way in chosen:
        search_folder(tally, work, name, way, generator)
    with few_pixels():
        for path, file, disagreeing in damage_files(count - len(chosen), random.randrange(2**32), work / "files"):
            what = "read" if file.came_of_it == "read" else "named"
            tally.add(path.name, f"{file.came_of_it}, {disagreeing}" if disagreeing else what, failed=bool(disagreeing))


CAMPAIGN = Campaign(make, full=2000, few=60)
