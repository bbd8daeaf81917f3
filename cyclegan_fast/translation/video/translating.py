"""Translates videos for any `Translator`; needs no PyTorch.

A thread decodes, others estimate motion where that is asked for, the caller's runs the network, and one filters and
encodes. Few frames are in memory.
"""

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from fractions import Fraction

import av
from tqdm import tqdm

from cyclegan_fast.images.files import none_can_be_read
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.progress import progress_bar, waiting
from cyclegan_fast.translation.batches import THREADS, translations_of_batches
from cyclegan_fast.translation.left_out import LeftOut
from cyclegan_fast.translation.plan import Job
from cyclegan_fast.translation.prepared import check_square_fits
from cyclegan_fast.translation.summary import Summary
from cyclegan_fast.translation.translator import BatchDoesNotFit, Translator
from cyclegan_fast.translation.video.encoding import Encoding, SegmentEncoder
from cyclegan_fast.translation.video.joining import join_segments
from cyclegan_fast.translation.video.opening import OpenedVideo, ffmpeg_explained
from cyclegan_fast.translation.video.plans import VideoPlan
from cyclegan_fast.translation.video.preparing import (
    FramePreparation,
    PreparedFrame,
    batches_of,
    frames_ahead,
    with_motion,
)
from cyclegan_fast.translation.video.segments import SEGMENT_FRAMES, KeptSegments, remove_segments
from cyclegan_fast.translation.video.steady import SteadyFilter
from cyclegan_fast.translation.writing import NotWritten, check_folder, looked_up, writing_explained
from cyclegan_fast.version import __version__

_FRAMES_AHEAD = 8
_BATCHES_BEHIND = 2


def translate_videos(translator: Translator, jobs: Sequence[Job], plan: VideoPlan, *, are_all: bool) -> Summary:
    """Translate every video whose translation is not there yet, one after another.

    One that was ended before continues behind the last segment that is whole.

    Args:
        are_all: whether no images are translated beside them: then it is an error if none of them can be read.

    Raises UserError as `translate_images` does: a single video whose frames do not fit is left out.
    """
    start = time.perf_counter()
    options = plan.options
    unwritten: list[str] = []
    unreadable: list[str] = []
    remarks: list[str] = []
    left_out: LeftOut[PreparedFrame] = LeftOut(splits=plan.splits, raises=True)
    placed = looked_up(jobs, unwritten)
    frames = translated = existing = 0
    check_square_fits(plan.size, translator.source, translator.target)
    for job, is_there in placed:
        if is_there and not options.overwrite:
            existing += 1
            remove_segments(job.target)
            continue
        check_folder(options.out)
        try:
            if not (translator.source.is_rgb and translator.target.is_rgb):
                kinds = f"{translator.source} -> {translator.target}"
                raise UnreadableImage(f"{job.source}: videos are of 8-bit RGB, and the network is not ({kinds})")
            count, notes = _translate(translator, job, plan, left_out)
            frames += count
            translated += 1
            remarks += notes
        except UnreadableImage as error:
            if options.strict:
                raise UserError(f"{error} (leave --strict out to skip such files)") from error
            unreadable.append(str(error))
        except NotWritten as error:
            unwritten.append(str(error))
        except BatchDoesNotFit as error:
            if options.strict or plan.size is not None:
                raise
            left_out.lines.append(str(error))
    if unreadable and are_all and len(unreadable) == len(jobs):
        raise UserError(none_can_be_read(unreadable))
    return Summary(
        translated=0,
        existing=existing,
        unreadable=unreadable,
        unwritten=unwritten,
        remarks=remarks,
        elapsed_s=time.perf_counter() - start,
        videos=translated,
        frames=frames,
        has_videos=True,
        left_out=left_out.lines,
    )


def _translate(
    translator: Translator, job: Job, plan: VideoPlan, left_out: LeftOut[PreparedFrame]
) -> tuple[int, list[str]]:
    """Translate one video; return the number of its frames, and what a user should know of it.

    Raises UnreadableImage, NotWritten, BatchDoesNotFit, and UserError where no other video could be written either.
    """
    with ExitStack() as stack:
        video = stack.enter_context(OpenedVideo(job.source))
        encoding = _encoding_of(video, job, plan)
        encoding.check()
        with writing_explained(job.target):
            segments = stack.enter_context(KeptSegments(job.target, _identity_of(job, plan)))
        for line in segments.told(job.source):
            tqdm.write(f"note: {printable(line)}")
        try:
            count = _translate_frames(translator, video, job, plan, segments, encoding, left_out)
        except UnreadableImage:
            segments.remove()
            raise
        except BatchDoesNotFit:
            if not segments.paths():
                segments.remove()
            raise
        if plan.options.strict and video.damage:
            raise UserError(
                f"{job.source} {video.damage[0]} (leave --strict out to take what is there: it is kept in "
                f"{segments.folder}, which may be deleted)"
            )
        described = f"writing {printable(job.target.name)}"
        with waiting(described), writing_explained(job.target), ffmpeg_explained():
            notes = join_segments(job.source, segments.paths(), job.target, video.time_base, video.rate)
        segments.remove()
        about = [*video.notes, *video.damage, *encoding.notes]
    return count, [f"{job.source} {note}" for note in about] + [f"{job.target}: {note}" for note in notes]


