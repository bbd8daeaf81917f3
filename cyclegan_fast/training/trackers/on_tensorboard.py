"""Writes TensorBoard's files into the run's folder."""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers.tracker import Tracker


class OnTensorboard(Tracker):
    """Writes scalars into `tensorboard/` of the run. Pictures stay where they are: the gallery beside it shows them."""

    package = "tensorboard"

    def __init__(self) -> None:
        self._until_finished = ExitStack()

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        from torch.utils.tensorboard import SummaryWriter

        self._until_finished.close()  # of an attempt that the run went back from
        folder = _utf8_path(start.path / "tensorboard", self._until_finished)
        self._until_finished.enter_context(_writers_are_silent())
        self._writer = SummaryWriter(folder, purge_step=start.step + 1)
        return None  # the folder continues it

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def images(self, step: int, name: str, picture: Path) -> None:
        pass

    def finish(self, finished: bool) -> None:
        with self._until_finished:
            self._writer.close()


@contextmanager
def _writers_are_silent() -> Iterator[None]:
    """Print no traceback of TensorBoard's thread, whose error is raised again by the next call of its writer."""
    told_before = threading.excepthook

    def told(end: threading.ExceptHookArgs) -> None:
        if not type(end.thread).__module__.startswith("tensorboard."):
            told_before(end)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = told_before


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
