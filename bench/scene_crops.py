"""`python -m bench.scene_crops`: crops a second that are cut out of a scene, against the same crops from PNG files.

A scene is made, a tiled TIFF of soft shapes and a little noise, compressed as JPEG or by deflate. Random crops of it
are read as a training reads them, and then the same crops from a PNG file each; both in turns, and the pixels are
compared. Files are in the system's memory in both cases: it is decoding that is measured. Rates are crops
for each second of processor time, of one core, which other processes of the machine hardly change.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import tifffile
from PIL import Image

from bench.reporting.markdown import markdown_table
from cyclegan_fast.config.data_options import DataConfig
from cyclegan_fast.data.layouts import Place
from cyclegan_fast.data.scenes.crops import RandomCrops
from cyclegan_fast.data.scenes.finding import find_scenes_in
from cyclegan_fast.data.scenes.scene_folder import SceneDomain, SceneFolder
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixel_type import RGB, SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.samples import read_samples
from cyclegan_fast.images.scenes.scene import TileCache

_Item = TypeVar("_Item")
_TILE = 256
_KINDS = {"JPEG": (7, 6), "deflate": (8, 2)}  # TIFF's numbers of the compression and of the kind of colour


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scene_crops", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--side", type=int, default=16384, help="of the square scene, pixels")
    parser.add_argument("--crop", type=int, default=256, help="side of the crops, pixels")
    parser.add_argument("--crops", type=int, default=128, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="threads that read crops")
    parser.add_argument("--cache-mib", type=int, default=64, help="memory for decoded tiles, MiB")
    parser.add_argument("--folder", type=Path, help="for the scene and the files; on a large disk")
    options = parser.parse_args(arguments)
    rows = []
    for kind in _KINDS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(_measured(kind, Path(folder), options))
            print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown_table(("tiles", "from the scene", "from PNG", "ratio", "opening, s"), rows))
    return 0


def _measured(kind: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """Read crops of a made scene, and return the row of the table."""
    (scenes := folder / "trainA").mkdir()
    make_tiled_scene(scenes / "scene.tif", options.side, kind)
    config = DataConfig(scenes="yes", least_data=0.0, workers=options.workers)
    found = find_scenes_in(Place(scenes), config)
    assert found is not None
    begin = time.process_time()
    tiles = TileCache(options.cache_mib * 2**20)
    opened = SceneFolder(scenes, found, SceneDomain(config, "A", RGB, options.crop), tiles)
    opening_s = time.process_time() - begin
    crops = RandomCrops(opened, options.crops)
    of_scene, of_files, ratios = [], [], []
    with ThreadPoolExecutor(options.workers) as pool:
        for round_number in range(options.rounds):
            draw = range(round_number * options.crops, (round_number + 1) * options.crops)
            cut, cut_rate = _timed(pool, crops.__getitem__, draw)
            paths = [folder / f"{index}.png" for index in range(options.crops)]
            for path, pixels in zip(paths, cut, strict=True):
                write_image(pixels, path)
            read, read_rate = _timed(pool, _of_file, paths)
            if not all(np.array_equal(one, other) for one, other in zip(cut, read, strict=True)):
                raise SystemExit("the files hold other pixels than were cut out of the scene")
            of_scene.append(cut_rate)
            of_files.append(read_rate)
            ratios.append(cut_rate / read_rate)
    numbers = (f"{median(of_scene):.0f}", f"{median(of_files):.0f}", f"{median(ratios):.2f}", f"{opening_s:.1f}")
    return [kind, *numbers]


def _timed(
    pool: ThreadPoolExecutor, function: Callable[[_Item], SampleArray], items: Sequence[_Item]
) -> tuple[list[SampleArray], float]:
    """Return what a function makes of items, in threads, and how many in a second of processor time."""
    begin = time.process_time()
    made = list(pool.map(function, items))
    return made, len(items) / (time.process_time() - begin)


def _of_file(path: Path) -> SampleArray:
    values: SampleArray = read_samples(path, RGB).values[0]
    return values


def make_tiled_scene(path: Path, side: int, kind: str) -> None:
    """Write a scene in tiles that Pillow compresses as JPEG, or tifffile by deflate."""
    compression, photometric = _KINDS[kind]
    tiles = _as_jpeg(_shapes(side)) if kind == "JPEG" else _shapes(side)
    tifffile.imwrite(
        path,
        tiles,
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(_TILE, _TILE),
        photometric="rgb",
        compression="zlib",
        metadata=None,
        maxworkers=1,
    )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(compression)
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(photometric)


def _shapes(side: int) -> Iterator[Pixels]:
    """Yield the tiles of a scene: one of 16 of soft shapes, with a little noise, brighter or darker by the place."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 150, (16, _TILE // 8, _TILE // 8, 3), dtype=np.uint8)
    soft = [np.asarray(Image.fromarray(one).resize((_TILE, _TILE), Image.Resampling.BICUBIC)) for one in coarse]
    noisy = [one + random.integers(0, 8, one.shape, dtype=np.uint8) for one in soft]
    for index in range((-(-side // _TILE)) ** 2):
        yield noisy[index % 16] + np.uint8(index * 7 % 90)


def _as_jpeg(tiles: Iterator[Pixels]) -> Iterator[bytes]:
    for tile in tiles:
        content = io.BytesIO()
        Image.fromarray(tile).save(content, "JPEG", quality=85, subsampling=0)
        yield content.getvalue()


if __name__ == "__main__":
    sys.exit(main())
