"""A real browser that looks at pages; run as a module it makes the pictures of the documentation."""

import base64
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from consumer.page.front import runs_compared
from consumer.page.render import STATIC, static_file
from tests.consumer.scenes import SCENES, Scene, changes, failed
from tests.consumer.scenes import picture as a_picture
from tests.parts.missing import program

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-quic", "--disable-sync", "--disable-component-update"),
    "--disable-background-networking",
)


class Light(StrEnum):
    """What the person's system prefers."""

    BRIGHT = "light"
    DARK = "dark"


VIEWS = {"desktop": (1200, Light.BRIGHT, "en"), "phone": (390, Light.DARK, "ja")}
READMES = ("failed", "desktop")
"""The picture that the README shows, under the name that it has there."""
HEIGHT = 1300
"""Of a picture, at most."""


class Camera:
    """A browser without a window, of any width."""

    def __enter__(self) -> Self:
        options = webdriver.ChromeOptions()
        for flag in FLAGS:
            options.add_argument(flag)
        self._driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
        self._driver.set_page_load_timeout(60)
        return self

    def __exit__(self, *raised: object) -> None:
        self._driver.quit()

    @property
    def title(self) -> str:
        """The title of the page."""
        return self._driver.title

    def visit(self, url: str, width: int, light: Light) -> None:
        """Load a page in a window of a width, with all its pictures."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", size)
        preference = {"name": "prefers-color-scheme", "value": light.value}
        self._command("Emulation.setEmulatedMedia", {"features": [preference]})
        self._driver.get(url)
        self._driver.set_script_timeout(30)
        self._driver.execute_async_script(
            "const done = arguments[0];"
            "for (const image of document.images) image.loading = 'eager';"
            "Promise.all([...document.images].map(image => image.decode().catch(() => 0))).then(() => done());"
        )

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self._driver.execute_script(f"return {expression}")

    def take(self, target: Path) -> None:
        """Write a picture of the page, or of its beginning."""
        whole = self._command("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "scale": 1, "width": whole["width"]}
        clip["height"] = min(HEIGHT, whole["height"])
        shot = self._command(
            "Page.captureScreenshot",
            {"format": "png", "captureBeyondViewport": True, "clip": clip},
        )
        target.write_bytes(base64.b64decode(shot["data"]))

    def _command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return self._driver.execute_cdp_cmd(name, dict(arguments))


def main() -> None:
    """Make the pictures of the documentation."""
    with tempfile.TemporaryDirectory() as name, Camera() as camera:
        for picture in pictures():
            camera.visit(lay_out(Path(name), picture), picture.width, picture.light)
            camera.take(PICTURES / f"{picture.name}.png")


@dataclass(frozen=True)
class Picture:
    """A page, and how it is looked at."""

    name: str
    path: str
    html: str
    width: int
    light: Light


def pictures() -> Iterator[Picture]:
    """Yield what the documentation shows: each morning at a desk and on a phone, a run, a job."""
    for name, make in SCENES.items():
        one = make()
        for where, view in VIEWS.items():
            known_as = "page-desktop-light" if (name, where) == READMES else f"{name}-{where}"
            yield picture_of(one, "/", known_as, view)
    one = failed()
    yield picture_of(one, "/", "page-desktop-dark-ja", (1200, Light.DARK, "ja"))
    yield picture_of(one, f"/runs/{one.run}", "run", VIEWS["desktop"])
    yield picture_of(one, "/jobs/nightly/prices", "job", VIEWS["desktop"])


def picture_of(one: Scene, path: str, name: str, view: tuple[int, Light, str]) -> Picture:
    """Return a page of a morning."""
    width, light, tag = view
    if path == "/":
        html = one.front(tag)
    elif path.startswith("/runs/"):
        html = one.last(tag=tag)
    else:
        before, run = runs_compared(one.judged, "nightly", "prices") or ("", "")
        html = one.job(replace(changes(run), before=before), tag)
    return Picture(name, path, html, width, light)


def lay_out(folder: Path, picture: Picture) -> str:
    """Write a page and what it needs to where its links lead, and return its address."""
    for name in STATIC:
        found = static_file(name)
        assert found is not None
        write(folder / "static" / name, found[1])
    for shot in re.findall(r'<img src="[./]*([^"]+)"', picture.html):
        write(folder / shot, a_picture(320, 180))
    page = folder / picture.path.strip("/") / "index.html"
    # The links are relative to a path without a slash at its end.
    base = f'<head><base href="{folder.as_uri()}{picture.path}">'
    write(page, picture.html.replace("<head>", base).encode())
    return page.as_uri()


def write(path: Path, content: bytes) -> None:
    """Write a file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
