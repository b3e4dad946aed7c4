"""`mayfly rerun`: a job of an earlier run once more, here, in a folder of its own.

What the run found is left in a bucket in that folder: its release, pinned, and the state that the job had. A run like
any other does the rest, and knows no other bucket.
"""

import platform
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import click

from agent import __version__
from agent.base import threads
from agent.base.console import printable
from agent.base.disk import state_disk
from agent.base.durable import remove_tree
from agent.base.errors import StoreError, UsageError
from agent.base.logs import RunLogger
from agent.batch.fold import State, fold
from agent.batch.history import History, find_run
from agent.batch.log import Listed, LogReader, Source
from agent.browser.interface import WATCH
from agent.bucket.store import Bucket
from agent.cli.report import print_outcome
from agent.cli.run import perform
from agent.cli.surroundings import Options, colors, configuration_options, kept_in, surroundings
from agent.config.locate import locate
from agent.config.overrides import Loaded, Override
from agent.config.settings import Notify, Settings
from agent.contract import facts
from agent.contract.entries import Entry, write_entry
from agent.contract.ids import Batch, run_started
from agent.contract.layout import EntryKey, PointerKey, StateKey, job_prefix, parse_key
from agent.contract.releases import Pin
from agent.demo import claim_folder
from agent.notify.outcome import Outcome
from agent.release.operate import operators_memory
from agent.secrets.sources import open_bucket

COMMAND = "mayfly rerun"
MARKER = ".mayfly-rerun"
MOST_STATE_BYTES = 1024**3


@click.command()
@configuration_options
@click.argument("run", metavar="RUN")
@click.argument("job", metavar="JOB")
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything goes: a new folder, or that of an earlier rerun [default: rerun-RUN-JOB, here].",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Show the browser's window: a local chromedriver, and a job that heeds MAYFLY_WATCH.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def rerun(
    run: str,
    job: str,
    *,
    options: Options,
    folder: Path | None,
    watch: bool,
    as_json: bool,
) -> None:
    """Do a job of an earlier run once more, here.

    RUN is a run's id, as `mayfly status` lists them, or `latest`. The job gets that run's release and the state that it
    had then, and its secrets and browser as on any run here. What it writes goes into a folder. Nothing is written to
    the bucket, nobody is notified, and no power is switched off.
    """
    around = surroundings()
    loaded, places = options.load_or_fail(around)

    async def bucket_of_run() -> Bucket:
        return await open_bucket(loaded.settings.store, places.bucket, around.environ)

    async def meant() -> tuple[Batch, str]:
        bucket = await bucket_of_run()
        return await find_run(bucket, run, datetime.now(UTC), bucket.name)

    batch, run = threads.run(meant())
    place = (around.cwd / (folder or f"rerun-{run}-{job}")).absolute()
    claim_folder(place, by=f"{COMMAND} --dir", marker=MARKER)
    with state_disk(place):  # what an earlier rerun left would be newer than what the run had
        remove_tree(place / "bucket")
    overrides = [*kept_in(place, COMMAND, around), Override("limits.catch_up", COMMAND, "0")]
    own = _alone(options.load(around, overrides))
    own_places = locate(own.settings.paths, around)
    if watch:
        around = replace(around, environ={**around.environ, WATCH: "1"})

    async def work() -> Outcome:
        here = await open_bucket(own.settings.store, own_places.bucket, around.environ)
        release = await prepare(await bucket_of_run(), here, (batch, run), job, own.settings)
        what = printable(f"{job} of {run}: {release.ref} ({release.commit[:12]}), in {place}")
        click.echo(what, err=True)
        # Nothing of this run comes near the bucket any more.
        return await perform(own, own_places, around, only=frozenset({job}))

    outcome = threads.run(work())
    print_outcome(outcome, as_json=as_json, coloured=colors(sys.stdout, around))
    files = place / "bucket" / job_prefix(outcome.run_id, job)
    if not as_json and files.is_dir():
        click.echo(f"files: {files}")
    sys.exit(outcome.exit_code)


