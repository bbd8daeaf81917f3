"""Begins the translation of videos, and tells where PyAV, which it needs, is not installed."""

from collections.abc import Sequence
from dataclasses import dataclass

from cyclegan_fast.images.files import none_can_be_read
from cyclegan_fast.images.unreadable import UnreadableImage, reading
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.plan import ImageOptions, Job
from cyclegan_fast.translation.summary import Summary
from cyclegan_fast.translation.translator import Translator


@dataclass(frozen=True)
class VideoPlan:
    """Says how every video of a command is translated.

    options: `images` is not read here.
    size: side of the square that frames are resized to, or None where they keep theirs.
    multiple: what sides must be multiples of for the translator.
    batch_size: frames translated at once, at most; None for as many as `images_at_once` says.
    identity: of the network, its precision, and all else that its translations depend on.
    splits: whether a batch that does not fit the memory is translated frame by frame.
    """

    options: ImageOptions
    size: int | None
    multiple: int
    batch_size: int | None
    identity: str
    splits: bool = False


def translate_all_videos(translator: Translator, jobs: Sequence[Job], plan: VideoPlan, *, are_all: bool) -> Summary:
    """Translate videos, see `translate_videos`; without PyAV all of them count as files that cannot be read."""
    try:
        from cyclegan_fast.translation.video.translating import translate_videos
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "av":
            raise
        unreadable = [_line_on_package(job, error) for job in jobs]
        if are_all or plan.options.strict:
            raise UserError(none_can_be_read(unreadable)) from error
        return Summary(0, 0, unreadable, [], [], 0.0, has_videos=True)
    return translate_videos(translator, jobs, plan, are_all=are_all)


def _line_on_package(job: Job, error: ModuleNotFoundError) -> str:
    try:
        with reading(job.source):
            raise error
    except UnreadableImage as unreadable:
        return str(unreadable)
