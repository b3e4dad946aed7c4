"""Objects of runs, read from the bucket: only what an entry commits, directly or through a package.

The last piece is given when size and digest of the whole are right, so that what is forged ends short of its length.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import cast

from agent.base.errors import MayflyError, StoreError
from agent.contract.descriptor import Resource, Role
from agent.contract.entries import Invalid, Object
from agent.contract.layout import DESCRIPTOR, EVIDENCE, LOGS, JobKey, LogKey, ManifestKey, parse_key
from agent.contract.package import Package
from consumer.bucket import ReadOnlyBucket
from consumer.diff import Changes, changes_of, compare_files, results_of
from consumer.entries import read_package
from consumer.model import Batch, Run
from consumer.page.given import MOST_LOG_BYTES, MOST_VIEW_BYTES, Text
from consumer.store import Store

MOST_PACKAGE_BYTES = 4 * 1024**2
"""About 16,000 files; a larger package is looked at with `mayfly verify` and `mayfly pull`."""
MOST_READ_BYTES = 64 * 1024**2
"""Of a file that is read to its end to be verified, of which little is shown."""
KEPT_PACKAGES = 8
EXPIRES = timedelta(days=2)
"""A run of which an object is not there, so long after it began, has been deleted; before that the store may lag."""

Runs = Mapping[str, tuple[Batch, Run]]


class AbsentError(StoreError):
    """There is no such object, or it is not what was committed."""


@dataclass(frozen=True, slots=True)
class File:
    """An object that is committed.

    Attributes:
        object: Its key, size and digest.
        mediatype: As the package names it.
        name: Its file name, where a job wrote it.
        ours: Whether Mayfly wrote it, or keeps it as evidence: a text of it is shown.
    """

    object: Object
    mediatype: str
    name: str
    ours: bool


class Objects:
    """What is committed, read from the bucket."""

    def __init__(self, bucket: ReadOnlyBucket, store: Store) -> None:
        self._bucket = bucket
        self._store = store
        self._packages: OrderedDict[tuple[str, str], Package] = OrderedDict()

    def use(self, store: Store) -> None:
        """Go on with a history that was opened again."""
        self._store = store

    async def package(self, runs: Runs, run: str, job: str) -> Package | Invalid | None:
        """Return a job's package; None when it has none.

        Raises:
            StoreError: The bucket cannot be read.
        """
        if (run, job) in self._packages:
            self._packages.move_to_end((run, job))
            return self._packages[run, job]
        key = JobKey(run, job)
        committed = await self._of_job(runs, key)
        if committed is None:
            return None
        if committed.bytes > MOST_PACKAGE_BYTES:
            return Invalid("it is too large to be shown here: see `mayfly pull`")
        text = await self._bucket.get(committed.key, limit=committed.bytes)
        if text is None:
            batch, found = runs[run]
            if batch.looked - found.started > EXPIRES:
                await asyncio.to_thread(self._store.expire, batch.id, run)
            return Invalid("it is not in the bucket any more")
        package = read_package(key, committed, text)
        if isinstance(package, Package):
            self._packages[run, job] = package
            while len(self._packages) > KEPT_PACKAGES:
                self._packages.popitem(last=False)
        return package

    async def changes(
        self, runs: Runs, schedule: str, job: str, before: str, run: str
    ) -> Changes | Invalid:
        """Return what changed in a job from a run to another: as it was pulled, else by the files of both packages.

        Raises:
            StoreError: The bucket cannot be read.
        """
        kept = await asyncio.to_thread(self._store.changes, schedule, job)
        if kept is not None and kept.run == run:
            return kept
        results = []
        for one in (before, run):
            package = await self.package(runs, one, job)
            if not isinstance(package, Package):
                return package or Invalid("there is no such package")
            results.append(results_of(package.resources))
        return changes_of(compare_files(*results), before, run)

    async def file(self, runs: Runs, key: str) -> File:
        """Return the committed object at a key.

        Raises:
            AbsentError: Nothing commits it.
            StoreError: The bucket cannot be read.
        """
        match parse_key(key):
            case JobKey(run, job, path) as parsed if path != DESCRIPTOR:
                package = await self.package(runs, run, job)
                if isinstance(package, Package):
                    found = next((one for one in package.resources if one.path == path), None)
                    if found is not None:
                        return file_of(parsed, found)
                if isinstance(package, Invalid):
                    raise AbsentError(f"the job's package cannot be used: {package.reason}")
                committed = None
            case JobKey() as parsed:
                committed = await self._of_job(runs, parsed)
            case ManifestKey(run):
                closed = runs[run][1].closed if run in runs else None
                committed = closed.manifest if closed else None
            case LogKey(run):
                parts = await self._parts(runs, run)
                committed = next((part for part in parts if part.key == key), None)
            case _:
                committed = None
        if committed is None or committed.key != key:
            raise AbsentError("there is no such file")
        return File(committed, "text/plain", key.rpartition("/")[2], ours=True)

    async def log(self, runs: Runs, run: str) -> Text:
        """Return the end of a run's log, of the parts that are committed."""
        try:
            parts, cut, size = [], False, 0
            for part in reversed(await self._parts(runs, run)):
                if size >= MOST_LOG_BYTES:
                    cut = True
                    break
                text = await self.end(part, MOST_LOG_BYTES - size)
                parts.append(text.content)
                cut, size = text.cut, size + len(text.content)
        except MayflyError as error:
            return Text(problem=str(error))
        return Text(b"".join(reversed(parts)), cut)

    async def end(self, committed: Object, most: int) -> Text:
        """Return the end of an object.

        Raises:
            AbsentError, StoreError: It cannot be had.
        """
        kept = bytearray()
        async for piece in self._whole(committed):
            kept += piece
            del kept[:-most]
        return Text(bytes(kept), committed.bytes > most)

    async def printed(self, package: Package | Invalid | None, key: JobKey) -> Text:
        """Return the end of what a job's last attempt printed."""
        logs = package.resources if isinstance(package, Package) else ()
        last = next((one for one in reversed(logs) if one.role == Role.LOG), None)
        if last is None:
            return Text()
        try:
            return await self.end(file_of(key, last).object, MOST_LOG_BYTES)
        except MayflyError as error:
            return Text(problem=str(error))

    async def beginning(self, committed: Object) -> Text:
        """Return the beginning of an object, all of which is verified."""
        kept = bytearray()
        try:
            async for piece in self._whole(committed):
                kept += piece[: max(0, MOST_VIEW_BYTES - len(kept))]
        except MayflyError as error:
            return Text(problem=str(error))
        return Text(bytes(kept), committed.bytes > MOST_VIEW_BYTES)

    def _whole(self, committed: Object) -> AsyncIterator[bytes]:
        if committed.bytes > MOST_READ_BYTES:
            raise AbsentError("it is too large to be shown here")
        return self.pieces(committed)

    async def pieces(self, committed: Object) -> AsyncGenerator[bytes, None]:
        """Yield an object; the last piece only when all of it is what was committed.

        Raises:
            AbsentError: It is not there, or not that.
            StoreError: The bucket cannot be read.
        """
        digest, size, held = sha256(), 0, b""
        found = self._bucket.pieces(committed.key, committed.bytes)
        try:
            async with aclosing(cast("AsyncGenerator[bytes, None]", found)) as source:
                async for piece in source:
                    size += len(piece)
                    if size > committed.bytes:
                        break
                    digest.update(piece)
                    if held:
                        yield held
                    held = piece
        except FileNotFoundError:
            raise AbsentError("the file is not in the bucket any more") from None
        if size != committed.bytes or digest.hexdigest() != committed.sha256:
            raise AbsentError("the file is not what was committed")
        yield held

    async def _of_job(self, runs: Runs, key: JobKey) -> Object | None:
        if key.run not in runs:
            return None
        # What is held in memory may be without packages.
        batch = await asyncio.to_thread(self._store.batch, runs[key.run][0].id)
        jobs = [
            job for run in (batch.runs if batch else ()) if run.id == key.run for job in run.jobs
        ]
        return next((job.committed(key.run) for job in jobs if job.name == key.job), None)

    async def _parts(self, runs: Runs, run: str) -> tuple[Object, ...]:
        if run not in runs:
            return ()
        return await asyncio.to_thread(self._store.log_parts, runs[run][0].id, run)


def file_of(key: JobKey, resource: Resource) -> File:
    """Return a file of a job, as its package has it."""
    committed = Object(
        key=JobKey(key.run, key.job, resource.path).text,
        bytes=resource.bytes,
        sha256=resource.hash.removeprefix("sha256:"),
    )
    name = (resource.original or resource.path).rpartition("/")[2]
    return File(committed, resource.mediatype, name, resource.path.startswith((LOGS, EVIDENCE)))
