"""kill -9 of a delivery at every stage, and what comes of it: with the disk kept, and with the disk wiped."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.batch.fold import State, fold
from agent.batch.log import LogReader
from agent.contract.ids import Batch
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
    *_at("delivery.closing", "Closer._seal", *BOTH, times=[1]),
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
    *_at("delivery.closing", "Closer._seal", *BOTH, times=[1]),
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
        return _world(bucket, batch), fold(batch, await LogReader(bucket, batch).look())

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


def _world(bucket: object, batch: Batch) -> World:
    return World(Spool(Path("/nowhere")), bucket, None, batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("point", sorted({*POINTS, *IN_RECOVERY}))
def test_the_points_are_places_in_the_program(point: str) -> None:
    """A function that is renamed takes its crash point with it, or this fails."""
    module, function, edge, _ = point.split(":")
    value: object = importlib.import_module(module)
    for name in function.split("."):
        value = getattr(value, name)
    assert callable(value)
    assert edge in BOTH


async def _killed_at(folder: Path, point: str) -> None:
    case = Case(folder)
    assert case.start("run", point) == KILLED, "the point is never reached"
    # The disk is gone: what was committed is there, and whole.
    await case.check(kept=False)
    # The disk is there: what had ended is committed, and the run is closed.
    assert case.start("recover", NEVER) == 0
    spooled = [path.name for path in (case.state / "spool").iterdir()]
    assert [name for name in spooled if not name.startswith((".gone-", ".begin-"))] == []
    await case.check(kept=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("point", POINTS[::12])
async def test_killed(tmp_path: Path, point: str) -> None:
    """Some of the points."""
    await _killed_at(tmp_path / "computer", point)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_killed_at_every_point(tmp_path: Path) -> None:
    """What had ended is committed once with the disk kept; what was committed is whole with the disk wiped."""
    for number, point in enumerate(POINTS):
        await _killed_at(tmp_path / str(number), point)


async def _killed_in_recovery(folder: Path, point: str) -> None:
    case = Case(folder)
    assert case.start("run", DIES) == KILLED
    assert case.start("recover", point) == KILLED, "the point is never reached"
    await case.check(kept=False)
    assert case.start("recover", NEVER) == 0
    await case.check(kept=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("point", IN_RECOVERY[::8])
async def test_killed_in_recovery(tmp_path: Path, point: str) -> None:
    """Whoever finishes a run may be killed as well."""
    await _killed_in_recovery(tmp_path / "computer", point)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_killed_in_recovery_at_every_point(tmp_path: Path) -> None:
    """The same, everywhere."""
    for number, point in enumerate(IN_RECOVERY):
        await _killed_in_recovery(tmp_path / str(number), point)
