"""What a folder at home remembers: what a pull installed there, what it rejected, which hooks are owed.

Only the lock's holder uses it. It may be lost: what is in place is found in place, and the rest is looked at anew.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from agent.contract.ids import Batch
from consumer.pull.folder import OURS, FolderError, open_below
from consumer.pull.plan import Item, Key, Rejection

NAME = "pull.db"
VERSION = 1
MOST_REJECTED = 1000
"""Rejected jobs that are remembered, the newest: a bucket full of forgeries must not fill the disk with their names."""
_SCHEMA = """
CREATE TABLE installed (
  job TEXT, run TEXT, schedule TEXT, batch TEXT, status TEXT, files INTEGER, bytes INTEGER,
  at TEXT, visible INTEGER, owed INTEGER, PRIMARY KEY (job, run)
) WITHOUT ROWID;
CREATE INDEX installed_of_batch ON installed (batch);
CREATE TABLE rejected (job TEXT, run TEXT, problems TEXT, needed INTEGER, UNIQUE (job, run));
CREATE TABLE told (job TEXT, run TEXT, PRIMARY KEY (job, run)) WITHOUT ROWID;
"""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


def schedules(dest: Path, job: str) -> dict[str, str]:
    """Return the schedule of each run of a job that was pulled into a folder, as far as its memory can be read.

    Nothing is locked or written: the folder may be read-only, and a pull at work.
    """
    try:
        with open_below(dest.resolve(), f"{OURS}/{NAME}"):  # no link, and no pipe
            uri = f"{(dest / OURS / NAME).absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return dict(
                connection.execute("SELECT run, schedule FROM installed WHERE job = ?", (job,))
            )
    except (OSError, sqlite3.Error):
        return {}


class State:
    """The memory of a folder. All methods raise `FolderError` when the file fails them."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[tuple[Self, str]]:
        """Open it, or begin it; yield it with what became of a file that could not be read."""
        problem = ""
        try:
            connection = _connect(path)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None or code & 0xFF not in _DAMAGED:
                raise _failed(path, error) from error
            aside = path.with_name(f"{path.name}.unreadable")
            problem = f"{path} could not be read ({error}), is now {aside.name}, and begins anew"
            try:
                path.replace(aside)
                path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
                connection = _connect(path)
            except (OSError, sqlite3.Error) as again:
                raise _failed(path, again) from again
        with closing(connection):
            yield cls(connection, path), problem

    def items(self, batches: Iterable[Batch] | None = None) -> dict[Key, Item]:
        """Return what was installed of these batches, or of all, whether it is still there or not."""
        if batches is None:
            return self._items("1")
        names = json.dumps([batch.name for batch in batches])
        return self._items("batch IN (SELECT value FROM json_each(?))", names)

    def items_of(self, job: str) -> dict[Key, Item]:
        """Return what was installed of a job."""
        return self._items("job = ?", job)

    def owed(self, job: str | None = None) -> list[Item]:
        """Return what a hook has not taken yet, of one job or of all, oldest run first."""
        found = self._items("job = ? AND owed", job) if job else self._items("owed")
        return sorted(found.values(), key=lambda item: (item.run, item.job))

    def begun(self, job: str) -> datetime | None:
        """Return since when a job is pulled here; None when it never was."""
        with self._edge() as connection:
            query = "SELECT min(at) FROM installed WHERE job = ?"
            (at,) = connection.execute(query, (job,)).fetchone()
        return datetime.fromisoformat(at) if at else None

    def unsure(self) -> list[Key]:
        """Return what was about to become visible when a pull ended."""
        with self._edge() as connection:
            return list(connection.execute("SELECT job, run FROM installed WHERE NOT visible"))

    def install(self, item: Item, *, owed: bool, visible: bool) -> None:
        """Remember what is visible, or is about to become it."""
        batch = item.batch
        row = (*item.key, batch.schedule, batch.name, item.status, item.files, item.bytes)
        now = datetime.now(UTC).isoformat()
        with self._edge() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO installed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, now, visible, owed),
            )
            connection.execute("DELETE FROM rejected WHERE job = ? AND run = ?", item.key)

    def settle(self, visible: Iterable[Key], gone: Iterable[Key]) -> None:
        """Remember what became visible, and forget what did not."""
        self._write("UPDATE installed SET visible = 1 WHERE job = ? AND run = ?", visible)
        self._write("DELETE FROM installed WHERE job = ? AND run = ?", gone)

    def paid(self, job: str, run: str) -> None:
        """Remember that a hook has taken it."""
        self._write("UPDATE installed SET owed = 0 WHERE job = ? AND run = ?", [(job, run)])

    def rejected(self) -> dict[Key, Rejection]:
        """Return what is rejected, the first first."""
        with self._edge() as connection:
            rows = connection.execute("SELECT job, run, problems, needed FROM rejected")
            return {
                (job, run): Rejection(job, run, tuple(json.loads(problems)), needed)
                for job, run, problems, needed in rows
            }

    def reject(self, one: Rejection) -> None:
        """Remember what is rejected."""
        row = (one.job, one.run, json.dumps(one.problems), one.needed)
        with self._edge() as connection:
            connection.execute("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", row)
            connection.execute(
                "DELETE FROM rejected WHERE rowid NOT IN"
                " (SELECT rowid FROM rejected ORDER BY rowid DESC LIMIT ?)",
                (MOST_REJECTED,),
            )

    def forget(self, run: str) -> None:
        """Forget what is rejected of a run."""
        with self._edge() as connection:
            connection.execute("DELETE FROM rejected WHERE run = ?", (run,))

    def tell(self, job: str, run: str) -> bool:
        """Remember that a failure was told; return whether it was new."""
        with self._edge() as connection:
            found = connection.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (job, run))
            return found.rowcount > 0

    def _items(self, condition: str, *values: str) -> dict[Key, Item]:
        columns = "job, run, schedule, batch, status, files, bytes"
        with self._edge() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM installed WHERE {condition}",  # noqa: S608 -- ours
                values,
            ).fetchall()
        items = (
            Item(job, run, Batch(schedule, batch), status, files, size)
            for job, run, schedule, batch, status, files, size in rows
        )
        return {item.key: item for item in items}

    def _write(self, statement: str, rows: Iterable[Key]) -> None:
        rows = list(rows)
        if rows:
            with self._edge() as connection:
                connection.execute("BEGIN")
                connection.executemany(statement, rows)
                connection.execute("COMMIT")

    @contextmanager
    def _edge(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise _failed(self._path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    # The folder's lock keeps others out; the locks of SQLite do not work on all shares.
    connection = sqlite3.connect(
        f"{path.as_uri()}?nolock=1", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise FolderError(  # noqa: TRY301
                f"{path} was made by a newer mayfly, and was left alone", whole=True
            )
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.execute("SELECT 1 FROM installed, rejected, told LIMIT 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _failed(path: Path, error: Exception) -> FolderError:
    return FolderError(
        f"could not use {path}: {error}", remedy="make room there, or see to the disk", whole=True
    )
