"""What the bucket has of a run's files, and which of them the manifest will name: a table in the run's spool.

A run may have a hundred thousand files, and the machine half a gigabyte: no list of them is ever in memory. A row that
is lost, by a power cut or with a damaged table, costs one more upload, nothing else.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, TypeVar

from agent.core.datapackage import Sealed
from agent.steps.seal import Signature

T = TypeVar("T")

ROWS_AT_ONCE = 1000
ROOM = 64 * 1024
"""Bytes; SQLite lengthens its files by half of it at most."""
SUFFIXES = ("", "-wal", "-shm", "-journal")

TABLE = """
CREATE TABLE IF NOT EXISTS file (
  path TEXT PRIMARY KEY,
  job TEXT NOT NULL,               -- as the manifest says; empty for the run's own files
  original TEXT NOT NULL,          -- likewise: the name on the disk, where the path could not hold it
  due INTEGER NOT NULL DEFAULT 0,  -- the manifest names it
  held INTEGER NOT NULL DEFAULT 0, -- the bucket's listing shows it as it was sent
  bytes INTEGER, sha256 TEXT,      -- as it was sent; null when the bucket has it not, or as it was earlier
  inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER
) WITHOUT ROWID
"""
EXPECT = """
INSERT INTO file (path, job, original, due) VALUES (?, ?, ?, 1)
ON CONFLICT (path) DO UPDATE SET due = 1, job = excluded.job, sha256 = iif(?, NULL, sha256)
"""
NOTE = """
INSERT INTO file (path, job, original, bytes, sha256, inode, size, modified, changed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET job = excluded.job, bytes = excluded.bytes, sha256 = excluded.sha256,
  inode = excluded.inode, size = excluded.size, modified = excluded.modified, changed = excluded.changed
"""
AMONG = "path IN (SELECT value FROM json_each(?))"
NAMED = "due AND sha256 IS NOT NULL"
"""What the manifest would name now."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to send: `name` beneath `root`, to become the resource `path`.

    Attributes:
        root: A folder that a job may have changed in any way.
        name: The file's path in it.
        path: The resource's path.
        original: What the manifest says of the name on the disk, where the path could not hold it.
        job: The job that left it; empty for the run's own.
        mark: Its signature, as of a look; None has it sent in any case.
        evidence: Whether it explains a failure: secrets are taken out of it on the way; results are sent as they are.
    """

    root: Path
    name: str
    path: str
    job: str = ""
    mark: Signature | None = None
    evidence: bool = False
    original: str = ""

    @property
    def of_job(self) -> str:
        """The job whose result it is, in the manifest's sense."""
        return "" if self.evidence else self.job


class Receipts:
    """The table, opened when it is first asked. Threads may share it.

    Every method raises `OSError` when the disk refuses. A table that cannot be read is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None
        self._lock = Lock()

    def note(self, sent: Iterable[tuple[Sealed, Signature]]) -> None:
        """Remember what is in the bucket now, with the file's signature when it was read."""
        rows = [
            (file.path, file.job, file.original, file.bytes, file.sha256, *astuple(mark))
            for file, mark in sent
        ]
        self._within(lambda table: table.executemany(NOTE, rows))

    def lacking(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Return those that the bucket does not have as they are now."""
        return self._within(lambda table: _lacking(table, parcels))

    def expect(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Have the manifest name these, once they are sent, and return those that are lacking.

        A row about an older content of such a file is void: the manifest names what is there now, or nothing.
        """

        def change(table: sqlite3.Connection) -> list[Parcel]:
            lacking = _lacking(table, parcels)
            paths = {parcel.path for parcel in lacking}
            rows = [(file.path, file.of_job, file.original, file.path in paths) for file in parcels]
            table.executemany(EXPECT, rows)
            return lacking

        return self._within(change)

    def expect_nothing(self) -> None:
        """Begin a hand-off anew: what an earlier one expected may be gone."""
        self._within(lambda table: table.execute("UPDATE file SET due = 0 WHERE due"))

    def forget(self, paths: Iterable[str]) -> None:
        """Have files sent again: the bucket does not have them as they were sent."""
        rows = [(path,) for path in paths]
        change = "UPDATE file SET sha256 = NULL WHERE path = ?"
        self._within(lambda table: table.executemany(change, rows))

    def drop(self, path: str) -> None:
        """Have the manifest not name a file: it is gone, or cannot be read."""
        self._within(lambda table: table.execute("DELETE FROM file WHERE path = ?", (path,)))

    def sealed(self) -> Iterator[Sealed]:
        """Yield what the manifest shall name, in the order of the paths."""
        query = (
            f"SELECT path, bytes, sha256, job, original FROM file WHERE {NAMED} AND path > ?"  # noqa: S608 -- a constant
            f" ORDER BY path LIMIT {ROWS_AT_ONCE}"
        )
        after = ""
        while rows := self._rows(query, after):
            for path, size, digest, job, original in rows:
                yield Sealed(path, size, digest, job, original=original)
            after = rows[-1][0]

    def unsent(self) -> set[str]:
        """Return the paths that the manifest shall name and cannot, because the bucket does not have them."""
        return {
            path for (path,) in self._rows("SELECT path FROM file WHERE due AND sha256 IS NULL")
        }

    def hold_nothing(self) -> None:
        """Begin the comparison with a listing of the bucket."""
        self._within(lambda table: table.execute("UPDATE file SET held = 0 WHERE held"))

    def hold(self, listed: Sequence[tuple[str, int]]) -> list[str]:
        """Note what a listing shows, path and bytes, and return those paths that the manifest will not name."""

        def change(table: sqlite3.Connection) -> list[str]:
            paths = json.dumps([path for path, _ in listed])
            query = f"SELECT path, bytes FROM file WHERE {NAMED} AND {AMONG}"  # noqa: S608 -- constants
            named = dict(table.execute(query, (paths,)).fetchall())
            rows = [(path,) for path, size in listed if named.get(path) == size]
            table.executemany("UPDATE file SET held = 1 WHERE path = ?", rows)
            return [path for path, _ in listed if path not in named]

        return self._within(change)

    def missing(self) -> list[str]:
        """Return what the manifest shall name and the listing did not show with the size that was sent."""
        return [path for (path,) in self._rows(f"SELECT path FROM file WHERE {NAMED} AND NOT held")]  # noqa: S608

    def close(self) -> None:
        """Let the table go; it opens again when it is asked."""
        with self._lock, suppress(sqlite3.Error):
            if self._open is not None:
                self._open.close()
            self._open = None

    def remove(self) -> None:
        """Let the table go, and all that is in it."""
        self.close()
        _remove(self._path)

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._within(lambda table: table.execute(query, values).fetchall())

    def _within(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in one transaction."""
        with self._lock:
            try:
                if self._open is None:
                    self._open = _opened(self._path)
                with self._open:
                    self._open.execute("BEGIN")
                    return change(self._open)
            except sqlite3.Error as error:
                raise self._refusal(error) from error

    def _refusal(self, error: sqlite3.Error) -> OSError:
        """Return what the operating system would say; SQLite keeps its words to itself, so the disk is asked again.

        Want of room is an "I/O error" to SQLite where the file it lengthens is the one it maps.
        """
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, str(error), str(self._path))
        try:
            with TemporaryFile(dir=self._path.parent) as probe:
                probe.write(bytes(ROOM))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as reason:
            return OSError(reason.errno, f"{reason.strerror}: {error}", str(self._path))
        return OSError(errno.EIO, str(error), str(self._path))


def _lacking(table: sqlite3.Connection, parcels: Sequence[Parcel]) -> list[Parcel]:
    query = f"SELECT path, inode, size, modified, changed FROM file WHERE sha256 IS NOT NULL AND {AMONG}"  # noqa: S608
    rows = table.execute(query, (json.dumps([parcel.path for parcel in parcels]),))
    sent = {path: Signature(*mark) for path, *mark in rows}
    return [file for file in parcels if file.mark is None or sent.get(file.path) != file.mark]


def _opened(path: Path) -> sqlite3.Connection:
    if path.exists():
        try:
            with closing(_connect(path)) as table:
                if table.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    _remove(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) not in {
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_CORRUPT,
            }:
                raise
            _remove(path)
    table = _connect(path)
    table.execute(TABLE)
    return table


def _connect(path: Path) -> sqlite3.Connection:
    table = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    table.execute("PRAGMA journal_mode = WAL")
    # A power cut may take the last rows, and never the file.
    table.execute("PRAGMA synchronous = NORMAL")
    return table


def _remove(path: Path) -> None:
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
