"""A real browser that looks at the status page; run as a module it makes the pictures of the documentation."""

import base64
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.bucket.bucket import Bucket
from tests.consumer.serving import serving
from tests.consumer.year import leave_year
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

    def take(self, target: Path, height: int) -> None:
        """Write a picture of the page's first `height` pixels."""
        whole = self._command("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "scale": 1, "width": whole["width"]}
        clip["height"] = min(height, whole["height"])
        shot = self._command(
            "Page.captureScreenshot",
            {"format": "png", "captureBeyondViewport": True, "clip": clip},
        )
        target.write_bytes(base64.b64decode(shot["data"]))

    def _command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return self._driver.execute_cdp_cmd(name, dict(arguments))


def main() -> None:
    """Make the pictures of a year of runs."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, Camera() as camera:
        bucket = Bucket.in_folder(Path(name) / "bucket")
        leave_year(bucket, datetime.now(UTC))
        with serving(Path(name), bucket.environ, "--timezone", "Asia/Tokyo") as service:
            camera.visit(f"{service.url}/?days=365", 1000, Light.BRIGHT)
            camera.take(PICTURES / "page-desktop-light.png", 1300)
            run = camera.ask("document.querySelector('article.failure p a').href")
            camera.visit(f"{service.url}/?days=90&lang=ja", 1000, Light.DARK)
            camera.take(PICTURES / "page-desktop-dark-ja.png", 1000)
            camera.visit(f"{service.url}/?days=90", 390, Light.DARK)
            camera.take(PICTURES / "page-phone-dark.png", 1500)
            camera.visit(f"{service.url}/?days=30&lang=ja", 390, Light.BRIGHT)
            camera.take(PICTURES / "page-phone-light-ja.png", 1500)
            camera.visit(run, 1000, Light.BRIGHT)
            camera.take(PICTURES / "page-run.png", 1000)
    sys.stdout.write(f"{PICTURES}: {', '.join(sorted(one.name for one in PICTURES.iterdir()))}\n")


if __name__ == "__main__":
    main()
