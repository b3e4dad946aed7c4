"""A run's manifest: its packages and the parts of its log by size and digest, and how it went. Decisions only."""

from collections.abc import Iterable, Iterator
from typing import Self

from pydantic import Field

from agent.contract.descriptor import NO_RELEASE, PROFILE, Descriptor, Role, Sealed, render
from agent.contract.entries import Began, Invalid, Object, RunId, read_form
from agent.contract.facts import Browser, Cost, Host, Isolation, Phase, Release, Schedule
from agent.contract.ids import SCHEDULE, Batch
from agent.contract.layout import JobKey, LogKey, ManifestKey, parse_key, run_prefix
from agent.contract.results import Count, Message, Moment, Name, Record, RunStatus

VERSION = 1


class RunRecord(Record):
    """What Mayfly knows about a run that closes."""

    version: int = VERSION
    run: RunId
    schedule: str = Field(pattern=f"^{SCHEDULE}$")
    batch: Name
    status: RunStatus
    started: Moment
    finished: Moment
    agent: Name = Field(description="The agent's version.")
    host: Host
    slot: Moment | None = Field(None, description="The scheduled time that it was for.")
    scheduled: Schedule | None = Field(None, description="Null where nobody scheduled it.")
    channel: Name = Field("", description="Which releases it followed.")
    release: Release | None = Field(None, description="Null when none could run.")
    browser: Browser | None = None
    isolation: Isolation | None = Field(None, description="Null when no job was about to start.")
    phases: tuple[Phase, ...] = Field((), max_length=100)
    cost: Cost | None = Field(None, description="Null where nothing is billed or known.")
    interruption: Message | None = Field(None, description="Who or what stopped the run.")
    not_sent: Count = Field(0, description="Jobs that ended and are lost, with their disk.")
    warnings: tuple[Message, ...] = Field((), max_length=100)

    @classmethod
    def begun(cls, run: str, batch: Batch, began: Began) -> Self:
        """Return what is known of a run that has just begun; should it die now, it was interrupted."""
        return cls(
            run=run,
            schedule=batch.schedule,
            batch=batch.name,
            status=RunStatus.INTERRUPTED,
            started=began.started,
            finished=began.started,
            agent=began.agent,
            host=began.host,
            slot=began.slot,
            scheduled=began.schedule,
            channel=began.channel,
        )


class Manifest(Descriptor):
    """A run's `datapackage.json`; jobs that were pending when it closed are in later entries of its batch's log."""

    run: RunRecord = Field(alias="mayfly:run")

    def file_problem(self, path: str) -> str | None:
        """Return why a path is neither that of a job's package nor that of a part of the log."""
        key = parse_key(f"{run_prefix(self.run.run)}{path}")
        package = isinstance(key, JobKey) and key == JobKey(self.run.run, key.job)
        if package or isinstance(key, LogKey):
            return None
        return "it is neither a package nor a part of the log"


def seal_manifest(
    run: RunRecord, packages: Iterable[Object], log: Iterable[Object]
) -> Iterator[bytes]:
    """Yield a run's manifest; the same arguments make the same bytes."""
    head = {
        "$schema": PROFILE,
        "id": f"urn:mayfly:{run.run}",
        "name": f"mayfly-{run.run.lower()}",
        "created": run.finished.isoformat(),
        "version": run.release.ref if run.release else NO_RELEASE,
        "mayfly:run": run.model_dump(mode="json", exclude_none=True),
    }
    prefix = run_prefix(run.run)
    roles = ((Role.PACKAGE, packages), (Role.LOG, log))
    return render(
        head,
        (
            Sealed(one.key.removeprefix(prefix), one.bytes, one.sha256, role)
            for role, objects in roles
            for one in objects
        ),
    )


def read_manifest(key: ManifestKey, text: bytes) -> Manifest | Invalid:
    """Return the manifest that an object holds."""
    manifest = read_form(Manifest, text)
    if isinstance(manifest, Manifest) and manifest.run.run != key.run:
        return Invalid("it is the manifest of another run")
    return manifest
