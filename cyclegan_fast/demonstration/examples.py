"""Finds the first test images of a run, for visitors to try, and writes them as PNG files at their own size."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_fast.config.data_options import DataConfig
from cyclegan_fast.config.values import load_config
from cyclegan_fast.conventions import Direction
from cyclegan_fast.data.built_in import built_in_tests
from cyclegan_fast.data.layouts import place_of
from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.pixel_type import DomainName
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.runs import CONFIG
from cyclegan_fast.system.errors import UserError

MOST_EXAMPLES = 8
"""The largest number of examples of each domain."""

ExamplesByDirection = dict[Direction, list[Path]]
"""Files of pictures by the direction that translates them."""


def write_examples(run: Path | None, out: Path, notes: list[str]) -> ExamplesByDirection:
    """Write the first test images of a run into a folder, and return the files.

    Args:
        run: its folder, whose configuration says what it was trained on; None for weights that do not say it.
        out: a folder that is made.
        notes: why there are no examples, or fewer, is appended: a page without them is a page all the same.
    """
    if run is None or not (run / CONFIG).is_file():
        notes.append("these weights do not say what they were trained on: the page has no examples")
        return {}
    data = load_config(run / CONFIG).data
    out.mkdir()
    files: ExamplesByDirection = {}
    domains: tuple[tuple[DomainName, Direction], ...] = (("A", "a2b"), ("B", "b2a"))
    for domain, direction in domains:
        try:
            pictures = [*islice(_test_images(data, domain, notes), MOST_EXAMPLES)]
        except UserError as error:
            notes.append(f"no examples of domain {domain}: {error}")
            continue
        files[direction] = [out / f"{domain}{number}.png" for number in range(len(pictures))]
        for picture, file in zip(pictures, files[direction], strict=True):
            write_image(np.asarray(picture), file)
    return files


def _test_images(data: DataConfig, domain: DomainName, notes: list[str]) -> Iterator[Image.Image]:
    """Yield test images of a domain; raises UserError where there are none."""
    if data.is_built_in:
        tests = built_in_tests(replace(data, load_size=data.crop_size))
        held_out = tests.A if domain == "A" else tests.B
        for index in range(len(held_out.images) if held_out is not None else 0):
            assert held_out is not None
            yield Image.fromarray(held_out.images[index])
        return
    assert data.data is not None
    place = place_of(data.data, f"test{domain}")
    if not data.data.is_dir():
        raise UserError(f"the run was trained on {data.data}, which is not there any more")
    if not place.has_images():
        raise UserError(f"there are no images in {place.folder}")
    for name in place.names():
        try:
            yield read_image(place.folder / name, place.half, data.range_of_deep(domain))
        except UnreadableImage as error:
            notes.append(f"left out an example: {error}")
