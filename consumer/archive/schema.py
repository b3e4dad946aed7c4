"""The database: its tables, how it is told from other files, and how it is opened."""

import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from agent.base.errors import UsageError

VERSION = 4
"""Another one in the file means: fill a new one from the bucket."""
APPLICATION_ID = int.from_bytes(b"Mayf")
"""Marks a file as a history of ours (https://www.sqlite.org/fileformat.html#application_id)."""
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
APPLICATION_ID_AT = slice(68, 72)
MAX_WORDS = 60
"""Characters of a file's name that tell a person which bucket it is about."""
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
  seconds REAL NOT NULL, family TEXT, refused_files INTEGER NOT NULL, place INTEGER NOT NULL,
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


@dataclass(frozen=True, slots=True)
class Opened:
    """A database that is open for writing.

    Attributes:
        anew: Why it begins anew; empty when it goes on.
        aside: Where the file is that could not be gone on with; None when there was none.
    """

    connection: sqlite3.Connection
    anew: str = ""
    aside: Path | None = None


def default_name(bucket: str) -> str:
    """Return the file name of a bucket's history, so that each bucket has a file of its own."""
    words = re.sub(r"[^a-z0-9]+", "-", bucket.lower()).strip("-")
    return f"{words[-MAX_WORDS:]}-{sha256(bucket.encode()).hexdigest()[:12]}.sqlite"


def open_database(path: Path, bucket: str) -> Opened:
    """Open a history for writing. One that is damaged, or of another version, is moved aside and begins anew.

    Args:
        path: The file; its folder is made.
        bucket: The bucket's identity.

    Raises:
        ArchiveError: The file is not a history of this bucket, and stays as it is; or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _exists(path):
            return Opened(_create(path, bucket), "there is none yet")
        problem = _problem(path, bucket)
        if not problem:
            return Opened(connect(path))
        aside = _move_aside(path)
        return Opened(_create(path, bucket), problem, aside)
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> ArchiveError:
    """Return what a failure of the disk or of the folder means for a history."""
    return ArchiveError(
        f"the history {path} cannot be used: {error}",
        remedy="make room there, or say with --history where a file can be written",
    )


def _exists(path: Path) -> bool:
    """Tell whether there is a history; an empty file is none yet.

    Raises:
        ArchiveError: What is there is something else.
    """
    if not path.exists():
        return False
    header = b""
    if path.is_file():
        with path.open("rb") as stream:
            header = stream.read(HEADER_BYTES)
        if not header:
            return False
    if header[:16] != MAGIC or int.from_bytes(header[APPLICATION_ID_AT]) != APPLICATION_ID:
        raise ArchiveError(
            f"{path} is not a history of Mayfly, and was left alone",
            remedy="name another file with --history, or move this one away",
        )
    return True


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
    """Return why a history cannot be gone on with; empty when it can.

    Raises:
        ArchiveError: It is about another bucket.
    """
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
    if about.get("bucket") != bucket:
        raise ArchiveError(
            f"the history {path} is about {about.get('bucket')}, and was left alone",
            remedy="name another file with --history, or leave the option out: each bucket has its own",
        )
    return ""


def disk_fails(error: sqlite3.Error) -> bool:
    """Tell whether a complaint is about what is around the file, such as a full disk, and not about what is in it."""
    code = getattr(error, "sqlite_errorcode", None)
    # A file that ends too early is read past its end.
    return (
        code is not None and code != sqlite3.SQLITE_IOERR_SHORT_READ and code & 0xFF in DISK_FAILS
    )


def _create(path: Path, bucket: str) -> sqlite3.Connection:
    # One transaction before the write-ahead log is used: the file itself is marked and complete, or empty.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; {TABLES}")
        connection.executemany(
            "INSERT INTO about VALUES (?, ?)", [("version", str(VERSION)), ("bucket", bucket)]
        )
        connection.execute("COMMIT")
    return connect(path)


def _move_aside(path: Path) -> Path:
    """Rename a database, and return its new path. Its logs go first: SQLite would add them to a new file."""
    aside = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
