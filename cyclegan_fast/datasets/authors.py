"""Downloads the authors' data sets and trained generators, checks them, and says how to use them."""

import difflib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from tqdm import tqdm

from cyclegan_fast.datasets.archive import RefusedArchive, unpack_data_set
from cyclegan_fast.datasets.fetch import Partial, fetch
from cyclegan_fast.datasets.published import (
    AUTHORS,
    CITYSCAPES,
    CITYSCAPES_BY_HAND,
    DATA_SETS,
    FOLDERS,
    MODELS,
    PublishedDataSet,
    PublishedGenerator,
    list_published,
)
from cyclegan_fast.datasets.web import is_web_address
from cyclegan_fast.images.folders import listed_images
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.file_locks import locked_file
from cyclegan_fast.system.files import beside, sha256_of
from cyclegan_fast.system.ranges import check_fields

Published = TypeVar("Published", PublishedDataSet, PublishedGenerator)
GENERATOR_FILE = "latest_net_G.pth"  # the name in the original implementation
DOWNLOAD_MARK = ".download.json"  # the file in a data set that says where it is from, and how many images it had


@dataclass(frozen=True)
class DownloadCommand:
    """Fetch a data set or a trained generator of CycleGAN's authors.

    What was interrupted is continued by the same command; what is there already is left as it is. A server that is
    silent for 30 seconds, or sends less than 1000 bytes a second for a minute, is asked again, and given up the fourth
    time. Some names are both a data set and a generator: the data set is meant unless --model is given. Numbers of
    images and checksums of data sets are those that TensorFlow Datasets recorded; the authors publish none.

    Examples:
        python -m cyclegan_fast.download --list
        python -m cyclegan_fast.download horse2zebra                  # data/horse2zebra/trainA, trainB, testA, testB
        python -m cyclegan_fast.download --model horse2zebra          # models/horse2zebra/latest_net_G.pth
        python -m cyclegan_fast.train --data data/horse2zebra --amp
        python -m cyclegan_fast.translate PHOTOS --checkpoint models/horse2zebra/latest_net_G.pth --out translated
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """a name that --list prints; "cityscapes" says how to fetch Cityscapes by hand, and checks what was fetched"""
    model: bool = False
    """fetch the trained generator of that name"""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """print all names with what they are, and fetch nothing"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """folder of trainA and the others, or of latest_net_G.pth; by default data/NAME, and models/NAME with --model"""
    base: Annotated[str, tyro.conf.arg(name="from", metavar="URL")] = AUTHORS
    """address of the authors or of a mirror, below which there are datasets/NAME.zip and pretrained_models/NAME.pth"""
    sha256: Annotated[str | None, tyro.conf.arg(metavar="HEX")] = None
    """refuse the fetched .zip or .pth file unless this is its SHA-256; it is printed in any case"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if not is_web_address(self.base):
            raise ValueError(f"--from must be an address that begins with http:// or https://, got {self.base}")
        if self.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", self.sha256):
            raise ValueError(f"--sha256 must be 64 hexadecimal digits, got {self.sha256}")
        if self.out is not None and self.out.name in ("", ".."):
            raise ValueError(f"--out must end in the name of a folder, got {self.out}")

    def url_of(self, path: str) -> str:
        """Return the address of a file that is published under `path`."""
        return f"{self.base.rstrip('/')}/{path}"


def download(command: DownloadCommand) -> int:
    """Fetch what a command line asks for; returns the exit status."""
    if command.show_list:
        print(list_published())
        return 0
    if command.name is None:
        raise UserError("give a NAME, or --list to see all of them")
    if command.model:
        download_model(_look_up(command.name, MODELS, "generator"), command)
    elif command.name == CITYSCAPES:
        return check_cityscapes(command.out or Path("data", CITYSCAPES))
    else:
        download_data_set(_look_up(command.name, DATA_SETS, "data set"), command)
    return 0


def _look_up(name: str, known: dict[str, Published], kind: str) -> Published:
    """Return what is published under a name; raises UserError with the names that may have been meant."""
    if name in known:
        return known[name]
    if kind == "data set" and name in MODELS:
        raise UserError(f"{name} is a trained generator and no data set: give --model {name}")
    if kind == "generator" and name in (*DATA_SETS, CITYSCAPES):
        others = difflib.get_close_matches(name.replace("2photo", ""), known, 4, 0.4)
        raise UserError(f"{name} is a data set and no generator: leave --model out, or give {' or '.join(others)}")
    nearest = difflib.get_close_matches(name.lower(), [*known, *([CITYSCAPES] if kind == "data set" else [])], 3, 0.5)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise UserError(f"there is no {kind} {name!r}: {hint}--list prints all names")


def download_data_set(row: PublishedDataSet, command: DownloadCommand) -> None:
    """Fetch and unpack a data set, where it is not there yet, and print how to train with it."""
    target, url = command.out or Path("data", row.name), command.url_of(row.path)
    if _is_there(target, command):
        return
    with _locked(target):
        if _is_there(target, command):  # another process that had the lock may have fetched it by now
            return
        partial = Partial.of(target.with_name(f"{target.name}.zip"))
        digest = _fetch_checked(url, partial, row.most_bytes, command)

        def finish(folder: Path) -> None:
            mark = {"url": url, "sha256": digest, "images": _count_images(folder)}
            (folder / DOWNLOAD_MARK).write_text(json.dumps(mark))

        try:
            unpack_data_set(partial.path, row.name, FOLDERS, target, finish)
        except RefusedArchive as error:
            raise UserError(_refuse(partial, url, error)) from error
        partial.discard()
    print(f"{url}: SHA-256 {digest}{', as TensorFlow Datasets recorded it' if digest == row.sha256 else ''}")
    if digest != row.sha256:
        _say(
            f"TensorFlow Datasets recorded another SHA-256 for {row.name}, {row.sha256}: the file was changed by the "
            "authors, by a mirror or on the way"
        )
    counts = _listed(_count_images(target))
    print(f"{target}: {counts} images; train with: python -m cyclegan_fast.train --data {target} --amp")


