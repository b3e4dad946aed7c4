"""Runs as an agent would leave them in a bucket."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from agent.core.datapackage import Sealed, index_entry, render
from agent.core.ids import run_started
from agent.core.layout import LOG, index_key, manifest_key, run_key, started_key
from agent.core.manifest import (
    HostRecord,
    ManifestRef,
    ReleaseRecord,
    RunRecord,
    Stale,
    StartedMarker,
)
from agent.core.outcome import run_status
from agent.core.results import JobResult, JobStatus, RunStatus
from agent.core.shards import Shard
from tests.consumer.shelf import Shelf

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
    """A run's record; without jobs it has one that succeeded for each job of `FILES`."""
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


def sealed(files: Mapping[str, bytes]) -> list[Sealed]:
    """Files as the manifest lists them; the first segment of a path is the job."""
    return [
        Sealed(path, len(content), sha256(content).hexdigest(), path.split("/")[0])
        for path, content in files.items()
    ]


def leave_run(
    shelf: Shelf,
    run: str = RUN,
    *,
    files: Mapping[str, bytes] = FILES,
    jobs: Iterable[JobResult] = (),
    stale: bool = False,
    commit: bool = True,
    part: Shard | None = None,
    interrupted: bool = False,
) -> str:
    """Leave a run in a bucket, in the agent's order, and return the key of its index entry."""
    leave_marker(shelf, run, part=part)
    for path, content in {**files, LOG: LOG_TEXT}.items():
        shelf.put(run_key(run, path), content)
    rows = [*sealed(files), Sealed(LOG, len(LOG_TEXT), sha256(LOG_TEXT).hexdigest())]
    about = as_part(record(run, jobs, stale=stale), part)
    if interrupted:
        about = about.model_copy(update={"status": RunStatus.INTERRUPTED})
    manifest = b"".join(render(about, rows))
    shelf.put(manifest_key(run), manifest)
    ref = ManifestRef(
        key=manifest_key(run), bytes=len(manifest), sha256=sha256(manifest).hexdigest()
    )
    key = index_key(run, about.finished)
    if commit:
        shelf.put(key, index_entry(about, rows, ref).model_dump_json().encode())
    return key


Said = TypeVar("Said", RunRecord, StartedMarker)


def as_part(said: Said, part: Shard | None) -> Said:
    """What a run says of itself, when it is a shard."""
    if part is None:
        return said
    told = {"group": part.group, "shard": part.shard, "shards": part.shards}
    return said.model_copy(update=told)


def leave_marker(
    shelf: Shelf, run: str, *, deadline: datetime | None = None, part: Shard | None = None
) -> None:
    """Leave what a run writes first."""
    began = run_started(run)
    marker = StartedMarker(
        run_id=run,
        started=began,
        deadline=deadline or began + timedelta(hours=2),
        host="ip-10-0-0-7",
        release_wanted="v*",
    )
    marker = as_part(marker, part)
    shelf.put(started_key(run), marker.model_dump_json().encode())
