"""Translations of scenes that are killed, lack room, or find damage: they continue to the same bytes, or say a line.

Killed: at a write to a scratch file, at any file operation, at any time; with `--mask` and without. Room: files may
have so many bytes, or the disk of the scratch files or of the translation is full (where mounting is allowed). Damage:
bytes of a pyramid, of the scratch file or of its journal, chunks and descriptions of a Zarr, headers that claim what is
not there. What is translated then has the bytes that it has without a fault, or those of the damaged file alone.
"""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.translation.strips import scratch_file
from tests.cyclegan_fast.images.scenes.made import make_pyramid, make_zarr
from tests.cyclegan_fast.translations import make_generator, picture
from tests.faults.harness import Campaign, Ended, Tally, limited, run
from tests.faults.harness_image_files import DAMAGES
from tests.faults.harness_mounts import can_mount, grow, tmpfs
from tests.faults.kills import at_operation

TRANSLATE = "cyclegan_fast.translate"
GIB = 2**30
MOST_WRITES, MOST_OPERATIONS = 1500, 400  # of the scene, to scratch files and in all

Fault = Callable[["Scenes"], None]


class Scenes:
    """Makes the faults of one campaign on one scene, whose translations `expected` holds, without a mask and with one.

    Each fault finds `out` and `scratch` empty.
    """

    def __init__(self, tally: Tally, work: Path, random: random.Random) -> None:
        self.tally, self.work, self.random = tally, work, random
        self.weights, self.scene = work / "latest_net_G.pth", work / "scene.tif"
        torch.save(to_original(make_generator(0, blocks=1).state_dict()), self.weights)
        image = picture(300, 52)
        image[:120] = 0
        tags = [(42113, "s", 0, "0", True)]
        make_pyramid(self.scene, image, photometric="rgb", tile=(16, 16), compression="zlib", extratags=tags)
        self.out, self.scratch = work / "out", work / "scratch"
        self.expected = {}
        for mask in ("none", "data"):
            self.clear()
            ended = self.translate(mask)
            if ended.status:
                raise RuntimeError(f"the scene is not translated: {ended.err[-2000:]}")
            self.expected[mask] = self.written.read_bytes()

    @property
    def written(self) -> Path:
        """Return the file of the translation."""
        return self.out / "scene.tif"

    @property
    def kept(self) -> list[Path]:
        """Return the scratch file and its journal, where they are there."""
        return sorted(self.scratch.iterdir())

    def clear(self) -> None:
        """Make both folders empty."""
        for folder in (self.out, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def translate(
        self,
        mask: str = "none",
        scene: Path | None = None,
        *,
        prepare: Callable[[], None] | None = None,
        kill_after_s: float | None = None,
    ) -> Ended:
        """Begin or continue the translation of a scene."""
        places = [scene or self.scene, "--checkpoint", self.weights, "--out", self.out, "--scratch", self.scratch]
        flags = [*map(str, places), "--tile", "--device", "cpu", "--threads", "1", "--mask", mask]
        return run(TRANSLATE, flags, self.work, prepare=prepare, kill_after_s=kill_after_s)

    def judge(self, what: str, mask: str, ended: Ended, *, may_say: bool = False) -> None:
        """Count a fault by what the same command, given as it was, comes to behind it.

        Args:
            may_say: whether that may be a clear line, behind which it is given once more without the scratch files.
        """
        if self.written.exists() and self.written.read_bytes() != self.expected[mask]:
            self.tally.add(what, "other bytes at once", failed=True)
            return
        if not (ended.acceptable or ended.status == -signal.SIGKILL):
            self.tally.ended(what, ended)
            return
        again = self.translate(mask)
        said = ""
        if may_say and again.kind == "clear error" and "remove" in again.last_line:
            said = "says so, "
            for path in self.kept:
                path.unlink()
            again = self.translate(mask)
        if again.status:
            self.tally.add(what, f"does not continue: {again.kind}: {again.last_line}", failed=True)
        elif self.written.read_bytes() != self.expected[mask]:
            self.tally.add(what, "continues to other bytes", failed=True)
        elif self.kept:
            self.tally.add(what, f"leaves {', '.join(path.name for path in self.kept)}", failed=True)
        else:
            self.tally.add(what, f"{said}then the same bytes", failed=False)


# --- killed ----------------------------------------------------------------------------------------------------------


def at_write(number: int) -> Callable[[], None]:
    """Return what lets a process end by SIGKILL before its `number`-th write to a scratch file."""

    def prepare() -> None:
        write, left = scratch_file.ScratchFile.write, iter(range(number))

        def strike(self: scratch_file.ScratchFile, row: np.ndarray) -> int:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(self, row)

        scratch_file.ScratchFile.write = strike  # type: ignore[method-assign]

    return prepare


def killed(scenes: Scenes) -> None:
    """Kill a translation, up to three times on its way."""
    mask, chance = scenes.random.choice(["none", "data"]), scenes.random
    told, ended = [], None
    for _ in range(chance.randrange(1, 4)):
        kind = chance.randrange(3)
        if kind == 0:
            number = chance.randrange(MOST_WRITES)
            told.append(f"write {number}")
            ended = scenes.translate(mask, prepare=at_write(number))
        elif kind == 1:
            number = chance.randrange(1, MOST_OPERATIONS)
            told.append(f"operation {number}")
            ended = scenes.translate(mask, prepare=at_operation(number))
        else:
            seconds = chance.uniform(0.05, 3)
            told.append(f"after {seconds:.2f} s")
            ended = scenes.translate(mask, kill_after_s=seconds)
        if scenes.written.exists():
            break
    assert ended is not None
    scenes.judge(f"killed at {', '.join(told)}, mask {mask}", mask, ended)


# --- room ------------------------------------------------------------------------------------------------------------


def no_room(scenes: Scenes) -> None:
    """Let files have so many bytes, or fill a disk; then there is room again."""
    chance, size = scenes.random, scenes.random.randrange(4, 900)
    folder = chance.choice(["scratch", "out"])
    if chance.random() < 0.5 or not can_mount(scenes.work):
        ended = scenes.translate(prepare=limited(resource.RLIMIT_FSIZE, size * 1024))
        scenes.judge(f"files of {size} KiB", "none", ended)
        return
    place = getattr(scenes, folder)
    with tmpfs(place, f"size={size}k"):
        ended = scenes.translate()
        grow(place, "size=64m")
        scenes.judge(f"a disk of {size} KiB for {folder}", "none", ended)


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged_scratch(scenes: Scenes) -> None:
    """Damage the scratch file or its journal of a translation that was killed."""
    chance = scenes.random
    scenes.translate(prepare=at_write(chance.randrange(300, MOST_WRITES)))
    if not scenes.kept:
        scenes.tally.add("ended before it was killed", "done", failed=not scenes.written.exists())
        return
    path = chance.choice(scenes.kept)
    content = path.read_bytes()
    damage = chance.choice([*DAMAGES[:6], _another_number, _emptied])
    path.write_bytes(damage(content, np.random.default_rng(chance.randrange(2**32))) if content else b"x")
    what = f"{path.suffix} {damage.__name__}"
    scenes.judge(what, "none", scenes.translate(prepare=at_write(chance.randrange(900))), may_say=True)


def _another_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a digit, which is still JSON."""
    digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return content
    place = int(rng.choice(digits))
    return content[:place] + str((int(chr(content[place])) + 1) % 10).encode() + content[place + 1 :]


def _emptied(content: bytes, rng: np.random.Generator) -> bytes:
    return b""


def damaged_pyramid(scenes: Scenes) -> None:
    """Damage the bytes of a scene: it is left out with a line, or read as what it then says."""
    chance = scenes.random
    damage = chance.choice(DAMAGES)
    path = scenes.work / "damaged.tif"
    path.write_bytes(damage(scenes.scene.read_bytes(), np.random.default_rng(chance.randrange(2**32))))
    _translated_or_told(scenes, path, f"{damage.__name__} of a pyramid")


def hostile_header(scenes: Scenes) -> None:
    """Write another number into a tag of the first page or of a level."""
    chance = scenes.random
    path = scenes.work / "hostile.tif"
    shutil.copy(scenes.scene, path)
    names = ("ImageWidth", "ImageLength", "TileWidth", "TileLength", "SamplesPerPixel", "BitsPerSample", "Compression")
    name = chance.choice([*names, "PlanarConfiguration", "PhotometricInterpretation", "TileByteCounts", "TileOffsets"])
    value = chance.choice([0, 1, 2, 3, 15, 17, 255, 4096, 65535])
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        pages = [tiff.pages.first, *(tiff.pages.first.pages or [])]
        page = chance.choice(pages)
        tag = (page if hasattr(page, "tags") else tiff.pages.first).tags[name]
        size = 2**31 - 1 if tag.dtype == 4 and chance.random() < 0.3 else value
        tag.overwrite([size] * tag.count if tag.count > 1 else size)
    _translated_or_told(scenes, path, f"{name} {size}")


def damaged_zarr(scenes: Scenes) -> None:
    """Remove or damage a file of a Zarr: a chunk that is not there has the fill value, all else is said."""
    chance = scenes.random
    path = scenes.work / "scene.zarr"
    make_zarr(path, picture(100, 52), chance.choice([2, 3]))
    file = chance.choice(sorted(each for each in path.rglob("*") if each.is_file()))
    what = f"{file.relative_to(path)}"
    if chance.random() < 0.4:
        file.unlink()
        what += " is missing"
    elif file.suffix == ".json" or file.name.startswith(".z"):
        what += f" {_damaged_description(file, chance)}"
    else:
        damage = chance.choice(DAMAGES[:6])
        file.write_bytes(damage(file.read_bytes(), np.random.default_rng(chance.randrange(2**32))))
        what += f" {damage.__name__}"
    _translated_or_told(scenes, path, what)


def _damaged_description(file: Path, chance: random.Random) -> str:
    """Change one value of a JSON file, or cut the file off; return what was done."""
    content = json.loads(file.read_text())
    places = [(key, value) for key, value in content.items() if value]
    if chance.random() < 0.3 or not places:
        file.write_text(file.read_text()[: chance.randrange(40)])
        return "cut off"
    key, value = chance.choice(places)
    content[key] = chance.choice([None, 0, -1, "x", [], {}, [0, 0], [2**40] * 5, [value]])
    file.write_text(json.dumps(content))
    return f"{key} = {content[key]!r}"


def _translated_or_told(scenes: Scenes, path: Path, what: str) -> None:
    ended = scenes.translate(scene=path, prepare=limited(resource.RLIMIT_AS, 12 * GIB))
    lines = [line for line in ended.err.replace("\r", "\n").splitlines() if str(path) in line]
    if ended.kind == "done" and not (scenes.out / f"{path.stem}.tif").exists():
        scenes.tally.add(what, "done without a translation", failed=not any("skipped" in line for line in lines))
    elif ended.kind == "clear error" and not lines:
        scenes.tally.add(what, f"not named: {ended.last_line}", failed=True)
    else:
        scenes.tally.ended(what, ended)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


FAULTS: tuple[Fault, ...] = (killed, no_room, damaged_scratch, damaged_pyramid, hostile_header)


def make(tally: Tally, work: Path, count: int, random: random.Random) -> None:
    """Make the kinds of faults in turn."""
    faults = FAULTS
    try:
        import zarr  # noqa: F401

        faults += (damaged_zarr,)
    except ModuleNotFoundError:
        print("scenes: zarr is not installed, so that no Zarr is damaged", flush=True)
    scenes = Scenes(tally, work, random)
    for index in range(count):
        scenes.clear()
        faults[index % len(faults)](scenes)


CAMPAIGN = Campaign(make, full=300, few=18)
