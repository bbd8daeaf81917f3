"""Tests what is opened as a video, neither images nor lists of other files, and which of its frames are shown."""

from pathlib import Path

import av
import pytest
from PIL import Image

from cyclegan_fast.translation.plan import ImageOptions, plan
from tests.cyclegan_fast.translation.video.clips import pictures, times_of, write_clip
from tests.cyclegan_fast.translation.video.negatives import negate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "ICO"])
def test_an_image_without_a_known_ending_is_no_video(tmp_path: Path, kind: str) -> None:
    """FFmpeg reads images, too: as films of one frame."""
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photo.png")
    picture = tmp_path / "photo.unknown"
    Image.fromarray(pictures(1)[0]).save(picture, kind)
    film = write_clip(tmp_path / "film.mp4", pictures(2)).rename(tmp_path / "film.unknown")
    jobs = plan(ImageOptions((str(picture), str(film)), tmp_path / "out"))
    assert [job.target.name for job in jobs] == ["photo.png", "film.mp4"]


def test_a_list_of_other_files_is_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "other.mp4", pictures(2))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    assert negate(tmp_path / "list.mp4", tmp_path / "out") == 2
    line = "not a video, but an image, sound or a list of other files"
    assert capsys.readouterr().err == f"error: {tmp_path / 'list.mp4'}: {line}\n"


def test_frames_that_an_edit_list_hides_are_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cuts without encoding: the frames behind the last key frame before the cut stay in the file, and are hidden."""
    clip = write_clip(tmp_path / "clip.mp4", pictures(30), options={"g": "100"})
    with av.open(str(clip)) as given, av.open(str(tmp_path / "cut.mp4"), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.pts is not None:
                packet.pts, packet.dts = packet.pts - 10 * 512, packet.dts - 10 * 512
                packet.stream = stream
                output.mux(packet)
    shown = times_of(tmp_path / "cut.mp4")
    assert len(shown) < 30
    assert negate(tmp_path / "cut.mp4", tmp_path / "out") == 0
    assert "header" not in capsys.readouterr().err
    assert times_of(tmp_path / "out" / "cut.mp4") == shown


def test_opacity_that_vp9_has_in_a_stream_of_its_own_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reads the label of the stream: the decoder gives no opacity."""
    clip = write_clip(tmp_path / "plain.mkv", pictures(2))
    with av.open(str(tmp_path / "clip.webm"), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for pixels in pictures(2):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuva420p")))
        output.mux(stream.encode(None))
    assert negate(clip, tmp_path / "out") == 0
    assert "opacity" not in capsys.readouterr().err
    assert negate(tmp_path / "clip.webm", tmp_path / "out") == 0
    assert f"{tmp_path / 'clip.webm'} has opacity, which is left out" in capsys.readouterr().err