def _is_there(target: Path, command: DownloadCommand) -> bool:
    """Tell whether a whole data set is at `target`, and print so; raises UserError where something else is."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise UserError(f"{target} is a file; name a folder with --out")
    found = sorted(path.name for path in target.iterdir())
    if not found:
        return False
    counts = _count_images(target)
    try:
        mark = json.loads((target / DOWNLOAD_MARK).read_bytes())
        origin, expected, digest = f", from {mark['url']}", dict(mark["images"]), mark["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        origin, expected, digest = "; it was not fetched by this command", None, None
    if not all(counts.values()) or (expected is not None and counts != expected):
        had = f" (when it was fetched: {_listed(expected)})" if expected else ""
        raise UserError(
            f"{target} holds {', '.join(found[:4])}, which is no whole data set: {_listed(counts)} images{had}; name "
            "another folder with --out, or remove this one"
        )
    if command.sha256 and digest != command.sha256.lower():
        had = f"from a file with another SHA-256, {digest}" if digest else "and its SHA-256 is not known"
        raise UserError(f"{target} is there already, {had}; name another folder with --out, or remove this one")
    print(f"{target} is there already{origin}")
    return True


def _count_images(folder: Path) -> dict[str, int]:
    return {name: len(listed_images(folder / name)) for name in FOLDERS}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{folder} {count}" for folder, count in counts.items())


def check_cityscapes(root: Path) -> int:
    """Say how to fetch Cityscapes by hand, or that it is there; returns the exit status."""
    from cyclegan_fast.data.layouts import find_cityscapes, is_cityscapes

    if not is_cityscapes(root):
        print(CITYSCAPES_BY_HAND.format(root=root), file=sys.stderr)
        return 2
    counts = {split: len(find_cityscapes(root, split)) for split in ("train", "val")}
    print(f"{root} is there already: {_listed(counts)} photographs with labels")
    return 0


def download_model(row: PublishedGenerator, command: DownloadCommand) -> None:
    """Fetch the file of a generator, where it is not there yet, and print how to translate with it."""
    target, url = (command.out or Path("models", row.name)) / GENERATOR_FILE, command.url_of(row.path)
    if _is_generator_there(target, command):
        return
    with _locked(target):
        if _is_generator_there(target, command):
            return
        partial = Partial.of(target)
        digest = _fetch_checked(url, partial, row.most_bytes, command)
        try:
            network = _describe_generator(partial.path)
        except UserError as error:
            raise UserError(_refuse(partial, url, error)) from error
        partial.publish(target)
    print(f"{url}: SHA-256 {digest}")
    print(
        f"{target}: {network}, {row.source} -> {row.result}; translate with: python -m cyclegan_fast.translate PHOTOS "
        f"--checkpoint {target} --out translated"
    )


def _is_generator_there(target: Path, command: DownloadCommand) -> bool:
    if not target.exists():
        return False
    try:
        network = _describe_generator(target)
    except UserError as error:
        raise UserError(f"{error}; name another folder with --out, or remove this file") from error
    digest = sha256_of(target)
    if command.sha256 and digest != command.sha256.lower():
        raise UserError(f"{target} is there already, with another SHA-256, {digest}; name another --out, or remove it")
    print(f"{target} is there already: {network}, SHA-256 {digest}")
    return True


def _describe_generator(path: Path) -> str:
    """Describe the generator in a file of the original implementation; raises UserError where it is none."""
    from cyclegan_fast.networks.resnet import ResnetGenerator
    from cyclegan_fast.translation.trained import load_generator

    network = load_generator(path, "a2b", []).network
    if isinstance(network, ResnetGenerator):
        return f"a generator of {len(network.blocks)} blocks and {network.stem.out_channels} channels"
    return f"a U-Net generator of {network.halvings} halvings and {network.width} channels"


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold a lock on `target`; raises UserError where another process fetches the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = beside(target, ".", ".lock")
    with locked_file(path, f"another process is fetching {target}: wait for it, or name another --out"):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _fetch_checked(url: str, partial: Partial, most_bytes: int, command: DownloadCommand) -> str:
    """Fetch a whole file; returns its SHA-256, and raises UserError where --sha256 asks for another."""
    print(f"fetching {url}", flush=True)
    fetch(url, partial, _say, most_bytes)
    digest = sha256_of(partial.path)
    if command.sha256 and digest != command.sha256.lower():
        reason = f"its SHA-256 is {digest}, and --sha256 asks for {command.sha256.lower()}"
        raise UserError(_refuse(partial, url, reason))
    return digest


def _refuse(partial: Partial, url: str, reason: object) -> str:
    """Remove what was fetched, so that the next start does not take it up; returns what to say."""
    with open(partial.path, "rb") as file:
        is_page = file.read(64).lstrip().startswith(b"<")
    partial.discard()
    page = "; it is a web page, perhaps one of the network to log in" if is_page else ""
    return f"{url} is refused and removed: {reason}{page}; try again, or name a mirror with --from URL"


def _say(line: str) -> None:
    tqdm.write(f"note: {printable(line)}", file=sys.stderr)
