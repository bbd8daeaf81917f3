"""Videos: what is written is the translation of each frame, when it was shown, whatever happens on the way."""

import errno
import os
import shutil
import signal
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.translate import main
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.translator import BatchDoesNotFit
from cyclegan_fast.translation.video import encoding
from tests.cyclegan_fast.pictures import names
from tests.cyclegan_fast.translation.video.clips import packets_of, pictures, read_clip, times_of, write_clip
from tests.cyclegan_fast.translation.video.negatives import negate, negate_apart

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"codec": "ffv1", "pix_fmt": "bgr0"}


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_a_lossless_video_has_the_translations_of_its_frames(
    tmp_path: Path, weights: Path, size: tuple[int, int]
) -> None:
    frames = pictures(20, *size)
    clip = write_clip(tmp_path / "clip.mkv", frames, **EXACT)
    for index, pixels in enumerate(frames):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{index:02d}.png")
    flags = ["--checkpoint", str(weights), "--batch-size", "1", "--device", "cpu", "--no-contact-sheet"]
    assert main([str(clip), "--lossless", "--out", str(tmp_path / "out"), *flags]) == 0
    assert main([str(tmp_path / "frames"), "--out", str(tmp_path / "one by one"), *flags]) == 0
    expected = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "one by one").iterdir())]
    assert np.array_equal(read_clip(tmp_path / "out" / "clip.mkv"), expected)
    assert np.std(expected) > 10, "flat pictures would prove nothing"
    assert hidden(tmp_path / "out") == []


def test_the_size_of_batches_changes_no_more_than_a_rounding(tmp_path: Path, weights: Path) -> None:
    """Gives one file for a function, where segments of 48 frames end batches of 5; a network's sums may be rounded."""
    clip = write_clip(tmp_path / "clip.mp4", pictures(50, 16, 24), sound=True)
    written = []
    for size in (1, 4, 5):
        assert negate(clip, tmp_path / str(size), batch_size=size) == 0
        written.append((tmp_path / str(size) / "clip.mp4").read_bytes())
    assert written[0] == written[1] == written[2]
    clip = write_clip(tmp_path / "clip.mp4", pictures(9, 16, 24))
    flags = ["--checkpoint", str(weights), "--device", "cpu", "--lossless"]
    for size in ("1", "4"):
        assert main([str(clip), *flags, "--batch-size", size, "--out", str(tmp_path / f"network {size}")]) == 0
    one, four = (read_clip(tmp_path / f"network {size}" / "clip.mkv").astype(int) for size in ("1", "4"))
    assert one.std() > 10
    assert np.abs(one - four).max() <= 1
    assert np.mean(one != four) < 0.001


def test_h264_is_near_the_translation_and_even(tmp_path: Path) -> None:
    frames = np.repeat(pictures(1, 33, 47), 20, 0) // 4 * 0 + np.linspace(40, 200, 47).astype(np.uint8)[:, None]
    assert negate(write_clip(tmp_path / "clip.mkv", frames.astype(np.uint8), **EXACT), tmp_path / "out", crf=4) == 0
    written = read_clip(tmp_path / "out" / "clip.mkv")
    assert written.shape == (20, 34, 48, 3)
    assert psnr(written[:, :33, :47], 255 - frames) > 42


def test_frames_are_turned_upright(tmp_path: Path) -> None:
    frames = pictures(6)
    for turn in (90, 180, 270):
        clip = write_clip(tmp_path / f"{turn}.mov", frames, turn=turn, options={"crf": "1"})
        assert negate(clip, tmp_path / "out", lossless=True) == 0
        written = read_clip(tmp_path / "out" / f"{turn}.mkv")
        # FFmpeg's rotation is counter-clockwise, as NumPy's is.
        expected = np.rot90(255 - frames.astype(int), turn // 90, axes=(1, 2))
        assert written.shape == expected.shape
        assert psnr(written, expected) > 24
        assert psnr(written, expected[:, ::-1, ::-1]) < 16


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pictures(4), context={"sample_aspect_ratio": Fraction(4, 3)})
    assert negate(clip, tmp_path / "out") == 0
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


