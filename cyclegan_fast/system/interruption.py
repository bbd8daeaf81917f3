"""Handles Ctrl-C and SIGTERM in every command: the first one asks it to stop, a second one ends it.

Python calls a handler of a signal between two of its own instructions, and a backward pass, the build of an engine or
the translation of a large image is one of them. So a thread answers the user, and ends the process where it is asked
to, while the main thread is still busy.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_REQUEST_S = 0.1
"""Signals that come so close together are one request: `timeout` sends each of them twice."""
ONE_REQUEST_OF_RANKS_S = 2.0
"""torchrun hands its ranks the signal that the terminal, or the supervisor, sent them already."""
PATIENCE_S = 0.5


class Stopped(KeyboardInterrupt):
    """Tells that Ctrl-C or SIGTERM asked the command to stop."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """Exit status of the command: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


class Interruption:
    """Takes over both signals as long as its context lasts; outside the main thread it does nothing.

    Args:
        after: names what is finished first, such as "this step"; a signal then sets `requested`. With None, a signal
            raises Stopped at once, wherever the main thread is.
        is_rank: whether torchrun started this process, whose signals it then sends a second time.
        silent: leave the answer to another process.
    """

    def __init__(self, after: str | None = None, *, is_rank: bool = False, silent: bool = False) -> None:
        self.after = after
        self.one_request_s = ONE_REQUEST_OF_RANKS_S if is_rank else ONE_REQUEST_S
        self.silent = silent
        self.request: Stopped | None = None
        self._raises = after is None
        self._previous: dict[int, Any] = {}
        self._patience = threading.Timer(PATIENCE_S, self._say, ["stopping"])
        self._patience.daemon = True

    @property
    def requested(self) -> bool:
        """True once a signal has asked to stop."""
        return self.request is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            threading.Thread(target=self._watch, args=[reader], name="signals", daemon=True).start()
            self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._previous = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._patience.cancel()
        if self._previous:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous_writer)
            os.close(self._writer)  # this ends the thread

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped inside the context, or on entry after an earlier request: for work that loses nothing by it."""
        if self.request:
            raise self.request
        self._raises = True
        try:
            yield
        finally:
            self._raises = self.after is None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.request is None:
            self.request = Stopped(number)
            if self._raises:
                raise self.request

    def _watch(self, reader: int) -> None:
        """Answer each signal that is written to the pipe, and end the process on the second one."""
        first_s: float | None = None
        while numbers := os.read(reader, 1):
            if numbers[0] not in SIGNALS:
                continue
            if first_s is None:
                if self._raises:
                    self._patience.start()  # most often the command has ended before it runs out
                else:
                    self._say(f"stopping after {self.after}")
                first_s = time.monotonic()  # after the answer, which takes long on a busy machine
            elif time.monotonic() - first_s > self.one_request_s:
                os._exit(128 + numbers[0])
        os.close(reader)

    def _say(self, what: str) -> None:
        # This is not written to sys.stderr, because the experiments send that of a training to a file.
        if not self.silent and sys.__stderr__ is not None:
            from tqdm import tqdm  # here, because an engine runs without it

            tqdm.write(f"{what}; Ctrl-C again stops now", file=sys.__stderr__)
            sys.__stderr__.flush()
