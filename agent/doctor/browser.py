"""The check that opens a real session, in the browser that a run would use."""

import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from agent.browser import Place, choose, find_chromedriver, keep
from agent.config.jobsfile import needs_browser
from agent.contract.ids import run_id
from agent.doctor.examine import Finding, Installation, ok, skipped
from agent.doctor.parts import jobs_of


async def session(installation: Installation) -> Finding:
    """Start the browser, wait for a session, and stop it.

    The image that a release may pin is not known here; the configuration's is tried.
    """
    jobs = jobs_of(installation)
    if jobs is not None and not needs_browser(jobs):
        return skipped("no job wants a browser")
    settings = installation.settings.browser
    choice = choose(settings, None, find_chromedriver(installation.environ))
    with tempfile.TemporaryDirectory(prefix="mayfly-doctor-") as folder:
        root = Path(folder)
        place = Place(
            run_id(datetime.now(UTC), secrets.token_bytes(3)), root / "browser", root / "downloads"
        )
        keeper = keep(
            choice, place, settings=settings, environ=installation.environ, log=installation.log
        )
        async with keeper:
            await keeper.ready()
            record = keeper.record()
    if record is None:
        return ok("a session opened")
    return ok(", ".join(filter(None, [record.name, record.kind, record.image])))
