"""`python -m bench.scenes`: memory and time of translations of whole scenes, at several sides, on one thread of a CPU.

A scene is made, a tiled TIFF of noise in which a pattern repeats, and translated by `translate --tile` in a process of
its own. Its peak is resident memory at its highest, less what it had once everything was imported.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from bench.measure.live_memory import BYTES_PER_GIB
from bench.reporting.markdown import markdown_table
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.translation.scenes.pyramid import TILE

_TRANSLATE = """
import sys, time
from pathlib import Path
from cyclegan_fast.translation.command import parse_translate, translate
import cyclegan_fast.translation.scenes.translating

def resident_kib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0])

before, start = resident_kib("VmRSS"), time.perf_counter()
status = translate(parse_translate(sys.argv[1:]))
print("measured", time.perf_counter() - start, resident_kib("VmHWM") - before)
sys.exit(status)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scenes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048], help="of the square scenes, pixels")
    parser.add_argument("--width", type=int, default=8, help="channels behind the first convolution")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="for scenes, translations and scratch files; on a large disk")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        weights = Path(folder) / "latest_net_G.pth"
        torch.manual_seed(0)
        network = ResnetGenerator(width=options.width, blocks=options.blocks)
        for parameter in network.parameters():  # so that the translation is no even grey, which takes no room
            torch.nn.init.normal_(parameter, std=0.1)
        torch.save(to_original(network.state_dict()), weights)
        for side in options.sides:
            rows.append(_measured(side, weights, Path(folder)))
            print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown_table(("side, pixels", "time, s", "peak, MiB", "scratch files, GiB", "translation, GiB"), rows))
    return 0


def _measured(side: int, weights: Path, folder: Path) -> list[str]:
    """Translate a made scene, and return the row of the table."""
    scene, out = folder / f"{side}.tif", folder / "out"
    # Made tile by tile, so that this process holds none of it while it waits.
    stored: dict[str, Any] = {"shape": (side, side, 3), "dtype": np.uint8, "tile": (TILE, TILE), "photometric": "rgb"}
    tifffile.imwrite(scene, _tiles(side), **stored, compression="zlib", bigtiff=True, maxworkers=1)
    flags = [*("--checkpoint", weights), *("--out", out), "--tile", *("--scratch", folder), *("--device", "cpu")]
    command = [sys.executable, "-c", _TRANSLATE, scene, *flags, *("--threads", "1")]
    ended = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    scratch = next(line for line in ended.stdout.splitlines() if "of scratch files" in line)
    _, elapsed_s, peak_kib = ended.stdout.splitlines()[-1].split()
    needed = scratch.split(" needs ")[1].split()[0]
    written = out / scene.name
    written_gib = written.stat().st_size / BYTES_PER_GIB
    for file in (written, scene):
        file.unlink()
    return [f"{side}", f"{float(elapsed_s):.0f}", f"{int(peak_kib) / 1024:.0f}", needed, f"{written_gib:.3g}"]


def _tiles(side: int) -> Iterator[Pixels]:
    """Yield the tiles of a scene, noise on slopes of brightness whose colour depends on the place."""
    noise = np.random.default_rng(0).integers(0, 64, (TILE, TILE, 3), dtype=np.uint8)
    slope = np.linspace(0, 95, TILE).astype(np.uint8)[:, None, None]
    count = -(-side // TILE)
    for index in range(count * count):
        row, column = divmod(index, count)
        colour = np.array([row * 7 % 96, column * 5 % 96, (row + column) * 3 % 96], np.uint8)
        yield noise + slope + colour


if __name__ == "__main__":
    sys.exit(main())
