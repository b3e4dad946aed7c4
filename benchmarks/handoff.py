"""The hand-off of one job's files, alone: `handoff.py FOLDER BUCKET PREFIX REPORT`, the endpoint in the environment.

`FOLDER/many` becomes the output of a job that succeeded, is handed over and committed by the agent's own code, and is
put back where it was. The report has what the agent, which runs already when it comes to this, takes for it: wall-clock
and CPU seconds without Python's start and the imports.
"""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.core.results import JobResult, JobStatus
from agent.steps.commit import commit, hand_over
from agent.steps.courier import Courier
from agent.steps.opening import new_journal
from agent.steps.spool import Spool

from agent.base.logs import RunLogger
from agent.base.progress import NullProgress
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.cli import leave
from agent.config.credentials import static_credentials
from agent.config.settings import Store

JOB = "many"


async def main(folder: Path, bucket: str, prefix: str) -> tuple[float, float]:
    """Hand it over, and return the seconds that took."""
    journal = new_journal(folder)
    now = journal.run.started
    ended = JobResult(name=JOB, status=JobStatus.SUCCEEDED, started=now, finished=now)
    run = Spool(folder / "spool").begin(journal.with_result(ended))
    run.log.touch()
    space = run.workspace(JOB, 1)
    space.root.mkdir(parents=True)
    (folder / JOB).rename(space.output)
    began, used = time.monotonic(), time.process_time()
    try:
        store = Store(url=f"s3://{bucket}/{prefix}", endpoint=os.environ["MAYFLY_STORE_ENDPOINT"])
        address = bucket_at(store, folder)
        opened: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
        opened.set_result(Bucket.open(address, static_credentials(os.environ)))
        log = RunLogger().log
        courier = Courier(
            run,
            opened,
            concurrency=store.concurrency,
            redactor=lambda: None,
            log=log,
            progress=NullProgress(),
        )
        await hand_over(run, courier, opened.result(), log)
        await commit(run, opened.result(), datetime.now(UTC))
        return time.monotonic() - began, time.process_time() - used
    finally:
        space.output.rename(folder / JOB)
        run.discard(RunLogger().log)


if __name__ == "__main__":
    took = asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
    Path(sys.argv[4]).write_text(" ".join(str(seconds) for seconds in took))
    leave(0)
