"""`python -m bench.scenes`: memory and time of translations of whole scenes, at several sides, on one thread of a CPU.

A scene is made, a tiled TIFF of noise in which a pattern repeats, and translated by `translate --tile` in a process of
its own. Its peak is resident memory at its highest, less what it had once everything was imported. Scenes of at most
`--one-pass` pixels a side are translated once more, all at once in this process, and the bytes of both are compared.
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
from cyclegan_fast.images.pixels import Pixels, to_pixels
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

before, start, begun = resident_kib("VmRSS"), time.perf_counter(), time.process_time()
status = translate(parse_translate(sys.argv[1:]))
print("measured", time.perf_counter() - start, time.process_time() - begun, resident_kib("VmHWM") - before)
sys.exit(status)
"""

_COLUMNS = (
    *("side, pixels", "time, s", "of a core, s", "peak, MiB", "scratch files, GiB", "translation, GiB"),
    "difference from one pass",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scenes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048], help="of the square scenes, pixels")
    parser.add_argument("--width", type=int, default=8, help="channels behind the first convolution")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--empty", type=int, default=0, help="per cent of its rows that are white, above and below")
    parser.add_argument("--mask", action="store_true", help="translate with --mask data")
    parser.add_argument("--one-pass", type=int, default=2048, help="the largest side that is also translated at once")
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
            rows.append(_measured(side, options, network, weights, Path(folder)))
            print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown_table(_COLUMNS, rows))
    return 0


def _measured(
    side: int, options: argparse.Namespace, network: ResnetGenerator, weights: Path, folder: Path
) -> list[str]:
    """Translate a made scene, and return the row of the table."""
    scene, out = folder / f"{side}.tif", folder / "out"
    # Made tile by tile, so that this process holds none of it while it waits.
    stored: dict[str, Any] = {"shape": (side, side, 3), "dtype": np.uint8, "tile": (TILE, TILE), "photometric": "rgb"}
    tifffile.imwrite(scene, _tiles(side, options.empty), **stored, compression="zlib", bigtiff=True, maxworkers=1)
    flags = [*("--checkpoint", weights), *("--out", out), "--tile", *("--scratch", folder), *("--device", "cpu")]
    masking = ["--mask", "data"] if options.mask else []
    command = [sys.executable, "-c", _TRANSLATE, scene, *flags, *("--threads", "1"), *masking]
    ended = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    scratch = next(line for line in ended.stdout.splitlines() if "of scratch files" in line)
    _, elapsed_s, computed_s, peak_kib = ended.stdout.splitlines()[-1].split()
    needed = scratch.split(" needs ")[1].split()[0]
    written = out / scene.name
    written_gib = written.stat().st_size / BYTES_PER_GIB
    difference = _difference(scene, written, network) if side <= options.one_pass else "not computed"
    for file in (written, scene):
        file.unlink()
    times = [f"{float(elapsed_s):.0f}", f"{float(computed_s):.0f}"]
    return [f"{side}", *times, f"{int(peak_kib) / 1024:.0f}", needed, f"{written_gib:.3g}", difference]


def _difference(scene: Path, written: Path, network: ResnetGenerator) -> str:
    """Return the greatest difference of a translation from that of the whole scene at once, and how often it differs.

    White pixels of a translation with --mask are left out.
    """
    image = torch.from_numpy(tifffile.imread(scene)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        whole = to_pixels(network.eval()(image.float() / 127.5 - 1))[0]
    actual = tifffile.imread(written)
    is_white = (actual == 255).all(-1) & (actual != whole).any(-1)
    difference = np.abs(actual.astype(int) - whole)[~is_white]
    return f"{difference.max()} in {100 * (difference > 0).mean():.2g} % of the values"


def _tiles(side: int, empty: int) -> Iterator[Pixels]:
    """Yield the tiles of a scene, noise on slopes of brightness whose colour depends on the place.

    So many per cent of its rows are white, a half of them above and a half below.
    """
    noise = np.random.default_rng(0).integers(0, 64, (TILE, TILE, 3), dtype=np.uint8)
    slope = np.linspace(0, 95, TILE).astype(np.uint8)[:, None, None]
    count = -(-side // TILE)
    for index in range(count * count):
        row, column = divmod(index, count)
        places = np.arange(row * TILE, row * TILE + TILE)
        is_white = np.abs(places + 0.5 - side / 2) > side / 2 * (1 - empty / 100)
        colour = np.array([row * 7 % 96, column * 5 % 96, (row + column) * 3 % 96], np.uint8)
        yield np.where(is_white[:, None, None], np.uint8(255), noise + slope + colour)


if __name__ == "__main__":
    sys.exit(main())