# --- times and sound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
def test_each_frame_is_shown_when_it_was(tmp_path: Path, name: str) -> None:
    """Takes intervals that grow, over two borders of segments."""
    times = np.cumsum(np.arange(100, 100 + 7 * 104, 7)).tolist()
    clip = write_clip(tmp_path / name, pictures(104, 16, 16), times=times, time_base=Fraction(1, 10000))
    assert negate(clip, tmp_path / "out") == 0
    given, written = times_of(clip), times_of(tmp_path / "out" / name)
    assert written == given
    assert len({later - earlier for earlier, later in pairwise(given)}) > 60
    with av.open(str(tmp_path / "out" / name)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    assert any(packet.pts != packet.dts for packet in packets), "frames that are decoded before they are shown"
    if name != "clip.mkv":  # which does not store when frames are decoded
        decoded = [packet.dts for packet in packets]
        assert decoded == sorted({*decoded})
        assert all(packet.dts <= packet.pts for packet in packets)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_sound_is_copied(tmp_path: Path, name: str) -> None:
    clip = write_clip(tmp_path / name, pictures(20), sound=True)
    assert negate(clip, tmp_path / "out") == 0
    written = tmp_path / "out" / ("clip.avi.mp4" if name == "clip.avi" else name)
    written = written if written.exists() else tmp_path / "out" / "clip.mp4"
    given = packets_of(clip, "audio")
    assert len(given) >= 8
    assert [content for _, content in packets_of(written, "audio")] == [content for _, content in given]
    if name != "clip.avi":
        assert [time for time, _ in packets_of(written, "audio")] == [time for time, _ in given]


def test_what_a_container_does_not_take_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "plain.mkv", pictures(4))
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,100\nhello\n")
    with (
        av.open(str(tmp_path / "plain.mkv")) as film,
        av.open(str(tmp_path / "words.srt")) as words,
        av.open(str(tmp_path / "kept.mkv"), "w") as kept,
    ):
        streams = [kept.add_stream_from_template(given.streams[0]) for given in (film, words)]
        for given, stream in zip((film, words), streams, strict=True):
            for packet in given.demux():
                if packet.pts is not None:
                    packet.stream = stream
                    kept.mux(packet)
    shutil.copy(tmp_path / "kept.mkv", tmp_path / "clip.webm")
    assert negate(tmp_path / "kept.mkv", tmp_path / "out") == 0
    assert b"hello" in packets_of(tmp_path / "out" / "kept.mkv", "subtitle")[0][1]
    capsys.readouterr()
    assert negate(tmp_path / "clip.webm", tmp_path / "out") == 0
    assert "clip.mp4: 1 stream of subtitle (" in capsys.readouterr().err


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steady", [0.0, 0.8])
def test_after_a_kill_the_same_command_writes_the_same_file(tmp_path: Path, steady: float) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pictures(110, 16, 24), sound=True)
    assert negate(clip, tmp_path / "whole", steady=steady) == 0
    killed = negate_apart(clip, tmp_path / "out", killed_after=18, steady=steady)
    assert killed.returncode == -9
    assert hidden(tmp_path / "out") == [".clip.mp4.segments"]
    finished = negate_apart(clip, tmp_path / "out", steady=steady)
    assert finished.returncode == 0, finished.stderr
    assert "continues: 48 frames are there from before" in finished.stdout + finished.stderr
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == (tmp_path / "whole" / "clip.mp4").read_bytes()
    assert hidden(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_after_ctrl_c_the_same_command_continues(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / name, pictures(110, 16, 24), sound=True)
    assert negate(clip, tmp_path / "whole") == 0
    batches = 0

    def interrupted(samples: SampleArray) -> SampleArray:
        nonlocal batches
        batches += 1
        if batches == 18:
            wait_for(tmp_path / "out" / f".{name}.segments" / "000000000.nut")
            os.kill(os.getpid(), signal.SIGINT)
        return 255 - samples

    assert negate(clip, tmp_path / "out", interrupted) == 130
    assert "stopped; the same command continues" in capfd.readouterr().err
    segments = tmp_path / "out" / f".{name}.segments"
    assert sorted(path.suffix for path in segments.iterdir()) == ["", "", ".json", ".nut"], "no half of a segment"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [segments.name]
    assert negate(clip, tmp_path / "out") == 0
    assert "continues: 48 frames are there from before" in capfd.readouterr().out
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert hidden(tmp_path / "out") == []


def test_what_is_there_of_other_options_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pictures(60, 16, 16))
    assert negate_apart(clip, tmp_path / "out", killed_after=13).returncode == -9
    assert negate(clip, tmp_path / "out", crf=30) == 0
    assert "begins anew" in capfd.readouterr().out
    assert negate(clip, tmp_path / "whole", crf=30) == 0
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == (tmp_path / "whole" / "clip.mp4").read_bytes()


