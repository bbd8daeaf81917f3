"""`python export/run.py`: translate image files with an exported generator, without PyTorch.

Reading, batching and writing are those of `cyclegan_fast.translation`; an engine computes on its GPU (`runtime`), or an
ONNX file on OpenVINO or ONNX Runtime (`onnx_translators`).
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, printable, run_command
from cyclegan_fast.system.files import sha256_of
from cyclegan_fast.system.process import check_threads
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import ThreadCount, check_fields
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.command import size_in_words
from cyclegan_fast.translation.halves import halved
from cyclegan_fast.translation.plan import ImageOptions, plan, planned_for
from cyclegan_fast.translation.summary import Summary, report
from cyclegan_fast.translation.video.finding import in_words, without_videos
from cyclegan_fast.translation.video.plans import VideoPlan, translate_all_videos
from export.engines.engine_card import EngineCard, Profile
from export.graph_translator import GraphTranslator
from export.onnx_translators import Backend, OnnxDevice, load_translator


@dataclass(frozen=True)
class RunCommand:
    """Translate images and videos with an exported generator, without PyTorch.

    Give either --engine, which runs on the GPUs that it was built for, or --onnx, which runs on any CPU. Every image
    keeps its own size, unless --size is given or the engine was built for one size only. The same command continues a
    translation that was interrupted.

    Examples:
        python export/run.py photos --engine engines/x-a2b-float16.engine --out translated
        python export/run.py "photos/**/*.jpg" --onnx engines/x-a2b-float32.onnx --size 256 --out translated
    """

    options: Annotated[ImageOptions, tyro.conf.arg(name="")]
    engine: Path | None = None
    """written by export/trt.py, with its .json file beside it; runs on an NVIDIA GPU through PyCUDA, or else
    cuda-python; CYCLEGAN_FAST_CUDA=pycuda or cuda-python in the environment names one"""
    onnx: Path | None = None
    """written by export/to_onnx.py or export/trt.py"""
    backend: Backend = "auto"
    """with --onnx: "auto" is OpenVINO on a CPU where it is installed, and ONNX Runtime otherwise"""
    device: OnnxDevice = "auto"
    """with --onnx: "auto" is CUDA where the installed ONNX Runtime offers it, and the CPU otherwise"""
    amp: bool = False
    """with --onnx on OpenVINO: compute in bfloat16 where the CPU has it"""
    threads: ThreadCount | None = None
    """with --onnx: threads that compute on a CPU; by default one for each processor"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)

    def check(self) -> None:
        """Raise UserError for flags that contradict each other."""
        # Not in __post_init__: what the outermost class raises there tyro reports itself, in a box of several lines.
        if (self.engine is None) == (self.onnx is None):
            raise UserError("give either --engine FILE or --onnx FILE")
        if self.engine is not None and (self.backend, self.device, self.amp) != ("auto", "auto", False):
            raise UserError("--backend, --device and --amp go with --onnx: an engine has a GPU and a precision")
        if self.engine is not None and self.threads is not None:
            raise UserError("--threads goes with --onnx: an engine computes on its GPU")
        check_threads(self.threads)


def fit_to_engine(options: ImageOptions, profile: Profile) -> tuple[ImageOptions, int | None, list[str]]:
    """Fit the options to the images that an engine takes; return them, the size, and notes on what was changed.

    The size is the side of the square that images are resized to, or None where they keep their own. Raises UserError
    for a --size that the engine does not take, and where it takes one size only, which is no square, without
    --keep-size.
    """
    notes: list[str] = []
    most = profile.largest[0]
    if options.batch_size is not None and options.batch_size > most:
        notes.append(f"the engine takes {profile}: batches of {most} instead of {options.batch_size}")
    options = replace(options, batch_size=min(options.batch_size or most, most))
    _, height, width = profile.usual
    if profile.takes_one_size and height != width and not options.keep_size:
        raise UserError(f"the engine takes images of {width}x{height} only: give such images, and --keep-size")
    size = options.square(height if profile.takes_one_size else None)
    if size is not None:
        profile.check((profile.usual[0], size, size))
    if profile.takes_one_size and options.size is None and size is not None:
        notes.append(f"the engine takes images of {width}x{height} only: other images are resized to that")
    elif size is None:
        notes.append(f"the engine takes {profile}: images of other sizes are left out, unless --size is given")
    return options, size, notes


@contextmanager
def engine_translator(path: Path, options: ImageOptions) -> Iterator[tuple[GraphTranslator, str, Profile]]:
    """Open an engine; yield a translator, a phrase that says what it computes with, and the shapes that it takes."""
    from export.runtime import Engine

    # With images of many sizes a graph would be recorded for each, and kernels compiled, and used once.
    one_size = options.size is not None or EngineCard.beside(path).profile.takes_one_size
    with Engine(path, cuda_graph=one_size) as engine:
        card = engine.card
        translator = GraphTranslator(engine, card.uint8_io, card.ends, card.frames)
        means = f"{card.library} {card.version} in {card.precision}, through {engine.driver}"
        yield translator, means, card.profile


def translate_exported(command: RunCommand) -> int:
    """Plan, load, translate, say what happened, and return the exit status."""
    command.check()
    options = command.options
    notes: list[str] = []
    jobs = halved(plan(options, notes), options, {}, "a2b", notes)

    def translate(translator: GraphTranslator, options: ImageOptions, size: int | None, file: Path, means: str) -> int:
        translator = translator.with_range(options.range)
        ends, trained = translator.ends, translator.frames
        axis = trained.axis if options.axis is None else options.axis
        options = replace(options, frames=options.frames or trained.frames, axis=axis)
        images, videos = without_videos(planned_for(jobs, options, translator.target))
        what, at = in_words(len(images), len(videos)), size_in_words(size, len(jobs))
        print(f"{what} through {file} at {at}; {means}{'' if ends.are_rgb else f'; {ends}'}")
        for note in notes:
            print(f"note: {printable(note)}")
        value_range = (options.range[0], options.range[1]) if options.range else None
        splits = command.options.batch_size is None  # an engine says how many it takes at most
        summaries: list[Summary] = []
        if videos:
            identity = f"{sha256_of(file)} {means} {command.threads}"
            plan_of_videos = VideoPlan(options, size, SIDE_MULTIPLE, options.batch_size, identity, splits)
            summaries += [translate_all_videos(translator, videos, plan_of_videos, are_all=not images)]
        if images:
            summaries += [translate_images(translator, images, options, size, value_range=value_range, splits=splits)]
        return report(reduce(Summary.joined, summaries), options.out)

    if command.engine is not None:
        with engine_translator(command.engine, options) as (translator, means, profile):
            options, size, changes = fit_to_engine(options, profile)
            notes += changes
            return translate(translator, options, size, command.engine, means)
    else:
        assert command.onnx is not None
        with waiting(f"loading {command.onnx.name}"):
            translator, means = load_translator(
                command.onnx, command.backend, command.device, amp=command.amp, threads=command.threads, notes=notes
            )
        return translate(translator, options, options.square(), command.onnx, means)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: translate_exported(parse_command(RunCommand, "python export/run.py", arguments)))


if __name__ == "__main__":
    sys.exit(main())
