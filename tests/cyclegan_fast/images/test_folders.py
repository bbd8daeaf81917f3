"""Images are found by one rule whatever programs, links and formats leave in a folder, with names of any length."""

import errno
import glob
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.domains import DomainReader
from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.datasets.fetch import Partial
from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.folders import EXTENSIONS, find_images, has_images, search
from cyclegan_fast.images.pages import page_count
from cyclegan_fast.images.patterns import PatternSearch
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.files import LONGEST_NAME, beside, temporary_beside, write_atomically
from cyclegan_fast.translation.plan import ImageOptions, plan
from tests.cyclegan_fast.pictures import photo

ROOT = Path(__file__).parents[3]


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(32, seed).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def opened(folder: Path, **options: object) -> ImageFolder:
    settings = {"cache_bytes": 1 << 30, "cache_dir": folder.parent / "cache", "workers": 0, "strict": False, **options}
    return ImageFolder(folder, Preparation("resize_and_crop", 32, 32), **settings)  # type: ignore[arg-type]


# --- what is searched ----------------------------------------------------------------------------------------------


def test_images_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "b.png", "a/z/0.png", "a-1.png", "a.png", "B/1.PNG", "10.png", "9.png"):
        put(tmp_path / name)
    assert find_images(tmp_path) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "service", [".ipynb_checkpoints", ".thumbnails", ".Trash-1000", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"]
)
def test_folders_that_programs_leave_behind_are_left_out(tmp_path: Path, service: str) -> None:
    put(tmp_path / "0.png")
    put(tmp_path / "deep" / service / "below" / "0.png")
    put(tmp_path / "deep" / "._0.png")
    found = search(tmp_path)
    assert found.images == find_images(tmp_path) == [tmp_path / "0.png"]
    assert not has_images(tmp_path / "deep")
    assert service in found.told(strict=True)[0]
    assert names(tmp_path / "deep" / service) == ["below/0.png"], "given by name it is searched"


def test_folders_that_are_links_are_followed_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / "nas" / name / "0.png")
    folder = tmp_path / "photos"
    put(folder / "z" / "0.png")
    (folder / "a").symlink_to(folder / "z")  # the name that it has without links counts
    (folder / "b").symlink_to(tmp_path / "nas" / "one")
    (folder / "c").symlink_to(tmp_path / "nas")
    found = search(folder)
    assert names(folder) == ["b/0.png", "c/two/0.png", "z/0.png"]
    assert found.missing == []
    (note,) = found.notes
    assert "2 links" in note
    assert "a, c/one" in note


