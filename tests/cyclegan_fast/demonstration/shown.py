"""Makes a run that a demo can show: two epochs, the best one, and test images, of generators nobody trained."""

from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.api import load
from cyclegan_fast.checkpoint.files import save
from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.config.values import save_config
from cyclegan_fast.conventions import Direction
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.demonstration.shown_run import ShownRun
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.translate import main as translate_main
from cyclegan_fast.translation.any_image import ImageTranslator
from tests.cyclegan_fast.checkpoints import NARROW, checkpoint_of
from tests.cyclegan_fast.pictures import draw, pixels_of
from tests.cyclegan_fast.translations import make_generator


def make_run(folder: Path, data: DataConfig | None = None) -> Path:
    """Write a run whose checkpoints @1, @best and @latest have generators of their own; return its folder."""
    run, root = folder / "runs" / "shown", folder / "dots"
    for seed, name in enumerate(("testA", "testB")):
        for index in range(2):
            draw(root / name / f"{index}.png", 40, 36, seed=10 * seed + index)
    config = Config(networks=NARROW, data=data or DataConfig(data=root, load_size=36, crop_size=32))
    for step, names in enumerate((["epoch_0001.pt"], ["best.pt"], []), 1):
        networks = {"G_A": make_generator(2 * step), "G_B": make_generator(2 * step + 1)}
        save(run, checkpoint_of(config, networks, step=step), keep_as=names)
    save_config(config, run / "config.yaml")
    return run


def on_cpu(path: Path, direction: Direction) -> ImageTranslator:
    return load(path, direction, device="cpu")


def shown(name: Path, limits: DemoLimits | None = None) -> ShownRun:
    return ShownRun(name, on_cpu, limits or DemoLimits())


def by_translate(checkpoint: str, images: Sequence[Path], out: Path, direction: str) -> list[Pixels]:
    """Translate by `python -m cyclegan_fast.translate`, one image at a time, to PNG."""
    words = [*map(str, images), "--checkpoint", checkpoint, "--direction", direction, "--out", str(out)]
    fixed = ["--format", "png", "--device", "cpu", "--batch-size", "1", "--no-contact-sheet"]
    assert translate_main([*words, *fixed]) == 0
    return [pixels_of(out / f"{image.stem}.png") for image in images]
