"""Matches the images of two folders that show the same view, by their names."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.system.errors import UserError

ENDINGS = (("_A", "_B"), ("_leftImg8bit", "_gtFine_color"))
"""Endings that tell the partners' names apart: in the original's paired data sets, and in Cityscapes."""
_OF_SEVERAL = re.compile(r"(.*\.[^./#]+)(#\d+)", re.DOTALL)
"""Recognises the name of one of several images in a file, with the number behind the file's ending."""


def pair_key(name: str) -> str:
    """Return the part of an image's name, relative to its folder, that partners share: "aachen/1" of "aachen/1_A.jpg".

    Of several images in a file, it has the number, too: "scan#3" of "scan_A.nii#3".
    """
    stem, number = _parts(name)
    for ending in (ending for endings in ENDINGS for ending in endings):
        if stem.endswith(ending):
            return stem.removesuffix(ending) + number
    return stem + number


def _parts(name: str) -> tuple[str, str]:
    """Return an image's name without its file's ending, and its number where the file has several images."""
    found = _OF_SEVERAL.fullmatch(name)
    file, number = found.groups() if found else (name, "")
    if ending_of(file) == ".nii.gz":
        file = file[: -len(".gz")]
    return Path(file).with_suffix("").as_posix(), number


def names_say_pairs(names: Sequence[str], partners: Sequence[str]) -> bool:
    """Tell whether names must be those of pairs: all have the ending of their domain, and each has a partner.

    The same names on both sides are no proof: unpaired images are numbered, too.
    """
    for ending, other in ENDINGS:
        sides = ((names, ending), (partners, other))
        if all(_parts(name)[0].endswith(end) for side, end in sides for name in side):
            return bool(names) and {*map(pair_key, names)} == {*map(pair_key, partners)}
    return False


def match(names: Sequence[str], partners: Sequence[str], folder: Path, partners_folder: Path) -> list[int]:
    """Return the index of each name's partner; raises UserError naming images without one, on either side."""
    keys, other_keys = [pair_key(name) for name in names], [pair_key(name) for name in partners]
    times, other_times = Counter(keys), Counter(other_keys)
    files = [
        *((folder / name, times[key], other_times[key]) for name, key in zip(names, keys, strict=True)),
        *(
            (partners_folder / name, other_times[key], times[key])
            for name, key in zip(partners, other_keys, strict=True)
        ),
    ]
    lonely = [str(path) for path, _, others in files if others == 0]
    twice = [str(path) for path, same, _ in files if same > 1]
    if lonely or twice:
        shown = ", ".join(lonely[:4]) + (f" and {len(lonely) - 4} more" if len(lonely) > 4 else "")
        raise UserError(
            f"{folder} has {len(names)} images and {partners_folder} has {len(partners)}, which must be pairs of one "
            f"name; without a partner: {shown or 'none'}"
            + (f"; of one name on the same side: {', '.join(twice[:2])}" if twice else "")
        )
    if not names:
        raise UserError(f"no images in {folder} and {partners_folder}")
    place = {key: index for index, key in enumerate(other_keys)}
    return [place[key] for key in keys]
