"""A headless Chromium that opens a page and says what happened: the DevTools protocol over two pipes, no port."""

import base64
import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run", "--mute-audio",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars")  # fmt: skip
PATIENCE_S = 60


class Page:
    """One open page; `errors` are the exceptions, failed loads and messages on its console."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of, self._unread = to, of, b""
        self._sent, self._session = 0, ""
        self.errors: list[str] = []
        self.requested: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        os.write(
            self._to, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (answer := self._next()).get("id") != self._sent:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, file: Path, width: int = 1200, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        self.look(width, height, scale, dark)
        self.send("Page.navigate", url=file.absolute().as_uri())
        self.until("document.readyState === 'complete'")

    def look(self, width: int, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])

    def says(self, expression: str) -> Any:
        """What a JavaScript expression is worth, awaited where it is a promise."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "exception"))
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.says(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {PATIENCE_S} s: {condition}; console: {self.errors}")
            time.sleep(0.05)

    def picture(self, file: Path, whole: bool = True) -> None:
        """A PNG of the page, or of what is in sight."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, file: Path) -> None:
        printed = self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        file.write_bytes(base64.b64decode(printed["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._of], [], [], PATIENCE_S)[0]:
                raise TimeoutError(f"the browser has said nothing for {PATIENCE_S} s")
            read = os.read(self._of, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(
                    f"{params['type']}: {[one.get('value', one.get('description')) for one in params['args']]}"
                )
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{params['entry']['level']}: {params['entry']['text']}")
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"][:200])


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own, whose files are below `profile`."""
    assert PROGRAM is not None
    (out_of_us, to_it), (from_it, out_of_it) = os.pipe(), os.pipe()
    # The protocol is spoken over its descriptors 3 and 4; ours may have any number, these two included.
    command = shlex.join([PROGRAM, *SWITCHES, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"])
    redirected = f"exec {command} 8<&{out_of_us} 9>&{out_of_it} 3<&8 4>&9"
    process = subprocess.Popen(
        ["bash", "-c", redirected],
        pass_fds=(out_of_us, out_of_it),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
    )
    os.close(out_of_us)
    os.close(out_of_it)
    try:
        page = Page(to_it, from_it)
        yield page
        with contextlib.suppress(RuntimeError, OSError):
            page._session = ""
            page.send("Browser.close")
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(to_it)
        os.close(from_it)
