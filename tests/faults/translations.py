"""Translations that ask for too much, or write where it cannot be: the rest is done, and one sentence says what lacks.

Sizes from far too large to just too large, under limits of the address space; one large image among small ones; weights
of more channels than any memory holds; no more threads; names and paths beyond the system's limit, among others that
can be written.
"""

import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from PIL import Image

from tests.faults.harness import Campaign, Tally, limited, photos_in, run, trained

TRANSLATE, EVALUATE = "cyclegan_fast.translate", "cyclegan_fast.evaluate"
GIB, MIB = 2**30, 2**20
NOBODY = 65534

Fault = Callable[[Tally, Path, Path, random.Random], None]


def flags_too_large(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Ask for sizes and batches that no memory holds, and for devices, files and folders that are not there."""
    photo = str(photos_in(work) / "testA" / "0000.png")
    sizes = [20_000, 40_000, 200_000, 10**6 * 4, 4 * 10**9, 10**30, 0, -4, 10]
    faults = {
        **{f"size {size}": ["--size", str(size)] for size in sizes},
        **{f"tile, size {size}": ["--tile", "--size", str(size)] for size in sizes if size > 20_000},
        **{f"batch {size}": ["--batch-size", str(size)] for size in (10**9, 10**30, 0, -1)},
        **{f"out {path}": ["--out", path] for path in ("/dev/null", "/proc/x", "/dev/full/x", photo, "x" * 5000)},
        **{f"sheet {path}": ["--contact-sheet", path] for path in ("/proc/x.png", f"{work}.png/x.png", "x.gif", photo)},
        **{f"scratch {path}": ["--tile", "--scratch", path] for path in ("/dev/null", "/proc", "/nowhere/x")},
        **{f"checkpoint {path}": ["--checkpoint", path] for path in ("", "/dev/null", photo, "nowhere", "x" * 5000)},
        "webp larger than that takes": ["--format", "webp", "--size", "16400"],
        "no device": ["--device", "cuda:7"],
    }
    what, flags = random.choice(sorted(faults.items()))
    given = [photo, "--checkpoint", str(generator), "--out", str(work / "out"), *flags]
    gib = random.uniform(3, 7)
    ended = run(TRANSLATE, given, work, prepare=limited(resource.RLIMIT_AS, int(gib * GIB)))
    tally.ended(f"{what}, {gib:.1f} GiB", ended)


def little_memory(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Leave a command a few MiB more than it has: the lack shows in whatever asks next."""
    data, mib = photos_in(work), random.randrange(0, 400)
    size = 4 * random.randrange(8, 256)
    checkpoint = ["--checkpoint", str(generator), "--size", str(size)]
    module, arguments = random.choice(
        [
            (TRANSLATE, [str(data / "testA"), *checkpoint, "--out", str(work / "out")]),
            (TRANSLATE, [str(data / "testA"), *checkpoint, "--out", str(work / "out"), "--tile"]),
            (EVALUATE, ["--data", str(data), *checkpoint, "--out", str(work / "out")]),
        ]
    )

    def limit() -> None:
        here = psutil.Process().memory_info().vms + mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (here, here))

    tally.ended(f"{module}, {mib} MiB, size {size}", run(module, arguments, work, prepare=limit))


