"""Decoded images are kept in memory or in a file, and every damage of that file is noticed."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.data.file_reading import PreparedSamples
from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.pixel_cache import MappedImages, PixelCache, default_cache_dir
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.pictures import draw_all, photo

KEPT_AS_THEY_ARE = Preparation("crop", load_size=24, crop_size=24)
COUNT = 6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Writes a folder of images, each of its own size."""
    sizes = {f"{'more/' if index % 2 else ''}{index}.png": (30 + index, 40 - index) for index in range(COUNT)}
    return draw_all(tmp_path / "photos", sizes)


def pixels_in(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]


def opened(
    photos: Path, cache_dir: Path, cache_bytes: int = 0, workers: int = 0, strict: bool = False, **changes: object
) -> ImageFolder:
    prepare = Preparation(**{**vars(KEPT_AS_THEY_ARE), **changes})  # type: ignore[arg-type]
    return ImageFolder(photos, prepare, cache_bytes=cache_bytes, cache_dir=cache_dir, workers=workers, strict=strict)


def assert_images(images: ImageFolder, expected: list[np.ndarray]) -> None:
    assert len(images) == len(expected)
    for index, pixels in enumerate(expected):
        np.testing.assert_array_equal(images[index], pixels)


def only_file(cache_dir: Path) -> Path:
    (path,) = cache_dir.glob("*.pixels")
    assert not list(cache_dir.glob(".*"))  # nothing half written
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []
    decode = ImageFolder._decode

    def record(self: ImageFolder, path: Path, index: int | None = None) -> list[PreparedSamples]:
        names.append(path.name)
        return decode(self, path, index)

    monkeypatch.setattr(ImageFolder, "_decode", record)
    return names


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("cache_bytes", [0, 1, 10_000])
def test_what_does_not_fit_in_memory_is_decoded_once_and_for_all(
    photos: Path, cache_dir: Path, decoded: list[str], cache_bytes: int, workers: int
) -> None:
    expected = pixels_in(photos)
    first = opened(photos, cache_dir, cache_bytes, workers)
    assert_images(first, expected)
    assert sorted(decoded) == [f"{index}.png" for index in range(COUNT)]
    assert first.note is not None
    assert str(only_file(cache_dir)) in first.note
    decoded.clear()
    again = opened(photos, cache_dir, cache_bytes, workers)
    assert_images(again, expected)
    assert not decoded
    assert (again.names, again.paths, again.note) == (first.names, first.paths, first.note)
    assert first.memory_bytes == again.memory_bytes == 0


def test_what_fits_in_memory_leaves_the_disk_alone(photos: Path, cache_dir: Path) -> None:
    expected = pixels_in(photos)
    total = sum(pixels.nbytes for pixels in expected)
    images = opened(photos, cache_dir, total)
    assert_images(images, expected)
    assert (images.memory_bytes, images.note) == (total, None)
    assert not cache_dir.exists()
    opened(photos, cache_dir, total - 1)
    assert cache_dir.exists()


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def shorten_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def cut_pixels(path: Path) -> None:
    """Damage the file as if a part had been lost in its middle."""
    path.write_bytes(path.read_bytes()[100:])


def write_something_else(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)


def lie_about_the_index(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-24] + (2**63).to_bytes(8, "little") + content[-16:])


