"""A headless Chromium and its pages, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.parts.processes import Process

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--remote-debugging-address=127.0.0.1",
    "--remote-debugging-port=0",
)
START_SECONDS = 60
ANSWER_SECONDS = 60


def find() -> Path | None:
    """The one that CHROMIUM names, else the first on the PATH."""
    named = os.environ.get("CHROMIUM")
    if named is not None:
        return Path(named) if shutil.which(named) else None
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return None if found is None else Path(found)


class Browser:
    """A running one, with a profile of its own that nobody used before."""

    def __init__(self, program: Path, folder: Path) -> None:
        log = folder / "chromium.log"
        command: list[str | Path] = [program, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = Process("chromium", command, log)
        self._process.wait_ready(lambda: self._address() is not None, within=START_SECONDS)

    def _address(self) -> str | None:
        found = re.search(r"DevTools listening on (ws://\S+)", self._process.said())
        return found[1] if found else None

    def stop(self) -> None:
        self._process.stop()

    @asynccontextmanager
    async def page(self, *, width: int, dark: bool = False, height: int = 900) -> AsyncIterator[Page]:
        """An empty one, as wide as that; narrow ones are touched, wide ones have a mouse."""
        address = self._address()
        assert address is not None
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            try:
                await page.open(width, height, dark=dark)
                yield page
                await page.send("Target.closeTarget", targetId=page.target)
            finally:
                listening.cancel()


class Page:
    """One tab, and all that it complained of or asked the network for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.target = ""
        self.width = 0
        self._socket = socket
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._note(said["method"], said["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.errors.append(f"console.{told['type']}: {told['args']}")
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.errors.append(told["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(told["url"])
            case "Page.loadEventFired":
                self._loaded.set()
            case _:
                pass

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        asked: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            asked["sessionId"] = self._session
        await self._socket.send_json(asked)
        said = await asyncio.wait_for(answer, ANSWER_SECONDS)
        assert "error" not in said, f"{method}: {said['error']}"
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, width: int, height: int, *, dark: bool) -> None:
        self.width = width
        self.target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.send("Target.attachToTarget", targetId=self.target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        touched = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touched
        )
        await self.send("Emulation.setTouchEmulationEnabled", enabled=touched)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def show(self, file: Path) -> None:
        """A file, until it is loaded and what it draws at first is drawn."""
        self._loaded.clear()
        await self.send("Page.navigate", url=file.as_uri())
        await asyncio.wait_for(self._loaded.wait(), ANSWER_SECONDS)
        await self.frames()

    async def frames(self) -> None:
        """Two more were drawn: what was asked of the page before is done and seen."""
        await self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def run(self, script: str) -> Any:
        """The value of a script, awaited."""
        said = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def point(self, x: float, y: float) -> None:
        """By mouse where there is one, else by a finger that comes and goes."""
        if self.width < 600:
            await self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
            await self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            await self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        await self.frames()

    async def press(self, name: str) -> None:
        """A key by its name, as `ArrowRight`."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, "Escape": 27, "Home": 36, "End": 35, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=codes[name])
        await self.frames()

    async def picture(self, *, top: float | None = None, height: float = 900) -> bytes:
        """A PNG of what is seen of it, or from `top` of the whole page on."""
        clip = {} if top is None else {"clip": {"x": 0, "y": top, "width": self.width, "height": height, "scale": 1}}
        said = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=top is not None, **clip)
        return base64.b64decode(said["data"])
