"""Batches' logs, packages and manifests, left in a bucket as an agent would, through the contract."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.contract.descriptor import Role, Sealed
from agent.contract.entries import Began, Closed, Ended, Entry, Object, Planned, write_entry
from agent.contract.facts import Host, Release, Schedule
from agent.contract.ids import Batch, run_id
from agent.contract.layout import EntryKey, JobKey, LogKey, ManifestKey, PointerKey
from agent.contract.manifest import RunRecord, seal_manifest
from agent.contract.names import bucket_path
from agent.contract.names import written as written_name
from agent.contract.package import Attempt, JobRecord, seal_package
from agent.contract.results import JobCause, JobStatus, RunStatus
from tests.bucket.objects import FolderObjects, Objects

RELEASE = Release(
    repository="git@example.org:me/scrapers.git",
    ref="v1.2",
    commit="c" * 40,
    fetched=datetime(2026, 11, 20, tzinfo=UTC),
)
FILES = {"page 1.json": b'{"price": 1}\n', "ページ.csv": b"a,b\n1,2\n"}
"""What a job leaves, where nobody says."""


@dataclass
class RunWriter:
    """A process of a run, which puts what it is told to.

    Attributes:
        objects: The bucket.
        started: When it began; everything arrives then, and later by `after`.
        batch: Which batch it is an attempt at; one by itself where nobody says.
        schedule: The name of its schedule.
        after: How much later the next object arrives. Only a folder can be told when.
    """

    objects: Objects
    started: datetime
    batch: Batch | None = None
    schedule: str = "main"
    nonce: str = "0" * 8
    after: timedelta = timedelta(0)
    number: int = 0
    packages: list[Object] = field(default_factory=list)
    results: list[Ended] = field(default_factory=list)
    log: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        told = f"{self.started.isoformat()}{self.batch}{self.schedule}"
        self.run = run_id(self.started, sha256(told.encode()).digest())
        self.batch = self.batch or Batch.of_run(self.schedule, self.run)

    @property
    def key(self) -> EntryKey:
        """The key of the next entry."""
        assert self.batch is not None
        return EntryKey(self.batch, self.run, self.nonce, self.number)

    @property
    def now(self) -> datetime:
        """When the next object arrives."""
        return self.started + self.after

    def put(self, key: str, content: bytes) -> Object:
        """Store an object, and return what an entry says of it."""
        self.objects.put(key, content)
        if isinstance(self.objects, FolderObjects):
            arrive(self.objects.root / key, self.now)
        return Object(key=key, bytes=len(content), sha256=sha256(content).hexdigest())

    def append(self, *, pointer: bool = True, entry: bool = True, **parts: Any) -> EntryKey:
        """Append an entry, or what is left of one whose put failed."""
        key = self.key
        self.number += 1
        said = Entry(
            schedule=key.batch.schedule,
            batch=key.batch.name,
            run=self.run,
            nonce=self.nonce,
            written=self.now,
            **parts,
        )
        if pointer:
            self.put(PointerKey(self.now, said.kind, key).text, b"")
        if entry:
            self.put(key.text, write_entry(said))
        return key

    def began(self, *, limit: timedelta = timedelta(hours=2), **more: Any) -> Began:
        """Return what it says first."""
        assert self.batch is not None
        group, shard, shards = self.batch.shard or (None, None, None)
        values: dict[str, Any] = {
            "started": self.started,
            "deadline": self.started + limit,
            "host": Host(name="ip-10-0-0-7"),
            "agent": "0.2.0",
            "channel": "v*",
            "slot": self.batch.slot,
            "group": group,
            "shard": shard,
            "shards": shards,
        }
        return Began(**values | more)

    def job(
        self,
        name: str,
        status: str = "succeeded",
        *,
        files: Mapping[str, bytes] = FILES,
        evidence: Mapping[str, bytes] = {},
        message: str = "",
        printed: bytes = b"said something\n",
    ) -> Ended:
        """Put a job's files and its package, and return its result."""
        good = JobStatus(status) is JobStatus.SUCCEEDED
        said: dict[str, Any] = {
            "status": JobStatus(status),
            "cause": None if good else JobCause.PAGE_CHANGED,
        }
        told = {"name": name, "message": message, "seconds": 3.5, **said}
        times = {"started": self.started, "finished": self.now}
        contents = {f"files/{bucket_path(path)}": (path, data) for path, data in files.items()}
        contents |= {f"evidence/attempt-1/{path}": (path, data) for path, data in evidence.items()}
        contents["logs/attempt-1.log"] = ("", printed)
        sealed = [self._file(name, path, *each) for path, each in contents.items()]
        attempt = Attempt(number=1, exit_code=0 if good else 1, **said, **times)
        record = JobRecord(run=self.run, attempts=(attempt,), **told, **times)
        package = self.put(JobKey(self.run, name).text, b"".join(seal_package(record, sealed)))
        self.packages.append(package)
        ended = Ended(
            files=len(files),
            bytes=sum(map(len, files.values())),
            attempts=1,
            package=package,
            **told,
        )
        self.results.append(ended)
        return ended

    def log_part(self, text: bytes = b'{"event":"run"}\n') -> Object:
        """Put the next part of the run's log."""
        part = self.put(LogKey(self.run, len(self.log)).text, text)
        self.log.append(part)
        return part

    def closed(self, status: str = "", **more: Any) -> Closed:
        """Put the manifest of what it did, and return its end."""
        assert self.batch is not None
        said = RunStatus(status or self._status())
        record = RunRecord(
            run=self.run,
            schedule=self.schedule,
            batch=self.batch.name,
            status=said,
            started=self.started,
            finished=self.now,
            agent="0.2.0",
            host=Host(name="ip-10-0-0-7"),
            release=RELEASE,
        )
        log = self.log or [self.log_part()]
        text = b"".join(seal_manifest(record, self.packages, log))
        manifest = self.put(ManifestKey(self.run).text, text)
        return Closed(status=said, finished=self.now, manifest=manifest, **more)

    def _status(self) -> str:
        good = [job.succeeded for job in self.results]
        return "succeeded" if all(good) else "partial" if any(good) else "failed"

    def _file(self, job: str, path: str, name: str, content: bytes) -> Sealed:
        roles = {"files": Role.RESULT, "logs": Role.LOG, "evidence": Role.EVIDENCE}
        self.put(JobKey(self.run, job, path).text, content)
        own = written_name(name) if path.startswith("files/") and path != f"files/{name}" else None
        digest = sha256(content).hexdigest()
        return Sealed(path, len(content), digest, roles[path.split("/", maxsplit=1)[0]], own)