def break_the_index(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"shapes"', b'"shakes"'))


def take_another_folders(path: Path) -> None:
    """Write a whole file with the images of another folder."""
    other = path.parent.parent / "others"
    other.mkdir()
    for index in range(COUNT):
        photo(64, 50 + index).resize((30 + index, 40 - index)).save(other / f"{index}.png")
    opened(other, path.parent)
    (written,) = path.parent.glob("others-*.pixels")
    written.replace(path)


@pytest.mark.parametrize(
    "damage",
    [
        shorten,
        shorten_to_nothing,
        cut_pixels,
        write_something_else,
        lie_about_the_index,
        break_the_index,
        take_another_folders,
    ],
)
def test_a_file_that_cannot_be_trusted_is_made_again(
    photos: Path, cache_dir: Path, decoded: list[str], damage: Callable[[Path], None]
) -> None:
    expected = pixels_in(photos)
    opened(photos, cache_dir)
    good = only_file(cache_dir).read_bytes()
    damage(only_file(cache_dir))
    decoded.clear()
    assert_images(opened(photos, cache_dir), expected)
    assert len(decoded) == COUNT
    assert only_file(cache_dir).read_bytes() == good


def touch(photos: Path) -> None:
    os.utime(photos / "2.png", (1, 1))


def exchange(photos: Path) -> None:
    """Other pixels under an old name, with the old time."""
    path = photos / "2.png"
    before = path.stat()
    photo(64, 77).save(path)
    assert path.stat().st_size != before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def add(photos: Path) -> None:
    photo(33, 9).save(photos / "9.png")


def remove(photos: Path) -> None:
    (photos / "0.png").unlink()


def rename(photos: Path) -> None:
    (photos / "0.png").rename(photos / "8.png")


@pytest.mark.parametrize("change", [touch, exchange, add, remove, rename])
def test_changed_images_replace_what_was_kept(photos: Path, cache_dir: Path, change: Callable[[Path], None]) -> None:
    opened(photos, cache_dir)
    before = only_file(cache_dir).read_bytes()
    change(photos)
    assert_images(opened(photos, cache_dir), pixels_in(photos))
    assert only_file(cache_dir).read_bytes() != before


def test_each_preparation_and_each_folder_has_its_own_file(photos: Path, cache_dir: Path, tmp_path: Path) -> None:
    for preprocess, side in (("resize_and_crop", 32), ("resize_and_crop", 28), ("scale_width", 28)):
        opened(photos, cache_dir, preprocess=preprocess, load_size=side)
    # Same names, sizes and times, as archives give them to uncompressed images, and not the same pixels.
    twins = [tmp_path / "one" / "trainA", tmp_path / "two" / "trainA"]
    for level, folder in enumerate(twins):
        folder.mkdir(parents=True)
        Image.new("RGB", (24, 24), (level, 0, 0)).save(folder / "0.bmp")
        os.utime(folder / "0.bmp", (1, 1))
        assert opened(folder, cache_dir)[0][0, 0, 0] == level
    assert [opened(folder, cache_dir)[0][0, 0, 0] for folder in twins] == [0, 1]
    assert len(list(cache_dir.glob("*.pixels"))) == 5
    resized = np.asarray(Image.open(photos / "0.png").resize((28, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(opened(photos, cache_dir, preprocess="resize_and_crop", load_size=28)[0], resized)


# --- a disk that refuses ---------------------------------------------------------------------------------------------


def little_space(patch: pytest.MonkeyPatch, cache_dir: Path) -> str:
    patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
    return r"about 0\.00 GiB are needed and 0\.00 are free"


def full_while_writing(patch: pytest.MonkeyPatch, cache_dir: Path) -> str:
    written = []

    def fill(pixels: np.ndarray) -> np.ndarray:
        written.append(pixels)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return pixels

    patch.setattr(np, "ascontiguousarray", fill)
    return "No space left on device"


def full_at_the_end(patch: pytest.MonkeyPatch, cache_dir: Path) -> str:
    def refuse(file: int) -> None:
        raise OSError(5, "Input/output error")

    patch.setattr(os, "fsync", refuse)
    return "Input/output error"


def a_file_in_the_way(patch: pytest.MonkeyPatch, cache_dir: Path) -> str:
    cache_dir.parent.mkdir()
    cache_dir.touch()
    return "File exists"


@pytest.mark.parametrize("cache_bytes", [0, 10_000])
@pytest.mark.parametrize("refusal", [little_space, full_while_writing, full_at_the_end, a_file_in_the_way])
def test_where_the_disk_refuses_images_are_decoded_at_each_use(
    photos: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: list[str],
    refusal: Callable[[pytest.MonkeyPatch, Path], str],
    cache_bytes: int,
) -> None:
    expected = pixels_in(photos)
    (photos / "3a.png").write_text("not an image")
    with monkeypatch.context() as patch:
        reason = refusal(patch, cache_dir)
        images = opened(photos, cache_dir, cache_bytes)
    assert images.note is not None
    assert re.search(f"{photos}.*{cache_dir.parent.name}.*{reason}.*decoded at each use", images.note)
    assert len(decoded) == COUNT + 1
    assert len(images.unreadable) == 1
    assert images.memory_bytes <= cache_bytes
    decoded.clear()
    assert_images(images, expected)
    assert len(decoded) == (COUNT if cache_bytes == 0 else COUNT - 2)
    assert not [*cache_dir.glob("*.pixels"), *cache_dir.glob(".*")]
    assert_images(opened(photos, cache_dir.with_name("another"), cache_bytes), expected)


# --- unreadable images -----------------------------------------------------------------------------------------------


def test_unreadable_images_are_named_and_refused_at_later_starts_too(photos: Path, cache_dir: Path) -> None:
    expected = pixels_in(photos)
    (photos / "3a.png").write_text("not an image")
    first, again = opened(photos, cache_dir), opened(photos, cache_dir)
    assert first.unreadable == again.unreadable == [f"{photos / '3a.png'}: not an image"]
    for images in (first, again):
        assert_images(images, expected)
    with pytest.raises(UserError, match=r"3a\.png.*--strict"):
        opened(photos, cache_dir, strict=True)


def test_an_image_that_can_be_read_again_is_taken(photos: Path, cache_dir: Path) -> None:
    """Covers a file on a network folder that was away: neither its size nor its time is another."""
    before = (photos / "2.png").read_bytes()
    times = (photos / "2.png").stat()
    (photos / "2.png").write_bytes(bytes(len(before)))
    os.utime(photos / "2.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(opened(photos, cache_dir)) == COUNT - 1
    (photos / "2.png").write_bytes(before)
    os.utime(photos / "2.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    images = opened(photos, cache_dir)
    assert_images(images, pixels_in(photos))
    assert images.unreadable == []


def test_an_image_that_is_refused_leaves_nothing_half_written(photos: Path, cache_dir: Path) -> None:
    photo(20, 0).save(photos / "5a.png")
    with pytest.raises(UserError, match=r"5a\.png.*smaller than the crop"):
        opened(photos, cache_dir)
    assert not [*cache_dir.glob("*.pixels"), *cache_dir.glob(".*")]
    (photos / "5a.png").unlink()
    assert_images(opened(photos, cache_dir), pixels_in(photos))


# --- several processes -----------------------------------------------------------------------------------------------


def test_a_second_process_waits_and_maps_what_the_first_wrote(photos: Path, cache_dir: Path) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    first = PixelCache(cache_dir, photos, names, repr(KEPT_AS_THEY_ARE))
    marks = [np.full((24, 30, 3), index, np.uint8) for index in range(COUNT)]
    second: list[ImageFolder] = []
    # A lock of flock belongs to an open file: a thread that opens it anew is held up as another process is.
    thread = threading.Thread(target=lambda: second.append(opened(photos, cache_dir)))
    with first.locked():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        first.write(zip(names, marks, strict=True), expected_bytes=0, pages={}, remarks=list)
    thread.join(30)
    assert_images(second[0], marks)


PROCESS = """
import hashlib, sys
from pathlib import Path
from cyclegan_fast.data.file_reading import PreparedSamples
from cyclegan_fast.data.image_folder import ImageFolder

class Unchanged:
    def __repr__(self): return "unchanged"
    def of_samples(self, samples): return samples

sys.stdin.read()
images = ImageFolder(
    Path(sys.argv[1]), Unchanged(), cache_bytes=20_000, cache_dir=Path(sys.argv[2]), workers=2, strict=False
)
print(hashlib.sha256(b"".join(images[i].tobytes() for i in range(len(images)))).hexdigest())
"""


def test_processes_that_start_at_once_see_the_same_images(photos: Path, cache_dir: Path) -> None:
    for index in range(10, 60):
        photo(64, index).save(photos / f"{index}.png")
    command = [sys.executable, "-c", PROCESS, str(photos), str(cache_dir)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    expected = hashlib.sha256(b"".join(pixels.tobytes() for pixels in pixels_in(photos))).hexdigest()
    for process in started:
        assert process.stdout is not None
        assert process.stdout.read().strip() == expected
        assert process.wait() == 0
    only_file(cache_dir)


def test_mapped_images_outlive_the_file_that_replaces_theirs(photos: Path, cache_dir: Path) -> None:
    expected = pixels_in(photos)
    images = opened(photos, cache_dir)
    touch(photos)
    opened(photos, cache_dir)
    assert_images(images, expected)
    assert isinstance(images._kept, MappedImages)
    with pytest.raises(ValueError, match="read-only"):
        images[0][0, 0, 0] = 1


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache_dir() == Path("/elsewhere/cyclegan-fast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path("/home/someone/.cache/cyclegan-fast")
