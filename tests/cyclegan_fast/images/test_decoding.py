"""Image files become the 8-bit RGB that they mean, or raise UnreadableImage and nothing else."""

import io
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.images import decoding
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.levels import Extent, note_on, to_levels
from cyclegan_fast.images.unreadable import UnreadableImage, of_any_size, reading
from cyclegan_fast.system.errors import run_command
from tests.cyclegan_fast.images.levels import read
from tests.faults.harness_image_files import DAMAGES
from tests.faults.images import damage_files, few_pixels

ROOT = Path(__file__).parents[3]
H, W = 12, 20


def noise(channels: int, bits: int = 16) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 2**bits, (H, W, channels)).astype(np.uint16)


# --- more and fewer than 8 bits --------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path: Path, values: np.ndarray, bits: int, *, transparent: list[int] | None = None) -> None:
    """Write a PNG by the letter of its specification: Pillow writes none of 2 or 4 bits, nor colours of 16."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    in_bits = (values.astype(np.int64).reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(in_bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, colour, 0, 0, 0)
    key = b"" if transparent is None else chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_bits_of_a_16_bit_png_count(tmp_path: Path, channels: int) -> None:
    values = noise(channels)
    write_png(tmp_path / "a.png", values, 16)
    colours = values[..., : 1 if channels < 3 else 3]

    def expected(low: float, high: float) -> np.ndarray:
        share = np.clip((colours.astype(float) - low) / (high - low), 0, 1)
        alpha = values[..., -1:] / 65535 if channels in (2, 4) else 1.0
        return np.broadcast_to(255 * (share * alpha + 1 - alpha), (H, W, 3))

    slack = 1.5 if channels in (2, 4) else 0.5  # opacity is applied to levels: both and the result are rounded
    assert np.abs(read(tmp_path / "a.png") - expected(0, 65535)).max() <= slack + 1e-6
    # A range this narrow is seen in the lower 8 bits alone, which Pillow leaves out of colours.
    assert np.abs(read(tmp_path / "a.png", value_range=(256, 500)) - expected(256, 500)).max() <= slack + 1e-6


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_value_is_laid_over_white(tmp_path: Path, bits: int, channels: int) -> None:
    if channels == 3 and bits < 8:
        pytest.skip("PNG has no such colours")
    values = noise(channels, bits)
    key = values[3, 5].tolist()
    values[3, 6] = values[3, 5]
    values[3, 7, 0] ^= 1  # almost the transparent one
    write_png(tmp_path / "a.png", values, bits, transparent=key)
    levels = np.broadcast_to(np.rint(255.0 * values / (2**bits - 1)), (H, W, 3)).copy()
    levels[(values == values[3, 5]).all(2)] = 255
    assert levels[3, 5].tolist() == [255, 255, 255]
    assert np.abs(read(tmp_path / "a.png") - levels).max() <= (1 if bits == 16 else 0)


@pytest.mark.parametrize("maximum", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_ppm_fills_the_range_that_it_states(tmp_path: Path, maximum: int, kind: str) -> None:
    values = noise(1 if kind == "P5" else 3).astype(int) % (maximum + 1)
    content = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"%s\n# of a camera\n%d %d\n%d\n" % (kind.encode(), W, H, maximum) + content)
    assert np.abs(read(tmp_path / "a.ppm") - np.rint(255.0 * values / maximum)).max() <= 1e-9
    if maximum > 255:
        want = 255 * (values / 500.0).clip(0, 1)
        assert np.abs(read(tmp_path / "a.ppm", value_range=(0, 500)) - want).max() <= 0.5
        (tmp_path / "a.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-3])
        with pytest.raises(UnreadableImage, match=r"cut off|truncated"):
            read_image(tmp_path / "a.ppm")


def test_levels_of_every_kind_of_number_are_the_definition() -> None:
    for dtype in ("u1", "i1", "u2", "i2", ">u2", "i4", "f4", "f8"):
        values = np.array([-100, -3, 0, 1, 7, 99, 100, 127]).astype(dtype)
        want = np.rint(255 * (values.astype(float).clip(-50, 100) + 50) / 150)
        np.testing.assert_array_equal(to_levels(values.astype(np.dtype(dtype).newbyteorder("=")), (-50, 100)), want)


# --- their range, noted and given ------------------------------------------------------------------------------------


def scans(folder: Path, high: int = 4095) -> Path:
    """Writes a data set whose A is of 12 bits in files of 16, and whose B is of 8."""
    random = np.random.default_rng(0)
    for name in ("trainA", "trainB", "testA", "testB"):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            if name.endswith("A"):
                values = np.sort(random.integers(0, high + 1, 40 * 40)).reshape(40, 40).astype(np.uint16)
                values[-1, -1] = high
                if index % 2:
                    tifffile.imwrite(folder / name / f"{index}.tif", values, photometric="minisblack")
                else:
                    Image.fromarray(values).save(folder / name / f"{index}.png")
            else:
                Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name / f"b{index}.png")
    return folder


def opened(folder: Path, **options: Any) -> Any:
    options = {"load_size": 40, "crop_size": 32, "workers": 0, "cache_gib": 1.0} | options
    return open_data(DataConfig(data=folder, **options), seed=0)


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
def test_twelve_bits_in_sixteen_are_noted_with_folder_and_range(tmp_path: Path, cache_gib: float) -> None:
    folder = scans(tmp_path / "data")
    options = {"cache_gib": cache_gib, "cache_dir": tmp_path / "cache"}
    for _ in range(2):  # the second time out of the mapped file
        data = opened(folder, **options)
        notes = [line for line in data.warnings if "more than 8 bits" in line]
        (note,) = notes  # testA, which is like trainA, is not named again
        assert re.search(rf"{folder / 'trainA'} hold values from \d+ to 4095, of 0 to 65535: .* levels 0 to 16", note)
        assert note.endswith("--range-a 0 4095")
        assert data.training.images_A[0].max() == 16
    wide = opened(folder, range_a=(0.0, 4095.0), range_b=(0.0, 4095.0), **options)
    assert not any("more than 8 bits" in line for line in wide.warnings)
    for index in range(3):
        assert len(np.unique(wide.training.images_A[index])) > 200
    assert wide.tests.A.images[0].max() >= 250  # resized
    # Other pixels in the same files: what was kept of them before must not be taken.
    again = opened(folder, **options)
    assert again.training.images_A[0].max() == 16


def test_each_domain_has_a_range_of_its_own(tmp_path: Path) -> None:
    folder = scans(tmp_path / "data")
    for path in (folder / "trainB").iterdir():
        path.unlink()
    ramp = np.linspace(0, 1023, 1600).astype(np.uint16).reshape(40, 40)
    Image.fromarray(ramp).save(folder / "trainB" / "0.png")
    data = opened(folder, range_a=(0.0, 4095.0), range_b=(0.0, 1023.0))
    assert data.training.images_B[0].max() == data.training.images_A[0].max() == 255
    assert len(np.unique(data.training.images_B[0])) == 256
    clipped = opened(folder, range_a=(0.0, 1023.0), range_b=(0.0, 1023.0))
    (note,) = [line for line in clipped.warnings if "trainA" in line]
    assert note.endswith("those beyond 0 to 1023 (--range-a) became black or white")


@pytest.mark.parametrize(
    ("extent", "given", "end"),
    [
        (Extent(0, 65535, (0, 65535)), None, None),
        (Extent(10000, 50000, (0, 65535)), None, None),
        (Extent(0, 16383, (0, 65535)), None, "--range 0 16383"),
        (Extent(30000, 31000, (0, 65535)), None, "--range 0 32767"),
        (Extent(-1000, 3000, (-32768, 32767)), None, "--range -1000 3000"),
        (Extent(0, 4095, (0, 4095)), None, None),
        (Extent(0, 4095, (0, 4095)), (0, 4095), None),
        (Extent(-5, 4095, (0, 4095)), (0, 4095), "became black or white"),
        (None, None, None),
    ],
)
def test_a_note_is_made_where_the_range_looks_wrong(
    extent: Extent | None, given: tuple[float, float] | None, end: str | None
) -> None:
    note = note_on(extent, "folder", given)
    assert note is None if end is None else note is not None and note.endswith(end)


@pytest.mark.parametrize("values", [(1.0,), (0.0, 1.0, 2.0), (5.0, 5.0), (5.0, 1.0), (0.0, float("inf"))])
def test_what_is_no_range_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="range"):
        DataConfig(range_b=values)


# --- EXIF, and whatever else is damaged ------------------------------------------------------------------------------


def exif(*entries: tuple[int, int, int, bytes], kind: bytes = b"II") -> bytes:
    """(tag, type, count, data) of up to 4 bytes, or put behind the directory."""
    at, directory, body = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, of_type, count, data in entries:
        stored = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", at + len(body))
        body += b"" if len(data) <= 4 else data
        directory += struct.pack("<HHI", tag, of_type, count) + stored
    return b"Exif\0\0" + kind + b"*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + body


TURNED = (0x112, 3, 1, struct.pack("<H", 6))
UNWRITABLE = {
    "a rational of -1 / 0": (0x11A, 10, 1, struct.pack("<ii", -1, 0)),
    "a resolution in words": (0x11A, 2, 7, b"72 dpi\0"),
    "a negative width": (0x100, 9, 1, struct.pack("<i", -5)),
    "a directory that is none": (0x8769, 4, 1, struct.pack("<I", 0xFFFFFFF0)),
    "a maker's note beyond the end": (0x927C, 7, 99999, struct.pack("<I", 70000)),
    "an unknown type": (0x9000, 99, 1, b"0"),
    "a count of billions": (0x10F, 2, 0xFFFFFFFF, b"x"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("entry", UNWRITABLE)
def test_exif_that_cannot_be_written_again_turns_the_image_all_the_same(
    tmp_path: Path, entry: str, ending: str
) -> None:
    image = Image.fromarray(np.kron(noise(3, 8).astype(np.uint8), np.ones((8, 8, 1), np.uint8)))
    block = exif(TURNED, UNWRITABLE[entry])
    exactly: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    image.save(tmp_path / f"a.{ending}", exif=block, **exactly.get(ending, {}))
    got, want = read(tmp_path / f"a.{ending}"), np.rot90(np.asarray(image), -1)
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < (4 if ending == "jpg" else 1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0XX", exif(TURNED)[:20], b"\xff" * 60])
def test_damaged_exif_leaves_the_image_as_it_is_stored(tmp_path: Path, block: bytes) -> None:
    image = Image.fromarray(noise(3, 8).astype(np.uint8))
    image.save(tmp_path / "a.png", exif=block)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.asarray(image))


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    a = noise(3, 8).astype(np.uint8)
    Image.fromarray(a).save(tmp_path / "a.png", exif=exif((0x112, 3, 1, struct.pack("<H", orientation))))
    want = {
        2: np.fliplr(a),
        3: np.rot90(a, 2),
        4: np.flipud(a),
        5: a.swapaxes(0, 1),
        6: np.rot90(a, -1),
        7: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90(a),
    }.get(orientation, a)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), want)


@pytest.mark.parametrize(
    "raised", [struct.error("unpack"), TypeError(), KeyError("x"), zlib.error("no"), RecursionError("deep"), EOFError()]
)
def test_whatever_a_decoder_raises_becomes_unreadable_image(raised: Exception) -> None:
    with (
        pytest.raises(UnreadableImage, match=rf"^a\.png: it is damaged \({type(raised).__name__}"),
        reading(Path("a.png")),
    ):
        raise raised


def test_a_lack_of_memory_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "to_rgb", lambda image: bytes(2**62))
    with pytest.raises(MemoryError, match=r"a\.png: its pixels do not fit in the memory"):
        decode(tmp_path / "a.png")

    def command() -> int:
        decode(tmp_path / "a.png")
        return 0

    assert run_command(command) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'a.png'}: its pixels do not fit")


def test_damaged_files_are_read_or_named_by_both_ways(tmp_path: Path) -> None:
    with few_pixels():
        damaged = list(damage_files(400, 7, tmp_path))
    assert len(damaged) == 400
    assert [path.name for path, _, disagreeing in damaged if disagreeing] == []
    outcomes = [file for _, file, _ in damaged if file.damage != "by_hand"]
    for attribute, least in (("ending", 9), ("damage", len(DAMAGES))):
        kinds = {getattr(file, attribute) for file in outcomes}
        assert len(kinds) >= least
        for kind in kinds:
            read = {file.came_of_it == "read" for file in outcomes if getattr(file, attribute) == kind}
            assert read == {True, False}, f"of {kind} all files or none are read: the damage says nothing"


# --- Pillow's limit and its warnings ---------------------------------------------------------------------------------


def test_the_limit_is_lifted_where_that_is_asked_for_and_there_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 50)
    Image.new("RGB", (12, 10), "red").save(tmp_path / "a.png")
    Image.new("RGB", (12, 10), "red").save(tmp_path / "a.tif")
    for ending in ("png", "tif"):
        with pytest.raises(UnreadableImage, match=r"100 pixels that are read at once: .*--tile"):
            read_image(tmp_path / f"a.{ending}")
        with of_any_size():
            assert read(tmp_path / f"a.{ending}").shape == (10, 12, 3)
        assert Image.MAX_IMAGE_PIXELS == 50


def test_a_large_tiff_is_not_copied_on_its_way_to_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", rowsperstrip=4)
    decoded = decode(tmp_path / "a.tif")
    assert isinstance(decoded.content, np.ndarray)
    assert decoded.pixels is decoded.content


def bomb(path: Path) -> None:
    """More pixels than Pillow's limit, at which it warns, and fewer than twice that, at which it refuses."""
    Image.new("L", (50, 30), 128).save(path)


def corrupt_exif(path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(path, exif=exif(TURNED, (0x927C, 7, 99999, struct.pack("<I", 70000))))


def invalid_apng(path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    content = buffer.getvalue()
    path.write_bytes(content[:33] + chunk(b"acTL", struct.pack(">II", 0, 0)) + content[33:])


READ_WITH_WARNINGS_AS_ERRORS = """
import sys
from pathlib import Path
from PIL import Image
Image.MAX_IMAGE_PIXELS = 1200
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.system.errors import run_command
sys.exit(run_command(lambda: [print(decode(Path(name)).pixels.shape) for name in sys.argv[1:]] and 0))
"""


def test_warnings_of_pillow_as_errors_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1200)
    makers: list[Callable[[Path], None]] = [bomb, corrupt_exif, invalid_apng]
    paths = [tmp_path / f"{make.__name__}.png" for make in makers]
    for make, path in zip(makers, paths, strict=True):
        make(path)
    for path in paths:  # else this tests nothing
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(path) as image:
                image.getexif()
        assert caught, path
    command = [sys.executable, "-W", "error", "-c", READ_WITH_WARNINGS_AS_ERRORS, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["(30, 50, 3)", "(32, 32, 3)", "(32, 32, 3)"]