def _alone(loaded: Loaded) -> Loaded:
    """Return the configuration without notifications and without a schedule."""
    schedule = loaded.settings.schedule.model_copy(update={"expression": None})
    settings = loaded.settings.model_copy(update={"notify": Notify(), "schedule": schedule})
    return replace(loaded, settings=settings)


async def prepare(
    there: Bucket, here: Bucket, attempt: tuple[Batch, str], job: str, settings: Settings
) -> facts.Release:
    """Leave in an empty bucket what a job found in an earlier run, and return the release that it ran.

    Args:
        there: The bucket of the run; it is only read.
        here: The empty one.
        attempt: The run, and its batch.
        job: The job.
        settings: Which channel of releases is followed.

    Raises:
        UsageError: The job is not known in the run.
        StoreError: A bucket failed.
    """
    batch, run = attempt
    release = release_of(fold(batch, await LogReader(there, batch).look()), run, job)
    await _bring_state(there, here, batch, run, job)
    await _pin(there, here, release, settings)
    return release


def release_of(state: State, run: str, job: str) -> facts.Release:
    """Return the release that a job ran in a run; after a rollback, the one that made its result.

    Raises:
        UsageError: The run had none, or did not know the job.
    """
    mine = state.runs.get(run)
    planned = mine.planned if mine else None
    if mine is None or planned is None or planned.release is None:
        raise UsageError(f"{run} had no release: there is nothing to run again")
    result = mine.results.get(job)
    if result is None and job not in planned.jobs:
        names = ", ".join(planned.jobs[:20])
        raise UsageError(f"{run} has no job {job!r}", remedy=f"its jobs: {names}")
    made_by = result.job.release if result else None
    if made_by is None or made_by == planned.release.commit:
        return planned.release
    back = planned.release.rolled_back_from
    ref = back.ref if back and back.commit == made_by else made_by
    return planned.release.model_copy(update={"commit": made_by, "ref": ref})


@dataclass(frozen=True)
class Before:
    """A bucket without the states and the entries that a run, and what came after it, left."""

    bucket: Source
    run: str

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        """Yield what was there before."""
        async for item in self.bucket.list(prefix, after=after):
            key = parse_key(item.key)
            entry = key.entry if isinstance(key, PointerKey) else key
            if not isinstance(entry, StateKey | EntryKey) or entry.run < self.run:
                yield item

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object."""
        return await self.bucket.get(key, limit=limit)


async def _bring_state(there: Bucket, here: Bucket, batch: Batch, run: str, job: str) -> None:
    history = History(Before(there, run), batch, run_started(run))
    found = await history.newest_state(job, checkpoints=True)
    if found is None:
        return
    content = await there.get(found.key.text, limit=MOST_STATE_BYTES)
    said = found.object
    if content is None or (said and sha256(content).hexdigest() != said.sha256):
        raise StoreError(f"the state of {job}, {found.key.text}, differs from its recorded digest")
    await here.put(found.key.text, content)
    if said is None:
        return
    # Only a state that an entry names counts.
    left_by, _ = await find_run(there, found.key.run, datetime.now(UTC), there.name)
    for one in await LogReader(there, left_by).look():
        if one.key.run == found.key.run and isinstance(one.entry, Entry):
            await here.put(one.key.text, write_entry(one.entry))
            await here.put(PointerKey(one.at, one.entry.kind, one.key).text, b"")


async def _pin(there: Bucket, here: Bucket, release: facts.Release, settings: Settings) -> None:
    """Have the run take a release, and take it for good if it was: a trial would roll back from it."""
    who, log = f"{COMMAND}@{platform.node()}", RunLogger().log
    known = operators_memory(settings, who, log)
    await known.connect(_ready(there))
    good = next(
        (one for one in known.known.good(__version__) if one.commit == release.commit), None
    )
    memory = operators_memory(settings, who, log)
    await memory.connect(_ready(here))
    pin = Pin(ref=release.ref, commit=release.commit, reason=COMMAND)
    await memory.write(**{"good": good} if good else {}, pin=pin)


async def _ready(bucket: Bucket) -> Bucket:
    return bucket
