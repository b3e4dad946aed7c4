"""What is known of the releases of a channel: entries of runs and operators, one schema. Decisions only.

An entry holds what its writer learnt, and may carry a snapshot: all that was known, with the names of the entries that
it was made from. Like the entries of a batch's log they are written by `write_entry`; `read_release_entry` is
tolerant of what a newer writer says, and trusts nothing.
"""

from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from agent.contract.entries import MOST_BYTES, Invalid, JobName, RunId, read_form
from agent.contract.ids import NONCE, RUN
from agent.contract.layout import NUMBER, ReleaseKey
from agent.contract.results import Count, Message, Moment, Name, OpenEnum, Record

VERSION = 1
MOST_FACTS = 2000
"""In one entry, and in one snapshot; the fold keeps fewer than half of that."""
MOST_COVERED = 5000
MOST_SIGNED = 16 * 1024
"""Characters of a signed object in base64; a signed tag has about five hundred."""
MOST_NAMED = 1000
"""Jobs that one fact names."""
WINDOW = timedelta(days=75)
"""How far back a snapshot names what it was made from: longer than any run, so that nothing older can still arrive."""

Commit = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
Ref = Annotated[str, Field(min_length=1, max_length=300)]
_NAME = rf"^{RUN}-{NONCE}\.{NUMBER}(?:\.snapshot)?$"


class Seen(Record):
    """The commit that a tag named when it was last used."""

    repository: Message = Field(description="Without credentials.")
    tag: Ref
    commit: Commit


class TrialStage(OpenEnum):
    """How far a run has come with a release on trial; an unknown stage does not count against the release."""

    INSTALLING = "installing"
    STARTED = "started"
    ENDED = "ended"  # in order, whatever came of it


class Trial(Record):
    """A run is about to install or to start a release on trial, or has ended the trial in order."""

    commit: Commit
    ref: Ref
    stage: TrialStage
    deadline: Moment = Field(
        description="A trial that did not end until then died with its machine."
    )


class Version(Record):
    """A release within a channel: without an operator, no release below the highest one runs."""

    line: Message = Field(description="Repository, kind and pattern within which it is compared.")
    tag: bool = Field(description="Whether it is a tag; else the head of a branch.")
    ref: Ref
    commit: Commit
    time: Count = Field(0, description="When it was tagged or committed, in Unix seconds.")


class Good(Version):
    """A release that passed its trial, or that an operator declared good: the latest replaces one that cannot run."""

    repository: Message = Field("", description="Without credentials.")
    fetched: Moment
    signed: Annotated[str, Field(max_length=MOST_SIGNED)] | None = Field(
        None, description="The signed object, in base64: it is verified again before each run."
    )
    jobs: tuple[JobName, ...] | None = Field(
        None,
        max_length=MOST_NAMED,
        description="Its jobs as it declares them; null when not known, or more than that.",
    )


class Bad(Record):
    """A release must not be tried again under this ref. Bad beats good."""

    commit: Commit
    ref: Ref
    reason: Message
    agent: Name = Field(
        description="Version of the agent that found it bad; another one looks again."
    )
    operator: bool = Field(False, description="Whether a person said so: that holds for all.")


class Pin(Record):
    """What an operator wants to run; without a ref, the newest again."""

    ref: Ref | None = None
    commit: Commit | None = None
    reason: Message = ""


class Passed(Record):
    """Jobs that succeeded when a release last ran."""

    commit: Commit
    jobs: tuple[JobName, ...] = Field((), max_length=MOST_NAMED)


class Contact(Record):
    """Whether the git server answered, and since when an older release runs than the one that was wanted."""

    reached: Moment | None = None
    unreachable_since: Moment | None = None
    stale_since: Moment | None = None


class Learnt(Record):
    """What was learnt, in parts that are there or not."""

    seen: Seen | None = None
    trial: Trial | None = None
    good: Good | None = None
    bad: Bad | None = None
    lowest: Version | None = Field(
        None, description="An operator went back: this is the minimum version again."
    )
    pin: Pin | None = None
    passed: Passed | None = None
    contact: Contact | None = None


class Fact(Learnt):
    """What was learnt, when it arrived by the store's clock and was written by the writer's, and by whom."""

    at: Moment
    written: Moment
    run: RunId
    by: Name = ""


class Snapshot(Record):
    """All that was known, without what later facts replace."""

    facts: tuple[Fact, ...] = Field((), max_length=MOST_FACTS)
    covers: tuple[Annotated[str, Field(pattern=_NAME)], ...] = Field(
        (), max_length=MOST_COVERED, description="The entries that it was made from, by name."
    )
    since: Moment = Field(description="Runs that began earlier are covered without being named.")


class ReleaseEntry(Record):
    """An entry of what is known of a channel's releases. Parts that a reader does not know are kept and skipped."""

    version: int = Field(VERSION, ge=1, le=1_000_000)
    channel: Name
    run: RunId = Field(description="Of the run, or a name of the same form for an operator's act.")
    nonce: str = Field(pattern=f"^{NONCE}$", description="Of the process that wrote it.")
    written: Moment = Field(description="By the writer's clock; only the store's time decides.")
    by: Name = Field("", description="The machine, or the operator.")
    learnt: tuple[Learnt, ...] = Field((), max_length=MOST_FACTS)
    snapshot: Snapshot | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.learnt and self.snapshot is None and not self.model_extra:
            raise ValueError("the entry has no content")
        return self


def read_release_entry(key: ReleaseKey, text: bytes) -> ReleaseEntry | Invalid:
    """Return the entry in an object that was found at a key: a copy for another channel is invalid."""
    entry = read_form(ReleaseEntry, text, MOST_BYTES)
    if isinstance(entry, Invalid):
        return entry
    own = (entry.channel, entry.run, entry.nonce, entry.snapshot is not None)
    if own != (key.channel, key.run, key.nonce, key.snapshot):
        return Invalid("it is another entry than its key says")
    return entry


def facts_of(entry: ReleaseEntry, arrived: datetime) -> tuple[Fact, ...]:
    """Return the facts of an entry, each with the time at which it arrived."""
    told = {"at": arrived, "written": entry.written, "run": entry.run, "by": entry.by}
    own = tuple(Fact.model_validate({**dict(one), **told}) for one in entry.learnt)
    return (*own, *(entry.snapshot.facts if entry.snapshot else ()))
