"""A run that is delivered, or the recovery of one, in a process that is killed at a named point.

    python -m tests.delivery.program run|brief|recover STATE BUCKET LEDGER POINT

`brief` is a run of which nothing is sent before its job has ended.

POINT is `module:function:edge:occurrence`, as tests/faults/crash.py has it; an occurrence of 0 never kills. LEDGER is a
file that gets a line for what the run knows to be true.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from agent.contract.results import JobStatus, RunStatus
from agent.delivery.spool import Spool
from tests.delivery.world import SECONDS, World, folder_bucket
from tests.faults.crash import Killer

LARGE = bytes(range(256)) * 8192
FILES = {
    "a": {"1": b"one", "deep/2": b"two", "large": LARGE},
    "b": {"r": b"result", ".evidence/page.html": b"<p>"},
    "c": {"3": b"three"},
    "d": {"4": b"four"},
}
STATUS = {"a": JobStatus.SUCCEEDED, "b": JobStatus.FAILED, "c": JobStatus.SUCCEEDED}

Tell = Callable[[str], None]


async def run(state: Path, bucket: Path, tell: Tell, *, early: bool = True) -> None:
    """Deliver jobs a, b and c; d runs when the run is told to stop."""
    world = World.make(state, folder_bucket(bucket))
    world.note('{"event": "began"}')
    async with world.under_way("a", "b", "c", "d") as delivery:
        output = world.attempt("a", FILES["a"])
        world.run.saved_state("a").write_bytes(b"state")
        if early:
            async with delivery.watch("a", output):
                await asyncio.sleep(2.5)  # two scans
        await delivery.ended(world.finished("a"))
        tell("ended a")
        world.attempt("b", FILES["b"])
        world.attempt("d", FILES["d"])
        await delivery.ended(world.finished("b", STATUS["b"]))
        tell("ended b")
        await delivery.flush(SECONDS)
        tell("committed a")
        tell("committed b")
        world.note('{"event": "half"}')
        world.attempt("c", FILES["c"])
        await delivery.ended(world.finished("c"), hold=True)
        tell("ended c")
        pending = await delivery.flush(SECONDS)
        tell("committed c")
        record = world.record(RunStatus.INTERRUPTED)
        await delivery.close(record, pending, keeps_disk=True)
        tell("closed")
    world.run.discard(world.log)


async def recover(state: Path, bucket: Path, tell: Tell) -> None:
    """Finish what an earlier process left."""
    world = World(Spool(state / "spool"), folder_bucket(bucket), None, None)  # type: ignore[arg-type]
    await world.recovered()
    for event in world.events:
        if event["level"] in {"warning", "error"}:
            tell(f"{event}")


def main() -> None:
    """Do it under the eyes of a killer."""
    mode, state, bucket, ledger, point = sys.argv[1:]
    place = point.rpartition(":")[0].rpartition(":")[0]
    killer = Killer(point, "-", frozenset({place}))

    def tell(line: str) -> None:
        with Path(ledger).open("a") as stream:
            stream.write(f"{line}\n")

    threading.settrace(killer.trace)
    sys.settrace(killer.trace)
    where = (Path(state), Path(bucket), tell)
    asyncio.run(recover(*where) if mode == "recover" else run(*where, early=mode == "run"))


if __name__ == "__main__":
    main()
