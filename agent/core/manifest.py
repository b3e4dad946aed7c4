"""The manifest: a Data Package v2 descriptor (https://datapackage.org) with what Mayfly knows under `mayfly:`.

The models read and describe it; `render` writes it row by row, because a run may have a hundred thousand files.
`docs/schemas/manifest.schema.json` and `index.schema.json` are generated from the models.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agent.base.errors import Refusal
from agent.core.results import (
    CostRecord,
    Family,
    IsolationRecord,
    JobCause,
    JobResult,
    JobStatus,
    Record,
    RefusedFiles,
    RunStatus,
)
from agent.release.trust import Signer

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
MANIFEST_VERSION = 1
INDEX_VERSION = 1


class Resource(BaseModel):
    """A file of the run, as a Data Package resource."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    name: str
    path: str
    bytes: int = Field(ge=0)
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    mediatype: str
    original: str | None = Field(
        None,
        alias="mayfly:path",
        description="The name that the file had in its job's folder, where `path` could not hold it. `%`, control"
        " characters and bytes that are not UTF-8 are `%` and two hex digits for each byte.",
    )
    job: str | None = Field(None, alias="mayfly:job")
    partial: bool = Field(False, alias="mayfly:partial")


class Stale(Record):
    """Why an older release ran than the one that was wanted."""

    wanted: str = Field(description="The ref that was wanted, such as a tag or a tracking pattern.")
    reason: str
    age_seconds: float = Field(ge=0, description="Since the running release was first fetched.")
    since: datetime | None = Field(None, description="The first run in a row in which it was so.")


class RefusedRelease(Record):
    """A release that was offered and did not run."""

    ref: str
    commit: str | None = None
    kind: Refusal = Field(description="At which step it was refused.")
    reason: str


class RolledBack(Record):
    """The release that failed its trial in this run."""

    ref: str
    commit: str
    reason: str
    jobs: tuple[str, ...] = Field(description="What ran once more, on the last good release.")


class ReleaseRecord(Record):
    """The release that ran; after a rollback, the one that took over."""

    repository: str = Field(description="Without credentials.")
    ref: str
    commit: str
    fetched: datetime
    age_seconds: float | None = Field(None, ge=0, description="Since it was first fetched.")
    trust: Literal["signed", "none"] = Field(
        "none", description='"signed": only what `release.allowed_signers` names may run.'
    )
    verified_by: Signer | None = Field(None, description="Who signed it; null without a check.")
    reached: datetime | None = Field(None, description="When the repository last answered.")
    unreachable_since: datetime | None = Field(
        None, description="The first run in a row to which it did not."
    )
    trial: Literal["passed", "failed", "undecided"] | None = Field(
        None, description="How the trial of a new release ended; null when it was good already."
    )
    stale: Stale | None = None
    refused: tuple[RefusedRelease, ...] = ()
    rolled_back_from: RolledBack | None = None


class BrowserRecord(Record):
    """The browser that the jobs used."""

    kind: Literal["container", "chromedriver", "remote"]
    name: str = Field(description="Browser and version, as its session said.")
    image: str | None = None
    digest: str | None = None
    restarts: int = 0


class PreviousBoot(Record):
    """The boot before this one, on a machine that keeps its disk."""

    boot_id: str
    off: datetime = Field(description="When the last of its units was stopped.")


class HostRecord(Record):
    """The machine that ran."""

    name: str
    system: str
    boot_id: str | None = None
    booted: datetime | None = None
    instance_id: str | None = None
    instance_type: str | None = None
    zone: str | None = None
    image: str | None = None
    life_cycle: Literal["on-demand", "spot"] | None = Field(
        None, description="How the machine is paid for."
    )
    previous: PreviousBoot | None = Field(
        None, description="Null without one, or when it did not end in order."
    )


class Phase(Record):
    """When a part of the run began and how long it took; phases overlap."""

    name: str
    started: datetime
    seconds: float = Field(ge=0)


