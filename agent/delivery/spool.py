"""The spool: every run that is not closed in the bucket yet, in a form that a later run can finish.

spool/<run>/
    run.sqlite                  what the run says of itself, jobs that ended, files that were sent, sealed packages
    log.jsonl                   the run's log
    downloads/ browser/ trees/  of the browser, and copies of the release's files
    jobs/<job>/state.restored.tar.gz, state.tar.gz
    jobs/<job>/<attempt>/       output/ state/ home/ tmp/ said/result.json output.log
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from agent.base.disk import whole_disk
from agent.base.durable import remove_tree, sync_directory
from agent.base.logs import Log
from agent.contract.entries import MOST_OUTPUTS, Began, Closed, Ended, Output, Planned
from agent.contract.ids import Batch, is_run_id
from agent.contract.manifest import RunRecord
from agent.contract.package import JobRecord
from agent.contract.results import Record
from agent.delivery.database import Database
from agent.delivery.scan import is_shortage
from agent.delivery.sent import SentFiles

DATABASE = "run.sqlite"
EVIDENCE = ".evidence"
"""Folder in an attempt's output for what explains a failure; hidden, so never a result."""


class Stage(IntEnum):
    """How far a job that ended is on its way."""

    ENDED = 0
    SEALED = 1  # its package does not change any more
    COMMITTED = 2


class Finished(Record):
    """A job that ended, as it is handed to the delivery.

    Attributes:
        job: What became of it, without secrets; what its output says is added when it is sealed.
        outputs: What its earlier successes produced, this one not among them.
        checkpoint: Whether its state is kept although it did not succeed.
    """

    job: JobRecord
    outputs: tuple[Output, ...] = Field((), max_length=MOST_OUTPUTS)
    checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class SpooledJob:
    """A job that ended.

    Attributes:
        finished: What became of it.
        held: It is not to be committed yet.
        stage: How far it is.
        entry: What the batch's log says of it; None before it is sealed.
    """

    finished: Finished
    held: bool
    stage: Stage
    entry: Ended | None

    @property
    def name(self) -> str:
        """The job's name."""
        return self.finished.job.name


class LogPart(NamedTuple):
    """A part of the run's log: bytes `start` to `stop` of its file."""

    number: int
    start: int
    stop: int
    sha256: str
    stage: int


class Closing(Record):
    """The end of a run, which does not change any more; the manifest is a document of the database."""

    closed: Closed
    put: bool = False


