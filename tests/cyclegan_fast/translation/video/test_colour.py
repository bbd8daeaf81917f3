"""CodedColours: YUV to RGB and back is what the recommendations of the ITU define, rounded to the nearest."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from cyclegan_fast.translation.video.colour import CodedColours, frame_to_rgb, rgb_to_frame
from cyclegan_fast.translation.video.opening import OpenedVideo
from tests.cyclegan_fast.translation.video.clips import pictures, write_clip

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""K_R and K_B of BT.709, BT.601 and BT.2020, by the numbers of H.273."""
Floats = npt.NDArray[np.float64]


def defined_rgb(yuv: Floats, matrix: int, is_full: bool) -> Floats:
    """Return R, G and B in 0 to 255, by H.273 (8.3): E'_Y = K_R E'_R + (1 - K_R - K_B) E'_G + K_B E'_B."""
    red, blue = WEIGHTS[matrix]
    y, u, v = (yuv - [0, 128, 128]).T / 255 if is_full else ((yuv - [16, 128, 128]) / [219, 224, 224]).T
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip(255 * np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1), 0, 255)


def defined_yuv(rgb: Floats, matrix: int) -> Floats:
    """Return Y, U and V in the limited range of 8 bits."""
    red, blue = WEIGHTS[matrix]
    r, g, b = rgb.T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    return np.stack([16 + 219 * y, 128 + 112 * (b - y) / (1 - blue), 128 + 112 * (r - y) / (1 - red)], -1)


def patches(values: npt.NDArray[np.uint8], pix_fmt: str) -> av.VideoFrame:
    """Return a frame of one row of patches of 16x16 samples, [N, 3] as they are."""
    frame = av.VideoFrame(16 * len(values), 16, pix_fmt)
    for plane, levels in zip(frame.planes, values.T, strict=True):
        side = plane.width // len(values)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = levels.repeat(side)
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_rgb_is_as_defined(matrix: int, is_full: bool, pix_fmt: str) -> None:
    luma, chroma = (range(0, 256, 15),) * 2 if is_full else (range(16, 236, 12), range(16, 241, 14))
    values = np.stack(np.meshgrid(luma, chroma, chroma), -1).reshape(-1, 3).astype(np.uint8)
    frame = patches(values, pix_fmt)
    frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
    colours = CodedColours.of(frame)
    assert (colours.matrix, colours.is_full) == (matrix, is_full)
    found = frame_to_rgb(frame, colours)[8, 8::16]
    assert np.abs(found - defined_rgb(values.astype(float), matrix, is_full)).max() < 0.55
    others = [defined_rgb(values.astype(float), other, is_full) for other in WEIGHTS if other != matrix]
    assert all(np.abs(found - other).max() > 5 for other in others)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "color_range", "is_full"),
    [
        *[("libx264", "gray", 1, False), ("libx264", "yuv420p", 1, False), ("libx264", "gray", 2, True)],
        *[("libx265", "gray", 1, False), ("libx265", "gray10le", 1, False), ("libx265", "gray", 2, True)],
        *[("ffv1", "gray", 1, False), ("ffv1", "gray", 0, True), ("ffv1", "gray16le", 1, False)],
        *[("ffv1", "ya8", 1, False), ("ffv1", "gray10le", 2, True)],
    ],
)
def test_grey_videos_have_the_levels_that_their_range_means(
    tmp_path: Path, codec: str, pix_fmt: str, color_range: int, is_full: bool
) -> None:
    luma = np.arange(16, 236, 11)
    clip = tmp_path / "grey.mkv"
    with av.open(str(clip), "w") as container:
        lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=none"}}
        stream = container.add_stream(codec, rate=25, options=lossless.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = 16 * len(luma), 32, pix_fmt
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame(stream.width, stream.height, pix_fmt)
        bits = frame.format.components[0].bits
        rows = luma.repeat(16).astype("u1" if bits == 8 else "<u2") * 2 ** (bits - 8)
        for index, plane in enumerate(frame.planes):
            row = rows if index == 0 else np.full(plane.width, 128, np.uint8)
            row = np.stack([row, np.full_like(row, 200)], -1).ravel() if pix_fmt == "ya8" else row
            plane.update((row.tobytes() + bytes(plane.line_size - row.nbytes)) * plane.height)
        frame.color_range, frame.pts = color_range, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with OpenedVideo(clip) as video:
        (found,) = (each.pixels[16, 8::16] for each in video.frames())
    expected = luma * (255 / (2**bits - 1) * 2 ** (bits - 8)) if is_full else (luma - 16) * 255 / 219
    assert np.abs(found - expected[:, None]).max() < 0.55


@pytest.mark.parametrize("matrix", WEIGHTS)
def test_yuv_is_as_defined_and_labelled(matrix: int) -> None:
    values = np.stack(np.meshgrid(*[range(0, 256, 17)] * 3), -1).reshape(-1, 3).astype(np.uint8)
    frame = rgb_to_frame(values.repeat(16, 0)[None].repeat(16, 0), CodedColours(matrix, 1, 1, False, 8))
    assert (frame.colorspace, frame.color_range, frame.format.name) == (matrix, 1, "yuv420p")
    found = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]
        side = plane.width // len(values)
        found.append(rows[plane.height // 2, side // 2 :: side])
    assert np.abs(np.stack(found, -1) - defined_yuv(values.astype(float), matrix)).max() < 1.05


@pytest.mark.parametrize(("size", "matrix"), [((576, 720), 6), ((720, 1280), 1)])
def test_what_a_file_does_not_say_is_what_players_assume(size: tuple[int, int], matrix: int) -> None:
    colours = CodedColours.of(av.VideoFrame(size[1], size[0], "yuv420p"))
    assert (colours.matrix, colours.is_full) == (matrix, False)


def test_what_users_should_know_is_said(tmp_path) -> None:  # type: ignore[no-untyped-def]
    hdr = {"colorspace": 9, "color_primaries": 9, "color_trc": 16}
    clip = write_clip(tmp_path / "hdr.mkv", pictures(4), pix_fmt="yuv420p10le", context=hdr)
    with OpenedVideo(clip) as video:
        (note,) = video.notes
        assert note.startswith("is of high dynamic range (PQ, 10 bits): its values are rounded to 8 bits")
    clip = write_clip(tmp_path / "deep.mkv", pictures(4), pix_fmt="yuv420p10le")
    with OpenedVideo(clip) as video:
        assert video.notes == ["has 10 bits a sample, which are rounded to 8"]
    # x264's own switch: PyAV has none for flags of interlaced coding
    clip = write_clip(tmp_path / "fields.mkv", pictures(4), options={"x264-params": "tff=1"})
    with OpenedVideo(clip) as video:
        (note,) = video.notes
        assert note.startswith("is interlaced: the two fields of a frame are translated as one picture")
