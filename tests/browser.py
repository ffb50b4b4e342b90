"""A real browser for tests: headless Chromium behind chromedriver, spoken to in WebDriver's protocol over HTTP.

Nothing but the standard library and Debian's packages `chromium` and `chromium-driver`; without them the tests are
skipped. https://www.w3.org/TR/webdriver2/ has the commands, and Chromium's own ones are its DevTools protocol.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROME = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
marks = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROME and DRIVER), reason="chromium and chromedriver are not both installed"),
]
"""What every module of such tests takes as its pytestmark."""

WIDTHS = (320, 390, 768, 1280)
"""Screens that the pages are for, from a small telephone to a desk, in CSS pixels."""

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the protocol hands over a reference to an element."""
KEYS = {"Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015", "End": "\ue010", "Home": "\ue011"} | {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Space": " ",
}
OPTIONS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


class Browser:
    """One window. Made by `with Browser(folder) as browser`; the folder takes the profile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Browser:
        assert DRIVER is not None
        self._driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._driver.stdout is not None
        port = None
        for line in self._driver.stdout:
            if match := re.search(r"started successfully on port (\d+)", line):
                port = match[1]
                break
        assert port, "chromedriver ended before it named its port"
        self._session = f"http://127.0.0.1:{port}/session"
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        chrome = {"binary": CHROME, "args": [*OPTIONS, *root, f"--user-data-dir={self.folder}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": logs}
        try:
            value = self._send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._end()
            raise
        self._session += "/" + value["sessionId"]
        self._send("POST", "/url", {"url": "about:blank"})  # the page of a new tab asks for parts of its own
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(10)
        assert self._driver.stdout is not None
        self._driver.stdout.close()

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._session + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                value = json.load(error)["value"]
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}") from None

    def open(self, page: Path) -> None:
        """Open a file, with empty logs, and wait until it is drawn: Chromium drops keys that come before."""
        self.logs("browser"), self.logs("performance")
        self._send("POST", "/url", {"url": page.resolve().as_uri()})
        drawn = """const done = arguments[0];
            requestAnimationFrame(() => requestAnimationFrame(done));
            setTimeout(done, 2000);"""
        self._send("POST", "/execute/async", {"script": drawn, "args": []})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body in JavaScript returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """A click where a mouse would: it fails where something else is in the way."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        self._send("POST", f"/element/{found[ELEMENT]}/click")

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus, by the names in KEYS or as characters."""
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def text(self, selector: str) -> str:
        """The text of an element as it is shown."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int) -> None:
        """The size of the window in CSS pixels; below 500 the window of a telephone."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def prefer(self, **features: str) -> None:
        """Media features, as in prefer(prefers_color_scheme="dark")."""
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=pairs)

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A picture of the window, or of the whole page."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def logs(self, kind: str) -> list[Any]:
        """The entries since the last look: "browser" (the console) or "performance" (DevTools events)."""
        return self._send("POST", "/se/log", {"type": kind})

    def complaints(self) -> list[str]:
        """What the console holds since the last look, errors and warnings."""
        return [entry["message"] for entry in self.logs("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last look, but those that hold their content (data:)."""
        events = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith("data:")]


@pytest.fixture(scope="module", name="window")
def opened_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of a module."""
    with Browser(tmp_path_factory.mktemp("profile")) as window:
        window.size(1280, 900)
        yield window


def colours(window: Browser) -> tuple[int, int]:
    """The red part of the colour of the text, and of the page."""
    script = """const style = getComputedStyle(document.body);
        return [style.color, style.backgroundColor].map((colour) => Number(colour.match(/\\d+/)[0]))"""
    return tuple(window.run(script))
