"""Makes images of the crops of scenes: random ones to train on, and fixed ones to test with."""

import numpy as np

from cyclegan_fast.data.scenes.scene_folder import SceneFolder
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar

MOST_TEST_CROPS = 200
"""The number of crops of a test folder's scenes at most."""
_TRIES = 16  # crops of damaged scenes that are drawn in a row before that is an error


class RandomCrops:
    """Draws crops of the scenes of a training domain: each scene as often as it has data.

    A crop depends on the files and on the generator of random numbers alone. Where it cannot be read, another one is
    drawn, which is said; or, with `strict`, that is an error.

    Args:
        count: of crops in an epoch; by default as many as cover all data once.
    """

    def __init__(self, scenes: SceneFolder, count: int | None) -> None:
        self.scenes = scenes
        areas = scenes.data_pixels if scenes.domain.config.least_data else _areas(scenes)
        self._ends = np.cumsum(areas)
        self._count = count or max(1, round(float(self._ends[-1]) / scenes.domain.side**2))
        self.names = [*scenes.names, f"{self._count} crops"]
        scenes.note = (
            f"{self._count} random {_crops_of(scenes)} an epoch, from {scenes.described()}; decoded tiles take up to "
            f"{scenes.kept_bytes / 2**30:.2f} GiB of memory (--cache-gib)"
        )

    def content(self) -> str:
        """Return a digest of parts of the files."""
        return self.scenes.content()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> SampleArray:
        """Return a crop that depends on its index alone, for whoever looks at some of a domain's images."""
        return self.drawn(np.random.default_rng([index]))

    def drawn(self, random: np.random.Generator) -> SampleArray:
        """Return a random crop [side, side, C]; raises UnreadableImage."""
        for _ in range(_TRIES):
            place = random.random() * float(self._ends[-1])
            number = min(int(np.searchsorted(self._ends, place, side="right")), len(self._ends) - 1)
            top, left = self.scenes.surveyed[number].positions.drawn(random)
            try:
                return self.scenes.crop(number, top, left)
            except UnreadableImage as error:
                if self.scenes.strict:
                    raise
                self.scenes.note_broken(number, error)
                last = error
        raise UnreadableImage(f"{_TRIES} crops in a row cannot be read; the last: {last}")


class GridCrops:
    """Holds crops side by side of the scenes of a test folder, MOST_TEST_CROPS at most, spread evenly over all.

    Each is read once when the object is made: one that cannot be read is left out and named, as a test image is.
    """

    def __init__(self, scenes: SceneFolder) -> None:
        self.scenes = scenes
        every = [
            (number, top, left) for number, scene in enumerate(scenes.surveyed) for top, left in scene.positions.grid()
        ]
        chosen = np.linspace(0, len(every) - 1, min(MOST_TEST_CROPS, len(every))).astype(int)
        bar = progress_bar(chosen, desc=f"reading {scenes.folder.name}", unit=" crops", leave=False)
        self.places = [every[place] for place in bar if self._is_readable(*every[place])]
        if not self.places:
            raise UserError(
                f"the scenes in {scenes.folder} have no crops of {scenes.domain.side} pixels side by side that can be "
                f"tested with: {[*scenes.unreadable, 'lower --least-data'][0]}"
            )
        self.names = [f"{scenes.files[number]}@{top},{left}" for number, top, left in self.places]
        scenes.note = f"{len(self.places)} {_crops_of(scenes)} side by side, from {scenes.described()}"

    def content(self) -> str:
        """Return a digest of parts of the files."""
        return self.scenes.content()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> SampleArray:
        return self.scenes.crop(*self.places[index])

    def _is_readable(self, number: int, top: int, left: int) -> bool:
        try:
            self.scenes.crop(number, top, left)
        except UnreadableImage as error:
            if self.scenes.strict:
                raise UserError(f"{error} (leave --strict out to skip such files)") from error
            self.scenes.unreadable.append(f"the crop at {left},{top} of {error}")
            return False
        return True


def _crops_of(scenes: SceneFolder) -> str:
    return f"crops of {scenes.domain.side}x{scenes.domain.side}"


def _areas(scenes: SceneFolder) -> list[float]:
    return [float(scene.positions.height * scene.positions.width) for scene in scenes.surveyed]
