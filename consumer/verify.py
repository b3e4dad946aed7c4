"""Checks that every object which a run, a job or a pulled package names is there, with its size and its digest."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from agent.base.errors import StoreError, UsageError
from agent.batch.fold import fold
from agent.batch.named import Search, run_named
from agent.bucket.address import LocalBucket
from agent.contract.descriptor import Descriptor
from agent.contract.entries import Entry, Invalid, Object
from agent.contract.ids import Batch, is_run_id
from agent.contract.layout import (
    DESCRIPTOR,
    INDEX,
    JobKey,
    ManifestKey,
    job_prefix,
    run_prefix,
)
from agent.contract.package import Package
from agent.contract.results import RunStatus
from consumer.bucket import ReadOnlyBucket
from consumer.entries import (
    MOST_DESCRIPTOR_BYTES,
    disagreements,
    read_manifest,
    read_own_package,
    read_package,
)
from consumer.follow import read_log
from consumer.model import Job, batch_of

HASHES_AT_ONCE = 16
"""Each holds about a mebibyte of its file."""

Mark = tuple[int, str]
"""The size and the SHA-256 of an object."""


class Kind(StrEnum):
    """What kind of problem it is."""

    ENTRY = "entry"
    RUN = "run"
    PACKAGE = "package"
    MISSING = "missing"
    EXTRA = "extra"
    SIZE = "size"
    HASH = "hash"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Problem:
    """An object or a file that differs from what names it.

    Attributes:
        path: The object's key, or the file's path; empty for the whole.
        detail: What is wrong, without the path.
    """

    kind: Kind
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        name: The run's id, or the folder.
        status: Of the run, or of the job in a folder.
        files: Objects that are exactly as they are named.
        bytes: Their bytes, all of which were read.
        unnamed: Objects of the run that nothing names: a process that was killed leaves such.
        problems: Everything else, in the order of the paths.
    """

    name: str
    status: str = ""
    files: int = 0
    bytes: int = 0
    unnamed: int = 0
    problems: tuple[Problem, ...] = ()


async def verify_run(
    bucket: ReadOnlyBucket, name: str, now: datetime, job: str | None = None
) -> Report:
    """Check a run of a bucket, by its id or as `latest`, or one job of it, from the entries that commit them.

    Raises:
        UsageError: There is no such run, or no such job in it.
        StoreError: The bucket cannot be read.
    """
    batch, run = await _find(bucket, Search(name, now))
    log = await read_log(bucket, batch)
    runs = {one.id: one for one in batch_of(fold(batch, log), now).runs}
    found = runs[run_named(run, dict.fromkeys(runs, False), bucket.name)]
    if job and job not in found.names:
        names = ", ".join(sorted(found.names)[:20]) or "none"
        raise UsageError(f"{run} has no job {job!r}", remedy=f"its jobs: {names}")
    jobs = [one for one in found.jobs if job in {None, one.name}]
    prefix = job_prefix(run, job) if job else run_prefix(run)
    there = {item.key: item.bytes async for item in bucket.list(prefix)}
    check, status = _Check(bucket, there), found.status(now)
    if not there and any(one.package for one in jobs):
        check.add(Kind.RUN, "", "its files are no longer in the bucket")
        return check.report(run, RunStatus.EXPIRED)
    if status in {RunStatus.RUNNING, RunStatus.LOST}:
        of = f" of {found.planned.count}" if found.planned else ""
        check.add(Kind.RUN, "", f"it did not close; {len(found.jobs)}{of} jobs are done")
    for one in log:
        if one.key.run == run and isinstance(one.entry, Invalid):
            check.add(Kind.ENTRY, one.key.text, one.entry.reason)
    check.named |= _named([one.entry for one in log if one.key.run == run], job)
    for result in jobs:
        if committed := result.committed(run):
            await check.package(result, JobKey(run, result.name), committed)
    if found.closed and found.closed.manifest and not job:
        await check.manifest(ManifestKey(run), found.closed.manifest)
    await check.objects()
    return check.report(run, status)


async def _find(bucket: ReadOnlyBucket, search: Search) -> tuple[Batch, str]:
    if search.possible:
        async for item in bucket.list(INDEX, after=search.after):
            if search.add(item.key):
                break
    return search.found(bucket.name)


async def verify_folder(path: Path) -> Report:
    """Check a pulled package, or all packages of a folder that is pulled into, by what is in the folder.

    Raises:
        StoreError: It cannot be read.
    """
    inner = [
        one
        for one in sorted(path.glob("*/*"))
        if is_run_id(one.name) and one.is_dir() and not one.is_symlink()
    ]
    if (path / DESCRIPTOR).exists() or not inner:
        return await _verify_package(path, str(path))
    reports = [await _verify_inner(one, f"{one.relative_to(path)}/") for one in inner]
    return Report(
        str(path),
        f"{len(reports)} packages",
        sum(one.files for one in reports),
        sum(one.bytes for one in reports),
        problems=tuple(
            replace(problem, path=f"{one.name}{problem.path}")
            for one in reports
            for problem in one.problems
        ),
    )


async def _verify_inner(folder: Path, name: str) -> Report:
    """Check one package of many: one that cannot be listed leaves the others to check."""
    try:
        return await _verify_package(folder, name)
    except StoreError as error:
        return Report(name, problems=(_unreadable("", error),))


