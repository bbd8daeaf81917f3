"""Makes scenes with the libraries that define their formats."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from cyclegan_fast.images.pixel_type import SampleArray


def smaller(samples: SampleArray) -> SampleArray:
    """Return every other row and column, the level below."""
    return np.ascontiguousarray(samples[::2, ::2])


def make_pyramid(path: Path, samples: SampleArray, *, subifds: bool = True, count: int = 2, **options: Any) -> None:
    """Write samples [H, W, C] and `count` smaller levels, in SubIFDs or as reduced pages behind the first."""
    planar = options.get("planarconfig") == "separate"
    with tifffile.TiffWriter(path) as tiff:
        for level in range(count + 1):
            stored = np.moveaxis(samples, -1, 0) if planar else samples
            below = {"subifds": count if subifds else 0} if level == 0 else {"subfiletype": 1}
            plain = stored[..., 0] if samples.shape[-1] == 1 else stored
            tiff.write(np.ascontiguousarray(plain), **options, **below, metadata=None)
            samples = smaller(samples)


def make_jpeg_tiles(path: Path, samples: SampleArray, *, photometric: str, tile: int = 64) -> None:
    """Write samples [H, W, 3] as tiles that Pillow compresses as JPEG, whose tables stand apart as in slides."""

    def tiles() -> Iterator[bytes]:
        height, width = samples.shape[:2]
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                inside = samples[top : top + tile, left : left + tile]
                whole = np.pad(inside, ((0, tile - len(inside)), (0, tile - inside.shape[1]), (0, 0)), "edge")
                content = io.BytesIO()
                options = {"keep_rgb": True} if photometric == "rgb" else {"subsampling": 0}
                Image.fromarray(whole).save(content, "JPEG", quality=95, **options)
                yield content.getvalue()

    write_encoded_tiles(path, tiles(), samples, tile, compression=7, photometric=2 if photometric == "rgb" else 6)


def write_encoded_tiles(
    path: Path, tiles: Iterator[bytes], samples: SampleArray, tile: int, *, compression: int, photometric: int = 2
) -> None:
    """Write tiles that are compressed already, in a way that tifffile has no codec for: it is told zlib first."""
    tifffile.imwrite(
        path,
        tiles,
        shape=samples.shape,
        dtype=samples.dtype,
        tile=(tile, tile),
        photometric="rgb",
        compression="zlib",
        metadata=None,
    )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(compression)
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(photometric)


def make_zarr(path: Path, samples: SampleArray, version: int) -> None:
    """Write samples [H, W, C] and one smaller level as an OME-Zarr of version 0.4 or 0.5, with axes tczyx."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    for level in range(2):
        stored = np.moveaxis(samples, -1, 0)[None, :, None]
        group.create_array(str(level), data=np.ascontiguousarray(stored), chunks=(1, 1, 1, 32, 48))
        samples = smaller(samples)
    axes = [{"name": name} for name in "tczyx"]
    described = [{"axes": axes, "datasets": [{"path": str(level)} for level in range(2)]}]
    group.attrs["multiscales" if version == 2 else "ome"] = described if version == 2 else {"multiscales": described}
