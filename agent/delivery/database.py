"""The SQLite database of a run that is not in the bucket as a whole, in the run's folder.

A change with `durable=True` survives a power cut, with all changes before it. The others may be lost: they say which
files were sent, and a row that is lost costs one more upload.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from threading import RLock
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

VERSION = 1
ROOM = 64 * 1024
"""Bytes; SQLite lengthens its files by half of it at most."""
CHUNK = 1024**2
"""Bytes of a document that are one row: it may be larger than the memory should hold at once."""

SCHEMA = """
CREATE TABLE note (                 -- what the run says of itself, as JSON
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE job (                  -- jobs that ended
  name TEXT PRIMARY KEY,
  finished TEXT NOT NULL,           -- what became of it
  held INTEGER NOT NULL,            -- not to be committed yet
  stage INTEGER NOT NULL,           -- 0 ended, 1 sealed, 2 committed
  entry TEXT                        -- once sealed: what the batch's log says of it
);
CREATE TABLE file (                 -- files of jobs
  job TEXT NOT NULL,
  path TEXT NOT NULL,               -- in the job's package
  role TEXT NOT NULL,
  original TEXT,                    -- the name on the disk, where the path could not hold it
  due INTEGER NOT NULL DEFAULT 0,   -- the package names it
  held INTEGER NOT NULL DEFAULT 0,  -- the bucket's listing shows it as it was sent
  bytes INTEGER, sha256 TEXT,       -- as it was sent; null when the bucket has it not, or as it was earlier
  inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER,
  PRIMARY KEY (job, path)
) WITHOUT ROWID;
CREATE TABLE document (             -- sealed packages by job, and the run's manifest as ''
  name TEXT NOT NULL,
  number INTEGER NOT NULL,
  chunk BLOB NOT NULL,
  PRIMARY KEY (name, number)
);
CREATE TABLE part (                 -- parts of the run's log
  number INTEGER PRIMARY KEY,
  start INTEGER NOT NULL,
  stop INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  stage INTEGER NOT NULL            -- 0 cut, 1 in the bucket, 2 told in the batch's log
);
"""


@dataclass(slots=True)
class _Fence:
    closed: bool = False


_FENCE: ContextVar[_Fence | None] = ContextVar("fence", default=None)


class Abandoned(Exception):  # noqa: N818 -- nobody is told
    """Whoever started this thread does not wait for it any more."""


async def fenced(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread that has no transaction any more once this is cancelled.

    `asyncio.to_thread` leaves the thread of a cancelled task running: what it writes late would undo what the next
    attempt has written. A transaction that has begun ends first, because the others wait for it.
    """
    fence = _Fence()

    def call() -> T:
        _FENCE.set(fence)
        return function(*args, **kwargs)

    try:
        return await asyncio.to_thread(call)
    finally:
        fence.closed = True


class Digest(NamedTuple):
    """What a document holds."""

    bytes: int
    sha256: str


class Database:
    """The database of one run, opened at its first use. Threads may share it.

    Every method raises `OSError` when the disk refuses, or the database is damaged.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: sqlite3.Connection | None = None
        self._lock = RLock()

    def create(self) -> None:
        """Create the file, which is durable when this returns."""
        with self._lock:
            try:
                self._open = self._connect("rwc")
                self._open.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
            except sqlite3.Error as error:
                raise self._refusal(error) from error
        self.close()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Check that all of it can be read.

        Raises:
            OSError: It is not there, damaged, or of another version.
        """
        (found,) = self.rows("PRAGMA quick_check(1)")
        (version,) = self.rows("PRAGMA user_version")
        if found != ("ok",) or version != (VERSION,):
            raise OSError(errno.EIO, f"damaged, or of version {version[0]}", str(self.path))

    def within(self, change: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Do something in one transaction; inside of another, in that one.

        Raises:
            Abandoned: Whoever called `fenced` was cancelled.
        """
        fence = _FENCE.get()
        with self._lock:
            if fence is not None and fence.closed:
                raise Abandoned
            try:
                if self._open is None:
                    self._open = self._connect("rw")
                if self._open.in_transaction:
                    return change(self._open)
                # Of the write-ahead log alone, which has all earlier changes before this one.
                self._open.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                with self._open:
                    self._open.execute("BEGIN")
                    return change(self._open)
            except sqlite3.Error as error:
                raise self._refusal(error) from error

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return what a query finds."""
        return self.within(lambda table: table.execute(query, values).fetchall())

    def change(self, statement: str, rows: Iterable[Sequence[object]], *, durable: bool) -> None:
        """Execute a statement for each row."""
        self.within(lambda table: table.executemany(statement, rows), durable=durable)

    def note(self, **values: str) -> None:
        """Remember, by name, what the run says of itself."""
        self.change("INSERT OR REPLACE INTO note VALUES (?, ?)", values.items(), durable=True)

    def noted(self, name: str) -> str | None:
        """Return what the run says of itself under a name."""
        rows = self.rows("SELECT value FROM note WHERE name = ?", name)
        return rows[0][0] if rows else None

    def keep(self, name: str, pieces: Iterable[bytes]) -> Digest:
        """Store a document, in place of an earlier one of that name; the next durable change makes it durable."""

        def change(table: sqlite3.Connection) -> Digest:
            digest, size = sha256(), 0
            table.execute("DELETE FROM document WHERE name = ?", (name,))
            for number, chunk in enumerate(_in_chunks(pieces)):
                table.execute("INSERT INTO document VALUES (?, ?, ?)", (name, number, chunk))
                digest.update(chunk)
                size += len(chunk)
            return Digest(size, digest.hexdigest())

        return self.within(change)

    def digest(self, name: str) -> Digest:
        """Return the size and the digest of a document; those of an empty one when there is none."""
        digest, size = sha256(), 0
        for chunk in self.chunks(name):
            digest.update(chunk)
            size += len(chunk)
        return Digest(size, digest.hexdigest())

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a document."""
        query = "SELECT chunk FROM document WHERE name = ? AND number = ?"
        for number in count():
            rows = self.rows(query, name, number)
            if not rows:
                return
            yield rows[0][0]

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock, suppress(sqlite3.Error):
            if self._open is not None:
                self._open.close()
            self._open = None

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        table = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        table.execute("PRAGMA journal_mode = WAL")
        return table

    def _refusal(self, error: sqlite3.Error) -> OSError:
        """Return the operating system's error, which SQLite does not tell: a probe writes to the same disk.

        A full disk is only an "I/O error" to SQLite while it lengthens the file that it maps.
        """
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, str(error), str(self.path))
        try:
            with TemporaryFile(dir=self.path.parent) as probe:
                probe.write(bytes(ROOM))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as reason:
            return OSError(reason.errno, f"{reason.strerror}: {error}", str(self.path))
        return OSError(errno.EIO, str(error), str(self.path))


def _in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
