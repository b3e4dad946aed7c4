"""What home has read, in SQLite: entries as documents, the position in the index, and batches folded.

The bucket remains the source, but for what a lifecycle rule has deleted there. Entries are checked before they come
here (`consumer.entries`), so nothing is checked again. Batches are kept folded besides: a year of them is read at once.
"""

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from agent import __version__
from agent.base.errors import UsageError
from agent.batch.fold import Arrived, fold
from agent.batch.follow import Cursor, next_look
from agent.contract.entries import Entry, Invalid, Object
from agent.contract.ids import Batch as Id
from agent.contract.layout import EntryKey, LogKey, PointerKey, parse_key
from consumer.diff import Changes, Sum
from consumer.entries import read_again, to_come, within_bounds, written
from consumer.model import Batch, History, batch_of, history_of, load_batch, write_batch

APPLICATION_ID = int.from_bytes(b"Mfly")
"""Marks a file as ours (https://www.sqlite.org/fileformat.html#application_id)."""
MIGRATIONS = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE entry (
      key TEXT PRIMARY KEY, batch TEXT NOT NULL, arrived TEXT NOT NULL, document TEXT, reason TEXT
    );
    CREATE INDEX entry_of_batch ON entry (batch);
    CREATE TABLE pointer (key TEXT PRIMARY KEY, entry TEXT NOT NULL, batch TEXT NOT NULL, asked TEXT) WITHOUT ROWID;
    CREATE INDEX pointer_of_batch ON pointer (batch);
    CREATE TABLE batch (
      batch TEXT PRIMARY KEY, looked TEXT NOT NULL, at TEXT NOT NULL, due TEXT, folded TEXT
    );
    CREATE INDEX batch_due ON batch (due) WHERE due IS NOT NULL;
    CREATE TABLE expired (run TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
    """
    CREATE TABLE change (
      schedule TEXT, job TEXT, run TEXT NOT NULL, sum TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (schedule, job)
    );
    """,
    "CREATE INDEX entry_invalid ON entry (batch) WHERE document IS NULL;",
)
"""What brings a file from version n to n + 1 (`PRAGMA user_version`). Never change one that was released: add one."""
FOLDED = "4"
"""The form in which batches are kept; another one in the file means that they are folded anew."""
MOST_BATCHES = 50_000
"""Of a history, the newest: a thousand shards a day have seven weeks."""
MOST_POINTERS = 100_000
"""Pointers to entries that are not there, which are remembered: a flood of forged ones fills no disk."""
BUSY_SECONDS = 5.0
MOST_WORDS = 60
"""Characters of the bucket's address in a file's name, for people."""
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_APPLICATION_ID_AT = slice(68, 72)
_DISK = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)
"""Errors that are not the file's fault, so that it stays."""

_CURSOR = TypeAdapter(Cursor)
_CHANGES = TypeAdapter(Changes)
_SUMS = TypeAdapter(tuple[str, Sum])


class HistoryError(UsageError):
    """The history cannot be used where it is said to be."""

    @property
    def is_of_the_disk(self) -> bool:
        """Whether the disk refused, and the file is as good as it was: with room, the same store goes on."""
        return isinstance(self.__cause__, sqlite3.Error) and _is_of_the_disk(self.__cause__)


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged file: what is wrong with it, and where it was moved."""

    problem: str
    aside: Path


def default_name(bucket: str) -> str:
    """Return the file name of a bucket's history, so that each bucket has a file of its own."""
    words = re.sub(r"[^a-z0-9]+", "-", bucket.lower()).strip("-")
    return f"{words[-MOST_WORDS:]}-{sha256(bucket.encode()).hexdigest()[:12]}.history"