def arrive(path: Path, at: datetime) -> None:
    """Let a file of a folder have arrived at a moment."""
    os.utime(path, ns=(int(at.timestamp() * 1_000_000) * 1000,) * 2)


def leave_run(
    objects: Objects,
    started: datetime,
    jobs: Mapping[str, str] | Iterable[str] = ("quotes",),
    *,
    batch: Batch | None = None,
    schedule: str = "main",
    scheduled: Schedule | None = None,
    until: str = "closed",
    **how: Any,
) -> RunWriter:
    """Leave a run in a bucket, in the agent's order; each step arrives a minute after the one before.

    Args:
        objects: The bucket.
        started: When it began.
        jobs: Its jobs, each with how it ended; without that, they succeeded.
        batch: Which batch it is an attempt at.
        schedule: The name of its schedule.
        scheduled: What it says of it.
        until: The last thing that it did: `pointer` (of its beginning), `began`, `planned`, `jobs`, `closed`.
        how: What else its jobs have; see `RunWriter.job`.
    """
    jobs = jobs if isinstance(jobs, Mapping) else dict.fromkeys(jobs, "succeeded")
    writer = RunWriter(objects, started, batch, schedule)
    steps = ("pointer", "began", "planned", "jobs", "closed")
    last = steps.index(until)
    writer.append(began=writer.began(schedule=scheduled), entry=last > 0)
    for step in steps[2 : last + 1]:
        writer.after += timedelta(minutes=1)
        if step == "planned":
            plan = Planned(release=RELEASE, count=len(jobs), jobs=tuple(jobs))
            writer.append(planned=plan, log=(writer.log_part(),))
        elif step == "jobs":
            results = tuple(writer.job(name, status, **how) for name, status in jobs.items())
            writer.append(jobs=results)
        else:
            writer.append(closed=writer.closed())
    return writer
