"""Pixels are as far apart as files say: OME, Aperio, the tags of TIFF, OME-Zarr."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cyclegan_fast.images.scenes.opening import open_scene
from tests.cyclegan_fast.images.scenes.made import make_zarr

SAMPLES = np.zeros((64, 96, 3), np.uint8)
OF_OME = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
ESCAPED = (
    '<OME><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" SizeX="96" SizeY="64" SizeC="3" SizeZ="1" SizeT="1" '
    'DimensionOrder="XYCZT" PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m"><TiffData/></Pixels></Image></OME>'
)
APERIO = "Aperio Image Library v12\n64x96 |AppMag = 20|MPP = 0.4990|Left = 3"


@pytest.mark.parametrize(
    ("name", "options", "microns"),
    [
        ("a.ome.tif", {"metadata": OF_OME, "resolution": (1, 1), "resolutionunit": "INCH"}, 0.25),
        ("a.tif", {"description": ESCAPED, "metadata": None}, 0.25),
        ("a.svs", {"description": APERIO, "metadata": None}, 0.499),
        ("a.tif", {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ("a.tif", {"resolution": (25400, 25400), "resolutionunit": "INCH"}, 1.0),
        ("a.tif", {"resolution": (3, 3), "resolutionunit": "NONE"}, None),
        ("a.tif", {}, None),
    ],
)
def test_tiff(tmp_path: Path, name: str, options: dict[str, Any], microns: float | None) -> None:
    tifffile.imwrite(tmp_path / name, SAMPLES, photometric="rgb", tile=(32, 32), **options)
    with open_scene(tmp_path / name) as scene:
        assert scene.microns_of(0) == (None if microns is None else pytest.approx(microns))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path: Path, version: int) -> None:
    pytest.importorskip("zarr")
    make_zarr(path := tmp_path / "a.zarr", SAMPLES, version)
    with open_scene(path) as scene:
        assert scene.microns_of(0) is None
    file = path / (".zattrs" if version == 2 else "zarr.json")
    whole = json.loads(file.read_text())
    image = (whole if version == 2 else whole["attributes"]["ome"])["multiscales"][0]
    image["axes"][-1]["unit"] = "nanometer"
    scale = [1, 1, 1, 500, 500]
    image["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    file.write_text(json.dumps(whole))
    with open_scene(path) as scene:
        assert [scene.microns_of(level) for level in (0, 1)] == [0.5, 1.0]
