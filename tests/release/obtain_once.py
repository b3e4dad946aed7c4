"""Obtains a release once, in a process of its own that a test kills: `python -m tests.release.obtain_once ...`."""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.base.logs import RunLogger, json_sink
from agent.cli import leave
from agent.config.settings import Release
from agent.contract.ids import run_id
from agent.release.context import ReleaseContext
from agent.release.memory import Memory, Writer
from agent.release.obtain import obtain
from agent.release.store import ReleaseStore, good_of

LASTS_SECONDS = 60.0


async def _obtain(repository: str, state: str, cache: str) -> None:
    release_store = ReleaseStore.at(Path(state), Path(cache))
    now = datetime.now(UTC)
    memory = Memory(
        "v*",
        Writer(run_id(now, os.urandom(3)), "once", now + timedelta(hours=1)),
        copy=release_store.copy,
        now=lambda: datetime.now(UTC),
        log=RunLogger(json_sink(sys.stderr)).log,
    )
    obtained = await obtain(
        ReleaseContext(
            settings=Release(repository=repository),
            release_store=release_store,
            memory=memory,
            environ=os.environ,
            version="0.2.0",
            now=datetime.now(UTC),
            log=RunLogger(json_sink(sys.stderr)).log,
        )
    )
    memory.learn(good=good_of(obtained.release))


if __name__ == "__main__":
    asyncio.run(_obtain(*sys.argv[1:]))
    # A run has its jobs to do now: whoever kills it finds it, however late on a busy machine.
    time.sleep(LASTS_SECONDS)
    leave(0)
