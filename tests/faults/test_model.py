"""Agent, kills, disks, store and readers against the simplest model of what is visible: jobs, which only grow more.

The real spool, delivery and recovery work on a real bucket in a folder; each request to it may be the one at which the
process dies, the store fails, or the store lies, and each disk may be gone. Pull and history are the real ones. What
the bucket holds is judged with json and hashlib alone.

`MAYFLY_MODEL_SEQUENCES=1000` is the long form; `MAYFLY_MODEL_SEED` replays.
"""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agent.base.errors import StoreError
from agent.base.logs import RunLogger
from agent.contract.ids import Batch, run_id
from agent.contract.results import JobStatus
from agent.delivery.spool import Spool, SpooledRun
from consumer.follow import poll
from consumer.pull.folder import Destination
from consumer.pull.plan import Wish
from consumer.pull.report import Rejected
from consumer.pull.session import pull
from consumer.store import Store
from tests.bucket.bucket import Bucket as Delivered
from tests.bucket.sound import File, Inspection, Looker, lost
from tests.delivery.world import SECONDS, World, now
from tests.faults.figures import Figures
from tests.faults.hurry import run_hurried
from tests.faults.readers import QUIET
from tests.faults.shaky import Fault, Killed, Shaky, Trouble

SEQUENCES = int(os.environ.get("MAYFLY_MODEL_SEQUENCES", "12"))
SEED = int(os.environ.get("MAYFLY_MODEL_SEED", "1"))
STEPS = 20
MEMORY = Path("/dev/shm")
"""Where the bucket is: thousands of synced writes say nothing more on a disk."""

MUCH = b"more than is read in one go " * 40_000
LARGE = st.just("much").map(lambda _: MUCH)
"""One object: Hypothesis keeps what it has drawn for each of its sequences, of which a thousand took 14 GB."""

Files = Mapping[str, bytes]
Jobs = list[tuple[bool, Files]]

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
FAULTS = st.builds(Fault, st.integers(0, 40), st.sampled_from(Trouble)) | st.builds(
    Fault, st.integers(0, 6), st.sampled_from(Trouble), st.just("batches/")
)
NO_FAULT = Fault(0, Trouble.NONE)
TALLY: Counter[str] = Counter()


