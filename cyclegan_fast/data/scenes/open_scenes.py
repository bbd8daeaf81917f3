"""Keeps scenes open for the threads that cut crops, since a scene is read by one of them at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from cyclegan_fast.images.scenes.opening import open_scene
from cyclegan_fast.images.scenes.scene import Scene, TileCache, TiledScene

MOST_IDLE = 32
"""The number of scenes that stay open while nobody reads them."""


class OpenScenes:
    """Lends scenes to threads, and opens one more of a file where all that are open are lent.

    Args:
        tiles: keeps the decoded tiles of all of them.
    """

    def __init__(self, paths: Sequence[Path], tiles: TileCache) -> None:
        self.paths, self.tiles = paths, tiles
        self._idle: list[tuple[int, Scene]] = []  # those that were used last are last
        self._lock = Lock()

    @contextmanager
    def lend(self, number: int) -> Iterator[Scene]:
        """Give the scene of a path for as long as the context lasts; raises UnreadableImage.

        One that was in use when an error came is closed.
        """
        scene = self._taken(number)
        try:
            yield scene
        except BaseException:
            scene.close()
            raise
        with self._lock:
            self._idle.append((number, scene))
            oldest = self._idle.pop(0)[1] if len(self._idle) > MOST_IDLE else None
        if oldest is not None:
            oldest.close()

    def _taken(self, number: int) -> Scene:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == number:
                    return self._idle.pop(place)[1]
        scene = open_scene(self.paths[number])
        if isinstance(scene, TiledScene):
            scene.share(self.tiles, number)
        return scene
