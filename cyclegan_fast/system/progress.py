"""Shows progress bars, on a terminal and in a log file."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

BAR_AFTER_S = 0.5  # on a terminal
FIRST_LINE_S = 2.0  # elsewhere
RAREST_LINE_S = 30.0
_BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
"""The rate is always items in a second; by default tqdm turns slow rates into seconds for an item."""


class _Lines:
    """Wraps a stream that is no terminal for tqdm: writes every state of a bar as a line, and moves no cursor."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        line = re.sub(r"[\r\n]|\x1b\[A", "", text).rstrip()
        if line:
            self.stream.write(f"{line}\n")
        return len(text)


class _LoggedBar(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
    """Shows a bar in a log file: a line after 2 seconds, and then ever more rarely, down to one in 30 seconds."""

    _silent_s: float | None = None
    _silent_until = 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        # Not by `mininterval`: tqdm keeps it while it iterates, and would count items again and again if it changed.
        now = time.monotonic()
        if now < self._silent_until and not self.disable:  # a bar that is closed is disabled
            return
        super().display(msg, 0)
        self._silent_s = min(2 * (self._silent_s or self.mininterval), RAREST_LINE_S)
        self._silent_until = now + self._silent_s


def progress_bar(items: Iterable[Any] | None = None, *, desc: str, unit: str, **options: Any) -> "tqdm[Any]":
    """Return a bar of tqdm on standard error, over `items` or to be updated.

    On a terminal it moves; elsewhere it writes a line now and then, and none where all is over within 2 seconds. Of the
    processes that torchrun started, the first one shows it.

    Args:
        desc: says what is done, such as "reading trainA".
        unit: names what is counted, with a space in front, such as " images".
        options: further options of tqdm.
    """
    options = {"desc": desc, "unit": unit, "dynamic_ncols": True, "bar_format": _BAR_FORMAT, **options}
    if int(os.environ.get("RANK", "0")) > 0:
        options["disable"] = True
    if sys.stderr.isatty():
        return tqdm(items, **{"delay": BAR_AFTER_S, **options})
    times = {"delay": FIRST_LINE_S, "mininterval": FIRST_LINE_S, "maxinterval": RAREST_LINE_S}
    return _LoggedBar(items, **{"file": _Lines(sys.stderr), **times, **options})


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what is waited for, and for how many seconds so far, where nothing can be counted."""
    with progress_bar(desc=what, unit="", bar_format="{desc}: {elapsed}", leave=False, delay=1.0) as bar:
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(1.0):
                bar.update(0)

        ticking = threading.Thread(target=tick, name="progress", daemon=True)
        ticking.start()
        try:
            yield
        finally:
            ended.set()
            ticking.join()
