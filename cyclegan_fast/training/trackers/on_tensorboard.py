"""Writes TensorBoard's files into the run's folder."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers.tracker import Tracker


class OnTensorboard(Tracker):
    """Writes scalars into `tensorboard/` of the run. Pictures stay where they are: the gallery beside it shows them."""

    package = "tensorboard"

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        from torch.utils.tensorboard import SummaryWriter

        self._links = ExitStack()
        folder = _utf8_path(start.path / "tensorboard", self._links)
        self._writer = SummaryWriter(folder, purge_step=start.step + 1)
        return None  # the folder continues it

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def images(self, step: int, name: str, picture: Path) -> None:
        pass

    def finish(self, finished: bool) -> None:
        with self._links:
            self._writer.close()


def _utf8_path(folder: Path, links: ExitStack) -> str:
    """Return a folder's path in UTF-8, as TensorBoard needs it, or else that of a link to it, which `links` removes."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        folder.mkdir(exist_ok=True)
        link = Path(links.enter_context(tempfile.TemporaryDirectory(prefix="tensorboard-"))) / folder.name
        link.symlink_to(folder.resolve())
        return str(link)
    return str(folder)
