"""Tells which inputs are videos, and which files their translations go to; needs no PyAV for names that it knows."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_fast.images.folders import DICOM_MARK, EXTENSIONS, OTHER_EXTENSIONS, begins_like_image, ending_of
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.video.options import VideoOptions

if TYPE_CHECKING:
    from cyclegan_fast.translation.plan import Job

VIDEO_ENDINGS = frozenset(
    {
        *(
            ".mp4",
            ".m4v",
            ".mov",
            ".qt",
            ".mkv",
            ".webm",
            ".avi",
            ".divx",
            ".flv",
            ".f4v",
            ".3gp",
            ".3g2",
            ".ogv",
            ".ogm",
        ),
        *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".ts", ".mts", ".m2ts", ".vob", ".wmv", ".asf", ".rm", ".rmvb"),
        *(".mxf", ".gxf", ".dv", ".y4m", ".nut", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc"),
    }
)
"""Endings of the names of videos. Animated GIF, WebP and PNG are images."""
_KEPT_CONTAINERS = frozenset({".mp4", ".m4v", ".mov", ".mkv"})
"""Endings of containers that hold H.264, and that a translation keeps."""


def is_video(path: Path) -> bool:
    """Tell by its name whether a file is a video; by its content where its ending is that of neither kind."""
    ending = ending_of(path.name)
    if ending in VIDEO_ENDINGS:
        return not path.is_dir()
    if ending in EXTENSIONS or ending in OTHER_EXTENSIONS or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            if begins_like_image(file.read(DICOM_MARK.stop)):
                return False  # FFmpeg reads AVIF and HEIC as videos of one frame
        from cyclegan_fast.translation.video.opening import OpenedVideo
    except (ModuleNotFoundError, OSError):  # without PyAV, or closed: it is then an image that cannot be read
        return False
    try:
        with OpenedVideo(path):
            return True
    except UnreadableImage:
        return False


def video_ending(path: Path, options: VideoOptions) -> str:
    """Return the ending of a translated video's name: that of its container where this holds all that is written.

    Otherwise it is that of MP4, or of Matroska where MP4 does not take a stream that is copied.
    """
    ending = ending_of(path.name)
    if options.lossless:
        return ".mkv"
    if ending in _KEPT_CONTAINERS:
        return ending
    try:
        from cyclegan_fast.translation.video.joining import fits_mp4

        return ".mp4" if fits_mp4(path) else ".mkv"
    except (ModuleNotFoundError, UnreadableImage):
        return ".mp4"  # nothing will be written, and the reason is told when it is the file's turn


def without_videos(jobs: Iterable["Job"]) -> tuple[list["Job"], list["Job"]]:
    """Return the jobs of images, and those of videos."""
    images: list[Job] = []
    videos: list[Job] = []
    for job in jobs:
        (videos if is_video(job.source) else images).append(job)
    return images, videos


def in_words(images: int, videos: int) -> str:
    """Say how many images and videos there are, such as "2 images and 1 video"."""
    if not videos:
        return counted(images, "image")
    return f"{counted(images, 'image')} and {counted(videos, 'video')}" if images else counted(videos, "video")
