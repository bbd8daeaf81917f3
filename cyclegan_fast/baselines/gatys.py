"""`python -m cyclegan_fast.baselines.gatys` transfers styles as Gatys et al. 2016, with whom the paper compares itself.

Zhu et al. 2017, section 5.2, give it one style image, another one, and the average Gram matrix of the target domain.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from cyclegan_fast.baselines.style_results import Record, contact_sheet
from cyclegan_fast.conventions import LONGEST_SIDE
from cyclegan_fast.images.files import none_can_be_read, read_image, write_image
from cyclegan_fast.images.folders import find_images
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, printable, run_command
from cyclegan_fast.system.files import sha256_of
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import MOST_STEPS, Range, RunSeed, check_fields
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.inputs import CONTACT_SHEET
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.summary import report_missing
from cyclegan_fast.translation.writing import NotWritten, looked_up, write_translation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cyclegan_fast.baselines.neural_style import Style, Styled
    from cyclegan_fast.methods.feature_loss.vgg import Vgg

_PROGRAM = "python -m cyclegan_fast.baselines.gatys"


@dataclass(frozen=True)
class GatysCommand:
    """Give images the style of others by optimising their pixels (Gatys et al. 2016).

    Writes a PNG for each image, losses.json, and contact_sheet.jpg with contents, styles and results. The same command
    continues what was interrupted; images whose settings or inputs have changed are done anew.

    Examples:
        python -m cyclegan_fast.baselines.gatys --content photos --style monet.jpg --weights vgg19-dcbb9e9d.pth --out x
        python -m cyclegan_fast.baselines.gatys --content photos --style-folder data/monet2photo/trainA \\
            --weights vgg19-dcbb9e9d.pth --out x
    """

    content: tuple[str, ...]
    """files, folders (with their subfolders) or quoted globs of images to be styled"""
    out: Path
    """folder for the results, each with its image's name"""
    style: tuple[Path, ...] = ()
    """images whose style is taken; of several the average Gram matrix"""
    style_folder: Path | None = None
    """folder, with its subfolders, of which the average Gram matrix is taken"""
    weights: Path | None = None
    """torchvision's weights of VGG-19, vgg19-dcbb9e9d.pth"""
    features: Path | None = None
    """instead of VGG-19: a small network that was trained on the images, as the feature loss keeps it"""
    size: Annotated[int, Range(32, LONGEST_SIDE)] = 256
    """longer side that contents and styles are resized to, pixels"""
    steps: Annotated[int, Range(1, MOST_STEPS)] = 500
    """iterations of L-BFGS for each image"""
    content_weight: Annotated[float, Range(0, 10**12)] = 1.0
    """alpha of eq. 7, times the number of activations that the content loss sums over"""
    style_weight: Annotated[float, Range(0, 10**12)] = 3.0
    """beta of eq. 7"""
    pooling: Literal["average", "max"] = "average"
    """how VGG-19 halves sides; the paper found average pooling to look better"""
    start: Literal["content", "noise"] = "content"
    """what the optimisation begins with"""
    seed: RunSeed = 0
    """fixes the noise"""
    strict: bool = False
    """stop at the first image or folder that cannot be read, instead of leaving it out with a note"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if bool(self.style) == (self.style_folder is not None):
            raise ValueError("give either --style IMAGE, one or several, or --style-folder FOLDER")
        if self.weights is not None and self.features is not None:
            raise ValueError("--weights and --features contradict each other: give one of them")

    @property
    def network_file(self) -> Path:
        """Return the file of the network; raises UserError where neither option names one."""
        file = self.weights or self.features
        if file is None:
            from cyclegan_fast.methods.feature_loss.vgg import FILES, URL

            raise UserError(
                f"no network to compare styles with: fetch {URL}{FILES[19]} and give --weights {FILES[19]}, or give "
                "--features FILE, a network that the feature loss trained"
            )
        return file

    def styles(self) -> list[Path]:
        """Return the files of the style; raises UserError where one is not there."""
        if self.style_folder is not None:
            if not self.style_folder.is_dir():
                raise UserError(f"--style-folder {self.style_folder}: no such folder")
            found = find_images(self.style_folder, strict=self.strict)
            if not found:
                raise UserError(f"--style-folder {self.style_folder}: no images there or below")
            return found
        for path in self.style:
            if not path.is_file():
                raise UserError(f"--style {path}: no such file; --style-folder takes the average of a folder")
        return [*self.style]

    def origin(self, network: Path, styles: Sequence[Path]) -> str:
        """Return a digest of all that results depend on beside the content image."""
        names = ("size", "steps", "content_weight", "style_weight", "pooling", "start", "seed")
        settings = {name: getattr(self, name) for name in names}
        files = [sha256_of(network), *map(_digest_of, styles)]
        return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()[:16]


def _digest_of(image: Path) -> str:
    """Return the digest of an image file; of one that cannot be read, a word: whoever decodes it says why."""
    try:
        return sha256_of(image)
    except OSError:
        return "unreadable"


def load_network(command: GatysCommand, device: "torch.device") -> tuple["Vgg", str]:
    """Load the network, frozen, and return it with a sentence on it; raises UserError."""
    from cyclegan_fast.methods.feature_loss.rotation import load_features
    from cyclegan_fast.methods.feature_loss.vgg import load_vgg

    file = command.network_file
    if command.features is None:
        network, description = load_vgg(file, 19, command.pooling), f"VGG-19, {file}"
    else:
        if not file.is_file():
            raise UserError(f"--features {file}: no such file")
        network, description = load_features(file)
        network.pooling = command.pooling
    return network.to(device).eval().requires_grad_(False), description


# --- one image -----------------------------------------------------------------------------------------------------


def read_signed(path: Path, size: int, network: "Vgg", device: "torch.device") -> "Tensor":
    """Read an image with the longer side `size` as [1, 3, H, W] in [-1, 1].

    Raises UnreadableImage, and UserError for an image that becomes too narrow for the network.
    """
    import torch

    from cyclegan_fast.baselines.neural_style import smallest_side
    from cyclegan_fast.data.preparation import resize
    from cyclegan_fast.images.pixels import to_signed

    image = read_image(path)
    scale = size / max(image.size)
    image = resize(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if min(image.size) < smallest_side(network):
        raise UserError(f"{path} becomes {image.width}x{image.height}, too narrow for the network: raise --size")
    return to_signed(torch.from_numpy(np.array(image))[None]).to(device)


def read_styles(
    paths: Sequence[Path], size: int, network: "Vgg", device: "torch.device", skipped: list[str], *, strict: bool
) -> Iterator["Tensor"]:
    """Yield the style images that can be read; what was wrong with the others is appended to `skipped`.

    With `strict`, raises UserError for one that cannot be read.
    """
    for path in progress_bar(paths, desc="reading styles", unit=" images", leave=len(paths) > 1):
        try:
            yield read_signed(path, size, network, device)
        except UnreadableImage as error:
            if strict:
                raise UserError(f"{error} (leave --strict out to skip such files)") from error
            skipped.append(str(error))


def styled(command: GatysCommand, content: "Tensor", style: "Style", network: "Vgg", name: str) -> "Styled":
    """Give one image the style, with a bar of its steps."""
    from cyclegan_fast.baselines.neural_style import Objective, minimise, noise_like

    objective = Objective(network, content, style, command.content_weight, command.style_weight)
    start = content if command.start == "content" else noise_like(content, command.seed)
    with progress_bar(total=command.steps, desc=printable(name), unit=" steps", leave=False, position=1) as bar:

        def tell(done: int) -> None:
            bar.update(done - bar.n)

        return minimise(objective, start, command.steps, tell)


# --- the command ---------------------------------------------------------------------------------------------------


def gatys(command: GatysCommand) -> int:
    """Plan, load, optimise, and say what happened; returns the exit status."""
    network_file, styles = command.network_file, command.styles()
    notes: list[str] = []
    jobs = plan(ImageOptions(command.content, command.out, format="png", strict=command.strict), notes)
    from cyclegan_fast.baselines.neural_style import average_style, style_layers
    from cyclegan_fast.images.pixels import to_pixels
    from cyclegan_fast.system.device import choose_device, describe

    device = choose_device(command.device)
    network, description = load_network(command, device)
    print(f"{counted(len(jobs), 'image')}, {counted(len(styles), 'style')}; {description}; {describe(device)}")
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(command).items()}
    settings |= {"style": [str(path) for path in command.style], "style_layers": style_layers(network)}
    unwritten: list[str] = []
    writable = [job for job, _ in looked_up(jobs, unwritten)]
    record = Record(command.out, description, settings)
    origin = command.origin(network_file, styles)
    origins = {job.target: f"{origin}-{_digest_of(job.source)[:16]}" for job in jobs}
    todo = [job for job in writable if not record.is_done(job, origins[job.target])]
    skipped: list[str] = []
    if todo:
        try:
            style = average_style(
                network, read_styles(styles, command.size, network, device, skipped, strict=command.strict)
            )
        except ValueError as error:
            raise UserError(f"none of the style images can be read; the first: {skipped[0]}") from error
    done = 0
    begin = time.perf_counter()
    for job in progress_bar(todo, desc="style transfer", unit=" images"):
        start = time.perf_counter()
        try:
            content = read_signed(job.source, command.size, network, device)
        except UnreadableImage as error:
            if command.strict:
                raise UserError(f"{error} (leave --strict out to skip such files)") from error
            skipped.append(str(error))
            continue
        result = styled(command, content, style, network, job.source.name)
        record.add(job, origins[job.target], result, time.perf_counter() - start)
        try:
            write_translation(to_pixels(result.picture)[0], job.target)
            done += 1
        except NotWritten as error:
            unwritten.append(str(error))
    for line in skipped:
        print(f"skipped {printable(line)}", file=sys.stderr)
    finished = [job for job, is_there in looked_up(jobs, []) if is_there]
    if not finished:
        raise UserError(unwritten[0] if unwritten else none_can_be_read(skipped[-len(jobs) :]))
    name = "VGG-19" if command.features is None else f"a network trained on the data, {network_file.name}"
    write_image(contact_sheet(finished, styles, name), command.out / CONTACT_SHEET, quality=92)
    kept = f"; kept {len(writable) - len(todo)} from before" if len(writable) > len(todo) else ""
    print(f"styled {counted(done, 'image')} in {time.perf_counter() - begin:.1f} s{kept}: {command.out}")
    return report_missing(unwritten)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: gatys(parse_command(GatysCommand, _PROGRAM, arguments)))


if __name__ == "__main__":
    sys.exit(main())
