"""Runs of the history as if they were read from the bucket, for what shows both."""

from datetime import UTC, datetime
from typing import TypedDict

from agent.core.layout import manifest_key, parse_index_key
from agent.core.manifest import IndexEntry, JobSummary, ManifestRef, StartedMarker
from agent.core.shards import Shard

from consumer.archive.reader import Reader
from consumer.facts.rows import BegunRow, JobRow, RunRow
from consumer.history import Begun, Committed, Row, Unreadable


def recall(reader: Reader, now: datetime, limit: int) -> list[Row]:
    """Return the `limit` newest runs by their start, newest first, as `consumer.history.recent` does.

    Raises:
        ArchiveError: The history cannot be read.
    """
    rows: list[Row] = [_begun(row, now) for row in reader.begun()]
    rows += [Unreadable(row.key, row.run, row.problem) for row in reader.refused(limit)]
    newest = sorted(rows, key=lambda row: row.run, reverse=True)[:limit]
    committed = [_committed(reader, row) for row in reader.runs(limit)]
    newest += [row for row in committed if row is not None]
    return sorted(newest, key=lambda row: row.run, reverse=True)[:limit]


def _begun(row: BegunRow, now: datetime) -> Begun:
    marker = StartedMarker(
        run_id=row.run,
        started=_at(row.started),
        deadline=_at(row.deadline),
        host=row.host,
        release_wanted=row.release_wanted,
        **_of_part(row.part),
    )
    return Begun(marker, vanished=row.deadline < now.timestamp())


def _committed(reader: Reader, row: RunRow) -> Committed | None:
    key, about = parse_index_key(reader.key(row.run)), reader.committed(row.run)
    if key is None or about is None:
        return None
    manifest = ManifestRef(key=manifest_key(row.run), bytes=about.bytes, sha256=about.sha256)
    entry = IndexEntry(
        run_id=row.run,
        status=row.status,
        started=_at(row.started),
        finished=_at(row.finished),
        release=row.release,
        commit=row.commit,
        stale=row.stale,
        files=row.files,
        bytes=row.bytes,
        jobs=tuple(_summary(job) for job in reader.jobs_of(row.run)),
        manifest=manifest,
        **_of_part(row.part),
    )
    return Committed(key, entry)


class _Told(TypedDict, total=False):
    group: str
    shard: int
    shards: int


def _of_part(part: Shard | None) -> _Told:
    if part is None:
        return {}
    return {"group": part.group, "shard": part.shard, "shards": part.shards}


def _summary(job: JobRow) -> JobSummary:
    return JobSummary(
        name=job.name,
        family=job.family,
        status=job.status,
        cause=job.cause,
        message=job.message,
        files=job.files,
        bytes=job.bytes,
        items=job.items,
        seconds=job.seconds,
        refused_files=job.refused_files,
    )


def _at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
