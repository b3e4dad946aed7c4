"""The table of the run's database that says which files the bucket has, and which of them packages name.

A run may have a hundred thousand files, and the machine half a gigabyte of memory: no list of them is held.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.contract.descriptor import Role, Sealed
from agent.contract.layout import EVIDENCE, FILES, LOGS
from agent.contract.names import bucket_path, written
from agent.delivery.database import Database
from agent.delivery.scan import Found, Signature

ROWS_AT_ONCE = 1000
IN_ORDER = (Role.RESULT, Role.LOG, Role.EVIDENCE)
"""The order in which a package lists them."""

AMONG = "job = ? AND path IN (SELECT value FROM json_each(?))"
NAMED = "due AND sha256 IS NOT NULL"
"""What a package would name now."""
EXPECT = """
INSERT INTO file (job, path, role, original, due) VALUES (?, ?, ?, ?, 1)
ON CONFLICT (job, path) DO UPDATE SET due = 1, sha256 = iif(?, NULL, sha256)
"""
NOTE = """
INSERT INTO file (job, path, role, original, bytes, sha256, inode, size, modified, changed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job, path) DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256,
  inode = excluded.inode, size = excluded.size, modified = excluded.modified, changed = excluded.changed
"""


@dataclass(frozen=True, slots=True)
class OutboxFile:
    """A file to send: `name` beneath `root`, to become the resource `path` of a job's package.

    Attributes:
        job: The job.
        root: A folder that the job may have changed in any way.
        name: The file's path in it.
        path: The resource's path.
        role: A result is sent as it is; in a log or evidence, secrets are hidden on the way.
        signature: As of a scan; with None the file counts as lacking.
        original: The name on the disk, as `written` has it, where the path could not hold it.
    """

    job: str
    root: Path
    name: str
    path: str
    role: Role
    signature: Signature | None = None
    original: str | None = None

    @property
    def size(self) -> int:
        """Its bytes, as of the scan."""
        return self.signature.size if self.signature else 0


def result_file(job: str, root: Path, found: Found) -> OutboxFile:
    """Return a result that a scan has found."""
    path = bucket_path(found.name)
    original = None if path == found.name else written(found.name)
    return OutboxFile(
        job, root, found.name, FILES + path, Role.RESULT, found.signature, original=original
    )


def log_file(job: str, root: Path, found: Found, attempt: int) -> OutboxFile:
    """Return the file of what an attempt printed."""
    path = f"{LOGS}attempt-{attempt}.log"
    return OutboxFile(job, root, found.name, path, Role.LOG, found.signature)


def evidence_file(job: str, root: Path, folder: str, found: Found, attempt: int) -> OutboxFile:
    """Return a file that explains why an attempt failed; it was found in `folder` of its output, `root`."""
    path = bucket_path(found.name)
    return OutboxFile(
        job,
        root,
        f"{folder}/{found.name}",
        f"{EVIDENCE}attempt-{attempt}/{path}",
        Role.EVIDENCE,
        found.signature,
        original=None if path == found.name else written(found.name),
    )


class SentFiles:
    """The table. Every method raises `OSError` when the disk refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, sent: Iterable[tuple[OutboxFile, Sealed, Signature]]) -> None:
        """Remember what is in the bucket now, with each file's signature when it was read."""
        rows = [
            (of.job, file.path, file.role, file.original, file.bytes, file.sha256, *signature)
            for of, file, signature in sent
        ]
        self._database.change(NOTE, rows, durable=False)

    def lacking(self, files: Sequence[OutboxFile]) -> list[OutboxFile]:
        """Return the files, all of one job, that the bucket does not have as they are now."""
        return self._database.within(lambda table: _lacking(table, files))

    def expect(self, files: Sequence[OutboxFile]) -> list[OutboxFile]:
        """Let the package name these files, all of one job, once they are sent; return those that are lacking.

        What is known of an older content of a lacking file is deleted: the package names the present one, or none.
        """

        def change(table: sqlite3.Connection) -> list[OutboxFile]:
            lacking = _lacking(table, files)
            void = {file.path for file in lacking}
            rows = [
                (file.job, file.path, file.role, file.original, file.path in void) for file in files
            ]
            table.executemany(EXPECT, rows)
            return lacking

        return self._database.within(change)

    def expect_nothing(self, job: str) -> None:
        """Let a job's package name nothing yet: files that an earlier attempt expected may be gone."""
        statement = "UPDATE file SET due = 0, held = 0 WHERE job = ? AND (due OR held)"
        self._database.change(statement, [(job,)], durable=False)

    def forget(self, job: str, paths: Iterable[str]) -> None:
        """Note that the bucket does not hold files as they were sent."""
        statement = "UPDATE file SET sha256 = NULL WHERE job = ? AND path = ?"
        self._database.change(statement, [(job, path) for path in paths], durable=False)

    def drop(self, job: str, paths: Iterable[str]) -> None:
        """Let the package not name files: they are gone, or cannot be read."""
        statement = "DELETE FROM file WHERE job = ? AND path = ?"
        self._database.change(statement, [(job, path) for path in paths], durable=False)

    def sealed(self, job: str) -> Iterator[Sealed]:
        """Yield what a job's package names: its results, its logs, its evidence, each in the order of the paths."""
        query = (
            f"SELECT path, bytes, sha256, original FROM file WHERE job = ? AND role = ? AND {NAMED}"  # noqa: S608 -- a constant
            f" AND path > ? ORDER BY path LIMIT {ROWS_AT_ONCE}"
        )
        for role in IN_ORDER:
            after = ""
            while rows := self._database.rows(query, job, role.value, after):
                for path, size, digest, original in rows:
                    yield Sealed(path, size, digest, role, original)
                after = rows[-1][0]

    def one(self, job: str, path: str) -> Sealed | None:
        """Return what a job's package names under a path."""
        query = (
            f"SELECT bytes, sha256, role, original FROM file WHERE job = ? AND path = ? AND {NAMED}"  # noqa: S608
        )
        for size, digest, role, original in self._database.rows(query, job, path):
            return Sealed(path, size, digest, Role(role), original)
        return None

    def count(self, job: str) -> tuple[int, int]:
        """Return how many results a job's package names, and their bytes."""
        query = f"SELECT count(*), coalesce(sum(bytes), 0) FROM file WHERE job = ? AND role = ? AND {NAMED}"  # noqa: S608
        ((files, size),) = self._database.rows(query, job, Role.RESULT.value)
        return files, size

    def unsent(self, job: str) -> int:
        """Return how many files a job's package should name that the bucket does not have."""
        query = "SELECT count(*) FROM file WHERE job = ? AND due AND sha256 IS NULL"
        ((files,),) = self._database.rows(query, job)
        return int(files)

    def hold_nothing(self, job: str) -> None:
        """Begin the comparison with a listing of the bucket."""
        statement = "UPDATE file SET held = 0 WHERE job = ? AND held"
        self._database.change(statement, [(job,)], durable=False)

    def hold(self, job: str, listed: Sequence[tuple[str, int]]) -> list[str]:
        """Note which files a listing shows, by path and bytes, and return the paths that the package does not name."""

        def change(table: sqlite3.Connection) -> list[str]:
            query = f"SELECT path, bytes FROM file WHERE {AMONG} AND {NAMED}"  # noqa: S608 -- constants
            paths = json.dumps([path for path, _ in listed])
            named = dict(table.execute(query, (job, paths)).fetchall())
            rows = [(job, path) for path, size in listed if named.get(path) == size]
            table.executemany("UPDATE file SET held = 1 WHERE job = ? AND path = ?", rows)
            return [path for path, _ in listed if path not in named]

        return self._database.within(change)

    def missing(self, job: str) -> list[str]:
        """Return the paths that a package names and that the listing did not show with the size that was sent."""
        query = f"SELECT path FROM file WHERE job = ? AND {NAMED} AND NOT held"  # noqa: S608 -- a constant
        return [path for (path,) in self._database.rows(query, job)]


def _lacking(table: sqlite3.Connection, files: Sequence[OutboxFile]) -> list[OutboxFile]:
    if not files:
        return []
    query = f"SELECT path, inode, size, modified, changed FROM file WHERE {AMONG} AND sha256 IS NOT NULL"  # noqa: S608
    rows = table.execute(query, (files[0].job, json.dumps([file.path for file in files])))
    sent = {path: Signature(*signature) for path, *signature in rows}
    return [file for file in files if not file.signature or sent.get(file.path) != file.signature]
