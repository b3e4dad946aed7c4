"""`mayfly demo`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from agent.base import threads
from agent.browser import find_chromedriver
from agent.cli.report import print_outcome
from agent.cli.run import perform
from agent.cli.surroundings import colors, kept_in, surroundings
from agent.config.locate import Locations, Surroundings, locate
from agent.config.overrides import Document, Loaded, Override, parse_settings
from agent.config.settings import Paths
from agent.demo import claim_folder, demo_site, make_release, scrapers_folder
from agent.notify.outcome import Outcome

SOURCE = "the demo's defaults"


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything of the demo goes: a new or an empty folder, or that of an earlier demo "
    "[default: `demo` in Mayfly's state directory].",
)
@click.option(
    "--scrapers",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder that becomes the release [default: the checkout's `scrapers`].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def demo(folder: Path | None, scrapers: Path | None, *, as_json: bool) -> None:
    """Run everything once, here: a local site, a local git release, a local browser, a bucket in a folder.

    Nothing of your configuration is read, nothing leaves this computer, and it is not switched off.
    """
    around = surroundings()
    usual = locate(Paths(), around)
    place = (folder or usual.state / "demo").absolute()
    release = scrapers_folder(scrapers)
    claim_folder(place)
    outcome = threads.run(_demo(place, release, around))
    print_outcome(outcome, as_json=as_json, coloured=colors(sys.stdout, around))
    if not as_json and outcome.manifest:
        bucket = place / "bucket"
        mayfly = _as_called(around)
        click.echo(f"\nLook further:\n  {mayfly} status --store {bucket}")
        click.echo(f"  {mayfly} verify {outcome.run_id} --store {bucket}")
    sys.exit(outcome.exit_code)


def _as_called(around: Surroundings) -> str:
    """Return what calls this program again in the shell that called it: a checkout's is not on the path."""
    called = Path(sys.argv[0])
    found = shutil.which("mayfly", path=around.environ.get("PATH", ""))
    elsewhere = called.name == "mayfly" and (found is None or not called.samefile(found))
    return str(called) if elsewhere else "mayfly"


async def _demo(place: Path, scrapers: Path, around: Surroundings) -> Outcome:
    async with demo_site(scrapers, around.environ) as site:
        repository = place / "scrapers.git"
        await make_release(scrapers, repository, site, around.environ)
        loaded, places = _settings(place, repository, around)
        return await perform(loaded, places, around)


def _isolation(around: Surroundings) -> Iterator[Override]:
    """Yield what lets the demo have a local browser: jobs in units get none, and its jobs are the person's own."""
    if find_chromedriver(around.environ) is not None:
        yield Override("limits.isolation", SOURCE, "process")


def _settings(place: Path, repository: Path, around: Surroundings) -> tuple[Loaded, Locations]:
    loaded = parse_settings(
        [Document("", SOURCE)],
        [
            Override("release.repository", SOURCE, str(repository)),
            Override("release.trust", SOURCE, "none"),
            Override("limits.run", SOURCE, "10m"),
            *_isolation(around),
            *kept_in(place, SOURCE, around),
        ],
    )
    return loaded, locate(loaded.settings.paths, around)
