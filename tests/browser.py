"""A headless Chromium, driven by its own protocol through a pipe: nothing else is needed."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A browser with one page.

    Args:
        folder: for its profile, and what it downloads.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM
        self.downloads = folder / "downloads"
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number, self._answers, self._rest = 0, {}, b""  # type: ignore[var-annotated]
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads from descriptor 3 and writes to 4, which a shell can give it.
        command = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage '
            f"--no-first-run --disable-background-networking --disable-component-update "
            f'--remote-debugging-pipe --user-data-dir="$1" about:blank '
            f"3<&{theirs_in} 4>&{theirs_out}"
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, str(folder / "profile")],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        (page,) = (
            one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self.ask(f"{domain}.enable")
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    _session: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        os.close(self._out)  # which ends it
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)

    def ask(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while number not in self._answers:
            self._read()
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _read(self) -> None:
        part = os.read(self._in, 2**16)
        assert part, "the browser has ended"
        *whole, self._rest = (self._rest + part).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]["exceptionDetails"]))

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        result = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        self.wait_until(lambda: bool(self.run(f"Boolean({condition})")), condition)

    def wait_until(self, condition: Callable[[], bool], words: str = "", end_s: float = 30) -> None:
        """Wait until something is so."""
        end = time.monotonic() + end_s
        while not condition():
            assert time.monotonic() < end, f"never so: {words or condition}"
            time.sleep(0.05)

    def open(self, address: str, width: int, height: int, dark: bool = False) -> None:
        """Open an address in a window of a size; a narrow one is a phone's."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=address)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Have the mouse be ``Pressed``, ``Moved`` or ``Released`` with its left button."""
        self.ask(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", clickCount=1
        )

    def upload(self, selector: str, file: Path) -> None:
        """Give a file to the input that a selector finds."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a picture of the window, or of the whole page."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