@pytest.mark.parametrize("target", [".", "..", "deep", "/"])
def test_links_that_lead_round_end_in_one_line(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "data" / "trainA"
    put(folder / "deep" / "0.png")
    put(tmp_path / "data" / "trainB" / "0.png")
    (folder / "deep" / "round").symlink_to((folder / target).resolve())
    found = search(folder)
    assert found.images == [folder / "deep" / "0.png"]
    assert [line for line in found.told(strict=True) if "round" in line] == found.notes


def test_links_that_lead_nowhere_are_noted_and_refused(tmp_path: Path) -> None:
    put(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "part").symlink_to(tmp_path / "unmounted")
    (tmp_path / "a" / "itself").symlink_to(tmp_path / "a" / "itself")
    (line,) = search(tmp_path / "a").told(strict=False)
    assert "3 links" in line
    assert "gone.png, itself, part" in line
    with pytest.raises(UserError, match=r"lead nowhere.*--strict"):
        search(tmp_path / "a").told(strict=True)


def test_a_folder_that_may_not_be_searched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "0.png")
    put(tmp_path / "closed" / "1.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = search(tmp_path)
    assert found.images == [tmp_path / "0.png"]
    assert f"{tmp_path / 'closed'}, which cannot be searched: Permission denied" in found.missing[0]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_whatever_the_system_does_not_tell_of_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "0.png")
    put(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "1.png")
    scandir = os.scandir

    class Entry:
        """Stands for an entry that cannot be looked at, as on a disk that fails."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.entry, self.name, self.path = entry, entry.name, entry.path

        def __getattr__(self, name: str) -> object:
            if self.name == "link":
                raise OSError(number, os.strerror(number))
            return getattr(self.entry, name)

    @contextmanager
    def watched(path: Path) -> Iterator[list[Entry]]:
        if Path(path).name == "elsewhere":
            raise OSError(number, os.strerror(number))
        with scandir(path) as entries:
            yield [Entry(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", watched)
    found, why = search(tmp_path), os.strerror(number)
    assert found.images == [tmp_path / "0.png"]
    assert found.missing == [
        f"left out the folder {tmp_path / 'elsewhere'}, which cannot be searched: {why}",
        f"left out {tmp_path / 'link'}, which cannot be looked at: {why}",
    ]
    assert find_images(tmp_path) == found.images
    assert capsys.readouterr().err.splitlines() == [f"note: {line}" for line in found.missing]
    with pytest.raises(UserError, match=r"cannot be searched.*--strict"):
        find_images(tmp_path, strict=True)
    assert has_images(tmp_path / "elsewhere"), "who opens it names it"
    with pytest.raises(UserError, match=rf"no images in .*; left out the folder .*: {why}"):
        opened(tmp_path / "elsewhere")


def test_a_file_that_the_system_does_not_tell_of_is_left_out_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        put(tmp_path / "a" / f"{index}.png", index)
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path.name == "1.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **options)

    def refuse_to_open(path: Path) -> io.FileIO:
        if Path(path).name == "1.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return file_io(path)

    file_io = io.FileIO
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(io, "FileIO", refuse_to_open)
    images = opened(tmp_path / "a")
    assert images.files == ["0.png", "2.png"]
    assert images.unreadable == [f"{tmp_path / 'a' / '1.png'}: Permission denied"]


def test_strict_means_one_thing_in_every_command() -> None:
    sources = [path.read_text() for folder in ("cyclegan_fast", "export") for path in (ROOT / folder).rglob("*.py")]
    explained = [text for source in sources for text in re.findall(r'strict: bool = False\n    """([^";]*)', source)]
    assert len(explained) >= 5
    assert len({*explained}) == 1  # what follows a semicolon is of one command alone


# --- patterns ------------------------------------------------------------------------------------------------------

PATTERNS = ("*", "*.png", "**", "**/*", "**/*.png", "a/**/0.png", "*/*", "a/b*/[01].png", "[!a]*/*", ".*/*", "**/b/**")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_what_a_shell_matches(tmp_path: Path, pattern: str) -> None:
    for name in ("0.png", "a/0.png", "a/b/0.png", "a/b/1.png", "a/bc/c/2.jpg", "b/b/0.png", ".d/0.png", "a/.e/0.png"):
        put(tmp_path / name)
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "b" / "to a").symlink_to(tmp_path / "a" / "bc")
    expected = {Path(path) for path in glob.glob(str(tmp_path / pattern), recursive=True)}  # noqa: PTH207  # a shell's
    found = {match.path: match.is_folder for match in PatternSearch().matches(tmp_path, Path(pattern).parts)}
    files = {path for path in expected if "to a/" not in str(path) and not path.is_dir()}
    assert files <= {*found} <= expected, "but for what a link shows again"
    assert all(path.is_dir() == is_folder for path, is_folder in found.items())


def test_a_pattern_names_the_folders_that_could_not_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "open" / "0.png")
    put(tmp_path / "closed" / "0.png")
    (tmp_path / "open" / "round").symlink_to(tmp_path)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for pattern, closed in (("**/*.png", 1), ("*/*.png", 1), ("op*/*.png", 0), ("open/**/*.png", 1)):
        searched = PatternSearch()
        matches = [match.path for match in searched.matches(tmp_path, Path(pattern).parts)]
        assert tmp_path / "open" / "0.png" in matches
        assert len(searched.closed) == closed, pattern
        options = ImageOptions((str(tmp_path / pattern),), tmp_path.parent / "out", strict=True)
        if closed:
            with pytest.raises(UserError, match=r"closed, which cannot be searched: Permission denied .*--strict"):
                plan(options)
        else:
            assert len(plan(options)) == 1


# --- formats -------------------------------------------------------------------------------------------------------


def test_whatever_pillow_writes_and_reads_back_is_an_image(tmp_path: Path) -> None:
    image = photo(32, 1)
    read_back = set()
    floating_or_deprecated = {".pfm", ".im"}
    for ending, kind in Image.registered_extensions().items():
        if ending in floating_or_deprecated:
            continue
        path = tmp_path / f"photo{ending}"
        for mode in ("RGB", "P", "1"):
            try:
                image.convert(mode).save(path, format=kind)
                read_image(path)
            except (KeyError, OSError, ValueError, UnreadableImage):
                path.unlink(missing_ok=True)
            else:
                read_back.add(ending)
                break
    assert len(read_back) > 20
    assert read_back <= EXTENSIONS
    assert find_images(tmp_path) == sorted(tmp_path / f"photo{ending}" for ending in read_back)