class Store:
    """The history of a bucket. Any thread may use it; all methods raise `HistoryError` when the file fails.

    Attributes:
        damage: What became of a file that was here before and could not be read.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, damage: Damage | None) -> None:
        self._connection = connection
        self._name = name
        self._lock = threading.RLock()
        self._batches: dict[str, Batch] = {}
        self._given: int | None = None
        with self._reading():
            self._printed = _newest(connection, "entry")
        self.damage = damage

    @classmethod
    def open(cls, path: Path | None, bucket: str, now: datetime) -> "Store":
        """Open a history, or begin one.

        No other store of this process may have the file open: the header is read by a handle of its own, and when that
        is closed, the system drops all locks of the process on the file (https://www.sqlite.org/howtocorrupt.html).

        Args:
            path: The file, whose folder is made; None keeps the history in memory.
            bucket: The bucket's identity.
            now: Since when it watches, if it is new.

        Raises:
            HistoryError: The file belongs to something else, and was left alone; or it cannot be written.
        """
        name = str(path or "in memory")
        damage: Damage | None = None
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                damage = _set_aside_if_damaged(path)
            with ExitStack() as stack:
                connection = stack.enter_context(closing(_connect(str(path or ":memory:"))))
                _begin(connection, name, bucket, now)
                store = cls(connection, name, damage)
                stack.pop_all()
                return store
        except (OSError, sqlite3.Error) as error:
            raise _unusable(name, error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    # Where the reader is.

    def cursor(self) -> Cursor:
        """Return where the reader is in the index."""
        text = self._said("cursor")
        return _CURSOR.validate_json(text) if text else Cursor()

    def page(self) -> str:
        """Return the key after which a listing goes on that was too long for one poll; empty when there is none."""
        return self._said("page")

    def unasked(self) -> int:
        """Return how many pointers there are whose entries were not looked for yet."""
        query = "SELECT count(*) FROM pointer WHERE asked IS NULL"
        with self._reading() as connection:
            return int(connection.execute(query).fetchone()[0])

    def note(self, cursor: Cursor, pointers: Iterable[PointerKey], page: str = "") -> None:
        """Remember where the reader is, and which pointers it saw to entries that it lacks.

        Of too many, those whose entries were looked for in vain are forgotten, the first asked for first.
        """
        text = _CURSOR.dump_json(cursor).decode()
        rows = [(one.text, one.entry.text, _name(one.entry.batch)) for one in pointers]
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)", [("cursor", text), ("page", page)]
            )
            connection.executemany(
                "INSERT OR IGNORE INTO pointer (key, entry, batch) VALUES (?, ?, ?)", rows
            )
            connection.execute(
                "DELETE FROM pointer WHERE key IN (SELECT key FROM pointer WHERE asked IS NOT NULL"
                " ORDER BY asked LIMIT max(0, (SELECT count(*) FROM pointer) - ?))",
                (MOST_POINTERS,),
            )

    def held(self, keys: Iterable[EntryKey]) -> set[EntryKey]:
        """Return which of these entries were read, valid or not."""
        wanted = {key.text: key for key in keys}
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key FROM entry WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(wanted)),),
            )
            return {wanted[key] for (key,) in rows}

    def expected(self, asked_since: datetime, most: int) -> list[Id]:
        """Return batches with entries that the reader lacks: first those that it never looked for, the newest first.

        A pointer whose entry was first looked for in vain before `asked_since` is not followed again.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT batch FROM pointer WHERE asked IS NULL OR asked > ?"
                " GROUP BY batch ORDER BY max(asked IS NULL) DESC, max(key) DESC LIMIT ?",
                (_iso(asked_since), most),
            )
            return [_id(name) for (name,) in rows]

    # What the batches say.

    def valid_keys(self, batch: Id) -> set[EntryKey]:
        """Return the entries of a batch that need not be read again."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key FROM entry WHERE batch = ? AND document IS NOT NULL", (_name(batch),)
            )
            return {key for (text,) in rows if (key := _entry_key(text))}

    def invalid(self, batch: Id) -> dict[EntryKey, tuple[datetime, str]]:
        """Return the entries of a batch that could not be read: when each arrived, and why."""
        with self._reading() as connection:
            log = _entries(connection, "batch = ? AND document IS NULL", _name(batch))
        return {
            one.key: (one.at, one.entry.reason) for one in log if isinstance(one.entry, Invalid)
        }

    def unread(self, since: datetime, most: int) -> dict[Id, bool]:
        """Return batches with entries that could not be read, those first that were not looked into for longest.

        They were not looked into since a time, or not by this version of mayfly: whether that is so stands beside them.
        """
        with self._reading() as connection:
            updated = _about(connection)["updated"]
            rows = connection.execute(
                "SELECT batch, looked < ?1 FROM (SELECT DISTINCT batch FROM entry WHERE document IS NULL)"
                " CROSS JOIN batch USING (batch) WHERE looked < max(?1, ?2) ORDER BY looked LIMIT ?3",
                (updated, _iso(since), most),
            )
            return {_id(name): bool(by_another) for name, by_another in rows}

    def forget(self, keys: Iterable[EntryKey]) -> None:
        """Forget entries that could not be read: they are no longer in the bucket."""
        gone = json.dumps([key.text for key in keys])
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM entry WHERE document IS NULL AND key IN (SELECT value FROM json_each(?))",
                (gone,),
            )

    def add(self, arrived: Iterable[Arrived]) -> None:
        """Keep objects of batches' logs; what arrived first under a key stays."""
        rows = [_row(one) for one in arrived]
        with self._writing() as connection:
            # What could not be read may have been the store's fault: a later reading replaces it.
            connection.executemany(
                "INSERT OR REPLACE INTO entry SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS"
                " (SELECT 1 FROM entry WHERE key = ?1 AND document IS NOT NULL)",
                rows,
            )

    def looked(self, batch: Id, now: datetime) -> None:
        """Note that a batch's log was looked into, as it was at a moment, and keep what it comes to."""
        name = _name(batch)
        with self._writing() as connection:
            connection.execute(
                "UPDATE pointer SET asked = ? WHERE batch = ? AND asked IS NULL", (_iso(now), name)
            )
            # Not before: a process that dies between reading an entry and this looks into the log again.
            connection.execute(
                "DELETE FROM pointer WHERE batch = ? AND entry IN"
                " (SELECT key FROM entry WHERE batch = ?)",
                (name, name),
            )
            _keep(connection, _fold(connection, batch, now))
            self._batches.pop(name, None)

    def announced(self, batch: Id, now: datetime) -> None:
        """Keep what pointers tell of a batch whose log could not be read: a run that came is not missed.

        Until the log can be read, it is shown as one of which only the pointer is left. What was read is left alone.
        """
        name = _name(batch)
        with self._writing() as connection:
            query = (
                "SELECT 1 FROM batch WHERE batch = ?1 AND"
                " (due IS NULL OR due > ?2 OR EXISTS (SELECT 1 FROM entry WHERE batch = ?1))"
            )
            if connection.execute(query, (name, _iso(now))).fetchone() is None:
                _keep(connection, _fold(connection, batch, now))

    def last_read(self) -> EntryKey | None:
        """Return the valid entry that was read last; None when there is none."""
        query = "SELECT key FROM entry WHERE document IS NOT NULL ORDER BY rowid DESC LIMIT 1"
        with self._reading() as connection:
            found = connection.execute(query).fetchone()
        return _entry_key(found[0]) if found else None

    # What is new, whoever read it: another process may keep the same file up to date. Rows are numbered as they come.

    def news(self) -> set[Id]:
        """Return the batches that were looked into since the last call; none at first, as who asks begins with all."""
        with self._reading() as connection:
            newest = _newest(connection, "batch")
            query = "SELECT batch FROM batch WHERE rowid > ? AND rowid <= ?"
            rows = connection.execute(
                query, (newest if self._given is None else self._given, newest)
            )
            self._given = newest
            return {_id(name) for (name,) in rows}

    def new_log_parts(self, since: datetime) -> list[tuple[datetime, Object]]:
        """Return the parts of runs' logs of which entries told since the last call, and arrived since a time."""
        new = "rowid > ? AND rowid <= ? AND arrived > ? AND document IS NOT NULL"
        with self._reading() as connection:
            newest = _newest(connection, "entry")
            said = _entries(connection, new, self._printed, newest, _iso(since))
            self._printed = newest
        return [
            (one.at, part) for one in said if isinstance(one.entry, Entry) for part in one.entry.log
        ]

    def due(self, now: datetime) -> list[Id]:
        """Return the batches of which a run should have ended, and whose logs were not looked into since."""
        with self._reading() as connection:
            rows = connection.execute("SELECT batch FROM batch WHERE due <= ?", (_iso(now),))
            return [_id(name) for (name,) in rows]

    def batch(self, batch: Id) -> Batch | None:
        """Return a batch; None when nothing is known of it."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT 1 FROM batch WHERE batch = ?", (_name(batch),)
            ).fetchone()
            return self._load(_name(batch)) if found else None

    def log_parts(self, batch: Id, run: str) -> tuple[Object, ...]:
        """Return the parts of a run's log that are committed, in order."""
        with self._reading() as connection:
            log = _entries(connection, "batch = ? AND document IS NOT NULL", _name(batch))
        said = [one.entry for one in log if one.key.run == run]
        parts = {part.key: part for one in said if isinstance(one, Entry) for part in one.log}
        keys = [key for text in parts if isinstance(key := parse_key(text), LogKey)]
        return tuple(parts[key.text] for key in sorted(keys, key=lambda key: key.number))

    def history(
        self, since: datetime | None = None, most: int = MOST_BATCHES, *, packages: bool = True
    ) -> History:
        """Return the newest batches that are for a time since then, and those that are open.

        Without packages, batches that are as they were last time are the same objects, which costs neither time nor
        memory.
        """
        with self._reading() as connection:
            names = connection.execute(
                "SELECT batch, looked FROM batch WHERE at >= ? OR due IS NOT NULL"
                " ORDER BY due IS NULL, at DESC LIMIT ?",
                (_iso(since) if since else "", most),
            ).fetchall()
            if packages:
                batches = [self._load(name) for name, _ in names]
            else:
                batches = [self._kept(*row) for row in names]
                self._batches = {_name(one.id): one for one in batches}
            began = _about(connection).get("since")
            missing = connection.execute("SELECT count(*) FROM pointer").fetchone()[0]
        return history_of(batches, datetime.fromisoformat(began) if began else None, missing)

    def _kept(self, name: str, looked: str) -> Batch:
        batch = self._batches.get(name)
        if batch is not None and _iso(batch.looked) == looked:
            return batch
        return self._load(name, packages=False)

    def _load(self, name: str, *, packages: bool = True) -> Batch:
        query = "SELECT folded FROM batch WHERE batch = ?"
        with self._reading() as connection:
            (folded,) = connection.execute(query, (name,)).fetchone()
        return load_batch((folded or self._refold(name)).encode(), packages=packages)

    def _refold(self, name: str) -> str:
        """Fold a batch anew, as it was when it was looked into, and keep that."""
        with self._writing() as connection:
            query = "SELECT looked FROM batch WHERE batch = ?"
            (looked,) = connection.execute(query, (name,)).fetchone()
            batch = _fold(connection, _id(name), datetime.fromisoformat(looked))
            folded = write_batch(batch).decode()
            connection.execute("UPDATE batch SET folded = ? WHERE batch = ?", (folded, name))
        return folded

    def expire(self, batch: Id, run: str) -> None:
        """Remember that the files of a run are no longer in the bucket."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO expired VALUES (?)", (run,))
            connection.execute("UPDATE batch SET folded = NULL WHERE batch = ?", (_name(batch),))
            self._batches.pop(_name(batch), None)

    # What changed from a job's run to the next, found when it was pulled.

    def note_changes(self, schedule: str, job: str, changes: Changes) -> None:
        """Keep what changed in a job, of its newest run alone."""
        sums = _SUMS.dump_json((changes.of, changes.sum)).decode()
        row = (schedule, job, changes.run, sums, _CHANGES.dump_json(changes).decode())
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO change VALUES (?, ?, ?, ?, ?) ON CONFLICT (schedule, job) DO UPDATE"
                " SET run = excluded.run, sum = excluded.sum, document = excluded.document"
                " WHERE excluded.run >= run",
                row,
            )

    def changes(self, schedule: str, job: str) -> Changes | None:
        """Return what changed in a job; None when it was not pulled, or has no run before."""
        query = "SELECT document FROM change WHERE schedule = ? AND job = ?"
        with self._reading() as connection:
            found = connection.execute(query, (schedule, job)).fetchone()
        return _CHANGES.validate_json(found[0]) if found else None

    def change_sums(self) -> dict[tuple[str, str], tuple[str, Sum]]:
        """Return how much changed in each job, by schedule and job, and what is counted: `records` or `files`."""
        with self._reading() as connection:
            rows = connection.execute("SELECT schedule, job, sum FROM change")
            return {(schedule, job): _SUMS.validate_json(sums) for schedule, job, sums in rows}

    # What whoever keeps the history up to date remembers besides.

    def mark(self, name: str, moment: datetime) -> None:
        """Remember when something was last done."""
        with self._writing() as connection:
            row = (name, _iso(moment))
            connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", row)

    def marked(self, name: str) -> datetime | None:
        """Return when something was last done; None when it never was."""
        said = self._said(name)
        return datetime.fromisoformat(said) if said else None

    def _said(self, name: str) -> str:
        with self._reading() as connection:
            return _about(connection).get(name, "")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise _unusable(self._name, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite may have ended the transaction itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


# Batches.


def _fold(connection: sqlite3.Connection, batch: Id, looked: datetime) -> Batch:
    name = _name(batch)
    log = _entries(connection, "batch = ?", name)
    pointers = connection.execute("SELECT key FROM pointer WHERE batch = ?", (name,))
    announced = [
        key
        for (text,) in pointers
        if isinstance(key := parse_key(text), PointerKey) and not to_come(key.entry, looked)
    ]
    expired = frozenset(run for (run,) in connection.execute("SELECT run FROM expired"))
    return batch_of(fold(batch, within_bounds(log), announced), looked, expired)


def _keep(connection: sqlite3.Connection, batch: Batch) -> None:
    due = next_look(batch.runs, batch.looked)
    position = (_name(batch.id), _iso(batch.looked), _iso(batch.at), _iso(due) if due else None)
    connection.execute(
        "INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?, ?)",
        (*position, write_batch(batch).decode()),
    )


def _newest(connection: sqlite3.Connection, table: Literal["entry", "batch"]) -> int:
    query = f"SELECT coalesce(max(rowid), 0) FROM {table}"  # noqa: S608 -- one of ours
    return int(connection.execute(query).fetchone()[0])


def _row(one: Arrived) -> tuple[str, str, str, str | None, str | None]:
    position = (one.key.text, _name(one.key.batch), _iso(one.at))
    if isinstance(one.entry, Invalid):
        return (*position, None, one.entry.reason)
    return (*position, written(one.entry).decode(), None)


def _entries(connection: sqlite3.Connection, which: str, *values: str | int) -> list[Arrived]:
    query = f"SELECT key, arrived, document, reason FROM entry WHERE {which}"  # noqa: S608 -- one of ours
    return [one for row in connection.execute(query, values) if (one := _arrived(*row))]


def _arrived(key: str, arrived: str, document: str | None, reason: str | None) -> Arrived | None:
    parsed = _entry_key(key)
    if parsed is None:
        return None
    entry = Invalid(reason or "") if document is None else read_again(parsed, document.encode())
    return Arrived(parsed, datetime.fromisoformat(arrived), entry)


def _entry_key(text: str) -> EntryKey | None:
    key = parse_key(text)
    return key if isinstance(key, EntryKey) else None


def _name(batch: Id) -> str:
    return f"{batch.schedule}/{batch.name}"


def _id(name: str) -> Id:
    return Id(*name.split("/", maxsplit=1))


def _iso(moment: datetime) -> str:
    """Return a time as a text whose order is that of times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


