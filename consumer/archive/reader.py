"""Reads the history. Each call opens the file for itself, so any thread may ask at any time."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.results import JobCause, JobStatus, RunStatus
from agent.core.shards import Shard

from consumer.archive.schema import ArchiveError, connect
from consumer.facts.groups import groups_of, newest_of
from consumer.facts.jobs import FORGOTTEN_AFTER, MOST_JOBS
from consumer.facts.rows import BegunRow, EvidenceRow, JobRow, RefusedRow, RunRow, is_failure

HORIZON = 400 * 86400.0
"""Seconds before the newest run that are looked at: the longest row of failures that is told, and a year of days."""
MOST_RUNS = 10_000
MOST_ROWS = 100_000
"""Rows of jobs that are held at a time, about 30 MB; each job has its part, and 60 at least."""
JOB_COLUMNS = (
    "run, name, started, finished, status, cause, message, files, bytes, items, seconds, family,"
    " refused_files"
)
RUN_COLUMNS = (
    "run, started, finished, status, release_ref, release_commit, stale, stale_reason, files, bytes,"
    " cost, standing, jobs, group_name, shard, shards"
)


@dataclass(frozen=True, slots=True)
class Past:
    """The history up to its horizon, oldest first.

    Attributes:
        jobs: Rows of each job, by name.
        refused: How many objects of the bucket say nothing credible.
        unshipped: Runs whose log waits to be shipped.
        grouped: Rows of the jobs of the newest group, of all its shards; none of a group with more than `MOST_ROWS`.
    """

    runs: tuple[RunRow, ...] = ()
    jobs: dict[str, tuple[JobRow, ...]] | None = None
    begun: tuple[BegunRow, ...] = ()
    refused: int = 0
    unshipped: int = 0
    grouped: tuple[JobRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """What is known of the manifest of a run."""

    run: str
    bytes: int
    sha256: str
    finished: float


class Reader:
    """The history, to be read. Methods raise `ArchiveError` when the file fails them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def past(self) -> Past:
        """Return the history up to its horizon."""
        with self._asking() as ask:
            (newest,) = ask.execute("SELECT max(started) FROM run").fetchone()
            if newest is None:
                runs: tuple[RunRow, ...] = ()
                jobs: dict[str, tuple[JobRow, ...]] = {}
            else:
                runs = _runs(ask, "started >= ?", (newest - HORIZON,), MOST_RUNS)[::-1]
                jobs = _jobs(ask, newest - HORIZON)
            begun = _begun(ask)
            grouped = _grouped(ask, runs, begun)
            (refused,) = ask.execute("SELECT count(*) FROM refused").fetchone()
            (unshipped,) = ask.execute("SELECT count(*) FROM run WHERE shipped = ''").fetchone()
            return Past(runs, jobs, begun, refused, unshipped, grouped)

    def begun(self) -> tuple[BegunRow, ...]:
        """Return the runs that began and are not committed, oldest first."""
        with self._asking() as ask:
            return _begun(ask)

    def bucket(self) -> str:
        """Return the address of the bucket that the history is about."""
        with self._asking() as ask:
            row = ask.execute("SELECT value FROM about WHERE name = 'bucket'").fetchone()
            return str(row[0]) if row else ""

    def key(self, run: str) -> str:
        """Return the index key of a committed run; empty when it is not."""
        with self._asking() as ask:
            row = ask.execute("SELECT key FROM run WHERE run = ?", (run,)).fetchone()
            return str(row[0]) if row else ""

    def runs(self, limit: int, before: str | None = None) -> tuple[RunRow, ...]:
        """Return committed runs, newest first, that began before a run."""
        with self._asking() as ask:
            if before is None:
                return _runs(ask, "1", (), limit)
            return _runs(ask, "run < ?", (before,), limit)

    def span(self, first: float, last: float, limit: int) -> tuple[RunRow, ...]:
        """Return the committed runs that began in a span (Unix seconds), oldest first; the newest `limit` of them."""
        with self._asking() as ask:
            return _runs(ask, "started >= ? AND started < ?", (first, last), limit)[::-1]

    def group_jobs(self, name: str, shards: int) -> tuple[int, int] | None:
        """Return how many jobs were due in a group, and how many failed; None of one with more than `MOST_ROWS`.

        Of each job on each shard the last run counts in which it was due, as in `consumer.facts.groups.families_of`.
        """
        mine = (name, shards)
        with self._asking() as ask:
            (listed,) = ask.execute(
                "SELECT total(jobs) FROM run WHERE group_name = ? AND shards = ?", mine
            ).fetchone()
            if listed > MOST_ROWS:
                return None
            # SQLite takes the other columns from the row that has the maximum.
            found = ask.execute(
                "SELECT max(job.run), job.status, job.cause FROM job JOIN run ON run.run = job.run"
                " WHERE group_name = ? AND shards = ? AND (job.status != 'skipped' OR cause IS NOT NULL)"
                " GROUP BY job.name, run.shard",
                mine,
            ).fetchall()
            failed = sum(is_failure(JobStatus(status), cause) for _, status, cause in found)
            return len(found), failed

    def run(self, run: str) -> RunRow | None:
        """Return a committed run."""
        with self._asking() as ask:
            return next(iter(_runs(ask, "run = ?", (run,), 1)), None)

    def jobs_of(self, run: str) -> tuple[JobRow, ...]:
        """Return the jobs of a run, in the order of its release."""
        with self._asking() as ask:
            rows = ask.execute(
                f"SELECT {JOB_COLUMNS} FROM job WHERE run = ? ORDER BY place",  # noqa: S608
                (run,),
            )
            return tuple(map(_job, rows))

    def neighbours(self, run: str) -> tuple[str | None, str | None]:
        """Return the committed runs before and after a run."""
        with self._asking() as ask:
            before = ask.execute("SELECT max(run) FROM run WHERE run < ?", (run,)).fetchone()
            after = ask.execute("SELECT min(run) FROM run WHERE run > ?", (run,)).fetchone()
            return before[0], after[0]

    def evidence(self, run: str) -> tuple[EvidenceRow, ...]:
        """Return the evidence of a run, pictures first within each job."""
        with self._asking() as ask:
            rows = ask.execute(
                "SELECT run, job, path, bytes, mediatype FROM evidence WHERE run = ?"
                " ORDER BY job, mediatype NOT LIKE 'image/%', path",
                (run,),
            )
            return tuple(EvidenceRow(*row) for row in rows)

    def committed(self, run: str) -> Committed | None:
        """Return what is known of a run's manifest."""
        with self._asking() as ask:
            row = ask.execute(
                "SELECT run, manifest_bytes, manifest_sha256, finished FROM run WHERE run = ?",
                (run,),
            ).fetchone()
            return Committed(*row) if row else None

    def to_ship(self, limit: int) -> tuple[Committed, ...]:
        """Return runs whose log waits to be shipped, oldest first."""
        with self._asking() as ask:
            rows = ask.execute(
                "SELECT run, manifest_bytes, manifest_sha256, finished FROM run"
                " WHERE shipped = '' ORDER BY run LIMIT ?",
                (limit,),
            )
            return tuple(Committed(*row) for row in rows)

    def refused(self, limit: int) -> tuple[RefusedRow, ...]:
        """Return what was refused, newest first."""
        with self._asking() as ask:
            rows = ask.execute(
                "SELECT key, run, problem FROM refused ORDER BY key DESC LIMIT ?", (limit,)
            )
            return tuple(RefusedRow(*row) for row in rows)

    @contextmanager
    def _asking(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection with a view that does not change."""
        try:
            with closing(connect(self._path, write=False)) as connection:
                connection.execute("BEGIN")
                yield connection
        except (sqlite3.Error, ValueError) as error:
            # ValueError: a word that is none of the statuses, in a file that somebody else wrote.
            raise ArchiveError(f"the history cannot be read: {error}") from error


def _grouped(
    ask: sqlite3.Connection, runs: Iterable[RunRow], begun: Iterable[BegunRow]
) -> tuple[JobRow, ...]:
    newest = newest_of(groups_of(runs, begun, 0.0))
    if newest is None:
        return ()
    rows = ask.execute(
        f"SELECT {JOB_COLUMNS} FROM job WHERE run IN"  # noqa: S608
        " (SELECT run FROM run WHERE group_name = ? AND shards = ?) LIMIT ?",
        (newest.name, newest.shards, MOST_ROWS + 1),
    )
    found = tuple(map(_job, rows))
    # Sums of a part would be wrong numbers that look right.
    return found if len(found) <= MOST_ROWS else ()


def _begun(ask: sqlite3.Connection) -> tuple[BegunRow, ...]:
    rows = ask.execute(
        "SELECT run, started, deadline, host, release_wanted, group_name, shard, shards FROM begun"
        " ORDER BY run DESC LIMIT ?",
        (MOST_RUNS,),
    )
    return tuple(_begun_row(*row) for row in rows)[::-1]


def _begun_row(
    run: str, started: float, deadline: float, host: str, release: str, *part: Any
) -> BegunRow:
    return BegunRow(run, started, deadline, host, release, _part(*part))


def _runs(
    ask: sqlite3.Connection, where: str, values: tuple[Any, ...], limit: int
) -> tuple[RunRow, ...]:
    rows = ask.execute(
        f"SELECT {RUN_COLUMNS} FROM run WHERE {where} ORDER BY run DESC LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return tuple(_run(row) for row in rows)


def _run(row: tuple[Any, ...]) -> RunRow:
    (
        run,
        started,
        finished,
        status,
        release,
        commit,
        stale,
        reason,
        files,
        size,
        cost,
        standing,
        jobs,
        *part,
    ) = row
    return RunRow(
        run=run,
        started=started,
        finished=finished,
        status=RunStatus(status),
        release=release,
        commit=commit,
        stale=bool(stale),
        stale_reason=reason,
        files=files,
        bytes=size,
        cost=cost,
        standing=standing,
        jobs=jobs,
        part=_part(*part),
    )


def _part(group: str | None, shard: int | None, shards: int | None) -> Shard | None:
    return None if group is None else Shard(group, shard or 0, shards or 1)


def _jobs(ask: sqlite3.Connection, since: float) -> dict[str, tuple[JobRow, ...]]:
    names = ask.execute(
        "SELECT name, max(started) AS last FROM job GROUP BY name ORDER BY last DESC LIMIT ?",
        (MOST_JOBS,),
    ).fetchall()
    newest = max((last for _, last in names), default=0.0)
    names = [name for name, last in names if last >= newest - FORGOTTEN_AFTER]
    part = max(60, MOST_ROWS // max(1, len(names)))
    found = {}
    for name in sorted(names):
        rows = ask.execute(
            f"SELECT {JOB_COLUMNS} FROM job WHERE name = ? AND started >= ?"  # noqa: S608
            " ORDER BY run DESC LIMIT ?",
            (name, since, part),
        )
        found[name] = tuple(map(_job, rows))[::-1]
    return found


def _job(row: tuple[Any, ...]) -> JobRow:
    run, name, started, finished, status, cause, message, *numbers = row
    files, size, items, seconds, family, refused_files = numbers
    return JobRow(
        run=run,
        name=name,
        started=started,
        finished=finished,
        status=JobStatus(status),
        cause=JobCause(cause) if cause else None,
        message=message,
        files=files,
        bytes=size,
        items=items,
        seconds=seconds,
        family=family,
        refused_files=refused_files,
    )