async def _verify_package(folder: Path, name: str) -> Report:
    bucket = ReadOnlyBucket.open(LocalBucket(folder), None)
    check = _Check(bucket, {item.key: item.bytes async for item in bucket.list("")})
    text = await check.read(DESCRIPTOR, MOST_DESCRIPTOR_BYTES)
    if text is None:
        check.add(Kind.MISSING, DESCRIPTOR, "no package that can be read is here")
        return check.report(name, "")
    package = read_own_package(text)
    if isinstance(package, Invalid):
        check.add(Kind.PACKAGE, DESCRIPTOR, package.reason)
        return check.report(name, "")
    check.named = {**_marks(package), DESCRIPTOR: (len(text), sha256(text).hexdigest())}
    for extra in sorted(check.there.keys() - check.named.keys()):
        check.add(Kind.EXTRA, extra, "the package does not name it")
    await check.objects()
    return check.report(name, package.job.status)


def _marks(document: Descriptor, prefix: str = "") -> dict[str, Mark]:
    """Return what a package or a manifest names."""
    return {
        f"{prefix}{one.path}": (one.bytes, one.hash.removeprefix("sha256:"))
        for one in document.resources
    }


def _named(entries: Iterable[Entry | Invalid], only: str | None) -> dict[str, Mark]:
    """Return what the entries of a run name."""
    objects: list[Object | None] = []
    for entry in entries:
        if isinstance(entry, Entry):
            jobs = [job for job in entry.jobs if only in {None, job.name}]
            objects += [one for job in jobs for one in (job.package, job.state)]
            if only is None:
                objects += [*entry.log, entry.closed.manifest if entry.closed else None]
    return {one.key: (one.bytes, one.sha256) for one in objects if one}


def _unreadable(path: str, error: StoreError) -> Problem:
    return Problem(Kind.UNREADABLE, path, f"it cannot be read: {error.with_remedy}")


@dataclass
class _Check:
    bucket: ReadOnlyBucket
    there: Mapping[str, int]
    named: dict[str, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    size: int = 0

    def add(self, kind: Kind, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))

    def report(self, name: str, status: str) -> Report:
        problems = sorted(self.problems, key=lambda one: (one.path, one.kind))
        unnamed = len(self.there.keys() - self.named.keys())
        return Report(name, str(status), self.files, self.size, unnamed, tuple(problems))

    async def read(self, key: str, limit: int) -> bytes | None:
        """Return a document; None when there is none of this size, or none that can be read: a problem of its own."""
        try:
            return await self.bucket.get(key, limit=limit)
        except StoreError:  # also one that is too large
            return None

    async def package(self, job: Job, key: JobKey, committed: Object) -> None:
        """Check a job's package, and learn what it names."""
        text = await self.read(key.text, committed.bytes)
        package = read_package(key, committed, text) if text is not None else None
        if isinstance(package, Package):
            self.named |= _marks(package, job_prefix(key.run, key.job))
            for problem in disagreements(job, package):
                self.add(Kind.PACKAGE, key.text, problem)
        elif package is not None:
            self.add(Kind.PACKAGE, key.text, package.reason)

    async def manifest(self, key: ManifestKey, committed: Object) -> None:
        """Check that a run's manifest says the same as its entries."""
        text = await self.read(key.text, committed.bytes)
        manifest = read_manifest(key, committed, text) if text is not None else None
        if isinstance(manifest, Invalid):
            self.add(Kind.PACKAGE, key.text, manifest.reason)
        elif manifest is not None:
            for name, mark in _marks(manifest, run_prefix(key.run)).items():
                if self.named.setdefault(name, mark) != mark:
                    self.add(Kind.PACKAGE, name, "its entry and the run's manifest differ")

    async def objects(self) -> None:
        """Read all that is named, and compare it."""
        queue = iter(sorted(self.named.items()))

        async def work() -> None:
            for key, mark in queue:
                try:
                    problem = await self._problem(key, *mark)
                except StoreError as error:
                    async for _ in self.bucket.list(key):
                        break  # else each object would wait for a store that is gone
                    problem = _unreadable(key, error)
                if problem:
                    self.problems.append(problem)
                else:
                    self.files, self.size = self.files + 1, self.size + mark[0]

        await asyncio.gather(*(work() for _ in range(HASHES_AT_ONCE)))

    async def _problem(self, key: str, size: int, digest: str) -> Problem | None:
        if self.there.get(key, size) != size:
            return Problem(
                Kind.SIZE, key, f"it has {self.there[key]} bytes, and should have {size}"
            )
        found, read = sha256(), 0
        try:
            async for piece in self.bucket.pieces(key, size):
                found.update(piece)
                read += len(piece)
                if read > size:
                    return Problem(Kind.SIZE, key, f"it has more than {size} bytes")
        except FileNotFoundError:
            return Problem(Kind.MISSING, key, "it is not there")
        if read != size:
            return Problem(Kind.SIZE, key, f"it has {read} bytes, and should have {size}")
        if found.hexdigest() != digest:
            return Problem(Kind.HASH, key, "its content is not what was committed")
        return None
