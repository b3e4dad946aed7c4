"""Writing a run as a Data Package (https://datapackage.org), row by row: a run may have a hundred thousand files."""

import json
import mimetypes
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Self

from agent.contract.names import bucket_path, parse_written, path_problem
from agent.core.layout import LOG
from agent.core.manifest import (
    PROFILE,
    IndexEntry,
    JobSummary,
    Manifest,
    ManifestRef,
    Resource,
    RunRecord,
)

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
        original: The name that it had in that job's folder, as `agent.contract.names.written` gives it; empty where the
            path has it.
    """

    path: str
    bytes: int
    sha256: str
    job: str = ""
    partial: bool = False
    original: str = ""

    def of_job(self, job: str, *, partial: bool = False) -> Self:
        """Return it as a file of a job; itself, where it is that already."""
        if (self.job, self.partial) == (job, partial):
            return self
        return replace(self, job=job, partial=partial)


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
    if file.original:
        resource["mayfly:path"] = file.original
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


def with_contents(run: RunRecord, files: Iterable[Sealed]) -> RunRecord:
    """Return the run with each job's files and bytes as they are in the bucket."""
    totals: dict[str, tuple[int, int]] = {}
    for file in files:
        count, size = totals.get(file.job, (0, 0))
        totals[file.job] = (count + 1, size + file.bytes)
    jobs = tuple(
        job.model_copy(
            update={
                "files": totals.get(job.name, (0, 0))[0],
                "bytes": totals.get(job.name, (0, 0))[1],
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
        interruption=run.interruption and run.interruption[:300],
        continues=run.continues,
        slot=run.slot,
        group=run.group,
        shard=run.shard,
        shards=run.shards,
        cost=run.cost,
        jobs=tuple(
            JobSummary(
                name=job.name,
                family=job.family,
                status=job.status,
                cause=job.cause,
                message=job.message[:300],
                files=job.files,
                bytes=job.bytes,
                items=job.items,
                seconds=job.seconds,
                state=job.state,
                refused_files=job.refused_files,
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
        if problem := _original_problem(resource):
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


def _original_problem(resource: Resource) -> str | None:
    """Return why the name that a file is said to have had cannot be. One that can leads to this path and no other."""
    if resource.original is None:
        return None
    try:
        name = parse_written(resource.original)
    except ValueError as error:
        return f"its original name is impossible: {error}"
    if resource.path != f"{resource.job}/{bucket_path(name)}":
        return "its original name is another file's"
    return None
