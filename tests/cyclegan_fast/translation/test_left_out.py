"""Images that do not fit are left out and named, the others are translated, and the status is 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.images.decoding import Decoded, decode
from cyclegan_fast.images.pixel_type import RGB, SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translate import main
from cyclegan_fast.translation import batches, contact_sheet, prepared, writing
from cyclegan_fast.translation.any_image import ImageTranslator
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.summary import report
from cyclegan_fast.translation.translator import BatchDoesNotFit, FunctionTranslator, Translator
from tests.cyclegan_fast.pictures import draw_all, names, pixels_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Negatives:
    """Makes negatives, and remembers the shapes that it was asked for.

    Args:
        most: pixels that it takes at once; beyond that its memory ends.
        widest: the width that it takes, whatever the memory.
    """

    source = target = RGB

    def __init__(self, most: int, widest: int = 1000) -> None:
        self.most = most
        self.widest = widest
        self.tried: list[tuple[int, ...]] = []

    def __call__(self, samples: SampleArray) -> SampleArray:
        count, height, width, _ = samples.shape
        self.tried.append((count, height, width))
        if width > self.widest:
            raise BatchDoesNotFit(f"{count} of {width}x{height} is too wide", is_of_memory=False)
        if count * height * width > self.most:
            raise BatchDoesNotFit(f"{count} of {width}x{height} does not fit; lower something")
        return 255 - samples


class NegativesBehind(Negatives):
    """Begins a batch, and makes the negatives when the result is asked for."""

    def begin(self, samples: SampleArray) -> Callable[[], SampleArray]:
        result = self(samples)
        return lambda: result


BOTH = pytest.mark.parametrize("kind", [Negatives, NegativesBehind])


def translate(translator: Translator, folder: Path, out: Path, size: int | None = None, **options: Any) -> int:
    """Translate a folder as the commands do; return the exit status."""
    given = ImageOptions((str(folder),), out, no_contact_sheet=True, **options)
    return run_command(lambda: report(translate_images(translator, plan(given), given, size), out))


def check_negatives(folder: Path, out: Path, expected: set[str]) -> None:
    assert names(out) == expected
    for name in expected:
        assert np.array_equal(pixels_of(out / name), 255 - pixels_of(folder / name))


SIZES = {"a.png": (16, 16), "b.png": (40, 40), "c.png": (16, 16), "d.png": (36, 60), "e.png": (60, 20)}


@BOTH
def test_an_image_that_does_not_fit_is_named_and_the_others_are_translated(
    tmp_path: Path, kind: type[Negatives], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, translator = draw_all(tmp_path / "in", SIZES), kind(most=1500)
    assert translate(translator, folder, tmp_path / "out") == 1
    check_negatives(folder, tmp_path / "out", {"a.png", "c.png", "e.png"})
    assert (1, 60, 36) not in translator.tried, "as many pixels as those that did not fit are not tried"
    why = f"{folder / 'b.png'}: 1 of 40x40 does not fit; lower something"
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if not line.startswith(("translating", "\r"))] == [
        f"left out {why}",
        f"left out {folder / 'd.png'}: 36x60 is not tried, for it has no fewer pixels than {why}",
        "error: 2 images did not fit, as said above; the same command tries them again",
    ]
    assert "translated 3 images in" in shown.out
    translator.most = 10**6
    assert translate(translator, folder, tmp_path / "out") == 0
    check_negatives(folder, tmp_path / "out", set(SIZES))


@BOTH
def test_what_is_refused_for_its_sides_says_nothing_of_larger_images(tmp_path: Path, kind: type[Negatives]) -> None:
    sizes = {"a.png": (60, 8), "b.png": (40, 40), "c.png": (60, 40), "d.png": (60, 40), "e.png": (16, 16)}
    folder, translator = draw_all(tmp_path / "in", sizes), kind(most=10**6, widest=50)
    assert translate(translator, folder, tmp_path / "out", batch_size=2) == 1
    check_negatives(folder, tmp_path / "out", {"b.png", "e.png"})
    assert translator.tried[-4:-1] == [(2, 40, 60), (1, 40, 60), (1, 40, 60)]


@BOTH
def test_images_of_a_batch_that_does_not_fit_are_tried_one_by_one(
    tmp_path: Path, kind: type[Negatives], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {f"{index}.png": (16, 16) for index in range(5)} | {"6.png": (40, 40), "7.png": (12, 16), "8.png": (12, 16)}
    folder, translator = draw_all(tmp_path / "in", sizes), kind(most=400)
    monkeypatch.setattr(batches, "images_at_once", lambda height, width: 2)
    assert translate(translator, folder, tmp_path / "out") == 1
    check_negatives(folder, tmp_path / "out", {*sizes} - {"6.png"})
    one, small = (1, 16, 16), (2, 16, 12)
    assert translator.tried == [(2, 16, 16), *[one] * 5, (1, 40, 40), small]  # batches of as many go one by one at once


@BOTH
def test_a_batch_of_a_given_size_that_does_not_fit_is_an_error(
    tmp_path: Path, kind: type[Negatives], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"a.png": (12, 12), "b.png": (40, 40), "c.png": (16, 16), "d.png": (16, 16)}
    folder = draw_all(tmp_path / "in", sizes)
    assert translate(kind(most=400), folder, tmp_path / "out", batch_size=2) == 2
    assert capsys.readouterr().err.endswith("error: 2 of 16x16 does not fit; lower something\n")
    check_negatives(folder, tmp_path / "out", {"a.png"})


@pytest.mark.parametrize(("options", "size"), [({"strict": True}, None), ({}, 40)])
@BOTH
def test_strictly_or_where_all_have_one_size_the_first_one_ends_the_command(
    tmp_path: Path,
    kind: type[Negatives],
    capsys: pytest.CaptureFixture[str],
    options: dict[str, bool],
    size: int | None,
) -> None:
    folder, translator = draw_all(tmp_path / "in", SIZES), kind(most=1500)
    assert translate(translator, folder, tmp_path / "out", size, **options) == 2
    name = "a.png" if size else "b.png"
    assert capsys.readouterr().err.endswith(f"error: {folder / name}: 1 of 40x40 does not fit; lower something\n")
    check_negatives(folder, tmp_path / "out", set() if size else {"a.png"})


class Misses(NegativesBehind):
    """Does not take slices that begin with 7."""

    def __call__(self, samples: SampleArray) -> SampleArray:
        self.tried.append((len(samples), *samples[:, 0, 0, 0].tolist()))
        if 7 in samples[:, 0, 0, 0]:
            raise BatchDoesNotFit("no room")
        return 255 - samples


def test_a_volume_with_a_slice_that_does_not_fit_is_left_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name, first in (("a.tif", 20), ("b.tif", 5), ("c.tif", 30)):
        slices = np.stack([np.full((16, 16 if name < "c" else 8, 3), first + index, np.uint8) for index in range(4)])
        tifffile.imwrite(tmp_path / "in" / name, slices, photometric="rgb")
    monkeypatch.setattr(batches, "images_at_once", lambda height, width: 3)
    translator = Misses(most=10**6)
    assert translate(translator, tmp_path / "in", tmp_path / "out", frames="slices", format="tiff") == 1
    assert names(tmp_path / "out") == {"a.tif", "c.tif"}
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a.tif")[:, 0, 0, 0], 255 - np.arange(20, 24))
    assert translator.tried == [(3, 20, 21, 22), (3, 23, 5, 6), (2, 7, 8), (1, 7), (3, 30, 31, 32), (1, 33)]
    assert capsys.readouterr().err.count("b.tif: no room\n") == 1

    def full(shape: tuple[int, ...], *args: Any) -> SampleArray:
        if shape[2] == 16:
            raise MemoryError
        return np.zeros(shape, *args)

    monkeypatch.setattr(batches.np, "empty", full)
    again = translate(Negatives(10**6), tmp_path / "in", tmp_path / "again", frames="slices", format="tiff")
    assert (again, names(tmp_path / "again")) == (1, {"c.tif"})
    error = capsys.readouterr().err
    assert error.count("left out ") == 2
    assert "a.tif: its translation does not fit in the memory that is free; " in error


def test_pixels_that_cannot_be_decoded_stacked_or_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_all(tmp_path / "in", SIZES)

    def decode_most(path: Path, *arguments: Any) -> Decoded:
        if path.name == "b.png":
            raise DoesNotFit(f"{path}: its pixels do not fit in the memory that is free")
        if path.name == "c.png":
            raise MemoryError
        return decode(path, *arguments)

    def write_most(pixels: Pixels, path: Path, **options: Any) -> None:
        if path.name == "d.png":
            raise MemoryError
        Image.fromarray(pixels).save(path)

    def negative(samples: SampleArray) -> SampleArray:
        if samples.shape[1] == 20:
            raise MemoryError("Unable to allocate 9 GiB")
        return 255 - samples

    monkeypatch.setattr(prepared, "decode", decode_most)
    monkeypatch.setattr(writing, "write_image", write_most)
    assert translate(FunctionTranslator(negative), folder, tmp_path / "out") == 1
    check_negatives(folder, tmp_path / "out", {"a.png"})
    found = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("left", "could", "error"))]
    more = "end other programs, and raise the limit that this process may have (ulimit -v)"
    assert found == [
        f"left out {folder / 'b.png'}: its pixels do not fit in the memory that is free; {more}",
        f"left out {folder / 'c.png'}: its pixels do not fit in the memory that is free; {more}",
        f"left out {folder / 'e.png'}: 1 image of 60x20 does not fit in the memory that is free; give a smaller "
        f"--size, or {more}",
        f"could not write {tmp_path / 'out' / 'd.png'}: encoding it takes more memory than is free",
        "error: 3 images did not fit, as said above; 1 file could not be written, as said above; the same command "
        "tries them again",
    ]
    assert translate(FunctionTranslator(negative), folder, tmp_path / "strict", strict=True) == 2
    error = f"error: {folder / 'b.png'}: its pixels do not fit in the memory that is free\n"
    assert capsys.readouterr().err.endswith(error)


def test_the_contact_sheet_is_drawn_without_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_all(tmp_path / "in", {"a.png": (16, 16), "b.png": (16, 16)})

    def read_most(path: Path, *arguments: Any) -> Image.Image:
        if path.name == "b.png":
            raise DoesNotFit(f"{path}: its pixels do not fit")
        return Image.open(path).convert("RGB")

    monkeypatch.setattr(contact_sheet, "read_image", read_most)
    options = ImageOptions((str(folder),), tmp_path / "out")
    summary = translate_images(Negatives(10**6), plan(options), options, None)
    assert (report(summary, options.out), summary.translated) == (0, 2)
    assert f"note: not on the contact sheet: {folder / 'b.png'}: its pixels do not fit" in capsys.readouterr().err
    assert (tmp_path / "out" / "contact_sheet.jpg").exists()


def test_the_command_and_python(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_all(tmp_path / "in", {"a.png": (16, 16), "b.png": (48, 40), "c.png": (20, 16)})
    monkeypatch.setattr("cyclegan_fast.translation.on_device.available_bytes", lambda: 14 * 4 * 48 * 40 - 1)
    given = [str(folder), "--checkpoint", str(weights), "--device", "cpu", "--no-contact-sheet"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == {"a.png", "c.png"}
    said = "1 image of 48x40 does not fit the memory of cpu: about 0.0 GiB are needed, and 0.0 GiB are free; add --tile"
    assert f"left out {folder / 'b.png'}: {said}, or give a smaller --size\n" in capsys.readouterr().err
    assert main([*given, "--out", str(tmp_path / "out"), "--tile", "--scratch", str(tmp_path)]) == 0
    assert names(tmp_path / "out") == {"a.png", "b.png", "c.png"}
    assert main([*given, "--out", str(tmp_path / "strict"), "--strict"]) == 2
    assert main([*given, "--out", str(tmp_path / "square"), "--size", "48"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2

    translator = ImageTranslator(Negatives(100), tensors=None, direction=None, description="x")
    with pytest.raises(UserError, match="1 of 48x40 does not fit"):
        translator(folder / "b.png")
