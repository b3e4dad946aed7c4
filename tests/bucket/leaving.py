"""Runs as an agent would leave them in a bucket, written out with json alone."""

import json
import mimetypes
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from agent.core.ids import run_started
from agent.core.manifest import HostRecord, ReleaseRecord, RunRecord, Stale
from agent.core.outcome import run_status
from agent.core.results import JobResult, JobStatus, RunStatus
from agent.core.shards import Shard
from tests.bucket import layout
from tests.bucket.bucket import Bucket, reference

RUN = "20261122T064205Z-3f9a1c"
LOG_TEXT = b'{"event":"run.started"}\n'

FILES = {
    "quotes/page 1.json": b"[]",
    "quotes/\u540d\u524d \u3068 100%+#?.txt": b"name",
    "quotes/deep/er/and/deeper.bin": bytes(range(256)) * 9000,  # more than two chunks of the reader
    "quotes/empty": b"",
    "notes/\U0001f98b.md": b"# mayfly",
}
"""Names that survive a hand-off, and contents of all sizes."""


def record(run: str, jobs: Iterable[JobResult] = (), *, stale: bool = False) -> RunRecord:
    """Return a run's record; without jobs it has one that succeeded for each job of `FILES`."""
    jobs = tuple(jobs) or tuple(
        JobResult(name=name, status=JobStatus.SUCCEEDED) for name in ("quotes", "notes")
    )
    began = run_started(run)
    return RunRecord(
        run_id=run,
        status=run_status(jobs, interrupted=False),
        started=began,
        finished=began + timedelta(minutes=3, seconds=5),
        agent="0.1.0",
        host=HostRecord(name="host", system="Linux"),
        release=ReleaseRecord(
            repository="https://example.org/scrapers.git",
            ref="v1.2",
            commit="c" * 40,
            fetched=began - timedelta(days=3),
            stale=Stale(wanted="v1.3", reason="no network", age_seconds=3.0) if stale else None,
        ),
        jobs=jobs,
    )


def leave_run(
    bucket: Bucket,
    run: str = RUN,
    *,
    files: Mapping[str, bytes] = FILES,
    jobs: Iterable[JobResult] = (),
    stale: bool = False,
    commit: bool = True,
    part: Shard | None = None,
    interrupted: bool = False,
) -> str:
    """Leave a run in a bucket, in the agent's order, and return the key of its entry."""
    leave_begun(bucket, run, part=part)
    about = record(run, jobs, stale=stale).model_copy(update=_part(part))
    if interrupted:
        about = about.model_copy(update={"status": RunStatus.INTERRUPTED})
    return leave_record(bucket, about, files, commit=commit)


def leave_record(
    bucket: Bucket, about: RunRecord, files: Mapping[str, bytes], *, commit: bool = True
) -> str:
    """Leave the files of a run, its log and its manifest, and commit it; return the key of its entry."""
    contents = {**files, layout.LOG: LOG_TEXT}
    for path, content in contents.items():
        bucket.put_file(about.run_id, path, content)
    manifest = json.dumps(manifest_of(about, contents), ensure_ascii=False, indent=1).encode()
    bucket.put_manifest(about.run_id, manifest)
    if not commit:
        return layout.entry_key(about.run_id, about.finished)
    entry = entry_of(about, contents) | reference(about.run_id, manifest)
    return bucket.put_entry(about.run_id, entry, at=about.finished)


def leave_begun(
    bucket: Bucket, run: str, *, deadline: datetime | None = None, part: Shard | None = None
) -> None:
    """Leave what a run writes first."""
    began = run_started(run)
    ends = deadline or began + timedelta(hours=2)
    bucket.put_begun(
        run,
        {
            "version": 1,
            "run_id": run,
            "started": began.isoformat(),
            "deadline": ends.isoformat(),
            "host": "ip-10-0-0-7",
            "release_wanted": "v*",
            **_part(part),
        },
    )


def manifest_of(about: RunRecord, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest of a run; the first segment of a file's path is the job."""
    return {
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "id": f"urn:mayfly:{about.run_id}",
        "name": f"mayfly-{about.run_id.lower()}",
        "created": about.finished.isoformat(),
        "version": about.release.ref if about.release else "none",
        "mayfly:run": about.model_dump(mode="json"),
        "resources": [_resource(path, content) for path, content in files.items()],
    }


def entry_of(about: RunRecord, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the entry that commits a run, but for what it says of the manifest."""
    said = about.model_dump(mode="json")
    sizes = [len(content) for path, content in files.items() if _job(path)]
    release = said["release"] or {}
    same = ("run_id", "status", "started", "finished", "interruption", "continues", "cost")
    return {
        "version": 1,
        **{name: said[name] for name in (*same, "slot", "group", "shard", "shards")},
        "release": release.get("ref"),
        "commit": release.get("commit"),
        "stale": release.get("stale") is not None,
        "files": len(sizes),
        "bytes": sum(sizes),
        "jobs": [_summary(job) for job in about.jobs],
    }


def _resource(path: str, content: bytes) -> dict[str, Any]:
    resource = {
        "name": sha256(path.encode()).hexdigest()[:16],
        "path": path,
        "bytes": len(content),
        "hash": f"sha256:{sha256(content).hexdigest()}",
        "mediatype": mimetypes.guess_type(path)[0] or "application/octet-stream",
    }
    return {**resource, "mayfly:job": _job(path)} if _job(path) else resource


def _job(path: str) -> str:
    return "" if path.startswith("_run/") else path.split("/", maxsplit=1)[0]


def _summary(job: JobResult) -> dict[str, Any]:
    said = job.model_dump(mode="json")
    same = (
        "name",
        "family",
        "status",
        "cause",
        "files",
        "bytes",
        "items",
        "state",
        "refused_files",
    )
    return {
        **{name: said[name] for name in same},
        "message": job.message[:300],
        "seconds": job.seconds,
    }


def _part(part: Shard | None) -> dict[str, Any]:
    return {"group": part.group, "shard": part.shard, "shards": part.shards} if part else {}