def test_a_full_disk_is_one_line_and_what_is_done_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (110, 16, 16, 3), np.uint8)
    clip = write_clip(tmp_path / "clip.mp4", noise)
    assert negate(clip, tmp_path / "whole") == 0
    whole = (tmp_path / "whole" / "clip.mp4").read_bytes()
    full = negate_apart(clip, tmp_path / "out", largest_file=len(whole) * 3 // 4)
    assert full.returncode == 2
    (line,) = [line for line in full.stderr.splitlines() if "translating" not in line]
    assert line.startswith(f"error: could not write {tmp_path / 'out' / 'clip.mp4'}: File too large;")
    assert negate_apart(clip, tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == whole


def test_a_segment_without_a_frame_that_could_not_be_written_is_never_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lets one write fail, as on a disk that has room again a moment later, three batches before a segment ends."""
    clip = write_clip(tmp_path / "clip.mp4", pictures(60, 16, 16))
    assert negate(clip, tmp_path / "whole") == 0
    add = encoding.SegmentEncoder.add

    def failing(self: encoding.SegmentEncoder, pixels: Pixels, time: int) -> None:
        if time == 37 * 512:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, pixels, time)

    with monkeypatch.context() as patched:
        patched.setattr(encoding.SegmentEncoder, "add", failing)
        assert negate(clip, tmp_path / "out") == 2
    assert "No space left on device; what is written already is whole" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out" / ".clip.mp4.segments").glob("*.nut")] == []
    assert negate(clip, tmp_path / "out") == 0
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == (tmp_path / "whole" / "clip.mp4").read_bytes()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_each_file_that_is_no_video_is_one_line_and_the_others_go_on(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(pictures(1)[0]).save(folder / "photo.png")
    whole = write_clip(folder / "whole.mp4", pictures(10), sound=True).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mkv").write_text("no video\n" * 100)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux([*tone.encode(frame), *tone.encode(None)])
    write_clip(folder / "none.mkv", pictures(10)[:0])
    flags = ["--checkpoint", str(weights), "--device", "cpu", "--no-contact-sheet", "--out", str(tmp_path / "out")]
    assert main([str(folder), *flags]) == 0
    printed = capsys.readouterr()
    assert "1 image and 6 videos through" in printed.out
    assert "translated 1 image and 1 video of 10 frames" in printed.out
    assert "skipped 5 unreadable files" in printed.out
    skipped = sorted(line for line in printed.err.splitlines() if line.startswith("skipped "))
    assert len(skipped) == 5
    assert skipped[0] == f"skipped {folder / 'cut.mp4'}: not a video that FFmpeg reads, or damaged"
    assert skipped[3] == f"skipped {folder / 'sound.mp4'}: has no video stream, but audio"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"photo.png", "whole.mp4"}
    assert main([str(folder / "sound.mp4"), *flags]) == 2
    assert capsys.readouterr().err == f"error: {folder / 'sound.mp4'}: has no video stream, but audio\n"


def test_what_is_left_of_a_video_is_translated_and_its_damage_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", pictures(60), options={"g": "5", "bf": "0"}, container_options={"movflags": "faststart"}
    )
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 2 // 3])
    assert negate(clip, tmp_path / "out") == 0
    left = len(read_clip(tmp_path / "out" / "clip.mp4"))
    assert 20 < left < 60
    assert f"{clip} has 60 frames by its header, and {left} could be decoded" in capsys.readouterr().err


def test_what_strict_refuses_for_damage_is_kept_for_the_command_without_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pictures(60), container_options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[:-2000])
    for _ in range(2):
        assert negate(clip, tmp_path / "out", strict=True) == 2
        segments = tmp_path / "out" / ".clip.mp4.segments"
        said = f"(leave --strict out to take what is there: it is kept in {segments}, which may be deleted)"
        assert said in capfd.readouterr().err
        assert [path.name for path in (tmp_path / "out").iterdir()] == [segments.name]
    assert negate(clip, tmp_path / "out") == 0
    assert "frames are there from before" in capfd.readouterr().out
    assert negate(clip, tmp_path / "anew") == 0
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == (tmp_path / "anew" / "clip.mp4").read_bytes()
    assert hidden(tmp_path / "out") == []


def test_without_pyav_photographs_are_translated(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(3))
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photo.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "av" or ".translation.video." in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    flags = ["--checkpoint", str(weights), "--device", "cpu", "--no-contact-sheet", "--out", str(tmp_path / "out")]
    line = f"{clip}: a video is read with av, which is not installed: pip install av"
    assert main([str(clip), str(tmp_path / "photo.png"), *flags]) == 0
    assert f"skipped {line}\n" in capsys.readouterr().err
    assert main([str(clip), *flags]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_names_follow_containers(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mov", "c.mkv", "d.avi"):
        write_clip(tmp_path / name, pictures(1), sound=True)
    options = ImageOptions((str(tmp_path),), tmp_path / "out")
    assert [job.target.name for job in plan(options)] == ["a.mp4", "b.mov", "c.mkv", "d.mp4"]


@pytest.mark.parametrize(("batch_size", "splits"), [(1, False), (4, True)])
def test_a_video_that_does_not_fit_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch_size: int, splits: bool
) -> None:
    """Takes one frame at a time, and none of 48 rows or more."""
    (tmp_path / "in").mkdir()
    for name, height, frames in (("a", 16, 5), ("b", 48, 3), ("c", 52, 3), ("d", 16, 3)):
        write_clip(tmp_path / "in" / f"{name}.mkv", pictures(frames, height, 24), **EXACT)
    tried = []

    def negative(samples: SampleArray) -> SampleArray:
        tried.append(samples.shape[:2])
        if len(samples) > 1 or samples.shape[1] >= 48:
            raise BatchDoesNotFit("no room")
        return 255 - samples

    flags: dict[str, Any] = {"batch_size": batch_size, "splits": splits, "lossless": True}
    assert negate(tmp_path / "in", tmp_path / "out", negative, **flags) == 1
    for name in ("a", "d"):
        expected = 255 - read_clip(tmp_path / "in" / f"{name}.mkv")
        assert np.array_equal(read_clip(tmp_path / "out" / f"{name}.mkv"), expected)
    assert names(tmp_path / "out") == {"a.mkv", "d.mkv"}
    several = [(4, 16)], [(3, 16)]
    first, last = several if splits else ([], [])
    assert tried == [*first, *[(1, 16)] * 5, (1, 48), *last, *[(1, 16)] * 3], "what did not fit is not tried again"
    error = capsys.readouterr().err
    b = tmp_path / "in" / "b.mkv"
    assert f"left out {b}: no room\n" in error
    assert (
        f"left out {tmp_path / 'in' / 'c.mkv'}: 24x52 is not tried, for it has no fewer pixels than {b}: no " in error
    )
    assert "error: 2 inputs did not fit, as said above; the same command tries them again\n" in error
    assert negate(tmp_path / "in", tmp_path / "strict", negative, **flags, strict=True) == 2
