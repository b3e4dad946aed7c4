"""Writes the history. One connection, which one thread uses at a time; each method is one transaction."""

import fcntl
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.core.shards import Shard

from consumer.archive.intake import Details, Taken
from consumer.archive.schema import ArchiveError, open_database, unusable
from consumer.facts.rows import BegunRow, RefusedRow

MAX_BEGUN = 10_000
"""Runs without a commit that are remembered, the newest."""
MAX_REFUSED = 10_000
"""Refusals that are remembered, the newest: a bucket full of forgeries must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the bucket was read.

    Attributes:
        cursor: Stamp of the newest index key that was dealt with; empty before the first.
        began: Run id of the newest started marker that was dealt with; empty before the first.
        read: When the bucket was last read to the end (Unix seconds); None before the first time.
    """

    cursor: str = ""
    began: str = ""
    read: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read in the bucket, to be written at once.

    Attributes:
        taken: Runs, with the details of their manifests where these were read.
        refused: What says nothing credible.
        begun: Runs without a commit.
        gone: Keys of refused objects that are not there any more.
        withdrawn: Runs whose agents took back that they began.
    """

    taken: tuple[tuple[Taken, Details | None], ...] = ()
    refused: tuple[RefusedRow, ...] = ()
    begun: tuple[BegunRow, ...] = ()
    gone: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


class Writer:
    """The history, to be written. Methods raise `ArchiveError` when the file fails them.

    Attributes:
        anew: Why the history begins anew; empty when it goes on.
        aside: Where the file is that could not be gone on with; None when there was none.
    """

    def __init__(self, path: Path, bucket: str) -> None:
        path = path.resolve()
        self._held = _lock(path)
        try:
            opened = open_database(path, bucket)
        except ArchiveError:
            self._held.close()
            raise
        self._connection, self.anew, self.aside = opened.connection, opened.anew, opened.aside
        self._lock = threading.Lock()
        self._path = path
        mark = path.stat()
        self._mark = (mark.st_dev, mark.st_ino)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
            self._held.close()

    def is_there(self) -> bool:
        """Tell whether the file is still the one that was opened: somebody may have removed it."""
        try:
            mark = self._path.stat()
        except OSError:
            return False
        return (mark.st_dev, mark.st_ino) == self._mark

    def position(self) -> Position:
        """Return how far the bucket was read."""
        with self._edge():
            about = dict(self._connection.execute("SELECT name, value FROM about"))
        read = about.get("read")
        began = about.get("began", "")
        return Position(about.get("cursor", ""), began, float(read) if read else None)

    def known(self, after: str) -> set[str]:
        """Return the index keys after a key that were dealt with."""
        with self._edge():
            rows = self._connection.execute(
                "SELECT key FROM run WHERE key > ? UNION ALL SELECT key FROM refused WHERE key > ?",
                (after, after),
            )
            return {key for (key,) in rows}

    def unresolved(self) -> set[str]:
        """Return the runs that began and are not committed, as far as is known."""
        with self._edge():
            return {run for (run,) in self._connection.execute("SELECT run FROM begun")}

    def committed(self, runs: Iterable[str]) -> set[str]:
        """Return which of these runs are committed, or were refused."""
        found = set()
        with self._edge():
            for run in runs:
                row = self._connection.execute(
                    "SELECT 1 FROM run WHERE run = ?1 UNION ALL SELECT 1 FROM refused WHERE run = ?1",
                    (run,),
                ).fetchone()
                if row:
                    found.add(run)
        return found

    def to_check_again(self, limit: int) -> list[str]:
        """Return the keys of refused objects that were not looked at for longest."""
        with self._edge():
            rows = self._connection.execute(
                "SELECT key FROM refused ORDER BY checked, key LIMIT ?", (limit,)
            )
            return [key for (key,) in rows]

    def take(self, batch: Batch, position: Position, now: float) -> None:
        """Add what was read at a time (Unix seconds), and move the position."""
        with self._transaction() as connection:
            for one, details in batch.taken:
                _add(connection, one, details)
            gone = [(key,) for key in batch.gone]
            connection.executemany("DELETE FROM refused WHERE key = ?", gone)
            connection.executemany(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?)",
                [(row.key, row.run, row.problem, now) for row in batch.refused],
            )
            connection.execute(
                "DELETE FROM refused WHERE key NOT IN"
                " (SELECT key FROM refused ORDER BY key DESC LIMIT ?)",
                (MAX_REFUSED,),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [_begun(row) for row in batch.begun],
            )
            withdrawn = [(run,) for run in batch.withdrawn]
            connection.executemany("DELETE FROM begun WHERE run = ?", withdrawn)
            connection.execute(
                "DELETE FROM begun WHERE run IN (SELECT run FROM run)"
                " OR run NOT IN (SELECT run FROM begun ORDER BY run DESC LIMIT ?)",
                (MAX_BEGUN,),
            )
            about = {"cursor": position.cursor, "began": position.began, "read": position.read}
            connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [(name, str(value)) for name, value in about.items() if value is not None],
            )

    def shipped(self, run: str, how: str) -> None:
        """Remember what became of the log of a run."""
        with self._transaction() as connection:
            connection.execute("UPDATE run SET shipped = ? WHERE run = ?", (how, run))

    def pass_over(self, before: float, how: str) -> None:
        """Remember that logs of runs that finished before a time (Unix seconds) are not shipped."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE run SET shipped = ? WHERE shipped = '' AND finished < ?", (how, before)
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._edge():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _edge(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise ArchiveError(f"the history {self._path} cannot be written: {error}") from error


def _lock(path: Path) -> BinaryIO:
    """Return the lock of a history, held until it is closed. It is a file beside the database, which SQLite locks.

    Raises:
        ArchiveError: Another process holds it, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock").open("ab")
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if not isinstance(error, BlockingIOError):
            raise unusable(path, error) from error
        raise ArchiveError(
            f"another `mayfly serve` writes the history {path}",
            remedy="stop it, or name another file with --history",
        ) from error
    return lock


def _columns(part: Shard | None) -> tuple[str | None, int | None, int | None]:
    return (None, None, None) if part is None else (part.group, part.shard, part.shards)


def _begun(row: BegunRow) -> tuple[str | float | None, ...]:
    known = (row.run, row.started, row.deadline, row.host, row.release_wanted)
    return (*known, *_columns(row.part))


def _add(connection: sqlite3.Connection, taken: Taken, details: Details | None) -> None:
    """Add a run, unless it was committed before under an older key: a second commit is a no-op."""
    connection.execute("DELETE FROM refused WHERE key = ?", (taken.key.key,))
    run, details = taken.run, details or Details()
    row = connection.execute("SELECT key FROM run WHERE run = ?", (run.run,)).fetchone()
    if row and row[0] <= taken.key.key:
        return
    connection.execute("DELETE FROM run WHERE run = ?", (run.run,))
    connection.execute("DELETE FROM job WHERE run = ?", (run.run,))
    connection.execute("DELETE FROM evidence WHERE run = ?", (run.run,))
    known = run.cost is not None
    costs = (run.cost, run.standing) if known else (details.cost, details.standing)
    about_run = (run.run, taken.key.key, run.started, run.finished, run.status.value)
    release = (run.release, run.commit, run.stale, details.stale_reason)
    numbers = (run.files, run.bytes, *costs, run.jobs, taken.manifest_bytes, taken.manifest_sha256)
    connection.execute(
        f"INSERT INTO run VALUES ({', '.join('?' * 19)}, '')",  # noqa: S608 -- question marks
        (*about_run, *release, *numbers, *_columns(run.part)),
    )
    for place, job in enumerate(taken.jobs):
        about = (job.name, job.run, job.started, job.finished, job.status.value)
        why = (job.cause.value if job.cause else None, job.message)
        counts = (job.files, job.bytes, job.items, job.seconds, job.family, job.refused_files)
        connection.execute(
            f"INSERT INTO job VALUES ({', '.join('?' * 14)})",  # noqa: S608 -- question marks
            (*about, *why, *counts, place),
        )
    connection.executemany(
        "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
        [(one.run, one.job, one.path, one.bytes, one.mediatype) for one in details.evidence],
    )