def test_images_that_are_not_read_are_counted_and_refused(tmp_path: Path) -> None:
    put(tmp_path / "0.png")
    put(tmp_path / "photo.jpg").rename(tmp_path / "photo")
    put(tmp_path / "large.jpg").rename(tmp_path / "large.jpg_large")
    for name in ("phone.HEIC", "raw.cr2"):
        (tmp_path / name).write_bytes(b"?")
    for name in ("labels.csv", "README", "0.json"):
        (tmp_path / name).write_text("0.png, 1\n")
    found = search(tmp_path)
    assert found.images == [tmp_path / "0.png"]
    (line,) = found.missing
    assert "left out 4 images" in line
    assert "1 .cr2, 1 .heic, 1 .jpg_large, 1 without an ending" in line
    with pytest.raises(UserError, match=r"\.heic.*--strict"):
        opened(tmp_path, strict=True)
    assert any(".heic" in line for line in opened(tmp_path).remarks)


def test_a_folder_of_other_formats_says_so(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"?")
    with pytest.raises(UserError, match=r"no images in .*1 \.heic"):
        opened(tmp_path)


def test_pages_are_counted(tmp_path: Path) -> None:
    frames = [photo(32, seed) for seed in range(5)]
    for name in ("a.tif", "a.gif", "a.webp", "a.png", "a.avif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert page_count(tmp_path / name) == 5, name
        frames[0].save(tmp_path / f"one{name}")
        assert page_count(tmp_path / f"one{name}") == 1, name
    whole = (tmp_path / "a.tif").read_bytes()
    for size in (4, 9, len(whole) // 2):
        (tmp_path / "damaged.tif").write_bytes(whole[:size])
        assert page_count(tmp_path / "damaged.tif") >= 1
    assert page_count(tmp_path / "missing.tif") == 1


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    copies = [photo(16, 0), photo(8, 0)]
    for copy in copies:
        copy.encoderinfo = {"tiffinfo": {254: 1}}
    photo(32, 0).save(tmp_path / "pyramid.tif", save_all=True, append_images=copies)
    with Image.open(tmp_path / "pyramid.tif") as image:
        assert image.n_frames == 3
    assert page_count(tmp_path / "pyramid.tif") == 1


def test_of_several_pages_the_first_is_read_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "trainA"
    put(folder / "0.png")
    pages = [photo(32, seed) for seed in range(5)]
    for name in ("stack.tif", "moving.webp"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:], lossless=True)
    expected = [f"{folder / 'moving.webp'}: the first of 5 pages is read, and of 1 more in the same way"]
    for cache_bytes in (1 << 30, 0, 0):  # in memory, written to the disk, and found there
        images = opened(folder, cache_bytes=cache_bytes)
        assert images.remarks == expected
        np.testing.assert_array_equal(images[2], np.asarray(pages[0]))
        with pytest.raises(UserError, match=r"moving\.webp: the first of 5 pages is read \(leave --strict out"):
            opened(folder, cache_bytes=cache_bytes, strict=True)


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_image(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132735\n"
    (tmp_path / "a.png").write_text(pointer)
    with pytest.raises(UnreadableImage, match=r"a\.png: a pointer of Git LFS.*git lfs pull"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("something else")
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image(tmp_path / "a.png")


def test_every_remark_on_a_data_set_is_made_once(tmp_path: Path) -> None:
    put(tmp_path / "train" / "0.png")  # opened twice, for its two halves
    put(tmp_path / "train" / ".thumbnails" / "0.png")
    reader = DomainReader(DataConfig(data=tmp_path, load_size=32, crop_size=32, cache_gib=1.0, workers=0))
    reader.training_images()
    assert len([line for line in reader.warnings() if ".thumbnails" in line]) == 1


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100, 246, 247, 251, 255])
@pytest.mark.parametrize("letter", [b"n", b"\xe6", "浮".encode()])
def test_names_of_any_length_are_written(tmp_path: Path, size: int, letter: bytes) -> None:
    name = os.fsdecode((letter * size)[: size - 4] + b".png" if size > 4 else letter[:1])
    write_atomically(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"
    if name.endswith(".png"):
        write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / name)
    partial = Partial.of(tmp_path / name)
    partial.path.write_bytes(b"beginning")
    partial.publish(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_companions_of_a_file_are_as_many_as_the_files(tmp_path: Path) -> None:
    files = [tmp_path / (f"{index}" + "n" * length) for index in range(3) for length in (3, 200, LONGEST_NAME - 1)]
    companions = {beside(path, ".", ending) for path in files for ending in (".partial", ".lock", ".unpacking")}
    assert len(companions) == 3 * len(files)
    for path in companions:
        path.touch()  # no name is too long
    assert temporary_beside(tmp_path / "a.png") == tmp_path / ".a.png.partial"


def test_names_are_shown_in_one_line() -> None:
    assert printable("a\nb\x1b[31m\udcc2.png 馬") == r"a\nb\x1b[31m\udcc2.png 馬"
