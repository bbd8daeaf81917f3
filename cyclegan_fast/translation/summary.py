"""Says what became of the images of a translation."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cyclegan_fast.system.errors import printable
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.video.finding import in_words


@dataclass(frozen=True)
class Summary:
    """Counts what became of the images, and of videos.

    `unreadable` has a line for each input that could not be read, `unwritten` for each file that could not be written,
    `left_out` for each input that did not fit; `remarks` say what else a user should know.
    """

    translated: int
    existing: int
    unreadable: list[str]
    unwritten: list[str]
    remarks: list[str]
    elapsed_s: float
    videos: int = 0
    frames: int = 0
    has_videos: bool = False
    left_out: list[str] = field(default_factory=list)

    def joined(self, other: "Summary") -> "Summary":
        """Return the summary of both."""
        return Summary(
            self.translated + other.translated,
            self.existing + other.existing,
            [*self.unreadable, *other.unreadable],
            [*self.unwritten, *other.unwritten],
            [*self.remarks, *other.remarks],
            self.elapsed_s + other.elapsed_s,
            self.videos + other.videos,
            self.frames + other.frames,
            self.has_videos or other.has_videos,
            [*self.left_out, *other.left_out],
        )

    def __str__(self) -> str:
        done = in_words(self.translated, self.videos)
        frames = f" of {counted(self.frames, 'frame')}" if self.videos else ""
        line = f"translated {done}{frames} in {self.elapsed_s:.1f} s"
        if self.existing:
            them = "it" if self.existing == 1 else "them"
            line += f"; kept {counted(self.existing, 'translation')} from before (--overwrite replaces {them})"
        if self.unreadable:
            them = "it" if len(self.unreadable) == 1 else "them"
            noun = "unreadable file" if self.has_videos else "unreadable image"
            line += f"; skipped {counted(len(self.unreadable), noun)} (--strict refuses {them})"
        return line


def report(summary: Summary, out: Path) -> int:
    """Print the summary, and what was skipped, remarked and not written on standard error; return the exit status.

    It is 1 where a file could not be written, or an image did not fit: the others are there.
    """
    for line in summary.unreadable:
        print(f"skipped {printable(line)}", file=sys.stderr)
    for line in summary.left_out:
        print(f"left out {printable(line)}", file=sys.stderr)
    for line in summary.remarks:
        print(f"note: {printable(line)}", file=sys.stderr)
    print(f"{summary}: {out}")
    return report_missing(summary.unwritten, len(summary.left_out), "input" if summary.has_videos else "image")


def report_missing(unwritten: Sequence[str], left_out: int = 0, noun: str = "image") -> int:
    """Print a line for each file that could not be written, and one on all that is missing; return the exit status.

    `left_out` is the number of inputs, each a `noun`, that did not fit. The status is 1, or 0 where nothing is missing.
    """
    for line in unwritten:
        print(printable(line), file=sys.stderr)
    missing = [f"{counted(left_out, noun)} did not fit, as said above"] if left_out else []
    missing += [f"{counted(len(unwritten), 'file')} could not be written, as said above"] if unwritten else []
    if missing:
        them = "it" if left_out + len(unwritten) == 1 else "them"
        print(f"error: {'; '.join(missing)}; the same command tries {them} again", file=sys.stderr)
    return 1 if missing else 0
