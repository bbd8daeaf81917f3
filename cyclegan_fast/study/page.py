"""Holds the command `make`, which chooses the images of a study and writes its page and pictures."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from cyclegan_fast.data.pairs import pair_key
from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.folders import find_images
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.study.format import (
    STUDY_FORMAT,
    CountingPairs,
    PauseMilliseconds,
    PracticePairs,
    SessionSettings,
    ShownMilliseconds,
    Study,
)
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.files import sha256_of, write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import check_fields
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.inputs import CONTACT_SHEET
from cyclegan_fast.version import __version__

SHOWN_SIDE = 256  # pixels; the size at which the paper showed its images
PRACTICE, SESSION = 10, 50  # pairs with feedback, and all pairs of a session, as in the paper
STUDY_PROGRAM = "python -m cyclegan_fast.perceptual_study"
SOURCES = "sources.json"
REAL = "real"


@dataclass(frozen=True)
class Make:
    """Make the page of a study from a folder of real and one or more of generated images.

    Every image is resized to 256x256 and stored as PNG under a name that says nothing. Participants open
    OUT/index.html, or OUT on any web server, and send back the file that they get at the end; what somebody left early
    can be continued in the same browser. A session shows one method, chosen at random, or by ?method=NAME behind the
    page's address, with which methods get equally many participants; ?seed=N repeats a session. OUT/sources.json says
    which image is which; the page does without it, so a public copy may, too.

    The same command again writes the same study. OUT must be new, empty, or that study.

    Examples:
        python -m cyclegan_fast.perceptual_study make --real maps/testA --fake translated --out study
        python -m cyclegan_fast.perceptual_study make --real maps/testA --fake cyclegan=runs/1/out \\
            --fake cogan=cogan/out --out study
    """

    real: Path
    """folder of real images, with its subfolders"""
    fake: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="[NAME=]FOLDER")]
    """folder of generated images, as FOLDER or NAME=FOLDER; may be given several times, once for each method"""
    out: Path
    """folder for the study"""
    practice: PracticePairs | None = None
    """pairs at the beginning that come with feedback and do not count; by default 10, or a fifth of the images where
    there are fewer than 50"""
    trials: CountingPairs | None = None
    """pairs that count; by default 40, or as many as there are images for"""
    show_ms: ShownMilliseconds = 1000
    """how long a pair is shown, in milliseconds"""
    pause_ms: PauseMilliseconds = 500
    """how long the cross stands before each pair, in milliseconds"""
    strict: bool = False
    """stop at the first image or folder that cannot be read, instead of leaving it out with a note"""
    paired: bool = False
    """show real and generated images of the same name together (as the paper did not), instead of different ones"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if not self.fake:
            raise ValueError("no generated images given: use --fake FOLDER")

    def settings(self, images: int) -> SessionSettings:
        """Return a session for folders of so many images; `--practice` and `--trials` are kept as given."""
        practice, trials = self.practice, self.trials
        if practice is None:
            practice = PRACTICE if images >= SESSION else images // 5
        if trials is None:
            trials = min(SESSION - PRACTICE, max(1, images - practice))
        return SessionSettings(practice, trials, self.show_ms, self.pause_ms, self.paired)


@dataclass(frozen=True)
class SourceImage:
    """Says where an image of the study comes from, and under which name it is shown."""

    role: str
    """REAL, or the name of a method"""
    path: Path
    key: str
    """what images of the same scene share"""
    digest: str
    """digest of the file's bytes"""
    name: str = ""


def make(command: Make) -> int:
    """Write the study, its page last; return the exit status."""
    sources, study = plan_study(command)
    claim(command.out, study, sources)
    resized = dict.fromkeys((REAL, *study.methods), 0)
    by_name = sorted(sources, key=lambda source: source.name)  # so that the files' times say nothing either
    for source in progress_bar(by_name, desc="writing", unit=" images", leave=False):
        resized[source.role] += write_shown(source, command.out / "images")
    write_atomically(command.out / "index.html", _page(study).encode("utf-8"))
    _report(command, study, resized)
    return 0


def plan_study(command: Make) -> tuple[list[SourceImage], Study]:
    """Give the images new names and make a study of them; both depend on the files and the settings alone.

    Raises UserError where a folder has too few images, or one image would be both real and generated.
    """
    folders = {REAL: command.real.expanduser()} | methods_of(command.fake)
    found = [source for role, folder in folders.items() for source in find_sources(role, folder, strict=command.strict)]
    refuse_shared(found)
    settings = command.settings(fewest_usable(found, folders, paired=command.paired))
    identity = digest_of(STUDY_FORMAT, asdict(settings), [(s.role, s.key, s.path.name, s.digest) for s in found])[:12]
    # A letter first: a name of digits alone would be a number to some.
    names = ["p" + digest_of(identity, s.role, s.key, s.path.name)[:10] for s in found]
    sources = [SourceImage(s.role, s.path, s.key, s.digest, name) for s, name in zip(found, names, strict=True)]
    scenes = {key: scene for scene, key in enumerate(sorted({source.key for source in sources}))}
    images = {
        role: tuple(sorted((source.name, scenes[source.key]) for source in sources if source.role == role))
        for role in folders
    }
    study = Study(identity, __version__, settings, images.pop(REAL), images)
    refuse_too_few(study, folders)
    return sources, study


def fewest_usable(sources: Sequence[SourceImage], folders: dict[str, Path], *, paired: bool) -> int:
    """Count the images of the folder with the fewest; with `paired` those with a real image of the same name."""
    keys = {role: [source.key for source in sources if source.role == role] for role in folders}
    real = set(keys[REAL])
    return min(len(real & set(own)) if paired and role != REAL else len(own) for role, own in keys.items())