class Workspace:
    """Where one attempt of a job works.

    Attributes:
        root: Its folder.
        number: The attempt's number.
        output: Its results.
        evidence: What it put aside to explain a failure.
        state: Its state.
        home: Its home.
        result_file: What it says of itself.
        scratch: Its temporary files, where the isolation gives it a place of its own for them.
        captured: What it wrote to stdout and stderr.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = int(root.name)
        self.output = root / "output"
        self.evidence = self.output / EVIDENCE
        self.state = root / "state"
        self.home = root / "home"
        self.result_file = root / "said" / "result.json"
        self.scratch = root / "tmp"
        self.captured = root / "output.log"

    def make(self) -> None:
        """Create the folders."""
        for folder in (self.output, self.state, self.home, self.result_file.parent):
            folder.mkdir(parents=True)


class SpooledRun:
    """A run in the spool. What a method notes is durable when it returns; each raises `OSError` when the disk refuses.

    Attributes:
        root: Its folder.
        run: Its id.
        log: The file of its log.
        downloads: Where the browser's downloads appear.
        browser: What the browser needs for itself.
        trees: Where copies of the release's files are.
        database: What is known of it.
        sent: Which of its files are in the bucket.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.root = root
        self.run = run
        self.log = root / "log.jsonl"
        self.downloads = root / "downloads"
        self.browser = root / "browser"
        self.trees = root / "trees"
        self.database = Database(root / DATABASE)
        self.sent = SentFiles(self.database)

    def job(self, name: str) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / name

    def restored_state(self, name: str) -> Path:
        """Return the file of the state that a job began with."""
        return self.job(name) / "state.restored.tar.gz"

    def saved_state(self, name: str) -> Path:
        """Return the file of the state that a job left."""
        return self.job(name) / "state.tar.gz"

    def workspace(self, name: str, number: int) -> Workspace:
        """Return the workspace of an attempt."""
        return Workspace(self.job(name) / str(number))

    def workspaces(self, name: str) -> list[Workspace]:
        """Return the workspaces of a job's attempts so far, in order."""
        if not self.job(name).is_dir():
            return []
        numbers = sorted(
            int(path.name) for path in self.job(name).iterdir() if path.name.isdecimal()
        )
        return [self.workspace(name, number) for number in numbers]

    def output(self, name: str) -> Path | None:
        """Return the output folder whose files are delivered: the last attempt's."""
        spaces = self.workspaces(name)
        return spaces[-1].output if spaces else None

    def started_jobs(self) -> frozenset[str]:
        """Return the jobs whose program was started."""
        folder = self.root / "jobs"
        if not folder.is_dir():
            return frozenset()
        return frozenset(path.name for path in folder.iterdir() if self.workspaces(path.name))

    def begin(self, batch: Batch, began: Began) -> None:
        """Note for which batch the run is: from now on it may be in the bucket."""
        self.database.note(
            schedule=batch.schedule,
            batch=batch.name,
            began=began.model_dump_json(exclude_none=True),
        )

    @property
    def batch(self) -> Batch | None:
        """Its batch; None before `begin`."""
        schedule, name = self.database.noted("schedule"), self.database.noted("batch")
        return Batch(schedule, name) if schedule is not None and name is not None else None

    @property
    def began(self) -> Began | None:
        """How it began; None before `begin`."""
        text = self.database.noted("began")
        return Began.model_validate_json(text) if text else None

    def arrived(self, bucket: str) -> None:
        """Note the bucket that has taken the run's beginning: all of the run belongs there."""
        self.database.note(bucket=bucket)

    @property
    def bucket(self) -> str | None:
        """The identity of that bucket; None while none has answered."""
        return self.database.noted("bucket")

    def plan(self, planned: Planned) -> None:
        """Note what the run is going to do."""
        self.database.note(planned=planned.model_dump_json(exclude_none=True))

    @property
    def planned(self) -> Planned | None:
        """Its latest plan."""
        text = self.database.noted("planned")
        return Planned.model_validate_json(text) if text else None

    def save(self, record: RunRecord, *, concluded: bool = False) -> None:
        """Note what the manifest would say if the run ended now; with `concluded`, what it will say."""
        text = record.model_dump_json(exclude_none=True)
        self.database.note(record=text, concluded=str(int(concluded)))

    @property
    def record(self) -> RunRecord | None:
        """What was saved last."""
        text = self.database.noted("record")
        return RunRecord.model_validate_json(text) if text else None

    @property
    def concluded(self) -> bool:
        """Whether that is how the run ended."""
        return self.database.noted("concluded") == "1"

    def seal_end(self, closing: Closing) -> None:
        """Note the end that the run gets in the bucket, or that it is there."""
        self.database.note(closing=closing.model_dump_json(exclude_none=True))

    @property
    def closing(self) -> Closing | None:
        """Its end."""
        text = self.database.noted("closing")
        return Closing.model_validate_json(text) if text else None

    def end(self, finished: Finished, *, held: bool) -> None:
        """Note that a job ended."""
        row = (finished.job.name, finished.model_dump_json(exclude_none=True), held)
        self.database.change(_END, [row], durable=True)

    def release(self) -> None:
        """Let what is held be committed."""
        self.database.change("UPDATE job SET held = ? WHERE held", [(False,)], durable=True)

    def seal(self, entry: Ended) -> None:
        """Note that a job's package, which is kept under its name, does not change any more."""
        text = entry.model_dump_json(exclude_none=True)
        self._set_entry(entry.name, text, Stage.SEALED)

    def unseal(self, name: str) -> None:
        """Note that a package is to be sealed again: the bucket lacks what it names. It must be in no entry."""
        self._set_entry(name, None, Stage.ENDED)

    def _set_entry(self, name: str, entry: str | None, stage: Stage) -> None:
        statement = "UPDATE job SET entry = ?, stage = ? WHERE name = ? AND stage < ?"
        self.database.change(statement, [(entry, stage, name, Stage.COMMITTED)], durable=True)

    def commit(self, names: Iterable[str]) -> None:
        """Note that jobs are in the batch's log, and were seen there."""
        rows = [(Stage.COMMITTED, name) for name in names]
        self.database.change("UPDATE job SET stage = ? WHERE name = ?", rows, durable=True)

    def jobs(self) -> list[SpooledJob]:
        """Return the jobs that ended, in that order."""
        return [_job(row) for row in self.database.rows(f"{_JOBS} ORDER BY rowid")]

    def ended(self, name: str) -> SpooledJob | None:
        """Return a job that ended."""
        return next(map(_job, self.database.rows(f"{_JOBS} WHERE name = ?", name)), None)

    def cut_part(self, part: LogPart) -> None:
        """Note a part of the log before it is put, or how far it is."""
        statement = "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?)"
        self.database.change(statement, [part], durable=True)

    def parts(self) -> list[LogPart]:
        """Return the parts of the log so far."""
        query = "SELECT number, start, stop, sha256, stage FROM part ORDER BY number"
        return [LogPart(*row) for row in self.database.rows(query)]

    def discard(self, log: Log, *, remove: bool = True) -> None:
        """Rename the folder of a closed run, so that no later run finds it; with `remove`, delete it then."""
        self.database.close()
        gone = self.root.with_name(f".gone-{self.root.name}")
        self.root.rename(gone)
        sync_directory(gone.parent)
        if remove:
            _clear_away(gone, log)


