"""kill -9 of a delivery at every stage, and what comes of it: with the disk kept, and with the disk wiped."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.batch.fold import State, fold
from agent.batch.log import LogReader
from agent.contract.layout import EntryKey, parse_key
from agent.contract.results import JobStatus
from agent.delivery.spool import Spool, SpooledRun
from tests.delivery.points import DIES, IN_RECOVERY, NEVER, POINTS
from tests.delivery.program import FILES, STATUS
from tests.delivery.world import World, folder_bucket

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
KILLED = -9


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
    # The one job whose files would be sent while it runs is committed by then.
    assert case.start("brief", DIES) == KILLED
    assert case.start("recover", point) == KILLED, "the point is never reached"
    await case.check(kept=False)
    await case.recover()
