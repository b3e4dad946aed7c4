"""Agent, kills, store and readers against the simplest model of what is visible: a set of runs that only grows.

The real spool, courier, hand-off, commit and recovery work on a real bucket in a folder; each request to it may be the
one at which the process dies, the store fails, or the store lies. Pull and history are the real ones. What the bucket
holds is judged with json and hashlib alone.

`MAYFLY_MODEL_SEQUENCES=1000` is the long form; `MAYFLY_MODEL_SEED` replays.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agent.base.logs import RunLogger
from agent.base.redact import Redactor
from agent.bucket.store import Bucket
from agent.core.ids import run_id
from agent.core.journal import Journal
from agent.core.outcome import run_status
from agent.core.results import JobResult, JobStatus
from agent.steps.recovery import deliver_pending
from agent.steps.spool import Spool, SpooledRun
from consumer.archive.follow import look
from consumer.archive.reader import Reader
from consumer.archive.writer import Writer
from consumer.bucket import ReadOnlyBucket
from consumer.pull.place import Destination
from consumer.pull.plan import Wishes
from consumer.pull.report import Refused
from consumer.pull.session import pull_once
from tests.bucket.bucket import Bucket as Delivered
from tests.bucket.layout import MANIFEST
from tests.bucket.leaving import record
from tests.bucket.sound import all_sound
from tests.faults.figures import Figures
from tests.faults.readers import Quiet
from tests.faults.shaky import Fault, Killed, Shaky, Trouble

SEQUENCES = int(os.environ.get("MAYFLY_MODEL_SEQUENCES", "12"))
SEED = int(os.environ.get("MAYFLY_MODEL_SEED", "1"))
STEPS = 20
MEMORY = Path("/dev/shm")
"""Where the bucket is: thousands of synced writes say nothing more on a disk."""

LARGE = st.just(40_000).map(lambda times: b"more than is read in one go " * times)

T = TypeVar("T")
Files = dict[str, bytes]


JOBS = st.lists(
    st.tuples(
        st.booleans(),
        st.dictionaries(
            st.sampled_from(["a", "b/c", "b/d", "\u540d.txt", "e"]),
            st.binary(max_size=40) | LARGE,
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=3,
)
FAULTS = st.builds(Fault, st.integers(0, 24), st.sampled_from(Trouble)) | st.builds(
    Fault, st.integers(0, 4), st.sampled_from(Trouble), st.just(True)
)
TALLY: Counter[str] = Counter()


class Visible(RuleBasedStateMachine):
    """The model: what each run has finished, which runs were seen by whom, and that none of it goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.loop = asyncio.new_event_loop()
        self.log = RunLogger().log
        self.spool = Spool(self.root / "spool")
        self.finished: dict[str, Files] = {}
        self.bucket = Delivered.in_folder(self.root / "bucket")
        self.entries: dict[str, bytes] = {}
        self.committed: set[str] = set()
        self.home: dict[str, bytes] = {}
        self.history: set[str] = set()
        self.conditions = True

    # The agent's side.

    @rule(jobs=JOBS, dies_after=st.integers(0, 4))
    def work(self, jobs: list[tuple[bool, Files]], dies_after: int) -> None:
        """A run does its jobs; it dies in the middle of one of them, or before its hand-off."""
        began = datetime.now(UTC).replace(microsecond=0)
        run = run_id(began, len(self.finished).to_bytes(3, "big"))
        names = tuple(f"job-{number}" for number in range(len(jobs)))
        about = record(run).model_copy(update={"jobs": (), "started": began, "finished": began})
        spooled = self.spool.begin(Journal(run=about, planned=names))
        spooled.log.write_bytes(b'{"event":"run.started"}\n')
        self.finished[run] = {}
        for number, (name, (works, files)) in enumerate(zip(names, jobs, strict=True)):
            space = spooled.workspace(name, 1)
            space.make()
            _write(space.output, files)
            if number >= dies_after:
                TALLY["runs that died at work"] += 1
                return
            self._end_job(spooled, name, files, works=works)
        status = run_status(spooled.journal.run.jobs, interrupted=False)
        journal = spooled.journal.with_run(status=status, finished=datetime.now(UTC))
        spooled.save(journal.model_copy(update={"concluded": True}))

    def _end_job(self, run: SpooledRun, name: str, files: Files, *, works: bool) -> None:
        now = datetime.now(UTC)
        status = JobStatus.SUCCEEDED if works else JobStatus.FAILED
        run.save(
            run.journal.with_result(JobResult(name=name, status=status, started=now, finished=now))
        )
        self.finished[run.run_id] |= {f"{name}/{path}": content for path, content in files.items()}

    @rule(jobs=JOBS, fault=FAULTS)
    def work_and_hand_over(self, jobs: list[tuple[bool, Files]], fault: Fault) -> None:
        """A run does its jobs, and gets as far as it gets."""
        self.work(jobs, len(jobs))
        self.hand_over(fault)

    @rule(fault=FAULTS)
    def hand_over(self, fault: Fault) -> None:
        """The next process finds what waits, and hands it over as far as it gets."""
        bucket = Shaky(self.bucket.root, fault, conditions=self.conditions)
        runs = self.spool.pending(self.log)
        try:
            delivered = self._wait(self._deliver(bucket, runs))
        except BaseException as error:
            if not _was_killed(error):
                raise
            TALLY["processes killed while they handed over"] += 1
            return
        quiet = fault.trouble is Trouble.NONE or bucket.requests <= fault.at
        TALLY["hand-offs under a fault"] += not quiet
        if quiet:
            assert delivered == len(runs)
            assert not self.spool.pending(self.log)

    async def _deliver(self, bucket: Bucket, runs: list[SpooledRun]) -> int:
        opened: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
        opened.set_result(bucket)
        return await deliver_pending(
            self.spool,
            runs,
            opened,
            finder="20261123T000000Z-ffffff",
            concurrency=3,
            redactor=lambda: Redactor({}),
            log=self.log,
        )

    @rule()
    def store_changes(self) -> None:
        """The bucket moves to a store that ignores conditions, or back."""
        self.conditions = not self.conditions

    # The readers' side.

    @rule()
    def pull(self) -> None:
        """At home is what is committed: each file of each job, whole, and nothing that was there is gone."""
        if not (self.bucket.root).is_dir():
            return
        self._wait(self._pull())
        found = {
            path.relative_to(self.root / "home").as_posix(): path.read_bytes()
            for path in (self.root / "home").rglob("*")
            if path.is_file() and ".mayfly" not in path.parts and not _is_latest(path, self.root)
        }
        assert found.items() >= self.home.items(), "something at home has changed"
        wanted = {
            f"{path.split('/')[0]}/{run}/{path.partition('/')[2]}"
            for run in self.committed
            for path in self.bucket.run(run).results
        }
        assert {path for path in found if not path.endswith(f"/{MANIFEST}")} == wanted
        self.home = found
        TALLY["pulls"] += 1

    async def _pull(self) -> None:
        bucket = self._reader()
        with Destination.open(self.root / "home") as dest:
            report = await pull_once(bucket, dest, Wishes(partial=True), Quiet())
        assert not any(isinstance(event, Refused) for event in report.events)

    @rule()
    def follow(self) -> None:
        """The history has the committed runs, and no other."""
        if not (self.bucket.root).is_dir():
            return
        path = self.root / "history.sqlite"
        writer = Writer(path, "shaky")
        try:
            self._wait(look(self._reader(), writer, datetime.now(UTC)))
        finally:
            writer.close()
        past = Reader(path).past()
        known = {row.run for row in past.runs}
        assert past.refused == 0
        assert known >= self.history, "the history has forgotten a run"
        assert known == self.committed
        self.history = known
        TALLY["looks of the history"] += 1

    def _reader(self) -> ReadOnlyBucket:
        return self.bucket.reader()

    # What always holds.

    @invariant()
    def visible_runs_are_whole_and_stay(self) -> None:
        """Each visible run is one that began, visible once, with all that it finished; none is gone or has changed."""
        entries = {key: self.bucket.objects.get(key) for key in self.bucket.entry_keys()}
        assert entries.items() >= self.entries.items(), "a visible run is gone, or has changed"
        committed = set(all_sound(self.bucket)) if entries != self.entries else self.committed
        for run in committed - self.committed:
            finished = {path: _mark(content) for path, content in self.finished[run].items()}
            marks = self.bucket.run(run).marks
            assert marks.items() >= finished.items(), "what was finished is lost"
        self.entries, self.committed = entries, committed

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """When nothing fails any more, one process delivers all, and every reader sees it."""
        try:
            self.hand_over(Fault(0, Trouble.NONE))
            self.visible_runs_are_whole_and_stay()
            assert self.committed == set(self.finished), "a run was lost"
            self.pull()
            self.follow()
            TALLY["runs"] += len(self.finished)
        finally:
            self.loop.close()
            shutil.rmtree(self.root)


def _write(output: Path, files: Files) -> None:
    for path, content in files.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(content)


def _mark(content: bytes) -> tuple[int, str]:
    return len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"


def _is_latest(path: Path, root: Path) -> bool:
    return path.relative_to(root / "home").parts[1] == "latest"


def _was_killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_was_killed, error.exceptions))
    return isinstance(error, Killed)


def test_visible_is_what_was_committed() -> None:
    """Whatever happens in whichever order: the readers see the committed runs, each whole, for ever."""
    TALLY.clear()
    machine = seed(SEED)(Visible)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=[*HealthCheck],
        ),
    )
    figures = Figures(
        point="10",
        title="Model of what is visible",
        command="MAYFLY_MODEL_SEQUENCES=1000 pytest tests/faults/test_model.py -s",
        columns=("what", "how many"),
        seed=SEED,
        long=SEQUENCES >= 1000,
    )
    figures.row("sequences of up to 20 steps", SEQUENCES)
    for what, count in sorted(TALLY.items()):
        figures.row(what, count)
    figures.row("differences from the model", 0)
    figures.write()
