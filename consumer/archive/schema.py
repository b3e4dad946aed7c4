"""The database: its tables, how it is opened, and how it is thrown away."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from agent.core.errors import UsageError

VERSION = 3
"""Another one in the file means: fill it again from the bucket."""
BUSY_SECONDS = 5.0
"""How long a statement waits for a lock: writes take milliseconds."""
DISK_FAILS = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
    }
)
"""Of these the file is innocent, and stays. SQLite says `IOERR` also where a full disk has no page for its index."""
CACHE_KIB = 4096
"""Of each connection."""

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run (
  run TEXT PRIMARY KEY, key TEXT NOT NULL, started REAL NOT NULL, finished REAL NOT NULL, status TEXT NOT NULL,
  release_ref TEXT, release_commit TEXT, stale INTEGER NOT NULL, stale_reason TEXT NOT NULL DEFAULT '',
  files INTEGER NOT NULL, bytes INTEGER NOT NULL, cost REAL, standing REAL, jobs INTEGER NOT NULL,
  manifest_bytes INTEGER NOT NULL, manifest_sha256 TEXT NOT NULL,
  group_name TEXT, shard INTEGER, shards INTEGER,
  shipped TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX run_of_group ON run (group_name, shards) WHERE group_name IS NOT NULL;
CREATE TABLE job (
  name TEXT NOT NULL, run TEXT NOT NULL, started REAL NOT NULL, finished REAL NOT NULL, status TEXT NOT NULL,
  cause TEXT, message TEXT NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL, items INTEGER,
  seconds REAL NOT NULL, family TEXT, place INTEGER NOT NULL,
  PRIMARY KEY (name, run)
) WITHOUT ROWID;
CREATE INDEX job_of_run ON job (run);
CREATE TABLE begun (
  run TEXT PRIMARY KEY, started REAL NOT NULL, deadline REAL NOT NULL, host TEXT NOT NULL, release_wanted TEXT NOT NULL,
  group_name TEXT, shard INTEGER, shards INTEGER
) WITHOUT ROWID;
CREATE TABLE evidence (
  run TEXT NOT NULL, job TEXT NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL, mediatype TEXT NOT NULL,
  PRIMARY KEY (run, job, path)
) WITHOUT ROWID;
CREATE TABLE refused (
  key TEXT PRIMARY KEY, run TEXT NOT NULL, problem TEXT NOT NULL, checked REAL NOT NULL
) WITHOUT ROWID;
"""


class ArchiveError(UsageError):
    """The database cannot be used where it is said to be."""


def open_database(path: Path, bucket: str) -> tuple[sqlite3.Connection, str]:
    """Return a connection that writes, and why the history begins anew; empty when it goes on.

    Args:
        path: The file; its folder is made.
        bucket: The bucket's address: the history of another one is thrown away.

    Raises:
        ArchiveError: The folder, or the file, cannot be written. What the file knows stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        problem = _problem(path, bucket) if path.exists() else "there is none yet"
        if problem:
            _remove(path)
        connection = connect(path)
        if problem:
            _create(connection, bucket)
    except (OSError, sqlite3.Error) as error:
        raise ArchiveError(
            f"the history {path} cannot be used: {error}",
            remedy="make room there, or say with --history where a file can be written",
        ) from error
    return connection, problem


def connect(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Return a connection, to be used by one thread at a time.

    Raises:
        sqlite3.Error: There is no such database, or it cannot be opened.
    """
    mode = "rwc" if write else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    # What a stranger's text makes of it: no function, view or trigger of the file is ever called.
    connection.execute("PRAGMA trusted_schema = OFF")
    if write:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last looks, which are then done again, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _problem(path: Path, bucket: str) -> str:
    try:
        with closing(connect(path)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return "it is damaged"
            about = dict(connection.execute("SELECT name, value FROM about"))
    except sqlite3.Error as error:
        if disk_fails(error):
            raise
        return f"it cannot be read: {error}"
    if about.get("version") != str(VERSION):
        return "it is of another version"
    return "" if about.get("bucket") == bucket else "it is about another bucket"


def disk_fails(error: sqlite3.Error) -> bool:
    """Tell whether a complaint is about what is around the file, such as a full disk, and not about what is in it."""
    code = getattr(error, "sqlite_errorcode", None)
    # A file that ends too early is read past its end.
    return (
        code is not None and code != sqlite3.SQLITE_IOERR_SHORT_READ and code & 0xFF in DISK_FAILS
    )


def _create(connection: sqlite3.Connection, bucket: str) -> None:
    connection.executescript(f"BEGIN; {TABLES}")
    connection.executemany(
        "INSERT INTO about VALUES (?, ?)", [("version", str(VERSION)), ("bucket", bucket)]
    )
    connection.execute("COMMIT")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
