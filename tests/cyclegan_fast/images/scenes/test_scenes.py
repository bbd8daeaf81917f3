"""Regions of scenes are what the libraries that define the formats give, at every level, in bounded memory."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.samples import read_samples
from cyclegan_fast.images.scenes.opening import is_scene, open_scene
from cyclegan_fast.images.scenes.scene import Scene, TiledScene
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.formats.made import noise
from tests.cyclegan_fast.images.scenes.made import (
    make_jpeg_tiles,
    make_pyramid,
    make_zarr,
    smaller,
    write_encoded_tiles,
)

HEIGHT, WIDTH = 150, 201


def check_regions(scene: Scene, levels: list[SampleArray]) -> None:
    """Compare random regions of every level with what it holds."""
    assert list(scene.levels) == [level.shape[:2] for level in levels]
    random = np.random.default_rng(0)
    for level, samples in enumerate(levels):
        height, width = samples.shape[:2]
        for _ in range(8):
            top, left = random.integers(0, height), random.integers(0, width)
            rows, columns = random.integers(1, height - top + 1), random.integers(1, width - left + 1)
            region = scene.read(top, left, rows, columns, level)
            assert region.dtype == samples.dtype
            assert np.array_equal(region, samples[top : top + rows, left : left + columns])


TILES: dict[str, Any] = {"tile": (64, 48)}
COLOURS: dict[str, Any] = TILES | {"photometric": "rgb"}
STRIPS = {"rowsperstrip": 7, "compression": "zlib"}


@pytest.mark.parametrize("subifds", [True, False])
@pytest.mark.parametrize(
    ("channels", "dtype", "options"),
    [
        (3, "uint8", TILES | {"photometric": "rgb", "compression": "zlib"}),
        (3, "uint8", TILES | {"photometric": "rgb", "planarconfig": "separate"}),
        (3, "uint8", STRIPS | {"photometric": "rgb", "predictor": True}),
        (3, "uint8", {"photometric": "rgb"}),
        (1, "uint16", TILES | {"photometric": "minisblack", "byteorder": ">"}),
        (1, "uint16", {"photometric": "minisblack", "byteorder": ">"}),
        (6, "int16", STRIPS | {"photometric": "minisblack", "planarconfig": "contig"}),
        (2, "float32", TILES | {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_regions_of_tiff(tmp_path: Path, channels: int, dtype: str, options: dict[str, Any], subifds: bool) -> None:
    samples = noise(dtype, HEIGHT, WIDTH, channels)
    order = {"byteorder": options["byteorder"]} if "byteorder" in options else {}
    written = {name: value for name, value in options.items() if name != "byteorder"}
    path = tmp_path / "scene.tif"
    if order:  # one level, of the other byte order
        plain = samples[..., 0].astype(samples.dtype.newbyteorder(">"))
        tifffile.imwrite(path, plain, byteorder=">", metadata=None, **written)
        levels = [samples]
    else:
        make_pyramid(path, samples, subifds=subifds, **written)
        levels = [samples, smaller(samples), smaller(smaller(samples))]
    with open_scene(path, 10_000) as scene:
        check_regions(scene, levels)
        kind = PixelType(channels, dtype, 0.0, 255.0)  # type: ignore[arg-type]  # one of these
        whole = scene.converted(scene.read(0, 0, HEIGHT, WIDTH), kind).values
        assert np.array_equal(whole, read_samples(path, kind).values)
    assert is_scene(path) == (len(levels) > 1 or "tile" in options)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_tiles_of_jpeg_are_what_pillow_makes_of_the_file(tmp_path: Path, photometric: str) -> None:
    coarse = Image.fromarray(noise("uint8", 6, 7, 3)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    samples = np.asarray(coarse)
    make_jpeg_tiles(path := tmp_path / "slide.svs", samples, photometric=photometric)
    with open_scene(path) as scene, Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
        assert np.abs(expected.astype(int) - samples).mean() < 3, "it is the picture"
        check_regions(scene, [expected])


def test_inverted_grey_and_opacity_become_what_the_whole_file_becomes(tmp_path: Path) -> None:
    grey, opaque = noise("uint8", HEIGHT, WIDTH), noise("uint8", HEIGHT, WIDTH, 4)
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite", metadata=None, **TILES)
    tifffile.imwrite(
        tmp_path / "opaque.tif", opaque, photometric="rgb", extrasamples=["unassalpha"], metadata=None, **TILES
    )
    for name in ("white.tif", "opaque.tif"):
        with open_scene(tmp_path / name) as scene:
            whole = scene.converted(scene.read(0, 0, HEIGHT, WIDTH), RGB).values
            assert np.array_equal(whole, read_samples(tmp_path / name, RGB).values)
    assert np.array_equal(read_samples(tmp_path / "white.tif", RGB).values[0, ..., 0], 255 - grey)


@pytest.mark.parametrize("version", [2, 3])
def test_regions_of_zarr(tmp_path: Path, version: int) -> None:
    pytest.importorskip("zarr")
    samples = noise("uint16", HEIGHT, WIDTH, 4)
    make_zarr(path := tmp_path / "scene.zarr", samples, version)
    assert is_scene(path)
    with open_scene(path, 10_000) as scene:
        check_regions(scene, [samples, smaller(samples)])


def test_a_zarr_that_lacks_a_level(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    import shutil

    make_zarr(path := tmp_path / "scene.zarr", noise("uint8", HEIGHT, WIDTH, 3), 3)
    shutil.rmtree(path / "1")
    with pytest.raises(UnreadableImage, match=r"scene.zarr: its level 1, 1, is not there: copy the whole folder"):
        open_scene(path)


def test_a_zarr_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "scene.zarr").mkdir()
    (path / "zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(UnreadableImage, match="Zarr is read with zarr, which is not installed: pip install zarr"):
        open_scene(path)


class FakeSlide:
    """Does what OpenSlide does, for a slide of two levels without a corner."""

    def __init__(self, path: str) -> None:
        self.pixels = noise("uint8", 40, 60, 4)
        self.pixels[..., 3] = 255
        self.pixels[:10, :10] = 0
        self.level_dimensions = ((60, 40), (30, 20))
        self.level_downsamples = (1.0, 2.0)
        self.properties = {"openslide.mpp-x": "0.25"}

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        step = 2**level
        left, top = place
        region = self.pixels[top : top + size[1] * step : step, left : left + size[0] * step : step]
        return Image.fromarray(region)

    def close(self) -> None: ...


def test_regions_of_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slide.mrxs"
    with pytest.raises(UnreadableImage, match=r"openslide, which is not installed: pip install openslide-python"):
        open_scene(path)
    module = ModuleType("openslide")
    module.OpenSlide = FakeSlide  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openslide", module)
    colours = FakeSlide("").pixels[..., :3].copy()
    colours[:10, :10] = 255
    with open_scene(path) as scene:
        check_regions(scene, [colours, smaller(colours)])
        assert [scene.microns_of(level) for level in (0, 1)] == [0.25, 0.5]


def test_decoded_tiles_are_bounded_and_rows_decode_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise("uint8", 640, 320, 3)
    tifffile.imwrite(path := tmp_path / "s.tif", samples, tile=(32, 32), photometric="rgb", compression="zlib")
    decoded: list[tuple[int, ...]] = []
    with open_scene(path, 50_000) as scene:
        assert isinstance(scene, TiledScene)
        tile = scene._tile
        monkeypatch.setattr(scene, "_tile", lambda *place: (decoded.append(place), tile(*place))[1])
        for top in range(0, 640, 5):
            assert np.array_equal(scene.read(top, 0, 5, 320), samples[top : top + 5])
            assert scene._cache._held_bytes <= scene.cache_bytes == 50_000
    assert len(decoded) == len(set(decoded)) == 200


def test_what_is_refused_in_one_line(tmp_path: Path) -> None:
    samples = noise("uint8", HEIGHT, WIDTH, 3)
    write_encoded_tiles(tmp_path / "jp2.tif", iter([b"x"]), samples[:64, :64], 64, compression=33005)
    with pytest.raises(UnreadableImage, match=r"jp2.tif: its compression, APERIO_JP2000_RGB, needs a package: pip"):
        open_scene(tmp_path / "jp2.tif")
    Image.fromarray(samples).save(tmp_path / "picture.png")
    with pytest.raises(UnreadableImage, match=r"picture.png: regions are read of TIFF, Zarr and slides alone"):
        open_scene(tmp_path / "picture.png")
    tifffile.imwrite(tmp_path / "whole.tif", samples, photometric="rgb")
    with open_scene(tmp_path / "whole.tif") as scene:
        with pytest.raises(ValueError, match=r"rows 100 to 200 and columns 0 to 5 are no region of the 201x150 pixels"):
            scene.read(100, 0, 100, 5)
        with pytest.raises(ValueError, match="1 levels, and no level 1"):
            scene.read(0, 0, 1, 1, 1)


@pytest.mark.parametrize("subifds", [True, False])
def test_a_truncated_pyramid_is_named_wherever_it_is_cut(tmp_path: Path, subifds: bool) -> None:
    make_pyramid(path := tmp_path / "cut.tif", noise("uint8", HEIGHT, WIDTH, 3), subifds=subifds, **COLOURS)
    content = path.read_bytes()
    said = []
    for size in np.linspace(100, len(content) - 1, 14).astype(int):
        path.write_bytes(content[:size])
        assert is_scene(path), "or else it would be read as a whole, without its levels"
        with pytest.raises(UnreadableImage, match=r"cut.tif: [^\n]+$") as raised:
            open_scene(path)
        said.append(str(raised.value))
    assert said[-1].endswith("it is cut off: 1 of the 2 tiles of its level 2, 51x38, are there")
