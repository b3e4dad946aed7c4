"""The spool: every run that is not yet committed, in a form that a later run can finish.

spool/<run_id>/
    run.json                    the journal, replaced atomically at every step
    log.jsonl                   the run's log
    sent.sqlite                 what is in the bucket already; a lost row costs an upload, nothing else
    downloads/                  shared with the browser
    browser/                    the browser's own files
    trees/                      copies of the release's files, in which jobs work
    jobs/<job>/state.restored.tar.gz, state.tar.gz
    jobs/<job>/<attempt>/       output/ state/ home/ tmp/ said/result.json output.log
    datapackage.json index.json the sealed manifest and the entry that will commit it
"""

from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import ValidationError

from agent.base.durable import remove_tree, sync_directory, write_atomic
from agent.base.logs import Log
from agent.core.ids import is_run_id
from agent.core.journal import Journal
from agent.core.layout import MANIFEST
from agent.core.results import JobStatus
from agent.steps.receipts import Receipts

JOURNAL = "run.json"
RECEIPTS = "sent.sqlite"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where one attempt of a job works."""

    root: Path

    @property
    def output(self) -> Path:
        """Its results."""
        return self.root / "output"

    @property
    def state(self) -> Path:
        """Its memory."""
        return self.root / "state"

    @property
    def home(self) -> Path:
        """Its home."""
        return self.root / "home"

    @property
    def result_file(self) -> Path:
        """What it says of itself."""
        return self.root / "said" / "result.json"

    @property
    def scratch(self) -> Path:
        """Its temporary files, where the isolation gives it a place of its own for them."""
        return self.root / "tmp"

    @property
    def captured(self) -> Path:
        """What it wrote to stdout and stderr."""
        return self.root / "output.log"

    def make(self) -> None:
        """Create the folders."""
        for folder in (self.output, self.state, self.home, self.result_file.parent):
            folder.mkdir(parents=True)


class SpooledRun:
    """A run in the spool.

    Attributes:
        root: Its folder.
        journal: As it was last saved.
    """

    def __init__(self, root: Path, journal: Journal) -> None:
        self.root = root
        self.journal = journal
        self._receipts: Receipts | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.journal.run.run_id

    @property
    def log(self) -> Path:
        """The run's log."""
        return self.root / "log.jsonl"

    @property
    def manifest(self) -> Path:
        """The sealed manifest."""
        return self.root / MANIFEST

    @property
    def index(self) -> Path:
        """The sealed index entry."""
        return self.root / "index.json"

    @property
    def receipts(self) -> Receipts:
        """What the bucket has of its files."""
        if self._receipts is None:
            self._receipts = Receipts(self.root / RECEIPTS)
        return self._receipts

    @property
    def downloads(self) -> Path:
        """Where the browser's downloads appear."""
        return self.root / "downloads"

    @property
    def browser(self) -> Path:
        """What the browser needs for itself."""
        return self.root / "browser"

    @property
    def trees(self) -> Path:
        """Where copies of the release's files are."""
        return self.root / "trees"

    def save(self, journal: Journal) -> None:
        """Make a new state of the run durable."""
        write_atomic(self.root / JOURNAL, journal.model_dump_json(indent=1).encode())
        self.journal = journal

    def job(self, name: str) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / name

    def restored_state(self, name: str) -> Path:
        """Return the file of the memory that a job began with."""
        return self.job(name) / "state.restored.tar.gz"

    def saved_state(self, name: str) -> Path:
        """Return the file of the memory that a job left."""
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
        """Return the output folder whose files are handed over: the last attempt's."""
        spaces = self.workspaces(name)
        return spaces[-1].output if spaces else None

    def started_jobs(self) -> frozenset[str]:
        """Return the jobs whose program was started."""
        return frozenset(name for name in self.journal.planned if self.workspaces(name))

    def states(self) -> dict[str, Path]:
        """Return what jobs that succeeded left for the next run: key in the bucket, file."""
        return {
            result.state: self.saved_state(result.name)
            for result in self.journal.run.jobs
            if result.state and result.status is JobStatus.SUCCEEDED
        }

    def become(self, journal: Journal, first_line: bytes) -> None:
        """Turn the run, which is committed, into the one that follows it; a kill leaves the one or the other.

        Args:
            journal: The follow-up's.
            first_line: What its log begins with.
        """
        # Of what was sent, the follow-up has nothing: its keys are others.
        self.receipts.remove()
        write_atomic(self.log, first_line)
        self.save(journal)
        self.root = self.root.rename(self.root.with_name(journal.run.run_id))
        self._receipts = None
        sync_directory(self.root.parent)

    def discard(self, log: Log, *, remove: bool = True) -> None:
        """Take the run, which is committed, out of sight in one step; then, with `remove`, remove it piece by piece."""
        self.receipts.close()
        gone = self.root.with_name(f".gone-{self.root.name}")
        self.root.rename(gone)
        sync_directory(gone.parent)
        if remove:
            _clear_away(gone, log)


class Spool:
    """All runs that are not committed yet.

    Attributes:
        warnings: What was damaged, and where it is now: for the manifest of the run that found it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: tuple[str, ...] = ()
        self._remains: list[Path] = []

    def begin(self, journal: Journal) -> SpooledRun:
        """Enter a new run; from now on a later run will finish it if this one does not."""
        name = journal.run.run_id
        draft = self.root / f".begin-{name}"
        draft.mkdir(parents=True)
        run = SpooledRun(draft, journal)
        run.save(journal)
        run.root = draft.rename(self.root / name)
        sync_directory(self.root)
        return run

    def pending(self, log: Log) -> list[SpooledRun]:
        """Return the runs that wait to be finished, oldest first; what is half begun or half gone waits for `sweep`.

        A run whose journal cannot be read is put aside.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        runs = []
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((".begin-", ".gone-")):
                self._remains.append(path)
            elif is_run_id(path.name):
                try:
                    text = (path / JOURNAL).read_bytes()
                    runs.append(SpooledRun(path, Journal.model_validate_json(text)))
                except (OSError, ValidationError) as error:
                    self.put_aside(path, f"its journal cannot be read: {error}", log)
        return runs

    def sweep(self, log: Log) -> None:
        """Clear away what `pending` found half begun or half gone: thousands of files, for which no job should wait."""
        while self._remains:
            _clear_away(self._remains.pop(), log)

    def put_aside(self, path: Path, reason: str, log: Log) -> None:
        """Move a run that no program can finish to `broken/`, for a person to look at; one that cannot be moved stays.

        Whatever is wrong with one run, the others go on.
        """
        reason = " ".join(reason.split())[:500]
        aside = self.root / "broken"
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
            f"the earlier run {path.name} cannot be handed over ({reason}); its files are in {target}",
        )


def _clear_away(path: Path, log: Log) -> None:
    """Remove a folder that no run needs. What a job made undeletable costs disk space, and no run."""
    try:
        remove_tree(path)
    except (OSError, RecursionError) as error:
        log.warning("spool.not_removed", folder=str(path), reason=str(error))