class Spool:
    """All runs that are not closed yet.

    Attributes:
        warnings: Which runs were damaged, and where they are now, or belong to another bucket: for the manifest of the
            run that found them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: tuple[str, ...] = ()
        self._remains: list[Path] = []

    def begin(self, run: str) -> SpooledRun:
        """Create a run; from now on a later run finishes it if this process dies."""
        draft = self.root / f".begin-{run}"
        draft.mkdir(parents=True)
        Database(draft / DATABASE).create()
        sync_directory(draft)
        root = draft.rename(self.root / run)
        sync_directory(self.root)
        return SpooledRun(root, run)

    def pending(self, log: Log) -> list[SpooledRun]:
        """Return the runs to finish, the oldest first; what is half begun or half removed is left to `sweep`.

        A run whose database cannot be read is put aside.

        Raises:
            OSError: The disk takes nothing; no run is to blame for that.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        runs = []
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((".begin-", ".gone-")):
                self._remains.append(path)
            elif is_run_id(path.name):
                run = SpooledRun(path, path.name)
                try:
                    run.database.check()
                except (OSError, ValueError) as error:
                    if whole_disk(error):
                        raise
                    if not is_shortage(error):
                        self.put_aside(run, f"what is known of it cannot be read: {error}", log)
                        continue
                finally:
                    run.database.close()  # hundreds may wait, of three descriptors each
                runs.append(run)
        return runs

    def sweep(self, log: Log) -> None:
        """Delete what `pending` found half begun or half removed: thousands of files, for which no job should wait."""
        while self._remains:
            _clear_away(self._remains.pop(), log)

    def leave(self, run: SpooledRun, configured: str, log: Log) -> None:
        """Leave a run that another bucket has begun to take: the one that is `configured` would get half of it."""
        reason = (
            f"it was begun in {run.bucket}, and the bucket is now {configured}; to deliver it, run once with"
            f" the settings of that bucket, or remove {run.root}"
        )
        run.database.close()
        log.warning("recovery.other_bucket", of=run.run, reason=reason)
        self.warnings = (*self.warnings, f"the earlier run {run.run} waits: {reason}")

    def put_aside(self, run: SpooledRun, reason: str, log: Log) -> None:
        """Move a damaged run to `broken/`, for a person to look at; one that cannot be moved stays where it is."""
        run.database.close()
        path, aside = run.root, self.root / "broken"
        reason = " ".join(reason.split())[:500]
        names = chain([path.name], (f"{path.name}.{number}" for number in count(2)))
        try:
            aside.mkdir(exist_ok=True)
            target = next(aside / name for name in names if not (aside / name).exists())
            path.rename(target)
            sync_directory(self.root)
        except OSError as error:
            target, reason = path, f"{reason}; it cannot be moved to {aside}: {error}"
        log.error("spool.put_aside", of=path.name, folder=str(target), reason=reason)
        self.warnings = (
            *self.warnings,
            f"the earlier run {path.name} cannot be delivered ({reason}); its files are in {target}",
        )


_JOBS = "SELECT finished, held, stage, entry FROM job"
_END = """
INSERT INTO job (name, finished, held, stage) VALUES (?, ?, ?, 0)
ON CONFLICT (name) DO UPDATE SET finished = excluded.finished, held = excluded.held WHERE stage = 0
"""


def _job(row: tuple[str, int, int, str | None]) -> SpooledJob:
    finished, held, stage, entry = row
    return SpooledJob(
        Finished.model_validate_json(finished),
        bool(held),
        Stage(stage),
        Ended.model_validate_json(entry) if entry else None,
    )


def _clear_away(path: Path, log: Log) -> None:
    """Delete a folder that no run needs. What cannot be deleted is logged, and keeps no run from its work."""
    try:
        remove_tree(path)
    except OSError as error:
        log.warning("spool.not_removed", folder=str(path), reason=str(error))