# The file.


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    # No function, view or trigger of a file that somebody made is ever called.
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _begin(connection: sqlite3.Connection, name: str, bucket: str, now: datetime) -> None:
    """Bring a file to the version of this program, in one transaction: another process may be doing the same.

    Raises:
        HistoryError: It is a newer program's, or about another bucket; nothing of it is changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    _check(connection, version, name, bucket)
    for statement in ";".join(MIGRATIONS[version:]).split(";"):
        connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    about = [("bucket", bucket), ("since", _iso(now)), ("folded", FOLDED)]
    connection.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)
    if _about(connection).get("version") != __version__:
        # It may understand what the one before could not read.
        mine = [("version", __version__), ("updated", _iso(now))]
        connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", mine)
    if _about(connection)["folded"] != FOLDED:
        connection.execute("UPDATE batch SET folded = NULL")
        connection.execute("INSERT OR REPLACE INTO about VALUES ('folded', ?)", (FOLDED,))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last looks, which are then done again, never the file.
    connection.execute("PRAGMA synchronous = NORMAL")


def _about(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, value FROM about"))


def _check(connection: sqlite3.Connection, version: int, name: str, bucket: str) -> None:
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"the history {name} was made by a newer mayfly, and was left alone",
            remedy="update mayfly, or name another file with --history",
        )
    other = _about(connection).get("bucket", bucket) if version else bucket
    if other != bucket:
        raise HistoryError(
            f"the history {name} is about {other}, and was left alone",
            remedy="name another file with --history, or leave the option out: each bucket has its own",
        )


def _set_aside_if_damaged(path: Path) -> Damage | None:
    """Move a damaged history away. What is no history stays where it is.

    Raises:
        HistoryError: The file belongs to something else.
    """
    if not path.exists():
        return None
    header = b""
    if path.is_file():
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
        if not header:
            return None
    if header[:16] != _MAGIC or int.from_bytes(header[_APPLICATION_ID_AT]) != APPLICATION_ID:
        raise HistoryError(
            f"{path} is not a history of Mayfly, and was left alone",
            remedy="name another file with --history, or move this one away",
        )
    problem = _damage(path)
    return Damage(problem, _move_aside(path)) if problem else None


def _damage(path: Path) -> str:
    try:
        with closing(_connect(str(path))) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()
            if answer != ("ok",):
                return f"it is damaged: {answer[0]}"
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if 0 < version <= len(MIGRATIONS):  # a newer program may have other tables
                connection.execute("SELECT 1 FROM about, entry, pointer, batch, expired LIMIT 1")
    except sqlite3.Error as error:
        if _is_of_the_disk(error):
            raise
        return f"it cannot be read: {error}"
    return ""


def _is_of_the_disk(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # A file that ends too early is read past its end.
    return code is not None and code != sqlite3.SQLITE_IOERR_SHORT_READ and code & 0xFF in _DISK


def _move_aside(path: Path) -> Path:
    """Rename a database, and return its new path. Its logs go first: SQLite would add them to a new file."""
    names = [path.with_name(f"{path.name}.damaged-{number}") for number in range(1, 1000)]
    aside = next((name for name in names if not name.exists()), names[-1])
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _unusable(name: str, error: Exception) -> HistoryError:
    return HistoryError(
        f"the history {name} cannot be used: {error}",
        remedy="make room there, or say with --history where a file can be written",
    )