def no_more_threads(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Let the system start no thread, or a few: as a user who has as many processes as are allowed."""
    allowed = random.randrange(0, 6)
    (work / "out").mkdir()
    (work / "out").chmod(0o777)
    flags = random.choice([[], ["--threads", "2"], ["--batch-size", "3"]])
    arguments = [str(photos_in(work) / "testA"), "--checkpoint", str(generator), "--out", str(work / "out"), *flags]

    def limit() -> None:
        if os.getuid() == 0:  # whom no limit of processes holds up
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))

    tally.ended(f"{allowed} threads, {' '.join(flags)}", run(TRANSLATE, arguments, work, prepare=limit))


def channels_claimed(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Write weights that claim very many channels, in the first convolution or in all, by views of one number."""
    weights, first = _bare(generator), "stem.weight"
    width = 2 ** random.randrange(8, 27)
    if random.random() < 0.5:
        weights[first] = torch.zeros(1).expand(width, *weights[first].shape[1:])
    else:
        old = weights[first].size(0)
        for key, value in weights.items():
            sizes = [size // old * width if size % old == 0 else size for size in value.shape]
            weights[key] = torch.zeros(1).expand(sizes)
    path = work / "claims.pth"
    torch.save(weights, path)
    photo = str(photos_in(work) / "testA" / "0000.png")
    arguments = [photo, "--checkpoint", str(path), "--out", str(work / "out")]
    ended = run(TRANSLATE, arguments, work, prepare=limited(resource.RLIMIT_AS, 6 * GIB))
    tally.ended(f"{width} channels", ended)


def _bare(run_folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True)
    return {key.removeprefix("G_A."): value for key, value in content["model"].items() if key.startswith("G_A.")}


def names_beyond_limits(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Give images of which some cannot be written: all others are, and the status and a line for each say so."""
    source, out = work / "in", work / "out"
    source.mkdir()
    photo = photos_in(work) / "testA" / "0000.png"
    names = [f"{'n' * random.randrange(238, 252)}{ending}" for ending in (".png", ".bmp", ".tga", ".jpg")]
    names += ["a.png", "a.bmp", "a.bmp.png", f"{'ä' * random.randrange(100, 126)}.png", "blocked.png", "folder/b.png"]
    chosen = random.sample(sorted(set(names)), random.randrange(3, len(set(names)) + 1))
    for name in chosen:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, source / name)
    while len(os.fsencode(out)) < 4096 - random.choice([20, 200, 280, 1000]):
        out /= "o" * min(200, 4096 - 20 - len(os.fsencode(out)))
    if random.random() < 0.5:
        out = work / "out"
        (out / "blocked.png").mkdir(parents=True)  # a folder where a file should go
        (out / "folder").write_text("a file where a folder should be")
    arguments = [
        str(source),
        "--checkpoint",
        str(generator),
        "--out",
        str(out),
        "--format",
        random.choice(["png", "webp"]),
    ]
    ended = run(TRANSLATE, arguments, work)
    written = sum(1 for _, _, files in os.walk(work / "out") for name in files if name.endswith((".png", ".webp")))
    lines = ended.err.count("could not write ")
    what = f"{len(chosen)} names, {written} written, {lines} not"
    if not ended.acceptable or ended.status == 2:
        can_be = len(os.fsencode(out)) < 3700
        tally.add(what, f"{ended.kind}: {ended.last_line}", failed=not ended.acceptable or can_be)
    elif written + lines < len(chosen) or ended.status != (1 if lines else 0):
        tally.add(what, f"status {ended.status}: {ended.err}", failed=True)
    else:
        tally.add(what, "rest done" if lines else "done", failed=False)


def image_too_large(tally: Tally, work: Path, generator: Path, random: random.Random) -> None:
    """Give one image among small ones that may be too large for the memory: it is named then, and the rest is done."""
    source, out = work / "in", work / "out"
    shutil.copytree(photos_in(work) / "testA", source)
    sides = random.randrange(500, 4500), random.randrange(500, 4500)
    Image.new("RGB", sides, "navy").save(source / f"{random.randrange(10)}.png", compress_level=1)
    few, mib = len(list(source.iterdir())) - 1, random.randrange(700, 1500)

    def limit() -> None:
        here = psutil.Process().memory_info().vms + mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (here, here))

    arguments = [str(source), "--checkpoint", str(generator), "--out", str(out), "--no-contact-sheet"]
    ended = run(TRANSLATE, arguments, work, prepare=limit)
    written, left_out = len(list(out.iterdir())), ended.err.count("left out ") + ended.err.count("could not write ")
    what = f"{sides[0]}x{sides[1]} among {few} in {mib} MiB, {written} written, {left_out} not"
    if ended.acceptable and written + left_out == few + 1 and written >= few and ended.status == left_out:
        tally.add(what, "rest done" if left_out else "done", failed=False)
    else:
        tally.add(what, f"{ended.kind}, status {ended.status}: {ended.last_line}", failed=True)


FAULTS: tuple[Fault, ...] = (
    names_beyond_limits,
    image_too_large,
    flags_too_large,
    channels_claimed,
    little_memory,
    no_more_threads,
)


def make(tally: Tally, work: Path, count: int, random: random.Random) -> None:
    """Make the kinds of faults in turn."""
    generator = trained(work, "generator", steps=1)
    work.chmod(0o755)
    for index in range(count):
        FAULTS[index % len(FAULTS)](tally, work, generator, random)
        for left in ("in", "out"):
            shutil.rmtree(work / left, ignore_errors=True)


CAMPAIGN = Campaign(make, full=300, few=12)
