"""Translates images of many sizes with a command, in a process of its own, and prints what memory that takes.

    python -m tests.export.memory_over_sizes CHECKPOINT_OR_ONNX SIDES COUNT [FLAG ...]

Prints the resident memory in MiB after 100 sizes and after the last. SIDES are the smallest and the largest, such as
40-160, of which COUNT pairs are drawn.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # as the commands do

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_fast import translate
from cyclegan_fast.translation import batches
from cyclegan_fast.translation.prepared import Slice
from export import run


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw_images(folder: Path, smallest: int, largest: int, count: int) -> None:
    """Write noise of `count` different sizes."""
    draws = np.random.default_rng(0)
    sizes = {tuple(4 * draws.integers(smallest // 4, largest // 4 + 1, 2)) for _ in range(4 * count)}
    for index, (height, width) in enumerate(sorted(sizes, key=lambda _: draws.random())[:count]):
        pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.png", compress_level=1)


def main(file: str, sides: str, count: str, *flags: str) -> int:
    groups = batches.same_shaped

    def watched(images: Iterable[Slice], most: int) -> Iterator[list[Slice]]:
        for number, group in enumerate(groups(images, most), 1):
            yield group
            if number in (100, int(count)):
                print(f"{number} sizes: {resident_mib():.1f} MiB", flush=True)

    batches.same_shaped = watched
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name, "photos")
        photos.mkdir()
        smallest, largest = map(int, sides.split("-"))
        draw_images(photos, smallest, largest, int(count))
        arguments = [str(photos), "--out", f"{name}/out", "--no-contact-sheet", "--device", "cpu", *flags]
        if "--tile" not in flags:
            arguments.append("--keep-size")
        if file.endswith(".onnx"):
            return run.main([*arguments, "--onnx", file])
        return translate.main([*arguments, "--checkpoint", file])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
