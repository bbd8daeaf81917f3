"""A headless Chromium for tests of pages, driven through its DevTools protocol over a pipe: standard library only.

https://chromedevtools.github.io/devtools-protocol lists the methods.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
# Chromium reads commands from descriptor 3 and writes to 4. Setting them between fork and exec of this process could
# hit descriptors that subprocess itself uses, so a small process in between does it.
TRAMPOLINE = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execvp(sys.argv[3], sys.argv[3:])"
KEYS = {
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    " ": ("Space", 32, " "),
}


def find_chromium() -> str | None:
    """$CHROMIUM, or the first of Chromium's usual names on the path."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(
    find_chromium() is None,
    reason="no Chromium found: install it (Debian: apt-get install chromium), or set CHROMIUM to its path",
)


class Browser:
    """One page in a browser of its own, with an empty profile that is removed by close(); a context manager, too."""

    def __init__(self, width: int = 1280, height: int = 800, timeout_s: float = 60.0) -> None:
        program = find_chromium()
        assert program is not None, "mark the test with needs_browser"
        self._timeout_s = timeout_s
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._buffer, self._number = b"", 0
        self.errors: list[str] = []
        """exceptions that no script caught, and what the page logged as an error"""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # From 10 upwards: one of the two could be 3 or 4 and be overwritten by the other.
        pair = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (theirs_in, theirs_out)]
        flags = [*FLAGS, f"--user-data-dir={self._profile.name}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRAMPOLINE, *map(str, pair), program, *flags, "about:blank"],
            pass_fds=pair,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (theirs_in, theirs_out, *pair):
            os.close(descriptor)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the protocol -----------------------------------------------------------------------------------------------

    def send(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol; events that arrive before it are looked at for errors."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive(method)
            if reply.get("id") == self._number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                result: dict[str, Any] = reply["result"]
                return result
            self._note(reply)

    def _receive(self, waiting_for: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        while b"\0" not in self._buffer:
            readable, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"no answer to {waiting_for} within {self._timeout_s} s"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, f"the browser ended while {waiting_for} was waited for"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])

    # --- the page ---------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        self.evaluate("window.isOld = true")
        self.send("Page.reload")
        self.wait_for("!window.isOld && document.readyState === 'complete'")

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded, with its images."""
        # The old page is marked, since one that is reloaded has the same address.
        self.evaluate("window.isOld = true")
        failure = self.send("Page.navigate", url=url).get("errorText")
        assert not failure, f"{url}: {failure}"
        self.wait_for("!window.isOld && document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression, as JSON has it; a promise is waited for."""
        reply = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        details = reply.get("exceptionDetails")
        assert details is None, f"{script}: {details.get('exception', {}).get('description', details['text'])}"
        return reply["result"].get("value")

    def wait_for(self, script: str, timeout_s: float | None = None) -> Any:
        """The value of an expression as soon as it is true in JavaScript's sense."""
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"still not true: {script}"
            time.sleep(0.005)
        return value

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def key(self, name: str) -> None:
        """Press and release a key: a letter, or one of KEYS."""
        code, number, text = KEYS.get(name) or (f"Key{name.upper()}", ord(name.upper()), name)
        common = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x: float, y: float) -> None:
        for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
            button = "none" if kind == "mouseMoved" else "left"
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def click_on(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does: whatever lies over it there is what is clicked."""
        box = self.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        assert box["width"] * box["height"] > 0, f"{selector} is not shown"
        self.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    # --- its surroundings -------------------------------------------------------------------------------------------

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on: bool = True) -> None:
        value = "dark" if on else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def download_to(self, folder: Path) -> None:
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def run_before_pages(self, script: str) -> None:
        """Run a script at the start of every page that is opened from now on."""
        self.send("Page.addScriptToEvaluateOnNewDocument", source=script)

    def close(self) -> None:
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._in)
            os.close(self._out)
            self._profile.cleanup()
