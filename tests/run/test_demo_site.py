"""The demo's site, as the demo serves it."""

import asyncio
import os

import requests

from agent.demo import demo_site
from tests.parts.demo_site import SCRAPERS

LONG = "x" * 60_000
"""Of a path: a few lines with it in the site's log are more than a pipe holds."""


async def test_the_site_serves_on_although_nobody_reads_its_log() -> None:
    """A demo that is left open is visited for as long as its person likes."""
    async with demo_site(SCRAPERS, os.environ) as url:
        for _ in range(8):
            answer = await asyncio.to_thread(requests.get, f"{url}/{LONG}", timeout=30)
            assert answer.status_code == 404
