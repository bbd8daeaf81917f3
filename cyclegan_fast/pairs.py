"""Images of two folders that show the same view: who belongs to whom, by name."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.errors import UserError

ENDINGS = (("_A", "_B"), ("_leftImg8bit", "_gtFine_color"))
"""What tells the partners' names apart: in the original's paired data sets, and in Cityscapes."""


def pair_key(name: str) -> str:
    """The part of a file's name, below its folder, that partners share: "aachen/1_A.jpg" gives "aachen/1"."""
    stem = Path(name).with_suffix("").as_posix()
    for ending in (ending for endings in ENDINGS for ending in endings):
        if stem.endswith(ending):
            return stem.removesuffix(ending)
    return stem


def names_say_pairs(names: Sequence[str], partners: Sequence[str]) -> bool:
    """Whether the names cannot be but of pairs: those of one side all end as those of one domain do, and have partners.

    The same names on both sides do not say it: numbers are given to unpaired images, too.
    """
    for ending, other in ENDINGS:
        sides = ((names, ending), (partners, other))
        if all(Path(name).stem.endswith(end) for side, end in sides for name in side):
            return bool(names) and {*map(pair_key, names)} == {*map(pair_key, partners)}
    return False


def match(names: Sequence[str], partners: Sequence[str], folder: Path, partners_folder: Path) -> list[int]:
    """For each of `names` the place of its partner; raises UserError where one of either has none, naming some."""
    keys, other_keys = [pair_key(name) for name in names], [pair_key(name) for name in partners]
    place, times = {key: index for index, key in enumerate(other_keys)}, Counter(keys)
    lonely = [str(folder / name) for name, key in zip(names, keys, strict=True) if key not in place]
    lonely += [str(partners_folder / name) for name, key in zip(partners, other_keys, strict=True) if key not in times]
    twice = [str(folder / name) for name, key in zip(names, keys, strict=True) if times[key] > 1]
    if lonely or len(place) < len(partners) or twice:
        shown = ", ".join(lonely[:4]) + (f" and {len(lonely) - 4} more" if len(lonely) > 4 else "")
        raise UserError(
            f"{folder} has {len(names)} images and {partners_folder} has {len(partners)}, which must be pairs of one "
            f"name; without a partner: {shown or 'none, but there are names twice, such as'} {', '.join(twice[:2])}"
        )
    if not names:
        raise UserError(f"no images in {folder} and {partners_folder}")
    return [place[key] for key in keys]
