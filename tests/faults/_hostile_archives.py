"""Draws archives of a data set, whole ones and hostile ones, for the campaign `downloads`."""

import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

NAME = "facades"
FOLDERS = ("trainA", "trainB", "testA", "testB")
ESCAPED = "/tmp/escaped-from-an-archive.png"
Expected = Literal["done", "refused", "either"]
Change = Callable[[zipfile.ZipFile], None]


def _picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {
    f"{folder}/{index}.png": _picture(10 * number + index) for number, folder in enumerate(FOLDERS) for index in (0, 1)
}


@dataclass(frozen=True)
class Archive:
    """Holds what a server sends as a data set, and what is to come of it."""

    what: str
    content: bytes
    expected: Expected


def _zipped(change: Change | None = None, *, name: str = NAME, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for path, content in IMAGES.items():
            target.writestr(f"{name}/{path}", content)
        if change is not None:
            change(target)
    return buffer.getvalue()


GOOD = Archive("a whole archive", _zipped(), "done")


def _with_member(name: str, content: bytes = b"x", kind: int = 0, compression: int = zipfile.ZIP_STORED) -> bytes:
    info = zipfile.ZipInfo("x")
    info.filename = name  # as it is: the constructor cuts it at a NUL
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    return _zipped(lambda target: target.writestr(info, content, compression))


def _outside(source: random.Random) -> Archive:
    up = "../" * source.randint(1, 6)
    names = [
        f"{up}x.png",
        f"{NAME}/{up}{up}x.png",
        f"{NAME}/trainA/{up}x.png",
        ESCAPED,
        f"{NAME}\\..\\..\\x.png",
        "C:/x.png",
        f"{NAME}/trainA/a\0/../../x.png",
        f"{NAME}/trainA/..",
        "/",
        f"/{NAME}/trainA/x.png",
    ]
    name = source.choice(names)
    return Archive(f"a member called {name!r}", _with_member(name), "refused")


def _special(source: random.Random) -> Archive:
    kind = source.choice([stat.S_IFLNK, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
    content = source.choice([b"/etc", b"../../..", b"/etc/passwd", b"."])
    place = source.choice([f"{NAME}/trainA/x.png", f"{NAME}/x", "elsewhere/x", f"{NAME}/trainA"])
    return Archive(f"a member of kind {kind:o} at {place}", _with_member(place, content, kind), "refused")


def _bomb(source: random.Random) -> Archive:
    content = _with_member(f"{NAME}/trainA/zeros.png", bytes(25 << 20), compression=zipfile.ZIP_DEFLATED)
    if source.random() < 0.5:
        return Archive("a bomb", content, "refused")
    size = struct.pack("<I", 25 << 20)
    return Archive("a bomb that hides its size", content.replace(size, struct.pack("<I", 1000)), "refused")


def _overlapping(source: random.Random) -> Archive:
    content = _zipped()
    end = content.rfind(b"PK\5\6")
    begin = struct.unpack_from("<I", content, end + 16)[0]
    first = content[begin : content.find(b"PK\1\2", begin + 4)]
    number = source.choice([100, 20000])
    tail = bytearray(content[end:])
    struct.pack_into("<HHII", tail, 8, number, number, number * len(first), begin)
    return Archive(f"{number} times one member", content[:begin] + first * number + bytes(tail), "refused")


def _odd_name(source: random.Random) -> Archive:
    long, deep = source.randint(300, 5000), source.randint(20, 3000)
    names = [f"{NAME}/trainA/{'x' * long}.png", f"{NAME}/trainA/{'d/' * deep}x.png", f"{NAME}/trainA/0.png/x.png"]
    name = source.choice(names)
    return Archive(f"a member called {name[:40]}..., {len(name)} characters", _with_member(name), "refused")


def _damaged(source: random.Random) -> Archive:
    content = bytearray(GOOD.content)
    place = source.randrange(len(content))
    how = source.choice(["cut", "flipped", "overwritten"])
    if how == "cut":
        return Archive(f"an archive cut at {place}", bytes(content[:place]), "refused")
    if how == "flipped":
        content[place] ^= 1 << source.randrange(8)
    else:
        content[place : place + 50] = source.randbytes(len(content[place : place + 50]))
    return Archive(f"an archive {how} at {place}", bytes(content), "either")


def _another(source: random.Random) -> Archive:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as target:
        link = tarfile.TarInfo(f"{NAME}/trainA/x.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        target.addfile(link)
    encrypted = bytearray(GOOD.content)
    encrypted[GOOD.content.index(b"PK\1\2") + 8] |= 1
    contents = {
        "nothing": b"",
        "noise": source.randbytes(source.randint(1, 9000)),
        "a tar": tar.getvalue(),
        "a web page": b"<html>log in</html>",
        "another data set": _zipped(name="maps"),
        "an encrypted archive": bytes(encrypted),
        "an archive in bzip2": _zipped(compression=zipfile.ZIP_BZIP2),
    }
    what = source.choice(list(contents))
    return Archive(what, contents[what], "refused")


def drawn(source: random.Random) -> Archive:
    """Return an archive that is hostile, damaged, or something else."""
    kinds = [
        _outside,
        _outside,
        _special,
        _special,
        _bomb,
        _overlapping,
        _odd_name,
        _damaged,
        _damaged,
        _damaged,
        _another,
    ]
    return source.choice(kinds)(source)