class Unsent(Record):
    """A file that could not be sent before the machine was taken back; the run that continues this one has it."""

    path: str
    bytes: int = Field(ge=0)
    job: str


class RunRecord(Record):
    """What Mayfly knows about a run."""

    version: int = MANIFEST_VERSION
    run_id: str
    status: RunStatus
    started: AwareDatetime
    finished: AwareDatetime
    agent: str = Field(description="The agent's version.")
    host: HostRecord
    release: ReleaseRecord | None = Field(None, description="Null when none could run.")
    browser: BrowserRecord | None = None
    isolation: IsolationRecord | None = Field(
        None, description="Null when no job was about to start."
    )
    jobs: tuple[JobResult, ...] = ()
    phases: tuple[Phase, ...] = ()
    interruption: str | None = Field(None, description="Who or what stopped the run.")
    recovered: str | None = Field(None, description="The later run that handed this one over.")
    unsent: tuple[Unsent, ...] = Field(
        (), description="What was not sent in time; a run that `continues` this one holds it."
    )
    continues: str | None = Field(
        None, description="The run of which this one holds what that could not send in time."
    )
    slot: datetime | None = Field(
        None, description="The scheduled time that the run was for; null when nobody said."
    )
    group: str | None = Field(None, description="What the shards of one batch have in common.")
    shard: int | None = Field(None, ge=0, description="Which shard of the group, from 0.")
    shards: int | None = Field(None, ge=1, description="How many there are.")
    cost: CostRecord | None = Field(None, description="Null where nothing is billed or known.")
    conditional_writes: bool | None = Field(
        None, description="Whether the bucket was seen to refuse a second write of a key."
    )
    warnings: tuple[str, ...] = ()


class Manifest(BaseModel):
    """A run's `datapackage.json`."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    profile: Literal["https://datapackage.org/profiles/2.0/datapackage.json"] = Field(
        alias="$schema"
    )
    id: str
    name: str
    created: datetime
    version: str = Field(description="The release's ref.")
    resources: tuple[Resource, ...] = Field(min_length=1)
    run: RunRecord = Field(alias="mayfly:run")


class JobSummary(Record):
    """A job in an index entry: what a dashboard needs without opening the manifest."""

    name: str
    family: Family = None
    status: JobStatus
    cause: JobCause | None = None
    message: str = ""
    files: int = 0
    bytes: int = 0
    items: int | None = None
    seconds: float = 0.0
    state: str | None = None
    refused_files: RefusedFiles = 0

    @property
    def incomplete(self) -> bool:
        """Whether it succeeded, and not all that it wrote could be handed over."""
        return self.status is JobStatus.SUCCEEDED and self.refused_files > 0


class ManifestRef(Record):
    """The manifest that an index entry commits."""

    key: str
    bytes: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class IndexEntry(Record):
    """The commit point of a run: it exists, so the run does."""

    version: int = INDEX_VERSION
    run_id: str
    status: RunStatus
    started: datetime
    finished: datetime
    release: str | None = Field(None, description="Ref of the release that ran.")
    commit: str | None = None
    stale: bool = False
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    interruption: str | None = Field(None, description="Who or what stopped the run.")
    continues: str | None = Field(None, description="The run whose late files this one holds.")
    slot: datetime | None = None
    group: str | None = None
    shard: int | None = Field(None, ge=0)
    shards: int | None = Field(None, ge=1)
    cost: CostRecord | None = None
    jobs: tuple[JobSummary, ...]
    manifest: ManifestRef


class StartedMarker(Record):
    """Says that a run began, so that one that vanishes is told from one that never was."""

    version: int = 1
    run_id: str
    started: datetime
    deadline: datetime = Field(description="A run without an index entry past this has vanished.")
    host: str
    release_wanted: str
    slot: datetime | None = None
    group: str | None = None
    shard: int | None = Field(None, ge=0)
    shards: int | None = Field(None, ge=1)
