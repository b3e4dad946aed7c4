"""The manifest: a Data Package v2 descriptor (https://datapackage.org) with what Mayfly knows under `mayfly:`.

The models read and describe it; `render` writes it row by row, because a run may have a hundred thousand files.
`docs/schemas/manifest.schema.json` and `index.schema.json` are generated from the models.
"""

import json
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.core.errors import Refusal
from agent.core.layout import LOG, path_problem
from agent.core.results import (
    CostRecord,
    IsolationRecord,
    JobCause,
    JobResult,
    JobStatus,
    Record,
    RefusedFile,
    RunStatus,
)
from agent.core.trust import Signer

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
MANIFEST_VERSION = 1
INDEX_VERSION = 1

# The built-in table only: the same file has the same media type on every machine.
_TYPES = mimetypes.MimeTypes(filenames=())
_TYPES.add_type("application/x-ndjson", ".jsonl")
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("image/webp", ".webp")
_TYPES.add_type("application/vnd.apache.parquet", ".parquet")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file as it is in the bucket.

    Attributes:
        path: Relative to the run's prefix, such as `quotes/page 1.json`.
        bytes: Its size.
        sha256: Hex digest of exactly the bytes that were sent.
        job: The job it belongs to; empty for the run's own files.
        partial: Whether that job did not succeed.
    """

    path: str
    bytes: int
    sha256: str
    job: str = ""
    partial: bool = False


class Resource(BaseModel):
    """A file of the run, as a Data Package resource."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    name: str
    path: str
    bytes: int = Field(ge=0)
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    mediatype: str
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


class RunRecord(Record):
    """What Mayfly knows about a run."""

    version: int = MANIFEST_VERSION
    run_id: str
    status: RunStatus
    started: datetime
    finished: datetime
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
    status: JobStatus
    cause: JobCause | None = None
    message: str = ""
    files: int = 0
    bytes: int = 0
    items: int | None = None
    seconds: float = 0.0
    state: str | None = None


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


def render(run: RunRecord, files: Iterable[Sealed]) -> Iterator[bytes]:
    """Yield the manifest as UTF-8 JSON in small pieces.

    Args:
        run: The run.
        files: Every file but the manifest, the log among them, in the order in which they shall be listed.
    """
    head = {
        "$schema": PROFILE,
        "id": f"urn:mayfly:{run.run_id}",
        "name": f"mayfly-{run.run_id.lower()}",
        "created": run.finished.isoformat(),
        "version": run.release.ref if run.release else "none",
        "mayfly:run": run.model_dump(mode="json", exclude_defaults=False),
    }
    yield json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}").encode()
    yield b',\n "resources": ['
    separator = b"\n  "
    for file in files:
        yield separator + json.dumps(resource_of(file), ensure_ascii=False).encode()
        separator = b",\n  "
    yield b"\n ]\n}\n"


def resource_of(file: Sealed) -> dict[str, Any]:
    """Return a file as a Data Package resource."""
    resource: dict[str, Any] = {
        "name": resource_name(file.path),
        "path": file.path,
        "bytes": file.bytes,
        "hash": f"sha256:{file.sha256}",
        "mediatype": media_type(file.path),
    }
    if file.job:
        resource["mayfly:job"] = file.job
    if file.partial:
        resource["mayfly:partial"] = True
    return resource


def resource_name(path: str) -> str:
    """Return a name that is unique as the path is, in the alphabet that Data Package recommends."""
    slug = re.sub(r"[^a-z0-9._/-]+", "-", path.lower()).strip("-")
    if slug == path:
        return slug
    return f"{slug[:100].rstrip('-')}-{sha256(path.encode()).hexdigest()[:8]}"


def media_type(path: str) -> str:
    """Return a file's media type by its name; `application/octet-stream` when that says nothing."""
    kind, encoding = _TYPES.guess_type(path)
    if encoding is not None:
        return {"gzip": "application/gzip", "xz": "application/x-xz"}.get(
            encoding, "application/octet-stream"
        )
    return kind or "application/octet-stream"


def with_contents(
    run: RunRecord, files: Iterable[Sealed], refused: Mapping[str, tuple[RefusedFile, ...]]
) -> RunRecord:
    """Return the run with each job's files and bytes as they are in the bucket, and what was refused."""
    totals: dict[str, tuple[int, int]] = {}
    for file in files:
        count, size = totals.get(file.job, (0, 0))
        totals[file.job] = (count + 1, size + file.bytes)
    jobs = tuple(
        job.model_copy(
            update={
                "files": totals.get(job.name, (0, 0))[0],
                "bytes": totals.get(job.name, (0, 0))[1],
                "refused": refused.get(job.name, ()),
            }
        )
        for job in run.jobs
    )
    return run.model_copy(update={"jobs": jobs})


def index_entry(run: RunRecord, files: Iterable[Sealed], manifest: ManifestRef) -> IndexEntry:
    """Return the entry that commits a run."""
    count = size = 0
    for file in files:
        count, size = count + bool(file.job), size + (file.bytes if file.job else 0)
    return IndexEntry(
        run_id=run.run_id,
        status=run.status,
        started=run.started,
        finished=run.finished,
        release=run.release.ref if run.release else None,
        commit=run.release.commit if run.release else None,
        stale=run.release is not None and run.release.stale is not None,
        files=count,
        bytes=size,
        cost=run.cost,
        jobs=tuple(
            JobSummary(
                name=job.name,
                status=job.status,
                cause=job.cause,
                message=job.message[:300],
                files=job.files,
                bytes=job.bytes,
                items=job.items,
                seconds=job.seconds,
                state=job.state,
            )
            for job in run.jobs
        ),
        manifest=manifest,
    )


def manifest_problems(manifest: Manifest) -> list[str]:
    """Return what is wrong with a manifest by itself: paths that lead elsewhere, names or paths used twice."""
    problems = []
    paths: set[str] = set()
    names: set[str] = set()
    for resource in manifest.resources:
        problem = path_problem(resource.path)
        if problem:
            problems.append(f"{resource.path!r}: {problem}")
        if resource.path in paths:
            problems.append(f"{resource.path!r}: listed twice")
        if resource.name in names:
            problems.append(f"{resource.name!r}: two resources have this name")
        paths.add(resource.path)
        names.add(resource.name)
    if LOG not in paths:
        problems.append(f"{LOG!r}: the run log is not listed")
    return problems
