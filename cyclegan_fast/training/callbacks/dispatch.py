"""Calls the callbacks of a training, and keeps what they raise until the step is saved."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.callbacks.callback import Callback, Report, StopTraining, TrainingStart


class Callbacks(Callback):
    """Passes everything on to the callbacks of a training, in their order; what one raises does not reach the training.

    It asks the training to stop instead, see `wants_stop`. A UserError of `on_start` is raised at once: it says that
    the training cannot begin.

    Args:
        callbacks: what watches the training; none on all ranks but the first.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = callbacks
        self._step = 0
        self.error: Exception | None = None
        self.reason: str | None = None

    @property
    def wants_stop(self) -> bool:
        """True once a callback asked to stop, or failed."""
        return self.error is not None or self.reason is not None

    def raise_error(self) -> None:
        """Raise what a callback raised, if any did; call it when everything is saved."""
        if self.error is not None:
            raise self.error

    def on_start(self, start: TrainingStart) -> None:
        self._step = start.step
        self._call("on_start", lambda callback: callback.on_start(start), raised_at_once=(UserError,))

    def on_report(self, report: Report) -> None:
        self._step = report.step
        self._call("on_report", lambda callback: callback.on_report(report))

    def on_samples(self, step: int, pictures: Mapping[str, Path]) -> None:
        self._step = step
        self._call("on_samples", lambda callback: callback.on_samples(step, pictures))

    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        self._step = step
        self._call("on_evaluation", lambda callback: callback.on_evaluation(step, scores))

    def on_checkpoint(self, step: int, path: Path) -> None:
        self._step = step
        self._call("on_checkpoint", lambda callback: callback.on_checkpoint(step, path))

    def on_epoch_end(self, epoch: int) -> None:
        self._call("on_epoch_end", lambda callback: callback.on_epoch_end(epoch))

    def on_end(self, finished: bool) -> None:
        self._call("on_end", lambda callback: callback.on_end(finished))

    def _call(
        self,
        method: str,
        call: Callable[[Callback], None],
        raised_at_once: tuple[type[Exception], ...] = (),
    ) -> None:
        for callback in self._callbacks:
            try:
                call(callback)
            except StopTraining as stop:
                self.reason = self.reason or str(stop) or type(callback).__name__
            except raised_at_once:
                raise
            except Exception as error:  # somebody else's code: anything
                if self.error is None:
                    error.add_note(f"raised by {type(callback).__name__}.{method} of a training, at step {self._step}")
                    self.error = error


def checked_callbacks(callbacks: Iterable[object]) -> list[Callback]:
    """Return the callbacks; raises UserError where one is no `Callback`."""
    checked: list[Callback] = []
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UserError(f"train: callbacks takes objects of subclasses of cyclegan_fast.Callback, got {callback!r}")
        checked.append(callback)
    return checked
