"""kill -9 of a delivery at every stage, and what comes of it: with the disk kept, and with the disk wiped."""

import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pytest

from agent.batch.fold import State, fold
from agent.batch.log import LogReader
from agent.contract.layout import EntryKey, parse_key
from agent.contract.results import JobStatus
from agent.delivery.spool import Spool, SpooledRun
from tests.delivery.program import FILES, STATUS
from tests.delivery.world import World, folder_bucket

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
KILLED = -9


def _at(module: str, function: str, *edges: str, times: Sequence[int] = (1, 2)) -> list[str]:
    return [f"agent.{module}:{function}:{edge}:{time}" for edge in edges for time in times]


BOTH = ("enter", "leave")
POINTS = [
    *_at("delivery.spool", "Spool.begin", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.begin", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.plan", *BOTH, times=[1]),
    *_at("delivery.uploader", "Uploader._put", *BOTH, times=[1, 3, 5]),
    *_at("delivery.sent", "SentFiles.note", *BOTH),
    *_at("delivery.spool", "SpooledRun.end", *BOTH, times=[1, 2, 3]),
    *_at("delivery.sent", "SentFiles.expect", "leave"),
    *_at("delivery.sent", "SentFiles.hold", *BOTH),
    *_at("delivery.database", "Database.keep", *BOTH, times=[1, 2, 3, 4]),
    *_at("delivery.spool", "SpooledRun.seal", *BOTH, times=[1, 2, 3]),
    *_at("delivery.prepare", "put_document", *BOTH, times=[1, 2, 3, 4]),
    *_at("delivery.prepare", "Preparer._put_state", *BOTH, times=[1]),
    *_at("delivery.committer", "Committer._append", *BOTH, times=[1, 2, 3]),
    *_at("batch.log", "LogWriter._put", *BOTH, times=[1, 2, 3, 4]),
    *_at("batch.log", "LogWriter._point", *BOTH, times=[1, 2, 3]),
    *_at("batch.log", "LogWriter.prove", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.commit", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.cut_part", *BOTH, times=[1, 2, 3]),
    *_at("delivery.delivery", "Delivery._seal_manifest", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal_end", *BOTH),
    *_at("delivery.spool", "SpooledRun.discard", *BOTH, times=[1]),
    *_at("base.durable", "sync_file_system", *BOTH, times=[1, 2, 3, 4]),
]
IN_RECOVERY = [
    *_at("delivery.spool", "SpooledRun.end", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal", *BOTH),
    *_at("delivery.prepare", "put_document", *BOTH),
    *_at("delivery.committer", "Committer._append", *BOTH),
    *_at("batch.log", "LogWriter._put", *BOTH),
    *_at("batch.log", "LogWriter.prove", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.commit", *BOTH, times=[1]),
    *_at("delivery.delivery", "Delivery._seal_manifest", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal_end", *BOTH),
    *_at("delivery.spool", "SpooledRun.discard", *BOTH, times=[1]),
]
DIES = "agent.delivery.spool:SpooledRun.end:leave:3"
"""Where the run is killed whose recovery is killed: a and b are committed, c has ended, d runs."""
NEVER = "agent.delivery.spool:SpooledRun.commit:leave:0"


@dataclass
class Case:
    """A computer whose agent is killed.

    Attributes:
        folder: Its folder; state and bucket are below it.
    """

    folder: Path

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "state"

    @property
    def told(self) -> set[str]:
        """What the run knew to be true when it was killed."""
        ledger = self.folder / "ledger"
        return set(ledger.read_text().splitlines()) if ledger.exists() else set()

    def start(self, mode: str, point: str) -> int:
        """Run the program, and return its exit code."""
        paths = [str(self.folder / name) for name in ("state", "bucket", "ledger")]
        command = [sys.executable, "-m", "tests.delivery.program", mode, *paths, point]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode in {0, KILLED}, done.stderr.decode()
        return done.returncode

    async def state_of_batch(self) -> tuple[World, State] | None:
        """Return the one batch that the bucket knows, and a reader of it."""
        bucket = folder_bucket(self.folder / "bucket")
        keys = [parse_key(item.key) async for item in bucket.list("batches/")]
        batches = {key.batch for key in keys if isinstance(key, EntryKey)}
        if not batches:
            return None
        (batch,) = batches
        world = World(Spool(self.state), bucket, None, batch)  # type: ignore[arg-type]
        return world, fold(batch, await LogReader(bucket, batch).look())

    async def recover(self) -> None:
        """Finish what was killed, and check that all of it is there."""
        assert self.start("recover", NEVER) == 0
        spooled = [path.name for path in (self.state / "spool").iterdir()]
        assert [name for name in spooled if not name.startswith((".gone-", ".begin-"))] == []
        await self.check(kept=True)

    async def check(self, *, kept: bool) -> None:
        """Check that the bucket has what it must have, and nothing that is wrong."""
        found = await self.state_of_batch()
        told = {line for line in self.told if line != "closed"}
        wanted = {line.split()[1] for line in told if kept or line.startswith("committed")}
        if found is None:
            assert wanted == set()
            return
        world, state = found
        (run,) = state.runs.values()
        assert state.invalid == {}
        assert wanted <= set(run.results)
        for name, result in run.results.items():
            package = await world.sound(result.job)
            assert package is not None
            stored = {one.path.removeprefix("files/") for one in package.resources}
            results = {path for path in FILES[name] if not path.startswith(".")}
            assert results <= stored
            assert result.job.status in {STATUS.get(name), JobStatus.INTERRUPTED}
            if name in wanted:
                assert result.job.status is STATUS[name]
        if kept:
            assert run.closed is not None
            assert set(run.closed.pending) <= set(run.results)
            world.run = SpooledRun(self.state, run.id)
            await world.manifest()


@pytest.mark.parametrize("point", sorted({*POINTS, *IN_RECOVERY}))
def test_the_points_are_places_in_the_program(point: str) -> None:
    """A function that is renamed takes its crash point with it, or this fails."""
    module, function, edge, _ = point.split(":")
    assert callable(reduce(getattr, function.split("."), importlib.import_module(module)))
    assert edge in BOTH


def _every(points: Sequence[str], short: int) -> list[object]:
    """Return all points as parameters; all but every so many are of the long form."""
    return [
        pytest.param(point, marks=[pytest.mark.long] if number % short else [])
        for number, point in enumerate(points)
    ]


@pytest.mark.parametrize("point", _every(POINTS, 12))
async def test_killed(tmp_path: Path, point: str) -> None:
    """What was committed is whole on a disk that is wiped; what had ended is committed once on one that is kept."""
    case = Case(tmp_path)
    assert case.start("run", point) == KILLED, "the point is never reached"
    await case.check(kept=False)
    await case.recover()


@pytest.mark.parametrize("point", _every(IN_RECOVERY, 8))
async def test_killed_in_recovery(tmp_path: Path, point: str) -> None:
    """Whoever finishes a run may be killed as well."""
    case = Case(tmp_path)
    assert case.start("run", DIES) == KILLED
    assert case.start("recover", point) == KILLED, "the point is never reached"
    await case.check(kept=False)
    await case.recover()
