"""Holds the command `translate`: its options, and how they become a plan, a network and a device.

PyTorch is imported late, so that --help and mistakes are answered at once.
"""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm

from cyclegan_fast.conventions import Direction
from cyclegan_fast.images.levels import Level, ValueRange, check_range
from cyclegan_fast.images.pixel_type import PixelType, SampleDtype
from cyclegan_fast.images.unreadable import of_any_size
from cyclegan_fast.original_options import TEST, refuse_original_options
from cyclegan_fast.runs import RUNS, checked_size, newest_run
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.ranges import ThreadCount, check_fields
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.halves import halved
from cyclegan_fast.translation.plan import ImageOptions, plan, planned_for
from cyclegan_fast.translation.scenes.finding import Masking, Pyramid, find_scenes, without_scenes
from cyclegan_fast.translation.summary import Summary, report
from cyclegan_fast.translation.translator import Translator
from cyclegan_fast.translation.video.finding import in_words, without_videos

if TYPE_CHECKING:
    import torch

    from cyclegan_fast.networks.unet import AnyGenerator
    from cyclegan_fast.translation.strips.passes import StripTranslator
    from cyclegan_fast.translation.trained import Loaded

_PROGRAM = "python -m cyclegan_fast.translate"


@dataclass(frozen=True)
class TranslateCommand:
    """Translate images and videos with a trained generator, each at its own size.

    The same command continues a translation that was interrupted. Where a folder is searched, the contact sheet of an
    earlier translation is left out.

    Examples:
        python -m cyclegan_fast.translate photos --checkpoint runs/x --direction a2b --out translated
        python -m cyclegan_fast.translate "photos/**/*.jpg" --size 256 --format png --out translated
        python -m cyclegan_fast.translate clip.mp4 --steady 0.8 --out translated
        python -m cyclegan_fast.translate panorama.jpg --tile --scratch /var/tmp --out translated
    """

    options: Annotated[ImageOptions, tyro.conf.arg(name="")]
    checkpoint: Path | None = None
    """a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best, or a .pt file), latest_net_G.pth of
    the original, .safetensors, or hub:owner/name; by default the newest of runs/"""
    direction: Direction = "a2b"
    """a2b makes images like those of trainA into those of trainB, b2a the reverse; bare weights know one way only"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    amp: bool = False
    """compute in low precision where that is faster: bfloat16, or float16 on a GPU without it"""
    threads: ThreadCount | None = None
    """threads that compute on a CPU; by default one for each processor"""
    tile: bool = False
    """translate images of any size in bounded memory: one at a time, in strips without seams, through scratch files"""
    scratch: Path | None = None
    """folder for the scratch files of --tile, on a disk; by default the system's for temporary files"""
    pyramid: Pyramid = "auto"
    """which images --tile streams from their file into a tiled TIFF with smaller copies, so that no image is in memory:
    "auto" takes scenes (TIFF with tiles, levels or 2^26 pixels, Zarr, slides), "all" every TIFF of which regions can be
    read; "none" takes scenes and writes no smaller copies"""
    mask: Masking = "none"
    """with "data", one value is written where a scene of --tile has empty glass or no data: the value for no data
    of a file that has one; all other pixels are as without it"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B; by default the one whose
    name says the direction"""
    running_statistics: bool = False
    """normalise by the running statistics of batch norms, as the original's test.py does with --eval; by default by
    each image's own, as it does without"""

    dtype: SampleDtype | None = None
    """type of the samples of the images; bare weights do not say it, and a run does; by default uint8"""
    target_dtype: SampleDtype | None = None
    """type of the samples of the translations, likewise"""
    target_range: tuple[Level, ...] = ()
    """the two values of the translations that -1 and 1 become, of bare weights, see --range; by default all that
    --target-dtype can hold"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        check_range(self.target_range, "--target-range")

    def value_range(self, config: dict[str, Any]) -> ValueRange | None:
        """Return the values that become black and white in 8 bits: those asked for, or else those of the training."""
        if self.options.range:
            return self.options.range[0], self.options.range[1]
        from cyclegan_fast.config.values import pixels_of_run  # here, because it imports PyTorch

        return pixels_of_run(config, str(self.checkpoint)).range_of_deep("B" if self.direction == "b2a" else "A")

    def pixel_types(self, loaded: "Loaded[AnyGenerator]") -> tuple[PixelType, PixelType]:
        """Return the types of the pixels that are translated, and of the translations, by the flags and the weights.

        Raises UserError for flags that contradict them, and for a range that is not known.
        """
        if loaded.config and (self.dtype or self.target_dtype or self.target_range):
            raise UserError(
                f"{self.checkpoint or loaded.file} is a run, which says what its pixels are: leave --dtype, "
                "--target-dtype and --target-range out, which are for bare weights"
            )
        if self.target_range and (self.target_dtype or loaded.target.dtype) == "uint8":
            raise UserError(
                "--target-range goes with --target-dtype uint16, int16 or float32: 8 bits are all of theirs"
            )
        source = with_flags(loaded.source, self.dtype, self.options.range, "--dtype", "--range")
        target = with_flags(loaded.target, self.target_dtype, self.target_range, "--target-dtype", "--target-range")
        return source, target


def with_flags(
    kind: PixelType, dtype: SampleDtype | None, values: tuple[float, ...], of_dtype: str, of_range: str
) -> PixelType:
    """Return the type of pixels with another type of samples, and another range where they have more than 8 bits.

    Raises UserError, which names the flags, for floating-point samples without a range.
    """
    dtype = dtype or kind.dtype
    if dtype != "uint8" and values:
        return PixelType(kind.channels, dtype, *values)
    if dtype == kind.dtype:
        return kind
    if dtype == "float32":
        raise UserError(
            f"{of_dtype} float32 needs {of_range} LOW HIGH: floating-point values have no range of their own"
        )
    return PixelType.with_full_range(kind.channels, dtype)


def translate(command: TranslateCommand) -> int:
    """Plan, load, translate, and say what happened; return the exit status."""
    options = command.options
    if command.scratch is not None and not command.tile:
        raise UserError("--scratch is for the scratch files of --tile: give both or neither")
    warnings: list[str] = []
    jobs = plan(options, warnings)
    checkpoint = command.checkpoint or newest_run(RUNS)

    import torch

    from cyclegan_fast.config.values import pixels_of_run
    from cyclegan_fast.networks.norms import use_running_statistics
    from cyclegan_fast.system.device import choose_device, describe, use_threads, working_dtype
    from cyclegan_fast.system.trouble import told_of_translation
    from cyclegan_fast.translation.trained import load_generator

    use_threads(command.threads)
    device = choose_device(command.device)
    dtype, remark = working_dtype(device, command.amp, "auto")
    loaded = load_generator(checkpoint, command.direction, warnings, command.network)
    network, config, direction = loaded.network, loaded.config, loaded.direction
    if command.running_statistics:
        use_running_statistics(network, str(checkpoint))
    source, target = command.pixel_types(loaded)
    trained = pixels_of_run(config, str(checkpoint))
    axis = trained.slice_axis if options.axis is None else options.axis
    options = replace(options, frames=options.frames or trained.frames, axis=axis)
    scenes = find_scenes(without_videos(jobs)[0], options, command.pyramid, is_tiled=command.tile)
    jobs = planned_for(jobs, options, target, scenes)
    size = options.square()
    if size is not None:
        size = checked_size(size, config, checkpoint, network.multiple)
    jobs = halved(jobs, options, config, direction or command.direction, warnings)
    images, videos = without_videos(jobs)
    print(
        f"{in_words(len(images), len(videos))} through {checkpoint} ({direction or 'bare weights'}) "
        f"at {size_in_words(size, len(jobs))}; {describe(device)}, {str(dtype).removeprefix('torch.')}"
        + ("" if source.is_rgb and target.is_rgb else f"; {source} -> {target}")
    )
    for line in [*warnings, *([remark] if remark else [])]:
        print(f"note: {printable(line)}")
    value_range = command.value_range(config)
    in_memory, streamed = without_scenes(images, scenes)
    if command.mask != "none" and in_memory:
        raise UserError(
            f"--mask is for scenes, and {in_memory[0].source} is translated as a whole: leave it out, or give "
            "--tile --pyramid all, which takes every TIFF for one"
        )
    summaries: list[Summary] = []
    with told_of_translation(command.device), of_any_size() if command.tile else nullcontext():
        if videos:
            from cyclegan_fast.translation.scenes.kept_scratch import identity_of
            from cyclegan_fast.translation.video.plans import VideoPlan, translate_all_videos

            facts = (device.type, dtype, torch.__version__, torch.get_num_threads(), command.running_statistics)
            identity = identity_of(network, [*facts, command.tile])
            videos_at_once = 1 if command.tile else options.batch_size
            splits = options.batch_size is None
            plan_of_videos = VideoPlan(options, size, network.multiple, videos_at_once, identity, splits)
            translator = _translator(command, network, device, dtype, source, target)
            summaries += [translate_all_videos(translator, videos, plan_of_videos, are_all=not images)]
        if streamed:
            from cyclegan_fast.translation.scenes.translating import translate_scenes

            strips = _strip_translator(command, network, device, dtype, source, target)
            levels = command.pyramid != "none"
            summaries += [
                translate_scenes(
                    strips, streamed, options, network.multiple, value_range, levels=levels, masking=command.mask
                )
            ]
        if in_memory:
            summaries += [
                translate_images(
                    _translator(command, network, device, dtype, source, target),
                    in_memory,
                    options,
                    size,
                    multiple=network.multiple,
                    one_at_a_time=command.tile,
                    value_range=value_range,
                )
            ]
    return report(reduce(Summary.joined, summaries), options.out)


def _translator(
    command: TranslateCommand,
    network: "AnyGenerator",
    device: "torch.device",
    dtype: "torch.dtype",
    source: PixelType,
    target: PixelType,
) -> Translator:
    """Return what runs the network, in strips with --tile."""
    if not command.tile:
        from cyclegan_fast.translation.on_gpu import new_translator

        return new_translator(network, device, dtype, _tell, source, target)
    return _strip_translator(command, network, device, dtype, source, target)


def _strip_translator(
    command: TranslateCommand,
    network: "AnyGenerator",
    device: "torch.device",
    dtype: "torch.dtype",
    source: PixelType,
    target: PixelType,
) -> "StripTranslator":
    from cyclegan_fast.networks.resnet import ResnetGenerator
    from cyclegan_fast.translation.strips.resnet import TiledTranslator
    from cyclegan_fast.translation.strips.unet import TiledUnetTranslator

    scratch = command.scratch or Path(tempfile.gettempdir())
    if isinstance(network, ResnetGenerator):
        return TiledTranslator(network, device, dtype, scratch, source=source, target=target)
    return TiledUnetTranslator(network, device, dtype, scratch, source=source, target=target)


def _tell(reason: str) -> None:
    tqdm.write(f"note: {printable(reason)}")


def size_in_words(size: int | None, images: int) -> str:
    """Say at which size images are translated; `size` is None where each keeps its own."""
    return f"{size}x{size}" if size else "its own size" if images == 1 else "their own sizes"


def parse_translate(arguments: Sequence[str]) -> TranslateCommand:
    """Parse a command line, see `parse_command`; options in the original's spelling are refused with what to write."""
    refuse_original_options(arguments, TEST, _PROGRAM)
    return parse_command(TranslateCommand, _PROGRAM, arguments)
