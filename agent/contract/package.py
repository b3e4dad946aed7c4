"""A job's package: its files by size and digest, and what became of it. Decisions only."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from agent.contract.described import Said
from agent.contract.descriptor import NO_RELEASE, PROFILE, Descriptor, Sealed, render
from agent.contract.entries import Invalid, JobName, Object, RunId, read_form
from agent.contract.layout import EVIDENCE, FILES, LOGS, JobKey
from agent.contract.results import (
    Count,
    JobCause,
    JobStatus,
    Message,
    Moment,
    Name,
    Record,
    Seconds,
)

VERSION = 1
MOST_REFUSED = 1000


class Attempt(Record):
    """One start of a job's program."""

    number: int = Field(ge=1, le=1_000_000)
    started: Moment
    finished: Moment
    status: JobStatus
    cause: JobCause | None = None
    message: Message = ""
    exit_code: int | None = None
    signal: int | None = Field(None, description="The signal that ended the program, if one did.")
    output_bytes: Count = Field(0, description="What it wrote to stdout and stderr.")
    image: Message | None = Field(
        None, description="For a container: its image and that image's digest."
    )


class RefusedFile(Record):
    """Something in a job's output that cannot be a result, such as a link."""

    path: str = Field(max_length=20_000, description="`%XX` is a byte that is no text.")
    reason: Message


class JobRecord(Record):
    """What became of a job."""

    version: int = VERSION
    run: RunId
    name: JobName
    family: JobName | None = Field(
        None, description="The job's name in jobs.toml, the same for all values of a matrix."
    )
    status: JobStatus
    cause: JobCause | None = None
    message: Message = ""
    started: Moment | None = None
    finished: Moment
    seconds: Seconds = 0.0
    attempts: tuple[Attempt, ...] = Field((), max_length=1000)
    items: Count | None = Field(None, description="What the job says it collected.")
    metrics: Mapping[Annotated[str, Field(max_length=64)], float] = Field({}, max_length=32)
    refused: tuple[RefusedFile, ...] = Field((), max_length=MOST_REFUSED + 1)
    state: Object | None = Field(None, description="What it left for its next run.")
    release: Name | None = Field(None, description="Ref of the release that made it.")
    commit: Name | None = None
    notes: tuple[Message, ...] = Field(
        (), max_length=100, description="Remarks that are no failure."
    )


class Package(Descriptor):
    """A job's `datapackage.json`."""

    job: JobRecord = Field(alias="mayfly:job")

    def file_problem(self, path: str) -> str | None:
        """Return why a path is not that of a file of a job."""
        return None if path.startswith((FILES, LOGS, EVIDENCE)) else "it is no file of a job"


def seal_package(
    job: JobRecord, files: Iterable[Sealed], said: Said | None = None
) -> Iterator[bytes]:
    """Yield a job's package, of at least one file; the same arguments make the same bytes."""
    said = said or Said()
    record = job.model_copy(update={"notes": (*job.notes, *said.notes)[:100]})
    head = {
        "$schema": PROFILE,
        "id": f"urn:mayfly:{job.run}:{job.name}",
        "name": f"mayfly-{job.run.lower()}-{job.name}",
        "created": job.finished.isoformat(),
        "version": job.release or NO_RELEASE,
        **said.package,
        "mayfly:job": record.model_dump(mode="json", exclude_none=True),
    }
    return render(head, files, said.resources)


def read_package(key: JobKey, text: bytes) -> Package | Invalid:
    """Return the package that an object holds."""
    package = read_form(Package, text)
    if isinstance(package, Package) and (package.job.run, package.job.name) != (key.run, key.job):
        return Invalid("it is the package of another job")
    return package
