"""Takes images that are not 8-bit RGB through all commands, as a user gives them: grey ones of 12 bits, and colours."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from cyclegan_fast import evaluate, train, translate
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from export import run as run_exported, to_onnx, verify
from tests.cyclegan_fast.pictures import photo

GREY12 = PixelType(1, "uint16", 0, 4095)
GEOREFERENCE = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]
FLAGS = (
    "--generator resnet_6 --ngf 4 --ndf 4 --load-size 36 --crop-size 32 --range-a 0 4095 --report-every 2 "
    "--sample-every 4 --checkpoint-every 2 --evaluate-every 4 --workers 0 --threads 1 --device cpu --track none --runs"
)


def write_folders(data: Path) -> None:
    """Write scans of 12 bits in GeoTIFF as A, and photographs as B."""
    for number, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        (data / folder).mkdir(parents=True)
        for seed in (2 * number, 2 * number + 1):
            picture = photo(40, seed)
            if folder.endswith("B"):
                picture.save(data / folder / f"{seed}.png")
            else:
                scan = np.asarray(picture.convert("L"), np.uint16) * 16
                tifffile.imwrite(data / folder / f"{seed}.tif", scan, extratags=GEOREFERENCE)


def read(path: Path) -> SampleArray:
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_scans_of_12_bits_and_colours_go_through_all_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, runs, run = tmp_path / "data", tmp_path / "runs", tmp_path / "runs/parts"
    write_folders(data)
    flags = ["--data", str(data), *FLAGS.split(), str(runs)]
    assert train.main([*flags, "--name", "whole", "--max-steps", "6"]) == 0
    said = capsys.readouterr().out
    assert "trainA: 1 channel, uint16, -1 is 0 and 1 is 4095" in said
    assert "the identity losses are left out" in said
    for steps in ("3", "6"):
        assert train.main([*flags, "--name", "parts", "--max-steps", steps]) == 0
    states = [torch.load(path / "checkpoints/last.pt", weights_only=True)["model"] for path in (runs / "whole", run)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    capsys.readouterr()
    assert evaluate.main(["--checkpoint", str(run), "--device", "cpu", "--threads", "1"]) == 0
    assert "MAE, own units" in capsys.readouterr().out

    out, engines = tmp_path / "out", tmp_path / "engines"
    exported = ["--checkpoint", str(run), "--precision", "float32", "--out", str(engines)]
    assert to_onnx.main(exported) == 0
    for direction, folder, target, ending in (("a2b", "testA", RGB, ".tif"), ("b2a", "testB", GREY12, ".png")):
        graph = engines / f"parts-{direction}-float32.onnx"
        translation = ["--checkpoint", str(run), "--direction", direction, "--device", "cpu", "--threads", "1"]
        images = str(data / folder)
        assert translate.main([images, *translation, "--out", str(out / "once")]) == 0
        assert translate.main([images, *translation, "--tile", "--out", str(out / "strips")]) == 0
        assert run_exported.main([images, "--onnx", str(graph), "--threads", "1", "--out", str(out / "exported")]) == 0
        for source in sorted((data / folder).iterdir()):
            once, strips, from_graph = (
                read((out / way / source.name).with_suffix(ending)) for way in ("once", "strips", "exported")
            )
            assert once.shape == ((40, 40, 3) if target.is_rgb else (40, 40))
            assert once.dtype == strips.dtype == from_graph.dtype == target.as_numpy
            assert once.min() < once.max() <= target.high
            for other in (strips, from_graph):  # sums in another order, of which rounding makes one count
                assert np.abs(once.astype(int) - other).max() <= 1
            if ending == ".tif":
                with tifffile.TiffFile(out / "once" / source.name) as file:
                    tags = file.pages.first.tags
                    assert [tags[number].value for number, *_ in GEOREFERENCE] == [tag[3] for tag in GEOREFERENCE]
        capsys.readouterr()
        assert verify.main(["--checkpoint", str(run), "--onnx", str(graph)]) == 0
        worst = capsys.readouterr().out.splitlines()[-1]
        assert worst.endswith("levels" if target.is_rgb else "counts of 0 to 4095"), worst
