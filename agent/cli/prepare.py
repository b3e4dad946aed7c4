"""`mayfly prepare`."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from agent import __version__
from agent.base import threads
from agent.base.disk import state_disk
from agent.base.durable import only_one
from agent.base.engine import Engine
from agent.base.errors import ContainerError, ProcessTimeout, ReleaseError
from agent.base.logs import Log, RunLogger
from agent.base.processes import run
from agent.base.urlsecrets import environment_secrets
from agent.browser import Container, choose
from agent.cli.surroundings import (
    Options,
    configuration_options,
    log_option,
    log_sink,
    surroundings,
)
from agent.config.faults import ConfigurationError, Fault
from agent.config.jobsfile import JobsFile, needs_browser
from agent.config.locate import Locations, Surroundings
from agent.config.overrides import Loaded
from agent.config.settings import Browser, Settings
from agent.jobs.containers.compose import Compose
from agent.jobs.containers.stackfile import examine_stacks, summary
from agent.jobs.isolation.choice import chromedriver_for_jobs
from agent.release.context import ReleaseContext
from agent.release.obtain import obtain
from agent.release.operate import operators_memory
from agent.release.store import Installed, ReleaseStore, bake
from agent.secrets.keyring import Keyring

PULL_SECONDS = 900.0
"""Limit of a pull: enough for an image of a gigabyte at 1.2 MB/s."""


@click.command()
@configuration_options
@log_option
def prepare(options: Options, style: str) -> None:
    """Have everything here that a run needs, and run nothing.

    Fetches the newest release, makes its environment, and marks it as the one that runs when nothing better is known.
    Fetches the images of its browser and its container jobs. The machine's image is built with this, so that its first
    run needs neither git nor a registry.
    """
    around = surroundings()
    loaded, places = options.load_or_fail(around)
    if loaded.settings.release.repository is None:
        raise ConfigurationError([Fault(loaded.source, "release.repository", "is not set")])
    run_logger = RunLogger(log_sink(style, around))
    run_logger.add_secrets(loaded.settings.sensitive() | environment_secrets(around.environ))
    with state_disk(places.state), only_one(places.state / "lock"):
        keyring = Keyring(loaded.settings, around.environ, run_logger.add_secrets)
        release = threads.run(_prepare(loaded, places, around, keyring, run_logger.log))
    names = [job.name for job in release.jobs.job]
    click.echo(f"{release.ref} {release.commit} is ready: {', '.join(names)}")


async def _prepare(
    loaded: Loaded, places: Locations, around: Surroundings, keyring: Keyring, log: Log
) -> Installed:
    release_store = ReleaseStore.at(places.state, places.cache)
    # What an image gets is what git has now: nobody has the keys of a bucket where images are built.
    memory = operators_memory(loaded.settings, "prepare", log, timedelta(days=1))
    context = ReleaseContext(
        settings=loaded.settings.release,
        release_store=release_store,
        memory=memory,
        environ=around.environ,
        version=__version__,
        now=datetime.now(UTC),
        log=log,
        keyring=keyring,
    )
    obtained = await obtain(context)
    if obtained.stale is not None:
        raise ReleaseError(f"{obtained.stale.wanted} is not available: {obtained.stale.reason}")
    for warning in obtained.warnings:
        log.warning("release.warning", reason=warning)
    release = obtained.release
    await _fetch_images(release, loaded.settings, around, keyring, log)
    bake(release_store, release)
    log.info("release.prepared", ref=release.ref, commit=release.commit)
    return release


async def _fetch_images(
    release: Installed, settings: Settings, around: Surroundings, keyring: Keyring, log: Log
) -> None:
    engine = Engine(around.environ, keyring.docker)
    chromedriver = chromedriver_for_jobs(settings.limits, around.environ)
    for image in dict.fromkeys(images(release.jobs, settings.browser, chromedriver)):
        await engine.have(image, log, "image.pulled")
    if faults := (await examine_stacks(release.jobs.job, release.tree, around.environ)).faults:
        log.warning("stack.not_pulled", reason=summary(faults))
        return
    for stack in dict.fromkeys(job.compose for job in release.jobs.job if job.compose):
        await _fetch_stack(release.tree / stack, engine, log)


async def _fetch_stack(file: Path, engine: Engine, log: Log) -> None:
    """Have compose pull the images of a stack; the others may be here already, or be built by the job."""
    pull = (*Compose("mayfly-prepare", (file,), {}).options, "pull", "--ignore-pull-failures")
    log.info("stack.pulled", file=str(file))
    try:
        async with engine.logged_in((), [file.read_text(errors="replace")]) as known:
            command = (*known.program, *pull)
            done = await run(command, environ=known.environ, seconds=PULL_SECONDS, cwd=file.parent)
    except (OSError, ProcessTimeout) as error:
        raise ContainerError(f"the images of {file} could not be fetched: {error}") from error
    if done.code != 0:
        log.warning("stack.incomplete", file=str(file), reason=done.complaint)


def images(jobs: JobsFile, settings: Browser, chromedriver: str | None) -> Iterator[str]:
    """Yield the container images that a run of these jobs uses; those of stacks are in their compose files.

    `chromedriver` is the path of this machine's, if there is one that jobs may be given.
    """
    if needs_browser(jobs):
        pinned = jobs.browser.image if jobs.browser else None
        choice = choose(settings, pinned, chromedriver)
        if isinstance(choice, Container):
            yield choice.image
    for job in jobs.job:
        if job.image is not None:
            yield job.image
