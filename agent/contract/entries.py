"""The entries of a batch's log: one schema, of which each entry has some parts. Decisions only.

`write_entry` is strict: every reader accepts what it writes. `read_entry` accepts unknown fields of a newer writer and
returns `Invalid` for what is damaged or forged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from agent.contract.facts import Cost, Host, Phase, Release, Schedule
from agent.contract.ids import JOB, NONCE, RUN, SCHEDULE
from agent.contract.layout import EntryKey, JobKey, LogKey, ManifestKey, StateKey, parse_key
from agent.contract.results import (
    Count,
    JobCause,
    JobStatus,
    Message,
    Moment,
    Name,
    Record,
    RunStatus,
    Seconds,
    Sha256,
)

VERSION = 1
LONGEST_RUN = timedelta(days=31)
MOST_JOBS = 200
"""Results in one entry; what ends beyond it goes into further entries of the same commit."""
MOST_PLANNED = 10_000
"""Jobs that a plan names; `count` tells how many there are."""
MOST_OUTPUTS = 14
MOST_BYTES = 2 * 1024**2
"""Of an entry; two hundred ordinary results have a hundred kilobytes."""
MOST_VALUES = 100_000
"""Of an entry; one with the most of everything has 73,000, and a value can take fifty times the memory of its text."""

_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Strings; one without an end too, or each quote in it would be tried as a beginning."""
_WITHOUT_PACKAGE = frozenset({JobStatus.SKIPPED, JobStatus.UNKNOWN})

JobName = Annotated[str, Field(pattern=f"^{JOB}$")]
RunId = Annotated[str, Field(pattern=f"^{RUN}$")]
Form = TypeVar("Form", bound=Record)


class Began(Record):
    """A run began. Nothing else of the run comes before it."""

    started: Moment
    deadline: Moment = Field(description="A run that did not close until then is lost.")
    host: Host
    agent: Name = Field(description="The agent's version.")
    channel: Name = Field(description="Which releases it follows.")
    slot: Moment | None = Field(None, description="The scheduled time that it is for.")
    group: Name | None = Field(None, description="What the shards of one batch have in common.")
    shard: Count | None = Field(None, description="Which shard of the group, from 0.")
    shards: Count | None = None
    schedule: Schedule | None = Field(None, description="Null where nobody scheduled it.")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        """Refuse a deadline that would keep a run alive, and others away, for ever."""
        if not timedelta(0) <= self.deadline - self.started <= LONGEST_RUN:
            raise ValueError("its deadline is before its start, or months after it")
        return self


class LeftOut(Record):
    """A job that will not run."""

    name: JobName
    reason: Message


class Planned(Record):
    """What the run is going to do; a later plan replaces it."""

    release: Release | None = Field(None, description="Null when none could run.")
    count: Count = Field(description="How many jobs will run.")
    jobs: tuple[JobName, ...] = Field(
        (), max_length=MOST_PLANNED, description="Their names, as far as there is room."
    )
    left_out: tuple[LeftOut, ...] = Field((), max_length=MOST_PLANNED)


class Object(Record):
    """An object in the bucket, with its size and digest."""

    key: str = Field(max_length=1024)
    bytes: Count
    sha256: Sha256


class Output(Record):
    """What one success of a job produced, for `expect.drop`, and how long it took."""

    files: Count
    items: Count | None = None
    seconds: Seconds | None = None


class Ended(Record):
    """A job that ended, with its package: this commits it."""

    name: JobName
    family: JobName | None = Field(
        None, description="The job's name in jobs.toml, the same for all values of a matrix."
    )
    status: JobStatus
    cause: JobCause | None = None
    message: Message = ""
    files: Count = 0
    bytes: Count = 0
    items: Count | None = Field(None, description="What the job says it collected.")
    seconds: Seconds = 0.0
    attempts: Count = 0
    refused: Count = Field(0, description="Files that could not be results.")
    release: Name | None = Field(
        None, description="The commit that made it, where that is not the plan's."
    )
    package: Object | None = Field(None, description="Null only for a job that was skipped.")
    state: Object | None = Field(None, description="What it left for its next run.")
    outputs: tuple[Output, ...] = Field(
        (), max_length=MOST_OUTPUTS, description="Of this job's last successes, this one last."
    )

    @property
    def succeeded(self) -> bool:
        """Whether the job need not run again in this batch."""
        return self.status is JobStatus.SUCCEEDED

    @property
    def incomplete(self) -> bool:
        """Whether it succeeded and a file of it was refused all the same."""
        return self.succeeded and self.refused > 0


class Closed(Record):
    """How the run ended. On a machine that keeps its disk, `jobs` of what is pending may follow."""

    status: RunStatus
    finished: Moment
    manifest: Object | None = Field(None, description="Null when there was no time for one.")
    phases: tuple[Phase, ...] = Field((), max_length=100)
    cost: Cost | None = Field(None, description="Null where nothing is billed or known.")
    interruption: Message | None = Field(None, description="Who or what stopped the run.")
    recovered_by: RunId | None = Field(None, description="The later run that closed this one.")
    pending: tuple[JobName, ...] = Field(
        (), max_length=MOST_PLANNED, description="Jobs that ended and could not be sent yet."
    )
    not_sent: Count = Field(0, description="Jobs that ended and are lost, with their disk.")
    warnings: tuple[Message, ...] = Field((), max_length=100)