def methods_of(arguments: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each method, by the method's name."""
    found: dict[str, Path] = {}
    for argument in arguments:
        name, separator, folder = argument.partition("=")
        bare = not separator or Path(argument).expanduser().is_dir()  # a folder may have "=" in its name
        path = Path(argument if bare else folder).expanduser()
        name = printable(path.resolve().name if bare else name.strip())  # for the page, which is UTF-8
        if not name or name == REAL or name in found:
            why = "is given twice" if name in found else "is no name for a method"
            raise UserError(f"--fake {argument}: {name!r} {why}; write --fake NAME=FOLDER with another name")
        found[name] = path
    return found


def find_sources(role: str, folder: Path, *, strict: bool) -> list[SourceImage]:
    """Find the images of one role; raises UserError where there is no such folder.

    Also raises it for a file that cannot be read. `strict` is that of `find_images`.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}, which should hold {_describe(role)}; check the path")
    sources = []
    for path in find_images(folder, strict=strict):
        if path.name == CONTACT_SHEET:
            continue
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; mend or remove it, then make the study again") from error
        sources.append(SourceImage(role, path, pair_key(str(path.relative_to(folder))), digest))
    return sources


def _describe(role: str) -> str:
    return "real images" if role == REAL else f"the images generated by {role}"


def digest_of(*values: object) -> str:
    """Return a digest of values that JSON takes."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def refuse_shared(sources: Sequence[SourceImage]) -> None:
    """Raise UserError where a file stands on both sides: whoever sees it could not be right."""
    real = {source.digest: source.path for source in sources if source.role == REAL}
    for source in sources:
        if source.role != REAL and source.digest in real:
            raise UserError(
                f"{source.path} ({source.role}) and {real[source.digest]} (real) are the same file: check that --real "
                "and --fake name the right folders"
            )


def refuse_too_few(study: Study, folders: dict[str, Path]) -> None:
    """Raise UserError where a session could not show every image once only."""
    settings, partners = study.settings, {scene for _, scene in study.real}
    needed = settings.practice + settings.trials
    for role, images in {REAL: study.real, **study.methods}.items():
        usable, of_which = len(images), ""
        if settings.paired and role != REAL:
            usable, of_which = len({scene for _, scene in images} & partners), " with a real image of the same name"
        if usable < needed:
            raise UserError(
                f"{folders[role]} has {counted(usable, 'image')}{of_which}, and a session of {settings.practice} "
                f"practice and {settings.trials} counting pairs shows {needed} without repeating one: add images, or "
                "lower --practice and --trials"
            )


def claim(out: Path, study: Study, sources: Sequence[SourceImage]) -> None:
    """Make `out` the folder of this study; raises UserError where it is anything else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and (found := study_in(out)) != study.id:
        what = f"holds another study ({found})" if found else "holds files and is no study"
        raise UserError(f"--out {out} {what}, and nothing is overwritten; give another --out, or remove it first")
    (out / "images").mkdir(parents=True, exist_ok=True)
    origins = {s.name: {"shown as": s.role, "file": str(s.path)} for s in sorted(sources, key=lambda s: s.name)}
    # Written first, it is also the mark by which an interrupted study is known.
    write_atomically(out / SOURCES, (json.dumps({"study": study.id, "images": origins}, indent=1) + "\n").encode())


def study_in(folder: Path) -> str:
    """Return the id of the study that a folder holds, whole or interrupted; empty where it holds none."""
    try:
        return str(json.loads((folder / SOURCES).read_bytes())["study"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_shown(source: SourceImage, folder: Path) -> bool:
    """Store an image as it is shown, all of them alike; return whether it had to be resized."""
    try:
        image = read_image(source.path)
    except UnreadableImage as error:
        raise UserError(f"{error}; mend or remove it, then make the study again") from error
    resized = image.size != (SHOWN_SIDE, SHOWN_SIDE)
    if resized:  # to a square, as training and translation do
        image = image.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)
    # PNG, since JPEG would smooth over the fine patterns by which a generator gives itself away.
    write_image(np.asarray(image), folder / f"{source.name}.png")
    return resized


def _page(study: Study) -> str:
    template = files("cyclegan_fast.study").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", study.as_json())


def _report(command: Make, study: Study, resized: dict[str, int]) -> None:
    counts = {REAL: len(study.real)} | {name: len(images) for name, images in study.methods.items()}
    of_methods = [f"{counted(len(images), 'image')} of {name}" for name, images in study.methods.items()]
    print(f"study {study.id}: {', '.join([counted(len(study.real), 'real image'), *of_methods])}")
    settings = study.settings
    print(f"a session is {counted(settings.practice, 'pair')} for practice and {settings.trials} that count")
    if settings.trials < SESSION - PRACTICE and command.trials is None:
        print(f"note: there are too few images for the paper's {PRACTICE} and {SESSION - PRACTICE}")
    shares = {role: count / counts[role] for role, count in resized.items()}
    if max(shares.values()) - min(shares.values()) > 0.1:
        listed = ", ".join(f"{resized[role]} of {counts[role]} {role}" for role in counts)
        print(
            f"note: resized to {SHOWN_SIDE}x{SHOWN_SIDE}: {listed}. Resizing changes how sharp an image looks, which "
            f"may tell real from generated; give both at {SHOWN_SIDE}x{SHOWN_SIDE}",
            file=sys.stderr,
        )
    print(printable(f"participants open {command.out / 'index.html'}, or the folder on a web server"))
    print(f"then: {STUDY_PROGRAM} analyse RESULTS --study {command.out}")