class Visible(RuleBasedStateMachine):
    """The model: what jobs have finished, what was said to be committed, what was seen, and that none of it goes away.

    Attributes:
        finished: What the jobs of each run have finished.
        told: Jobs of which the agent said that they are committed.
        gone: Runs whose disk is gone with them.
        committed: What was visible, and the sha256 of its package.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.spool = Spool(self.root / "spool")
        self.bucket = Delivered.in_folder(self.root / "bucket")
        self.looker = Looker(self.bucket.objects)
        self.finished: dict[str, set[File]] = {}
        self.told: set[tuple[str, str]] = set()
        self.gone: set[str] = set()
        self.committed: dict[tuple[str, str], str] = {}
        self.home: dict[str, bytes] = {}
        self.history: set[tuple[str, str]] = set()

    # The agent's side.

    @rule(jobs=JOBS, dies_after=st.integers(0, 4), fault=FAULTS)
    def work(self, jobs: Jobs, dies_after: int, fault: Fault) -> None:
        """A run does its jobs, and delivers each as it ends; it may die in the middle of one of them."""
        run = self.spool.begin(run_id(now(), len(self.finished).to_bytes(3, "big")))
        self.finished[run.run] = set()

        async def work(world: World) -> None:
            names = [f"job-{number}" for number in range(len(jobs))]
            async with world.under_way(*names) as delivery:
                for number, (works, files) in enumerate(jobs):
                    self._do_job(world, names[number], files)
                    if number >= dies_after:
                        TALLY["runs that died at work"] += 1
                        raise Killed
                    status = JobStatus.SUCCEEDED if works else JobStatus.FAILED
                    await delivery.ended(world.finished(names[number], status))
                pending = await delivery.flush(SECONDS)
                await delivery.close(world.record(), pending, keeps_disk=True)
                self.told |= {(run.run, name) for name in {*names} - {*pending}}
            if not pending:
                run.discard(world.log)

        self._process(work, fault, run)

    def _do_job(self, world: World, name: str, files: Files) -> None:
        world.attempt(name, files)
        for path, content in files.items():
            self.finished[world.run.run].add(
                File(world.run.run, name, path, sha256(content).hexdigest())
            )
        world.note('{"event": "job"}')

    @rule(jobs=JOBS, fault=FAULTS)
    def die_and_be_finished(self, jobs: Jobs, fault: Fault) -> None:
        """A run dies in its last job; the next process finishes it as far as it gets."""
        self.work(jobs, len(jobs) - 1, NO_FAULT)
        self.hand_over(fault)

    @rule(fault=FAULTS)
    def hand_over(self, fault: Fault) -> None:
        """The next process finds what waits, and finishes it as far as it gets."""
        runs = self._pending()

        async def deliver(world: World) -> None:
            delivered = await world.recovered(runs)
            assert isinstance(world.bucket, Shaky)
            quiet = fault.trouble is Trouble.NONE or world.bucket.requests <= fault.at
            TALLY["runs finished by a later process"] += delivered
            TALLY["of these processes, under a fault"] += not quiet
            if quiet:
                assert delivered == len(runs)
                assert not self._pending()

        self._process(deliver, fault, None)

    def _pending(self) -> list[SpooledRun]:
        return self.spool.pending(RunLogger(lambda _: None).log)

    @rule()
    def vanish(self) -> None:
        """The machine is gone with its disk."""
        runs = {run.run for run in self._pending()}
        TALLY["runs whose disk was gone"] += len(runs)
        self.gone |= runs
        shutil.rmtree(self.spool.root)
        self.spool = Spool(self.root / "spool")

    def _process(
        self, work: Callable[[World], Awaitable[None]], fault: Fault, run: SpooledRun | None
    ) -> None:
        """Do something in a process of its own, which a fault may kill; the store's failures are expected.

        Args:
            work: What it does.
            fault: What happens meanwhile.
            run: The run that the process is; None for one that only finishes others.
        """
        bucket = Shaky(self.bucket.root, fault)
        batch = Batch.of_run("main", run.run) if run else None
        world = World(self.spool, bucket, run, batch, concurrency=3)  # type: ignore[arg-type]

        async def main() -> None:
            task = asyncio.ensure_future(work(world))
            bucket.on_kill = task.cancel
            try:
                await task
            except (asyncio.CancelledError, Killed):
                TALLY["processes killed"] += 1
            except BaseExceptionGroup as group:
                if group.split(Killed)[1] is not None:
                    raise
                TALLY["processes killed"] += 1
            except StoreError:
                TALLY["processes that the store failed"] += 1

        try:
            run_hurried(main())
        finally:
            for event in world.events:
                if event["event"] == "jobs.committed":
                    of = event.get("of") or run.run  # type: ignore[union-attr]
                    self.told |= {(of, name) for name in event["jobs"]}

    # The readers' side.

    @rule()
    def come_home(self) -> None:
        """At home is what is committed: each file of each job, whole, and nothing that was there is gone."""
        if not self.bucket.root.is_dir():
            return
        asyncio.run(self._come_home())
        found = {
            path.relative_to(self.root / "home").as_posix(): path.read_bytes()
            for path in (self.root / "home").rglob("*")
            if path.is_file() and not {".mayfly", "latest"} & {*path.parts}
        }
        assert found.items() >= self.home.items(), "something at home has changed"
        seen = self.looker.look()
        wanted = {
            f"{job}/{run}/{path}"
            for run, job in self.committed
            for path in (
                "datapackage.json",
                *(one["path"] for one in (seen.package(run, job) or {})["resources"]),
            )
        }
        assert set(found) == wanted
        assert self.history == set(self.committed), "the history differs from what is committed"
        self.home = found
        TALLY["pulls"] += 1

    async def _come_home(self) -> None:
        bucket = self.bucket.reader()
        store = Store.open(self.root / "history", bucket.identity, now())
        try:
            await poll(bucket, store, now())
            with Destination.open(self.root / "home") as folder:
                report = await pull(bucket, store, folder, Wish(partial=True), QUIET)
            assert not any(isinstance(event, Rejected) for event in report.events)
            known = {(run.id, job.name) for _, run in store.history().runs for job in run.jobs}
            assert known >= self.history, "the history has forgotten a job"
            self.history = known
        finally:
            store.close()

    # What always holds.

    @invariant()
    def visible_jobs_are_whole_and_stay(self) -> None:
        """Each visible job has all that it finished, and what it names; none is gone or has changed."""
        seen = self.looker.look()
        assert [one for one in seen.problems() if one[0] != "unlisted"] == []
        committed = packages(seen)
        assert committed.items() >= self.committed.items(), "a visible job is gone, or has changed"
        assert self.told <= committed.keys(), "what was said to be committed is not"
        for run, job in committed.keys() - self.committed.keys():
            files = [file for file in self.finished[run] if file.job == job]
            assert lost(seen, files) == [], "what was finished is lost"
        self.committed = committed

    def teardown(self) -> None:
        """When nothing fails any more, one process delivers all that has a disk, and every reader sees it."""
        try:
            self.hand_over(NO_FAULT)
            self.visible_jobs_are_whole_and_stay()
            seen = self.looker.look()
            assert list(seen.problems()) == []
            assert seen.unended() <= self.gone
            files = [file for run, made in self.finished.items() for file in made]
            assert lost(seen, [file for file in files if file.run not in self.gone]) == []
            self.come_home()
            TALLY["runs"] += len(self.finished)
        finally:
            shutil.rmtree(self.root)


def packages(seen: Inspection) -> dict[tuple[str, str], str]:
    """Return the sha256 of the packages of all jobs that are committed."""
    return {
        (run.id, name): row["package"]["sha256"]
        for run in seen.runs.values()
        for name, row in run.told.items()
    }


def test_visible_is_what_was_committed() -> None:
    """Whatever happens in whichever order: the readers see the committed jobs, each whole, for ever."""
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
        command=f"MAYFLY_MODEL_SEQUENCES={SEQUENCES} pytest tests/faults/test_model.py -s",
        columns=("what", "how many"),
        seed=SEED,
        long=SEQUENCES >= 1000,
    )
    figures.row("sequences of up to 20 steps", SEQUENCES)
    for what, count in sorted(TALLY.items()):
        figures.row(what, count)
    figures.row("differences from the model", 0)
    figures.write()