class StoodBack(Record):
    """Why the run did nothing: its batch is done, or another run works on it."""

    reason: Message
    run: RunId | None = Field(None, description="The run that has the batch.")


class Entry(Record):
    """An entry of a batch's log. Parts that a reader does not know are kept and skipped."""

    version: int = Field(VERSION, ge=1, le=1_000_000)
    schedule: str = Field(pattern=f"^{SCHEDULE}$")
    batch: Name
    run: RunId
    nonce: str = Field(pattern=f"^{NONCE}$", description="Of the process that wrote it.")
    written: Moment = Field(description="By the writer's clock; only the store's time decides.")
    began: Began | None = None
    planned: Planned | None = None
    jobs: tuple[Ended, ...] = Field((), max_length=MOST_JOBS)
    log: tuple[Object, ...] = Field((), max_length=1000, description="New parts of the run's log.")
    closed: Closed | None = None
    stood_back: StoodBack | None = None

    @property
    def kind(self) -> str:
        """What its pointer calls it: the part that a reader waits for most."""
        parts = (
            ("stood_back", self.stood_back),
            ("closed", self.closed),
            ("jobs", self.jobs),
            ("began", self.began),
            ("planned", self.planned),
            ("log", self.log),
        )
        return next((name for name, part in parts if part), "other")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """Refuse parts that contradict each other, and objects of other runs."""
        if self.closed and self.stood_back:
            raise ValueError("a run that stood back does not close in another way as well")
        if self.stood_back and self.jobs:
            raise ValueError("a run that stood back has no results")
        if len({job.name for job in self.jobs}) < len(self.jobs):
            raise ValueError("a job is listed twice")
        for job in self.jobs:
            if job.package is None and job.status.known not in _WITHOUT_PACKAGE:
                raise ValueError(f"{job.name} has no package")
        for text, allowed in self._objects():
            if parse_key(text) not in allowed:
                raise ValueError(f"{text[:200]!r} is not an object of its run")
        return self

    def _objects(self) -> Iterator[tuple[str, Sequence[object]]]:
        for job in self.jobs:
            if job.package:
                yield job.package.key, [JobKey(self.run, job.name)]
            if job.state:
                kept = [StateKey(job.name, self.run, checkpoint) for checkpoint in (False, True)]
                yield job.state.key, kept
        for part in self.log:
            key = parse_key(part.key)
            yield part.key, [key] if isinstance(key, LogKey) and key.run == self.run else []
        if self.closed and self.closed.manifest:
            yield self.closed.manifest.key, [ManifestKey(self.run)]


@dataclass(frozen=True, slots=True)
class Invalid:
    """A document that cannot be used, and why; the reason is safe to show."""

    reason: str


def read_entry(
    key: EntryKey, text: bytes, extra: Literal["allow", "ignore"] = "allow"
) -> Entry | Invalid:
    """Return the entry in an object that was found at a key: a copy in another place is invalid.

    `extra` says what becomes of a newer writer's fields.
    """
    if _has_too_many_values(text):
        return Invalid(f"it has more than {MOST_VALUES} values")
    entry = read_form(Entry, text, MOST_BYTES, extra)
    if isinstance(entry, Invalid):
        return entry
    own = (entry.schedule, entry.batch, entry.run, entry.nonce)
    if own != (key.batch.schedule, key.batch.name, key.run, key.nonce):
        return Invalid("it is another entry than its key says")
    return entry


def write_entry(entry: Record) -> bytes:
    """Return an entry of a batch's log, or of what is known of releases, as it is put.

    Raises:
        ValueError: It breaks its own rules, such as a bound; the caller has a defect.
    """
    text = entry.model_dump_json(exclude_none=True).encode()
    if len(text) > MOST_BYTES:
        raise ValueError(f"an entry of {len(text)} bytes; the most is {MOST_BYTES}")
    if isinstance(entry, Entry) and _has_too_many_values(text):
        raise ValueError(f"an entry of more than {MOST_VALUES} values")
    # model_copy() and a model that was built part by part are not checked otherwise.
    type(entry).model_validate_json(text)
    return text


def _has_too_many_values(text: bytes) -> bool:
    bare = _TEXTS.sub(b"", text)
    return sum(map(bare.count, (b",", b"[", b"{"))) > MOST_VALUES


def read_form(
    form: type[Form],
    text: bytes,
    most: int | None = None,
    extra: Literal["allow", "ignore"] = "allow",
) -> Form | Invalid:
    """Return the document in an object of at most `most` bytes."""
    if most is not None and len(text) > most:
        return Invalid(f"it has {len(text)} bytes, more than {most}")
    try:
        return form.model_validate(from_json(text, allow_inf_nan=False), extra=extra)
    except (ValueError, RecursionError) as error:
        return Invalid(reason_of(error))


def reason_of(error: Exception) -> str:
    """Return why a document is not valid: the first fault, and where it is."""
    if not isinstance(error, ValidationError):
        return str(error)[:200]
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place or 'document'}: {first['msg']}"[:200]
