"""Loads the trained generators that are exported, and checks them before any work begins."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclegan_fast.conventions import Direction
from cyclegan_fast.runs import RUNS, newest_run, trained_size
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import sha256_of
from export.engines.file_frames import DEFAULT_FRAMES, FileFrames
from export.pixel_ends import RGB_ENDS, PixelEnds

if TYPE_CHECKING:
    from cyclegan_fast.networks.resnet import ResnetGenerator

Directions = Literal["both", "a2b", "b2a"]
ONE_WAY = "one way"
"""the direction of bare weights, which do not say theirs"""


@dataclass(frozen=True)
class GeneratorSource:
    """Holds a generator and says where it comes from.

    Its files are called `name`. `size` is the side in pixels of the squares that it was trained with, `sha256` the hash
    of the checkpoint file, `config` the run's configuration, empty for bare weights. `ends` are the types of the pixels
    that it takes and gives; those of bare weights are taken to be 8-bit ones. `frames` are what the run took pages and
    slices of a file for.
    """

    network: "ResnetGenerator"
    checkpoint: Path
    name: str
    direction: str
    size: int
    sha256: str
    config: dict[str, Any]
    ends: PixelEnds = RGB_ENDS
    frames: FileFrames = DEFAULT_FRAMES


def load_sources(
    checkpoint: Path | None,
    directions: Directions,
    warnings: list[str],
    name: str | None = None,
    *,
    running_statistics: bool = False,
) -> list[GeneratorSource]:
    """Load the generators of a run in each direction asked for, or the one of a bare weights file.

    Args:
        checkpoint: as for `cyclegan_fast.translation.trained.load_generators`; None is the newest run under runs/.
        directions: bare weights have only one, and "both" means that one.
        warnings: a line is appended for each damaged checkpoint that is passed over.
        name: the generator's name among several, as for `load_generators`.
        running_statistics: whether batch norms use them, by `cyclegan_fast.networks.norms.use_running_statistics`.

    Raises UserError where there is no generator, where it is no ResNet generator, and for weights that are not finite.
    """
    from cyclegan_fast.checkpoint.hub import HubName, is_hub_name
    from cyclegan_fast.checkpoint.names import kept_under
    from cyclegan_fast.config.values import pixels_of_run
    from cyclegan_fast.networks.norms import use_running_statistics
    from cyclegan_fast.networks.resnet import ResnetGenerator
    from cyclegan_fast.translation.trained import load_generators

    path = checkpoint or newest_run(RUNS)
    sources: list[GeneratorSource] = []
    ways: tuple[Direction, ...] = ("a2b", "b2a") if directions == "both" else (directions,)
    for loaded in load_generators(path, ways, warnings, name):
        network, config, file, direction = loaded
        if not isinstance(network, ResnetGenerator):
            raise UserError(f"{file} holds a U-Net, and only ResNet generators can be exported: translate with PyTorch")
        if running_statistics:
            use_running_statistics(network, str(file))
        hub_name = HubName.parse(str(path)) if is_hub_name(path) else None
        stem = hub_name.short if hub_name else path.resolve().name if path.is_dir() else path.stem
        if not config:
            way = direction or ONE_WAY
            called = f"{stem}-{direction}" if direction else stem
        else:
            # A run's own files are all called last.pt: the run's folder tells them apart.
            run = file.resolve().parents[1].name if file.parent.name == "checkpoints" else stem
            kept = kept_under(file)
            assert direction is not None
            way, called = direction, f"{run}{f'@{kept}' if kept else ''}-{direction}"
        size, ends = trained_size(config, path), PixelEnds(loaded.source, loaded.target)
        trained = pixels_of_run(config, str(path))
        frames = FileFrames(trained.frames, trained.slice_axis)
        sources.append(GeneratorSource(network.eval(), file, called, way, size, sha256_of(file), config, ends, frames))
    return sources


def check_layers(network: "ResnetGenerator", keep: Collection[str]) -> None:
    """Raise UserError for a name in `keep` that is no layer's, and where no layer would be left in 8 bits."""
    from torch import nn

    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise UserError(f"--keep-float16: no layer is called {', '.join(unknown)}; there are {', '.join(names)}")
    if not set(names) - set(keep):
        raise UserError("--keep-float16 names every layer: export in --precision float16")