def _translate_frames(
    translator: Translator,
    video: OpenedVideo,
    job: Job,
    plan: VideoPlan,
    segments: KeptSegments,
    encoding: Encoding,
    left_out: LeftOut[PreparedFrame],
) -> int:
    """Translate the frames whose segments are not there yet; return how many there are in all."""
    prepare = FramePreparation(job.source, job.half, plan.size, plan.multiple)
    strength = plan.options.video.steady
    writer = SegmentWriter(segments, encoding, strength)
    expected = video.expected_frames
    description = f"translating {printable(job.source.name)}"
    total = None if expected is None else max(expected, segments.frames)
    with ExitStack() as stack:
        frames = stack.enter_context(closing(frames_ahead(prepare(video.frames(), segments.frames), _FRAMES_AHEAD)))
        if strength:
            frames = stack.enter_context(closing(with_motion(frames, THREADS)))
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="encoding"))
        stack.callback(lambda: pool.submit(writer.abandon))
        progress = stack.enter_context(
            progress_bar(total=total, initial=segments.frames, desc=description, unit=" frames")
        )
        waiting_batches: deque[Future[None]] = deque()
        batches = batches_of(frames, plan.batch_size, SEGMENT_FRAMES)
        for batch, samples in translations_of_batches(translator, batches, left_out):
            waiting_batches.append(pool.submit(writer.add, batch, samples))
            while len(waiting_batches) > _BATCHES_BEHIND:
                with writing_explained(job.target), ffmpeg_explained():
                    waiting_batches.popleft().result()
            progress.update(len(batch))
        with writing_explained(job.target), ffmpeg_explained():
            while waiting_batches:
                waiting_batches.popleft().result()
            pool.submit(writer.finish).result()
    return writer.next_frame


class SegmentWriter:
    """Filters and encodes translated frames, segment by segment; called by one thread.

    Args:
        strength: of the filter against flicker; 0 for none.
    """

    def __init__(self, segments: KeptSegments, encoding: Encoding, strength: float) -> None:
        self.next_frame = segments.frames
        self._segments = segments
        self._encoding = encoding
        self._filter = SteadyFilter(strength, segments.carried()) if strength else None
        self._encoder: SegmentEncoder | None = None
        self._failed = False

    def add(self, batch: Sequence[PreparedFrame], samples: SampleArray) -> None:
        """Encode a batch and its translations [N, H, W, 3]. Raises OSError where the disk takes no more.

        What comes behind a batch that failed is left out: a segment without it must not be named.
        """
        if self._failed:
            return
        try:
            for frame, translation in zip(batch, samples, strict=True):
                self._add(frame, translation[: frame.height, : frame.width])
        except BaseException:
            self._failed = True
            self.abandon()
            raise

    def _add(self, frame: PreparedFrame, translation: Pixels) -> None:
        if self._filter is not None:
            translation = self._filter(translation, frame.own, frame.before, frame.flow)
        if self._encoder is None:
            self._encoder = SegmentEncoder(self._segments.path(frame.index), self._encoding)
        self._encoder.add(translation, frame.time)
        self.next_frame = frame.index + 1
        if self.next_frame % SEGMENT_FRAMES == 0:
            self.finish()

    def finish(self) -> None:
        """Keep the segment that is under way, with what the filter carries to the next one."""
        if self._encoder is None:
            return
        if self._filter is not None and self._filter.carried is not None:
            self._segments.keep_carried(self._filter.carried, self.next_frame)
        self._encoder.finish()
        self._encoder = None
        self._segments.forget_carried(self.next_frame)

    def abandon(self) -> None:
        """Leave nothing of the segment that is under way."""
        if self._encoder is not None:
            self._encoder.abandon()
            self._encoder = None


def _encoding_of(video: OpenedVideo, job: Job, plan: VideoPlan) -> Encoding:
    """Return how a video's translation is encoded: of other pixels, it is shown as wide and as high as the video."""
    height, width = video.size
    aspect = video.pixel_aspect
    if job.half is not None:
        width //= 2
    if plan.size is not None:
        aspect *= Fraction(width, height)
        height = width = plan.size
    return Encoding(plan.options.video, (height, width), video.rate, aspect, video.colours, SEGMENT_FRAMES)


def _identity_of(job: Job, plan: VideoPlan) -> str:
    """Return a name for all that the segments of a translation depend on."""
    state = job.source.stat()
    facts = [
        *(plan.identity, job.source.resolve(), state.st_size, state.st_mtime_ns),
        *(job.half, plan.size, plan.multiple, plan.batch_size, plan.options.video, SEGMENT_FRAMES),
        *(__version__, av.__version__, av.library_versions),
    ]
    return hashlib.sha256(repr([*map(str, facts)]).encode()).hexdigest()
